"""An index over a model: nodes in order, who makes a tensor, who reads it, its type, shape and constant value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import numpy_helper
from onnx_graphsurgeon.logger import G_LOGGER

from gbp_onnx.errors import ModelError
from gbp_onnx.graph.external import is_external
from gbp_onnx.graph.folding import Array, evaluate
from gbp_onnx.graph.ranks import give_rank
from gbp_onnx.graph.stand_ins import infer_shapes

__all__ = [
    "FLOAT_TYPES",
    "GBP_DOMAIN",
    "INTEGER_TYPES",
    "STANDARD_DOMAINS",
    "Dim",
    "Graph",
    "Node",
    "Shape",
    "Tensor",
    "captured_names",
    "numpy_dtype",
    "opset_of",
    "skeleton_with_shapes",
]

G_LOGGER.severity = G_LOGGER.ERROR  # it reports odd but legal dtypes on stderr

GBP_DOMAIN = "gbp"
"""Domain of the stand-ins that `canonical` puts in place of forward nodes: Rectifier, Silu and Head."""

Tensor: TypeAlias = gs.Tensor
Dim: TypeAlias = int | str | None
"""A known size, a symbol (two equal symbols are equal sizes), or unknown."""
Shape: TypeAlias = tuple[Dim, ...] | None

FLOAT_TYPES = frozenset(
    {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE, onnx.TensorProto.BFLOAT16}
)
INTEGER_TYPES = frozenset(
    getattr(onnx.TensorProto, name)
    for name in ("INT8", "UINT8", "INT16", "UINT16", "INT32", "UINT32", "INT64", "UINT64")
)
STANDARD_DOMAINS = ("", "ai.onnx")
_KEEP_DATA = 256  # initializers up to so many elements keep their data for shape inference
_FOLD_LIMIT = 1 << 20  # constants larger than this are never evaluated, only shared


class Node:
    """A forward node as derivatives see it.

    `inputs` and `outputs` hold None where an optional one is left out; `attrs` has the schema's defaults filled in;
    `version` is the opset version that defines the node's meaning. `name` is never empty.
    """

    __slots__ = ("attrs", "captures", "domain", "index", "inputs", "name", "op", "outputs", "version")

    def __init__(
        self,
        op: str,
        name: str,
        inputs: Iterable[Tensor | None],
        outputs: Iterable[Tensor | None],
        attrs: Mapping[str, Any] | None = None,
        domain: str = "",
        version: int = 1,
        captures: Iterable[str] = (),
        index: int = -1,
    ) -> None:
        self.op, self.name, self.domain, self.version = op, name, domain, version
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self.attrs = dict(attrs or {})
        self.captures = frozenset(captures)  # names that its subgraphs read from outside
        self.index = index  # its place in the model's node list; names need not be unique

    def input(self, index: int) -> Tensor | None:
        """The input at `index`, None where it is left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def output(self, index: int) -> Tensor | None:
        """The output at `index`, None where it is left out."""
        return self.outputs[index] if index < len(self.outputs) else None

    def __repr__(self) -> str:
        return f"<{self.domain}{'::' if self.domain else ''}{self.op} {self.name!r}>"


