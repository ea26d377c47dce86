"""Ranks where shape inference knows nothing: a Split with sizes given at run time, and what follows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_graphsurgeon as gs

if TYPE_CHECKING:
    from gbp_onnx.graph.reader import Graph, Node

__all__ = ["give_rank"]

_KEEPS_RANK = frozenset(
    {"Cast", "Clip", "Concat", "Identity", "Neg", "Pad", "Relu", "Sigmoid", "Slice", "Softmax", "Split", "Transpose"}
)
_BROADCASTS = frozenset({"Add", "Div", "Max", "Min", "Mul", "Sub", "Where"})


def give_rank(graph: Graph, node: Node) -> None:
    """Note the rank of what a standard node makes, where it follows from its inputs. Nodes are visited in order."""
    source, made = node.input(0), node.output(0)
    if node.op == "Shape" and source is not None and made is not None:
        rank = graph.rank(source)
        if rank is not None and not node.attrs.get("start") and node.attrs.get("end") is None:
            made.shape = [rank]
    if all(t is None or t.shape is not None for t in node.outputs):
        return
    rank = _rank_made(graph, node)
    if rank is None:
        return
    for tensor in node.outputs:
        if isinstance(tensor, gs.Variable) and graph.shape(tensor) is None:  # not one whose value is known
            tensor.shape = [None] * rank


def _rank_made(graph: Graph, node: Node) -> int | None:
    known = [None if t is None else graph.rank(t) for t in node.inputs]
    if not known:
        return None
    if node.op in _BROADCASTS:
        ranks = [r for r in known if r is not None]
        return max(ranks) if len(ranks) == len(known) else None
    if node.op in _KEEPS_RANK:
        return known[0]
    given = node.input(1)  # a vector with an entry for each axis
    sizes = None if given is None else graph.static_shape(given)
    if sizes is None or len(sizes) != 1:
        return None
    if node.op == "Reshape":
        return sizes[0]
    step = {"Unsqueeze": 1, "Squeeze": -1}.get(node.op)
    return None if step is None or known[0] is None else known[0] + step * sizes[0]
