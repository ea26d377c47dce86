"""Window arithmetic of Conv, ConvTranspose and the pools: axes resolved, and the transpose of a sliding window.

The transpose of every window operator is one ConvTranspose. ONNX Runtime's CUDA kernel takes symmetric pads only, so
that anything else is emitted with no pads and cropped; sizes known only at run time are cropped to the shape of the
forward input.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.reader import Node, Tensor
from gbp_onnx.graph.shapes import Axis, last_window_is_padding, same_pads
from gbp_onnx.vjp.registry import Refusal

__all__ = ["Windows", "correlate", "crop", "transpose_windows", "window_positions", "windows_of"]


@dataclass(frozen=True, slots=True)
class Windows:
    """The spatial axes of a window operator.

    `same`: SAME_UPPER or SAME_LOWER over a size known only at run time, so that `Axis.begin` is not known either;
    `ceil`: windows may reach over the end of the padded input (ceil_mode).
    """

    axes: tuple[Axis, ...]
    same: str | None = None
    ceil: bool = False

    @property
    def kernel(self) -> list[int]:
        """Taps along each axis."""
        return [a.kernel for a in self.axes]

    @property
    def strides(self) -> list[int]:
        """Steps from window to window."""
        return [a.stride for a in self.axes]

    @property
    def dilations(self) -> list[int]:
        """Steps from tap to tap."""
        return [a.dilation for a in self.axes]


def windows_of(op: Emitter, node: Node, kernel: list[int]) -> Windows:
    """Resolve kernel, strides, dilations, pads and auto_pad of `node` (ONNX Conv, MaxPool, AveragePool)."""
    count, attrs = len(kernel), node.attrs
    x = node.inputs[0]
    shape = None if x is None else op.known_shape(x)
    if shape is None:
        sizes: list[int | None] = [None] * count
    elif len(shape) != count + 2:
        raise Refusal(f"its kernel has {count} axes and its input {len(shape)}")
    else:
        sizes = [d if isinstance(d, int) else None for d in shape[2:]]
    strides = attrs.get("strides") or [1] * count
    dilations = attrs.get("dilations") or [1] * count
    pads = attrs.get("pads") or [0] * 2 * count
    auto_pad = attrs.get("auto_pad", "NOTSET")
    same = auto_pad if auto_pad in ("SAME_UPPER", "SAME_LOWER") else None
    if same and any(d > 1 for d in dilations):  # ONNX Runtime leaves the dilation out of the pads, or refuses
        raise Refusal(f"auto_pad={same} with dilations; write the pads out")
    axes = []
    for k in range(count):
        axis = Axis(sizes[k], kernel[k], strides[k], dilations[k])
        if same and axis.stride - axis.extent > 1:  # ONNX Runtime then moves the first window into the input
            raise Refusal(f"auto_pad={same} with gaps of more than one position between windows; write the pads out")
        size = axis.size
        if same is None:
            begin, end = (0, 0) if auto_pad == "VALID" else (pads[k], pads[k + count])
        elif size is not None:
            begin, end = same_pads(size, axis.extent, axis.stride, upper=same == "SAME_UPPER")
        elif axis.stride == 1:  # the total does not depend on the size
            begin, end = same_pads(axis.extent, axis.extent, 1, upper=same == "SAME_UPPER")
        else:
            begin, end = 0, 0  # computed at run time
        axes.append(Axis(size, axis.kernel, axis.stride, axis.dilation, begin, end))
    known = all(a.size is not None or a.stride == 1 for a in axes)
    ceil = bool(attrs.get("ceil_mode", 0))
    if ceil and node.version < 22 and any(map(last_window_is_padding, axes)):
        raise Refusal(
            "ceil_mode with a last window that starts in the end padding, which ONNX counts before opset 22 and ONNX "
            "Runtime does not; export with opset 22, or without ceil_mode"
        )
    return Windows(tuple(axes), None if known else same, ceil)


def begin_pads(op: Emitter, windows: Windows, x: Tensor) -> Tensor:
    """Begin pads as an int64 vector, computed at run time for SAME_* over unknown sizes."""
    if windows.same is None:
        return op.constant([a.begin for a in windows.axes])
    count = len(windows.axes)
    sizes = op.Slice(op.shape(x), [2], [2 + count], [0])
    strides = op.constant([a.stride for a in windows.axes])
    extents = op.constant([a.extent for a in windows.axes])
    outputs = op.Div(op.Sub(op.Add(sizes, strides), 1), strides)
    total = op.Max(op.Sub(op.Add(op.Mul(op.Sub(outputs, 1), strides), extents), sizes), op.constant([0]))
    half = op.Div(total, 2)
    made: Tensor = half if windows.same == "SAME_UPPER" else op.Sub(total, half)
    return made


def transpose_windows(
    op: Emitter, ct: Tensor, weight: Tensor, windows: Windows, like: Tensor, group: int = 1
) -> Tensor:
    """Add each window of `ct`, times `weight` [O, I/group, *kernel], back to where it lay: in space the size of `like`.

    The transpose of Conv with respect to its input (ONNX ConvTranspose; Dumoulin & Visin 2016, "A guide to convolution
    arithmetic", relationship 14).
    """
    axes = windows.axes
    if any(a.size is not None and a.size + a.begin + a.end < a.extent for a in axes):
        raise Refusal("its window is larger than its padded input, for which ONNX has no result")
    common = {
        "strides": windows.strides,
        "dilations": windows.dilations,
        "group": group,
        "kernel_shape": windows.kernel,
    }
    symmetric = windows.same is None and all(a.begin == a.end for a in axes)
    sizes = [a.size for a in axes if a.size is not None]
    if symmetric and not windows.ceil and len(sizes) == len(axes):
        # What the forward left over at the end (its division rounds down) comes back as output_padding.
        rest = [(size + a.begin + a.end - a.extent) % a.stride for size, a in zip(sizes, axes, strict=True)]
        made: Tensor = op.ConvTranspose(ct, weight, pads=[a.begin for a in axes] * 2, output_padding=rest, **common)
        return made
    full = op.ConvTranspose(ct, weight, output_padding=[a.stride - 1 for a in axes], **common)
    return crop(op, full, begin_pads(op, windows, like), like, len(axes))


def crop(op: Emitter, tensor: Tensor, starts: Tensor | list[int], like: Tensor, count: int) -> Tensor:
    """The box at `starts` of the `count` spatial axes of `tensor` that has the size of `like` (and lies inside)."""
    sizes = op.Slice(op.shape(like), [2], [2 + count], [0])
    made: Tensor = op.Slice(tensor, starts, op.Add(sizes, starts), list(range(2, 2 + count)))
    return made


def window_positions(op: Emitter, ct: Tensor, windows: Windows, like: Tensor, k: int) -> Tensor:
    """Where the taps of the windows of spatial axis `k` lie: int64 [windows, taps], outside 0..size in the padding."""
    axis = windows.axes[k]
    begin = op.Slice(begin_pads(op, windows, like), [k], [k + 1], [0])
    count = op.Squeeze(op.dim(ct, 2 + k), axes=[0])
    starts = op.Sub(op.Mul(op.Range(op.constant(np.int64(0)), count, op.constant(np.int64(1))), axis.stride), begin)
    taps = op.constant(np.arange(axis.kernel, dtype=np.int64)[None, :] * axis.dilation)
    made: Tensor = op.Add(op.Unsqueeze(starts, axes=[1]), taps)
    return made


def correlate(op: Emitter, data: Tensor, other: Tensor, windows: Windows, group: int) -> Tensor:
    """The sum over images and windows of data[n, c, window tap] * other[n, o, window]: [O, C/group, *kernel].

    The derivative of a convolution with respect to its weight: a convolution whose strides and dilations change places.
    """
    if windows.same is not None:
        raise Refusal("auto_pad=SAME over a size known only at run time, with a weight that depends on the input")
    count = len(windows.axes)
    space = list(range(3, 3 + count))
    split = op.Reshape(data, op.Concat([0, group, -1], op.Slice(op.Shape(data), [2], [2 + count], [0]), axis=0))
    turned = op.Transpose(split, perm=[2, 1, 0, *space])  # [C/group, group, N, *space]
    images = op.Reshape(
        turned,
        op.Concat(
            op.Slice(op.Shape(turned), [0], [1], [0]), [-1], op.Slice(op.Shape(data), [2], [2 + count], [0]), axis=0
        ),
    )
    kernels = op.Transpose(other, perm=[1, 0, *range(2, 2 + count)])
    pads = [a.begin for a in windows.axes] + [a.end for a in windows.axes]
    products = op.Conv(images, kernels, group=group, strides=windows.dilations, dilations=windows.strides, pads=pads)
    taps = op.Slice(products, [0] * count, windows.kernel, list(range(2, 2 + count)))
    made: Tensor = op.Transpose(taps, perm=[1, 0, *range(2, 2 + count)])
    return made
