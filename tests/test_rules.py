"""The three rules against slow re-statements of the papers, and every form in which graphs write a rectifier."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from make_tiny import make
from onnx import TensorProto, helper, numpy_helper

import gbp_onnx
import gbp_onnx.canonical.view
from gbp_onnx.canonical.passes import canonical_model
from gbp_onnx.canonical.view import View
from gbp_onnx.errors import GbpWarning
from gbp_onnx.graph.reader import Graph
from tests.vjp_check import session

RULES = ("saliency", "deconvnet", "guided")
Array = np.ndarray
Gate = Callable[[Array, Array], Array]

# --- the papers, slowly -------------------------------------------------------------------------------------------


def gate(rule: str, cap: float = np.inf) -> Gate:
    """What a rectifier sends on, given the cotangent that arrives and its input."""
    return {
        "saliency": lambda g, x: g * ((x > 0) & (x < cap)),
        "deconvnet": lambda g, x: np.maximum(g, 0),
        "guided": lambda g, x: np.maximum(g, 0) * ((x > 0) & (x < cap)),
    }[rule]


class Tape:
    """A network run forward in float64, remembering how to go back; every step by loops over positions."""

    def __init__(self, rule: str) -> None:
        self.rule = rule
        self.steps: list[Callable[[], None]] = []
        self.cotangents: dict[int, Array] = {}
        self.alive: list[Array] = []

    def put(self, y: Array, back: Callable[[Array], list[tuple[Array, Array]]]) -> Array:
        self.alive.append(y)

        def step() -> None:
            for x, ct in back(self.cotangents.get(id(y), np.zeros_like(y))):
                self.cotangents[id(x)] = self.cotangents.get(id(x), np.zeros_like(x)) + ct

        self.steps.append(step)
        return y

    def back(self, y: Array, seed: Array, x: Array) -> Array:
        self.cotangents[id(y)] = seed
        for step in reversed(self.steps):
            step()
        return self.cotangents[id(x)]

    def conv(self, x: Array, w: Array, b: Array, stride: int, pad: int) -> Array:
        wide = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        k = w.shape[2]
        rows, cols = ((wide.shape[a] - k) // stride + 1 for a in (2, 3))
        y = np.zeros((x.shape[0], w.shape[0], rows, cols))
        for i in range(rows):
            for j in range(cols):
                window = wide[:, :, i * stride : i * stride + k, j * stride : j * stride + k]
                y[:, :, i, j] = np.einsum("ncij,ocij->no", window, w) + b

        def back(g: Array) -> list[tuple[Array, Array]]:
            out = np.zeros_like(wide)
            for i in range(rows):
                for j in range(cols):
                    out[:, :, i * stride : i * stride + k, j * stride : j * stride + k] += np.einsum(
                        "no,ocij->ncij", g[:, :, i, j], w
                    )
            return [(x, out[:, :, pad : pad + x.shape[2], pad : pad + x.shape[3]])]

        return self.put(y, back)

    def rectify(self, x: Array, cap: float = np.inf) -> Array:
        return self.put(np.clip(x, 0, cap), lambda g: [(x, gate(self.rule, cap)(g, x))])

    def pool(self, x: Array, k: int, stride: int, pad: int) -> Array:
        wide = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)), constant_values=-np.inf)
        rows, cols = ((wide.shape[a] - k) // stride + 1 for a in (2, 3))
        y = np.zeros((*x.shape[:2], rows, cols))
        best = {}
        for n, c, i, j in np.ndindex(*y.shape):
            window = wide[n, c, i * stride : i * stride + k, j * stride : j * stride + k]
            at = np.unravel_index(int(np.argmax(window)), window.shape)
            y[n, c, i, j], best[n, c, i, j] = window[at], (n, c, i * stride + at[0] - pad, j * stride + at[1] - pad)

        def back(g: Array) -> list[tuple[Array, Array]]:
            out = np.zeros_like(x)
            for place, source in best.items():
                out[source] += g[place]
            return [(x, out)]

        return self.put(y, back)

    def add(self, a: Array, b: Array) -> Array:
        return self.put(a + b, lambda g: [(a, g), (b, g)])

    def mean(self, x: Array) -> Array:
        count = x.shape[2] * x.shape[3]
        return self.put(x.mean((2, 3)), lambda g: [(x, np.broadcast_to(g[:, :, None, None] / count, x.shape))])

    def dense(self, x: Array, w: Array, b: Array) -> Array:
        return self.put(x @ w.T + b, lambda g: [(x, g @ w)])


CLASSES, CAP = 5, 0.9
_random = np.random.RandomState(5)
WEIGHTS = {
    name: _random.normal(0, scale, shape).astype(np.float32)
    for name, shape, scale in (
        ("w1", (4, 3, 3, 3), 0.4),
        ("b1", (4,), 0.1),
        ("w2", (4, 4, 3, 3), 0.4),
        ("b2", (4,), 0.2),
        ("w3", (6, 4, 3, 3), 0.4),
        ("b3", (6,), 0.1),
        ("w4", (CLASSES, 6), 0.7),
        ("b4", (CLASSES,), 0.1),
    )
}
IMAGES = _random.uniform(-1, 1, (2, 3, 9, 8)).astype(np.float32)
TARGETS = np.asarray([3, 1], np.int64)


def network() -> onnx.ModelProto:
    """conv, relu, overlapping pool, conv, relu6, a skip, relu, strided conv, relu, mean, dense, softmax."""
    make = helper.make_node
    nodes = [
        make("Conv", ["image", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1]),
        make("Relu", ["c1"], ["r1"]),
        make("MaxPool", ["r1"], ["p1"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        make("Conv", ["p1", "w2", "b2"], ["c2"], pads=[1, 1, 1, 1]),
        make("Clip", ["c2", "zero", "cap"], ["r2"]),
        make("Add", ["r2", "p1"], ["s2"]),
        make("Relu", ["s2"], ["r3"]),
        make("Conv", ["r3", "w3", "b3"], ["c3"], strides=[2, 2]),
        make("Relu", ["c3"], ["r4"]),
        make("GlobalAveragePool", ["r4"], ["g"]),
        make("Flatten", ["g"], ["f"]),
        make("Gemm", ["f", "w4", "b4"], ["logits"], transB=1),
        make("Softmax", ["logits"], ["scores"]),
    ]
    stored = [numpy_helper.from_array(v, k) for k, v in WEIGHTS.items()]
    stored += [numpy_helper.from_array(np.asarray(v, np.float32), k) for k, v in (("zero", 0), ("cap", CAP))]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 9, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", CLASSES])],
        stored,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def by_hand(rule: str) -> Array:
    tape, w = Tape(rule), {k: v.astype(np.float64) for k, v in WEIGHTS.items()}
    image = IMAGES.astype(np.float64)
    pooled = tape.pool(tape.rectify(tape.conv(image, w["w1"], w["b1"], 1, 1)), 3, 2, 1)
    joined = tape.add(tape.rectify(tape.conv(pooled, w["w2"], w["b2"], 1, 1), float(np.float32(CAP))), pooled)
    last = tape.rectify(tape.conv(tape.rectify(joined), w["w3"], w["b3"], 2, 0))
    logits = tape.dense(tape.mean(last), w["w4"], w["b4"])
    return tape.back(logits, np.eye(CLASSES)[TARGETS], image)


def maps(rules: tuple[str, ...] = RULES, model: onnx.ModelProto | None = None, **options: Any) -> dict[str, Array]:
    built = gbp_onnx.build(model or network(), rules, **options)
    names = [f"attribution_{r}" for r in rules]
    return dict(zip(rules, session(built).run(names, {"image": IMAGES, "target": TARGETS}), strict=True))


def test_the_three_rules_equal_the_papers() -> None:
    made = maps()
    for rule in RULES:
        want = by_hand(rule)
        scale = np.abs(want).max()
        np.testing.assert_allclose(made[rule] / scale, want / scale, rtol=0, atol=1e-6, err_msg=rule)
    assert len({made[r].tobytes() for r in RULES}) == 3


def test_the_hand_written_oracle_is_a_gradient() -> None:
    """The tape's saliency, along a direction, is the difference quotient of its own logit."""
    direction = np.random.RandomState(1).normal(size=IMAGES.shape)

    def scalar(step: float) -> float:
        tape, w = Tape("saliency"), {k: v.astype(np.float64) for k, v in WEIGHTS.items()}
        x = IMAGES.astype(np.float64) + step * direction
        pooled = tape.pool(tape.rectify(tape.conv(x, w["w1"], w["b1"], 1, 1)), 3, 2, 1)
        joined = tape.add(tape.rectify(tape.conv(pooled, w["w2"], w["b2"], 1, 1), float(np.float32(CAP))), pooled)
        last = tape.rectify(tape.conv(tape.rectify(joined), w["w3"], w["b3"], 2, 0))
        return float(tape.dense(tape.mean(last), w["w4"], w["b4"])[[0, 1], TARGETS].sum())

    assert (scalar(1e-7) - scalar(-1e-7)) / 2e-7 == pytest.approx(
        float((by_hand("saliency") * direction).sum()), rel=1e-6
    )


