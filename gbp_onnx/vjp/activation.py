"""Activations. Masks read the output where it says the same as the input: that keeps Conv+Relu fusable."""

from __future__ import annotations

import math

import numpy as np
import onnx

from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.reader import Node, Tensor
from gbp_onnx.vjp.common import as_real, masked, unbroadcast
from gbp_onnx.vjp.quantized import quantised_gate, rescaled
from gbp_onnx.vjp.registry import GBP_DOMAIN, Cotangents, Refusal, vjp

__all__ = ["gate", "gelu_slope"]

# --- rectifiers ---------------------------------------------------------------------------------------------------


@vjp("Rectifier", domain=GBP_DOMAIN)
def rectifier(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct * [x > 0], capped: ct * [0 < x < cap] (f'(0) = 0)"""
    return (masked(op, gate(op, node), ct),)


def gate(op: Emitter, node: Node) -> Tensor:
    """f'(x) of a rectifier as booleans: 0 < y, and y < cap; x > alpha for a thresholded one with alpha < 0; read from
    the quantised y of one that is a quantiser.
    """
    if "q" in node.attrs:
        return quantised_gate(op, node)
    x, y = node.inputs[0], node.outputs[0]
    threshold, cap = node.attrs.get("threshold", 0.0), node.attrs.get("cap")
    if threshold < 0:
        made: Tensor = op.Greater(x, threshold)
        return made
    above: Tensor = op.Greater(y, 0.0)
    return above if cap is None else op.And(above, op.Less(y, cap))


@vjp("Relu")
def relu(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct * [y > 0]"""
    return (masked(op, op.Greater(node.outputs[0], 0.0), ct),)


@vjp("ThresholdedRelu")
def thresholded_relu(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct * [x > alpha]"""
    return (masked(op, op.Greater(node.inputs[0], node.attrs["alpha"]), ct),)


@vjp("Clip", since=11)
def clip(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct * [min <= x <= max], both ends included (as torch.clamp);  min: sum where x < min <= max;  max: sum beyond"""
    x, low, high = node.inputs[0], node.input(1), node.input(2)
    inside = ct
    if low is not None:
        inside = masked(op, op.GreaterOrEqual(x, low), inside)
    if high is not None:
        inside = masked(op, op.LessOrEqual(x, high), inside)

    def to_low() -> Tensor:
        below = masked(op, op.Less(x, low), ct)
        return unbroadcast(op, below if high is None else masked(op, op.LessOrEqual(low, high), below), low, x)

    def to_high() -> Tensor:  # the standard applies max last
        return unbroadcast(op, masked(op, op.Greater(x if low is None else op.Max(x, low), high), ct), high, x)

    return inside, None if low is None else to_low, None if high is None else to_high


@vjp("Shrink", since=9)
def shrink(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct where x < -lambd or x > lambd"""
    x, lambd = as_real(op, node.inputs[0], ct), node.attrs["lambd"]
    return (masked(op, op.Or(op.Less(x, -lambd), op.Greater(x, lambd)), ct),)


# --- leaky and smooth ---------------------------------------------------------------------------------------------


def _positive(op: Emitter, node: Node, told_by_output: bool) -> Tensor:
    """x > 0, read from the output where that has the sign of x."""
    made: Tensor = op.Greater(node.outputs[0] if told_by_output else node.inputs[0], 0.0)
    return made


@vjp("LeakyRelu")
def leaky_relu(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct where x > 0, else alpha * ct"""
    alpha = node.attrs["alpha"]
    return (op.Where(_positive(op, node, told_by_output=alpha >= 0), ct, op.Mul(ct, alpha)),)


@vjp("PRelu", since=7)
def prelu(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """x: ct where x > 0, else slope * ct;  slope: sum of ct * x where x <= 0"""
    x, slope = (as_real(op, t, ct) for t in node.inputs[:2])
    positive = op.Greater(x, 0.0)
    to_slope = op.Where(positive, 0.0, op.Mul(ct, x))
    return op.Where(positive, ct, op.Mul(ct, slope)), unbroadcast(op, to_slope, node.inputs[1], node.outputs[0])


@vjp("Elu")
def elu(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct where x > 0, else ct * (y + alpha)"""
    y, alpha = node.outputs[0], node.attrs["alpha"]
    return (op.Where(_positive(op, node, told_by_output=alpha >= 0), ct, op.Mul(ct, op.Add(y, alpha))),)


@vjp("Selu")
def selu(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """gamma * ct where x > 0, else ct * (y + gamma * alpha)"""
    y, alpha, gamma = node.outputs[0], node.attrs["alpha"], node.attrs["gamma"]
    positive = _positive(op, node, told_by_output=gamma > 0 and alpha >= 0)
    return (op.Where(positive, op.Mul(ct, gamma), op.Mul(ct, op.Add(y, gamma * alpha))),)


@vjp("Celu", since=12)
def celu(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct where x > 0, else ct * (y / alpha + 1)"""
    x, y = node.inputs[0], node.outputs[0]
    return (op.Where(op.Greater(x, 0.0), ct, op.Mul(ct, op.Add(op.Div(y, node.attrs["alpha"]), 1.0))),)


@vjp("Sigmoid")
def sigmoid(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct * y * (1 - y)"""
    y = node.outputs[0]
    return (op.Mul(ct, op.Mul(y, op.Sub(1.0, y))),)


@vjp("Tanh")
def tanh(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct * (1 - y^2)"""
    y = node.outputs[0]
    return (op.Mul(ct, op.Sub(1.0, op.Mul(y, y))),)


@vjp("HardSigmoid")
def hard_sigmoid(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """alpha * ct * [0 < y < 1]"""
    y = node.outputs[0]
    return (masked(op, op.And(op.Greater(y, 0.0), op.Less(y, 1.0)), op.Mul(ct, node.attrs["alpha"])),)


@vjp("HardSwish", since=14)
def hard_swish(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct * (x/3 + 1/2) for -3 < x < 3, ct above, 0 below"""
    x = node.inputs[0]
    inner = masked(op, op.Greater(x, -3.0), op.Mul(ct, op.Add(op.Mul(x, 1 / 3), 0.5)))
    return (op.Where(op.Less(x, 3.0), inner, ct),)


@vjp("Softplus")
def softplus(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct * sigmoid(x)"""
    return (op.Mul(ct, op.Sigmoid(node.inputs[0])),)


@vjp("Softsign")
def softsign(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct / (1 + |x|)^2"""
    base = op.Add(op.Abs(node.inputs[0]), 1.0)
    return (op.Div(ct, op.Mul(base, base)),)


@vjp("Mish", since=18)
def mish(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct * (t + x * (1 - t^2) * sigmoid(x)) with t = tanh(softplus(x))"""
    x = node.inputs[0]
    t = op.Tanh(op.Softplus(x))
    return (op.Mul(ct, op.Add(t, op.Mul(op.Mul(x, op.Sub(1.0, op.Mul(t, t))), op.Sigmoid(x)))),)


@vjp("Swish", since=24)
def swish(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct * (s + alpha * x * s * (1 - s)) with s = sigmoid(alpha * x)"""
    scaled = op.Mul(node.inputs[0], node.attrs["alpha"])
    s = op.Sigmoid(scaled)
    return (op.Mul(ct, op.Add(s, op.Mul(scaled, op.Mul(s, op.Sub(1.0, s))))),)


@vjp("Silu", domain=GBP_DOMAIN)
def silu(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct * (s + y * (1 - s)) with s = sigmoid(x): Mul(x, Sigmoid(x)), taken as one activation"""
    s, y = node.attrs["sigmoid"], node.outputs[0]
    return (op.Mul(ct, op.Add(s, op.Mul(y, op.Sub(1.0, s)))),)


@vjp("Gelu", since=20)
def gelu(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct * (Phi(x) + x * phi(x)), or the derivative of the tanh approximation"""
    return (op.Mul(ct, gelu_slope(op, node.inputs[0], node.attrs["approximate"] == "tanh")),)


def gelu_slope(op: Emitter, x: Tensor, by_tanh: bool) -> Tensor:
    """The derivative of Gelu, or of its tanh approximation, at x."""
    square = op.Mul(x, x)
    if by_tanh:
        c = math.sqrt(2 / math.pi)
        t = op.Tanh(op.Mul(op.Mul(x, c), op.Add(op.Mul(square, 0.044715), 1.0)))
        slope = op.Mul(op.Add(op.Mul(square, 3 * 0.044715), 1.0), c)
        made: Tensor = op.Add(
            op.Mul(op.Add(t, 1.0), 0.5), op.Mul(op.Mul(x, 0.5), op.Mul(op.Sub(1.0, op.Mul(t, t)), slope))
        )
    else:
        cdf = op.Mul(op.Add(op.Erf(op.Mul(x, math.sqrt(0.5))), 1.0), 0.5)
        pdf = op.Mul(op.Exp(op.Mul(square, -0.5)), 1 / math.sqrt(2 * math.pi))
        made = op.Add(cdf, op.Mul(x, pdf))
    return made


# --- heads --------------------------------------------------------------------------------------------------------


@vjp("Head", domain=GBP_DOMAIN)
def head(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct: the seed is put in front of the trailing Softmax or Sigmoid (of a quantised one: * x_scale / y_scale)"""
    if not node.attrs["op"].startswith("QLinear"):
        return (ct,)
    return (rescaled(op, ct, node.inputs[1], node.attrs["scale"]),)


@vjp("Softmax", since=13)
def softmax(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """y * (ct - sum(ct * y)) along the axis"""
    y = node.outputs[0]
    if _selected_from(op, y):  # a row that is masked as a whole is NaN, and attention puts 0 in its place
        y = op.Where(op.IsNaN(y), 0.0, y)
    inner = op.ReduceSum(op.Mul(ct, y), axes=[node.attrs["axis"]], keepdims=1)
    return (op.Mul(y, op.Sub(ct, inner)),)


def _selected_from(op: Emitter, y: Tensor) -> bool:
    """Whether a Where, perhaps behind a Cast, takes some of the values of `y` and leaves others."""
    readers = op.graph.readers(y)
    casts = [r.outputs[0] for r in readers if r.op == "Cast" and r.outputs[0] is not None]
    return any(r.op == "Where" for r in (*readers, *(r for cast in casts for r in op.graph.readers(cast))))


@vjp("LogSoftmax", since=13)
def log_softmax(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct - exp(y) * sum(ct) along the axis"""
    total = op.ReduceSum(ct, axes=[node.attrs["axis"]], keepdims=1)
    return (op.Sub(ct, op.Mul(op.Exp(node.outputs[0]), total)),)


@vjp("Dropout", since=12)
def dropout(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct; where training is decided at run time, ct / (1 - ratio) then, and 0 where the mask drops x"""
    ratio, mode = node.input(1), node.input(2)
    known = None if mode is None else op.value(mode)
    drops = None if ratio is None else op.value(ratio)
    if mode is None or (known is not None and not np.any(known)) or (drops is not None and not np.any(drops)):
        return (ct,)
    if known is not None:
        raise Refusal("it runs in training mode, where its output is random; export the model with eval()")
    kept = op.Sub(1.0, op.constant(0.5, op.elem_type(ct)) if ratio is None else as_real(op, ratio, ct))
    mask = op.forward_output(node, 1, onnx.TensorProto.BOOL)

    def refuse_ratio() -> Tensor:
        raise Refusal("its ratio decides which values are dropped, at random; export the model with eval()")

    return op.Where(mode, masked(op, mask, op.Div(ct, kept)), ct), refuse_ratio
