"""An index over a model: nodes in order, who makes a tensor, who reads it, its type, shape and constant value."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import numpy_helper
from onnx_graphsurgeon.logger import G_LOGGER

from gbp_onnx.errors import ModelError
from gbp_onnx.graph.blocks import BLOCKED, block_size, blocked_tensors
from gbp_onnx.graph.external import is_external
from gbp_onnx.graph.folding import Array, evaluate, foldable, split
from gbp_onnx.graph.kinds import FLOAT_TYPES
from gbp_onnx.graph.nodes import attributes
from gbp_onnx.graph.ranks import give_rank
from gbp_onnx.graph.stand_ins import infer_shapes

__all__ = [
    "FLOAT_TYPES",
    "GBP_DOMAIN",
    "INTEGER_TYPES",
    "STANDARD_DOMAINS",
    "Dim",
    "Graph",
    "Hint",
    "Node",
    "Shape",
    "Tensor",
    "captured_names",
    "empty_graph",
    "imaginary",
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


@dataclass(frozen=True, slots=True)
class Hint:
    """What is known of a tensor from elsewhere: its type, and perhaps its value."""

    name: str
    kind: onnx.TypeProto
    value: Array | None = None


class Graph:
    """A model, indexed. Reads; changes nothing (the emitter appends to a copy)."""

    def __init__(self, model: onnx.ModelProto, symbols_hold: bool = False, hints: Sequence[Hint] = ()) -> None:
        """`symbols_hold`: equal symbols are surely equal sizes, as they come from inference and not from a file.
        `hints`: what holds of tensors that inference may know less of.
        """
        self.model = model
        self.opset = opset_of(model)
        self._initializers = {t.name: t for t in model.graph.initializer}
        self._constants: dict[str, Array | None] = {h.name: h.value for h in hints if h.value is not None}
        try:
            skeleton = skeleton_with_shapes(model, symbols_hold, hints)
            self._surgeon = gs.import_onnx(skeleton)
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
        self.tensors |= {t.name: t for t in self.inputs}
        self._output_names = {t.name for t in self.outputs}
        inferred = skeleton.graph
        self._no_tensors: dict[str, onnx.TypeProto] = {  # sequences and optionals
            v.name: v.type
            for v in (*inferred.value_info, *inferred.output, *inferred.input)
            if v.type.WhichOneof("value") not in (None, "tensor_type")
        }
        self._producer: dict[str, Node] = {}
        self._readers: dict[str, list[Node]] = {}
        for node in self.nodes:
            self._producer.update((t.name, node) for t in node.outputs if t is not None)
            for name in {t.name for t in node.inputs if t is not None} | node.captures:
                self._readers.setdefault(name, []).append(node)
            self.tensors |= {name: gs.Variable(name) for name in node.captures if name not in self.tensors}
        for node in self.nodes:
            if node.domain in (*STANDARD_DOMAINS, BLOCKED) or node.op == "FusedConv":
                give_rank(self, node)
                if node.op == "Shape" and node.outputs[0] is not None:
                    self.constant(node.outputs[0])  # in order, so that no chain of shapes is deep

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

    def type_of(self, tensor: Tensor) -> onnx.TypeProto:
        """The type as far as it is known: a tensor's with its sizes, a sequence's, an optional's."""
        if tensor.name in self._no_tensors:
            return self._no_tensors[tensor.name]
        kind = self.elem_type(tensor)
        made: onnx.TypeProto = (
            onnx.helper.make_tensor_type_proto(kind, self.shape(tensor)) if kind else onnx.TypeProto()
        )
        return made

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
        waiting = [] if tensor.name in self._constants else [tensor]
        while waiting:  # a loop, not a recursion: graphs are thousands of nodes deep
            current = waiting[-1]
            needed = [t for t in self._sources(current) if t.name not in self._constants]
            if needed and current.name not in self._constants:
                waiting += needed
            else:
                waiting.pop()
                if current.name not in self._constants:
                    self._constants[current.name] = self._evaluate(current)
        return self._constants[tensor.name]

    @cached_property
    def blocked(self) -> set[str]:
        """Names of the tensors in ONNX Runtime's blocked layout."""
        return blocked_tensors(self.model.graph.node)

    @cached_property
    def block_size(self) -> int | None:
        """Channels to a block of that layout, where the weights' shapes tell."""
        dims = {name: list(t.dims) for name, t in self._initializers.items()}
        return block_size(self.model.graph.node, dims, self.blocked)

    def _sources(self, tensor: Tensor) -> list[Tensor]:
        """The tensors whose values decide that of `tensor`; none where one is too large to be looked at."""
        node = None if tensor.name in self._initializers else self.producer(tensor)
        if node is None or not _folds(node) or node.op in ("Shape", "Size"):
            return []
        found = [t for t in node.inputs if t is not None]
        sizes = (self.static_shape(t) for t in found)
        return [] if any(s is not None and math.prod(s) > _FOLD_LIMIT for s in sizes) else found

    def _evaluate(self, tensor: Tensor) -> Array | None:
        initializer = self._initializers.get(tensor.name)
        if initializer is not None:
            return _array(initializer)
        node = self.producer(tensor)
        if node is None or node.domain not in STANDARD_DOMAINS:
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
        if not node.inputs or not _folds(node):
            return None
        values = [None if t is None else self._constants.get(t.name) for t in node.inputs]
        if any(v is None and t is not None for v, t in zip(values, node.inputs, strict=True)):
            return None
        if node.op == "Split":
            pieces = split(values, node.attrs, len(node.outputs))
            place = next(k for k, t in enumerate(node.outputs) if t is not None and t.name == tensor.name)
            return None if pieces is None else pieces[place]
        return evaluate(node.op, values, node.attrs)


