"""Operators from quantised tensors to quantised tensors. Each is its float operator between two scales:

    y_q = gate(f(x_scale * (x_q - x_zero)) / y_scale + y_zero)

The gate stands behind (canonical/gates.py). Here is x_q: ct * f'(x) * x_scale / y_scale, where x is the real number
that the deployed integer stands for. `node.outputs[0]` is a tensor that exists in no file; `node.attrs["q"]` is the one
that does, `node.attrs["scale"]` its scale.
"""

from __future__ import annotations

from collections.abc import Callable

from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.reader import Node, Tensor, imaginary
from gbp_onnx.vjp.activation import leaky_relu, sigmoid, softmax
from gbp_onnx.vjp.common import as_real, masked, need, rank_of, unbroadcast
from gbp_onnx.vjp.conv import conv
from gbp_onnx.vjp.integer import as_float, later, refused_weight
from gbp_onnx.vjp.layout import concat
from gbp_onnx.vjp.linear import gemm, matmul
from gbp_onnx.vjp.pool import average_pool, global_average_pool, max_pool
from gbp_onnx.vjp.quantized import MICROSOFT, as_scalar, dequantised, rescaled
from gbp_onnx.vjp.registry import Cotangents, Refusal, vjp

# --- products -----------------------------------------------------------------------------------------------------


