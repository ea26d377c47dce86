"""Lift a model below opset 16 to it, exactly or not at all.

onnx's own converter is silently wrong for Upsample, Resize-10 and Hardmax and drops functions and metadata; here every
operator whose definition changed between opsets 7 and 16 has an adapter below, or stands in UNCHANGED because only its
types or defaults grew. Results, tensor names and metadata stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from gbp_onnx.errors import ModelError
from gbp_onnx.graph.external import is_external
from gbp_onnx.graph.names import unique_name
from gbp_onnx.graph.nodes import attribute_of
from gbp_onnx.graph.reader import STANDARD_DOMAINS, opset_of

__all__ = ["OLDEST_EMITTED", "lift_opset"]

OLDEST_EMITTED = 16
"""ScatterElements adds (reduction="add") from here on, which the pools' derivative needs."""


def lift_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """opset 7..15  =>  opset 16, in place; GBP107 names an operator that cannot be carried over exactly."""
    source = opset_of(model)
    if 0 < source < OLDEST_EMITTED:
        _Lift(model, source).run()
        for opset in model.opset_import:
            if opset.domain in STANDARD_DOMAINS:
                opset.version = OLDEST_EMITTED
    return model


_KEEPS_SHAPE = ("Identity", "Cast", "QuantizeLinear", "DequantizeLinear")


