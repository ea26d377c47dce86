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
    windows = _transposed_windows(op, node, x, _kernel(op, node, weight))
    group = node.attrs["group"]

    def to_x() -> Tensor:
        pads = [a.begin for a in windows.axes] + [a.end for a in windows.axes]
        whole: Tensor = op.Conv(
            ct,
            weight,
            kernel_shape=windows.kernel,
            strides=windows.strides,
            dilations=windows.dilations,
            group=group,
            pads=pads,
        )
        extra = node.attrs.get("output_padding") or [0] * len(windows.axes)
        if all(e < a.stride for e, a in zip(extra, windows.axes, strict=True)):
            return whole
        return crop(op, whole, [0] * len(extra), x, len(extra))  # windows that start beyond x

    return to_x, lambda: correlate(op, ct, x, windows, group), lambda: _to_bias(op, ct, windows)


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
            size = sizes[k] if k < len(sizes) else None
            if not isinstance(size, int):
                raise Refusal("output_shape over an input whose size is known only at run time")
            total = axis.stride * (size - 1) + extra[k] + axis.extent - shape[-count:][k]
        elif auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            total = axis.extent - axis.stride + extra[k]
        else:
            begin, end = (0, 0) if auto_pad == "VALID" else (pads[k], pads[k + count])
            axes.append(Axis(None, axis.kernel, axis.stride, axis.dilation, begin, end))
            continue
        if total < 0:
            raise Refusal("its output_shape or auto_pad asks for more than the windows reach")
        # ONNX Runtime pads more at the end for SAME_UPPER only, and more at the begin otherwise.
        small, large = total // 2, total - total // 2
        begin, end = (small, large) if auto_pad == "SAME_UPPER" else (large, small)
        axes.append(Axis(None, axis.kernel, axis.stride, axis.dilation, begin, end))
    return Windows(tuple(axes))
