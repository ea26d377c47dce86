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
from gbp_onnx.graph.shapes import Axis, same_pads
from gbp_onnx.vjp.registry import Refusal

__all__ = ["Windows", "correlate", "crop", "transpose_windows", "window_positions", "windows_of"]


@dataclass(frozen=True, slots=True)
class Windows:
    """The spatial axes of a window operator.

    `same`: SAME_UPPER or SAME_LOWER over a size known only at run time, so that `Axis.begin` is not known either;
    `ceil`: windows may reach over the end of the padded input (ceil_mode); `reaches`: the positions that
    auto_pad=SAME counts a window with, `gaps` whether its pads may be negative.
    """

    axes: tuple[Axis, ...]
    same: str | None = None
    ceil: bool = False
    reaches: tuple[int, ...] = ()
    gaps: bool = True

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
    axes = []
    for k in range(count):
        axis = Axis(sizes[k], kernel[k], strides[k], dilations[k])
        if same is None:
            begin, end = (0, 0) if auto_pad == "VALID" else (pads[k], pads[k + count])
        elif axis.size is not None or axis.stride == 1:  # with stride 1, the total does not depend on the size
            upper, gaps = same == "SAME_UPPER", node.op != "Conv"
            begin, end = same_pads(axis.size or 1, _reach(node, axis), axis.stride, upper, gaps)
        else:
            begin, end = 0, 0  # computed at run time
        axes.append(Axis(axis.size, axis.kernel, axis.stride, axis.dilation, begin, end))
    known = all(a.size is not None or a.stride == 1 for a in axes)
    reaches = () if same is None else tuple(_reach(node, a) for a in axes)
    gaps = node.op != "Conv"
    return Windows(tuple(axes), None if known else same, bool(attrs.get("ceil_mode", 0)), reaches, gaps)


def _reach(node: Node, axis: Axis) -> int:
    # For the pads of auto_pad=SAME, ONNX Runtime's pools count a window without its dilation.
    return axis.extent if node.op == "Conv" else axis.kernel


def begin_pads(op: Emitter, windows: Windows, x: Tensor) -> Tensor:
    """Begin pads as an int64 vector, computed at run time for SAME_* over unknown sizes."""
    return _pads(op, windows, x)[0]


def _pads(op: Emitter, windows: Windows, x: Tensor) -> tuple[Tensor, Tensor]:
    if windows.same is None:
        return op.constant([a.begin for a in windows.axes]), op.constant([a.end for a in windows.axes])
    sizes = op.Slice(op.shape(x), [2], [2 + len(windows.axes)], [0])
    strides = op.constant(windows.strides)
    outputs = op.Div(op.Sub(op.Add(sizes, strides), 1), strides)
    total = op.Sub(op.Add(op.Mul(op.Sub(outputs, 1), strides), op.constant(list(windows.reaches))), sizes)
    if not windows.gaps:
        total = op.Max(total, op.constant([0]))
    begin = op.Div(total if windows.same == "SAME_UPPER" else op.Add(total, 1), 2)  # towards 0
    return begin, op.Sub(total, begin)


def transpose_windows(
    op: Emitter, ct: Tensor, weight: Tensor, windows: Windows, like: Tensor, group: int = 1
) -> Tensor:
    """Add each window of `ct`, times `weight` [O, I/group, *kernel], back to where it lay: in space the size of `like`.

    The transpose of Conv with respect to its input (ONNX ConvTranspose; Dumoulin & Visin 2016, "A guide to convolution
    arithmetic", relationship 14).
    """
    axes = windows.axes
    common = {
        "strides": windows.strides,
        "dilations": windows.dilations,
        "group": group,
        "kernel_shape": windows.kernel,
    }
    rest = [-1 if a.size is None else a.size + a.begin + a.end - a.extent for a in axes]
    if (
        windows.same is None
        and not windows.ceil
        and all(a.begin == a.end >= 0 and r >= 0 for a, r in zip(axes, rest, strict=True))
    ):
        # What the forward left over at the end (its division rounds down) comes back as output_padding.
        left = [r % a.stride for r, a in zip(rest, axes, strict=True)]
        made: Tensor = op.ConvTranspose(ct, weight, pads=[a.begin for a in axes] * 2, output_padding=left, **common)
        return made
    full = op.ConvTranspose(ct, weight, output_padding=[a.stride - 1 for a in axes], **common)
    return crop(op, full, begin_pads(op, windows, like), like, len(axes), inside=_covered(windows))


def _covered(windows: Windows) -> bool:
    """Whether the windows of every axis start at or before the input and reach its end, but for one stride.

    They do unless auto_pad counts them for less than they reach, or leaves gaps.
    """
    if not windows.reaches:
        return True
    axes = zip(windows.axes, windows.reaches, strict=True)
    return all(a.begin >= 0 and reach == a.extent and (not windows.gaps or a.stride - reach <= 1) for a, reach in axes)


def crop(
    op: Emitter, tensor: Tensor, starts: Tensor | list[int], like: Tensor, count: int, inside: bool = True
) -> Tensor:
    """The box at `starts` of the `count` spatial axes of `tensor` that has the size of `like`.

    `inside`: it lies inside; else zeros stand where it does not.
    """
    sizes = op.Slice(op.shape(like), [2], [2 + count], [0])
    if inside:
        made: Tensor = op.Slice(tensor, starts, op.Add(sizes, starts), list(range(2, 2 + count)))
        return made
    there = op.Slice(op.Shape(tensor), [2], [2 + count], [0])
    begins = op.Neg(op.constant(starts) if isinstance(starts, list) else starts)
    return op.Pad(tensor, op.Concat([0, 0], begins, [0, 0], op.Sub(op.Sub(sizes, there), begins), axis=0))


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
    count = len(windows.axes)
    begins, ends = [a.begin for a in windows.axes], [a.end for a in windows.axes]
    if windows.same is not None or min(*begins, *ends) < 0:  # a Conv has neither
        amounts = _pads(op, windows, data)
        data = op.Pad(data, op.Concat([0, 0], amounts[0], [0, 0], amounts[1], axis=0))
        begins = ends = [0] * count
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
    products = op.Conv(
        images, kernels, group=group, strides=windows.dilations, dilations=windows.strides, pads=[*begins, *ends]
    )
    taps = op.Slice(products, [0] * count, windows.kernel, list(range(2, 2 + count)))
    made: Tensor = op.Transpose(taps, perm=[1, 0, *range(2, 2 + count)])
    return made