class Graph:
    """A model, indexed. Reads; changes nothing (the emitter appends to a copy)."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.opset = opset_of(model)
        self._initializers = {t.name: t for t in model.graph.initializer}
        self._constants: dict[str, Array | None] = {}
        try:
            self._surgeon = gs.import_onnx(skeleton_with_shapes(model))
        except Exception as error:  # graphsurgeon raises many kinds for malformed graphs
            raise ModelError("GBP103", f"the graph cannot be read ({error})") from error
        versions = {o.domain: o.version for o in model.opset_import}
        self.nodes = [
            _read_node(node, proto, index, versions)
            for index, (node, proto) in enumerate(zip(self._surgeon.nodes, model.graph.node, strict=True))
        ]
        self.tensors: dict[str, Tensor] = dict(self._surgeon.tensors())
        self.inputs: list[Tensor] = list(self._surgeon.inputs)
        self.outputs: list[Tensor] = list(self._surgeon.outputs)
        self._output_names = {t.name for t in self.outputs}
        self._producer: dict[str, Node] = {}
        self._readers: dict[str, list[Node]] = {}
        for node in self.nodes:
            self._producer.update((t.name, node) for t in node.outputs if t is not None)
            for name in {t.name for t in node.inputs if t is not None} | node.captures:
                self._readers.setdefault(name, []).append(node)
        for node in self.nodes:
            if node.domain in STANDARD_DOMAINS:
                give_rank(self, node)

    def producer(self, tensor: Tensor | None) -> Node | None:
        """The node that makes `tensor`; None for inputs and initializers."""
        return None if tensor is None else self._producer.get(tensor.name)

    def readers(self, tensor: Tensor) -> list[Node]:
        """The nodes that read `tensor`, each once."""
        return self._readers.get(tensor.name, [])

    def is_output(self, tensor: Tensor) -> bool:
        """Whether the model returns `tensor`."""
        return tensor.name in self._output_names

    def elem_type(self, tensor: Tensor) -> int:
        """The TensorProto data type; 0 where it is unknown."""
        initializer = self._initializers.get(tensor.name)
        if initializer is not None:
            return int(initializer.data_type)
        dtype = tensor.dtype
        if dtype is None or getattr(tensor, "type", None) not in (None, "tensor_type"):
            return 0
        return int(dtype) if isinstance(dtype, int) else int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def is_float(self, tensor: Tensor) -> bool:
        """Whether `tensor` holds floating point numbers."""
        return self.elem_type(tensor) in FLOAT_TYPES

    def shape(self, tensor: Tensor) -> Shape:
        """The sizes as far as they are known; None where not even the rank is."""
        initializer = self._initializers.get(tensor.name)
        if initializer is not None:
            return tuple(initializer.dims)
        dims = tensor.shape
        if dims is None:
            constant = self.constant(tensor)
            return None if constant is None else constant.shape
        return tuple(d if isinstance(d, str) or (isinstance(d, int) and d >= 0) else None for d in dims)

    def static_shape(self, tensor: Tensor) -> tuple[int, ...] | None:
        """The shape where every size is known."""
        shape = self.shape(tensor)
        if shape is None:
            return None
        known = tuple(d for d in shape if isinstance(d, int))
        return known if len(known) == len(shape) else None

    def rank(self, tensor: Tensor) -> int | None:
        """The number of axes."""
        shape = self.shape(tensor)
        return None if shape is None else len(shape)

    def constant(self, tensor: Tensor | None) -> Array | None:
        """The value of `tensor` where the file alone determines it: initializers, Constant nodes and what is computed
        from them.
        """
        if tensor is None:
            return None
        if tensor.name not in self._constants:
            self._constants[tensor.name] = None  # stands while the inputs are looked at; graphs have no cycles
            self._constants[tensor.name] = self._evaluate(tensor)
        return self._constants[tensor.name]

    def _evaluate(self, tensor: Tensor) -> Array | None:
        initializer = self._initializers.get(tensor.name)
        if initializer is not None:
            return _array(initializer)
        node = self.producer(tensor)
        if node is None or node.domain not in STANDARD_DOMAINS or len(node.outputs) != 1:
            return None
        if node.op == "Constant":
            return _constant_node(node)
        if node.op in ("Shape", "Size"):
            source = node.inputs[0]
            shape = None if source is None else self.static_shape(source)
            if shape is None:
                return None
            if node.op == "Size":
                return np.asarray(np.prod(shape, dtype=np.int64))
            return np.asarray(shape, np.int64)[slice(node.attrs.get("start", 0), node.attrs.get("end"))]
        if not node.inputs:
            return None
        if any(
            t is not None and (s := self.static_shape(t)) is not None and np.prod(s) > _FOLD_LIMIT for t in node.inputs
        ):
            return None
        values = [self.constant(t) for t in node.inputs]
        if any(v is None and t is not None for v, t in zip(values, node.inputs, strict=True)):
            return None
        return evaluate(node.op, values, node.attrs)


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the standard operator set that the model imports."""
    return next((int(o.version) for o in model.opset_import if o.domain in STANDARD_DOMAINS), 0)


def numpy_dtype(elem_type: int) -> np.dtype[Any]:
    """The NumPy (or ml_dtypes) type of a TensorProto data type."""
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(elem_type))


def _read_node(node: gs.Node, proto: onnx.NodeProto, index: int, versions: Mapping[str, int]) -> Node:
    domain = "" if proto.domain in STANDARD_DOMAINS else proto.domain
    imported = versions.get(proto.domain, versions.get("ai.onnx" if proto.domain == "" else "", 1))
    version, defaults = _schema(proto.op_type, domain, imported)
    return Node(
        proto.op_type,
        proto.name or f"{proto.op_type}_{index}",
        [None if t.is_empty() else t for t in node.inputs],
        [None if t.is_empty() else t for t in node.outputs],
        {**defaults, **node.attrs},
        domain,
        version,
        captured_names(proto),
        index,
    )


