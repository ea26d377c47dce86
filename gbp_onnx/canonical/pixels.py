"""Numbers rounded to integers on the way, as graphs do that preprocess their pixels inside.

Cast(x, to=uint8) -> y                     =>     Identity(x) -> y     8- and 16-bit pixels: straight through
Round(x) -> r; Clip(r, 0, 255) -> c; Cast(c, to=uint8) -> y            the same: Round passes, Clip is no rectifier
Cast(x, to=int64) -> y                     =>     Cast(x) -> y         in domain "gbp": stops, as Floor does

An integer Resize rounds too, and there the integers count as real numbers; so they do between a cast to pixels and the
cast back. Wider integers are positions and counts (of grids, of classes): the truth there is a derivative of zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from gbp_onnx.graph.reader import FLOAT_TYPES, GBP_DOMAIN, INTEGER_TYPES, Graph, Node, Tensor

__all__ = ["Roundings", "find_roundings"]

PIXEL_TYPES = frozenset({onnx.TensorProto.UINT8, onnx.TensorProto.INT8, onnx.TensorProto.UINT16})


@dataclass(frozen=True, slots=True)
class Roundings:
    """Stand-ins by the node's index, and the indices of the Clips that belong to a rounding to pixels."""

    nodes: dict[int, tuple[Node, ...]]
    saturations: frozenset[int]


def find_roundings(graph: Graph) -> Roundings:
    """Every rounding to integers in the graph."""
    nodes: dict[int, tuple[Node, ...]] = {}
    saturations: set[int] = set()
    for node in reversed(graph.nodes):  # readers first
        if node.domain != "" or not node.inputs or node.inputs[0] is None or node.output(0) is None:
            continue
        if node.op in ("Cast", "CastLike") and graph.elem_type(node.inputs[0]) in FLOAT_TYPES:
            kind = graph.elem_type(_y(node))
            if kind in PIXEL_TYPES:
                nodes[node.index] = (_passes(node),)
            elif kind in INTEGER_TYPES:
                stop = Node("Cast", node.name, node.inputs, node.outputs, {}, GBP_DOMAIN, index=node.index)
                nodes[node.index] = (stop,)
        elif node.op in ("Round", "Floor", "Clip") and _becomes_pixels(graph, node, nodes, saturations):
            if node.op == "Clip":
                saturations.add(node.index)
            else:
                nodes[node.index] = (_passes(node),)
    return Roundings(nodes, frozenset(saturations))


def _becomes_pixels(graph: Graph, node: Node, nodes: dict[int, tuple[Node, ...]], saturations: set[int]) -> bool:
    """Whether all that reads the node's output belongs to a rounding to pixels."""
    readers = graph.readers(_y(node))
    passing = [nodes.get(r.index) for r in readers]
    return bool(readers) and all(
        r.index in saturations or (p is not None and p[0].op == "Identity")
        for r, p in zip(readers, passing, strict=True)
    )


def _passes(node: Node) -> Node:
    return Node("Identity", node.name, node.inputs[:1], node.outputs, {}, index=node.index)


def _y(node: Node) -> Tensor:
    y = node.outputs[0]
    if y is None:
        raise ValueError(f"{node!r} has no output")
    return y
