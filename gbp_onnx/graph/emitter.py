"""Writes new nodes: ``op.Mul(a, b)`` is a node in the backward graph, and its output.

Equal expressions are emitted once, expressions of constants are evaluated at once, and what nothing reads is left out.
So a
derivative may ask for shapes and masks freely, and static graphs come out without any shape arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import helper, numpy_helper

from gbp_onnx.graph.body import Body, renamed
from gbp_onnx.graph.folding import Array, evaluate, foldable
from gbp_onnx.graph.kinds import element_type, is_scalar, sequence_type, tensor_type, without_sizes
from gbp_onnx.graph.names import names_in
from gbp_onnx.graph.reader import Graph, Node, Shape, Tensor, numpy_dtype

__all__ = ["Emitter", "Operand"]

Operand: TypeAlias = Tensor | Array | float | int | bool | Sequence[int] | None
"""An operator input: a tensor, a constant (numbers take the type of the tensors beside them, int lists are int64), or
left out.
"""

_FOLD_LIMIT = 1 << 16
_INT64, _BOOL = onnx.TensorProto.INT64, onnx.TensorProto.BOOL
_COUNTS = ("Shape", "Size", "ArgMax", "ArgMin", "NonZero", "SequenceLength")
_FIXED_TYPES = dict.fromkeys(_COUNTS, _INT64) | dict.fromkeys(
    ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "And", "Or", "IsNaN", "IsInf"), _BOOL
)
_TYPE_FROM_INPUT = {"Where": 1, "DequantizeLinear": 1, "OneHot": 2}
_MAKES_SEQUENCES = frozenset(
    {"SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SplitToSequence"}
)
_HALF = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
_LOOKS = frozenset(op for op in _FIXED_TYPES) | {"Cast", "Identity"}
"""Operators that read half precision as it is: they compute nothing that it could round."""
_AXES_ARE_INPUT_SINCE = dict.fromkeys(("ReduceSum", "Squeeze", "Unsqueeze"), 13) | dict.fromkeys(
    (
        "ReduceMean",
        "ReduceMax",
        "ReduceMin",
        "ReduceProd",
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "ReduceSumSquare",
    ),
    18,
)

_REMOVABLE_CAST = "InsertedPrecisionFreeCast_"
"""ONNX Runtime's CPU provider computes half precision in float32 between casts of its own, and takes out those of this
name that undo each other. Casts of ours under another name would keep the roundings in, and change the forward results.
"""


class _Variable(gs.Variable):  # type: ignore[misc]  # graphsurgeon is untyped
    """A tensor that is made by the thousand: graphsurgeon's own follow every assignment, for graphs of its own."""

    __setattr__ = object.__setattr__


class _Constant(gs.Constant):  # type: ignore[misc]
    """Likewise, a constant."""

    __setattr__ = object.__setattr__


@dataclass(frozen=True, slots=True)
class _Emitted:
    """A new node. `origin`: the forward node that it was made for; `source`: the node that it is a copy of."""

    op: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    bodies: Mapping[str, Body] = field(default_factory=dict)
    origin: str = ""
    source: onnx.NodeProto | None = None
    domain: str = ""

    def read(self) -> Iterable[Tensor]:
        """What it reads, through its bodies too."""
        yield from self.inputs
        for body in self.bodies.values():
            yield from body.captures.values()