def test_masks_at_every_rectifier_are_not_one_mask_at_the_end() -> None:
    made = maps()
    scale = np.abs(made["guided"]).max()
    for mask in (made["saliency"] != 0, made["saliency"] > 0):
        at_the_end = np.where(mask, made["deconvnet"], 0)
        assert np.abs(at_the_end - made["guided"]).max() > 0.05 * scale
    assert np.abs(np.maximum(made["saliency"], 0) - made["guided"]).max() > 0.05 * scale


@pytest.mark.parametrize("rules", [("saliency",), ("deconvnet",), ("guided",), ("guided", "saliency")], ids="+".join)
def test_one_explainer_with_several_rules_equals_several_explainers(rules: tuple[str, ...]) -> None:
    together = maps()
    for rule, alone in maps(rules).items():
        np.testing.assert_array_equal(alone, together[rule])


@pytest.mark.parametrize("rule", RULES)
def test_build_and_differentiate_agree(rule: str) -> None:
    model = network()
    model.graph.output[0].name = "logits"
    del model.graph.node[-1]
    seed = np.eye(CLASSES, dtype=np.float32)[TARGETS]
    got = session(gbp_onnx.differentiate(model, rule=rule)).run(["image_grad"], {"image": IMAGES, "logits_seed": seed})[
        0
    ]
    np.testing.assert_array_equal(got, maps()[rule])


