"""Sizes that the file does not say: any of them, symbols that repeat, -1, not even the rank."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import gbp_onnx
from tests.vjp_check import session

RANDOM = np.random.RandomState(7)
SHAPE = (2, 3, 13, 10)


def net() -> onnx.ModelProto:
    """Strides, pools, branches, a residual sum, a Resize back, a classifier: [N, 3, H, W] -> [N, 6]."""
    weights = {
        "w0": RANDOM.standard_normal((8, 3, 3, 3)),
        "w1": RANDOM.standard_normal((8, 8, 3, 3)) / 8,
        "w2": RANDOM.standard_normal((4, 8, 1, 1)),
        "dense": RANDOM.standard_normal((12, 6)),
        "gain": RANDOM.uniform(0.5, 1, 8),
        "zero": np.zeros(8),
        "one": np.ones(8),
    }
    scales = np.array([1, 1, 2, 2], np.float32)
    nodes = [
        helper.make_node("Pad", ["x", "pads"], ["p"]),
        helper.make_node("Conv", ["p", "w0"], ["c0"], strides=[2, 2]),
        helper.make_node("BatchNormalization", ["c0", "gain", "zero", "zero", "one"], ["n0"]),
        helper.make_node("LeakyRelu", ["n0"], ["r0"], alpha=0.1),
        helper.make_node("Conv", ["r0", "w1"], ["c1"], auto_pad="SAME_UPPER"),
        helper.make_node("Sum", ["c1", "r0"], ["s"]),
        helper.make_node("Relu", ["s"], ["r1"]),
        helper.make_node("MaxPool", ["r1"], ["m"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Resize", ["m", "", "scales"], ["u"], mode="linear"),
        helper.make_node("AveragePool", ["u"], ["a"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["a", "w2"], ["c2"]),
        helper.make_node("Concat", ["c2", "a"], ["j"], axis=1),
        helper.make_node("GlobalAveragePool", ["j"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("MatMul", ["f", "dense"], ["z"]),
        helper.make_node("Softmax", ["z"], ["y"]),
    ]
    stored = [numpy_helper.from_array(np.asarray(w, np.float32), n) for n, w in weights.items()]
    stored += [numpy_helper.from_array(scales, "scales")]
    stored += [numpy_helper.from_array(np.array([0, 0, 1, 1, 0, 0, 1, 1]), "pads")]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 6])],
        stored,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _sizes(*named: str | int) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        for dim, size in zip(model.graph.input[0].type.tensor_type.shape.dim, named, strict=True):
            dim.Clear()
            if isinstance(size, int):
                dim.dim_value = size
            elif size:
                dim.dim_param = size

    return change


def _no_shape(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.ClearField("shape")


CHANGES = {
    "batch": _sizes("n", 3, 13, 10),
    "height and width": _sizes(2, 3, "h", "w"),
    "all": _sizes("n", "c", "h", "w"),
    "all without a name": _sizes("", "", "", ""),
    "one symbol for two sizes": _sizes("n", 3, "?", "?"),
    "one symbol for all": _sizes("?", "?", "?", "?"),
    "minus one": _sizes(-1, 3, -1, -1),
    "no shape": _no_shape,
}


@pytest.mark.parametrize("rule", ["saliency", "deconvnet", "guided"])
@pytest.mark.parametrize("change", CHANGES)
def test_open_sizes_give_the_same_maps(change: str, rule: str) -> None:
    static, x, target = net(), RANDOM.standard_normal(SHAPE).astype(np.float32), np.array([1, 4])
    opened = onnx.ModelProto()
    opened.CopyFrom(static)
    CHANGES[change](opened)
    opened.graph.output[0].type.tensor_type.ClearField("shape")
    a, b = (
        session(gbp_onnx.build(m, rule)).run(["y", f"attribution_{rule}"], {"x": x, "target": target})
        for m in (static, opened)
    )
    np.testing.assert_allclose(a[0], b[0], rtol=2e-4, atol=1e-7)  # sums in another order, depending on the runtime
    np.testing.assert_allclose(a[1], b[1], rtol=0, atol=2e-6 * np.abs(a[1]).max())


def test_an_open_model_takes_photographs_of_any_size() -> None:
    model = net()
    CHANGES["all"](model)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    for size in ((60, 80), (33, 21)):
        photo = RANDOM.randint(0, 256, (*size, 3)).astype(np.uint8)
        preprocess = f"imagenet,size={size[0]}x{size[1]},resize=stretch"
        found = gbp_onnx.Explainer(model, providers="cpu", preprocess=preprocess).explain(photo)
        assert found.attributions["guided"].shape == (*size, 3) and found.attributions["guided"].any()
