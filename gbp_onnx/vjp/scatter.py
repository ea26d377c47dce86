"""Operators that write values by index: what was overwritten gets no cotangent, what was written gets its own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.reader import Node, Tensor
from gbp_onnx.vjp.common import as_real, masked, need, rank_of, reshape_like
from gbp_onnx.vjp.indexing import element_places
from gbp_onnx.vjp.layout import scatter_along
from gbp_onnx.vjp.registry import Cotangents, vjp

_FLOAT, _INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
_HALF = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
Scatter = Callable[[Tensor, Tensor, str], Tensor]
"""(base, updates, reduction) -> base with the updates written at the node's indices."""
Gather = Callable[[Tensor], Tensor]
"""The values of a tensor at the node's indices, in the shape of the updates."""


@vjp("ScatterElements", since=11)
def scatter_elements(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """data: ct where nothing was written;  updates: ct at the indices (mul: times the others; max, min: the winners)"""
    indices, axis = node.inputs[1], node.attrs["axis"]
    return _written(
        op,
        node,
        ct,
        lambda base, updates, reduction: op.ScatterElements(base, indices, updates, axis=axis, reduction=reduction),
        lambda tensor: op.GatherElements(tensor, indices, axis=axis),
    )


@vjp("ScatterND", since=11)
def scatter_nd(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """data: ct where nothing was written;  updates: ct at the indices (mul: times the others; max, min: the winners)"""
    data, indices = need(node.input(0), "data"), need(node.input(1), "indices")
    places = op.Reshape(element_places(op, data, indices), [-1])

    def scatter(base: Tensor, updates: Tensor, reduction: str) -> Tensor:
        flat = [op.Reshape(t, [-1]) for t in (base, updates)]
        written = op.ScatterElements(flat[0], places, flat[1], axis=0, reduction=reduction)
        return reshape_like(op, written, data)

    return _written(op, node, ct, scatter, lambda tensor: op.GatherND(tensor, indices))


@vjp("TensorScatter", since=24)
def tensor_scatter(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """cache: ct where nothing was written;  update: ct at the positions written"""
    cache, update, starts = node.inputs[0], node.inputs[1], node.input(2)
    rank = rank_of(op, cache)
    axis = node.attrs["axis"] % rank
    length = op.Squeeze(op.dim(update, axis), axes=[0])
    steps = op.Range(op.constant(np.int64(0)), length, op.constant(np.int64(1)))
    positions = op.Unsqueeze(steps, axes=[a for a in range(rank) if a != axis])
    if starts is not None:
        positions = op.Add(positions, op.Unsqueeze(starts, axes=list(range(1, rank))))
    if node.attrs["mode"] == "circular":
        positions = op.Mod(positions, op.dim(cache, axis))
    indices = op.Expand(positions, op.shape(update))
    nothing = op.ConstantOfShape(op.shape(update), value=np.zeros(1, np.float32))
    return (
        lambda: op.ScatterElements(ct, indices, as_real(op, nothing, ct), axis=axis),
        lambda: op.GatherElements(ct, indices, axis=axis),
    )


def _written(op: Emitter, node: Node, ct: Tensor, scatter: Scatter, gather: Gather) -> Cotangents:
    """The cotangents of data, indices and updates, for each reduction."""
    data, updates = need(node.input(0), "data"), need(node.input(2), "updates")
    match node.attrs.get("reduction", "none"):
        case "none":
            nothing = as_real(op, op.ConstantOfShape(op.shape(updates), value=np.zeros(1, np.float32)), ct)
            return (
                lambda: scatter(ct, nothing, "none"),
                None,
                lambda: masked(op, _stays(op, data, updates, scatter, gather), gather(ct)),
            )
        case "add":
            return ct, None, lambda: gather(ct)
        case "mul":
            return _multiplied(op, ct, data, updates, scatter, gather)
        case _:
            return _extremum(op, node, ct, data, updates, scatter, gather)


def _stays(op: Emitter, data: Tensor, updates: Tensor, scatter: Scatter, gather: Gather) -> Tensor:
    """Which updates are in the result: of several for one place the one that the forward's own kernel leaves there."""
    count = op.Squeeze(op.size(updates), axes=[0])
    numbers = op.Range(op.constant(np.int64(0)), count, op.constant(np.int64(1)))
    tickets = op.Reshape(numbers, op.shape(updates), allowzero=1)
    empty = op.ConstantOfShape(op.shape(data), value=-np.ones(1, np.int64))
    made: Tensor = op.Equal(gather(scatter(empty, tickets, "none")), tickets)
    return made


def _multiplied(op: Emitter, ct: Tensor, data: Tensor, updates: Tensor, scatter: Scatter, gather: Gather) -> Cotangents:
    """y = data * product of updates. Zeros are counted apart, so that the product of the others needs no 0 / 0."""
    kind = op.elem_type(ct)
    wide = _FLOAT if kind in _HALF else kind  # the CPU's kernel reduces float and double
    real = op.Cast(updates, to=wide) if wide != kind else updates
    is_zero = op.Equal(real, 0.0)
    factors = op.Where(is_zero, 1.0, real)
    filler = op.ConstantOfShape(op.shape(data), value=np.zeros(1, np.float32))
    empty = filler if wide == _FLOAT else op.Cast(filler, to=wide)
    zeros = scatter(empty, op.Cast(is_zero, to=wide), "add")
    product = scatter(op.Add(empty, 1.0), factors, "mul")  # of the factors that are not 0

    def narrow(tensor: Tensor) -> Tensor:
        made: Tensor = op.Cast(tensor, to=kind) if wide != kind else tensor
        return made

    def to_updates() -> Tensor:
        others = op.Sub(gather(zeros), op.Cast(is_zero, to=wide))
        alone = op.Where(op.Equal(others, 0.0), op.Div(gather(product), factors), 0.0)
        made: Tensor = op.Mul(gather(op.Mul(ct, data)), narrow(alone))
        return made

    return lambda: op.Mul(ct, narrow(op.Where(op.Equal(zeros, 0.0), product, 0.0))), None, to_updates


def _extremum(
    op: Emitter, node: Node, ct: Tensor, data: Tensor, updates: Tensor, scatter: Scatter, gather: Gather
) -> Cotangents:
    """y = the largest (smallest) of data and updates; ties share equally, as for Max and Min."""
    y, kind = node.outputs[0], op.elem_type(ct)
    wide = _FLOAT if kind in _HALF else kind
    kept, won = op.Equal(data, y), op.Equal(updates, gather(y))
    count = scatter(op.Cast(kept, to=wide), op.Cast(won, to=wide), "add")
    share = op.Div(ct, op.Cast(count, to=kind) if wide != kind else count)
    return lambda: masked(op, kept, share), None, lambda: masked(op, won, gather(share))


# --- picked by a mask, a table of classes or a length ---------------------------------------------------------------


@vjp("Compress", since=9)
def compress(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct scattered to the slices that the condition keeps"""
    x, condition, axis = node.inputs[0], node.inputs[1], node.attrs.get("axis")
    taken = op.Reshape(op.NonZero(condition), [-1])
    if axis is None:
        return (reshape_like(op, scatter_along(op, ct, taken, op.size(x), 0, 1), x),)
    rank = rank_of(op, x)
    return (scatter_along(op, ct, taken, op.dim(x, axis % rank), axis % rank, rank),)


@vjp("ReverseSequence", since=10)
def reverse_sequence(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct, reversed in the same way"""
    batch, time = node.attrs["batch_axis"], node.attrs["time_axis"]
    return (op.ReverseSequence(ct, node.inputs[1], batch_axis=batch, time_axis=time),)


@vjp("OneHot", since=9)
def one_hot(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """values: the sum of ct where the class is off, and where it is on"""
    indices, depth = node.inputs[:2]

    def to_values() -> Tensor:
        switch = op.OneHot(indices, depth, op.constant([0, 1], _FLOAT), axis=node.attrs["axis"])
        on = op.Greater(switch, 0.5)
        sums = [
            op.ReduceSum(op.Reshape(part, [-1]), axes=[0], keepdims=1)
            for part in (op.Where(on, 0.0, ct), op.Where(on, ct, 0.0))
        ]
        made: Tensor = op.Concat(*sums, axis=0)
        return made

    return None, None, to_values


@vjp("Unique", since=11, outputs="all")
def unique(op: Emitter, node: Node, ct: tuple[Tensor | None, ...]) -> Cotangents:
    """ct at the first of equal values, or slices"""
    x, values, axis = node.inputs[0], ct[0], node.attrs.get("axis")
    if values is None:
        return (None,)
    first = op.forward_output(node, 1, _INT64)
    if axis is None:
        return (reshape_like(op, scatter_along(op, values, first, op.size(x), 0, 1), x),)
    rank = rank_of(op, x)
    return (scatter_along(op, values, first, op.dim(x, axis % rank), axis % rank, rank),)
