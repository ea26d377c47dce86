"""The operator tests of the onnx package that have something to differentiate, in a form that ONNX Runtime takes."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16})
NARROW = FLOATS - {TensorProto.DOUBLE}
NEWEST_OPSET = 26
"""The newest opset that current ONNX Runtimes load; newer files are marked with it where that changes nothing."""

Values = dict[str, Any]


@dataclass(frozen=True)
class OperatorTest:
    """One operator test. `op`: the operator that it is about, also where the test is its function body."""

    __test__ = False  # for pytest

    name: str
    op: str
    model: onnx.ModelProto
    feeds: Values
    expected: list[Any]
    rtol: float
    atol: float

    @property
    def wrt(self) -> list[str]:
        """The float inputs."""
        return [i.name for i in self.model.graph.input if kind_of(i) in FLOATS and i.name in self.feeds]

    @property
    def outputs(self) -> list[str]:
        """The float outputs."""
        return [o.name for o in self.model.graph.output if kind_of(o) in FLOATS]


def operator_tests() -> Iterator[OperatorTest]:
    """Every single-operator test and function-body expansion with a float input and a float output."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_model_tests

        found = load_model_tests(kind="node")
    whole = {case.name: case.model.graph.node[0].op_type for case in found if len(case.model.graph.node) == 1}
    for case in found:
        plain = case.name.split("_expanded")[0]
        if case.name not in whole and plain not in whole:
            continue  # a test of several operators
        model = onnx.ModelProto()
        model.CopyFrom(case.model)
        node = model.graph.node[0]
        op = whole.get(plain) or whole[case.name]
        op = f"{node.domain}::{op}" if case.name in whole and node.domain else op
        inputs, expected = case.data_sets[0]
        names = [i.name for i in model.graph.input]
        feeds = {n: np.asarray(v) if isinstance(v, np.generic) else v for n, v in zip(names, inputs, strict=False)}
        test = OperatorTest(case.name, op, settled(model), feeds, list(expected), case.rtol, case.atol)
        if test.wrt and test.outputs:
            yield test


def kind_of(info: onnx.ValueInfoProto) -> int:
    """The element type of a tensor; 0 for sequences and optional values."""
    return int(info.type.tensor_type.elem_type) if info.type.HasField("tensor_type") else 0


def settled(model: onnx.ModelProto) -> onnx.ModelProto:
    """An IR version and an opset that ONNX Runtime loads, where the operators mean the same in it."""
    model.ir_version = min(model.ir_version, 10)
    for opset in model.opset_import:
        if opset.domain in ("", "ai.onnx") and opset.version > NEWEST_OPSET:
            used = {n.op_type for g in graphs_of(model.graph) for n in g.node if n.domain in ("", "ai.onnx")}
            if all(since(op, NEWEST_OPSET) == since(op, opset.version) for op in used):
                opset.version = NEWEST_OPSET
    return model


def since(op: str, opset: int) -> int:
    try:
        return int(onnx.defs.get_schema(op, opset, "").since_version)
    except onnx.defs.SchemaError:
        return 0


def graphs_of(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and every graph inside it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from graphs_of(inner)


def with_constants(test: OperatorTest, kept: str) -> tuple[onnx.ModelProto, Values]:
    """The model with every tensor input but `kept` as an initializer, and the feeds that are left."""
    model = onnx.ModelProto()
    model.CopyFrom(test.model)
    stored = [
        i for i in model.graph.input if i.name != kept and kind_of(i) and isinstance(test.feeds.get(i.name), np.ndarray)
    ]
    gone = {i.name for i in stored}
    inputs = [i for i in model.graph.input if i.name not in gone]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    for info in stored:
        tensor = numpy_helper.from_array(test.feeds[info.name], info.name)
        model.graph.initializer.append(tensor)
    return model, {k: v for k, v in test.feeds.items() if k not in gone}


def in_double(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with every float a double."""
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    del wide.graph.value_info[:]
    for graph in graphs_of(wide.graph):
        for info in (*graph.input, *graph.output):
            _widen_type(info.type)
        for tensor in graph.initializer:
            _widen(tensor)
        for attribute in (a for n in graph.node for a in n.attribute):
            if attribute.name in ("to", "dtype", "stash_type", "softmax_precision") and attribute.i in NARROW:
                attribute.i = TensorProto.DOUBLE
            if attribute.name == "value" and attribute.HasField("t"):
                _widen(attribute.t)
            if attribute.name in ("value_float", "value_floats"):
                values = attribute.f if attribute.name == "value_float" else list(attribute.floats)
                wide_value = numpy_helper.from_array(np.asarray(values, np.float64))
                attribute.CopyFrom(onnx.helper.make_attribute("value", wide_value))
    return wide


def _widen(tensor: TensorProto) -> None:
    if tensor.data_type in NARROW:
        name, doc = tensor.name, tensor.doc_string
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), name))
        tensor.doc_string = doc


def _widen_type(kind: onnx.TypeProto) -> None:
    if kind.HasField("tensor_type") and kind.tensor_type.elem_type in NARROW:
        kind.tensor_type.elem_type = TensorProto.DOUBLE
    elif kind.HasField("sequence_type"):
        _widen_type(kind.sequence_type.elem_type)
    elif kind.HasField("optional_type"):
        _widen_type(kind.optional_type.elem_type)


def doubled(value: Any) -> Any:
    """A fed value with every float a double."""
    if isinstance(value, list | tuple):
        return [doubled(v) for v in value]
    return value.astype(np.float64) if is_float(value) else value


def is_float(value: Any) -> bool:
    """Whether this is an array of floats (bfloat16 included, which NumPy does not call one)."""
    return isinstance(value, np.ndarray) and (value.dtype.kind == "f" or value.dtype.name == "bfloat16")


def same(got: Iterable[Any], expected: Iterable[Any], rtol: float, atol: float) -> bool:
    """Whether two lists of results agree, sequences and missing values included."""
    got, expected = list(got), list(expected)
    return len(got) == len(expected) and all(_same(a, b, rtol, atol) for a, b in zip(got, expected, strict=True))


def _same(a: Any, b: Any, rtol: float, atol: float) -> bool:
    if a is None or b is None:
        return a is b
    if isinstance(a, list | tuple) or isinstance(b, list | tuple):
        return isinstance(a, list | tuple) and isinstance(b, list | tuple) and same(a, b, rtol, atol)
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape:
        return False
    if a.dtype.kind in "OSU" or b.dtype.kind in "OSU":
        return bool(np.array_equal(a.astype(str), b.astype(str)))
    a, b = a.astype(np.float64), b.astype(np.float64)
    largest = np.max(np.abs(b), initial=0.0, where=np.isfinite(b))
    # What cancels to nothing (a Fourier transform of large numbers) is as exact as the numbers that it is made of.
    return bool(np.allclose(a, b, rtol, max(atol, 1e-6 * largest), equal_nan=True))