def test_the_rules_on_a_toy_that_can_be_checked_in_the_head() -> None:
    """y = 3 * relu(h) - 2 * h at h = (-1, 2, -3, 4): the gradient around the rectifier is not clamped."""
    model = graph("Relu(x) -> r\nMul(r, three) -> t\nMul(x, two) -> d\nSub(t, d) -> y", three=3, two=2)
    want = {"saliency": [-2, 1, -2, 1], "guided": [-2, 1, -2, 1], "deconvnet": [1, 1, 1, 1]}
    for rule in RULES:
        np.testing.assert_array_equal(run(model, rule, [-1, 2, -3, 4], np.ones(4)), want[rule], err_msg=rule)


# --- forms of rectifiers ------------------------------------------------------------------------------------------


def graph(
    text: str,
    /,
    opset: int = 17,
    outputs: tuple[str, ...] = ("y",),
    shape: tuple[int, ...] | None = None,
    **values: Any,
) -> onnx.ModelProto:
    """ "Op(a, b, attribute=1) -> y" on lines; x (and z) are inputs, other names constants of `values`."""
    nodes = []
    for line in filter(None, (part.strip() for part in text.splitlines())):
        call, made = (part.strip() for part in line.split("->"))
        op, inside = call.rstrip(")").split("(")
        words = [w.strip() for w in inside.split(",")]
        attrs = {k: float(v) if "." in v else int(v) for k, v in (w.split("=") for w in words if "=" in w)}
        nodes.append(
            helper.make_node(op, [w.strip("-") for w in words if "=" not in w], made.split(), name=made, **attrs)
        )
    stored = [
        numpy_helper.from_array(v if isinstance(v, np.ndarray) else np.asarray(v, np.float32), k)
        for k, v in values.items()
    ]
    read = {i for n in nodes for i in n.input}
    free = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape or ["N"]) for n in ("x", "z") if n in read]
    made_graph = helper.make_graph(nodes, "g", free, [onnx.ValueInfoProto(name=o) for o in outputs], stored)
    model = helper.make_model(made_graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model)


def run(model: onnx.ModelProto, rule: str, x: Any, seed: Any, z: Any = None, **options: Any) -> Array:
    built = gbp_onnx.differentiate(model, wrt=["x"], outputs=["y"], rule=rule, **options)
    feeds = {"x": np.asarray(x, np.float32), "y_seed": np.asarray(seed, np.float32)}
    if any(i.name == "z" for i in model.graph.input):
        feeds["z"] = np.asarray(z, np.float32)
    return np.asarray(session(built).run(["x_grad"], feeds)[0])


