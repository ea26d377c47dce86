"""A graph whose sizes do not fit: what is made of it has no type, which is said."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import gbp_onnx
from gbp_onnx.errors import ModelError


def test_a_product_that_does_not_fit_is_no_traceback() -> None:
    random = np.random.RandomState(0)
    weights = {"w": random.standard_normal((8, 3, 3, 3)), "d": random.standard_normal((10, 5))}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("Gemm", ["f", "d"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "unfit",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 5])],
        [numpy_helper.from_array(v.astype(np.float32), n) for n, v in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert isinstance(model, onnx.ModelProto)
    with pytest.raises(ModelError, match="'logits'") as caught:
        gbp_onnx.build(model)
    assert caught.value.code == "GBP103"
