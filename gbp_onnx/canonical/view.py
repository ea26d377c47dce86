"""The nodes as derivatives walk them: the file's own, with stand-ins for rectifiers, SiLUs and the head.

Relu(x) -> y                         Rectifier(x) -> y          every form of `rectifiers`
Max(x, 0) -> t; Min(t, 6) -> y       Rectifier(x) -> y          one for both
Sigmoid(x) -> s; Mul(x, s) -> y      Silu(x) -> y               where nothing else reads s
Softmax(z) -> p (the head)           Head(z) -> p               the seed passes through
If(c) { reads x, w } -> y            If(c, x, w) -> y           what bodies capture is an input; Loop and Scan alike
QLinearConv(x) -> q                  QLinearConv(x) -> v; Rectifier(v) -> q    see `gates`
FusedConv(x, W; Relu) -> y           FusedConv(x, W) -> t; Rectifier(t) -> y         see `fused`
Cast(x, to=uint8) -> y               Identity(x) -> y           and other roundings: see `pixels`
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from typing import Any

from gbp_onnx.canonical.bodies import Known
from gbp_onnx.canonical.fused import Fused, split_fused
from gbp_onnx.canonical.gates import Gates, find_gates
from gbp_onnx.canonical.pixels import find_roundings
from gbp_onnx.canonical.rectifiers import Rectifier, find_rectifiers
from gbp_onnx.graph.reader import GBP_DOMAIN, Graph, Node, Tensor

__all__ = ["CONTROL_FLOW", "View", "is_small_constant"]

CONTROL_FLOW = ("If", "Loop", "Scan")
_SMALL = 256  # elements: a constant that may be an axis, a size or a bound


class View:
    """A graph and the nodes that stand for its own. `head`: the node in front of which the seed is put; `known`: which
    operators inside bodies need no function body; `open_`: names of quantised tensors whose quantiser never gates.
    """

    def __init__(
        self, graph: Graph, head: Node | None = None, known: Known | None = None, open_: Set[str] = frozenset()
    ) -> None:
        self.graph, self.known = graph, known
        self.inner: dict[int, dict[str, Any]] = {}  # by node: its bodies, as far as `inner.bodies` has read them
        fused, roundings = split_fused(graph), find_roundings(graph)
        rectifiers = {k: r for k, r in find_rectifiers(graph).items() if r.node.index not in roundings.saturations}
        rectifiers |= {y: p.activation for y, p in fused.items() if isinstance(p.activation, Rectifier)}
        gates = find_gates(graph, rectifiers, open_)
        kept = {name: r for name, r in rectifiers.items() if r.node.index not in gates.absorbed}
        self.rectifiers = {**kept, **gates.rectifiers}
        stand_ins: dict[int, tuple[Node, ...]] = {r.node.index: (_rectifier_node(r),) for r in kept.values()}
        stand_ins.update(_silus(graph))
        stand_ins.update((n.index, (self._with_captures(n),)) for n in graph.nodes if _is_control_flow(n))
        stand_ins.update(roundings.nodes)
        stand_ins.update(gates.nodes)
        if head is not None:
            first, *rest = stand_ins.get(head.index, (head,))
            stand_ins[head.index] = (_head_node(first), *rest)
        inside = (index for r in kept.values() for index in r.inside)
        stand_ins.update(dict.fromkeys((*gates.absorbed, *inside), ()))
        stand_ins.update((p.linear.index, _halves(p, gates)) for p in fused.values())
        self.nodes = [node for n in graph.nodes for node in stand_ins.get(n.index, (n,))]

    def _with_captures(self, node: Node) -> Node:
        """What its bodies read from around them, as inputs after its own; small constants become the bodies' own."""
        captured = [self.graph.tensors[name] for name in sorted(node.captures)]
        own = (*node.inputs, *[None] * (2 - len(node.inputs))) if node.op == "Loop" else node.inputs
        inputs = (*own, *(t for t in captured if not is_small_constant(self.graph, t)))
        attrs = {**node.attrs, "view": self, "formal": len(own)}
        return Node(node.op, node.name, inputs, node.outputs, attrs, "", node.version, index=node.index)

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


def is_small_constant(graph: Graph, tensor: Tensor) -> bool:
    """Whether a body may hold the value itself, so that it sees axes, sizes and bounds."""
    value = graph.constant(tensor)
    return value is not None and value.size <= _SMALL


def _is_control_flow(node: Node) -> bool:
    return node.domain == "" and node.op in CONTROL_FLOW


def _rectifier_node(found: Rectifier) -> Node:
    attrs = {"kind": found.kind, "threshold": found.threshold, "cap": found.cap, "inside": found.inside}
    return Node("Rectifier", found.node.name, [found.x], found.node.outputs, attrs, GBP_DOMAIN, index=found.node.index)


def _halves(fused: Fused, gates: Gates) -> tuple[Node, ...]:
    """What is computed before the activation, and the activation where no quantiser has absorbed it."""
    if fused.linear.index in gates.absorbed:
        return (fused.linear,)
    activation = fused.activation
    return fused.linear, _rectifier_node(activation) if isinstance(activation, Rectifier) else activation


def _head_node(head: Node) -> Node:
    return Node(
        "Head", head.name, head.inputs, head.outputs, {**head.attrs, "op": head.op}, GBP_DOMAIN, index=head.index
    )


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
