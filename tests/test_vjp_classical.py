"""Operators of ai.onnx.ml: what no difference can measure, double and integer inputs, and a whole model."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import gbp_onnx
from gbp_onnx.errors import OperatorError
from tests.vjp_check import session

ML = "ai.onnx.ml"


def model(nodes: list[onnx.NodeProto], shape: list[int], kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", kind, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(ML, 3)]
    return helper.make_model(helper.make_graph(nodes, "ml", [x], [y]), opset_imports=opsets, ir_version=8)


def gradient(op: str, x: Any, kind: int = TensorProto.FLOAT, **attrs: Any) -> np.ndarray:
    x = np.asarray(x, helper.tensor_dtype_to_np_dtype(kind))
    source = model([helper.make_node(op, ["x"], ["y"], domain=ML, **attrs)], list(x.shape), kind)
    y = session(source).run(None, {"x": x})[0]
    built = session(gbp_onnx.differentiate(source, wrt="x"))
    return np.asarray(built.run(["x_grad"], {"x": x, "y_seed": np.ones_like(y)})[0])


def test_a_missing_number_gets_no_gradient() -> None:
    attrs = {"imputed_value_floats": [5.0], "replaced_value_float": -7.0}
    np.testing.assert_array_equal(gradient("Imputer", [[1, -7, 2]], **attrs), [[1, 0, 1]])


def test_a_row_of_zeros_passes_a_normalizer() -> None:
    np.testing.assert_array_equal(gradient("Normalizer", [[0.0, 0.0]], norm="L2"), [[1, 1]])


@pytest.mark.parametrize("kind", [TensorProto.DOUBLE, TensorProto.INT64])
def test_the_gradient_of_other_numbers_has_their_type_or_float32(kind: int) -> None:
    got = gradient("Scaler", [[1, 2]], kind, offset=[0.0], scale=[3.0])
    np.testing.assert_array_equal(got, [[3, 3]])
    assert got.dtype == (np.float64 if kind == TensorProto.DOUBLE else np.float32)


@pytest.mark.parametrize("op", ["LinearClassifier", "LinearRegressor"])
def test_a_probit_is_refused(op: str) -> None:
    attrs: dict[str, Any] = {"coefficients": [1.0, 2.0], "intercepts": [0.0], "post_transform": "PROBIT"}
    labels = {"classlabels_ints": [0, 1]} if op == "LinearClassifier" else {"targets": 1}
    outputs = ["label", "y"] if op == "LinearClassifier" else ["y"]
    node = helper.make_node(op, ["x"], outputs, domain=ML, **attrs, **labels)
    with pytest.raises(OperatorError, match="PROBIT"):
        gbp_onnx.differentiate(model([node], [1, 2]), outputs=["y"])


def test_a_model_of_this_domain_alone() -> None:
    source = model([helper.make_node("Scaler", ["x"], ["y"], domain=ML, offset=[1.0], scale=[2.0])], [1, 2])
    del source.opset_import[0]
    built = gbp_onnx.differentiate(source)
    feeds = {"x": np.ones((1, 2), np.float32), "y_seed": np.ones((1, 2), np.float32)}
    np.testing.assert_array_equal(session(built).run(["x_grad"], feeds)[0], [[2, 2]])


def test_a_network_with_a_classifier_of_scikit_learn_behind_it() -> None:
    """Global pooling, a scaler and a softmax regression: the explained score is the class' own."""
    random = np.random.RandomState(0)
    weights = random.uniform(-1, 1, (3, 2)).astype(np.float32)
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Scaler", ["f"], ["s"], domain=ML, offset=[0.1, 0.2], scale=[2.0, 3.0]),
        helper.make_node(
            "LinearClassifier",
            ["s"],
            ["label", "y"],
            domain=ML,
            coefficients=[float(w) for w in weights.ravel()],
            intercepts=[0.1, 0.2, 0.3],
            classlabels_ints=[0, 1, 2],
        ),
    ]
    x = random.uniform(-1, 1, (1, 2, 3, 3)).astype(np.float32)
    built = gbp_onnx.build(model(nodes, [1, 2, 3, 3]), "saliency")
    got = session(built).run(["attribution_saliency"], {"x": x, "target": np.asarray([2])})[0]
    want = (x > 0) * (weights[2] * [2.0, 3.0]).reshape(1, 2, 1, 1) / 9
    np.testing.assert_allclose(got, want, rtol=1e-5)
