"""Files as ONNX Runtime's optimiser writes them: fused nodes, and the blocked layout of its CPU kernels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import gbp_onnx
from gbp_onnx.graph.blocks import block_size, blocked_tensors
from tests.corpus import CORPUS, needs_corpus
from tests.vjp_check import session

FLOAT = TensorProto.FLOAT
RULES = ("saliency", "deconvnet", "guided")
RANDOM = np.random.RandomState(5)
FUSED = frozenset(
    {("com.microsoft", op) for op in ("FusedConv", "FusedGemm")}
    | {("gbp", op) for op in ("Clip", "Softplus", "Softsign")}
    | {("com.microsoft.nchwc", op) for op in ("Conv", "MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool")}
    | {("com.microsoft.nchwc", op) for op in ("Upsample", "ReorderInput", "ReorderOutput")}
)
"""Entries of the derivative table that are checked here, against the standard operators."""


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, Sequence[Any]],
    weights: dict[str, np.ndarray],
    output: str,
    rank: int = 4,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(n, FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(output, FLOAT, [None] * rank)],
        [numpy_helper.from_array(w, n) for n, w in weights.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    opsets += [helper.make_opsetid(d, 1) for d in sorted({n.domain for n in nodes} - {""})]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def weight(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def gradients(net: onnx.ModelProto, feeds: dict[str, np.ndarray], rule: str, seed: np.ndarray) -> list[np.ndarray]:
    built = gbp_onnx.differentiate(net, rule=rule)
    onnx.checker.check_model(built)
    forward = [(n.op_type, n.input, n.output[:1]) for n in net.graph.node]
    assert [(n.op_type, n.input, n.output[:1]) for n in built.graph.node[: len(forward)]] == forward
    name = f"{net.graph.output[0].name}_seed"
    return session(built).run([f"{i.name}_grad" for i in net.graph.input], {**feeds, name: seed})


# --- FusedConv, FusedGemm -----------------------------------------------------------------------------------------

ACTIVATIONS: dict[str, tuple[str, dict[str, float], list[float], int]] = {
    # name of the case: operator, attributes in standard form, activation_params, rectifiers
    "relu": ("Relu", {}, [], 1),
    "tanh": ("Tanh", {}, [], 0),
    "sigmoid": ("Sigmoid", {}, [], 0),
    "leaky": ("LeakyRelu", {"alpha": 0.3}, [0.3], 0),
    "slope 0": ("LeakyRelu", {"alpha": 0.0}, [0.0], 1),
    "relu6": ("Clip", {"min": 0.0, "max": 2.0}, [0.0, 2.0], 1),
    "open clip": ("Clip", {"min": 0.0, "max": 3.4028234663852886e38}, [0.0, 3.4028234663852886e38], 1),
    "clip": ("Clip", {"min": -1.0, "max": 1.5}, [-1.0, 1.5], 0),
    "hard sigmoid": ("HardSigmoid", {"alpha": 0.3, "beta": 0.4}, [0.3, 0.4], 0),
}
GEMM_ACTIVATIONS = {
    "elu": ("Elu", {"alpha": 0.7}, [], 0),
    "selu": ("Selu", {"alpha": 1.5, "gamma": 1.1}, [], 0),
    "softplus": ("Softplus", {}, [], 0),
    "softsign": ("Softsign", {}, [], 0),
    "thresholded": ("ThresholdedRelu", {"alpha": 0.5}, [], 1),
}


def activation(kind: str, attrs: dict[str, float], x: str, y: str) -> tuple[onnx.NodeProto, dict[str, np.ndarray]]:
    if kind != "Clip":
        return helper.make_node(kind, [x], [y], "act", **attrs), {}
    bounds = {name: np.float32(value) for name, value in attrs.items()}
    return helper.make_node(kind, [x, "min", "max"], [y], "act"), {k: np.asarray(v) for k, v in bounds.items()}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("form", ["bias", "no bias", "sum", "sum, no bias"])
@pytest.mark.parametrize("case", ACTIVATIONS)
def test_a_fused_conv_has_the_gradient_of_its_parts(case: str, form: str, rule: str) -> None:
    kind, attrs, params, rectifiers = ACTIVATIONS[case]
    shape, added = [2, 4, 7, 6], [2, 6, 4, 3]
    weights = {"w": weight(6, 2, 3, 3)} | ({} if "no bias" in form else {"b": weight(6)})
    conv = {"group": 2, "strides": [2, 2], "pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}
    inputs = {"x": shape} | ({"z": added} if form.startswith("sum") else {})
    reads = ["x", "w", "b" if "b" in weights else ""]
    act, bounds = activation(kind, attrs, "t", "y")
    apart = [helper.make_node("Conv", reads[: 3 if reads[2] else 2], ["s"], "conv", **conv)]
    apart += [helper.make_node("Add", ["s", "z"], ["t"])] if "z" in inputs else []
    apart[-1].output[0] = "t"
    plain = model([*apart, act], inputs, weights | bounds, "y")
    reads = [*reads, "z"] if "z" in inputs else reads[: 3 if reads[2] else 2]
    fused_node = helper.make_node("FusedConv", reads, ["y"], "conv", domain="com.microsoft", activation=kind, **conv)
    if params:
        fused_node.attribute.append(helper.make_attribute("activation_params", params))
    fused = model([fused_node], inputs, weights, "y")
    feeds = {n: weight(*s) for n, s in inputs.items()}
    seed = weight(*added)
    for a, b in zip(gradients(plain, feeds, rule, seed), gradients(fused, feeds, rule, seed), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * np.abs(a).max())
    seen = gbp_onnx.inspect(fused)
    assert [r["name"] for r in seen.rectifiers] == ["conv"] * rectifiers
    assert [r["kind"] for r in seen.rectifiers] == [f"FusedConv[{kind}]"] * rectifiers
    assert [u["kind"] for u in seen.ungated] == [kind] * (1 - rectifiers)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("case", [*ACTIVATIONS, *GEMM_ACTIVATIONS])
def test_a_fused_gemm_has_the_gradient_of_its_parts(case: str, rule: str) -> None:
    kind, attrs, _, rectifiers = (ACTIVATIONS | GEMM_ACTIVATIONS)[case]
    if kind == "Clip":
        pytest.skip("ONNX Runtime does not fuse Clip into Gemm")
    gemm = {"alpha": 0.5, "beta": 2.0, "transB": 1}
    weights = {"w": weight(5, 12), "b": weight(5)}
    flat = helper.make_node("Flatten", ["x"], ["f"], axis=1)
    act, _ = activation(kind, attrs, "t", "y")
    plain = model([flat, helper.make_node("Gemm", ["f", "w", "b"], ["t"], "g", **gemm), act], {"x": [3, 3, 2, 2]},
                  weights, "y", 2)  # fmt: skip
    extra = {f"activation_{k}": v for k, v in attrs.items()}
    node = helper.make_node(
        "FusedGemm", ["f", "w", "b"], ["y"], "g", domain="com.microsoft", activation=kind, **gemm, **extra
    )
    fused = model([flat, node], {"x": [3, 3, 2, 2]}, weights, "y", 2)
    feeds, seed = {"x": weight(3, 3, 2, 2)}, weight(3, 5)
    (a,), (b,) = gradients(plain, feeds, rule, seed), gradients(fused, feeds, rule, seed)
    np.testing.assert_allclose(a, b, rtol=0, atol=2e-6 * np.abs(a).max())
    seen = gbp_onnx.inspect(fused, explain="output")
    assert [r["kind"] for r in seen.rectifiers] == [f"FusedGemm[{kind}]"] * rectifiers


def test_an_activation_that_its_output_does_not_tell_is_refused() -> None:
    node = helper.make_node(
        "FusedConv", ["x", "w"], ["y"], "conv", domain="com.microsoft", activation="LeakyRelu", activation_params=[-0.5]
    )
    net = model([node], {"x": [1, 2, 5, 5]}, {"w": weight(3, 2, 3, 3)}, "y")
    with pytest.raises(gbp_onnx.GbpError, match="LeakyRelu has a derivative that the output does not tell"):
        gbp_onnx.build(net)


# --- com.microsoft.nchwc ------------------------------------------------------------------------------------------


def optimised(net: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """The model as ONNX Runtime's optimiser leaves it for this CPU."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(path)
    ort.InferenceSession(net.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(path)


def _net(
    *steps: tuple[str, list[str], str, dict[str, Any]], x: Sequence[Any], **weights: np.ndarray
) -> onnx.ModelProto:
    nodes = [helper.make_node(o, i, [y], f"{o}_{y}", **a) for o, i, y, a in steps]
    return model(nodes, {"x": x}, weights, "y")


K3 = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
STEM = ("Conv", ["x", "w0", "b0"], "s", K3)
NETS = {
    "stem": _net(STEM, ("Relu", ["s"], "y", {}), x=[2, 3, 9, 8], w0=weight(16, 3, 3, 3), b0=weight(16)),
    "open sizes": _net(
        STEM,
        ("Relu", ["s"], "r", {}),
        ("Conv", ["r", "w1"], "y", {"strides": [2, 2], **K3}),
        x=["n", 3, "h", "w"],
        w0=weight(8, 3, 3, 3),
        b0=weight(8),
        w1=weight(24, 8, 3, 3),
    ),
    "depthwise, relu6": _net(
        STEM,
        ("Clip", ["s", "lo", "hi"], "r", {}),
        ("Conv", ["r", "w1"], "d", {"group": 24, **K3}),
        ("Clip", ["d", "lo", "hi"], "y", {}),
        x=[1, 3, 9, 8],
        w0=weight(24, 3, 3, 3),
        b0=weight(24),
        w1=weight(24, 1, 3, 3),
        lo=np.float32(0),
        hi=np.float32(2),
    ),
    "grouped, channels not whole blocks": _net(
        STEM,
        ("Tanh", ["s"], "r", {}),
        ("Conv", ["r", "w1"], "g", {"group": 2, **K3}),
        ("LeakyRelu", ["g"], "l", {"alpha": 0.2}),
        ("Conv", ["l", "w2"], "y", {}),
        x=[1, 3, 9, 8],
        w0=weight(32, 3, 3, 3),
        b0=weight(32),
        w1=weight(32, 16, 3, 3),
        w2=weight(12, 32, 1, 1),
    ),
    "residual": _net(
        STEM,
        ("Relu", ["s"], "r", {}),
        ("Conv", ["r", "w1"], "c", K3),
        ("Add", ["c", "r"], "a", {}),
        ("Relu", ["a"], "y", {}),
        x=[2, 3, 6, 6],
        w0=weight(16, 3, 3, 3),
        b0=weight(16),
        w1=weight(16, 16, 3, 3),
    ),
    "max pool, concat": _net(
        STEM,
        ("Relu", ["s"], "r", {}),
        ("MaxPool", ["r"], "m", {"kernel_shape": [3, 3], "strides": [2, 2]}),
        ("Conv", ["m", "w1"], "c", {}),
        ("Conv", ["m", "w2"], "d", K3),
        ("Concat", ["c", "d"], "y", {"axis": 1}),
        x=[2, 3, 9, 8],
        w0=weight(16, 3, 3, 3),
        b0=weight(16),
        w1=weight(8, 16, 1, 1),
        w2=weight(16, 16, 3, 3),
    ),
    "average pool with pads": _net(
        STEM,
        ("AveragePool", ["s"], "m", {"strides": [2, 2], **K3}),
        ("Conv", ["m", "w1"], "c", K3),
        ("GlobalAveragePool", ["c"], "y", {}),
        x=[1, 3, 9, 8],
        w0=weight(16, 3, 3, 3),
        b0=weight(16),
        w1=weight(16, 16, 3, 3),
    ),
    "global max pool": _net(
        STEM, ("GlobalMaxPool", ["s"], "y", {}), x=[2, 3, 6, 6], w0=weight(16, 3, 3, 3), b0=weight(16)
    ),
    "upsample nearest": _net(
        STEM,
        ("Resize", ["s", "", "sc"], "u", {"mode": "nearest", "nearest_mode": "floor",
                                          "coordinate_transformation_mode": "asymmetric"}),
        ("Conv", ["u", "w1"], "y", K3),
        x=[1, 3, 5, 4], w0=weight(16, 3, 3, 3), b0=weight(16), w1=weight(8, 16, 3, 3),
        sc=np.array([1, 1, 2, 3], np.float32),
    ),
    **{
        f"upsample linear, {how}": _net(
            STEM,
            ("Resize", ["s", "", "sc"], "u", {"mode": "linear", "coordinate_transformation_mode": how}),
            ("Conv", ["u", "w1"], "y", K3),
            x=[1, 3, 5, 4], w0=weight(16, 3, 3, 3), b0=weight(16), w1=weight(8, 16, 3, 3),
            sc=np.array([1, 1, 2, 2], np.float32),
        )
        for how in ("asymmetric", "half_pixel", "align_corners")
    },
    "standard in the middle": _net(
        STEM,
        ("Pad", ["s", "p"], "q", {"mode": "reflect"}),
        ("Conv", ["q", "w1"], "y", {"kernel_shape": [3, 3]}),
        x=[1, 3, 6, 6],
        w0=weight(24, 3, 3, 3),
        b0=weight(24),
        w1=weight(8, 24, 3, 3),
        p=np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    ),
    "channels last": _net(
        ("Transpose", ["x"], "t", {"perm": [0, 3, 1, 2]}),
        ("Conv", ["t", "w0", "b0"], "s", K3),
        ("Relu", ["s"], "r", {}),
        ("Conv", ["r", "w1"], "c", {}),
        ("Transpose", ["c"], "y", {"perm": [0, 2, 3, 1]}),
        x=[1, 6, 5, 16],
        w0=weight(16, 16, 3, 3),
        b0=weight(16),
        w1=weight(8, 16, 1, 1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", NETS)
def test_a_blocked_net_has_the_gradient_of_the_standard_one(name: str, rule: str, tmp_path: Path) -> None:
    plain = NETS[name]
    net = optimised(plain, tmp_path / "net.onnx")
    if not any(n.domain == "com.microsoft.nchwc" for n in net.graph.node):
        pytest.skip("this CPU has no blocked kernels")
    x = weight(
        *(d.dim_value or s for d, s in zip(net.graph.input[0].type.tensor_type.shape.dim, (2, 3, 7, 6), strict=True))
    )
    seed = weight(*session(plain).run(None, {"x": x})[0].shape)
    (a,), (b,) = gradients(plain, {"x": x}, rule, seed), gradients(net, {"x": x}, rule, seed)
    np.testing.assert_allclose(a, b, rtol=0, atol=3e-6 * np.abs(a).max())
    built = gbp_onnx.build(net, rule)
    assert {o.domain: o.version for o in built.opset_import} == {o.domain: o.version for o in net.opset_import}
    forward = session(net).run(None, {"x": x})[0]
    assert np.array_equal(session(built).run(["y"], {"x": x, "target": np.zeros(len(x), np.int64)})[0], forward)
    kinds = [r["kind"] for r in gbp_onnx.inspect(net).rectifiers]
    assert len(kinds) == len(gbp_onnx.inspect(plain).rectifiers)


def test_the_nets_hold_every_blocked_operator(tmp_path: Path) -> None:
    nets = [optimised(net, tmp_path / "net.onnx") for net in NETS.values()]
    met = {n.op_type for net in nets for n in net.graph.node if n.domain == "com.microsoft.nchwc"}
    pools = {"MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool"}
    assert met in (set(), {"Conv", "Upsample", "ReorderInput", "ReorderOutput"} | pools)


def _conv(weight_name: str, x: str, y: str, group: int = 1) -> onnx.NodeProto:
    return helper.make_node("Conv", [x, weight_name], [y], domain="com.microsoft.nchwc", group=group)


def test_the_block_size_follows_from_the_weights_where_they_tell() -> None:
    nodes = [_conv("a", "x", "s"), _conv("b", "s", "t")]
    blocked = blocked_tensors(nodes)
    assert blocked == {"s", "t"}
    assert block_size(nodes, {"a": [24, 3, 3, 3], "b": [16, 24, 1, 1]}, blocked) == 8
    assert block_size(nodes, {"a": [32, 10, 3, 3], "b": [16, 32, 1, 1]}, blocked) == 16  # 10 channels read unblocked
    assert block_size(nodes, {"a": [32, 3, 3, 3], "b": [16, 32, 1, 1]}, blocked) is None


def test_blocks_of_sixteen_are_undone_too() -> None:
    """A file from a CPU with wider registers: here its forward is nonsense, but Conv's gradient reads none of it."""
    w0, w1 = weight(32, 10, 3, 3), weight(16, 32, 1, 1)
    pieces = w1.reshape(1, 16, 2, 16, 1, 1).transpose(0, 2, 4, 5, 3, 1).reshape(w1.shape)
    first = w0.reshape(2, 16, 10, 3, 3).transpose(0, 2, 3, 4, 1).reshape(w0.shape)
    last = helper.make_node("ReorderOutput", ["t"], ["y"], domain="com.microsoft.nchwc", channels=16, channels_last=0)
    nodes = [_conv("a", "x", "s"), _conv("b", "s", "t"), last]
    net = model(nodes, {"x": [1, 10, 6, 6]}, {"a": first, "b": pieces}, "y")
    plain = model(
        [helper.make_node("Conv", ["x", "a"], ["s"]), helper.make_node("Conv", ["s", "b"], ["y"])],
        {"x": [1, 10, 6, 6]}, {"a": w0, "b": w1}, "y",
    )  # fmt: skip
    seed, built = weight(1, 16, 4, 4), gbp_onnx.differentiate(net)
    (expected,) = gradients(plain, {"x": weight(1, 10, 6, 6)}, "saliency", seed)
    backward = onnx.ModelProto()
    backward.CopyFrom(built)  # the backward part alone
    del backward.graph.node[:3], backward.graph.output[:1]
    (got,) = session(backward).run(["x_grad"], {"x": weight(1, 10, 6, 6), "y_seed": seed})
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


# --- real models --------------------------------------------------------------------------------------------------


@needs_corpus
@pytest.mark.parametrize("level", ["ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL"])
@pytest.mark.parametrize(
    ("name", "rectifiers"),
    [
        ("squeezenet11_imagenet_ts_op17", 26),
        ("mobilenetv2_tv_imagenet_ts_op11", 35),
        ("keras_resnet8_cifar10_tf2onnx", 7),
    ],
)
def test_an_optimised_file_has_the_maps_of_its_source(name: str, rectifiers: int, level: str, tmp_path: Path) -> None:
    source, path = CORPUS / "models" / f"{name}.onnx", tmp_path / "optimised.onnx"
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    options.optimized_model_filepath = str(path)
    ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    assert len(gbp_onnx.inspect(path).rectifiers) == rectifiers
    of_source, of_file = (gbp_onnx.Explainer(m, None, providers="cpu") for m in (source, path))
    image = CORPUS / "images" / "pytorch_hub_dog_samoyed.jpg"
    a, b = (e.explain(image, target=3) for e in (of_source, of_file))
    for rule in RULES:
        left, right = a.attributions[rule], b.attributions[rule]
        np.testing.assert_allclose(left, right, rtol=0, atol=1e-4 * np.abs(left).max())