@lru_cache(maxsize=4096)
def _schema(op: str, domain: str, opset: int) -> tuple[int, dict[str, Any]]:
    """The version of the operator's definition in force at `opset`, and its attributes' defaults."""
    try:
        schema = onnx.defs.get_schema(op, opset, domain)
    except onnx.defs.SchemaError:
        return opset, {}
    defaults = {
        name: onnx.helper.get_attribute_value(a.default_value)
        for name, a in schema.attributes.items()
        if a.default_value.name
    }
    return schema.since_version, {k: v.decode() if isinstance(v, bytes) else v for k, v in defaults.items()}


def captured_names(proto: onnx.NodeProto) -> set[str]:
    """The names that the node's subgraphs read from the graph around them."""
    captured: set[str] = set()
    for attribute in proto.attribute:
        for graph in (attribute.g, *attribute.graphs):
            if not (graph.node or graph.output):
                continue
            inner = {t.name for t in graph.initializer} | {i.name for i in graph.input}
            inner.update(name for node in graph.node for name in node.output)
            read = {name for node in graph.node for name in node.input} | {o.name for o in graph.output}
            for node in graph.node:
                read |= captured_names(node)
            captured |= read - inner - {""}
    return captured


def _array(tensor: onnx.TensorProto) -> Array | None:
    if tensor.data_type == onnx.TensorProto.STRING or is_external(tensor):  # left on disk: large
        return None
    try:
        return np.asarray(numpy_helper.to_array(tensor))
    except (ValueError, TypeError) as error:
        raise ModelError("GBP103", f"the data of initializer {tensor.name!r} do not fit its shape ({error})") from error


def _constant_node(node: Node) -> Array | None:
    for name, value in node.attrs.items():
        match name:
            case "value":
                return np.asarray(value.values)
            case "value_float" | "value_floats":
                return np.asarray(value, np.float32)
            case "value_int" | "value_ints":
                return np.asarray(value, np.int64)
    return None


def skeleton_with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """A light copy for graphsurgeon: large weights without data, shapes inferred afresh.

    Sizes are taken from the inputs alone: what exporters declare for inner tensors and outputs may be stale, and only
    its rank is used, where inference finds none. A symbol that names two dimensions of the inputs says nothing either
    (Paddle calls height and width both "?").
    """
    skeleton = onnx.ModelProto()
    skeleton.ir_version = model.ir_version
    skeleton.opset_import.extend(model.opset_import)
    skeleton.functions.extend(model.functions)
    graph, source = skeleton.graph, model.graph
    graph.name = source.name
    graph.node.extend(source.node)
    graph.input.extend(source.input)
    graph.output.extend(source.output)
    graph.sparse_initializer.extend(source.sparse_initializer)
    for tensor in source.initializer:
        if np.prod(tensor.dims, dtype=np.int64) <= _KEEP_DATA:
            graph.initializer.append(tensor)
        else:
            graph.initializer.add(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
    symbols = [d.dim_param for i in graph.input for d in i.type.tensor_type.shape.dim if d.dim_param]
    for value in graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_value < 0 or (dim.dim_param and symbols.count(dim.dim_param) > 1):
                dim.Clear()
    for value in graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    custom = {name for node in source.node if node.domain not in STANDARD_DOMAINS for name in node.output}
    graph.value_info.extend(v for v in source.value_info if v.name in custom)
    inferred = _infer(skeleton)
    ranks = _declared_ranks(source, inferred)
    if ranks:
        graph.value_info.extend(ranks)
        inferred = _infer(skeleton)
    return inferred


def _infer(model: onnx.ModelProto) -> onnx.ModelProto:
    for data_prop in (True, False):
        try:
            return infer_shapes(model, data_prop)
        except Exception:  # inference is a help, not a need: what it does not know is read at run time
            continue
    return model


def _declared_ranks(source: onnx.GraphProto, inferred: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The source's value_info of tensors whose rank inference did not find, with every size unknown."""
    found = (*inferred.graph.value_info, *inferred.graph.output)  # some exporters list outputs in value_info too
    known = {v.name for v in found if v.type.tensor_type.HasField("shape")}
    ranks = []
    for value in source.value_info:
        if value.name not in known and value.type.tensor_type.HasField("shape"):
            info = onnx.ValueInfoProto()
            info.CopyFrom(value)
            for dim in info.type.tensor_type.shape.dim:
                dim.Clear()
            ranks.append(info)
    return ranks
