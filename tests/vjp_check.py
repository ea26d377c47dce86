"""One check for every derivative: J^T s of the emitted model against differences of the forward in float64.

The oracle is the forward alone, so that it shares nothing with the derivatives: ONNX Runtime's double kernels, or
onnx.reference in double, or (operators that are linear in each input, with a step of 1) ONNX Runtime in float32.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import gbp_onnx
from gbp_onnx.graph.kinds import innermost
from tests.vjp_oracles import OWN

Feeds = dict[str, np.ndarray]
FLOAT, HALF, DOUBLE = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE


@dataclass(frozen=True)
class In:
    """One input of a case. `wrt`: differentiated; `stored`: an initializer, not an input of the model."""

    shape: tuple[int, ...] = ()
    low: float = -1.0
    high: float = 1.0
    value: np.ndarray | None = None
    dtype: Any = np.float32
    wrt: bool = True
    stored: bool = False
    equal: bool = False  # values from a few levels only, so that there are ties

    def make(self, random: np.random.RandomState) -> np.ndarray:
        """Distinct values, evenly spread over (low, high) and shuffled: no two on a kink of a maximum, none at 0."""
        if self.value is not None:
            return self.value
        count = int(np.prod(self.shape))
        steps = (random.permutation(count) + random.uniform(0.3, 0.7)) / max(count, 1)
        return np.asarray((self.low + (self.high - self.low) * steps).reshape(self.shape), self.dtype)


@dataclass(frozen=True)
class Case:
    """One model: a node (or `nodes`), its inputs and how its derivative is checked."""

    name: str
    op: str
    inputs: tuple[In | None, ...]
    attrs: dict[str, Any] = field(default_factory=dict)
    opset: int = 17
    outputs: int = 1
    nodes: tuple[tuple[str, str, str, dict[str, Any]], ...] = ()  # (op, inputs, outputs, attributes) of a longer graph
    tolerance: float = 1e-6  # of max |gradient|: float32 rounding; wider only with a reason
    linear: bool = False
    dynamic: bool = True  # also with every size of the inputs unknown, for the same numbers
    oracle: str = ""  # "reference" where ONNX Runtime's double kernel does not do
    step: float = 2e-4  # of the difference
    differentiated: tuple[str, ...] = ()  # outputs; default: all float ones
    free: str = "abcdefgh"  # inputs whose sizes become unknown

    @cached_property
    def values(self) -> list[np.ndarray | None]:
        random = np.random.RandomState(zlib.crc32(self.name.encode()))
        return [None if i is None else i.make(random) for i in self.inputs]

    @property
    def feeds(self) -> Feeds:
        pairs = zip("abcdefgh", self.inputs, self.values, strict=False)
        return {n: v for n, i, v in pairs if i is not None and v is not None and not i.stored}

    @property
    def wrt(self) -> list[str]:
        pairs = zip("abcdefgh", self.inputs, strict=False)
        return [n for n, i in pairs if i is not None and i.wrt and not i.stored]

    def model(self, dynamic: bool = False) -> onnx.ModelProto:
        given = list(zip("abcdefgh", self.inputs, self.values, strict=False))
        if self.nodes:
            nodes = [
                helper.make_node(o, [n.strip("-") for n in i.split()], r.split(), **a) for o, i, r, a in self.nodes
            ]
        else:
            names = ["" if i is None else n for n, i, _ in given]
            while names and not names[-1]:
                names.pop()
            results = [f"y{k or ''}" for k in range(self.outputs)]
            nodes = [helper.make_node(self.op, names, results, **self.attrs)]
        produced = {o for n in nodes for o in n.output}
        results = sorted(o for o in produced if o.startswith("y"))
        inputs, stored = [], []
        for name, spec, value in given:
            if spec is None or value is None:
                continue
            if spec.stored:
                stored.append(numpy_helper.from_array(value, name))
            else:
                kind = helper.np_dtype_to_tensor_dtype(value.dtype)
                free = dynamic and spec.wrt and name in self.free
                shape = [f"{name}{k}" if free else d for k, d in enumerate(value.shape)]
                inputs.append(helper.make_tensor_value_info(name, kind, shape))
        graph = helper.make_graph(nodes, "case", inputs, [onnx.ValueInfoProto(name=r) for r in results], stored)
        opsets = [helper.make_opsetid("", self.opset)]
        opsets += [helper.make_opsetid(domain, 1) for domain in sorted({n.domain for n in nodes} - {""})]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        inferred = onnx.shape_inference.infer_shapes(model)
        for output in inferred.graph.output:
            if not output.type.tensor_type.HasField("shape"):
                result = session(model).run([output.name], self.feeds)[0]
                kind = helper.np_dtype_to_tensor_dtype(result.dtype)
                output.CopyFrom(helper.make_tensor_value_info(output.name, kind, [None] * result.ndim))
        return inferred


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    """ONNX Runtime on one thread of the CPU."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def in_double(model: onnx.ModelProto, integers: Sequence[str] = ()) -> onnx.ModelProto:
    """The same model with every float a double, and the inputs named in `integers` too."""
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    floats = (FLOAT, HALF)

    def tensor(t: onnx.TensorProto) -> None:
        if t.data_type in floats or (integers and t.data_type == TensorProto.INT32):
            t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(t).astype(np.float64), t.name))

    def graph(g: onnx.GraphProto) -> None:
        for t in g.initializer:
            tensor(t)
        for info in (*g.input, *g.output, *g.value_info):
            kind = innermost(info.type)
            if kind is not None and (kind.elem_type in floats or info.name in integers):
                kind.elem_type = DOUBLE
        for node in g.node:
            for attribute in node.attribute:
                if attribute.name in ("to", "dtype") and attribute.i in (*floats, DOUBLE):
                    attribute.i = DOUBLE
                if attribute.name == "value":
                    tensor(attribute.t)
                if attribute.HasField("g"):
                    graph(attribute.g)

    graph(wide.graph)
    if integers:  # what shape inference knew of the integer tensors behind them does not hold
        del wide.graph.value_info[:]
        for node in wide.graph.node:
            for attribute in node.attribute:
                if node.op_type == "Cast" and attribute.name == "to" and attribute.i != TensorProto.BOOL:
                    attribute.i = DOUBLE
    return wide


