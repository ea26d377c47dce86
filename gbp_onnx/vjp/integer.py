"""Products of integers whose results stay integers or become floats at once: ConvInteger, MatMulInteger and kin.

Each is its float operator on the real numbers that the operands stand for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.reader import Node, Tensor
from gbp_onnx.vjp.common import need, unbroadcast
from gbp_onnx.vjp.conv import conv
from gbp_onnx.vjp.linear import matmul
from gbp_onnx.vjp.quantized import MICROSOFT, dequantised, rescaled
from gbp_onnx.vjp.registry import Cotangents, Refusal, refuses, vjp

__all__ = ["as_float", "later", "refused_weight"]


@vjp("ConvInteger", since=10)
def conv_integer(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """Conv's, of x - x_zero and w - w_zero (integers as real numbers)"""
    x, w = need(node.input(0), "input"), need(node.input(1), "weight")
    operands = dequantised(op, x, None, node.input(2)), dequantised(op, w, None, node.input(3), 0)
    return conv(op, as_float(node, "Conv", operands), ct)[:2]


@vjp("MatMulInteger", since=10)
def matmul_integer(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """MatMul's, of A - A_zero and B - B_zero (integers as real numbers)"""
    a, b = need(node.input(0), "first operand"), need(node.input(1), "second operand")
    operands = dequantised(op, a, None, node.input(2), -2), dequantised(op, b, None, node.input(3), -1)
    return matmul(op, as_float(node, "MatMul", operands), ct)


@vjp("MatMulIntegerToFloat", domain=MICROSOFT)
def matmul_integer_to_float(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """A: a_scale * MatMul's, of the real numbers;  bias: ct, summed;  scales: none"""
    a, b, a_scale, b_scale = (need(t, "operand or scale") for t in node.inputs[:4])
    real = dequantised(op, a, a_scale, node.input(4), -2), dequantised(op, b, b_scale, node.input(5), -1)
    to_a = matmul(op, as_float(node, "MatMul", real), ct)[0]
    to_bias = _to_bias(op, node, ct, 6)
    return later(to_a, lambda g: rescaled(op, g, a_scale, None)), refused_weight, None, None, None, None, to_bias


@vjp("DynamicQuantizeMatMul", domain=MICROSOFT)
def dynamic_quantize_matmul(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """A: MatMul's, of B's real numbers, straight through A's rounding;  bias: ct, summed"""
    a, b, b_scale = (need(t, "operand or scale") for t in node.inputs[:3])
    real = a, dequantised(op, b, b_scale, node.input(3), -1)
    return matmul(op, as_float(node, "MatMul", real), ct)[0], refused_weight, None, None, _to_bias(op, node, ct, 4)


def _to_bias(op: Emitter, node: Node, ct: Tensor, place: int) -> Callable[[], Tensor] | None:
    bias = node.input(place)
    return None if bias is None else lambda: unbroadcast(op, ct, bias, need(node.outputs[0], "output"))


def as_float(node: Node, op: str, inputs: Sequence[Tensor | None], attrs: dict[str, object] | None = None) -> Node:
    """A node of the standard's float operator in the place of one on integers."""
    outputs = [node.attrs.get("q", node.outputs[0])]
    return Node(op, node.name, inputs, outputs, node.attrs if attrs is None else attrs, version=22)


def later(ct: Tensor | Callable[[], Tensor] | None, change: Callable[[Tensor], Tensor]) -> Callable[[], Tensor]:
    """A cotangent, changed, once it is wanted."""

    def made() -> Tensor:
        value = ct() if callable(ct) else ct
        return change(need(value, "cotangent"))

    return made


def refused_weight() -> Tensor:
    """Stands for the cotangent of quantised weights that are no constants."""
    raise Refusal("its weights depend on the input")


for _op in ("QAttention", "QEmbedLayerNormalization", "QMoE"):
    refuses(_op, domain=MICROSOFT, why="a whole quantised layer in one node, whose inner values it does not return")
refuses("DynamicQuantizeLSTM", domain=MICROSOFT, why="a whole recurrent layer, which does not return its gates")
