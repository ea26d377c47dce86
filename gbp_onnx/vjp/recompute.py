"""The derivative of a piece of a graph: the piece, computed again, followed by its own reverse sweep.

For the bodies of If, Loop and Scan, and for operators that are a few plain ones (`by_equivalent`). The rule in force
holds inside: a rectifier in a branch is gated like any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx
from onnx import helper, numpy_helper

from gbp_onnx.canonical.inner import inner_graph
from gbp_onnx.canonical.view import View, is_small_constant
from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.fragment import Fragment, fragment, place
from gbp_onnx.graph.kinds import cotangent_type, element_type
from gbp_onnx.graph.reader import Graph, Node, Tensor
from gbp_onnx.vjp.registry import Cotangents, Refusal, is_known
from gbp_onnx.vjp.sequence import add, zeros_like

__all__ = ["by_equivalent", "forward", "pulled_back"]

_RANDOM = frozenset(
    ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
)


def forward(graph: Graph) -> Fragment:
    """What a body computes, with the body's inputs and outputs."""
    return fragment(graph, Emitter(graph), (), graph.outputs)


def pulled_back(op: Emitter, graph: Graph, view: View, seeded: Sequence[int], wrt: Sequence[int]) -> Fragment:
    """A body's vector-Jacobian product, from the body's inputs and the cotangents of its outputs `seeded` to the
    cotangents of its inputs `wrt` (positions both): zeros where none arrives, float32 for integers.
    """
    if op.sweep is None:
        raise TypeError("derivatives of bodies are taken within a sweep")
    again = Emitter(graph)
    seeds, arrived = [], dict[str, Tensor]()
    for k in seeded:
        output = graph.outputs[k]
        seed = again.placeholder(f"seed/{k}", cotangent_type(graph.type_of(output)))
        seeds.append(seed)
        arrived[output.name] = add(again, arrived[output.name], seed) if output.name in arrived else seed
    inputs = [graph.inputs[k] for k in wrt]
    cts = op.sweep(view, again, arrived, inputs)
    results = []
    for tensor in inputs:
        ct = cts.get(tensor.name)
        if ct is None:
            ct = zeros_like(again, tensor)
        kind, sequence = element_type(cotangent_type(graph.type_of(tensor)))
        if not sequence and again.elem_type(ct) != kind:
            ct = again.Cast(ct, to=kind)
        results.append(again.publish(ct, f"ct/{tensor.name}"))
    made = fragment(graph, again, seeds, results)
    _refuse_random(made.nodes)
    return made


def by_equivalent(op: Emitter, node: Node, cts: Sequence[Tensor | None], equivalent: onnx.GraphProto) -> Cotangents:
    """The derivative of a node that computes what `equivalent` computes, by computing it again that way.

    `equivalent`: standard operators of the model's opset; its inputs stand for those of the node's inputs that are
    there, in order, its outputs for the node's outputs, in order. `cts`: of all the node's outputs.
    """
    given = [(k, t) for k, t in enumerate(node.inputs) if t is not None]
    proto = onnx.GraphProto()
    proto.CopyFrom(equivalent)
    names = [value.name for value in proto.input]
    del proto.input[:]
    places: list[int] = []
    for name, (k, tensor) in zip(names, given, strict=True):
        value = op.graph.constant(tensor) if is_small_constant(op.graph, tensor) else None
        if value is not None and not op.wanted[k]:
            proto.initializer.append(numpy_helper.from_array(value, name))
        else:
            proto.input.append(helper.make_value_info(name, op.graph.type_of(tensor)))
            places.append(k)
    kinds = [onnx.TypeProto()] * len(places)
    graph, view = inner_graph(op.graph, proto, kinds, [], [], node.name, is_known)
    wanted = [j for j, k in enumerate(places) if op.wanted[k]]
    seeded = [j for j, ct in enumerate(cts) if ct is not None]
    back = pulled_back(op, graph, view, seeded, wanted)
    made = place(op, back, [*(node.inputs[k] for k in places), *(cts[j] for j in seeded)])
    chosen: list[Tensor | None] = [None] * len(node.inputs)
    for j, ct in zip(wanted, made, strict=True):
        chosen[places[j]] = ct
    return tuple(chosen)


def _refuse_random(nodes: Iterable[onnx.NodeProto]) -> None:
    for node in nodes:
        if node.op_type in _RANDOM and node.domain == "":
            raise Refusal(f"its body holds {node.op_type}, whose values would be others when it is computed again")
        for attribute in node.attribute:
            _refuse_random(attribute.g.node)