def rectifiers(model: onnx.ModelProto) -> list[str]:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return [r.node.name for r in View(Graph(canonical_model(copy))).rectifiers.values()]


FORMS = {
    "Relu": "Relu(x) -> y",
    "Clip": "Clip(x, zero) -> y",
    "Clip, huge cap": "Clip(x, zero, huge) -> y",
    "Clip, infinite cap": "Clip(x, zero, infinite) -> y",
    "ThresholdedRelu": "ThresholdedRelu(x, alpha=0.0) -> y",
    "LeakyRelu of slope 0": "LeakyRelu(x, alpha=0.0) -> y",
    "Elu of alpha 0": "Elu(x, alpha=0.0) -> y",
    "PRelu of slope 0": "PRelu(x, zero) -> y",
    "Max": "Max(x, zero) -> y",
    "Max, turned": "Max(zero, x) -> y",
    "Max, vector of zeros": "Max(x, zeros) -> y",
    "Where >": "Greater(x, zero) -> c\nWhere(c, x, zero) -> y",
    "Where >=": "GreaterOrEqual(x, zero) -> c\nWhere(c, x, zero) -> y",
    "Where 0 <": "Less(zero, x) -> c\nWhere(c, x, zero) -> y",
    "Where 0 <=": "LessOrEqual(zero, x) -> c\nWhere(c, x, zero) -> y",
    "Where <": "Less(x, zero) -> c\nWhere(c, zero, x) -> y",
    "Where <=": "LessOrEqual(x, zero) -> c\nWhere(c, zero, x) -> y",
    "Where 0 >": "Greater(zero, x) -> c\nWhere(c, zero, x) -> y",
    "Where not <=": "LessOrEqual(x, zero) -> n\nNot(n) -> c\nWhere(c, x, zero) -> y",
    "Where not >": "Greater(x, zero) -> n\nNot(n) -> c\nWhere(c, zero, x) -> y",
    "Mul by the sign test": "Greater(x, zero) -> c\nCast(c, to=1) -> m\nMul(x, m) -> y",
    "Mul by the sign test, turned": "Less(zero, x) -> c\nCast(c, to=1) -> m\nMul(m, x) -> y",
    "half of x + |x|": "Abs(x) -> a\nAdd(x, a) -> s\nMul(s, half) -> y",
    "half of |x| + x, turned": "Abs(x) -> a\nAdd(a, x) -> s\nMul(half, s) -> y",
    "x + |x| over 2": "Abs(x) -> a\nAdd(x, a) -> s\nDiv(s, two) -> y",
}
CAPPED = {
    "Clip": "Clip(x, zero, six) -> y",
    "Min of Relu": "Relu(x) -> r\nMin(r, six) -> y",
    "Min of Relu, turned": "Relu(x) -> r\nMin(six, r) -> y",
    "Clip of Relu": "Relu(x) -> r\nClip(r, -, six) -> y",
    "Clip from the lowest number of Relu": "Relu(x) -> r\nClip(r, lowest, six) -> y",
    "Min of Max": "Max(x, zero) -> r\nMin(r, six) -> y",
    "Clip of Max": "Max(zero, x) -> r\nClip(r, -, six) -> y",
    "Max of Min": "Min(x, six) -> m\nMax(m, zero) -> y",
    "Max of Clip": "Clip(x, -, six) -> m\nMax(m, zero) -> y",
    "Relu of Min": "Min(x, six) -> m\nRelu(m) -> y",
    "Clip of Clip": "Clip(x, zero) -> m\nClip(m, -, six) -> y",
    "Min of Where": "Greater(x, zero) -> c\nWhere(c, x, zero) -> r\nMin(r, six) -> y",
}
VALUES = {
    "zero": 0.0,
    "huge": np.finfo(np.float32).max,
    "infinite": np.inf,
    "zeros": np.zeros(8, np.float32),
    "half": 0.5,
    "two": 2.0,
    "six": 6.0,
    "lowest": np.finfo(np.float32).min,
}
X = np.asarray([-7, -0.5, 0, 0.5, 5.9, 6, 6.1, 3], np.float32)
SEED = np.asarray([1, -1, 2, -2, 3, 4, 5, -0.5], np.float32)