@dataclass(slots=True)
class _Scope:
    """A graph under conversion: the nodes that are already written, and the constants that can be seen from it."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)
    shapes: dict[str, list[int | None]] = field(default_factory=dict)


class _Lift:
    def __init__(self, model: onnx.ModelProto, source: int) -> None:
        self.model, self.source = model, source
        self.taken: set[str] = set()
        self.read: set[str] = set()

    def run(self) -> None:
        self._collect_names(self.model.graph)
        self._graph(self.model.graph, _Scope())

    def _collect_names(self, graph: onnx.GraphProto) -> None:
        self.taken |= {t.name for t in graph.initializer} | {i.name for i in graph.input}
        self.read |= {o.name for o in graph.output}
        for node in graph.node:
            self.taken.update(node.output)
            self.read.update(node.input)
            for inner in _subgraphs(node):
                self._collect_names(inner)

    def _graph(self, graph: onnx.GraphProto, outer: _Scope) -> None:
        scope = _Scope(
            constants={**outer.constants, **{t.name: t for t in graph.initializer}}, shapes=dict(outer.shapes)
        )
        scope.shapes.update({t.name: list(t.dims) for t in graph.initializer})
        for value in (*graph.value_info, *graph.output, *graph.input):
            if value.type.tensor_type.HasField("shape"):
                scope.shapes[value.name] = [
                    d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim
                ]
        for node in graph.node:
            for inner in _subgraphs(node):
                self._graph(inner, scope)
            if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
                scope.constants[node.output[0]] = node.attribute[0].t
            if node.op_type == "Identity" and node.input[0] in scope.constants:
                scope.constants[node.output[0]] = scope.constants[node.input[0]]
            if node.op_type in _KEEPS_SHAPE and node.input[0] in scope.shapes:
                scope.shapes.setdefault(node.output[0], scope.shapes[node.input[0]])
            self._node(node, scope)
        del graph.node[:]
        graph.node.extend(scope.nodes)

    def _node(self, source: onnx.NodeProto, scope: _Scope) -> None:
        node = onnx.NodeProto()
        node.CopyFrom(source)
        adapter = _ADAPTERS.get(node.op_type) if node.domain in STANDARD_DOMAINS else None
        if adapter is not None and self.source < adapter.before:
            adapter.run(_Context(self, node, scope))
        elif node.domain in STANDARD_DOMAINS and self._changed(node.op_type):
            raise ModelError(
                "GBP107",
                f"{node.op_type} of opset {self.source} cannot be carried over to opset {OLDEST_EMITTED} exactly",
                f"node {node.name!r}",
                f"export the model with opset {OLDEST_EMITTED} or newer",
            )
        else:
            scope.nodes.append(node)

    def _changed(self, op: str) -> bool:
        """Whether the operator was defined anew on the way, and is not known to mean the same."""
        if op in UNCHANGED or op in _ADAPTERS or not onnx.defs.has(op, "") or not _defined(op, OLDEST_EMITTED):
            return False
        if not _defined(op, self.source):
            return False
        return bool(
            onnx.defs.get_schema(op, self.source, "").since_version
            != onnx.defs.get_schema(op, OLDEST_EMITTED, "").since_version
        )

    def unique(self, name: str) -> str:
        return unique_name(name, self.taken)


@dataclass(slots=True)
class _Context:
    """What an adapter works on: one node (a copy), and helpers to rewrite it."""

    lift: _Lift
    node: onnx.NodeProto
    scope: _Scope

    @property
    def source(self) -> int:
        return self.lift.source

    def pop(self, name: str, default: Any = None) -> Any:
        """Take an attribute off the node."""
        for index, attribute in enumerate(self.node.attribute):
            if attribute.name == name:
                value = helper.get_attribute_value(attribute)
                del self.node.attribute[index]
                return value
        return default

    def set(self, name: str, value: Any) -> None:
        self.pop(name)
        self.node.attribute.append(helper.make_attribute(name, value))

    def constant(self, value: np.ndarray[Any, Any], role: str) -> str:
        """Write a Constant in front of the node and return its tensor's name."""
        name = self.lift.unique(f"{self.node.output[0]}/{role}")
        self.scope.nodes.append(
            helper.make_node("Constant", [], [name], name=name, value=numpy_helper.from_array(value, name))
        )
        return name

    def ints(self, values: Iterable[int], role: str) -> str:
        return self.constant(np.asarray(list(values), np.int64), role)

    def emit(self, op: str, inputs: Sequence[str], role: str, **attrs: Any) -> str:
        """Write a helper node in front of the node and return its output's name."""
        name = self.lift.unique(f"{self.node.output[0]}/{role}")
        self.scope.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attrs))
        return name

    def inputs(self, *names: str) -> None:
        """Replace the node's inputs; trailing empty names are left out."""
        kept = list(names)
        while kept and not kept[-1]:
            kept.pop()
        del self.node.input[:]
        self.node.input.extend(kept)

    def done(self) -> None:
        self.scope.nodes.append(self.node)

    def value(self, index: int) -> np.ndarray[Any, Any] | None:
        """The constant value of an input."""
        tensor = self.scope.constants.get(self.node.input[index]) if index < len(self.node.input) else None
        return None if tensor is None or is_external(tensor) else np.asarray(numpy_helper.to_array(tensor))

    def float_type(self) -> np.dtype[Any]:
        """The node's float type as far as the constants beside it tell; float32 otherwise."""
        kinds = {t.data_type for t in self.lift.model.graph.initializer if t.data_type in (1, 10, 11)}
        inputs = {i.type.tensor_type.elem_type for i in self.lift.model.graph.input}
        kind = next(iter(inputs & {1, 10, 11}), next(iter(kinds), 1))
        return np.dtype(helper.tensor_dtype_to_np_dtype(kind))

    def refuse(self, why: str, fix: str = "export the model with a newer opset") -> ModelError:
        return ModelError(
            "GBP107", f"{self.node.op_type} of opset {self.source}: {why}", f"node {self.node.name!r}", fix
        )


@dataclass(frozen=True, slots=True)
class _Adapter:
    before: int
    run: Callable[[_Context], None]


_ADAPTERS: dict[str, _Adapter] = {}


def _adapt(*ops: str, before: int) -> Callable[[Callable[[_Context], None]], Callable[[_Context], None]]:
    def register(run: Callable[[_Context], None]) -> Callable[[_Context], None]:
        _ADAPTERS.update(dict.fromkeys(ops, _Adapter(before, run)))
        return run

    return register


# --- attributes that became inputs --------------------------------------------------------------------------------


@_adapt("Squeeze", "Unsqueeze", "ReduceSum", before=13)
def _axes(c: _Context) -> None:
    """axes=[...]  =>  a second input"""
    axes = c.pop("axes")
    if axes is not None:
        c.inputs(c.node.input[0], c.ints(axes, "axes"))
    c.done()


@_adapt("Clip", before=11)
def _clip(c: _Context) -> None:
    """min=, max=  =>  inputs"""
    bounds = [c.pop("min"), c.pop("max")]
    names = [
        "" if b is None else c.constant(np.asarray(b, c.float_type()), role)
        for b, role in zip(bounds, ("min", "max"), strict=True)
    ]
    c.inputs(c.node.input[0], *names)
    c.done()


