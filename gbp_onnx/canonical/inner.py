"""The bodies of If, Loop and Scan, each read as a graph of its own, so that whatever works on a graph works inside.

    Loop(M, cond, v; reads w) { (i, go, v) -> ... v * w ... }     =>     a graph with the inputs i, go, v and w

Small constants from around a body are its own initializers; everything else that it captures becomes an input, after
those that it has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import onnx
from onnx import TensorProto, helper, numpy_helper

from gbp_onnx.canonical.bodies import Known, expand_bodies
from gbp_onnx.canonical.view import View
from gbp_onnx.errors import ModelError
from gbp_onnx.graph.folding import Array
from gbp_onnx.graph.kinds import innermost
from gbp_onnx.graph.reader import Graph, Hint, Node, Tensor, captured_names

__all__ = ["Inner", "bodies", "inner_graph", "read_graph"]

_ROUNDS = 12  # of widening what is known of a loop's state; each takes away a size, a rank at the most


@dataclass(frozen=True, slots=True)
class Inner:
    """A body. `places`: where among the node's inputs (as the view shows it) stands what the graph's inputs after its
    first `formal` ones capture. `states`: of a Loop, the types that hold in every iteration.
    """

    graph: Graph
    view: View
    formal: int
    places: tuple[int, ...]
    states: tuple[onnx.TypeProto, ...] = ()

    @property
    def inputs(self) -> list[Tensor]:
        """The formal ones, then what is captured."""
        return self.graph.inputs

    @property
    def outputs(self) -> list[Tensor]:
        """Those of the body."""
        return self.graph.outputs


def bodies(node: Node) -> dict[str, Inner]:
    """The bodies of a node as a view shows it (what is captured is an input), by attribute; none for other nodes."""
    view = node.attrs.get("view")
    if not isinstance(view, View):
        return {}
    if node.index not in view.inner:
        view.inner[node.index] = _FORMS[node.op](view, node)
    return view.inner[node.index]


def read_graph(model: onnx.ModelProto, known: Known | None, symbols_hold: bool = False) -> Graph:
    """The model as a graph, in which types and values behind branches and loops are known as far as bodies tell."""
    hints: dict[str, Hint] = {}
    graph = Graph(model, symbols_hold)
    for _ in range(_ROUNDS):
        learned = _learned(View(graph, known=known), hints)
        if not learned:
            break
        hints |= learned
        graph = Graph(model, symbols_hold, list(hints.values()))
    return graph


def _learned(view: View, told: Mapping[str, Hint]) -> dict[str, Hint]:
    """What bodies tell beyond what is known."""
    graph, news = view.graph, dict[str, Hint]()
    for node in view.nodes:
        if node.op not in _MADE or node.domain != "":
            continue
        decided = node.op == "If" and graph.constant(node.inputs[0]) is not None
        if not decided and all(_known(graph.type_of(t)) for t in node.outputs if t is not None):
            continue
        try:
            made = _MADE[node.op](view, node)
        except ModelError:  # a body that cannot be read matters only if a gradient flows through it
            continue
        for tensor, (kind, value) in zip(node.outputs, made, strict=False):
            if tensor is None:
                continue
            before = told.get(tensor.name)
            valued = value is not None and (before is None or before.value is None)
            if valued or _known(kind) > _known(graph.type_of(tensor)):
                news[tensor.name] = Hint(tensor.name, _without_symbols(kind), value)
    return news


def _made_by_if(view: View, node: Node) -> list[_Made]:
    """What the branch makes that is taken; what holds in both, where that is not known."""
    inner, decided = bodies(node), view.graph.constant(node.inputs[0])
    if decided is not None:
        branch = inner["then_branch" if decided.all() else "else_branch"].graph
        return [(branch.type_of(t), branch.constant(t)) for t in branch.outputs]
    then, other = ([b.graph.type_of(t) for t in b.outputs] for b in (inner["then_branch"], inner["else_branch"]))
    return [(_wider(a, b), None) for a, b in zip(then, other, strict=True)]


def _made_by_loop(view: View, node: Node) -> list[_Made]:
    """The states' types, and those of what is stacked along a new axis."""
    body = bodies(node)["body"]
    stacks = (_stacked(body.graph.type_of(t)) for t in body.outputs[1 + len(body.states) :])
    return [(kind, None) for kind in (*body.states, *stacks)]


