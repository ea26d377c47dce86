"""Ranks where shape inference knows nothing: an input without a shape, a Split with sizes given at run time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_graphsurgeon as gs

from gbp_onnx.graph.blocks import BLOCKED

if TYPE_CHECKING:
    from gbp_onnx.graph.reader import Graph, Node

__all__ = ["give_rank"]

_KEEPS_RANK = frozenset(
    {"Cast", "Clip", "Concat", "Identity", "Neg", "Pad", "Relu", "Sigmoid", "Slice", "Softmax", "Split", "Transpose"}
    | {"AveragePool", "BatchNormalization", "Dropout", "Elu", "GlobalAveragePool", "GlobalMaxPool", "HardSigmoid"}
    | {"HardSwish", "InstanceNormalization", "LRN", "LeakyRelu", "LogSoftmax", "MaxPool", "PRelu", "Resize", "Tanh"}
)
_OF_IMAGES = frozenset({"Conv", "ConvTranspose", "FusedConv"})
_BROADCASTS = frozenset({"Add", "Div", "Max", "Mean", "Min", "Mul", "Pow", "Sub", "Sum", "Where"})


def give_rank(graph: Graph, node: Node) -> None:
    """Note the rank of what a standard node makes, where it follows from its inputs. Nodes are visited in order."""
    source, made = node.input(0), node.output(0)
    if node.domain == BLOCKED:  # two spatial axes, always
        for tensor in (source, made):
            if isinstance(tensor, gs.Variable) and graph.shape(tensor) is None:
                tensor.shape = [None] * 4
    _give_input_rank(graph, node)
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


def _give_input_rank(graph: Graph, node: Node) -> None:
    """Note the rank that a weight, a kernel or pads demand of the input that they are applied to."""
    source, given = node.input(0), node.input(1)
    if not isinstance(source, gs.Variable) or graph.shape(source) is not None:
        return
    sizes = None if given is None else graph.static_shape(given)
    if node.op in _OF_IMAGES and sizes is not None:
        source.shape = [None] * len(sizes)
    elif node.op in ("MaxPool", "AveragePool") and node.attrs.get("kernel_shape"):
        source.shape = [None] * (2 + len(node.attrs["kernel_shape"]))
    elif node.op == "Pad" and sizes and node.input(3) is None:
        source.shape = [None] * (sizes[0] // 2)
    elif node.op == "Transpose" and node.attrs.get("perm"):
        source.shape = [None] * len(node.attrs["perm"])


def _rank_made(graph: Graph, node: Node) -> int | None:
    known = [None if t is None else graph.rank(t) for t in node.inputs]
    if not known:
        return None
    if node.op in _BROADCASTS:
        ranks = [r for r in known if r is not None]
        return max(ranks) if len(ranks) == len(known) else None
    if node.op == "MatMul" and None not in known and min(r or 0 for r in known) >= 2:
        return max(r or 0 for r in known)
    if node.op in _KEEPS_RANK or node.op in _OF_IMAGES:
        return known[0]
    if node.op in ("Flatten", "Gemm"):
        return 2
    given = node.input(1)  # a vector with an entry for each axis
    sizes = None if given is None else graph.static_shape(given)
    if sizes is None or len(sizes) != 1:
        return None
    if node.op == "Reshape":
        return sizes[0]
    step = {"Unsqueeze": 1, "Squeeze": -1}.get(node.op)
    return None if step is None or known[0] is None else known[0] + step * sizes[0]
