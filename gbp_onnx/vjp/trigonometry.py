"""Circular and hyperbolic functions and their inverses, from Exp and Sqrt: Sinh, Cosh and Tan have no CUDA kernel."""

from __future__ import annotations

from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.reader import Node, Tensor
from gbp_onnx.vjp.registry import Cotangents, vjp


@vjp("Tan", since=7)
def tan(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct * (1 + y^2)"""
    y = node.outputs[0]
    return (op.Mul(ct, op.Add(op.Mul(y, y), 1.0)),)


@vjp("Asin", since=7)
def asin(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct / sqrt((1 - x) * (1 + x))"""
    return (op.Div(ct, _root_of_one_less_square(op, node)),)


@vjp("Acos", since=7)
def acos(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """-ct / sqrt((1 - x) * (1 + x))"""
    return (op.Neg(op.Div(ct, _root_of_one_less_square(op, node))),)


@vjp("Atan", since=7)
def atan(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct / (1 + x^2)"""
    x = node.inputs[0]
    return (op.Div(ct, op.Add(op.Mul(x, x), 1.0)),)


@vjp("Sinh", since=9)
def sinh(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct * (exp(x) + exp(-x)) / 2"""
    x = node.inputs[0]
    return (op.Mul(ct, op.Mul(op.Add(op.Exp(x), op.Exp(op.Neg(x))), 0.5)),)


@vjp("Cosh", since=9)
def cosh(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct * (exp(x) - exp(-x)) / 2"""
    x = node.inputs[0]
    return (op.Mul(ct, op.Mul(op.Sub(op.Exp(x), op.Exp(op.Neg(x))), 0.5)),)


@vjp("Asinh", since=9)
def asinh(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct / sqrt(x^2 + 1)"""
    x = node.inputs[0]
    return (op.Div(ct, op.Sqrt(op.Add(op.Mul(x, x), 1.0))),)


@vjp("Acosh", since=9)
def acosh(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct / sqrt((x - 1) * (x + 1))"""
    x = node.inputs[0]
    return (op.Div(ct, op.Sqrt(op.Mul(op.Sub(x, 1.0), op.Add(x, 1.0)))),)


@vjp("Atanh", since=9)
def atanh(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct / ((1 - x) * (1 + x))"""
    x = node.inputs[0]
    return (op.Div(ct, op.Mul(op.Sub(1.0, x), op.Add(x, 1.0))),)


def _root_of_one_less_square(op: Emitter, node: Node) -> Tensor:
    x = node.inputs[0]  # as a product, it keeps its digits near x = 1 and x = -1
    made: Tensor = op.Sqrt(op.Mul(op.Sub(1.0, x), op.Add(x, 1.0)))
    return made
