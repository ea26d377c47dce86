"""LSTM, GRU and RNN: the formulas are ONNX Runtime's, rules hold in every step, networks with them are explained."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import gbp_onnx
from gbp_onnx.errors import OperatorError
from gbp_onnx.graph.reader import Graph
from gbp_onnx.vjp.listing import rows
from gbp_onnx.vjp.recurrent import equations
from tests.recurrent_oracles import DEFAULTS
from tests.test_vjp import FUZZ
from tests.vjp_cases import CASES, fed, fixed
from tests.vjp_cases_recurrent import FUNCTIONS, recurrent
from tests.vjp_check import Case, check, in_double, session
from tests.vjp_oracles import OWN

OPS = ("LSTM", "GRU", "RNN")


def written_out(model: onnx.ModelProto) -> onnx.ModelProto:
    """The equations of a model's one node, as a model."""
    graph = equations(Graph(model).nodes[0], TensorProto.FLOAT, model.opset_import[0].version)
    made = helper.make_model(graph, opset_imports=model.opset_import, ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    return made


def run_written_out(model: onnx.ModelProto, values: list[np.ndarray]) -> list[np.ndarray]:
    made = written_out(model)
    found: list[np.ndarray] = session(made).run(
        None, dict(zip([i.name for i in made.graph.input], values, strict=True))
    )
    return found


@pytest.mark.parametrize("case", [c for c in CASES if c.op in OPS and c.opset >= 16], ids=lambda c: c.name)
def test_the_equations_compute_what_onnx_runtime_does(case: Case) -> None:
    got = run_written_out(case.model(), [v for v in case.values if v is not None])
    for mine, theirs in zip(got, session(case.model()).run(None, case.feeds), strict=False):
        assert mine.shape == theirs.shape
        np.testing.assert_allclose(mine, theirs, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("op", OPS)
def test_the_equations_with_the_batch_first(op: str) -> None:
    """ONNX Runtime has no kernel for layout 1; onnx.reference computes it, where nothing is given besides."""
    random = np.random.RandomState(0)
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    values = [random.uniform(-1, 1, s).astype(np.float32) for s in ((2, 4, 3), (1, gates * 2, 3), (1, gates * 2, 2))]
    outputs = ["Y", "Y_h", "Y_c"][: 3 if op == "LSTM" else 2]
    node = helper.make_node(op, ["X", "W", "R"], outputs, layout=1, hidden_size=2)
    inputs = [helper.make_tensor_value_info(n, 1, v.shape) for n, v in zip("XWR", values, strict=True)]
    graph = helper.make_graph([node], op, inputs, [helper.make_tensor_value_info(n, 1, None) for n in outputs])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    want = ReferenceEvaluator(model).run(None, dict(zip("XWR", values, strict=True)))
    got = run_written_out(model, values)
    assert got[0].shape == (2, 4, 1, 2) and got[1].shape == (2, 1, 2)
    for mine, theirs in zip(got[:2], want[:2], strict=True):  # its Y_c is laid out otherwise
        np.testing.assert_allclose(mine, np.reshape(theirs, mine.shape), rtol=1e-5, atol=1e-6)


@settings(FUZZ, max_examples=30)
@given(st.data())
def test_recurrent_fuzz(data: st.DataObject) -> None:
    op = data.draw(st.sampled_from(OPS))
    direction = data.draw(st.sampled_from(["forward", "reverse", "bidirectional"]))
    time, batch = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 2))
    more: dict[str, Any] = {}
    if data.draw(st.booleans()):
        given_lengths = data.draw(st.lists(st.integers(0, time), min_size=batch, max_size=batch))
        as_input = fed if data.draw(st.booleans()) else fixed
        more["lengths"] = as_input(given_lengths, np.int32)
    if data.draw(st.booleans()):
        # Functions whose kinks are rare; all others are in the table.
        smooth = ["Tanh", "Sigmoid", "Affine", "LeakyRelu", "ScaledTanh", "Elu", "Softsign", "Softplus"]
        count = FUNCTIONS[op] * (2 if direction == "bidirectional" else 1)
        names = data.draw(st.lists(st.sampled_from(smooth), min_size=count, max_size=count))
        taking = [DEFAULTS[n] for n in names if n in DEFAULTS]
        more["activations"] = names
        alphas, betas = len(taking), sum(beta is not None for _, beta in taking)
        if alphas and data.draw(st.booleans()):
            more["activation_alpha"] = [0.4 + 0.1 * k for k in range(data.draw(st.integers(1, alphas)))]
        if betas and data.draw(st.booleans()):
            more["activation_beta"] = [0.6 - 0.1 * k for k in range(data.draw(st.integers(1, betas)))]
    if op == "LSTM":
        more["input_forget"] = data.draw(st.integers(0, 1))
    if op == "GRU":
        more["linear_before_reset"] = data.draw(st.integers(0, 1))
    if data.draw(st.booleans()):
        more["clip"] = 0.6
    # Leaky gates make a state of 1e-4, of which Elu, exp(x) - 1, keeps four digits in float32.
    more["tolerance"] = 3e-5 if "Elu" in more.get("activations", ()) else 4e-6
    present = "".join(letter for letter in "BhcP" if data.draw(st.booleans()))
    opset = data.draw(st.sampled_from([8, 14, 17, 18, 22]))
    outputs = data.draw(st.integers(1, 3 if op == "LSTM" else 2))
    made = recurrent(
        op, "fuzz", time=time, batch=batch, present=present, opset=opset, outputs=outputs, direction=direction, **more
    )
    check(made)


