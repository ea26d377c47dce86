"""Operators without a derivative of their own, replaced by the function bodies that the standard defines them with.

    RotaryEmbedding(x, cos, sin) -> y     =>     Slice, Split, Mul, Sub, Add, Concat... -> y

Only where every operator of the body is known to the derivative table: a body that meets another gap is left whole, so
that it is the operator itself that is reported. Tensors around a body keep their names; those inside are called
``<node>/<name in the body>``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import NodeProto, helper

from gbp_onnx.canonical.microsoft_bodies import MICROSOFT, MICROSOFT_BODIES, microsoft_body
from gbp_onnx.graph.names import bodies_of, names_in, unique_name
from gbp_onnx.graph.reader import STANDARD_DOMAINS, opset_of, skeleton_with_shapes

__all__ = ["Known", "expand_bodies"]

Known = Callable[[str, str, int], bool]
"""Whether the table has an entry for (domain, operator, opset version)."""

KEPT = frozenset({"Bernoulli", "DynamicQuantizeLinear"})
"""Random numbers, and integer arithmetic that runtimes fuse: what is explained is the operator itself."""
_ROUNDS = 8  # bodies in bodies; the deepest of the standard is 4
_AXIS_MEANING = {"Softmax": 13, "LogSoftmax": 13, "Hardmax": 13}
_INPUT_SINCE = {"axes": "axes", "split": "split"}  # attribute -> the input that replaced it


@dataclass(slots=True)
class _Step:
    """A node under expansion. `origin`: the place of the model's own node that it comes from."""

    node: NodeProto
    origin: int


def expand_bodies(model: onnx.ModelProto, known: Known) -> onnx.ModelProto:
    """Node of an unknown operator with a body  =>  the body's nodes, in place. Results stay within rounding."""
    opset = opset_of(model)
    left_whole: set[int] = set()
    while True:
        steps, failed = _expand(model, known, opset, left_whole)
        if not failed:
            break
        left_whole |= failed
    if len(steps) != len(model.graph.node) or any(
        s.node is not n for s, n in zip(steps, model.graph.node, strict=True)
    ):
        made = [s.node for s in steps]
        del model.graph.node[:]
        model.graph.node.extend(made)
    return model


def _expand(model: onnx.ModelProto, known: Known, opset: int, left_whole: set[int]) -> tuple[list[_Step], set[int]]:
    """Every node after expansion, and the origins of those whose bodies end in an unknown operator."""
    steps = [_Step(node, index) for index, node in enumerate(model.graph.node)]
    taken: set[str] | None = None
    for _ in range(_ROUNDS):
        gaps = [s for s in steps if s.origin not in left_whole and _is_gap(s.node, known, opset)]
        if not any(_has_body(s.node, opset) for s in gaps):
            break
        taken = names_in(model.graph) if taken is None else taken
        types = _types(model, [s.node for s in steps])
        changed, after = False, list[_Step]()
        for step in steps:
            body = None
            if step.origin not in left_whole and _is_gap(step.node, known, opset):
                body = _body(step.node, types, opset)
            if body is None:
                after.append(step)
            else:
                changed = True
                after += [_Step(node, step.origin) for node in _placed(step.node, body, step.origin, taken, opset)]
        steps = after
        if not changed:
            break
    own = {id(node) for node in model.graph.node}
    failed = {s.origin for s in steps if id(s.node) not in own and _is_gap(s.node, known, opset)}
    return steps, failed


def _is_gap(node: NodeProto, known: Known, opset: int) -> bool:
    if node.domain == MICROSOFT and node.op_type in MICROSOFT_BODIES:
        return True  # what the table says of it is about the forms that have no body
    if node.domain not in STANDARD_DOMAINS:
        return not known(node.domain, node.op_type, 1)
    schema = _schema(node.op_type, opset)
    return schema is None or not known("", node.op_type, schema.since_version)


def _has_body(node: NodeProto, opset: int) -> bool:
    if node.domain == MICROSOFT:
        return node.op_type in MICROSOFT_BODIES
    schema = None if node.domain not in STANDARD_DOMAINS or node.op_type in KEPT else _schema(node.op_type, opset)
    return schema is not None and (schema.has_function or schema.has_context_dependent_function)


def _body(node: NodeProto, types: dict[str, onnx.TypeProto], opset: int) -> onnx.FunctionProto | None:
    """The operator's body, written for the model's opset; None where there is none."""
    body = microsoft_body(node, types)
    if body is not None:
        return _in_opset(body, opset)
    schema = _schema(node.op_type, opset)
    if node.domain not in STANDARD_DOMAINS or schema is None or not _has_body(node, opset):
        return None
    body = onnx.FunctionProto()
    plain = [v for v in schema.function_opset_versions if v <= opset]
    in_context = [v for v in schema.context_dependent_function_opset_versions if v <= opset]
    if plain:
        body.ParseFromString(schema.get_function_with_opset_version(max(plain)))
    elif in_context:
        if any(name and name not in types for name in node.input):
            return None  # the body depends on types that are not known
        given = [types.get(name, onnx.TypeProto()).SerializeToString() for name in node.input]
        made = schema.get_context_dependent_function_with_opset_version(
            max(in_context), node.SerializeToString(), given
        )
        if not made:
            return None
        body.ParseFromString(made)
    else:
        return None
    return _in_opset(body, opset)


def _in_opset(body: onnx.FunctionProto, opset: int) -> onnx.FunctionProto | None:
    """The body, in place, with its nodes written for `opset`; None where they cannot be."""
    written = next((o.version for o in body.opset_import if o.domain in STANDARD_DOMAINS), opset)
    nodes = list[NodeProto]()
    for inner in body.node:
        rewritten = _for_opset(inner, written, opset)
        if rewritten is None:
            return None
        nodes += rewritten
    del body.node[:]
    body.node.extend(nodes)
    return body


