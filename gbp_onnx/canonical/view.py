"""The nodes as derivatives walk them: the file's own, with stand-ins for rectifiers, SiLUs and the head.

Relu(x) -> y                         Rectifier(x) -> y          every form of `rectifiers`
Max(x, 0) -> t; Min(t, 6) -> y       Rectifier(x) -> y          one for both
Sigmoid(x) -> s; Mul(x, s) -> y      Silu(x) -> y               where nothing else reads s
Softmax(z) -> p (the head)           Head(z) -> p               the seed passes through
FusedConv(x, W; Relu) -> y           FusedConv(x, W) -> t; Rectifier(t) -> y         see `fused`
Cast(x, to=uint8) -> y               Identity(x) -> y           and other roundings: see `pixels`
"""

from __future__ import annotations

from collections.abc import Iterable

from gbp_onnx.canonical.fused import split_fused
from gbp_onnx.canonical.pixels import find_roundings
from gbp_onnx.canonical.rectifiers import Rectifier, find_rectifiers
from gbp_onnx.graph.reader import GBP_DOMAIN, Graph, Node, Tensor

__all__ = ["View"]


class View:
    """A graph and the nodes that stand for its own. `head`: the node in front of which the seed is put."""

    def __init__(self, graph: Graph, head: Node | None = None) -> None:
        self.graph = graph
        fused, roundings = split_fused(graph), find_roundings(graph)
        found = {k: r for k, r in find_rectifiers(graph).items() if r.node.index not in roundings.saturations}
        inside = {index for r in found.values() for index in r.inside}
        stand_ins: dict[int, tuple[Node, ...]] = {r.node.index: (_rectifier_node(r),) for r in found.values()}
        stand_ins.update(_silus(graph))
        stand_ins.update(roundings.nodes)
        for index, part in fused.items():
            stand_ins[index] = (part.linear, _as_node(part.activation))
            if isinstance(part.activation, Rectifier):
                found[_y_name(part.activation)] = part.activation
        if head is not None:
            stand_ins[head.index] = (
                Node("Head", head.name, head.inputs, head.outputs, domain=GBP_DOMAIN, index=head.index),
            )
        self.rectifiers = found
        self.nodes = [node for n in graph.nodes if n.index not in inside for node in stand_ins.get(n.index, (n,))]

    def between(self, sources: Iterable[Tensor], targets: Iterable[Tensor], stops: Iterable[int] = ()) -> set[str]:
        """Names of the tensors that depend on `sources` and reach `targets`, past no node with an index in `stops`."""
        stopped = set(stops)
        forward = {t.name for t in sources}
        for node in self.nodes:
            if node.index not in stopped and (
                forward & node.captures or any(t and t.name in forward for t in node.inputs)
            ):
                forward.update(t.name for t in node.outputs if t is not None)
        reached = {t.name for t in targets} & forward
        for node in reversed(self.nodes):
            if node.index not in stopped and any(t and t.name in reached for t in node.outputs):
                reached.update(t.name for t in node.inputs if t is not None and t.name in forward)
                reached |= node.captures & forward
        return reached


def _rectifier_node(found: Rectifier) -> Node:
    attrs = {"kind": found.kind, "threshold": found.threshold, "cap": found.cap, "inside": found.inside}
    return Node("Rectifier", found.node.name, [found.x], found.node.outputs, attrs, GBP_DOMAIN, index=found.node.index)


def _as_node(activation: Node | Rectifier) -> Node:
    return _rectifier_node(activation) if isinstance(activation, Rectifier) else activation


def _y_name(found: Rectifier) -> str:
    y = found.node.outputs[0]
    return "" if y is None else y.name


def _silus(graph: Graph) -> dict[int, tuple[Node, ...]]:
    """x * sigmoid(x), where nothing else reads the sigmoid, by the index of the Mul."""
    found: dict[int, tuple[Node, ...]] = {}
    for node in graph.nodes:
        if node.domain != "" or node.op != "Mul" or len(node.inputs) != 2:
            continue
        for x, gate in (node.inputs, node.inputs[::-1]):
            sigmoid = graph.producer(gate)
            if x is None or gate is None or sigmoid is None or sigmoid.op != "Sigmoid" or sigmoid.inputs[0] is None:
                continue
            if sigmoid.inputs[0].name == x.name and len(graph.readers(gate)) == 1 and not graph.is_output(gate):
                attrs = {"sigmoid": gate}
                silu = Node("Silu", node.name, [x], node.outputs, attrs, GBP_DOMAIN, index=node.index)
                found[node.index] = (silu,)
    return found
