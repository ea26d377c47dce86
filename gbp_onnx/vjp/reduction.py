"""Reductions, their axes given in the file or at run time. Ties of a maximum go to the first one in row-major order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.reader import INTEGER_TYPES, Node, Tensor
from gbp_onnx.vjp.common import as_real, masked, rank_of, reshape_like, scatter_add
from gbp_onnx.vjp.registry import Cotangents, Refusal, vjp


@vjp("ReduceSum")
def reduce_sum(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct, spread over the reduced axes"""
    return (_spread(op, node, ct),)


@vjp("ReduceMean")
def reduce_mean(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct / count, spread over the reduced axes"""
    _check_exact(op, node)
    x = node.inputs[0]
    axes = _axes(op, node)
    if axes is None:
        sizes = op.Where(_is_reduced(op, node), op.shape(x), 1)
        count = op.ReduceProd(sizes, axes=[0], keepdims=0)
    elif axes:
        count = op.ReduceProd(op.Gather(op.shape(x), axes, axis=0), axes=[0], keepdims=0)
    else:
        count = op.constant(np.int64(1))
    return (_spread(op, node, op.Div(ct, op.Cast(count, to=op.elem_type(ct)))),)


@vjp("ReduceMax", "ReduceMin")
def reduce_extremum(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct at the first extremum of each reduced set"""
    x = node.inputs[0]
    axes, known = _axes(op, node), op.known_shape(x)
    if axes is None:
        return (_first_extremum(op, node, ct),)
    if not axes or 0 in (known or ()):
        return (_spread(op, node, ct),)
    rank = rank_of(op, x)
    kept = [a for a in range(rank) if a not in axes]
    perm = kept + axes
    turned = op.Transpose(x, perm=perm) if perm != list(range(rank)) else x
    lead = op.Gather(op.shape(x), kept, axis=0) if kept else op.constant(np.zeros(0, np.int64))
    count = op.ReduceProd(op.Gather(op.shape(x), axes, axis=0), axes=[0], keepdims=1)
    rows = op.Reshape(turned, op.Concat(lead, count, axis=0), allowzero=1)
    find = op.ArgMax if node.op == "ReduceMax" else op.ArgMin
    first = find(rows, axis=-1, keepdims=1)
    single = op.Concat(lead, [1], axis=0)
    if not all(isinstance(d, int) for d in known or (None,)):
        first = op.Reshape(first, single, allowzero=1)  # ONNX Runtime's ArgMax keeps the shape of an empty input
    one = op.Reshape(ct, single, allowzero=1)
    spread = scatter_add(op, op.Shape(rows), first, one, len(kept))
    back = reshape_like(op, spread, turned) if turned is x else op.Reshape(spread, op.Shape(turned), allowzero=1)
    return (back if turned is x else op.Transpose(back, perm=np.argsort(perm).tolist()),)


def _first_extremum(op: Emitter, node: Node, ct: Tensor) -> Tensor:
    """The same for axes known at run time, to which no Transpose can turn: by the smallest flat place of a hit."""
    x = node.inputs[0]
    places = op.Reshape(op.Range(0, op.Size(x), 1), op.shape(x), allowzero=1)
    hit = op.Equal(x, _spread(op, node, node.outputs[0]))
    first = op.ReduceMin(
        op.Where(hit, places, op.Size(x)), node.input(1), keepdims=1, noop_with_empty_axes=_keeps_without_axes(node)
    )
    return masked(op, op.Equal(places, first), _spread(op, node, ct))


@vjp("ReduceProd")
def reduce_prod(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct * the product of the others: y / x, and where x has zeros, that of the rest at the one zero of its set"""
    x = as_real(op, node.inputs[0], ct)
    zero = op.Equal(x, 0.0)
    safe = op.Where(zero, 1.0, x)
    count = _again(op, node, op.ReduceSum, op.Cast(zero, to=op.elem_type(ct)))
    rest = op.Div(_again(op, node, op.ReduceProd, safe), safe)
    alone = op.Equal(count, op.Cast(zero, to=op.elem_type(ct)))  # no zero at all, or it is the only one
    return (masked(op, alone, op.Mul(_spread(op, node, ct), rest)),)


@vjp("ReduceL1")
def reduce_l1(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct * sign(x)"""
    return (op.Mul(_spread(op, node, ct), as_real(op, op.Sign(node.inputs[0]), ct)),)


@vjp("ReduceL2")
def reduce_l2(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct * x / y, 0 where y = 0"""
    _check_exact(op, node)
    y = node.outputs[0]
    positive = op.Greater(y, 0.0)
    ratio = op.Where(positive, op.Div(ct, op.Where(positive, y, 1.0)), 0.0)
    return (op.Mul(_spread(op, node, ratio), node.inputs[0]),)


@vjp("ReduceSumSquare")
def reduce_sum_square(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """2 * ct * x"""
    return (op.Mul(_spread(op, node, op.Mul(ct, 2.0)), as_real(op, node.inputs[0], ct)),)


@vjp("ReduceLogSum")
def reduce_log_sum(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct / exp(y)"""
    _check_exact(op, node)
    return (_spread(op, node, op.Div(ct, op.Exp(node.outputs[0]))),)


@vjp("ReduceLogSumExp")
def reduce_log_sum_exp(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct * exp(x - y)"""
    _check_exact(op, node)
    x = node.inputs[0]
    return (op.Mul(_spread(op, node, ct), op.Exp(op.Sub(x, _spread(op, node, node.outputs[0])))),)


def _check_exact(op: Emitter, node: Node) -> None:
    if op.elem_type(node.inputs[0]) in INTEGER_TYPES:
        raise Refusal("it works on integers, and rounds")


def _axes(op: Emitter, node: Node) -> list[int] | None:
    """The reduced axes, non-negative and in order; None where they are known only at run time."""
    tensor = node.input(1)
    if tensor is None:
        axes = list(node.attrs.get("axes") or [])
    else:
        value, shape = op.value(tensor), op.known_shape(tensor)
        if value is None and (shape is None or 0 not in shape):
            return None
        axes = [] if value is None else value.reshape(-1).tolist()
    if not axes and _keeps_without_axes(node):
        return []
    rank = rank_of(op, node.inputs[0])
    return sorted(int(a) % rank for a in axes) if axes and rank else list(range(rank))


def _keeps_without_axes(node: Node) -> int:
    return int(node.attrs.get("noop_with_empty_axes", 0))


def _is_reduced(op: Emitter, node: Node) -> Tensor:
    """For axes known at run time: of each axis, whether it is reduced."""
    x, axes = node.inputs[0], node.inputs[1]
    none = op.ConstantOfShape(op.Shape(op.shape(x)), value=np.zeros(1, np.int64))
    ones = op.ConstantOfShape(op.shape(axes), value=np.ones(1, np.int64))
    made: Tensor = op.Cast(op.ScatterElements(none, axes, ones, axis=0), to=onnx.TensorProto.BOOL)
    return made if _keeps_without_axes(node) else op.Or(made, op.Equal(op.Size(axes), 0))


def _spread(op: Emitter, node: Node, reduced: Tensor) -> Tensor:
    """A tensor of the result's shape, repeated along the reduced axes to the shape of the input."""
    x = node.inputs[0]
    if not node.attrs.get("keepdims", 1):
        axes = _axes(op, node)
        if axes is None:
            reduced = op.Reshape(reduced, op.Where(_is_reduced(op, node), 1, op.shape(x)), allowzero=1)
        elif axes:
            reduced = op.Unsqueeze(reduced, axes=axes)
    made: Tensor = op.Expand(reduced, op.shape(x))
    return made


def _again(op: Emitter, node: Node, reduce: Callable[..., Tensor], tensor: Tensor) -> Tensor:
    """`tensor` reduced over the node's axes, which are kept."""
    axes = _axes(op, node)
    if axes is None:
        return reduce(tensor, node.input(1), keepdims=1, noop_with_empty_axes=_keeps_without_axes(node))
    return reduce(tensor, axes=axes, keepdims=1) if axes else tensor