def _for_opset(node: NodeProto, written: int, opset: int) -> list[NodeProto] | None:
    """A body's node, written for one opset, in another; None where the operator has changed in a way not known here."""
    if written == opset or node.domain not in STANDARD_DOMAINS:
        return [node]
    old, new = _schema(node.op_type, written), _schema(node.op_type, opset)
    if old is None or new is None:
        return None
    if old.since_version == new.since_version:
        return [node]
    border = _AXIS_MEANING.get(node.op_type, 0)
    if written < border <= opset:
        return None
    inputs = {i.name: place for place, i in enumerate(new.inputs)}
    constants = list[NodeProto]()
    for attribute in list(node.attribute):
        if attribute.name in new.attributes:
            continue
        place = inputs.get(_INPUT_SINCE.get(attribute.name, ""))
        if place is None or place != len(node.input) or attribute.ref_attr_name:
            return None
        name = f"{node.output[0]}_{attribute.name}"
        constants.append(helper.make_node("Constant", [], [name], value_ints=list(attribute.ints)))
        node.input.append(name)
        node.attribute.remove(attribute)
    return [*constants, node]


def _placed(
    caller: NodeProto, body: onnx.FunctionProto, place: int, taken: set[str], opset: int
) -> Iterator[NodeProto]:
    """The body's nodes in the caller's place: its tensors' names outside, names of their own inside."""
    prefix = caller.name or f"{caller.op_type}_{place}"
    names: dict[str, str] = {"": ""}
    names.update(zip(body.input, [*caller.input, *[""] * len(body.input)], strict=False))
    names.update((inside, outside) for inside, outside in zip(body.output, caller.output, strict=False) if outside)
    attributes = {a.name: a for a in caller.attribute}
    schema = _schema(caller.op_type, opset)
    for name, attribute in ({} if schema is None else schema.attributes).items():
        if attribute.default_value.name:
            attributes.setdefault(name, attribute.default_value)
    wanted = set(body.output[: len(caller.output)])
    kept = list[NodeProto]()
    for inner in reversed(body.node):
        if wanted & set(inner.output):
            wanted.update(inner.input, _read_inside(inner))
            kept.append(inner)
    for inner in reversed(kept):
        node = _renamed(inner, names, prefix, taken, attributes)
        node.name = unique_name(f"{prefix}/{inner.name or inner.op_type}", taken)
        yield node


def _renamed(
    inner: NodeProto, names: dict[str, str], prefix: str, taken: set[str], attributes: dict[str, onnx.AttributeProto]
) -> NodeProto:
    def named(name: str) -> str:
        if name not in names:
            names[name] = unique_name(f"{prefix}/{name}", taken)
        return names[name]

    node = NodeProto(op_type=inner.op_type, domain=inner.domain, doc_string=inner.doc_string)
    node.input.extend(named(name) for name in inner.input)
    node.output.extend(named(name) for name in inner.output)
    while node.input and not node.input[-1]:
        del node.input[-1]
    for attribute in inner.attribute:
        if attribute.ref_attr_name:
            source = attributes.get(attribute.ref_attr_name)
            if source is None:
                continue  # left out, as in the caller
            node.attribute.add().CopyFrom(source)
            node.attribute[-1].name = attribute.name
            continue
        made = node.attribute.add()
        made.CopyFrom(attribute)
    for graph in bodies_of(node):
        _rename_graph(graph, named, prefix, taken, attributes)
    return node


def _rename_graph(
    graph: onnx.GraphProto,
    named: Callable[[str], str],
    prefix: str,
    taken: set[str],
    attributes: dict[str, onnx.AttributeProto],
) -> None:
    for value in (*graph.input, *graph.initializer, *graph.output):
        value.name = named(value.name)
    for index, inner in enumerate(graph.node):
        names = {name: named(name) for name in {*inner.input, *inner.output, *_read_inside(inner)}}
        graph.node[index].CopyFrom(_renamed(inner, names, prefix, taken, attributes))
    del graph.value_info[:]


def _read_inside(node: NodeProto) -> set[str]:
    return {
        name
        for attribute in node.attribute
        for graph in (attribute.g, *attribute.graphs)
        for name in (*(o.name for o in graph.output), *(n for i in graph.node for n in (*i.input, *_read_inside(i))))
    }


def _types(model: onnx.ModelProto, nodes: Iterable[NodeProto]) -> dict[str, onnx.TypeProto]:
    """The types of all tensors, as far as inference finds them."""
    trial = onnx.ModelProto(ir_version=model.ir_version)
    trial.opset_import.extend(model.opset_import)
    graph, source = trial.graph, model.graph
    graph.name = source.name
    graph.node.extend(nodes)
    for kind in ("input", "output", "initializer", "sparse_initializer", "value_info"):
        getattr(graph, kind).extend(getattr(source, kind))
    inferred = skeleton_with_shapes(trial).graph
    types = {t.name: helper.make_tensor_type_proto(t.data_type, list(t.dims)) for t in source.initializer}
    types.update((v.name, v.type) for v in (*inferred.value_info, *inferred.output, *inferred.input))
    return {name: kind for name, kind in types.items() if kind.WhichOneof("value")}


def _schema(op: str, opset: int) -> Any:  # OpSchema or None; its stub lacks the functions
    try:
        return onnx.defs.get_schema(op, opset, "")
    except onnx.defs.SchemaError:
        return None