def _made_by_insert(view: View, node: Node) -> list[_Made]:
    """A sequence of the size of its first tensor."""
    empty, tensor = view.graph.producer(node.inputs[0]), node.input(1)
    if empty is None or empty.op != "SequenceEmpty" or tensor is None:
        return [(onnx.TypeProto(), None)]
    return [(helper.make_sequence_type_proto(view.graph.type_of(tensor)), None)]


_Made = tuple[onnx.TypeProto, Array | None]  # of a node's output: its type, and its value where the file tells it
_MADE: Mapping[str, Callable[[View, Node], list[_Made]]] = {
    "If": _made_by_if,
    "Loop": _made_by_loop,
    "SequenceInsert": _made_by_insert,
}


def _known(kind: onnx.TypeProto) -> int:
    """How much a type tells: 0 where not even the rank is known, else 1 and the number of sizes."""
    numbers = innermost(kind)
    if numbers is None or not numbers.HasField("shape"):
        return 0
    return 1 + len([d for d in numbers.shape.dim if d.HasField("dim_value")])


def _without_symbols(kind: onnx.TypeProto) -> onnx.TypeProto:
    """The type, of known sizes only: a symbol that inference made in a body may be another one outside."""
    made = onnx.TypeProto()
    made.CopyFrom(kind)
    numbers = innermost(made)
    for dim in () if numbers is None else numbers.shape.dim:
        if dim.dim_param:
            dim.Clear()
    return made


def _stacked(kind: onnx.TypeProto) -> onnx.TypeProto:
    made = onnx.TypeProto()
    made.CopyFrom(kind)
    if made.tensor_type.HasField("shape"):
        sizes = list(made.tensor_type.shape.dim)
        del made.tensor_type.shape.dim[:]
        made.tensor_type.shape.dim.add()
        made.tensor_type.shape.dim.extend(sizes)
    return made


def _if(view: View, node: Node) -> dict[str, Inner]:
    return {name: _read(view, node, name, []) for name in ("then_branch", "else_branch")}


def _scan(view: View, node: Node) -> dict[str, Inner]:
    count = int(node.attrs["num_scan_inputs"])
    given = node.inputs[: node.attrs["formal"]]
    states = len(given) - count
    axes = node.attrs.get("scan_input_axes") or [0] * count
    kinds = [_type(view.graph, t) for t in given]
    slices = [_slice(k, a) for k, a in zip(kinds[states:], axes, strict=True)]
    return {"body": _read(view, node, "body", [*kinds[:states], *slices])}


def _loop(view: View, node: Node) -> dict[str, Inner]:
    """Sizes of the states as far as they hold in every iteration: what an iteration changes is not known. Of a sequence
    that is empty at first any size holds; that of what is put in is tried.
    """
    given = node.inputs[2 : node.attrs["formal"]]
    states = [_type(view.graph, t) for t in given]
    begin_empty = [(start := view.graph.producer(t)) is not None and start.op == "SequenceEmpty" for t in given]
    first = [helper.make_tensor_type_proto(TensorProto.INT64, []), helper.make_tensor_type_proto(TensorProto.BOOL, [])]
    for _ in range(_ROUNDS):
        inner = _read(view, node, "body", [*first, *states])
        if any(begin_empty):
            ends = inner.outputs[1 : 1 + len(states)]
            guess = [_inserted(inner.graph, t) if e else None for e, t in zip(begin_empty, ends, strict=True)]
            states = [s if g is None else g for s, g in zip(states, guess, strict=True)]
            begin_empty = [False] * len(states)
            continue
        after = [inner.graph.type_of(t) for t in inner.outputs[1 : 1 + len(states)]]
        wider = [_wider(a, b) for a, b in zip(states, after, strict=True)]
        if wider == states:
            break
        states = wider
    return {"body": Inner(inner.graph, inner.view, inner.formal, inner.places, tuple(states))}