class Emitter:
    """Appends nodes after a graph's own.

    `prefix` starts every new name; `vjp_of` is the forward node that is being differentiated (written into the new
    nodes'
    metadata as ``gbp.vjp_of``).
    """

    def __init__(self, graph: Graph, prefix: str = "grad") -> None:
        self.graph, self.prefix, self.vjp_of = graph, prefix, ""
        self.wanted: tuple[bool, ...] = ()  # which inputs of that node want a cotangent
        self.sweep: Callable[..., dict[str, Tensor]] | None = None  # sweeps a body, under the rule in force
        self.instead: Callable[[Tensor, str], Tensor | None] | None = None
        """What a new node of an operator reads in place of a forward tensor that must have no further reader."""
        self._taken = set(graph.tensors) | {n.name for n in graph.nodes} | names_in(graph.model.graph)
        self.added_outputs: dict[tuple[int, int], Tensor] = {}  # (forward node, output) -> tensor
        self._nodes: list[_Emitted] = []
        self._next: dict[str, int] = {}  # by name: the first number that may be free
        self._seen: dict[Any, tuple[Tensor, ...]] = {}
        self._constants: dict[Any, gs.Constant] = {}
        self._scalars: dict[tuple[float, float, int], Tensor] = {}
        self._types: dict[int, int] = {}
        self._forms: dict[int, onnx.TypeProto] = {}  # of sequences, optionals and numbers of rank 0
        self._own: dict[int, Tensor] = {}  # id -> emitted tensor (kept alive, so that ids stay unique)
        self._like: dict[int, Tensor] = {}  # id -> the forward tensor that has the shape of an emitted one
        self._widening: set[int] = set()  # casts of half precision to float32
        self._shared: set[int] = set()  # emitted tensors that have their name after a forward tensor
        self._published: set[int] = set()  # emitted tensors that are inputs or outputs of the model

    def __getattr__(self, op_type: str) -> Callable[..., Any]:
        if not op_type[0].isupper():
            raise AttributeError(op_type)

        def emit(*inputs: Operand, outputs: int = 1, **attrs: Any) -> Any:
            made = self.emit(op_type, inputs, attrs, outputs)
            return made[0] if outputs == 1 else made

        return emit

    def emit(
        self, op_type: str, inputs: Sequence[Operand], attrs: dict[str, Any], outputs: int = 1, domain: str = ""
    ) -> tuple[Tensor, ...]:
        """Emit one node (or reuse an equal one, or evaluate it) and return its outputs."""
        since = _AXES_ARE_INPUT_SINCE.get(op_type)
        if since is not None and self.graph.opset >= since and (axes := attrs.pop("axes", None)) is not None:
            inputs = (*inputs, list(axes))
        tensors = self._operands(op_type, inputs)
        if op_type in ("Shape", "Size"):
            tensors = [self._like.get(id(t), t) for t in tensors]
        if self.instead is not None:
            tensors = [self._read_instead(t, op_type) for t in tensors]
        attrs = {k: v for k, v in attrs.items() if v is not None}
        key = (domain, op_type, tuple(id(t) for t in tensors), repr(sorted(attrs.items())), outputs)
        if key not in self._seen:
            folded = self._fold(op_type, tensors, attrs) if outputs == 1 and not domain else None
            made = (folded,) if folded is not None else self._append(op_type, tensors, attrs, outputs, domain)
            self._seen[key] = made
        return self._seen[key]

    def attach(
        self,
        op_type: str,
        inputs: Sequence[Tensor | None],
        types: Sequence[onnx.TypeProto | None],
        bodies: Mapping[str, Body] | None = None,
        source: onnx.NodeProto | None = None,
        names: Sequence[str] = (),
        attrs: Mapping[str, Any] | None = None,
    ) -> tuple[Tensor, ...]:
        """Emit a node with bodies, or a copy of `source` (its attributes; `inputs` and `bodies` are its own).

        `types`: of its outputs, None where one is left out; `names` (of the outputs) are made unique.
        """
        tensors = tuple(_EMPTY if t is None else t for t in inputs)
        held, given = dict(bodies or {}), dict(attrs or {})
        key = (
            op_type,
            tuple(id(t) for t in tensors),
            repr(sorted(given.items())),
            len(types),
            [] if source is None else [a.SerializeToString() for a in source.attribute if a.name not in held],
            [(n, b.proto.SerializeToString(), [(c, id(t)) for c, t in b.captures.items()]) for n, b in held.items()],
        )
        known = repr(key)
        if known not in self._seen:
            bases = [self._base(name) for name in names or [op_type] * len(types)]
            made = tuple(
                _EMPTY if kind is None else _Variable(self.unique(base))
                for base, kind in zip(bases, types, strict=True)
            )
            for tensor, kind in zip(made, types, strict=True):
                if kind is not None:
                    self._register(tensor, kind)
            self._nodes.append(_Emitted(op_type, tensors, made, given, held, self.vjp_of, source))
            self._seen[known] = made
        return self._seen[known]

    def constant(self, value: Array | np.generic | Sequence[int] | float, elem_type: int = 0) -> Tensor:
        """A constant tensor; equal constants are one initializer."""
        array = np.ascontiguousarray(value, None if elem_type == 0 else numpy_dtype(elem_type)).reshape(np.shape(value))
        key = (array.dtype.str, array.dtype.name, array.shape, array.tobytes())
        if key not in self._constants:
            constant = _Constant(self.unique(f"{self.prefix}/const/{len(self._constants)}".lstrip("/")), array)
            self._constants[key] = constant
            self._register(constant, elem_type or int(onnx.helper.np_dtype_to_tensor_dtype(array.dtype)))
        return self._constants[key]

    def placeholder(self, name: str, kind: int | onnx.TypeProto) -> Tensor:
        """A tensor that becomes an input of the graph."""
        tensor = _Variable(self.unique(name))
        self._register(tensor, kind)
        self._shared.add(id(tensor))
        self._published.add(id(tensor))
        return tensor

    def name(self, tensor: Tensor, name: str) -> None:
        """Give an emitted tensor its final name, where it has none yet."""
        if id(tensor) in self._own and id(tensor) not in self._shared and not isinstance(tensor, gs.Constant):
            tensor.name = self.unique(name)
            self._shared.add(id(tensor))

    def publish(self, tensor: Tensor, name: str) -> Tensor:
        """The tensor under exactly this name (made unique): renamed where it is free to be, else copied."""
        free = id(tensor) in self._own and id(tensor) not in self._published and not isinstance(tensor, gs.Constant)
        if not free:
            source, tensor = tensor, _Variable("")
            self._register(tensor, self.type_of(source))
            self._nodes.append(_Emitted("Identity", (source,), (tensor,), origin=self.vjp_of))
        tensor.name = self.unique(name)
        self._shared.add(id(tensor))
        self._published.add(id(tensor))
        return tensor

    def reads(self, root: Tensor, stop: Iterable[Tensor] = ()) -> set[str]:
        """Names of the forward tensors whose values (not only shapes) the emitted nodes behind `root` read, up to
        `stop`.
        """
        stopped = {id(t) for t in stop}
        made_by = {id(t): node for node in self._nodes for t in node.outputs}
        added = {id(t): t.name for t in self.added_outputs.values()}
        names: set[str] = set()
        pending, seen = [root], set(stopped)
        while pending:
            tensor = pending.pop()
            if id(tensor) in seen:
                continue
            seen.add(id(tensor))
            node = made_by.get(id(tensor))
            if node is None:
                if id(tensor) in added:
                    names.add(added[id(tensor)])
                elif id(tensor) not in self._own and not tensor.is_empty():
                    names.add(tensor.name)
            elif node.op not in ("Shape", "Size"):
                pending.extend(node.inputs)
                pending.extend(t for body in node.bodies.values() for t in body.captured_values())
        return names

    def unique(self, name: str) -> str:
        """`name`, or `name_1`, `name_2`... where it is taken."""
        candidate, count = name, self._next.get(name, 0)
        while candidate in self._taken:
            count += 1
            candidate = f"{name}_{count}"
        self._next[name] = count
        self._taken.add(candidate)
        return candidate

    def elem_type(self, tensor: Tensor) -> int:
        """The TensorProto data type of a forward or an emitted tensor, as it is computed with.

        The backward graph computes in float32 where the forward has half precision: cotangents underflow there.
        """
        kind = self._stored_type(tensor)
        return onnx.TensorProto.FLOAT if kind in _HALF and id(tensor) not in self._own else kind

    def _stored_type(self, tensor: Tensor) -> int:
        if id(tensor) in self._types:
            return self._types[id(tensor)]
        known = self.graph.elem_type(tensor) or element_type(self.graph.type_of(tensor))[0]
        return known or onnx.TensorProto.FLOAT  # unknown: behind an operator that will be refused

    def is_sequence(self, tensor: Tensor) -> bool:
        """Whether a forward or an emitted tensor is a sequence of tensors."""
        return element_type(self.type_of(tensor))[1]

    def type_of(self, tensor: Tensor) -> onnx.TypeProto:
        """The type of a forward or an emitted tensor; the latter without sizes."""
        if id(tensor) not in self._types:
            return self.graph.type_of(tensor)
        return self._forms.get(id(tensor)) or tensor_type(self._types[id(tensor)])

    def value(self, tensor: Tensor | None) -> Array | None:
        """The value of a forward or an emitted tensor where it is constant."""
        if tensor is not None and id(tensor) in self._own:
            return np.asarray(tensor.values) if isinstance(tensor, gs.Constant) else None
        return self.graph.constant(tensor)

    def known_shape(self, tensor: Tensor) -> Shape:
        """The shape as far as it is known without running; None for emitted tensors of which none was noted."""
        tensor = self._like.get(id(tensor), tensor)
        if id(tensor) in self._own:
            return tuple(tensor.values.shape) if isinstance(tensor, gs.Constant) else None
        return self.graph.shape(tensor)

    def shaped_like(self, tensor: Tensor, like: Tensor) -> Tensor:
        """`tensor`, noted to have the shape of the forward tensor `like`, which is asked in its place."""
        if id(tensor) in self._own and not isinstance(tensor, gs.Constant):
            self._like[id(tensor)] = like
        return tensor

    def shape(self, tensor: Tensor) -> Tensor:
        """The shape as an int64 vector: constant where it is static."""
        known = self.known_shape(tensor)
        if known is not None and all(isinstance(d, int) for d in known):
            return self.constant(np.asarray(known, np.int64))
        made: Tensor = self.Shape(tensor)
        return made

    def dim(self, tensor: Tensor, axis: int) -> Tensor:
        """One size as an int64 vector of one element: constant where it is static."""
        known = self.known_shape(tensor)
        if known is not None and isinstance(size := known[axis], int):
            return self.constant(np.asarray([size], np.int64))
        made: Tensor = self.Gather(self.Shape(tensor), [axis], axis=0)
        return made

    def size(self, tensor: Tensor) -> Tensor:
        """The number of elements as an int64 vector of one element: constant where it is static."""
        known = self.known_shape(tensor)
        if known is not None and all(isinstance(d, int) for d in known):
            return self.constant(np.asarray([_size(known)], np.int64))
        made: Tensor = self.Reshape(self.Size(tensor), [1])
        return made

    def forward_output(self, node: Node, index: int, elem_type: int) -> Tensor:
        """An optional output of a forward node, which is added to that node where the source leaves it out."""
        present = node.output(index)
        if present is not None:
            return present
        key = (node.index, index)
        if key not in self.added_outputs:
            tensor = _Variable(self.unique(f"{self.prefix}/{node.name}/output_{index}"))
            self._register(tensor, elem_type)
            self._published.add(id(tensor))
            self.added_outputs[key] = tensor
        return self.added_outputs[key]

    def export(self, roots: Iterable[Tensor]) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
        """The emitted nodes and initializers that `roots` need, nodes in topological order.

        Drops from `added_outputs` what no kept node reads.
        """
        needed = {id(t) for t in roots}
        kept: list[_Emitted] = []
        for node in reversed(self._nodes):
            if any(id(t) in needed for t in node.outputs if t is not _EMPTY):
                needed.update(id(t) for t in node.read())
                kept.append(node)
        protos = [self._proto(node) for node in reversed(kept)]
        self.added_outputs = {k: t for k, t in self.added_outputs.items() if id(t) in needed}
        constants = [c for c in self._constants.values() if id(c) in needed]
        return protos, [numpy_helper.from_array(np.asarray(c.values), c.name) for c in constants]

    def _read_instead(self, tensor: Tensor, op_type: str) -> Tensor:
        if self.instead is None or tensor is _EMPTY or id(tensor) in self._own:
            return tensor
        return self.instead(tensor, op_type) or tensor

    def _proto(self, node: _Emitted) -> onnx.NodeProto:
        domain = node.domain if node.source is None else node.source.domain
        proto = helper.make_node(node.op, [t.name for t in node.inputs], [t.name for t in node.outputs], domain=domain)
        mark = _REMOVABLE_CAST if id(node.outputs[0]) in self._widening else ""
        proto.name = self.unique(mark + next(name for name in proto.output if name))
        if node.source is not None:
            proto.attribute.extend(a for a in node.source.attribute if a.name not in node.bodies)
            proto.metadata_props.extend(node.source.metadata_props)
        if node.origin and not proto.metadata_props:
            proto.metadata_props.add(key="gbp.vjp_of", value=node.origin)
        proto.attribute.extend(helper.make_attribute(k, v) for k, v in node.attrs.items())
        for name, body in node.bodies.items():
            inside = {n: t.name for n, t in body.captures.items()}
            graph = renamed(body.proto, inside, lambda n: self.unique(f"{proto.name}/{n}"))
            proto.attribute.append(helper.make_attribute(name, graph))
        return proto

    def _register(self, tensor: Tensor, kind: int | onnx.TypeProto) -> None:
        self._own[id(tensor)] = tensor
        if isinstance(kind, int):
            self._types[id(tensor)] = kind
            return
        self._types[id(tensor)] = element_type(kind)[0]
        if is_scalar(kind):
            self._forms[id(tensor)] = kind
        elif kind.WhichOneof("value") not in (None, "tensor_type"):
            self._forms[id(tensor)] = without_sizes(kind)

    def _operands(self, op_type: str, inputs: Sequence[Operand]) -> list[Tensor]:
        """Numbers become constants of the type of the first tensor beside them that is not boolean."""
        inputs = self._widened(op_type, inputs)
        present = [t for t in inputs if isinstance(t, gs.Tensor)]
        types = [self._stored_type(t) for t in present]
        beside = next((t for t in types if t != _BOOL), _INT64)
        operands: list[Tensor] = []
        for value in inputs:
            if value is None:
                operands.append(_EMPTY)
            elif isinstance(value, gs.Tensor):
                operands.append(value)
            elif isinstance(value, np.ndarray):
                operands.append(self.constant(value))
            elif isinstance(value, bool | int | float):
                operands.append(self._scalar(value, beside))
            else:
                operands.append(self.constant(np.asarray(value, np.int64)))
        while operands and operands[-1] is _EMPTY:
            operands.pop()
        return operands

    def _scalar(self, value: float, elem_type: int) -> Tensor:
        key = (value, math.copysign(1, value), elem_type)
        if key not in self._scalars:
            self._scalars[key] = self.constant(np.asarray(value, numpy_dtype(elem_type)), elem_type)
        return self._scalars[key]

    def _widened(self, op_type: str, inputs: Sequence[Operand]) -> Sequence[Operand]:
        """Half-precision tensors as float32, except where an operator only looks at them (and at nothing wider).

        What is put into a sequence of them, or taken out, stays as it is.
        """
        kinds = [self._stored_type(t) if isinstance(t, gs.Tensor) else 0 for t in inputs]
        if any(k in _HALF and self.is_sequence(t) for t, k in zip(inputs, kinds, strict=True)):
            return inputs
        if not any(k in _HALF for k in kinds) or (op_type in _LOOKS and onnx.TensorProto.FLOAT not in kinds):
            return inputs
        widened = [self.Cast(t, to=1) if k in _HALF else t for t, k in zip(inputs, kinds, strict=True)]
        self._widening.update(id(w) for w, k in zip(widened, kinds, strict=True) if k in _HALF)
        return widened

    def _fold(self, op_type: str, tensors: list[Tensor], attrs: dict[str, Any]) -> Tensor | None:
        if op_type == "Identity" or not tensors or not foldable(op_type) or any(map(self._is_made, tensors)):
            return None
        if any(t is not _EMPTY and (s := self.known_shape(t)) is not None and _size(s) > _FOLD_LIMIT for t in tensors):
            return None
        values: list[Array | None] = []
        for tensor in tensors:
            value = None if tensor is _EMPTY else self.value(tensor)
            if value is None and tensor is not _EMPTY:
                return None
            values.append(value)
        result = evaluate(op_type, values, attrs)
        return None if result is None or result.size > _FOLD_LIMIT else self.constant(result)

    def _is_made(self, tensor: Tensor) -> bool:
        return id(tensor) in self._own and not isinstance(tensor, gs.Constant)

    def _append(
        self, op_type: str, tensors: list[Tensor], attrs: dict[str, Any], outputs: int, domain: str
    ) -> tuple[Tensor, ...]:
        elem_type = self._result_type(op_type, tensors, attrs)
        made = tuple(_Variable(self.unique(self._base(op_type))) for _ in range(outputs))
        for tensor in made:
            self._register(tensor, sequence_type(elem_type) if op_type in _MAKES_SEQUENCES else elem_type)
        if op_type == "MaxPool" and outputs == 2:
            self._types[id(made[1])] = _INT64
        proto_attrs = {k: _attribute(v) for k, v in attrs.items()}
        self._nodes.append(_Emitted(op_type, tuple(tensors), made, proto_attrs, origin=self.vjp_of, domain=domain))
        return made

    def _base(self, op_type: str) -> str:
        return "/".join(filter(None, (self.prefix, self.vjp_of, op_type)))

    def _result_type(self, op_type: str, tensors: list[Tensor], attrs: dict[str, Any]) -> int:
        if op_type in _FIXED_TYPES:
            return _FIXED_TYPES[op_type]
        if op_type in ("Cast", "SequenceEmpty"):
            return int(attrs["to" if op_type == "Cast" else "dtype"])
        if op_type == "ConstantOfShape":
            value = attrs.get("value")
            return onnx.TensorProto.FLOAT if value is None else int(onnx.helper.np_dtype_to_tensor_dtype(value.dtype))
        return self._stored_type(tensors[_TYPE_FROM_INPUT.get(op_type, 0)])


_EMPTY = _Variable("")


def _size(shape: Sequence[Any]) -> int:
    return math.prod(d for d in shape if isinstance(d, int))


def _attribute(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return numpy_helper.from_array(value)
    return list(value) if isinstance(value, tuple) else value
