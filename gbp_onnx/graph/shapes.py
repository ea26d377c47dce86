"""Arithmetic of pads and windows on plain integers. No ONNX objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "Axis",
    "inferred_window_count",
    "row_major_strides",
    "same_pads",
    "slice_positions",
    "window_can_be_empty",
    "window_count",
]


@dataclass(frozen=True, slots=True)
class Axis:
    """One spatial axis of a window operator. `size` is None where it is known only at run time."""

    size: int | None
    kernel: int
    stride: int = 1
    dilation: int = 1
    begin: int = 0
    end: int = 0

    @property
    def extent(self) -> int:
        """Positions from a window's first tap to its last, both counted."""
        return (self.kernel - 1) * self.dilation + 1


def same_pads(size: int, reach: int, stride: int, upper: bool, gaps: bool) -> tuple[int, int]:
    """Begin and end pads of auto_pad=SAME_UPPER (or SAME_LOWER) for one axis, as ONNX Runtime computes them.

    `reach`: the positions that a window is counted with. Where windows lie further apart than they reach, a pool's pads
    are negative (`gaps`): its first window starts inside the input.
    """
    total = (-(-size // stride) - 1) * stride + reach - size
    if not gaps:
        total = max(total, 0)
    begin = int((total + (0 if upper else 1)) / 2)  # towards 0
    return begin, total - begin


def window_count(axis: Axis, ceil: bool) -> int:
    """How many windows ONNX Runtime's pools take along an axis of known size."""
    room = (axis.size or 0) + axis.begin + axis.end - axis.extent
    if not ceil:
        return int(room / axis.stride) + 1  # towards 0: a window may reach a little over the padded input
    count = -(-room // axis.stride) + 1
    return count - ((count - 1) * axis.stride >= (axis.size or 0) + axis.begin)  # the last one starts in the input


def inferred_window_count(axis: Axis, ceil: bool, same: bool, since: int) -> int:
    """How many windows onnx infers for a pool defined in opset `since`: untrue where `window_count` is another."""
    size = axis.size or 0
    if same:
        return -(-size // axis.stride)
    room = size + axis.begin + axis.end - axis.extent
    if not ceil:
        return room // axis.stride + 1
    count = -(-room // axis.stride) + 1
    return count - (since >= 22 and (count - 1) * axis.stride >= size + axis.begin)


def window_can_be_empty(axis: Axis) -> bool:
    """Whether some window of a MaxPool may lie wholly in the padding, where ONNX Runtime returns a negative index."""
    if axis.dilation == 1:
        return axis.begin >= axis.kernel or axis.end >= axis.kernel
    if axis.size is None:
        return axis.begin > 0 or axis.end > 0
    last = (axis.size + axis.begin + axis.end - axis.extent) // axis.stride + 1  # one more than floor: ceil_mode
    starts = range(-axis.begin, last * axis.stride - axis.begin + 1, axis.stride)
    return any(all(not 0 <= s + t * axis.dilation < axis.size for t in range(axis.kernel)) for s in starts)


def row_major_strides(shape: Sequence[int]) -> list[int]:
    """Elements to step over for one step along each axis of a row-major array."""
    strides = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * shape[axis + 1]
    return strides


def slice_positions(start: int, end: int, step: int, size: int) -> range:
    """What ONNX Slice takes along an axis of `size`; unlike in Python, a start below -size means the first position."""
    start, stop = (v + size if v < 0 else v for v in (start, end))
    if step > 0:
        return range(min(max(start, 0), size), min(max(stop, 0), size), step)
    if end in (2**31 - 1, 2**63 - 1):  # ONNX Runtime reads the largest integers as "to the end" in either direction
        stop = -1
    return range(min(max(start, 0), size - 1), min(max(stop, -1), size - 1), step)
