"""Half precision: float16 and bfloat16 models. The backward graph computes in float32."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import gbp_onnx
from tests.corpus import CORPUS, needs_corpus
from tests.vjp_check import session

RANDOM = np.random.RandomState(3)
TYPES = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16, TensorProto.BFLOAT16: ml_dtypes.bfloat16}


def converted(model: onnx.ModelProto, source: int, to: int) -> onnx.ModelProto:
    """The model with every tensor of one float type in another."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    tensors = [*made.graph.initializer, *(a.t for n in made.graph.node for a in n.attribute if a.name == "value")]
    for tensor in tensors:
        if tensor.data_type == source:
            array = numpy_helper.to_array(tensor).astype(TYPES[to])
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    for value in (*made.graph.input, *made.graph.output, *made.graph.value_info):
        if value.type.tensor_type.elem_type == source:
            value.type.tensor_type.elem_type = to
    for node in made.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == source:
                attribute.i = to
    return made


def chain(depth: int, gain: float, opset: int = 22) -> onnx.ModelProto:
    """`depth` convolutions whose weights shrink the gradient, and a last one that makes up for it in the forward."""
    nodes, weights, x = [], {}, "x"
    for k in range(depth):
        weights[f"w{k}"] = (RANDOM.uniform(0.5, 1.5, (4, 4, 1, 1)) * gain / 4).astype(np.float32)
        weights[f"b{k}"] = np.full(4, 1 - gain, np.float32)
        nodes.append(helper.make_node("Conv", [x, f"w{k}", f"b{k}"], [f"c{k}"]))
        nodes.append(helper.make_node("Relu", [f"c{k}"], [f"r{k}"]))
        x = f"r{k}"
    nodes.append(helper.make_node("GlobalAveragePool", [x], ["g"]))
    nodes.append(helper.make_node("Flatten", ["g"], ["scores"]))
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 3, 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(w, n) for n, w in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize("rule", ["saliency", "deconvnet", "guided"])
def test_gradients_below_the_range_of_half_precision_come_out(rule: str) -> None:
    """0.1^8 / 9 is a sixth of float16's smallest number: half-precision cotangents would be zero."""
    wide = chain(8, 0.1)
    half = converted(wide, TensorProto.FLOAT, TensorProto.FLOAT16)
    x = RANDOM.uniform(0.5, 1, (1, 4, 3, 3)).astype(np.float16)
    maps = [
        session(gbp_onnx.build(m, rule)).run([f"attribution_{rule}"], {"x": x.astype(t), "target": np.array([2])})[0]
        for m, t in ((wide, np.float32), (half, np.float16))
    ]
    assert maps[1].dtype == np.float32
    assert 0 < np.abs(maps[0]).max() < 6e-8
    np.testing.assert_allclose(maps[1], maps[0], rtol=5e-3)


def test_nothing_of_the_backward_part_is_in_half_precision() -> None:
    """No cotangent on the way: only casts of what the forward part made, and comparisons with it, read float16."""
    half = converted(chain(3, 0.5), TensorProto.FLOAT, TensorProto.FLOAT16)
    built = gbp_onnx.build(half, "guided")
    backward = built.graph.node[len(half.graph.node) :]
    inferred = onnx.shape_inference.infer_shapes(built)
    kinds = {v.name: v.type.tensor_type.elem_type for v in inferred.graph.value_info}
    assert any(n.op_type == "ConvTranspose" for n in backward)
    assert TensorProto.FLOAT16 not in {kinds.get(name) for n in backward for name in n.output}


def test_the_plain_gradient_keeps_the_type_of_its_input() -> None:
    half = converted(chain(2, 0.5), TensorProto.FLOAT, TensorProto.FLOAT16)
    built = gbp_onnx.differentiate(half)
    types = {v.name: v.type.tensor_type.elem_type for v in (*built.graph.input, *built.graph.output)}
    assert types == dict.fromkeys(("x", "scores_seed", "scores", "x_grad"), TensorProto.FLOAT16)
    feeds = {"x": np.ones((1, 4, 3, 3), np.float16), "scores_seed": np.ones((1, 4), np.float16)}
    assert session(built).run(["x_grad"], feeds)[0].dtype == np.float16


def test_bfloat16_runs_in_float32_on_the_cpu_and_says_so() -> None:
    wide = chain(3, 0.5)
    small = converted(wide, TensorProto.FLOAT, TensorProto.BFLOAT16)
    again = converted(small, TensorProto.BFLOAT16, TensorProto.FLOAT)
    assert gbp_onnx.build(small).graph.output[-1].type.tensor_type.elem_type == TensorProto.FLOAT
    x = RANDOM.uniform(0.5, 1, (1, 4, 3, 3)).astype(np.float32)
    of_small, of_again = (gbp_onnx.Explainer(m, providers="cpu") for m in (small, again))
    a, b = (e.attribute(x, 1)["guided"] for e in (of_small, of_again))
    assert a.any() and np.array_equal(a, b)
    said = of_small.explain(np.zeros((3, 3, 3), np.uint8)).warnings
    assert any("bfloat16" in line and "float32" in line for line in said)


@needs_corpus
def test_float16_squeezenet_has_the_maps_of_its_float32_cast() -> None:
    half = onnx.load(CORPUS / "models" / "winml_squeezenet_fp16.onnx")
    wide = converted(half, TensorProto.FLOAT16, TensorProto.FLOAT)
    rules = ("saliency", "guided")
    of_half, of_wide = (gbp_onnx.Explainer(m, rules, providers="cpu", preprocess="keras-caffe") for m in (half, wide))
    for name in ("pytorch_hub_dog_samoyed.jpg", "winml_kitten.png", "imagenet_n02504458_African_elephant.JPEG"):
        path: Path = CORPUS / "images" / name
        b = of_wide.explain(path)
        a = of_half.explain(path, target=b.target)
        assert a.attributions["guided"].dtype == np.float32
        assert cosine(a.attributions["guided"], b.attributions["guided"]) >= 0.999
        x = RANDOM.uniform(-100, 100, (1, 3, 224, 224)).astype(np.float16)  # what both take as it is
        for rule in rules:
            maps = [e.attribute(x, b.target)[rule] for e in (of_half, of_wide)]
            assert cosine(*maps) >= 0.99999