def named(text: str, **more: Any) -> onnx.ModelProto:
    used = {
        k: v for k, v in VALUES.items() if k in text.replace("(", ",").replace(")", ",").replace(" ", "").split(",")
    }
    return graph(text, shape=(8,), **used, **more)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_rectifier_is_gated_alike(form: str, rule: str) -> None:
    model = named(FORMS[form])
    assert rectifiers(model) == ["y"]
    built = session(model).run(None, {"x": X})[0]
    np.testing.assert_array_equal(built, np.maximum(X, 0))
    np.testing.assert_array_equal(run(model, rule, X, SEED), gate(rule)(SEED, X))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("form", CAPPED)
def test_every_form_of_a_capped_rectifier_is_gated_alike(form: str, rule: str) -> None:
    model = named(CAPPED[form])
    assert rectifiers(model) == ["y"]
    np.testing.assert_array_equal(session(model).run(None, {"x": X})[0], np.clip(X, 0, 6))
    np.testing.assert_array_equal(run(model, rule, X, SEED), gate(rule, 6)(SEED, X))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("alpha", [1.0, -0.7])
def test_thresholded(rule: str, alpha: float) -> None:
    model = named(f"ThresholdedRelu(x, alpha={alpha}) -> y")
    open_ = (alpha < X).astype(np.float32)
    want = {"saliency": SEED * open_, "deconvnet": np.maximum(SEED, 0), "guided": np.maximum(SEED, 0) * open_}
    np.testing.assert_array_equal(run(model, rule, X, SEED), want[rule])


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 21])
def test_old_opsets(opset: int) -> None:
    model = named(
        "Relu(x) -> r\nClip(r, min=0.0, max=6.0) -> y" if opset < 11 else "Relu(x) -> r\nClip(r, -, six) -> y",
        opset=opset,
    )
    np.testing.assert_array_equal(run(model, "guided", X, SEED), gate("guided", 6)(SEED, X))


NEAR_MISSES = {
    "Max above 0": ("Max(x, b) -> y", {"b": 0.1}),
    "Max with a vector that is not all 0": ("Max(x, b) -> y", {"b": np.asarray([0, 0, 0, 0, 0, 0, 0, 1], np.float32)}),
    "Max of two tensors": ("Max(x, z) -> y", {}),
    "Max of three": ("Max(x, zero, b) -> y", {"zero": 0.0, "b": 0.5}),
    "Min": ("Min(x, b) -> y", {"b": 0.0}),
    "Clip to -1..1": ("Clip(x, low, high) -> y", {"low": -1.0, "high": 1.0}),
    "Clip from 0.5": ("Clip(x, low) -> y", {"low": 0.5}),
    "Clip from -0.1": ("Clip(x, low, high) -> y", {"low": -0.1, "high": 6.0}),
    "Clip from above only": ("Clip(x, -, high) -> y", {"high": 6.0}),
    "Where above 1": ("Greater(x, one) -> c\nWhere(c, x, zero) -> y", {"one": 1.0, "zero": 0.0}),
    "Where, else 0.5": ("Greater(x, zero) -> c\nWhere(c, x, b) -> y", {"zero": 0.0, "b": 0.5}),
    "Where, the wrong way round": ("Less(x, zero) -> c\nWhere(c, x, zero) -> y", {"zero": 0.0}),
    "Where, by another tensor's sign": ("Greater(z, zero) -> c\nWhere(c, x, zero) -> y", {"zero": 0.0}),
    "Mul by another tensor's sign": ("Greater(z, zero) -> c\nCast(c, to=1) -> m\nMul(x, m) -> y", {"zero": 0.0}),
    "Mul by the wrong sign": ("Less(x, zero) -> c\nCast(c, to=1) -> m\nMul(x, m) -> y", {"zero": 0.0}),
    "x + |z|": ("Abs(z) -> a\nAdd(x, a) -> s\nMul(s, half) -> y", {"half": 0.5}),
    "0.4 * (x + |x|)": ("Abs(x) -> a\nAdd(x, a) -> s\nMul(s, b) -> y", {"b": 0.4}),
    "x - |x|": ("Abs(x) -> a\nSub(x, a) -> s\nMul(s, half) -> y", {"half": 0.5}),
    "LeakyRelu": ("LeakyRelu(x, alpha=0.1) -> y", {}),
    "PRelu": ("PRelu(x, b) -> y", {"b": np.asarray([0, 0, 0, 0, 0, 0, 0, 0.5], np.float32)}),
    "Elu": ("Elu(x) -> y", {}),
}