def _folds(node: Node) -> bool:
    """Whether its outputs can be computed from constant inputs."""
    if node.domain not in STANDARD_DOMAINS:
        return False
    return node.op == "Split" or (len(node.outputs) == 1 and (foldable(node.op) or node.op in ("Shape", "Size")))


def imaginary(name: str, shape: Iterable[Dim] | None, dtype: Any = None) -> Tensor:
    """A tensor of no file: it has a shape, and cotangents pass through it. Nothing may read it."""
    return gs.Variable(name, dtype, None if shape is None else list(shape))


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
        {**defaults, **node.attrs, **{a.name: a.g for a in proto.attribute if a.HasField("g")}},
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


@lru_cache(maxsize=8)
def empty_graph(opset: int) -> Graph:
    """A graph of nothing, for an emitter that writes a body."""
    graph = onnx.helper.make_graph([], "empty", [], [])
    return Graph(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)]))


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


def skeleton_with_shapes(
    model: onnx.ModelProto, symbols_hold: bool = False, hints: Sequence[Hint] = ()
) -> onnx.ModelProto:
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
            if dim.dim_value < 0 or (not symbols_hold and dim.dim_param and symbols.count(dim.dim_param) > 1):
                dim.Clear()
    for value in graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    custom = {name for node in source.node if node.domain not in STANDARD_DOMAINS for name in node.output}
    graph.value_info.extend(v for v in source.value_info if v.name in custom)
    outputs = {value.name for value in graph.output}
    for hint in hints:
        if hint.name not in outputs:
            graph.value_info.append(onnx.helper.make_value_info(hint.name, hint.kind))
    for value in graph.output:
        value.type.CopyFrom(next((hint.kind for hint in hints if hint.name == value.name), value.type))
    computed = _compute_small(skeleton)
    inferred = _infer(skeleton)
    ranks = _declared_ranks(source, inferred)
    if ranks:
        graph.value_info.extend(ranks)
        inferred = _infer(skeleton)
    if computed:
        _put_back(inferred, source, computed)
    return inferred


def _compute_small(skeleton: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Put small numbers that nodes compute from constants (pads, sizes, axes) in those nodes' place: onnx's inference
    follows few of them. What was computed, by name.
    """
    graph = skeleton.graph
    values = {t.name: np.asarray(numpy_helper.to_array(t)) for t in graph.initializer if _has_data(t)}
    outputs, computed = {o.name for o in graph.output}, dict[str, onnx.TensorProto]()
    for node in graph.node:
        value = None if outputs & set(node.output) else _small_value(node, values)
        if value is None:
            continue
        values[node.output[0]] = value
        if node.op_type != "Constant":
            computed[node.output[0]] = numpy_helper.from_array(value, node.output[0])
    if computed:
        left = [onnx.NodeProto.FromString(n.SerializeToString()) for n in graph.node if n.output[0] not in computed]
        del graph.node[:]
        graph.node.extend(left)
        graph.initializer.extend(computed.values())
    return computed


def _put_back(inferred: onnx.ModelProto, source: onnx.GraphProto, computed: Mapping[str, onnx.TensorProto]) -> None:
    """The nodes of `source`, in place of the numbers that were computed for them."""
    graph = inferred.graph
    del graph.node[:]
    graph.node.extend(source.node)
    for index in reversed([k for k, t in enumerate(graph.initializer) if t.name in computed]):
        del graph.initializer[index]
    listed = {v.name for v in graph.value_info}
    graph.value_info.extend(
        onnx.helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims))
        for name, tensor in computed.items()
        if name not in listed
    )


def _has_data(tensor: onnx.TensorProto) -> bool:
    small = np.prod(tensor.dims, dtype=np.int64) <= _KEEP_DATA
    return bool(small) and not is_external(tensor) and tensor.data_type != onnx.TensorProto.STRING


def _small_value(node: onnx.NodeProto, values: Mapping[str, Array]) -> Array | None:
    """The one output of a node of small constants; None where it is none."""
    if node.domain not in STANDARD_DOMAINS or len(node.output) != 1 or any(n and n not in values for n in node.input):
        return None
    attrs = attributes(node)
    if node.op_type == "Constant":
        tensor = attrs.get("value")
        value = np.asarray(numpy_helper.to_array(tensor)) if tensor is not None and _has_data(tensor) else None
    elif node.input and foldable(node.op_type):
        plain = {k: numpy_helper.to_array(v) if isinstance(v, onnx.TensorProto) else v for k, v in attrs.items()}
        value = evaluate(node.op_type, [values.get(n) for n in node.input], plain)
    else:
        return None
    return value if value is not None and value.size <= _KEEP_DATA and value.dtype.kind in "iufb" else None


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
    known = {v.name for v in found if v.type.tensor_type.HasField("shape")} | {t.name for t in source.initializer}
    ranks = []
    for value in source.value_info:
        if value.name not in known and value.type.tensor_type.HasField("shape"):
            info = onnx.ValueInfoProto()
            info.CopyFrom(value)
            for dim in info.type.tensor_type.shape.dim:
                dim.Clear()
            ranks.append(info)
    return ranks
