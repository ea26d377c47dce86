"""Reductions. Ties of a maximum go to the first one in row-major order."""

from __future__ import annotations

import numpy as np

from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.reader import Node, Tensor
from gbp_onnx.vjp.common import constant_axes, rank_of, reshape_like, scatter_add
from gbp_onnx.vjp.registry import Cotangents, vjp


@vjp("ReduceSum")
def reduce_sum(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct, spread over the reduced axes"""
    return (_spread(op, node, ct),)


@vjp("ReduceMean")
def reduce_mean(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct / count, spread over the reduced axes"""
    x = node.inputs[0]
    axes = _axes(op, node)
    count = (
        op.ReduceProd(op.Gather(op.shape(x), axes, axis=0), axes=[0], keepdims=0) if axes else op.constant(np.int64(1))
    )
    return (_spread(op, node, op.Div(ct, op.Cast(count, to=op.elem_type(ct)))),)


@vjp("ReduceMax", "ReduceMin")
def reduce_extremum(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct at the first extremum of each reduced set"""
    x = node.inputs[0]
    rank, axes = rank_of(op, x), _axes(op, node)
    if not axes:
        return (ct,)
    kept = [a for a in range(rank) if a not in axes]
    perm = kept + axes
    turned = op.Transpose(x, perm=perm) if perm != list(range(rank)) else x
    lead = op.Gather(op.shape(x), kept, axis=0) if kept else op.constant(np.zeros(0, np.int64))
    rows = op.Reshape(turned, op.Concat(lead, [-1], axis=0))
    find = op.ArgMax if node.op == "ReduceMax" else op.ArgMin
    first = find(rows, axis=-1, keepdims=1)
    one = op.Reshape(ct, op.Concat(lead, [1], axis=0))
    spread = scatter_add(op, op.Shape(rows), first, one, len(kept))
    back = reshape_like(op, spread, turned) if turned is x else op.Reshape(spread, op.Shape(turned), allowzero=1)
    return (back if turned is x else op.Transpose(back, perm=np.argsort(perm).tolist()),)


@vjp("ReduceL1")
def reduce_l1(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct * sign(x)"""
    return (op.Mul(_spread(op, node, ct), op.Sign(node.inputs[0])),)


@vjp("ReduceL2")
def reduce_l2(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct * x / y, 0 where y = 0"""
    y = node.outputs[0]
    positive = op.Greater(y, 0.0)
    ratio = op.Where(positive, op.Div(ct, op.Where(positive, y, 1.0)), 0.0)
    return (op.Mul(_spread(op, node, ratio), node.inputs[0]),)


@vjp("ReduceSumSquare")
def reduce_sum_square(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """2 * ct * x"""
    return (op.Mul(_spread(op, node, op.Mul(ct, 2.0)), node.inputs[0]),)


@vjp("ReduceLogSum")
def reduce_log_sum(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct / exp(y)"""
    return (_spread(op, node, op.Div(ct, op.Exp(node.outputs[0]))),)


@vjp("ReduceLogSumExp")
def reduce_log_sum_exp(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct * exp(x - y)"""
    x = node.inputs[0]
    return (op.Mul(_spread(op, node, ct), op.Exp(op.Sub(x, _spread(op, node, node.outputs[0])))),)


def _axes(op: Emitter, node: Node) -> list[int]:
    """The reduced axes, non-negative and in order."""
    rank = rank_of(op, node.inputs[0])
    axes = constant_axes(op, node, 1, rank)
    if axes:
        return sorted(axes)
    return [] if node.attrs.get("noop_with_empty_axes") else list(range(rank))


def _spread(op: Emitter, node: Node, reduced: Tensor) -> Tensor:
    """A tensor of the result's shape, repeated along the reduced axes to the shape of the input."""
    x, axes = node.inputs[0], _axes(op, node)
    if not node.attrs.get("keepdims", 1) and axes:
        reduced = op.Unsqueeze(reduced, axes=axes)
    made: Tensor = op.Expand(reduced, op.shape(x))
    return made