_FORMS: Mapping[str, Callable[[View, Node], dict[str, Inner]]] = {"If": _if, "Loop": _loop, "Scan": _scan}


def _inserted(graph: Graph, sequence: Tensor) -> onnx.TypeProto | None:
    """The type of a sequence of such tensors as the last that was inserted."""
    maker = graph.producer(sequence)
    while maker is not None and maker.op == "Identity":
        maker = graph.producer(maker.inputs[0])
    if maker is None or maker.op != "SequenceInsert" or not _known(kind := _type(graph, maker.input(1))):
        return None
    return helper.make_sequence_type_proto(_without_symbols(kind))


def _read(view: View, node: Node, attribute: str, kinds: Sequence[onnx.TypeProto]) -> Inner:
    graph, proto, formal = view.graph, node.attrs[attribute], node.attrs["formal"]
    alone = onnx.NodeProto()
    alone.attribute.append(helper.make_attribute(attribute, proto))
    captured = captured_names(alone)
    places = [k for k, t in enumerate(node.inputs) if k >= formal and t is not None and t.name in captured]
    around = [t for k in places if (t := node.inputs[k]) is not None]
    constants = [
        numpy_helper.from_array(value, name)
        for name in sorted(captured - {t.name for t in around})
        if (value := graph.constant(graph.tensors[name])) is not None
    ]
    label = f"{node.name}/{attribute}" if node.op == "If" else node.name
    read, shown = inner_graph(graph, proto, kinds, around, constants, label, view.known)
    return Inner(read, shown, len(proto.input), tuple(places))


def inner_graph(
    graph: Graph,
    proto: onnx.GraphProto,
    kinds: Sequence[onnx.TypeProto],
    captured: Sequence[Tensor],
    constants: Sequence[onnx.TensorProto],
    label: str,
    known: Known | None,
) -> tuple[Graph, View]:
    """The graph and view of `proto`, a body in `graph`, given the types of its inputs; `label` names its nameless
    nodes.
    """
    model = onnx.ModelProto(ir_version=graph.model.ir_version)
    model.opset_import.extend(graph.model.opset_import)
    model.graph.CopyFrom(proto)
    for value, kind in zip(model.graph.input, kinds, strict=True):
        if kind.WhichOneof("value"):
            value.type.CopyFrom(kind)
    for tensor in captured:
        model.graph.input.append(helper.make_value_info(tensor.name, _type(graph, tensor)))
    model.graph.initializer.extend(constants)
    for index, inner in enumerate(model.graph.node):
        inner.name = inner.name or f"{label}/{inner.op_type}_{index}"
    read = read_graph(model if known is None else expand_bodies(model, known), known, symbols_hold=True)
    return read, View(read, known=known)


def _type(graph: Graph, tensor: Tensor | None) -> onnx.TypeProto:
    return onnx.TypeProto() if tensor is None else graph.type_of(tensor)


def _slice(kind: onnx.TypeProto, axis: int) -> onnx.TypeProto:
    """The type of what a Scan takes out of a tensor along `axis`."""
    made = onnx.TypeProto()
    made.CopyFrom(kind)
    dims = made.tensor_type.shape.dim
    if made.tensor_type.HasField("shape") and -len(dims) <= axis < len(dims):
        del dims[axis % len(dims)]
    return made


def _wider(one: onnx.TypeProto, other: onnx.TypeProto) -> onnx.TypeProto:
    """What is true of both types."""
    made = onnx.TypeProto()
    made.CopyFrom(one)
    mine, its = innermost(made), innermost(other)
    if mine is None or its is None or not mine.HasField("shape"):
        return made
    if not its.HasField("shape") or len(mine.shape.dim) != len(its.shape.dim):
        mine.ClearField("shape")
        return made
    for a, b in zip(mine.shape.dim, its.shape.dim, strict=True):
        if a != b:
            a.Clear()
    return made
