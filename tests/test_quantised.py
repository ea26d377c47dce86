"""Quantised models: straight-through derivatives, hidden rectifiers, the deployed integers, in every form."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import gbp_onnx
from gbp_onnx.errors import OperatorError
from gbp_onnx.vjp import Derivative, entries
from tests.oracle.quantised_oracle import quantised_oracle
from tests.quantised_nets import SCHEMES, fused, graph, image, quantised_net, run

FLOAT, UINT8, INT8 = TensorProto.FLOAT, TensorProto.UINT8, TensorProto.INT8
RULES = ("saliency", "deconvnet", "guided")
Array = np.ndarray


def node(op: str, inputs: str, outputs: str, domain: str = "", **attrs: Any) -> onnx.NodeProto:
    name = outputs.split()[0]
    return helper.make_node(op, [i.strip("-") for i in inputs.split()], outputs.split(), name, domain=domain, **attrs)


def gradient(model: onnx.ModelProto, feeds: dict[str, Array], rule: str = "saliency", **named: Any) -> dict[str, Array]:
    """The gradients for a seed of ones."""
    built = gbp_onnx.differentiate(model, rule=rule, **named)
    if all(o.type.tensor_type.HasField("shape") for o in model.graph.output):
        onnx.checker.check_model(built)
    forward = run(model, feeds)
    seeds = {f"{o.name}_seed": np.ones_like(forward[o.name]) for o in model.graph.output}
    seeds = {k: v for k, v in seeds.items() if k in {i.name for i in built.graph.input}}
    found = run(built, {**feeds, **seeds})
    for name, value in forward.items():
        np.testing.assert_array_equal(found[name], value)
    return {k: v for k, v in found.items() if k not in forward}


# --- whole networks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("rule", RULES)
def test_a_network_agrees_with_the_oracle(scheme: str, rule: str) -> None:
    model, x = quantised_net(scheme), image()
    found = run(gbp_onnx.build(model, rule), {"x": x, "target": np.asarray([-1])})
    wanted = quantised_oracle(model, {"x": x}, rule)
    np.testing.assert_array_equal(found["y"], wanted.outputs["y"])
    scale = np.abs(wanted.attribution).max()
    assert scale > 0
    assert np.abs(found[f"attribution_{rule}"] - wanted.attribution).max() <= 1e-6 * scale


@pytest.mark.parametrize("scheme", [*SCHEMES, "dynamic"])
def test_the_forward_stays_on_the_deployed_integers(scheme: str) -> None:
    model = quantised_net(scheme)
    built = gbp_onnx.build(model, RULES)
    assert fused(model) == fused(built)
    assert sum(fused(model).values()) > 5 or scheme == "qdq_u16"
    for seed in range(3):
        feeds = {"x": image(seed)}
        wanted = run(model, feeds)["y"]
        np.testing.assert_array_equal(run(built, {**feeds, "target": np.asarray([0])})["y"], wanted)


@pytest.mark.parametrize("scheme", ["qdq_u8", "qdq_s8", "operators_u8", "dynamic"])
def test_sizes_may_be_unknown(scheme: str) -> None:
    """The same numbers, and two images at once, from a file that does not say how large they are."""
    model = onnx.ModelProto()
    model.CopyFrom(quantised_net(scheme))
    for k, dim in enumerate(model.graph.input[0].type.tensor_type.shape.dim):
        if k != 1:
            dim.dim_param = f"d{k}"
    model.graph.output[0].type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    built = gbp_onnx.build(model, RULES)
    assert fused(built) == fused(model)
    both = np.concatenate([image(1), image(2)])
    if scheme == "dynamic":  # its range is that of the whole batch
        both = image(1)
    moving = run(built, {"x": both, "target": np.full(len(both), -1)})
    for k in range(len(both)):
        fixed = run(gbp_onnx.build(quantised_net(scheme), RULES), {"x": both[k : k + 1], "target": np.asarray([-1])})
        for rule in RULES:
            a, b = moving[f"attribution_{rule}"][k], fixed[f"attribution_{rule}"][0]
            np.testing.assert_allclose(a, b, atol=1e-6 * np.abs(b).max())


@pytest.mark.parametrize("scheme", [*SCHEMES, "dynamic"])
def test_four_rectifiers_are_found_none_twice(scheme: str) -> None:
    found = gbp_onnx.inspect(quantised_net(scheme))
    names = [r["name"] for r in found.rectifiers]
    assert len(names) == len(set(names)) == 4
    assert found.unsupported == ()
    if scheme != "dynamic":
        gated = quantised_oracle(quantised_net(scheme), {"x": image()}, "guided").rectifiers
        assert sorted(gated) == sorted(names)
    kinds = {
        "dynamic": {"Relu": 3, "Clip": 1},
        "qdq_s8_symmetric": {"Relu": 3, "Clip": 1},
        "operators_u8": {"QLinearConv": 3, "QLinearAdd": 1},
        "operators_s8_per_channel": {"QLinearConv": 3, "QLinearAdd": 1},
    }
    assert found.counts == kinds.get(scheme, {"QuantizeLinear": 4})


def test_what_no_rule_gates_is_named_in_the_operator_form() -> None:
    assert {u["kind"] for u in gbp_onnx.inspect(quantised_net("operators_u8")).ungated} == {
        "QLinearLeakyRelu",
        "QLinearSigmoid",
    }


def test_dynamic_quantisation_is_the_float_network_of_the_same_weights() -> None:
    """ConvInteger, MatMulInteger: the weights are what is rounded; gates may differ only where x is rounded to 0."""
    model, x = quantised_net("dynamic"), image()
    assert {n.op_type for n in model.graph.node} >= {"DynamicQuantizeLinear", "ConvInteger", "MatMulInteger"}
    made = run(gbp_onnx.build(model, RULES), {"x": x, "target": np.asarray([3])})
    plain = run(gbp_onnx.build(quantised_net_in_float(), RULES), {"x": x, "target": np.asarray([3])})
    for rule in RULES:
        a, b = (m[f"attribution_{rule}"].ravel() for m in (made, plain))
        assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.98, rule


def quantised_net_in_float() -> onnx.ModelProto:
    from tests.quantised_nets import float_net

    return float_net()


# --- gates --------------------------------------------------------------------------------------------------------


def pair(kind: Any, zero: int, before: list[onnx.NodeProto], source: str, stored: dict[str, Array]) -> onnx.ModelProto:
    """x, what is before, then Quantize and Dequantize with a scale of 1/2."""
    nodes = [*before, node("QuantizeLinear", f"{source} s z", "q"), node("DequantizeLinear", "q s z", "y")]
    return graph(
        nodes,
        {"x": (FLOAT, [None])},
        {"y": FLOAT},
        {"s": np.float32(0.5), "z": np.asarray(zero, kind), **stored},
        opset=21,
    )


COPIED: dict[str, Any] = {
    "before": [node("Relu", "x", "r"), node("Identity", "r", "t")],
    "source": "t",
    "stored": {},
}
NEGATED: dict[str, Any] = {"before": [node("Mul", "x one", "t")], "source": "t", "stored": {"one": np.float32(1)}}
PLAIN: dict[str, Any] = {"before": [], "source": "x", "stored": {}}
RELU: dict[str, Any] = {"before": [node("Relu", "x", "t")], "source": "t", "stored": {}}


@pytest.mark.parametrize(
    ("kind", "zero", "form", "x", "saliency", "guided"),
    [
        # both ends of the range are saturated: 0 and 255 stand for -64 and 63.5
        (np.uint8, 128, PLAIN, [-64.0, -63.5, 0.0, 63.0, 63.5], [0, 1, 1, 1, 0], [0, 1, 1, 1, 0]),
        # a lower end that is real 0, where x comes from outside: no rectifier, 0 is an ordinary value
        (np.uint8, 0, PLAIN, [-9.0, 0.0, 0.5, 127.0, 127.5], [1, 1, 1, 1, 0], [1, 1, 1, 1, 0]),
        # the same behind an operator whose result can be negative: a rectifier
        (np.uint8, 0, NEGATED, [-9.0, 0.0, 0.5, 127.0, 127.5], [0, 0, 1, 1, 0], [0, 0, 1, 1, 0]),
        (np.int8, -128, NEGATED, [-9.0, 0.0, 0.5, 127.0, 127.5], [0, 0, 1, 1, 0], [0, 0, 1, 1, 0]),
        (np.uint16, 0, NEGATED, [-9.0, 0.0, 0.5, 127.0, 32767.5], [0, 0, 1, 1, 0], [0, 0, 1, 1, 0]),
        (np.int16, 0, NEGATED, [-16384.0, -1.0, 0.0, 16383.0, 16383.5], [0, 1, 1, 1, 0], [0, 1, 1, 1, 0]),
        # a Relu that only the quantiser reads: one rectifier, which gates on the quantised value (0.2 is rounded to 0)
        (np.int8, 0, RELU, [-1.0, 0.2, 0.5, 63.0, 63.5], [0, 0, 1, 1, 0], [0, 0, 1, 1, 0]),
        (np.int8, 0, COPIED, [-1.0, 0.2, 0.5, 63.0, 63.5], [0, 0, 1, 1, 0], [0, 0, 1, 1, 0]),
        (np.uint8, 0, RELU, [-1.0, 0.2, 0.5, 127.0, 127.5], [0, 0, 1, 1, 0], [0, 0, 1, 1, 0]),
    ],
)
def test_gates(kind: Any, zero: int, form: dict[str, Any], x: Any, saliency: Any, guided: Any) -> None:
    model, feeds = pair(kind, zero, **form), {"x": np.asarray(x, np.float32)}
    np.testing.assert_array_equal(gradient(model, feeds)["x_grad"], saliency)
    np.testing.assert_array_equal(gradient(model, feeds, "guided")["x_grad"], guided)
    opened = gradient(model, feeds, "deconvnet")["x_grad"]
    np.testing.assert_array_equal(opened, saliency if form is PLAIN or (zero == 0 and kind is np.int16) else 1)


def test_a_cap_below_the_end_of_the_range_gates_too() -> None:
    """ReLU6 in a range that goes on to 63.5: 12 steps of 1/2 are 6."""
    clip = {"before": [node("Clip", "x low high", "t")], "source": "t"}
    model = pair(np.uint8, 0, **clip, stored={"low": np.float32(0), "high": np.float32(6)})
    x = np.asarray([-1.0, 0.0, 5.5, 6.0, 7.0], np.float32)
    np.testing.assert_array_equal(gradient(model, {"x": x})["x_grad"], [0, 0, 1, 0, 0])


def test_the_range_that_ends_at_6_is_relu6() -> None:
    nodes = [node("Mul", "x one", "t"), node("QuantizeLinear", "t s z", "q"), node("DequantizeLinear", "q s z", "y")]
    stored = {"one": np.float32(1), "s": np.float32(6 / 255), "z": np.uint8(0)}
    model = graph(nodes, {"x": (FLOAT, [None])}, {"y": FLOAT}, stored)
    x = np.asarray([-1.0, 3.0, 5.9, 6.0, 9.0], np.float32)
    np.testing.assert_array_equal(gradient(model, {"x": x}, "guided")["x_grad"], [0, 1, 1, 0, 0])


def test_zero_points_for_each_channel() -> None:
    nodes = [node("Mul", "x one", "t"), node("QuantizeLinear", "t s z", "q"), node("DequantizeLinear", "q s z", "y")]
    stored = {"one": np.float32(1), "s": np.float32([0.5, 1.0]), "z": np.uint8([0, 128])}
    model = graph(nodes, {"x": (FLOAT, [2, 2, 2])}, {"y": FLOAT}, stored)
    x = np.float32([[[0, 3], [-128, 0]], [[127.5, 1], [127, 126]]])
    np.testing.assert_array_equal(gradient(model, {"x": x})["x_grad"], [[[1, 1], [0, 1]], [[0, 1], [0, 1]]])


def test_scale_and_zero_point_found_while_running() -> None:
    nodes = [
        node("Mul", "x one", "t"),
        node("ReduceMax", "t", "m", keepdims=0),
        node("Div", "m top", "s"),
        node("QuantizeLinear", "t s z", "q"),
        node("DequantizeLinear", "q s z", "y"),
    ]
    model = graph(
        nodes,
        {"x": (FLOAT, [4]), "z": (UINT8, [])},
        {"y": FLOAT},
        {"one": np.float32(1), "top": np.float32(200)},
    )
    x = np.asarray([-30.0, 0.0, 10.0, 200.0], np.float32)
    assert gradient(model, {"x": x, "z": np.asarray(20, np.uint8)}, wrt="x")["x_grad"].tolist() == [0, 1, 1, 1]
    assert gradient(model, {"x": x, "z": np.asarray(0, np.uint8)}, wrt="x")["x_grad"].tolist() == [1, 1, 1, 1]


# --- which quantiser is a rectifier -------------------------------------------------------------------------------

_Q = ("s z", {"s": np.float32(0.1), "z": np.uint8(0), "w": np.float32(np.eye(3)[:, :, None, None])})
_IN = {"x": (FLOAT, [1, 3, 4, 4])}
_CONV = [node("Conv", "x w", "c")]


@pytest.mark.parametrize(
    ("nodes", "hidden"),
    [
        ([*_CONV], 1),
        ([node("Transpose", "x", "c", perm=[0, 1, 3, 2])], 0),  # a moved input
        ([*_CONV, node("Sigmoid", "c", "d")], 0),
        ([*_CONV, node("Softmax", "c", "d")], 0),
        ([*_CONV, node("Abs", "c", "d"), node("AveragePool", "d", "e", kernel_shape=[2, 2])], 0),
        ([*_CONV, node("AveragePool", "c", "d", kernel_shape=[2, 2])], 1),
        ([*_CONV, node("Mul", "c c", "d")], 0),
        ([*_CONV, node("Exp", "c", "d"), node("Neg", "c", "e"), node("Add", "d e", "f")], 1),
        ([*_CONV, node("Exp", "c", "d"), node("Sigmoid", "c", "e"), node("Concat", "d e", "f", axis=1)], 0),
        ([*_CONV, node("Exp", "c", "d"), node("Concat", "d c", "f", axis=1)], 1),
        ([*_CONV, node("LeakyRelu", "c", "d")], 1),
        ([*_CONV, node("HardSwish", "c", "d")], 1),
        ([*_CONV, node("Exp", "c", "d"), node("Max", "c d", "e")], 0),
    ],
    ids=lambda v: "-".join(n.op_type for n in v) if isinstance(v, list) else str(v),
)
def test_hidden_rectifiers_by_sign(nodes: list[onnx.NodeProto], hidden: int) -> None:
    terms, stored = _Q
    last = nodes[-1].output[0]
    tail = [
        node("QuantizeLinear", f"{last} {terms}", "q"),
        node("DequantizeLinear", f"q {terms}", "dq"),
        node("MaxPool", "dq", "mp", kernel_shape=[2, 2]),
        node("QuantizeLinear", f"mp {terms}", "q2"),  # what it reads cannot be negative
        node("DequantizeLinear", f"q2 {terms}", "dq2"),
        node("ReduceMean", "dq2", "y", axes=[2, 3], keepdims=0),
    ]
    found = gbp_onnx.inspect(graph([*nodes, *tail], _IN, {"y": FLOAT}, stored))
    assert [(r["name"], r["kind"]) for r in found.rectifiers] == [("q", "QuantizeLinear")] * hidden


def test_the_last_quantiser_never_gates() -> None:
    """Each logit is saturated: with a gate there, the map would be zero."""
    terms, stored = _Q
    nodes = [
        node("QuantizeLinear", f"x {terms}", "q0"),
        node("DequantizeLinear", f"q0 {terms}", "d0"),
        node("GlobalAveragePool", "d0", "g"),
        node("Flatten", "g", "f"),
        node("MatMul", "f big", "l"),
        node("QuantizeLinear", f"l {terms}", "q1"),
        node("DequantizeLinear", f"q1 {terms}", "d1"),
        node("Softmax", "d1", "p"),
        node("QuantizeLinear", f"p {terms}", "q2"),
        node("DequantizeLinear", f"q2 {terms}", "y"),
    ]
    big = np.random.RandomState(0).uniform(900, 1000, (3, 5)).astype(np.float32)
    model = graph(nodes, _IN, {"y": FLOAT}, {**stored, "big": big})
    x = np.full((1, 3, 4, 4), 2, np.float32)
    found = run(gbp_onnx.build(model, RULES), {"x": x, "target": np.asarray([2])})
    for rule in RULES:
        wanted = np.broadcast_to(big[:, 2, None, None] / 16, (1, 3, 4, 4))
        np.testing.assert_allclose(found[f"attribution_{rule}"], wanted, rtol=1e-6)
    assert not gbp_onnx.inspect(model).rectifiers


# --- inputs and outputs of integers -------------------------------------------------------------------------------


@pytest.mark.parametrize("last", ["Softmax", "Sigmoid", None])
def test_integers_in_and_out(last: str | None) -> None:
    """uint8 pixels, channels last, and uint8 scores: the map counts per grey level, the scores as real numbers."""
    nodes = [
        node("DequantizeLinear", "x s z", "d"),
        node("Transpose", "d", "t", perm=[0, 3, 1, 2]),
        node("GlobalAveragePool", "t", "g"),
        node("Flatten", "g", "f"),
        node("MatMul", "f w", "l"),
        node("QuantizeLinear", "l s1 z1", "q1"),
        node("DequantizeLinear", "q1 s1 z1", "d1"),
        *([node(last, "d1", "p")] if last else []),
        node("QuantizeLinear", "p s2 z2" if last else "d1 s1 z1", "q2"),
        node("Reshape", "q2 shape", "y"),
    ]
    w = np.random.RandomState(0).randn(3, 5).astype(np.float32)
    stored: dict[str, Array] = {"s": np.float32(0.25), "z": np.uint8(100), "s1": np.float32(0.1), "z1": np.uint8(128)}
    stored |= {"s2": np.float32(1 / 256), "z2": np.uint8(0), "w": w, "shape": np.asarray([-1, 5])}
    model = graph(nodes, {"x": (UINT8, [1, 4, 4, 3])}, {"y": UINT8}, stored)
    x = np.random.RandomState(1).randint(0, 256, (1, 4, 4, 3)).astype(np.uint8)
    found = run(gbp_onnx.build(model), {"x": x, "target": np.asarray([3])})
    np.testing.assert_allclose(
        found["attribution_guided"], np.broadcast_to(w[:, 3] * 0.25 / 16, (1, 4, 4, 3)), rtol=1e-6
    )
    explanation = gbp_onnx.Explainer(model, "guided", providers="cpu", preprocess="raw").attribute(x, 3)
    np.testing.assert_array_equal(explanation["guided"], found["attribution_guided"])
    seed = np.zeros((1, 5), np.float32)
    seed[0, 3] = 2
    twice = gbp_onnx.Explainer(model, "guided", providers="cpu", preprocess="raw").attribute(x, seed)
    np.testing.assert_allclose(twice["guided"], 2 * found["attribution_guided"], rtol=1e-6)
    explained = gbp_onnx.Explainer(model, "guided", providers="cpu", preprocess="raw").explain(x[0], 3)
    scale, zero = (stored["s2"], stored["z2"]) if last else (stored["s1"], stored["z1"])
    assert explained.score == pytest.approx(float(scale) * (int(found["y"][0, 3]) - int(zero)), rel=1e-6)


@pytest.mark.parametrize("scheme", ["operators_u8", "operators_s8_per_channel", "qdq_u8"])
def test_pixels_that_are_quantised_already(scheme: str) -> None:
    """The same network without its first QuantizeLinear: the map per real unit, times the scale of the pixels."""
    model, x = quantised_net(scheme), image()
    first = next(n for n in model.graph.node if n.op_type == "QuantizeLinear" and n.input[0] == "x")
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    shown.graph.output.append(onnx.ValueInfoProto(name=first.output[0]))
    q = run(shown, {"x": x})[first.output[0]]
    integer = onnx.ModelProto()
    integer.CopyFrom(model)
    integer.graph.node.remove(first)
    integer.graph.input[0].name = first.output[0]
    integer.graph.input[0].type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(q.dtype)
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    real = run(gbp_onnx.build(model, RULES), {"x": x, "target": np.asarray([-1])})
    made = run(gbp_onnx.build(integer, RULES), {first.output[0]: q, "target": np.asarray([-1])})
    inside = (q > np.iinfo(q.dtype).min) & (q < np.iinfo(q.dtype).max)
    assert inside.mean() > 0.9
    for rule in RULES:
        per_level, per_unit = made[f"attribution_{rule}"], real[f"attribution_{rule}"]
        assert per_level.dtype == np.float32
        wanted = per_unit * stored[first.input[1]]
        np.testing.assert_allclose(per_level[inside], wanted[inside], atol=1e-6 * np.abs(wanted).max())


def test_the_explained_scalar_of_integers_is_a_real_number() -> None:
    """The logit in front of QLinearSoftmax, at the value that the deployed integer stands for."""
    from gbp_onnx.batch import BatchRunner
    from gbp_onnx.runtime.providers import choose_providers
    from gbp_onnx.variants import Loading

    model = quantised_net("operators_u8")
    runner = BatchRunner(gbp_onnx.build(model), ["guided"], Loading(choose_providers("cpu"), "net"))
    found = runner.run({"x": image()}, np.asarray([4]))
    head = next(n for n in model.graph.node if n.op_type == "QLinearSoftmax")
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    shown.graph.output.append(onnx.ValueInfoProto(name=head.input[0]))
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    q = run(shown, {"x": image()})[head.input[0]].astype(int)[0, 4]
    assert found.explained[0] == pytest.approx(stored[head.input[1]] * (q - int(stored[head.input[2]])), rel=1e-6)


# --- weights and products -----------------------------------------------------------------------------------------


def weights(kind: Any, shape: tuple[int, ...], low: int, high: int) -> Array:
    return np.random.RandomState(3).randint(low, high + 1, shape).astype(kind)


@pytest.mark.parametrize("form", ["tensor", "channel", "blocks", "int4", "blocks of int4"])
def test_weights_that_are_dequantised(form: str) -> None:
    """MatMul with DequantizeLinear(weights): the gradient is the transpose of what ONNX Runtime dequantises."""
    random, blocks = np.random.RandomState(4), "blocks" in form
    scale = {"channel": random.rand(6), "int4": np.float64(0.3)}.get(form, random.rand(4, 6) if blocks else 0.2)
    q: Any = numpy_helper.from_array(weights(np.int8, (8, 6), -100, 100), "q")
    if "int4" in form:
        q = helper.make_tensor("q", TensorProto.INT4, [8, 6], weights(np.int8, (8, 6), -8, 7).ravel())
    attrs = {"axis": 0, "block_size": 2} if blocks else {"axis": 1}
    nodes = [node("DequantizeLinear", "q s", "w", **attrs), node("MatMul", "x w", "y")]
    model = graph(nodes, {"x": (FLOAT, [1, 8])}, {"y": FLOAT}, {"q": q, "s": np.float32(scale)}, opset=21)
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    shown.graph.output.append(onnx.ValueInfoProto(name="w"))
    x = random.randn(1, 8).astype(np.float32)
    wanted = run(shown, {"x": x})["w"].sum(axis=1)
    np.testing.assert_allclose(gradient(model, {"x": x})["x_grad"][0], wanted, rtol=1e-5)
    sizes = [t.dims for t in gbp_onnx.differentiate(model).graph.initializer]
    assert sum(list(s) == [8, 6] for s in sizes) == 1  # no copy of the weights


def test_the_scale_of_stored_integers_has_its_derivative() -> None:
    nodes = [node("DequantizeLinear", "q s z", "y", axis=0)]
    model = graph(nodes, {"s": (FLOAT, [2])}, {"y": FLOAT}, {"q": np.int8([[1, 2], [3, -4]]), "z": np.int8([1, 0])})
    found = gradient(model, {"s": np.float32([0.5, 2])}, wrt="s")["s_grad"]
    np.testing.assert_array_equal(found, [(1 - 1) + (2 - 1), 3 - 4])


@pytest.mark.parametrize("per_column", [False, True])
@pytest.mark.parametrize("op", ["MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QGemm", "MatMulInteger"])
def test_products_of_integers(op: str, per_column: bool) -> None:
    b = weights(np.uint8, (6, 5), 0, 255)
    scale = np.float32([0.1, 0.2, 0.3, 0.4, 0.5]) if per_column else np.float32(0.2)
    zero = np.full(5, 100, np.uint8) if per_column else np.uint8(100)
    stored: dict[str, Array] = {"b": b, "bs": scale, "bz": zero, "s": np.float32(0.05), "z": np.uint8(128)}
    quantise = node("QuantizeLinear", "x s z", "q")
    contrib = {"domain": "com.microsoft"}
    real = (b.astype(np.float64) - 100) * scale
    nodes = {
        "MatMulIntegerToFloat": [quantise, node(op, "q b s bs z bz", "y", **contrib)],
        "DynamicQuantizeMatMul": [node(op, "x b bs bz", "y", **contrib)],
        "QGemm": [quantise, node(op, "q s z b bs bz", "y", alpha=1.0, **contrib)],
        "MatMulInteger": [
            quantise,
            node(op, "q b z bz", "i"),
            node("Cast", "i", "f", to=FLOAT),
            node("Mul", "bs s", "both"),
            node("Mul", "f both", "y"),
        ],
    }[op]
    model = graph(nodes, {"x": (FLOAT, [2, 6])}, {"y": FLOAT}, stored, contrib=True)
    x = np.random.RandomState(0).uniform(-5, 5, (2, 6)).astype(np.float32)
    found = gradient(model, {"x": x})["x_grad"]
    np.testing.assert_allclose(found, np.broadcast_to(real.sum(axis=1), (2, 6)), rtol=1e-5)


def test_qlinear_matmul_and_where() -> None:
    stored: dict[str, Array] = {
        "s": np.float32(0.1),
        "z": np.uint8(120),
        "b": weights(np.uint8, (6, 5), 0, 255),
        "bs": np.float32(0.02),
        "bz": np.uint8(128),
        "ys": np.float32(0.4),
        "yz": np.uint8(100),
        "c": np.asarray([[True, False, True, False, True]]),
        "other": np.uint8([[7]]),
    }
    nodes = [
        node("QuantizeLinear", "x s z", "q"),
        node("QLinearMatMul", "q s z b bs bz ys yz", "m"),
        node("QLinearWhere", "c m ys yz other s z ys yz", "w", domain="com.microsoft"),
        node("DequantizeLinear", "w ys yz", "y"),
    ]
    model = graph(nodes, {"x": (FLOAT, [3, 6])}, {"y": FLOAT}, stored, contrib=True)
    x = np.random.RandomState(0).uniform(-5, 5, (3, 6)).astype(np.float32)
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    shown.graph.output.extend(onnx.ValueInfoProto(name=n) for n in ("m", "w"))
    q = run(shown, {"x": x})
    open_ = {k: (q[k] > 0) & (q[k] < 255) for k in ("m", "w")}
    real = (stored["b"].astype(np.float64) - 128) * 0.02
    ct = np.where(open_["m"] & open_["w"] & stored["c"], 1.0, 0)
    np.testing.assert_allclose(gradient(model, {"x": x})["x_grad"], ct @ real.T, rtol=1e-5, atol=1e-7)


def test_channels_last_operators_of_an_optimised_file() -> None:
    """com.microsoft QLinearConv with channels_last, NhwcMaxPool: what ONNX Runtime saves of the operator form."""
    import tempfile

    import onnxruntime as ort

    model = quantised_net("operators_u8")
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.optimized_model_filepath = file.name
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        optimised = onnx.load(file.name)
    assert {"NhwcMaxPool", "QLinearConv"} <= {n.op_type for n in optimised.graph.node if n.domain == "com.microsoft"}
    feeds = {"x": image(), "target": np.asarray([-1])}
    for rule in RULES:
        a, b = (run(gbp_onnx.build(m, rule), feeds)[f"attribution_{rule}"] for m in (model, optimised))
        np.testing.assert_allclose(a, b, atol=1e-6 * np.abs(a).max())
    assert len(gbp_onnx.inspect(optimised).rectifiers) == 4


def test_every_operator_of_the_quantised_families_is_met_here() -> None:
    families = ("integer", "qlinear", "quantized")
    table = {e.op for e in entries() if isinstance(e, Derivative) and e.rule.__module__.rpartition(".")[2] in families}
    met = {n.op_type for scheme in [*SCHEMES, "dynamic"] for n in quantised_net(scheme).graph.node}
    source = Path(__file__).read_text(encoding="utf-8")
    written = set(re.findall(r'(?:node\(|^        )"(\w+)"', source, re.MULTILINE))
    # The optimised file has the pool; Saturation stands in for every quantiser that is no rectifier.
    assert table - met - written == {"NhwcMaxPool", "Saturation"} - written


# --- refused ------------------------------------------------------------------------------------------------------


def test_a_whole_quantised_layer_is_refused_with_a_reason() -> None:
    nodes = [
        node("QuantizeLinear", "x s z", "q"),
        node("QAttention", "q w b s s - z z", "y", domain="com.microsoft", num_heads=1),
    ]
    stored = {"s": np.float32(0.1), "z": np.uint8(0), "w": weights(np.uint8, (4, 12), 0, 255), "b": np.zeros(12, "f")}
    model = graph(nodes, {"x": (FLOAT, [1, 3, 4])}, {"y": FLOAT}, stored, contrib=True)
    with pytest.raises(OperatorError) as refusal:
        gbp_onnx.build(model)
    assert refusal.value.code == "GBP202" and "does not return" in str(refusal.value)


def test_int8_becomes_uint8_only_where_onnx_runtime_does_it() -> None:
    """One reader of q, one of what is dequantised; a second reader of either leaves int8 alone."""
    stored = {"s": np.float32(0.1), "z": np.int8(3)}
    nodes = [
        node("Neg", "x", "n"),
        node("QuantizeLinear", "n s z", "q"),
        node("DequantizeLinear", "q s z", "d"),
        node("Exp", "d", "e"),
        node("QuantizeLinear", "e s z", "q2"),
        node("DequantizeLinear", "q2 s z", "d2"),
        node("Add", "d2 d2", "y"),
    ]
    model = graph(nodes, {"x": (FLOAT, [4])}, {"y": FLOAT}, stored)
    built = gbp_onnx.differentiate(model)
    zeros = {n.name: n.input[2] for n in built.graph.node if n.op_type == "QuantizeLinear"}
    assert zeros == {"q": "z/unsigned", "q2": "z"}
    moved = next(t for t in built.graph.initializer if t.name == "z/unsigned")
    assert numpy_helper.to_array(moved) == 131 and moved.data_type == UINT8
    assert [n.input[2] for n in model.graph.node if n.op_type == "QuantizeLinear"] == ["z", "z"]