@_adapt("Pad", before=11)
def _pad(c: _Context) -> None:
    """pads=, value=  =>  inputs"""
    pads, value = c.pop("pads"), c.pop("value", 0.0)
    fill = c.constant(np.asarray(value, c.float_type()), "value") if value else ""
    c.inputs(c.node.input[0], c.ints(pads, "pads"), fill)
    c.done()


@_adapt("Slice", before=10)
def _slice(c: _Context) -> None:
    """starts=, ends=, axes=  =>  inputs"""
    starts, ends, axes = c.pop("starts"), c.pop("ends"), c.pop("axes")
    c.inputs(c.node.input[0], c.ints(starts, "starts"), c.ints(ends, "ends"), c.ints(axes, "axes") if axes else "")
    c.done()


@_adapt("Split", before=13)
def _split(c: _Context) -> None:
    """split=[...]  =>  a second input"""
    sizes = c.pop("split")
    if sizes is not None:
        c.inputs(c.node.input[0], c.ints(sizes, "split"))
    c.done()


@_adapt("TopK", before=10)
def _top_k(c: _Context) -> None:
    """k=  =>  a second input"""
    c.inputs(c.node.input[0], c.ints([c.pop("k")], "k"))
    c.done()


# --- meanings that changed ----------------------------------------------------------------------------------------


@_adapt("Softmax", "LogSoftmax", "Hardmax", before=13)
def _softmax(c: _Context) -> None:
    """Over all axes from `axis` on (default 1)  =>  Flatten, the last axis, Reshape; one node where that is the same"""
    axis = c.pop("axis", 1)
    shape = c.scope.shapes.get(c.node.input[0]) or c.scope.shapes.get(c.node.output[0])
    if shape is not None:
        axis %= len(shape)
        if axis == len(shape) - 1 or all(d == 1 for d in shape[axis + 1 :]):
            c.set("axis", axis)
            c.done()
            return
    elif axis == -1:
        c.set("axis", -1)
        c.done()
        return
    x, y = c.node.input[0], c.node.output[0]
    size = c.emit("Shape", [x], "shape")
    c.inputs(c.emit("Flatten", [x], "flat", axis=axis))
    c.set("axis", -1)
    c.node.output[0] = c.lift.unique(f"{y}/{c.node.op_type.lower()}")
    c.done()
    c.scope.nodes.append(helper.make_node("Reshape", [c.node.output[0], size], [y], name=c.lift.unique(f"{y}/reshape")))


@_adapt("BatchNormalization", before=14)
def _batch_normalization(c: _Context) -> None:
    """spatial=1 dropped; five outputs (training mode)  =>  training_mode=1"""
    if c.pop("spatial", 1) != 1:
        raise c.refuse("spatial=0 (statistics per position)")
    if any(c.node.output[1:]):
        c.set("training_mode", 1)
    del c.node.output[3 if any(c.node.output[1:]) else 1 :]
    c.done()


@_adapt("Dropout", before=12)
def _dropout(c: _Context) -> None:
    """ratio= dropped: without training_mode the operator passes its input on"""
    c.pop("ratio")
    c.pop("is_test")
    if len(c.node.output) > 1 and c.node.output[1] in c.lift.read:
        raise c.refuse("its mask is read")
    del c.node.output[1:]
    c.done()


@_adapt("Upsample", before=10)
def _upsample(c: _Context) -> None:
    """Upsample  =>  Resize, asymmetric, as ONNX Runtime computes it"""
    scales = c.pop("scales")
    name = c.constant(np.asarray(scales, np.float32), "scales") if scales is not None else c.node.input[1]
    _as_resize(c, name, "floor")


