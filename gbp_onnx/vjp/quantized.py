"""Quantisation. Rounding is straight-through: its derivative is 1 within the range, and 0 where the range ends.

The cotangent of an integer tensor counts per unit of the integer. The view puts a gate behind whatever quantises
(canonical/gates.py); here are the gates, the factors, and operators on integers whose results are not quantised again.
What is emitted works on floats only.
"""

from __future__ import annotations

import numpy as np
import onnx

from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.reader import FLOAT_TYPES, GBP_DOMAIN, Node, Shape, Tensor
from gbp_onnx.vjp.common import as_real, masked, need, rank_of, reshape_like
from gbp_onnx.vjp.registry import Cotangents, Refusal, vjp

__all__ = ["FLOAT", "MICROSOFT", "as_scalar", "dequantised", "quantised_gate", "rescaled", "scales_of"]

MICROSOFT = "com.microsoft"
FLOAT = onnx.TensorProto.FLOAT

# --- gates --------------------------------------------------------------------------------------------------------


@vjp("Saturation", domain=GBP_DOMAIN)
def saturation(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct * [low < q < high]; also at low, where that stands for real 0"""
    return (masked(op, quantised_gate(op, node), ct),)


def quantised_gate(op: Emitter, node: Node) -> Tensor:
    """The gate of a quantiser as booleans, read from the quantised tensor.

    A rectifier: zero point < q < high. Else low < q < high, and q = low passes where low is the zero point.
    """
    attrs = node.attrs
    q, low, zero, high = attrs["q"], attrs["low"], attrs.get("zero"), attrs["high"]
    value = op.Cast(q, to=FLOAT)  # ONNX Runtime compares small integers on the CPU only
    below = None if high is None else op.Less(value, float(high))
    if zero is None:
        above = op.Greater(value, _zero_point(op, node, low))
    elif isinstance(zero, np.ndarray) and (zero == low).all():
        return need(below, "upper end")
    else:
        above = op.Greater(value, float(low))
        if not isinstance(zero, np.ndarray) or (zero == low).any():
            above = op.Or(above, op.Equal(_zero_point(op, node, zero), float(low)))
    return above if below is None else op.And(above, below)


def _zero_point(op: Emitter, node: Node, zero: Tensor | np.ndarray) -> Tensor:
    """A gate's zero point as float32: the value where the file determines it, else a tensor."""
    q: Tensor = node.attrs["q"]
    if not isinstance(zero, np.ndarray):
        return scales_of(op, node, zero, q)
    if (zero == zero.reshape(-1)[0]).all():
        return op.constant(np.float32(zero.reshape(-1)[0]))
    return scales_of(op, node, op.constant(zero.astype(np.float32)), q)


def _along(op: Emitter, term: Tensor, q: Tensor, axis: int) -> Tensor:
    """A scale or zero point as float32 (scales: in their own type) that broadcasts against `q`, its axis at `axis`."""
    shape = op.known_shape(term)
    if shape is None:
        raise Refusal("the shape of its scale or zero point is not known")
    if op.elem_type(term) not in FLOAT_TYPES:
        term = op.Cast(term, to=FLOAT)
    if shape in ((), (1,)):
        return as_scalar(op, term, shape)
    if len(shape) != 1:
        raise Refusal("its scale or zero point has several axes")
    rank = rank_of(op, q)
    vector: Tensor = op.Reshape(term, [-1 if k == axis % rank else 1 for k in range(rank)])
    return vector


# --- to and from integers -----------------------------------------------------------------------------------------


@vjp("QuantizeLinear", since=10)
@vjp("QuantizeLinear", domain=MICROSOFT)
def quantize_linear(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """x: ct / scale, straight through the rounding; the gate stands behind it;  scale, zero point: none"""
    x, scale = need(node.input(0), "input"), need(node.input(1), "scale")
    if op.graph.is_float(x) and op.elem_type(x) != op.elem_type(ct):
        ct = op.Cast(ct, to=op.elem_type(x))
    return (op.Div(ct, as_real(op, scales_of(op, node, scale, x), ct)),)


@vjp("DequantizeLinear", since=10)
@vjp("DequantizeLinear", domain=MICROSOFT)
def dequantize_linear(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """x: ct * scale;  scale: ct * (x - zero point), summed, where x is none that was quantised in this graph"""
    x, scale = need(node.input(0), "input"), need(node.input(1), "scale")

    def to_scale() -> Tensor:
        if node.attrs.get("block_size"):
            raise Refusal("scales of blocks that are inputs of the model")
        zero, shape = node.input(2), op.known_shape(scale) or ()
        axis = node.attrs.get("axis", 1)
        steps = op.Cast(x, to=op.elem_type(ct))
        if zero is not None:
            steps = op.Sub(steps, as_real(op, _along(op, zero, x, axis), ct))
        rank = rank_of(op, x)
        summed = [k for k in range(rank) if shape in ((), (1,)) or k != axis % rank]
        total = op.Mul(ct, steps)
        return reshape_like(op, op.ReduceSum(total, axes=summed, keepdims=0) if summed else total, scale)

    fitted = op.graph.producer(x) is not None  # the scale was chosen for x: rounding aside, y does not depend on it
    return op.Mul(ct, as_real(op, scales_of(op, node, scale, x), ct)), None if fitted else to_scale


def scales_of(op: Emitter, node: Node, scale: Tensor, q: Tensor) -> Tensor:
    """A scale or zero point, broadcast against the quantised tensor: one, one for each channel, or for each block."""
    if op.elem_type(scale) not in FLOAT_TYPES:
        scale = op.shaped_like(op.Cast(scale, to=FLOAT), scale)
    block = node.attrs.get("block_size", 0)
    if not block:
        return _along(op, scale, q, node.attrs.get("axis", 1))
    rank = rank_of(op, q)
    axis = node.attrs.get("axis", 1) % rank
    scale = op.shaped_like(op.Identity(scale), scale)  # repeated while running, not in the file
    repeats = op.Unsqueeze(scale, axes=[axis + 1])
    wide = op.Concat(*(op.dim(scale, k) for k in range(axis + 1)), [block], *_dims(op, scale, axis + 1, rank), axis=0)
    merged = op.Concat(*_dims(op, scale, 0, axis), [-1], *_dims(op, scale, axis + 1, rank), axis=0)
    full = op.Reshape(op.Expand(repeats, wide), merged)
    made: Tensor = op.Slice(full, [0], op.dim(q, axis), [axis])  # the last block may be shorter
    return made


def _dims(op: Emitter, tensor: Tensor, start: int, stop: int) -> list[Tensor]:
    return [op.dim(tensor, k) for k in range(start, stop)]


@vjp("DynamicQuantizeLinear", since=11, outputs="all")
def dynamic_quantize_linear(op: Emitter, node: Node, cts: tuple[Tensor | None, ...]) -> Cotangents:
    """ct / y_scale: the range is fitted to x, so that nothing saturates; straight through its ends and the rounding"""
    ct = cts[0]
    if ct is None:
        raise Refusal("the gradient through its scale alone is not known")
    return (op.Div(ct, need(node.output(1), "scale")),)


def dequantised(op: Emitter, q: Tensor, scale: Tensor | None, zero: Tensor | None, axis: int | None = None) -> Tensor:
    """The real numbers scale * (q - zero point) of a quantised operand, computed in the backward graph.

    `scale` None: 1. `axis`: the one that a vector of scales or zero points belongs to (default: the last).
    """
    terms = [None if t is None else op.known_shape(t) for t in (scale, zero)]
    if any(t is not None and s is None for t, s in zip((scale, zero), terms, strict=True)):
        raise Refusal("the shape of its scale or zero point is not known")
    scalars = all(s is None or s in ((), (1,)) for s in terms)
    if scalars and scale is not None:
        made = op.DequantizeLinear(q, as_scalar(op, scale), None if zero is None else as_scalar(op, zero))
    elif scale is not None and axis is not None and terms[0] == terms[1] and len(terms[0] or ()) == 1:
        made = op.DequantizeLinear(q, scale, zero, axis=axis % rank_of(op, q))
    else:
        made = op.Cast(q, to=FLOAT if scale is None else op.elem_type(scale))
        if zero is not None:
            made = op.Sub(made, _term(op, zero, q, axis))
        if scale is not None:
            made = op.Mul(made, _term(op, scale, q, axis))
    return op.shaped_like(made, q)


def _term(op: Emitter, term: Tensor, q: Tensor, axis: int | None) -> Tensor:
    if len(op.known_shape(term) or ()) <= 1:
        return _along(op, term, q, -1 if axis is None else axis)
    made: Tensor = op.Cast(term, to=FLOAT) if op.elem_type(term) not in FLOAT_TYPES else term
    return made


def as_scalar(op: Emitter, term: Tensor, shape: Shape = None) -> Tensor:
    """A scale or zero point of one element as a scalar. `shape`: its shape, where an emitted one does not tell."""
    if (op.known_shape(term) if shape is None else shape) == ():
        return term
    made: Tensor = op.Reshape(term, op.constant(np.zeros(0, np.int64)))
    return made


def rescaled(op: Emitter, ct: Tensor, over: Tensor | None, under: Tensor | None) -> Tensor:
    """ct * over / under, two scales of one element each (None: 1)"""
    ratio = op.constant(np.float32(1)) if over is None else as_scalar(op, over)
    if under is not None:
        ratio = op.Div(ratio, as_scalar(op, under))
    value = op.value(ratio)
    made: Tensor = ct if value is not None and float(value) == 1 else op.Mul(ct, as_real(op, ratio, ct))
    return made
