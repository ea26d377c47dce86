"""Writes new nodes: ``op.Mul(a, b)`` is a node in the backward graph, and its output.

Equal expressions are emitted once, expressions of constants are evaluated at once, and what nothing reads is left out.
So a
derivative may ask for shapes and masks freely, and static graphs come out without any shape arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import numpy_helper
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from gbp_onnx.graph.folding import Array, evaluate
from gbp_onnx.graph.names import unique_name
from gbp_onnx.graph.reader import Graph, Node, Shape, Tensor, numpy_dtype

__all__ = ["Emitter", "Operand"]

Operand: TypeAlias = Tensor | Array | float | int | bool | Sequence[int] | None
"""An operator input: a tensor, a constant (numbers take the type of the tensors beside them, int lists are int64), or
left out.
"""

_FOLD_LIMIT = 1 << 16
_INT64, _BOOL = onnx.TensorProto.INT64, onnx.TensorProto.BOOL
_FIXED_TYPES = {"Shape": _INT64, "Size": _INT64, "ArgMax": _INT64, "ArgMin": _INT64, "NonZero": _INT64} | dict.fromkeys(
    ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "And", "Or", "IsNaN", "IsInf"), _BOOL
)
_TYPE_FROM_INPUT = {"Where": 1, "OneHot": 2}
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


class Emitter:
    """Appends nodes after a graph's own.

    `prefix` starts every new name; `vjp_of` is the forward node that is being differentiated (written into the new
    nodes'
    metadata as ``gbp.vjp_of``).
    """

    def __init__(self, graph: Graph, prefix: str = "grad") -> None:
        self.graph, self.prefix, self.vjp_of = graph, prefix, ""
        self._taken = set(graph.tensors) | {n.name for n in graph.nodes}
        self._taken |= {t.name for t in graph.model.graph.initializer} | {i.name for i in graph.model.graph.input}
        self.added_outputs: dict[tuple[int, int], Tensor] = {}  # (forward node, output) -> tensor
        self._nodes: list[tuple[gs.Node, str]] = []
        self._seen: dict[Any, tuple[Tensor, ...]] = {}
        self._constants: dict[Any, gs.Constant] = {}
        self._types: dict[int, int] = {}
        self._own: dict[int, Tensor] = {}  # id -> emitted tensor (kept alive, so that ids stay unique)
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
        attrs = {k: v for k, v in attrs.items() if v is not None}
        key = (domain, op_type, tuple(id(t) for t in tensors), repr(sorted(attrs.items())), outputs)
        if key not in self._seen:
            folded = self._fold(op_type, tensors, attrs) if outputs == 1 and not domain else None
            made = (folded,) if folded is not None else self._append(op_type, tensors, attrs, outputs, domain)
            self._seen[key] = made
        return self._seen[key]

    def constant(self, value: Array | np.generic | Sequence[int] | float, elem_type: int = 0) -> Tensor:
        """A constant tensor; equal constants are one initializer."""
        array = np.ascontiguousarray(value, None if elem_type == 0 else numpy_dtype(elem_type)).reshape(np.shape(value))
        key = (array.dtype.str, array.dtype.name, array.shape, array.tobytes())
        if key not in self._constants:
            constant = gs.Constant(self.unique(f"{self.prefix}/const/{len(self._constants)}"), array)
            self._constants[key] = constant
            self._register(constant, elem_type or int(onnx.helper.np_dtype_to_tensor_dtype(array.dtype)))
        return self._constants[key]

    def placeholder(self, name: str, elem_type: int) -> Tensor:
        """A tensor that becomes an input of the graph."""
        tensor = gs.Variable(self.unique(name))
        self._register(tensor, elem_type)
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
            elem_type = self._stored_type(tensor)
            source, tensor = tensor, gs.Variable("")
            self._register(tensor, elem_type)
            node = gs.Node("Identity", outputs=[tensor])
            node.inputs = [source]
            self._nodes.append((node, self.vjp_of))
        tensor.name = self.unique(name)
        self._shared.add(id(tensor))
        self._published.add(id(tensor))
        return tensor

    def reads(self, root: Tensor, stop: Iterable[Tensor] = ()) -> set[str]:
        """Names of the forward tensors whose values (not only shapes) the emitted nodes behind `root` read, up to
        `stop`.
        """
        stopped = {id(t) for t in stop}
        made_by = {id(t): node for node, _ in self._nodes for t in node.outputs}
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
        return names

    def unique(self, name: str) -> str:
        """`name`, or `name_1`, `name_2`... where it is taken."""
        return unique_name(name, self._taken)

    def elem_type(self, tensor: Tensor) -> int:
        """The TensorProto data type of a forward or an emitted tensor, as it is computed with.

        The backward graph computes in float32 where the forward has half precision: cotangents underflow there.
        """
        kind = self._stored_type(tensor)
        return onnx.TensorProto.FLOAT if kind in _HALF and id(tensor) not in self._own else kind

    def _stored_type(self, tensor: Tensor) -> int:
        if id(tensor) in self._types:
            return self._types[id(tensor)]
        return (
            self.graph.elem_type(tensor) or onnx.TensorProto.FLOAT
        )  # unknown: behind an operator that will be refused

    def value(self, tensor: Tensor | None) -> Array | None:
        """The value of a forward or an emitted tensor where it is constant."""
        if tensor is not None and id(tensor) in self._own:
            return np.asarray(tensor.values) if isinstance(tensor, gs.Constant) else None
        return self.graph.constant(tensor)

    def known_shape(self, tensor: Tensor) -> Shape:
        """The shape as far as it is known without running; None for emitted tensors."""
        if id(tensor) in self._own:
            return tuple(tensor.values.shape) if isinstance(tensor, gs.Constant) else None
        return self.graph.shape(tensor)

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
            tensor = gs.Variable(self.unique(f"{self.prefix}/{node.name}/output_{index}"))
            self._register(tensor, elem_type)
            self._published.add(id(tensor))
            self.added_outputs[key] = tensor
        return self.added_outputs[key]

    def export(self, roots: Iterable[Tensor]) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
        """The emitted nodes and initializers that `roots` need, nodes in topological order.

        Drops from `added_outputs` what no kept node reads.
        """
        needed = {id(t) for t in roots}
        kept: list[tuple[gs.Node, str]] = []
        for node, origin in reversed(self._nodes):
            if any(id(t) in needed for t in node.outputs):
                needed.update(id(t) for t in node.inputs)
                kept.append((node, origin))
        protos = []
        for node, origin in reversed(kept):
            proto = OnnxExporter.export_node(node)
            mark = _REMOVABLE_CAST if id(node.outputs[0]) in self._widening else ""
            proto.name = self.unique(mark + node.outputs[0].name)
            if origin:
                proto.metadata_props.add(key="gbp.vjp_of", value=origin)
            protos.append(proto)
        self.added_outputs = {k: t for k, t in self.added_outputs.items() if id(t) in needed}
        constants = [c for c in self._constants.values() if id(c) in needed]
        return protos, [numpy_helper.from_array(np.asarray(c.values), c.name) for c in constants]

    def _register(self, tensor: Tensor, elem_type: int) -> None:
        self._own[id(tensor)] = tensor
        self._types[id(tensor)] = elem_type

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
                operands.append(self.constant(np.asarray(value, numpy_dtype(beside)), beside))
            else:
                operands.append(self.constant(np.asarray(value, np.int64)))
        while operands and operands[-1] is _EMPTY:
            operands.pop()
        return operands

    def _widened(self, op_type: str, inputs: Sequence[Operand]) -> Sequence[Operand]:
        """Half-precision tensors as float32, except where an operator only looks at them (and at nothing wider)."""
        kinds = [self._stored_type(t) if isinstance(t, gs.Tensor) else 0 for t in inputs]
        if not any(k in _HALF for k in kinds) or (op_type in _LOOKS and onnx.TensorProto.FLOAT not in kinds):
            return inputs
        widened = [self.Cast(t, to=1) if k in _HALF else t for t, k in zip(inputs, kinds, strict=True)]
        self._widening.update(id(w) for w, k in zip(widened, kinds, strict=True) if k in _HALF)
        return widened

    def _fold(self, op_type: str, tensors: list[Tensor], attrs: dict[str, Any]) -> Tensor | None:
        if op_type == "Identity" or not tensors:
            return None
        if any(t is not _EMPTY and (s := self.known_shape(t)) is not None and _size(s) > _FOLD_LIMIT for t in tensors):
            return None
        values = [None if t is _EMPTY else self.value(t) for t in tensors]
        if any(v is None and t is not _EMPTY for v, t in zip(values, tensors, strict=True)):
            return None
        result = evaluate(op_type, values, attrs)
        return None if result is None or result.size > _FOLD_LIMIT else self.constant(result)

    def _append(
        self, op_type: str, tensors: list[Tensor], attrs: dict[str, Any], outputs: int, domain: str
    ) -> tuple[Tensor, ...]:
        elem_type = self._result_type(op_type, tensors, attrs)
        base = f"{self.prefix}/{self.vjp_of}/{op_type}" if self.vjp_of else f"{self.prefix}/{op_type}"
        made = tuple(gs.Variable(self.unique(base)) for _ in range(outputs))
        for tensor in made:
            self._register(tensor, elem_type)
        if op_type == "MaxPool" and outputs == 2:
            self._types[id(made[1])] = _INT64
        proto_attrs = {k: _attribute(v) for k, v in attrs.items()}
        node = gs.Node(op_type, attrs=proto_attrs, outputs=list(made), domain=domain or None)
        node.inputs = list(tensors)
        self._nodes.append((node, self.vjp_of))
        return made

    def _result_type(self, op_type: str, tensors: list[Tensor], attrs: dict[str, Any]) -> int:
        if op_type in _FIXED_TYPES:
            return _FIXED_TYPES[op_type]
        if op_type == "Cast":
            return int(attrs["to"])
        if op_type == "ConstantOfShape":
            value = attrs.get("value")
            return onnx.TensorProto.FLOAT if value is None else int(onnx.helper.np_dtype_to_tensor_dtype(value.dtype))
        return self._stored_type(tensors[_TYPE_FROM_INPUT.get(op_type, 0)])


_EMPTY = gs.Variable("")


def _size(shape: Sequence[Any]) -> int:
    return int(np.prod([d for d in shape if isinstance(d, int)], dtype=np.int64))


def _attribute(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return gs.Constant("", value)
    return list(value) if isinstance(value, tuple) else value
