"""Convolutions. The transpose of a convolution is a ConvTranspose with the same weights, and the other way round."""

from __future__ import annotations

from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.reader import Node, Tensor
from gbp_onnx.graph.shapes import Axis
from gbp_onnx.vjp.common import need
from gbp_onnx.vjp.registry import Cotangents, Refusal, vjp
from gbp_onnx.vjp.windows import Windows, correlate, crop, transpose_windows, windows_of


@vjp("Conv")
def conv(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """x: ConvTranspose(ct, W);  W: x correlated with ct;  b: ct summed over all axes but the channels"""
    x, weight = need(node.input(0), "input"), need(node.input(1), "weight")
    windows = windows_of(op, node, _kernel(op, node, weight))
    group = node.attrs["group"]
    return (
        lambda: transpose_windows(op, ct, weight, windows, like=x, group=group),
        lambda: correlate(op, x, ct, windows, group),
        lambda: _to_bias(op, ct, windows),
    )


@vjp("ConvTranspose")
def conv_transpose(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """x: Conv(ct, W);  W: ct correlated with x;  b: ct summed over all axes but the channels"""
    x, weight = need(node.input(0), "input"), need(node.input(1), "weight")
    kernel, group, whole = _kernel(op, node, weight), node.attrs["group"], ct
    if _needs_arithmetic(op, node, x, kernel):
        ct = _padded_to_windows(op, node, ct, x, kernel)
        plain = {k: v for k, v in node.attrs.items() if k in ("strides", "dilations")}
        windows = _transposed_windows(op, Node(node.op, node.name, node.inputs, node.outputs, plain), x, kernel)
    else:
        windows = _transposed_windows(op, node, x, kernel)

    def to_x() -> Tensor:
        pads = [a.begin for a in windows.axes] + [a.end for a in windows.axes]
        made: Tensor = op.Conv(
            ct,
            weight,
            kernel_shape=windows.kernel,
            strides=windows.strides,
            dilations=windows.dilations,
            group=group,
            pads=pads,
        )
        extra = node.attrs.get("output_padding") or [0] * len(windows.axes)
        if ct is whole and all(e < a.stride for e, a in zip(extra, windows.axes, strict=True)):
            return made
        return crop(op, made, [0] * len(windows.axes), x, len(windows.axes))  # windows that start beyond x

    return to_x, lambda: correlate(op, ct, x, windows, group), lambda: _to_bias(op, whole, windows)


def _needs_arithmetic(op: Emitter, node: Node, x: Tensor, kernel: list[int]) -> bool:
    """Whether output_shape is given and the pads that it stands for are known only at run time, or none."""
    shape, count = node.attrs.get("output_shape"), len(kernel)
    if not shape:
        return False
    sizes = list(op.known_shape(x) or [None] * (2 + count))[2:]
    extents, strides, extra = _geometry(node, kernel)
    return any(
        not isinstance(d, int) or s * (d - 1) + e + r < n
        for d, s, e, r, n in zip(sizes, strides, extra, extents, shape[-count:], strict=True)
    )


def _geometry(node: Node, kernel: list[int]) -> tuple[list[int], list[int], list[int]]:
    """Extents, strides and output_padding of each axis."""
    strides, dilations = (node.attrs.get(name) or [1] * len(kernel) for name in ("strides", "dilations"))
    extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    return extents, list(strides), list(node.attrs.get("output_padding") or [0] * len(kernel))


def _padded_to_windows(op: Emitter, node: Node, ct: Tensor, x: Tensor, kernel: list[int]) -> Tensor:
    """ct with the pads that output_shape cut off (ONNX ConvTranspose: stride * (size - 1) + ... - output_shape)."""
    count = len(kernel)
    extents, strides, extra = (op.constant(v) for v in _geometry(node, kernel))
    sizes = op.Slice(op.shape(x), [2], [2 + count], [0])
    reach = op.Add(op.Add(op.Mul(op.Sub(sizes, 1), strides), extra), extents)
    total = op.Max(op.Sub(reach, op.constant(node.attrs["output_shape"][-count:])), op.constant([0]))
    small = op.Div(total, 2)
    large = op.Sub(total, small)
    pads = (small, large) if node.attrs.get("auto_pad", "NOTSET") == "SAME_UPPER" else (large, small)
    made: Tensor = op.Pad(ct, op.Concat([0, 0], pads[0], [0, 0], pads[1], axis=0))
    return made


def _to_bias(op: Emitter, ct: Tensor, windows: Windows) -> Tensor:
    made: Tensor = op.ReduceSum(ct, axes=[0, *range(2, 2 + len(windows.axes))], keepdims=0)
    return made


def _kernel(op: Emitter, node: Node, weight: Tensor) -> list[int]:
    """The kernel's spatial sizes, from the attribute or the weight's shape."""
    kernel = node.attrs.get("kernel_shape")
    if kernel:
        return list(kernel)
    known = [d for d in op.known_shape(weight) or () if isinstance(d, int)]
    if len(known) < 3 or len(known) != len(op.known_shape(weight) or ()):
        raise Refusal("its kernel size is known only at run time")
    return known[2:]


def _transposed_windows(op: Emitter, node: Node, x: Tensor, kernel: list[int]) -> Windows:
    """The windows of the Conv whose transpose `node` is: its pads resolved from output_shape and auto_pad."""
    count, attrs = len(kernel), node.attrs
    strides = attrs.get("strides") or [1] * count
    dilations = attrs.get("dilations") or [1] * count
    extra = attrs.get("output_padding") or [0] * count
    pads = attrs.get("pads") or [0] * 2 * count
    shape, auto_pad = attrs.get("output_shape"), attrs.get("auto_pad", "NOTSET")
    sizes = list(op.known_shape(x) or ())[2:]
    axes = []
    for k in range(count):
        axis = Axis(None, kernel[k], strides[k], dilations[k])
        if shape:
            size = sizes[k] or 0  # known: see _needs_arithmetic
            assert isinstance(size, int)
            total = axis.stride * (size - 1) + extra[k] + axis.extent - shape[-count:][k]
        elif auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            total = max(axis.extent - axis.stride + extra[k], 0)
        else:
            begin, end = (0, 0) if auto_pad == "VALID" else (pads[k], pads[k + count])
            axes.append(Axis(None, axis.kernel, axis.stride, axis.dilation, begin, end))
            continue
        # ONNX Runtime pads more at the end for SAME_UPPER only, and more at the begin otherwise.
        small, large = total // 2, total - total // 2
        begin, end = (small, large) if auto_pad == "SAME_UPPER" else (large, small)
        axes.append(Axis(None, axis.kernel, axis.stride, axis.dilation, begin, end))
    return Windows(tuple(axes))
