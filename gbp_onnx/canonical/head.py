"""The head: the trailing Softmax, LogSoftmax or Sigmoid of an output, in front of which the seed is put.

A probability saturates where the model is sure, and its gradient with it; the logit before it does not (Simonyan 2013,
section 3).
"""

from __future__ import annotations

from dataclasses import dataclass

from gbp_onnx.graph.reader import Graph, Node, Tensor

__all__ = ["HEADS", "MOVERS", "Head", "find_head"]

HEADS = ("Softmax", "LogSoftmax", "Sigmoid")
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
        if node.domain == "" and node.op in HEADS:
            return Head(node, tuple(movers))
        if node.op not in MOVERS:
            return None
        movers.append(node)
        node = graph.producer(node.inputs[0])
    return None
