"""Sums and products along an axis, triangles, determinants."""

from __future__ import annotations

import numpy as np

from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.reader import Node, Tensor
from gbp_onnx.vjp.common import as_real, masked, need, rank_of, reshape_like
from gbp_onnx.vjp.registry import Cotangents, vjp


@vjp("CumSum", since=11)
def cum_sum(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """CumSum(ct) in the other direction"""
    attrs = node.attrs
    axis = need(node.input(1), "axis")
    return (op.CumSum(ct, axis, exclusive=attrs.get("exclusive", 0), reverse=1 - attrs.get("reverse", 0)),)


@vjp("CumProd", since=26)
def cum_prod(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct_i * (the product in y_i without x_k), summed over i: exact where x has zeros, quadratic in the axis' size"""
    x, axis = node.inputs[0], op.Reshape(need(node.input(1), "axis"), [1])
    exclusive, reverse = node.attrs.get("exclusive", 0), node.attrs.get("reverse", 0)
    shape = op.shape(x)
    rank = op.Shape(shape)
    place = op.Where(op.Less(axis, 0), op.Add(op.Cast(axis, to=7), rank), op.Cast(axis, to=7))
    size = op.Gather(shape, place, axis=0)
    before = op.ReduceProd(op.Slice(shape, [0], place, [0]), axes=[0], keepdims=1)
    after = op.ReduceProd(op.Slice(shape, op.Add(place, 1), rank, [0]), axes=[0], keepdims=1)
    flat = op.Concat(before, size, after, axis=0)
    rows, cts = (
        op.Reshape(as_real(op, x, ct), flat, allowzero=1),
        op.Reshape(ct, flat, allowzero=1),
    )  # [before, size, after]
    count = op.Range(0, op.Squeeze(size, axes=[0]), 1)
    k, i = op.Reshape(count, [-1, 1, 1]), op.Reshape(count, [-1, 1])
    later = op.Greater(k, i) if reverse else op.Less(k, i)
    # Axes [before, k, i, after]: the product of what y_i takes on this side of x_k and beyond it.
    steps = op.Where(later, op.Unsqueeze(rows, axes=[1]), 1.0)
    beyond = op.CumProd(steps, np.asarray(2, np.int64), exclusive=exclusive, reverse=reverse)
    taken = later if exclusive else op.Not(op.Less(k, i) if reverse else op.Greater(k, i))
    total = op.ReduceSum(masked(op, taken, op.Mul(beyond, op.Unsqueeze(cts, axes=[1]))), axes=[2], keepdims=0)
    nearer = op.CumProd(rows, np.asarray(1, np.int64), exclusive=1, reverse=reverse)
    return (reshape_like(op, op.Mul(nearer, total), x),)


@vjp("Range", since=11)
def range_(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """start: the sum of ct;  delta: the sum of k * ct[k];  limit: only says how many there are"""
    start, _, delta = node.inputs
    steps = op.Cast(op.Range(0, op.Squeeze(op.dim(ct, 0), axes=[0]), 1), to=op.elem_type(ct))
    return (
        lambda: reshape_like(op, op.ReduceSum(ct, axes=[0], keepdims=0), need(start, "start")),
        None,
        lambda: reshape_like(op, op.ReduceSum(op.Mul(ct, steps), axes=[0], keepdims=0), need(delta, "delta")),
    )


@vjp("Trilu", since=14)
def trilu(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """the same triangle of ct"""
    return (op.Trilu(ct, node.input(1), upper=node.attrs.get("upper", 1)),)


@vjp("Det", since=11)
def det(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct * cofactors of x: determinants of the minors, so that singular matrices are exact too"""
    x = node.inputs[0]
    rank = rank_of(op, x)
    known = op.known_shape(x)
    if known is not None and 1 in known[-2:]:
        return (op.Unsqueeze(ct, axes=[-2, -1]),)
    size = op.Squeeze(op.dim(x, -1), axes=[0])
    every = op.Range(0, size, 1)
    i, j = op.Unsqueeze(every, axes=[1]), op.Unsqueeze(op.Range(0, op.Sub(size, 1), 1), axes=[0])
    others = op.Add(j, op.Cast(op.GreaterOrEqual(j, i), to=7))  # [i] lists all rows but i
    rows = op.Gather(x, others, axis=rank - 2)  # [..., i, n-1, n]
    minors = op.Gather(rows, others, axis=rank)  # [..., i, n-1, j, n-1]
    lead = list(range(rank - 2))
    turned = op.Transpose(minors, perm=[*lead, rank - 2, rank, rank - 1, rank + 1])
    odd = op.Equal(op.Mod(op.Add(op.Unsqueeze(every, axes=[0]), i), 2), 1)
    minor = op.Det(turned)
    return (op.Mul(op.Unsqueeze(ct, axes=[-2, -1]), op.Where(odd, op.Neg(minor), minor)),)
