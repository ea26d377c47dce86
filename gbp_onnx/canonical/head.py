"""The head: the trailing Softmax, LogSoftmax or Sigmoid of an output, in front of which the seed is put.

A probability saturates where the model is sure, and its gradient with it; the logit before it does not (Simonyan 2013,
section 3).
"""

from __future__ import annotations

from dataclasses import dataclass

from gbp_onnx.canonical.quantizers import Quantizer, find_quantizers
from gbp_onnx.graph.reader import Graph, Node, Tensor

__all__ = ["HEADS", "MOVERS", "QUANTISED_HEADS", "Head", "find_head", "open_quantizers"]

HEADS = ("Softmax", "LogSoftmax", "Sigmoid")
QUANTISED_HEADS = ("QLinearSoftmax", "QLinearSigmoid")
"""The same on quantised tensors (com.microsoft)."""
MOVERS = (
    "Identity",
    "Reshape",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Transpose",
    "Dropout",
    "Cast",
    "QuantizeLinear",
    "DequantizeLinear",
)
"""Operators that only move or convert values, looked through between the head and the output."""


@dataclass(frozen=True, slots=True)
class Head:
    """The head of an output: the node, and the nodes between it and the output, last first."""

    node: Node
    movers: tuple[Node, ...]


def find_head(graph: Graph, output: Tensor) -> Head | None:
    """The head that `output` comes from; None where it comes from none."""
    movers: list[Node] = []
    node = graph.producer(output)
    while node is not None and node.domain in ("", "com.microsoft"):
        if node.op in (HEADS if node.domain == "" else QUANTISED_HEADS):
            return Head(node, tuple(movers))
        if node.op not in MOVERS:
            return None
        movers.append(node)
        node = graph.producer(node.inputs[0])
    return None


def open_quantizers(graph: Graph, output: Tensor, head: Head | None) -> dict[str, Quantizer]:
    """The quantisers between the last operator that computes and `output`, the nearest to it first, by the name of what
    they make.

    They never gate: a saturated top logit would erase the whole map just where the model is surest.
    """
    quantizers, found = find_quantizers(graph), dict[str, Quantizer]()
    made: Tensor | None = output
    while made is not None and (node := graph.producer(made)) is not None:
        if made.name in quantizers:
            found[made.name] = quantizers[made.name]
        is_head = head is not None and node.index == head.node.index
        if not is_head and (node.op not in MOVERS or node.domain not in ("", "com.microsoft")):
            break
        made = node.inputs[0]
    return found