@pytest.mark.parametrize("name", NEAR_MISSES)
def test_near_misses_are_no_rectifiers(name: str) -> None:
    text, values = NEAR_MISSES[name]
    model = graph(text, shape=(8,), **values)
    assert rectifiers(model) == []
    x, z = X + np.float32(0.013), -X[::-1] + np.float32(0.021)
    plain = run(model, "saliency", x, SEED, z)
    for rule in ("deconvnet", "guided"):
        np.testing.assert_array_equal(run(model, rule, x, SEED, z), plain)


def test_a_bound_that_widens_the_result_is_no_rectifier() -> None:
    wide = np.zeros((2, 4), np.float32)
    for text in WIDENING:
        model = graph(text, shape=(4,), b=wide, zero=0.0)
        assert rectifiers(model) == [], text
        np.testing.assert_array_equal(
            run(model, "saliency", [-1, 1, 2, -2], np.ones((2, 4))), [0, 2, 2, 0], err_msg=text
        )
    model = graph("Max(x, b) -> y", shape=(4,), b=np.zeros((1, 1), np.float32))  # one number, but one axis more
    assert rectifiers(model) == []
    np.testing.assert_array_equal(run(model, "guided", [-1, 1, 2, -2], np.ones((1, 4))), [0, 1, 1, 0])


WIDENING = (
    "Max(x, b) -> y",
    "Greater(x, b) -> c\nWhere(c, x, b) -> y",
    "Greater(x, b) -> c\nWhere(c, x, zero) -> y",
    "Greater(x, zero) -> c\nWhere(c, x, b) -> y",
    "Greater(x, b) -> c\nCast(c, to=1) -> m\nMul(x, m) -> y",
)


def test_zeros_per_channel_of_a_tensor_whose_sizes_are_unknown() -> None:
    model = graph("Max(x, b) -> y", shape=("N", 3, "H", "W"), b=np.zeros((3, 1, 1), np.float32))  # type: ignore[arg-type]
    assert rectifiers(model) == ["y"]
    assert rectifiers(graph("Max(x, b) -> y", shape=("N", "C"), b=np.zeros(3, np.float32))) == []  # type: ignore[arg-type]


@pytest.mark.parametrize("other", ["Add(c, r) -> y", "Mul(c, r) -> y"])
def test_a_cap_does_not_swallow_a_rectifier_that_others_read(other: str) -> None:
    model = graph(f"Relu(x) -> r\nMin(r, six) -> c\n{other}", shape=(8,), six=6.0)
    assert rectifiers(model) == ["r"]
    relu, cap = np.maximum(X, 0), np.asarray([1, 1, 1, 1, 1, 0.5, 0, 1])  # Min splits a tie
    y = {"Add": cap + 1, "Mul": cap * relu + np.minimum(relu, 6)}[other[:3]] * SEED
    np.testing.assert_allclose(run(model, "guided", X, SEED), gate("guided")(y, X), rtol=1e-6)


def test_a_cap_does_not_swallow_a_rectifier_that_is_an_output() -> None:
    model = graph("Relu(x) -> r\nMin(r, six) -> y", shape=(8,), outputs=("y", "r"), six=6.0)
    assert rectifiers(model) == ["r"]


def test_bounds_fed_at_run_time_are_no_rectifier() -> None:
    assert rectifiers(graph("ReduceMin(z, keepdims=0) -> low\nClip(x, low) -> y", shape=(8,))) == []


def test_constants_may_be_computed() -> None:
    """Bounds written as Constant nodes, Identity, Cast or arithmetic on constants."""
    model = graph(
        "Identity(zero) -> i\nSub(six, six) -> o\nAdd(i, o) -> b\nMax(x, b) -> y", shape=(8,), zero=0.0, six=6.0
    )
    assert rectifiers(model) == ["y"]


