"""Operators without a derivative of their own, differentiated through their function bodies."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import gbp_onnx
from gbp_onnx.canonical.passes import canonical_model
from gbp_onnx.errors import OperatorError
from gbp_onnx.graph.reader import opset_of
from gbp_onnx.vjp import is_known
from gbp_onnx.vjp.listing import BY_BODY
from tests.conformance.suite import NEWEST_OPSET, OperatorTest, operator_tests
from tests.conformance.verdict import verdicts
from tests.vjp_check import session


def known_but(*gaps: str):  # type: ignore[no-untyped-def]
    return lambda domain, op, version: op not in gaps and is_known(domain, op, version)


def one_node(
    op: str, inputs: dict[str, tuple[int, ...]], opset: int, outputs: int = 1, **attrs: object
) -> onnx.ModelProto:
    names = [f"y{i or ''}" for i in range(outputs)]
    node = helper.make_node(op, list(inputs), names, name="the_node", **attrs)
    given = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()]
    graph = helper.make_graph([node], "g", given, [onnx.ValueInfoProto(name=n) for n in names])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.ModelProto.FromString(model.SerializeToString())


def feeds_of(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    random = np.random.RandomState(0)
    shapes = {i.name: [d.dim_value for d in i.type.tensor_type.shape.dim] for i in model.graph.input}
    return {n: random.uniform(-1, 1, s).astype(np.float32) for n, s in shapes.items()}


FORMS = {  # operators whose closed form the table may have: the pass is asked as if it did not
    "Gelu": one_node("Gelu", {"x": (3, 4)}, 20, approximate="tanh"),
    "Mish": one_node("Mish", {"x": (3, 4)}, 18),
    "GroupNormalization": one_node("GroupNormalization", {"x": (2, 4, 3), "s": (4,), "b": (4,)}, 21, num_groups=2),
    "MeanVarianceNormalization": one_node("MeanVarianceNormalization", {"x": (2, 3, 4, 5)}, 17),
    "LayerNormalization": one_node("LayerNormalization", {"x": (2, 3, 4), "s": (4,)}, 17),
    "Softsign": one_node("Softsign", {"x": (3, 4)}, 21),
    "RMSNormalization": one_node("RMSNormalization", {"x": (2, 3, 4), "s": (4,)}, 23),
    "Attention": one_node("Attention", {"q": (1, 2, 3, 4), "k": (1, 2, 5, 4), "v": (1, 2, 5, 4)}, 23),
}


@pytest.mark.parametrize("op", FORMS)
def test_a_body_computes_what_the_operator_does(op: str) -> None:
    model = FORMS[op]
    expanded = canonical_model(copied(model), known_but(op))
    assert op not in {n.op_type for n in expanded.graph.node}
    assert all(n.name.startswith("the_node/") for n in expanded.graph.node)
    assert [o.name for o in expanded.graph.output] == [o.name for o in model.graph.output]
    feeds = feeds_of(model)
    for got, want in zip(session(expanded).run(None, feeds), session(model).run(None, feeds), strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-6, atol=2e-6)


def test_known_operators_stay() -> None:
    model = canonical_model(copied(FORMS["Gelu"]), is_known)
    assert [(n.op_type, n.name) for n in model.graph.node] == [("Gelu", "the_node")]
    assert canonical_model(copied(FORMS["Gelu"])).graph.node == FORMS["Gelu"].graph.node


def test_a_body_with_a_gap_is_left_whole() -> None:
    model = canonical_model(copied(FORMS["Gelu"]), known_but("Gelu", "Tanh"))
    assert [n.op_type for n in model.graph.node] == ["Gelu"]


def test_random_operators_are_left_whole() -> None:
    model = one_node("Bernoulli", {"x": (3, 4)}, 22)
    assert [n.op_type for n in canonical_model(copied(model), is_known).graph.node] == ["Bernoulli"]
    with pytest.raises(OperatorError, match="Bernoulli"):
        gbp_onnx.differentiate(model)


def test_two_of_a_kind_and_taken_names() -> None:
    nodes = [
        helper.make_node("Mish", ["x"], ["m/Softplus"], name="m"),
        helper.make_node("Mish", ["m/Softplus"], ["y"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "g", [value("x", TensorProto.FLOAT, (3,))], [value("y", TensorProto.FLOAT, (3,))])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    expanded = canonical_model(copied(model), known_but("Mish"))
    names = [name for n in expanded.graph.node for name in n.output]
    assert len(set(names)) == len(names) == 6 and len({n.name for n in expanded.graph.node}) == 6
    feeds = feeds_of(model)
    np.testing.assert_allclose(session(expanded).run(None, feeds)[0], session(model).run(None, feeds)[0], rtol=2e-6)


def test_a_body_of_another_opset_is_rewritten() -> None:
    """NegativeLogLikelihoodLoss-13 has ReduceSum and Squeeze of opset 13; MeanVarianceNormalization-13 ReduceMean."""
    node = helper.make_node("NegativeLogLikelihoodLoss", ["x", "t"], ["y"], name="loss", reduction="mean")
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (3, 4))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ())],
        [numpy_helper.from_array(np.asarray([0, 3, 1]), "t")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    expanded = canonical_model(copied(model), known_but("NegativeLogLikelihoodLoss"))
    assert "NegativeLogLikelihoodLoss" not in {n.op_type for n in expanded.graph.node}
    feeds = {"x": np.arange(12, dtype=np.float32).reshape(3, 4) / 7}
    np.testing.assert_allclose(session(expanded).run(None, feeds)[0], session(model).run(None, feeds)[0], rtol=2e-6)
    built = gbp_onnx.differentiate(model, wrt=["x"])
    gradient = session(built).run(["x_grad"], {**feeds, "y_seed": np.ones((), np.float32)})[0]
    want = np.zeros((3, 4), np.float32)
    want[[0, 1, 2], [0, 3, 1]] = -1 / 3
    np.testing.assert_allclose(gradient, want, rtol=1e-6)


def test_inspect_names_what_is_in_the_file() -> None:
    """An operator with a body and an entry keeps its name and kind; one that is refused is named itself."""
    value = helper.make_tensor_value_info
    nodes = [helper.make_node("Mish", ["x"], ["y"], name="act"), helper.make_node("Bernoulli", ["y"], ["z"], name="b")]
    graph = helper.make_graph(
        nodes, "g", [value("x", TensorProto.FLOAT, (1, 3, 4, 4))], [value("z", TensorProto.FLOAT, (1, 3, 4, 4))]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    found = gbp_onnx.inspect(model)
    assert [(r["op"], r["node"]) for r in found.unsupported] == [("Bernoulli", "b")]
    del model.graph.node[1:]
    model.graph.output[0].name = "y"
    assert gbp_onnx.inspect(model).ungated == ({"name": "act", "kind": "Mish"},)


def _shipped() -> dict[str, OperatorTest]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = {}
        for test in operator_tests():
            opset = opset_of(test.model)
            if test.op in BY_BODY and len(test.model.graph.node) == 1 and opset <= NEWEST_OPSET:
                found.setdefault(test.op, test)
        return found


@pytest.mark.filterwarnings("ignore")
def test_operators_that_are_said_to_have_bodies() -> None:
    """One shipped operator test each, against differences (the conformance run has them all)."""
    tests = _shipped()
    assert len(tests) >= 5
    for test in tests.values():
        found = verdicts(test)
        assert {v.state for v in found} <= {"right", "stops", "unusable"}, found


@pytest.mark.filterwarnings("ignore")
def test_a_further_output_is_never_passed_over() -> None:
    """LayerNormalization's mean and deviation depend on x as well: their cotangents count, or are refused."""
    test = next(t for t in operator_tests() if t.name == "test_layer_normalization_2d_axis1")
    assert len(test.outputs) == 3
    assert {v.state for v in verdicts(test)} <= {"right", "refused"}


def test_attention_rows_that_are_masked_as_a_whole() -> None:
    """Softmax of -inf alone is NaN; the body puts 0 there, and the gradient is 0, not NaN."""
    model = one_node("Attention", {"q": (1, 1, 2, 3), "k": (1, 1, 2, 3), "v": (1, 1, 2, 3)}, 24)
    model.graph.node[0].input.append("mask")
    model.graph.initializer.append(numpy_helper.from_array(np.asarray([[True, True], [False, False]]), "mask"))
    feeds = feeds_of(model)
    built = session(gbp_onnx.differentiate(model))
    names = ["q_grad", "k_grad", "v_grad"]
    got = built.run(names, {**feeds, "y_seed": np.ones((1, 1, 2, 3), np.float32)})
    assert all(np.isfinite(g).all() for g in got) and not got[0][0, 0, 1].any() and got[0][0, 0, 0].any()