Run = Callable[[Feeds], list[np.ndarray]]


def oracle(model: onnx.ModelProto, kind: str, linear: bool, integers: Sequence[str] = ()) -> tuple[Run, str]:
    """The forward as a function of float64 feeds, and which runtime computes it."""
    if kind != "reference":
        try:
            wide = session(in_double(model, integers))
            return lambda f: wide.run(None, f), "double"
        except Exception as error:
            assert "NOT_IMPLEMENTED" in str(error) or "NotImplemented" in str(error) or "INVALID_GRAPH" in str(error), (
                error
            )
        if linear:
            narrow = session(model)
            types = {
                i.name: np.dtype({"tensor(float)": "f4", "tensor(float16)": "f2"}.get(i.type, "i8"))
                for i in narrow.get_inputs()
            }
            return lambda f: narrow.run(
                None, {k: v.astype(types[k]) if v.dtype.kind == "f" else v for k, v in f.items()}
            ), "float32"
    reference = ReferenceEvaluator(in_double(model, integers), new_ops=OWN)
    return lambda f: [np.asarray(r) for r in reference.run(None, f)], "reference"


def check(case: Case, rule: str = "saliency") -> None:
    """The whole of J^T s for a random s, against differences; and the same from a model whose sizes are not known."""
    model = case.model()
    before = model.SerializeToString()
    wrt, feeds = case.wrt, case.feeds
    built = gbp_onnx.differentiate(model, wrt=wrt, outputs=case.differentiated or None, rule=rule)
    assert model.SerializeToString() == before, "the source model was changed"
    if valid := _valid(model):
        onnx.checker.check_model(built, full_check=True)
    names = [o.name for o in model.graph.output]
    forward = session(model).run(None, feeds)
    random = np.random.RandomState(1)
    seeds = {
        f"{n}_seed": np.asarray(random.uniform(0.5, 1.5, v.shape) * random.choice([-1, 1], v.shape), v.dtype)
        for n, v in zip(names, forward, strict=True)
        if v.dtype.kind == "f" and n in (case.differentiated or names)
    }
    got = _run(built, {**feeds, **seeds})
    for name, value in zip(names, forward, strict=True):
        np.testing.assert_array_equal(got[name], value, err_msg=f"forward {name}")
    assert {i.name for i in built.graph.input} == {*feeds, *seeds}
    want = differences(case, model, feeds, seeds, names, forward)
    for name in wrt:
        gradient = got[f"{name}_grad"]
        kind = feeds[name].dtype
        assert gradient.dtype == (kind if kind.kind == "f" else np.float32)
        assert gradient.shape == feeds[name].shape
        _close(gradient, want[name], case.tolerance, f"{name}_grad")
    if case.dynamic:
        free = case.model(dynamic=True)
        moving = gbp_onnx.differentiate(free, wrt=wrt, outputs=case.differentiated or None, rule=rule)
        if valid:
            onnx.checker.check_model(moving, full_check=True)
        again = _run(moving, {**feeds, **seeds})
        for name in wrt:
            assert again[f"{name}_grad"].shape == feeds[name].shape
            _close(again[f"{name}_grad"], want[name], case.tolerance, f"{name}_grad, sizes unknown")


