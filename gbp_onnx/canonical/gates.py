"""What every quantiser does to a cotangent: it is a rectifier, saturates at the ends of its range, or lets all pass.

A quantiser is taken apart (v = x / scale + zero point is a real number, and exists in no file):

    QuantizeLinear(x) -> q            QuantizeLinear(x) -> v; gate(v) -> q
    Relu(x) -> y; Quantize(y) -> q    QuantizeLinear(x) -> v; Rectifier(v) -> q       one rectifier for both
    QLinearConv(a, w) -> q            QLinearConv(a, w) -> v; gate(v) -> q
    Quantize(x) -> q; Dequantize -> y gate(x) -> q; Identity(q) -> y                  where nothing else reads q

The cotangent of an integer tensor counts per unit of the integer, whoever made it; in the last form per real unit, as
the factors 1 / scale and scale would cancel.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, replace

import numpy as np

from gbp_onnx.canonical.head import MOVERS
from gbp_onnx.canonical.quantizers import Quantizer, find_quantizers, is_dequantizer
from gbp_onnx.canonical.rectifiers import Rectifier
from gbp_onnx.canonical.signs import never_negative
from gbp_onnx.graph.reader import GBP_DOMAIN, Graph, Node, Tensor, imaginary

__all__ = ["Gates", "find_gates"]


@dataclass(frozen=True, slots=True)
class Gates:
    """The quantisers of a graph. `nodes`: what stands for a node, by its index, in order; `rectifiers`: those that are
    quantisers, alone or with the activation before them, by the name of what they make; `absorbed`: indices of those
    activations.
    """

    nodes: Mapping[int, tuple[Node, ...]]
    rectifiers: Mapping[str, Rectifier]
    absorbed: Set[int]


def find_gates(graph: Graph, rectifiers: Mapping[str, Rectifier], open_: Set[str]) -> Gates:
    """Take every quantiser apart. `rectifiers`: the float ones; `open_`: quantised tensors whose quantiser never gates
    (those between the explained scalar and the output).
    """
    quantizers = find_quantizers(graph)
    _, non_negative = never_negative(graph, quantizers) if quantizers else (set(), set())
    nodes: dict[int, tuple[Node, ...]] = {}
    found: dict[str, Rectifier] = {}
    absorbed = set[int]()
    for name, quantizer in quantizers.items():
        before = _absorbed(graph, quantizer, rectifiers)
        if before is not None:
            absorbed |= {before.node.index, *before.inside}
            found[name] = before
        elif name not in open_ and _is_rectifier(graph, quantizer, non_negative):
            found[name] = Rectifier(quantizer.node, quantizer.node.op, quantizer.q)
        nodes[quantizer.node.index] = _apart(graph, quantizer, found.get(name), before, name in open_)
    for node in graph.nodes:
        source = node.input(0)
        if is_dequantizer(node) and source is not None and (q := quantizers.get(source.name)) is not None and q.paired:
            nodes[node.index] = (Node("Identity", node.name, [source], node.outputs, index=node.index),)
    return Gates(nodes, found, absorbed)


def _absorbed(graph: Graph, quantizer: Quantizer, rectifiers: Mapping[str, Rectifier]) -> Rectifier | None:
    """The Relu or Clip that nothing but this quantiser reads, perhaps through Identity: the two are one rectifier."""
    x, copies = quantizer.node.inputs[0] if quantizer.plain else None, list[int]()
    while x is not None and len(graph.readers(x)) == 1 and not graph.is_output(x):
        before = rectifiers.get(x.name)
        if before is not None:
            return None if before.threshold < 0 else replace(before, inside=(*before.inside, *copies))
        copy = graph.producer(x)
        if copy is None or copy.op != "Identity" or copy.domain:
            return None
        copies.append(copy.index)
        x = copy.inputs[0]
    return None


def _is_rectifier(graph: Graph, quantizer: Quantizer, non_negative: Set[str]) -> bool:
    """Whether its range begins at real 0 and what it reads can be negative, and is no input of the model."""
    if not quantizer.begins_at_zero(graph) or quantizer.q.name in non_negative:
        return False
    return not (quantizer.plain and _is_moved_input(graph, quantizer.node.inputs[0]))


def _is_moved_input(graph: Graph, x: Tensor | None) -> bool:
    while (node := graph.producer(x)) is not None:
        if node.domain != "" or node.op not in MOVERS:
            return False
        x = node.inputs[0]
    return x is not None and any(x.name == i.name for i in graph.inputs)


def _apart(
    graph: Graph, quantizer: Quantizer, rectifier: Rectifier | None, before: Rectifier | None, is_open: bool
) -> tuple[Node, ...]:
    """The operator in real numbers, and the gate that ends it."""
    node, q = quantizer.node, quantizer.q
    x = node.inputs[0] if before is None else before.x
    if quantizer.paired:
        return (_gate(graph, quantizer, rectifier, x, is_open),)
    real = imaginary(f"{q.name}/unrounded", graph.shape(q))
    attrs = node.attrs if quantizer.plain else {**node.attrs, "scale": quantizer.scale, "q": q}
    inputs = (x, *node.inputs[1:])
    operator = Node(node.op, node.name, inputs, [real], attrs, node.domain, node.version, index=node.index)
    return operator, _gate(graph, quantizer, rectifier, real, is_open)


def _gate(graph: Graph, quantizer: Quantizer, rectifier: Rectifier | None, x: Tensor | None, is_open: bool) -> Node:
    """Rectifier, Saturation or Identity from `x` to the quantised tensor."""
    node, q = quantizer.node, quantizer.q
    zero = quantizer.zero_value(graph)
    attrs = {"q": q, "high": None if is_open else quantizer.high}
    attrs |= {k: node.attrs[k] for k in ("axis", "block_size") if k in node.attrs}
    if rectifier is not None:
        attrs |= {"low": quantizer.zero if zero is None else zero, "kind": rectifier.kind}
        if rectifier.cap is not None and not is_open:
            attrs["high"] = _capped(graph, quantizer, rectifier.cap)
        return Node("Rectifier", rectifier.node.name, [x], [q], attrs, GBP_DOMAIN, index=node.index)
    if is_open:
        return Node("Identity", node.name, [x], [q], index=node.index)
    attrs["low"] = quantizer.low
    attrs["zero"] = quantizer.zero if zero is None else zero
    return Node("Saturation", node.name, [x], [q], attrs, GBP_DOMAIN, index=node.index)


def _capped(graph: Graph, quantizer: Quantizer, cap: float) -> float:
    """The integer at which x has reached the cap, or the end of the range: whichever comes first."""
    scale, zero = graph.constant(quantizer.scale), quantizer.zero_value(graph)
    if scale is None or zero is None or scale.size != 1 or zero.size != 1:
        return quantizer.high
    reached = np.rint(np.float32(cap) / scale.astype(np.float32).reshape(-1)[0]) + zero.reshape(-1)[0]
    return min(quantizer.high, float(reached))