@vjp("QLinearConv", since=10)
@vjp("QLinearConv", domain=MICROSOFT)
def qlinear_conv(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """x: Conv's, with the weights w * x_scale / y_scale"""
    _, x_scale, _, w, w_scale = (need(t, "input") for t in node.inputs[:5])
    if len(op.known_shape(w_scale) or ()) > 1:
        raise Refusal("its weights have scales for blocks")
    ratio = op.Div(as_scalar(op, x_scale), as_scalar(op, node.attrs["scale"]))
    weight = dequantised(op, w, op.shaped_like(op.Mul(w_scale, ratio), w_scale), node.input(5), 0)

    def in_order(x: Tensor, ct: Tensor) -> Tensor:
        return need(_now(conv(op, as_float(node, "Conv", (x, weight)), ct)[0]), "cotangent")

    return (lambda: channels_first(op, node, ct, in_order), None, None, refused_weight)


@vjp("QLinearMatMul", since=10)
def qlinear_matmul(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """A: MatMul's, of B's real numbers, times a_scale / y_scale;  B alike"""
    a, a_scale, _, b, b_scale = (need(t, "input") for t in node.inputs[:5])
    real = dequantised(op, a, a_scale, node.input(2), -2), dequantised(op, b, b_scale, node.input(5), -1)
    to_a, to_b = matmul(op, as_float(node, "MatMul", real), ct)
    return _between(op, node, to_a, a_scale), None, None, _between(op, node, to_b, b_scale)


@vjp("QGemm", domain=MICROSOFT)
def qgemm(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """A: Gemm's, of B's real numbers, times a_scale / y_scale (a_scale where y is float)"""
    a, a_scale, _, b, b_scale = (need(t, "input") for t in node.inputs[:5])
    rows = node.attrs.get("transB", 0)
    real = dequantised(op, a, a_scale, node.input(2)), dequantised(op, b, b_scale, node.input(5), 0 if rows else 1)
    attrs = {"alpha": 1.0, "transA": 0, "transB": 0, **node.attrs, "beta": 1.0}
    to_a = gemm(op, as_float(node, "Gemm", real, attrs), ct)[0]
    return _between(op, node, to_a, a_scale), None, None, refused_weight


# --- arithmetic ---------------------------------------------------------------------------------------------------


@vjp("QLinearAdd", domain=MICROSOFT)
def qlinear_add(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """a: ct * a_scale / c_scale;  b: ct * b_scale / c_scale"""
    a, a_scale, _, b, b_scale = (need(t, "input") for t in node.inputs[:5])
    to_a, to_b = (
        _between(op, node, unbroadcast(op, ct, t, node.attrs["q"]), s) for t, s in ((a, a_scale), (b, b_scale))
    )
    return to_a, None, None, to_b


@vjp("QLinearMul", domain=MICROSOFT)
def qlinear_mul(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """a: ct * b * a_scale / c_scale;  b: ct * a * b_scale / c_scale, of the real a and b"""
    a, a_scale, a_zero, b, b_scale, b_zero = node.inputs[:6]
    operands = ((need(a, "input"), need(a_scale, "scale"), a_zero), (need(b, "input"), need(b_scale, "scale"), b_zero))

    def to(one: int) -> Callable[[], Tensor]:
        (x, scale, _), other = operands[one], operands[1 - one]
        return lambda: _between(
            op, node, unbroadcast(op, op.Mul(ct, dequantised(op, *other)), x, node.attrs["q"]), scale
        )()

    return to(0), None, None, to(1)


@vjp("QLinearWhere", domain=MICROSOFT)
def qlinear_where(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """condition: none;  x: ct * x_scale / z_scale where the condition holds;  y: ct * y_scale / z_scale elsewhere"""
    condition, x, x_scale, _, y, y_scale = (need(t, "input") for t in node.inputs[:6])
    to_x = unbroadcast(op, masked(op, condition, ct), x, node.attrs["q"])
    to_y = unbroadcast(op, op.Where(condition, 0.0, ct), y, node.attrs["q"])
    return None, _between(op, node, to_x, x_scale), None, None, _between(op, node, to_y, y_scale)


@vjp("QLinearConcat", domain=MICROSOFT)
def qlinear_concat(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct, cut at the seams, each piece times its own scale / y_scale"""
    parts, scales = node.inputs[2::3], node.inputs[3::3]
    pieces = concat(op, as_float(node, "Concat", parts), ct)
    made: list[Tensor | Callable[[], Tensor] | None] = [None, None]
    for piece, scale in zip(pieces, scales, strict=True):
        made += [_between(op, node, piece, need(scale, "scale")), None, None]
    return tuple(made)


# --- activations --------------------------------------------------------------------------------------------------


@vjp("QLinearLeakyRelu", domain=MICROSOFT)
def qlinear_leaky_relu(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """LeakyRelu's at the real x, times x_scale / y_scale"""
    x, x_scale = need(node.input(0), "input"), need(node.input(1), "scale")
    real = dequantised(op, x, x_scale, node.input(2))
    # The real output has the sign of x; the node's own is quantised.
    plain = Node("LeakyRelu", node.name, [real], [real], {"alpha": 0.01, **node.attrs})
    return (_between(op, node, leaky_relu(op, plain, ct)[0], x_scale),)


@vjp("QLinearSigmoid", domain=MICROSOFT)
def qlinear_sigmoid(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct * s * (1 - s) * x_scale / y_scale, s = sigmoid of the real x (unrounded)"""
    x, x_scale = need(node.input(0), "input"), need(node.input(1), "scale")
    y = op.Sigmoid(dequantised(op, x, x_scale, node.input(2)))
    return (_between(op, node, sigmoid(op, Node("Sigmoid", node.name, [x], [y]), ct)[0], x_scale),)


@vjp("QLinearSoftmax", domain=MICROSOFT)
def qlinear_softmax(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """s * (ct - sum(ct * s)) along the axis, times x_scale / y_scale, s = softmax of the real x (unrounded)"""
    x, x_scale = need(node.input(0), "input"), need(node.input(1), "scale")
    axis, rank = node.attrs.get("axis", -1), rank_of(op, x)
    if node.attrs.get("opset", 13) < 13 and axis % rank != rank - 1:
        raise Refusal("a Softmax over several axes at once, as before opset 13")
    y = op.Softmax(dequantised(op, x, x_scale, node.input(2)), axis=axis)
    real = Node("Softmax", node.name, [x], [y], {"axis": axis})
    return (_between(op, node, softmax(op, real, ct)[0], x_scale),)


# --- pools --------------------------------------------------------------------------------------------------------


@vjp("QLinearAveragePool", domain=MICROSOFT)
def qlinear_average_pool(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """AveragePool's, times x_scale / y_scale"""

    def in_order(x: Tensor, ct: Tensor) -> Tensor:
        kept = {k: v for k, v in node.attrs.items() if k not in ("scale", "q", "channels_last")}
        plain = Node("AveragePool", node.name, [x], [ct], {"count_include_pad": 0, **kept}, version=19)
        return need(_now(average_pool(op, plain, ct)[0]), "cotangent")

    scale = need(node.input(1), "scale")
    return (_between(op, node, lambda: channels_first(op, node, ct, in_order), scale),)


@vjp("QLinearGlobalAveragePool", domain=MICROSOFT)
def qlinear_global_average_pool(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """GlobalAveragePool's, times x_scale / y_scale"""

    def in_order(x: Tensor, ct: Tensor) -> Tensor:
        return need(_now(global_average_pool(op, as_float(node, "GlobalAveragePool", [x]), ct)[0]), "cotangent")

    scale = need(node.input(1), "scale")
    return (_between(op, node, lambda: channels_first(op, node, ct, in_order), scale),)


@vjp("NhwcMaxPool", domain=MICROSOFT)
def nhwc_max_pool(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """MaxPool's, with the channels last"""
    attrs = {**node.attrs, "channels_last": 1}

    def in_order(x: Tensor, ct: Tensor) -> Tensor:
        plain = {k: v for k, v in node.attrs.items() if k != "channels_last"}
        return need(_now(max_pool(op, Node("MaxPool", node.name, [x], [ct], plain, version=12), ct)[0]), "cotangent")

    return (channels_first(op, Node(node.op, node.name, node.inputs, node.outputs, attrs), ct, in_order),)


# --- what they share ----------------------------------------------------------------------------------------------


def channels_first(op: Emitter, node: Node, ct: Tensor, rule: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """rule(x, ct) -> cotangent of x; where the node has its channels last, with x and ct turned, and the result turned
    back.
    """
    x = need(node.input(0), "input")
    if not node.attrs.get("channels_last"):
        return rule(x, ct)
    rank = rank_of(op, x)
    first, last = [0, rank - 1, *range(1, rank - 1)], [0, *range(2, rank), 1]
    turned = op.Transpose(as_real(op, x, ct), perm=first)
    sizes = op.known_shape(x) or ()
    if all(isinstance(d, int) for d in sizes):
        turned = op.shaped_like(turned, imaginary("", [sizes[k] for k in first]))
    made: Tensor = op.Transpose(rule(turned, op.Transpose(ct, perm=first)), perm=last)
    return made


def _between(
    op: Emitter, node: Node, ct: Tensor | Callable[[], Tensor] | None, x_scale: Tensor
) -> Callable[[], Tensor]:
    """ct * x_scale / y_scale, once it is wanted; a float result has no y_scale."""
    return later(ct, lambda g: rescaled(op, g, x_scale, node.attrs.get("scale")))


def _now(ct: Tensor | Callable[[], Tensor] | None) -> Tensor | None:
    return ct() if callable(ct) else ct