# --- rules --------------------------------------------------------------------------------------------------------


def row_reader(activation: str = "Relu") -> tuple[onnx.ModelProto, np.ndarray, np.ndarray]:
    """An RNN over the rows of an image, its last state returned; W and R."""
    random = np.random.RandomState(4)
    w, r = (random.uniform(-1, 1, (1, 4, k)).astype(np.float32) for k in (3, 4))
    nodes = [
        helper.make_node("Transpose", ["x"], ["rows"], perm=[1, 0, 2]),
        helper.make_node("RNN", ["rows", "W", "R"], ["", "h"], "reader", hidden_size=4, activations=[activation]),
        helper.make_node("Squeeze", ["h", "axis"], ["y"]),
    ]
    stored = [numpy_helper.from_array(v, n) for v, n in ((w, "W"), (r, "R"), (np.asarray([0]), "axis"))]
    x = helper.make_tensor_value_info("x", 1, ["N", 5, 3])
    y = helper.make_tensor_value_info("y", 1, ["N", 4])
    graph = helper.make_graph(nodes, "rows", [x], [y], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), w[0], r[0]


@pytest.mark.parametrize("rule", ["saliency", "deconvnet", "guided"])
def test_a_cells_relu_is_gated_in_every_step(rule: str) -> None:
    random = np.random.RandomState(4)
    model, w, r = row_reader()
    x = random.uniform(-1, 1, (2, 5, 3)).astype(np.float32)
    seed = random.uniform(-1, 1, (2, 4)).astype(np.float32)
    built = session(gbp_onnx.differentiate(model, rule=rule))
    got = built.run(["x_grad"], {"x": x, "y_seed": seed})[0]
    states = [np.zeros((2, 4))]
    for t in range(5):
        states.append(np.maximum(x[:, t] @ w.T + states[-1] @ r.T, 0))
    want, g = np.zeros_like(x), seed.astype(np.float64)
    for t in reversed(range(5)):
        g = g if rule == "saliency" else np.maximum(g, 0)
        g = g if rule == "deconvnet" else g * (states[t + 1] > 0)
        want[:, t] = g @ w
        g = g @ r
    assert np.any(want)
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-6)


def test_inspect_lists_the_rectifiers_of_cells() -> None:
    found = gbp_onnx.inspect(row_reader()[0])
    assert found.rectifiers == ({"name": "reader", "kind": "RNN[Relu]"},)
    assert not found.ungated and not found.warnings
    found = gbp_onnx.inspect(row_reader("Tanh")[0])
    assert not found.rectifiers
    assert found.ungated == ({"name": "reader", "kind": "RNN"},)
    assert "no rectifier lies on the way" in found.warnings[0]


