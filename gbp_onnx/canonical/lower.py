"""Mark a model of an opset that no ONNX Runtime loads yet with the newest that all do, where its operators are alike.

onnx writes opsets as soon as they are drafted; onnxruntime 1.31 refuses 27 and 28. Nothing is lowered below that, and a
model with an operator that has no exact counterpart stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gbp_onnx.graph.nodes import attribute_of
from gbp_onnx.graph.reader import STANDARD_DOMAINS, opset_of, skeleton_with_shapes

__all__ = ["NEWEST_RUN", "lower_opset"]

NEWEST_RUN = 26
_HALF = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
_MORE_TYPES = frozenset(
    """
    BitShift Cast Celu Compress DepthToSpace DequantizeLinear Einsum OneHot Optional OptionalGetElement
    OptionalHasElement QuantizeLinear ReduceLogSum ReduceLogSumExp ReverseSequence Unique
    """.split()  # noqa: SIM905
)
"""Defined anew in opset 27 or 28, with other types and the same meaning."""

_Types = Mapping[str, onnx.TypeProto]
_Nodes: TypeAlias = list[onnx.NodeProto]


def lower_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """opset 27, 28  =>  opset 26, in place, where every operator has an exact counterpart there."""
    opset = opset_of(model)
    if opset <= NEWEST_RUN:
        return model
    types = _types(model)
    rewritten: list[tuple[onnx.GraphProto, _Nodes]] = []
    for graph in _graphs(model.graph):
        nodes: _Nodes = []
        for node in graph.node:
            lowered = _lowered(node, opset, types)
            if lowered is None:
                return model
            nodes += lowered
        rewritten.append((graph, nodes))
    for graph, nodes in reversed(rewritten):  # inner graphs first: the nodes around them are copied
        if len(nodes) != len(graph.node) or any(a is not b for a, b in zip(nodes, graph.node, strict=True)):
            kept = [_copy(node) for node in nodes]
            del graph.node[:]
            graph.node.extend(kept)
    for entry in model.opset_import:
        if entry.domain in STANDARD_DOMAINS:
            entry.version = NEWEST_RUN
    return model


def _lowered(node: onnx.NodeProto, opset: int, types: _Types) -> _Nodes | None:
    if node.domain in STANDARD_DOMAINS and node.op_type == "Swish":
        return _swish(node, types)
    if node.domain not in STANDARD_DOMAINS or _since(node.op_type, opset) == _since(node.op_type, NEWEST_RUN):
        return [node]
    if node.op_type in _MORE_TYPES:
        return _with_old_types(node, types)
    rewrite = _REWRITES.get(node.op_type)
    return None if rewrite is None else rewrite(node, types)


def _with_old_types(node: onnx.NodeProto, types: _Types) -> _Nodes | None:
    """The node where its types are old enough; half floats that are not go through float32."""
    schema = onnx.defs.get_schema(node.op_type, NEWEST_RUN, "")
    allowed = {c.type_param_str: set(c.allowed_type_strs) for c in schema.type_constraints}
    wide, before, after = _copy(node), _Nodes(), _Nodes()
    for first, names, formal in (
        (True, wide.input, list(schema.inputs)),
        (False, wide.output, list(schema.outputs)),
    ):
        for place, name in enumerate(names):
            kind, text = _kind(types, name), formal[min(place, len(formal) - 1)].type_str
            if not name or kind == 0 or _text(kind) in allowed.get(text, {text}):
                continue
            if kind not in _HALF:
                return None
            detour = f"{node.output[0]}/{'to' if first else 'from'}/{place}"
            names[place] = detour
            if first:
                before.append(helper.make_node("Cast", [name], [detour], to=TensorProto.FLOAT))
            else:
                after.append(helper.make_node("Cast", [detour], [name], to=kind))
    return [*before, wide, *after] if before or after else [node]


def _text(kind: int) -> str:
    return f"tensor({TensorProto.DataType.Name(kind).lower()})"


def _mod(node: onnx.NodeProto, types: _Types) -> _Nodes | None:
    """Mod of floats, rounded down  =>  a - floor(a / b) * b"""
    kind = _kind(types, node.input[0])
    if attribute_of(node, "fmod", 0) or kind not in (0, TensorProto.FLOAT, TensorProto.DOUBLE, *_HALF):
        return [node]
    if kind == 0:
        return None
    (a, b), y = node.input, node.output[0]
    return [
        helper.make_node("Div", [a, b], [f"{y}/quotient"]),
        helper.make_node("Floor", [f"{y}/quotient"], [f"{y}/whole"]),
        helper.make_node("Mul", [f"{y}/whole", b], [f"{y}/multiple"]),
        helper.make_node("Sub", [a, f"{y}/multiple"], [y], name=node.name),
    ]


def _swish(node: onnx.NodeProto, types: _Types) -> _Nodes | None:
    """Swish, which ONNX Runtime knows in opset 24 alone  =>  x * Sigmoid(alpha * x)"""
    x, y, kind = node.input[0], node.output[0], _kind(types, node.input[0])
    if kind == 0:
        return None
    alpha, before, inner = float(attribute_of(node, "alpha", 1.0)), _Nodes(), x
    if alpha != 1:
        given = helper.make_tensor("alpha", kind, [], [alpha])
        inner = f"{y}/inner"
        before = [
            helper.make_node("Constant", [], [f"{y}/alpha"], value=given),
            helper.make_node("Mul", [x, f"{y}/alpha"], [inner]),
        ]
    gate = helper.make_node("Sigmoid", [inner], [f"{y}/gate"])
    return [*before, gate, helper.make_node("Mul", [x, f"{y}/gate"], [y], name=node.name)]


def _range(node: onnx.NodeProto, types: _Types) -> _Nodes | None:
    """Range of half floats  =>  in float32, as stash_type says; stash_type= dropped"""
    kind = _kind(types, node.input[0])
    if kind == 0:
        return None
    plain = _without(node, "stash_type")
    if kind not in _HALF:
        return [plain]
    if attribute_of(node, "stash_type", 1) != TensorProto.FLOAT:
        return None
    y = node.output[0]
    casts = [helper.make_node("Cast", [name], [f"{y}/{k}"], to=1) for k, name in enumerate(node.input)]
    plain.input[:] = [c.output[0] for c in casts]
    plain.output[0] = f"{y}/wide"
    return [*casts, plain, helper.make_node("Cast", [f"{y}/wide"], [y], to=kind)]


def _space_to_depth(node: onnx.NodeProto, types: _Types) -> _Nodes | None:
    """mode=DCR, which it always was  =>  dropped;  mode=CRD  =>  the channels put in that order"""
    plain = _without(node, "mode")
    if attribute_of(node, "mode", b"DCR") == b"DCR":
        return [plain]
    dims = types[node.input[0]].tensor_type.shape.dim if node.input[0] in types else []
    if len(dims) != 4 or dims[1].dim_value < 1:
        return None
    channels, places = dims[1].dim_value, attribute_of(node, "blocksize", 1) ** 2
    order = np.arange(places * channels).reshape(places, channels).T.reshape(-1)
    y = node.output[0]
    plain.output[0] = f"{y}/places first"
    given = helper.make_node("Constant", [], [f"{y}/order"], value=numpy_helper.from_array(order.astype(np.int64)))
    return [plain, given, helper.make_node("Gather", [plain.output[0], given.output[0]], [y], axis=1)]


_REWRITES: dict[str, Callable[[onnx.NodeProto, _Types], _Nodes | None]] = {
    "Mod": _mod,
    "Range": _range,
    "SpaceToDepth": _space_to_depth,
}


def _types(model: onnx.ModelProto) -> dict[str, onnx.TypeProto]:
    graph = skeleton_with_shapes(model).graph
    types = {v.name: v.type for v in (*graph.value_info, *graph.input, *graph.output)}
    for tensor in model.graph.initializer:
        types[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
    return types


def _kind(types: _Types, name: str) -> int:
    return types[name].tensor_type.elem_type if name in types else 0


def _graphs(graph: onnx.GraphProto) -> list[onnx.GraphProto]:
    """The graph and those inside it, outer ones first."""
    found = [graph]
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                found += _graphs(inner)
    return found


def _since(op: str, opset: int) -> int:
    try:
        return int(onnx.defs.get_schema(op, opset, "").since_version)
    except onnx.defs.SchemaError:
        return 0


def _without(node: onnx.NodeProto, name: str) -> onnx.NodeProto:
    made = _copy(node)
    kept = [a for a in node.attribute if a.name != name]
    del made.attribute[:]
    made.attribute.extend(kept)
    return made


def _copy(node: onnx.NodeProto) -> onnx.NodeProto:
    made = onnx.NodeProto()
    made.CopyFrom(node)
    return made