def test_tables_own_derivatives_agree_with_the_stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without stand-ins, each form is differentiated as written: the same saliency away from the kinks."""
    x = X + np.float32(0.013)
    gated = {name: run(named(text), "saliency", x, SEED) for name, text in (FORMS | CAPPED).items()}
    monkeypatch.setattr(gbp_onnx.canonical.view, "find_rectifiers", lambda graph: {})
    for name, text in (FORMS | CAPPED).items():
        np.testing.assert_allclose(run(named(text), "saliency", x, SEED), gated[name], rtol=1e-6, err_msg=name)


# --- leaky and smooth activations ---------------------------------------------------------------------------------

LEAKY = {
    "LeakyRelu": "LeakyRelu(x, alpha=0.3) -> y",
    "PRelu": "PRelu(x, b) -> y",
    "Elu": "Elu(x) -> y",
    "Selu": "Selu(x) -> y",
    "Celu": "Celu(x, alpha=0.7) -> y",
}
SMOOTH = {
    "Gelu": "Gelu(x) -> y", "HardSwish": "HardSwish(x) -> y", "Mish": "Mish(x) -> y", "Softplus": "Softplus(x) -> y",
    "Silu": "Sigmoid(x) -> s\nMul(x, s) -> y",
}  # fmt: skip
OTHER = {"Sigmoid": "Sigmoid(x) -> y", "Tanh": "Tanh(x) -> y", "Clip": "Clip(x, low, high) -> y"}


@pytest.mark.parametrize("name", LEAKY | SMOOTH | OTHER)
@pytest.mark.parametrize(
    "families", [(), ("leaky",), ("smooth",), ("leaky", "smooth")], ids=lambda f: "+".join(f) or "none"
)
def test_rectify(name: str, families: tuple[str, ...]) -> None:
    values = {"PRelu": {"b": 0.3}, "Clip": {"low": -1.0, "high": 1.0}}.get(name, {})
    model = graph((LEAKY | SMOOTH | OTHER)[name], shape=(8,), opset=20, **values)
    x = X / 2 + np.float32(0.013)
    local = run(model, "saliency", x, np.ones(8))
    taken = (name in LEAKY and "leaky" in families) or (name in SMOOTH and "smooth" in families)
    positive = np.maximum(SEED, 0)
    want = {
        "saliency": SEED * local,
        "guided": (positive if taken else SEED) * local,
        "deconvnet": positive if taken else SEED * local,
    }
    for rule in RULES:
        np.testing.assert_allclose(
            run(model, rule, x, SEED, rectify=families), want[rule], rtol=1e-6, atol=1e-7, err_msg=rule
        )


def test_prelu_slopes_keep_their_gradient_under_rectify() -> None:
    """A slope that depends on the input is reached past the clamp: x enters through both."""
    model = graph("Abs(x) -> b\nPRelu(x, b) -> y", shape=(4,))
    x, seed = np.asarray([-1, -2, 3, -4], np.float32), np.asarray([1, -1, 1, 2], np.float32)
    plain = run(model, "saliency", x, seed)
    np.testing.assert_allclose(plain, seed * np.where(x > 0, 1, -2 * x), rtol=1e-6)
    got = run(model, "guided", x, seed, rectify=("leaky",))
    np.testing.assert_allclose(
        got, np.maximum(seed, 0) * np.where(x > 0, 1, -x) + seed * np.where(x > 0, 0, -x), rtol=1e-6
    )


# --- infinite and missing numbers ---------------------------------------------------------------------------------


def test_what_is_not_finite_stays_out_of_masked_places() -> None:
    model = named("Relu(x) -> y")
    seed = np.asarray([np.inf, np.nan, -np.inf, 1, 1, 1, 1, np.inf], np.float32)
    np.testing.assert_array_equal(run(model, "saliency", X, seed), [0, 0, 0, 1, 1, 1, 1, np.inf])
    np.testing.assert_array_equal(run(model, "guided", X, seed), [0, 0, 0, 1, 1, 1, 1, np.inf])
    model = named("Clip(x, zero, six) -> y")
    seed = np.asarray([np.inf, np.nan, 1, 1, 1, np.nan, np.inf, 1], np.float32)
    np.testing.assert_array_equal(run(model, "saliency", X, seed), [0, 0, 0, 1, 1, 0, 0, 1])


def test_an_infinite_activation_is_gated_open() -> None:
    got = run(named("Relu(x) -> y"), "guided", [np.inf, -np.inf, 1, 1, 1, 1, 1, 1], np.ones(8))
    np.testing.assert_array_equal(got, [1, 0, 1, 1, 1, 1, 1, 1])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no_rectifier", "no rectifier lies"),
        ("some_rectifiers", "no rule gates"),
        ("no_pool", "deconvnet reads nothing"),
    ],
)
def test_build_warns_of_what_the_maps_are_not(name: str, said: str) -> None:
    with pytest.warns(GbpWarning, match=said):
        gbp_onnx.build(make(name), ("guided", "deconvnet"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gbp_onnx.build(make(name), "saliency")  # nothing to say of the true gradient