def test_a_leaky_cell_is_gated_where_that_is_asked_for() -> None:
    model, _, _ = row_reader("LeakyRelu")
    assert gbp_onnx.inspect(model).ungated and not gbp_onnx.inspect(model, rectify=["leaky"]).ungated
    x = np.random.RandomState(1).uniform(-1, 1, (1, 5, 3)).astype(np.float32)
    feeds = {"x": x, "y_seed": np.full((1, 4), -1, np.float32)}
    plain, clamped = (
        session(gbp_onnx.differentiate(model, rule="guided", rectify=r)).run(["x_grad"], feeds)[0]
        for r in ((), ("leaky",))
    )
    assert np.any(plain)
    np.testing.assert_array_equal(clamped[:, 4], 0)  # the seed is negative everywhere


def test_an_unknown_activation_is_refused() -> None:
    with pytest.raises(OperatorError, match="'Gelu' is not one of the standard's"):
        gbp_onnx.differentiate(row_reader("Gelu")[0])


def test_every_real_input_is_listed_as_differentiated() -> None:
    listed = {row["op"]: row["inputs"] for row in rows() if row["op"] in OPS}
    assert listed["LSTM"] == ["X", "W", "R", "B", "initial_h", "initial_c", "P"]
    assert listed["GRU"] == listed["RNN"] == ["X", "W", "R", "B", "initial_h"]


# --- a network ----------------------------------------------------------------------------------------------------


def reader_of_words() -> onnx.ModelProto:
    """A small CRNN: convolutions, columns as time, a bidirectional LSTM, the mean over time, classes."""
    random = np.random.RandomState(5)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(random.uniform(-0.6, 0.6, shape).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["image", "K", "k"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("MaxPool", ["r"], ["p"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Transpose", ["p"], ["columns"], perm=[3, 0, 1, 2]),
        helper.make_node("Reshape", ["columns", "flat"], ["steps"]),
        helper.make_node("LSTM", ["steps", "W", "R", "B"], ["Y"], "lstm", hidden_size=5, direction="bidirectional"),
        helper.make_node("ReduceMean", ["Y"], ["m"], axes=[0], keepdims=0),
        helper.make_node("Transpose", ["m"], ["n"], perm=[1, 0, 2]),
        helper.make_node("Flatten", ["n"], ["f"]),
        helper.make_node("Gemm", ["f", "G", "g"], ["z"], transB=1),
        helper.make_node("Softmax", ["z"], ["y"]),
    ]
    stored = [
        *(weight("K", 4, 3, 3, 3), weight("k", 4), weight("W", 2, 20, 16), weight("R", 2, 20, 5), weight("B", 2, 40)),
        *(weight("G", 6, 10), weight("g", 6), numpy_helper.from_array(np.asarray([0, 0, 16]), "flat")),
    ]
    x = helper.make_tensor_value_info("image", 1, ["N", 3, 8, "W"])
    y = helper.make_tensor_value_info("y", 1, ["N", 6])
    graph = helper.make_graph(nodes, "crnn", [x], [y], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_convolutional_recurrent_network() -> None:
    model = reader_of_words()
    assert "partly a plain gradient: 1 LSTM" in gbp_onnx.inspect(model).warnings[0]
    explainer = gbp_onnx.Explainer(model, rules=("saliency", "guided"), providers="cpu")
    random = np.random.RandomState(2)
    for width in (6, 12):  # one file, any width
        x = random.uniform(-1, 1, (2, 3, 8, width)).astype(np.float32)
        maps = explainer.attribute(x, target=[1, 4])
        assert maps["saliency"].shape == maps["guided"].shape == x.shape
        assert np.any(maps["guided"]) and not np.allclose(maps["saliency"], maps["guided"])
        wide = ReferenceEvaluator(in_double(model), new_ops=OWN)
        for n, target in ((0, 1), (1, 4)):
            for place in zip(*(random.randint(0, s, 6) for s in (3, 8, width)), strict=True):
                slopes = []
                for step in (1e-6, -1e-6):
                    moved = x.astype(np.float64)
                    moved[(n, *place)] += step
                    slopes.append(wide.run(["z"], {"image": moved})[0][n, target])
                want = (slopes[0] - slopes[1]) / 2e-6
                np.testing.assert_allclose(maps["saliency"][(n, *place)], want, rtol=1e-3, atol=1e-5)
