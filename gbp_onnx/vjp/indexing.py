"""Operators that pick values by index: the cotangent is added back to where each value was taken."""

from __future__ import annotations

import numpy as np

from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.reader import Node, Tensor
from gbp_onnx.vjp.common import rank_of, reshape_like, scatter_add
from gbp_onnx.vjp.layout import scatter_along
from gbp_onnx.vjp.registry import Cotangents, vjp


@vjp("Gather")
def gather(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct added to the slices that were taken"""
    x, indices = node.inputs
    rank, picked = rank_of(op, x), rank_of(op, indices)
    axis = node.attrs["axis"] % rank
    shape = op.shape(x)
    lead, tail = op.Slice(shape, [0], [axis], [0]), op.Slice(shape, [axis + 1], [rank], [0])
    flat = op.Reshape(ct, op.Concat(lead, [-1], tail, axis=0)) if picked != 1 else ct
    positions = op.Cast(op.Reshape(indices, [-1]), to=7)
    return (scatter_along(op, flat, positions, op.dim(x, axis), axis, rank),)


@vjp("GatherElements", since=11)
def gather_elements(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct added to the elements that were taken"""
    x, indices = node.inputs
    return (scatter_add(op, op.shape(x), indices, ct, node.attrs["axis"]),)


@vjp("GatherND", since=11)
def gather_nd(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct added to the slices that were taken"""
    x, indices = node.inputs
    places = op.Reshape(element_places(op, x, indices, node.attrs["batch_dims"]), [-1])
    total = scatter_add(op, op.size(x), places, op.Reshape(ct, [-1]), axis=0)
    return (reshape_like(op, total, x),)


def element_places(op: Emitter, x: Tensor, indices: Tensor, batch_dims: int = 0) -> Tensor:
    """The flat positions in x of the elements that GatherND takes.

    ScatterND would do without, but ONNX Runtime's adds in parallel without locks: of 20 runs with 300,000 repeated
    indices 5 were wrong (1.31, CPU).
    """
    counter = op.Range(op.constant(np.int64(0)), op.Squeeze(op.size(x), axes=[0]), op.constant(np.int64(1)))
    numbers = op.Reshape(counter, op.shape(x), allowzero=1)
    made: Tensor = op.GatherND(numbers, indices, batch_dims=batch_dims)
    return made


@vjp("TopK", since=10, outputs="all")
def top_k(op: Emitter, node: Node, ct: tuple[Tensor | None, ...]) -> Cotangents:
    """the values' ct, scattered to the positions that the indices name"""
    x, values = node.inputs[0], ct[0]
    if values is None:
        return (None,)
    return (scatter_add(op, op.shape(x), op.forward_output(node, 1, 7), values, node.attrs["axis"]),)
