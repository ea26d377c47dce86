"""Element by element: arithmetic with broadcasting, unary functions, selections."""

from __future__ import annotations

from functools import reduce

import numpy as np

from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.reader import FLOAT_TYPES, INTEGER_TYPES, Node, Tensor
from gbp_onnx.vjp.common import as_real, masked, unbroadcast
from gbp_onnx.vjp.registry import Cotangents, Refusal, vjp

# --- arithmetic with broadcasting ---------------------------------------------------------------------------------


@vjp("Add", since=7)
def add(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """a: ct;  b: ct"""
    return tuple(unbroadcast(op, ct, x, node.outputs[0]) for x in node.inputs)


@vjp("Sub", since=7)
def sub(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """a: ct;  b: -ct"""
    (a, b), y = node.inputs, node.outputs[0]
    return unbroadcast(op, ct, a, y), unbroadcast(op, op.Neg(ct), b, y)


@vjp("Mul", since=7)
def mul(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """a: ct * b;  b: ct * a"""
    (a, b), y = node.inputs, node.outputs[0]
    return unbroadcast(op, op.Mul(ct, as_real(op, b, ct)), a, y), unbroadcast(op, op.Mul(ct, as_real(op, a, ct)), b, y)


@vjp("Div", since=7)
def div(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """a: ct / b;  b: -ct * y / b"""
    (a, b), y = node.inputs, node.outputs[0]
    if op.elem_type(y) in INTEGER_TYPES:
        raise Refusal("it divides integers, and rounds")
    return unbroadcast(op, op.Div(ct, b), a, y), unbroadcast(op, op.Neg(op.Div(op.Mul(ct, y), b)), b, y)


@vjp("Pow", since=7)
def pow_(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """a: ct * b * a^(b-1);  b: ct * y * log(a), 0 where a <= 0"""
    a, b, y = (as_real(op, t, ct) for t in (*node.inputs, node.outputs[0]))
    exponent = op.value(node.inputs[1])
    if op.elem_type(node.outputs[0]) in INTEGER_TYPES and (
        exponent is None or np.any(exponent < 0) or np.any(exponent != np.floor(exponent))
    ):
        raise Refusal("it raises integers to a power that may round")
    if exponent is not None and exponent.size == 1 and (power := float(exponent.reshape(-1)[0])):
        base = a if power == 2 else op.Pow(a, power - 1) if power != 1 else None
        to_a = ct if base is None else op.Mul(ct, op.Mul(base, power))
    else:
        to_a = masked(op, op.Not(op.Equal(b, 0.0)), op.Mul(ct, op.Mul(b, op.Pow(a, op.Sub(b, 1.0)))))
    positive = op.Greater(a, 0.0)
    to_b = masked(op, positive, op.Mul(op.Mul(ct, y), op.Log(op.Where(positive, a, 1.0))))
    kind = op.elem_type(node.inputs[1])
    if kind in FLOAT_TYPES and kind != op.elem_type(ct):
        to_b = op.Cast(to_b, to=kind)
    return unbroadcast(op, to_a, node.inputs[0], node.outputs[0]), unbroadcast(
        op, to_b, node.inputs[1], node.outputs[0]
    )


@vjp("Sum", since=6)
def sum_(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """every input: ct"""
    return tuple(unbroadcast(op, ct, x, node.outputs[0]) for x in node.inputs)


@vjp("Mean", since=6)
def mean(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """every one of n inputs: ct / n"""
    share = op.Mul(ct, 1 / len(node.inputs))
    return tuple(unbroadcast(op, share, x, node.outputs[0]) for x in node.inputs)


@vjp("Max", "Min", since=6)
def extremum(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct to the inputs that equal y, split equally among ties"""
    y = node.outputs[0]
    hits = [op.Equal(x, y) for x in node.inputs]
    kind = op.elem_type(ct)
    count = reduce(op.Add, [op.Cast(h, to=kind) for h in hits]) if len(hits) > 1 else None
    share = ct if count is None else op.Div(ct, count)
    return tuple(unbroadcast(op, masked(op, h, share), x, y) for h, x in zip(hits, node.inputs, strict=True))


@vjp("Where", since=9)
def where(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """condition: none;  x: ct where the condition holds;  y: ct elsewhere"""
    (condition, x, y), z = node.inputs, node.outputs[0]
    return None, unbroadcast(op, masked(op, condition, ct), x, z), unbroadcast(op, op.Where(condition, 0.0, ct), y, z)


@vjp("Mod", since=10)
def mod(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """a: ct;  b: -ct * round((a - y) / b), the whole quotient (rounded towards zero with fmod, else down)"""
    (a, b), y = node.inputs, node.outputs[0]

    def to_b() -> Tensor:
        whole = op.Round(op.Div(op.Sub(as_real(op, a, ct), as_real(op, y, ct)), as_real(op, b, ct)))
        return unbroadcast(op, op.Neg(op.Mul(ct, whole)), b, y)

    return unbroadcast(op, ct, a, y), to_b


# --- unary functions ----------------------------------------------------------------------------------------------


@vjp("Neg", since=6)
def neg(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """-ct"""
    return (op.Neg(ct),)


@vjp("Abs", since=6)
def abs_(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct * sign(x)"""
    return (op.Mul(ct, as_real(op, op.Sign(node.inputs[0]), ct)),)


@vjp("Reciprocal", since=6)
def reciprocal(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """-ct * y^2"""
    y = node.outputs[0]
    return (op.Neg(op.Mul(ct, op.Mul(y, y))),)


@vjp("Sqrt", since=6)
def sqrt(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct / (2 * y)"""
    return (op.Div(ct, op.Mul(node.outputs[0], 2.0)),)


@vjp("Exp", since=6)
def exp(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct * y"""
    return (op.Mul(ct, node.outputs[0]),)


@vjp("Log", since=6)
def log(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct / x"""
    return (op.Div(ct, node.inputs[0]),)


@vjp("Erf", since=9)
def erf(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct * 2/sqrt(pi) * exp(-x^2)"""
    x = node.inputs[0]
    return (op.Mul(ct, op.Mul(op.Exp(op.Neg(op.Mul(x, x))), float(2 / np.sqrt(np.pi)))),)


@vjp("Sin", since=7)
def sin(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct * cos(x)"""
    return (op.Mul(ct, op.Cos(node.inputs[0])),)


@vjp("Cos", since=7)
def cos(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """-ct * sin(x)"""
    return (op.Neg(op.Mul(ct, op.Sin(node.inputs[0]))),)


# --- values moved or converted ------------------------------------------------------------------------------------


@vjp("Identity")
def identity(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct"""
    return (ct,)


@vjp("Cast", "CastLike", since=6)
def cast(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct in x's type; integers are taken as real numbers (ct stays float); none where the cast rounds"""
    source, target = op.elem_type(node.inputs[0]), op.elem_type(node.outputs[0])
    if source in INTEGER_TYPES and target in FLOAT_TYPES | INTEGER_TYPES:
        return (ct,)
    if source in FLOAT_TYPES and target in FLOAT_TYPES:
        return (ct if source == target else op.Cast(ct, to=source),)
    return (None,)