@_adapt("Resize", before=13)
def _resize(c: _Context) -> None:
    """Resize-10  =>  Resize-13, asymmetric; nearest rounds down where it enlarges and up where it shrinks (two nodes).

    Resize-11  =>  Resize-13: inputs that are there and empty, as 11 had to write them, are left out.
    """
    if c.source >= 11:
        empty = [index > 0 and (v := c.value(index)) is not None and v.size == 0 for index in range(len(c.node.input))]
        c.inputs(*("" if e else name for e, name in zip(empty, c.node.input, strict=True)))
        c.done()
        return
    if _text(attribute_of(c.node, "mode", "nearest")) != "nearest":
        _as_resize(c, c.node.input[1], "floor")
        return
    scales = c.value(1)
    if scales is not None and ((scales >= 1).all() or (scales <= 1).all()):
        _as_resize(c, c.node.input[1], "floor" if (scales >= 1).all() else "ceil")
        return
    # Some axes grow and some shrink, or nobody knows: first those that grow, then the others.
    one = c.constant(np.ones(1, np.float32), "one")
    growing, shrinking = (c.emit(name, [c.node.input[1], one], name.lower()) for name in ("Max", "Min"))
    last = onnx.NodeProto()
    last.CopyFrom(c.node)
    c.node.output[0] = c.lift.unique(f"{c.node.output[0]}/grown")
    last.input[0] = c.node.output[0]
    last.name = c.lift.unique(f"{last.name}/shrink")
    _as_resize(c, growing, "floor")
    c.node = last
    _as_resize(c, shrinking, "ceil")


def _as_resize(c: _Context, scales: str, rounding: str) -> None:
    mode = _text(c.pop("mode", "nearest"))
    c.node.op_type = "Resize"
    c.inputs(c.node.input[0], "", scales)
    c.set("mode", "linear" if mode == "bilinear" else mode)
    c.set("coordinate_transformation_mode", "asymmetric")
    c.set("nearest_mode", rounding)
    c.done()


@_adapt("RoiAlign", before=16)
def _roi_align(c: _Context) -> None:
    """Its only coordinate mode then  =>  named"""
    c.set("coordinate_transformation_mode", "output_half_pixel")
    c.done()


@_adapt("Scatter", before=11)
def _scatter(c: _Context) -> None:
    """Scatter  =>  ScatterElements, its new name"""
    c.node.op_type = "ScatterElements"
    c.done()


@_adapt("Scan", before=9)
def _scan(c: _Context) -> None:
    """Scan-8 has a batch axis of its own"""
    raise c.refuse("its batch axis has no counterpart")


@_adapt("ImageScaler", before=17)
def _image_scaler(c: _Context) -> None:
    """ImageScaler (experimental, Core ML conversions)  =>  Mul, Add of a bias per channel"""
    kind = c.float_type()
    scale, bias = c.pop("scale", 1.0), c.pop("bias", [])
    x = c.node.input[0]
    if scale != 1 or not bias:
        x = c.emit("Mul", [x, c.constant(np.asarray(scale, kind), "scale")], "scaled")
    node = helper.make_node("Add", [x], [c.node.output[0]], name=c.node.name)
    node.input.append(c.constant(np.asarray(bias or [0.0], kind).reshape(-1, 1, 1), "bias"))
    c.scope.nodes.append(node)


UNCHANGED = frozenset(
    """
    Abs Add ArgMax ArgMin AveragePool Cast Ceil Compress Concat Constant Conv ConvTranspose CumSum DepthToSpace
    DequantizeLinear Div Equal Erf Exp Expand Flatten Floor GRU Gather GatherElements GatherND Gemm Greater
    GreaterOrEqual Identity If IsNaN LRN LSTM LeakyRelu Less LessOrEqual Log Loop LpPool MatMul Max MaxPool
    MaxUnpool Mean MeanVarianceNormalization Min Mod Mul Neg NegativeLogLikelihoodLoss NonMaxSuppression NonZero
    OneHot PRelu Pow QuantizeLinear RNN Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax
    ReduceMean ReduceMin ReduceProd ReduceSumSquare Relu Reshape Scan ScatterElements ScatterND Shape Sigmoid
    Sign Size SoftmaxCrossEntropyLoss SpaceToDepth Sqrt Sub Sum Tanh Tile Transpose Where
    """.split()  # noqa: SIM905
)
"""Operators that were defined anew between opsets 7 and 16 only to admit more types, negative axes, or attributes whose
default is the old meaning.
"""


def _defined(op: str, opset: int) -> bool:
    try:
        return not onnx.defs.get_schema(op, opset, "").deprecated
    except onnx.defs.SchemaError:
        return False


def _subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [g for a in node.attribute for g in (a.g, *a.graphs) if g.node or g.output]


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