def _valid(model: onnx.ModelProto) -> bool:
    """onnx's checker refuses a few operators that ONNX Runtime computes (GroupNormalization-18)."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return False
    return True


def _run(model: onnx.ModelProto, feeds: Feeds) -> Feeds:
    made = session(model)
    return dict(zip([o.name for o in made.get_outputs()], made.run(None, feeds), strict=True))


def _close(got: np.ndarray, want: np.ndarray, tolerance: float, what: str) -> None:
    scale = max(float(np.abs(want).max(initial=0)), 1e-3)
    np.testing.assert_allclose(got.astype(np.float64) / scale, want / scale, rtol=0, atol=tolerance, err_msg=what)


def differences(
    case: Case, model: onnx.ModelProto, feeds: Feeds, seeds: Feeds, names: list[str], forward: list[np.ndarray]
) -> Feeds:
    """J^T s by central differences along every element of every differentiated input."""
    integers = [n for n in case.wrt if feeds[n].dtype.kind != "f"]
    run, kind = oracle(model, case.oracle, case.linear, integers)
    wide = {k: v.astype(np.float64) if v.dtype.kind == "f" or k in integers else v for k, v in feeds.items()}
    weights = [seeds[f"{n}_seed"].astype(np.float64) if f"{n}_seed" in seeds else None for n in names]
    for name, value, other in zip(names, forward, run(wide), strict=True):  # the oracle computes the same function
        np.testing.assert_allclose(
            np.asarray(other, np.float64),
            np.asarray(value, np.float64),
            rtol=2e-3 if value.dtype == np.float16 else 3e-5,
            atol=2e-3 if value.dtype == np.float16 else 1e-5,
            err_msg=f"oracle {name}",
        )

    def scalar(point: Feeds) -> float:
        return sum(
            float(np.sum(np.asarray(y, np.float64) * w))
            for y, w in zip(run(point), weights, strict=True)
            if w is not None
        )

    gradients = {}
    for name in case.wrt:
        x = wide[name]
        step = 1.0 if kind == "float32" else case.step
        gradient = np.zeros(x.size)
        for k in range(x.size):
            moved = []
            # Four points: the error is of the order of step^4.
            for offset in (2, 1, -1, -2) if kind != "float32" else (1, -1):
                flat = x.reshape(-1).copy()
                flat[k] += offset * step
                moved.append(scalar({**wide, name: flat.reshape(x.shape)}))
            gradient[k] = (
                (8 * (moved[1] - moved[2]) - (moved[0] - moved[3])) / (12 * step)
                if len(moved) == 4
                else (moved[0] - moved[1]) / 2
            )
        gradients[name] = gradient.reshape(x.shape)
    return gradients
