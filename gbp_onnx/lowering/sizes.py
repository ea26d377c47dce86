"""Sizes that are known, as constants: what reads the shape of a tensor does not keep the tensor alive for it."""

from __future__ import annotations

import numpy as np
import onnx

from gbp_onnx.graph.nodes import attributes
from gbp_onnx.lowering.draft import Draft

__all__ = ["know_size", "reshape_to_constant"]


def know_size(g: Draft, node: onnx.NodeProto) -> bool:
    """Gather(Shape(t), k), Slice(Shape(t), from, to)  ->  a constant, where those sizes of t are known."""
    source = g.node(node.input[0], "Shape")
    shape = None if source is None or attributes(source) else g.shape(source.input[0])
    places = [g.value(name) for name in node.input[1:]]
    if shape is None or any(p is None for p in places):
        return False
    known = np.array([d if isinstance(d, int) and d >= 0 else -1 for d in shape], np.int64)
    if node.op_type == "Gather":
        index = places[0]
        found = None if index is None or attributes(node).get("axis", 0) else known[index]
    else:
        bounds = [int(p.reshape(-1)[0]) for p in places if p is not None and p.size == 1]
        plain = len(bounds) == len(places) and len(bounds) >= 2 and bounds[2:] in ([], [0], [0, 1])
        found = known[bounds[0] : bounds[1]] if plain and bounds[0] >= 0 and bounds[1] >= 0 else None
    if found is None or (found < 0).any():
        return False
    g.replace(node.output[0], g.constant(found, np.int64))
    return True


def reshape_to_constant(g: Draft, node: onnx.NodeProto) -> bool:
    """Reshape(x, Shape(t))  ->  Reshape(x, [-1, sizes...]), where no size of t but the first is open, and none is 0."""
    source = g.node(node.input[1], "Shape")
    shape = None if source is None or attributes(source) else g.shape(source.input[0])
    if not shape or not all(isinstance(d, int) and d > 0 for d in shape[1:]):
        return False
    first = shape[0] if isinstance(shape[0], int) and shape[0] > 0 else -1
    sizes = g.constant([first, *shape[1:]], np.int64)
    kind = g.kinds.get(g.now(node.input[0]), onnx.TensorProto.FLOAT)
    g.replace(node.output[0], g.emit("Reshape", [node.input[0], sizes], shape, kind))
    return True
