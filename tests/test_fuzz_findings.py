"""What random graphs, compared with an independent evaluation, once got wrong: each finding, as small as it goes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
import pytest
from onnx import numpy_helper

import gbp_onnx
from gbp_onnx.errors import GbpError

RULES = ("saliency", "deconvnet", "guided")


def model(text: str, weights: dict[str, Any] | None = None, opset: int = 17) -> onnx.ModelProto:
    """A model in ONNX's textual form, with initializers besides."""
    parsed = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]> {text}')
    for name, value in (weights or {}).items():
        parsed.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return parsed


def attribute(source: onnx.ModelProto, x: np.ndarray[Any, Any], target: Any = None) -> dict[str, np.ndarray[Any, Any]]:
    return gbp_onnx.Explainer(source, RULES, providers="cpu").attribute(x, target)


@pytest.mark.parametrize("cap", ["Min(a, c)", "Clip(a, , c)"])
@pytest.mark.parametrize("last", ["Relu(b)", "Max(b, zero)"])
def test_a_rectifier_before_a_cap_before_a_rectifier_stays_one(cap: str, last: str) -> None:
    weights = {"c": np.float32(2), "zero": np.float32(0)}
    found = model(f"g (float[1, 1, 2, 2] x) => (float[1, 1, 2, 2] y) {{ a = Relu(x) b = {cap} y = {last} }}", weights)
    assert len(gbp_onnx.inspect(found).rectifiers) == 2
    x = np.array([[[[-1, 1], [3, -2]]]], np.float32)
    maps = attribute(found, x, 0)
    assert maps["deconvnet"].ravel().tolist() == [1, 0, 0, 0]
    assert maps["guided"].ravel().tolist() == [0, 0, 0, 0]


def test_signals_have_a_batch_axis_where_a_convolution_reads_them() -> None:
    weights = {"w": np.ones((1, 1, 1), np.float32)}
    found = model("g (float[N, 1, 3] x) => (float[N, 3] y) { h = Conv(x, w) y = Flatten(h) }", weights)
    maps = attribute(found, np.zeros((2, 1, 3), np.float32), [0, 2])
    assert maps["saliency"].tolist() == [[[1, 0, 0]], [[0, 0, 1]]]
    fixed = model("g (float[1, 1, 3] x) => (float[1, 3] y) { h = Conv(x, w) y = Flatten(h) }", weights)
    assert attribute(fixed, np.zeros((2, 1, 3), np.float32), [0, 2])["saliency"].shape == (2, 1, 3)
    with pytest.raises(GbpError, match="signals"):
        gbp_onnx.Explainer(fixed).explain(np.zeros((4, 4, 3), np.uint8))


def test_a_picture_without_a_batch_axis_is_one_picture() -> None:
    found = model("g (float[3, 4, 4] x) => (float[48] y) { s = Constant<value = int64[1] {-1}>() y = Reshape(x, s) }")
    assert attribute(found, np.zeros((3, 4, 4), np.float32), 17)["saliency"].argmax() == 17


def test_a_stale_output_declaration_is_taken_back() -> None:
    weights = {"w": np.eye(5, dtype=np.float32)}
    found = model(
        "g (float[N, 5, 1, 1] x) => (float[1, 5] y) { f = Flatten(x) l = Gemm(f, w) y = Softmax(l) }", weights
    )
    x = np.random.default_rng(0).normal(size=(3, 5, 1, 1)).astype(np.float32)
    built = gbp_onnx.build(found)
    session = ort.InferenceSession(built.SerializeToString())
    maps = session.run(["attribution_guided"], {"x": x, "target": np.array([0, 1, 2])})[0]
    assert np.array_equal(maps[:, :, 0, 0], np.eye(5)[:3])
    gradient = ort.InferenceSession(gbp_onnx.differentiate(found).SerializeToString())
    assert gradient.run(["x_grad"], {"x": x, "y_seed": np.ones((3, 5), np.float32)})[0].shape == x.shape


@pytest.mark.parametrize(("op", "code"), [("MaxPool", "GBP202"), ("AveragePool", "GBP202")])
def test_a_pooling_window_that_only_ceil_mode_counts_is_refused(op: str, code: str) -> None:
    attrs = "kernel_shape=[2,2], strides=[2,2], pads=[1,1,1,1], ceil_mode=1"
    text = f"g (float[N, 1, 5, 5] x) => (float[N, 1, 1, 1] y) {{ p = {op}<{attrs}>(x) y = GlobalAveragePool(p) }}"
    with pytest.raises(GbpError, match="ceil_mode") as refusal:
        gbp_onnx.build(model(text))
    assert refusal.value.code == code
    assert gbp_onnx.build(model(text, opset=22))


def test_a_window_larger_than_its_input_is_refused() -> None:
    """ONNX says that the result is empty; ONNX Runtime computes one partial window of an AveragePool."""
    with pytest.raises(GbpError, match="larger than its padded input"):
        gbp_onnx.build(
            model("g (float[1, 1, 2, 6] x) => (float[1, 1, 1, 6] y) { y = AveragePool<kernel_shape=[3,1]>(x) }")
        )


@pytest.mark.parametrize("opset", [11, 12])
def test_empty_inputs_of_an_old_resize_behind_identity(opset: int) -> None:
    weights = {"none": np.zeros(0, np.float32), "sizes": np.array([1, 1, 4, 4], np.int64)}
    text = """g (float[1, 1, 2, 2] x) => (float[1, 1, 4, 4] y) {
        roi = Identity(none) scales = Identity(none) y = Resize(x, roi, scales, sizes) }"""
    assert attribute(model(text, weights, opset), np.ones((1, 1, 2, 2), np.float32), 5)["saliency"].sum() == 1


@pytest.mark.parametrize(
    ("op", "opset"), [("GroupNormalization<num_groups=2>(x, s, s)", 18), ("MeanVarianceNormalization(x)", 17)]
)
def test_shapes_go_on_behind_operators_with_a_function_body(op: str, opset: int) -> None:
    weights = {"s": np.ones(2 if opset == 18 else 4, np.float32)}
    text = f"g (float[1, 4, 3, 3] x) => (float[1, 4, 1, 1] y) {{ n = {op} r = Relu(n) y = GlobalAveragePool(r) }}"
    if opset != 18:
        weights = {}
    x = np.random.default_rng(0).normal(size=(1, 4, 3, 3)).astype(np.float32)
    assert attribute(model(text, weights, opset), x, 1)["guided"].any()


def test_axes_and_sizes_may_lie_behind_identity() -> None:
    weights = {"sizes": np.array([1, 2], np.int64), "axis": np.array([2], np.int64)}
    text = """g (float[N, 3, 4, 4] x) => (float[N, 2, 1, 1] y) {
        s = Identity(sizes) a = Identity(axis) p, q = Split<axis=1>(x, s) u = Unsqueeze(q, a) v = Squeeze(u, a)
        y = GlobalMaxPool(v) }"""
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 4)).astype(np.float32)
    assert attribute(model(text, weights), x, 1)["saliency"].sum() == 2


def test_a_long_chain_is_no_recursion() -> None:
    steps = "".join(f" t{k + 1} = Sin(t{k})" for k in range(1500))
    chain = model(f"g (float[1, 1, 1, 1] t0) => (float[1, 1, 1, 1] t1500) {{{steps} }}", {})
    assert attribute(chain, np.zeros((1, 1, 1, 1), np.float32), 0)["saliency"] == 1
