"""The oracle itself: against ONNX's own cases, ONNX Runtime, finite differences, NumPy re-statements and captum."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

torch = pytest.importorskip("torch")

from tests.oracle import run_corpus  # noqa: E402
from tests.oracle.torch_ops import OPS  # noqa: E402
from tests.oracle.torch_oracle import (  # noqa: E402
    Unsupported,
    compare,
    float32_activations,
    forward,
    oracle,
    randomise_weights,
    session,
)

RULES = ("saliency", "deconvnet", "guided")
FLOAT_MODELS = sorted(p for p in (run_corpus.CORPUS / "models").glob("*.onnx") if p.stem not in run_corpus.SKIP)
SMALL_LIGHT = ("densenet121", "inception_v1", "shufflenet", "squeezenet")  # the others: run_corpus --light
SLOW = {"ort_simplified_ssd"}  # run_corpus has it
needs_corpus = pytest.mark.skipif(not FLOAT_MODELS, reason=f"no corpus at {run_corpus.CORPUS} (GBP_CORPUS)")


def net(
    nodes: list[onnx.NodeProto],
    x_shape: list[int],
    parameters: dict[str, Any] | None = None,
    *,
    opset: int = 17,
    outputs: tuple[str, ...] = ("y",),
    functions: tuple[onnx.FunctionProto, ...] = (),
) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in (parameters or {}).items()]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x_shape)],
        [onnx.ValueInfoProto(name=o) for o in outputs],
        tensors,
    )
    for o in graph.output:
        o.type.tensor_type.elem_type = TensorProto.FLOAT
    imports = [helper.make_opsetid("", opset)] + [helper.make_opsetid(f.domain, 1) for f in functions]
    return helper.make_model(graph, opset_imports=imports, ir_version=8, functions=list(functions))


def node(kind: str, inputs: str, outputs: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, ["" if i == "-" else i for i in inputs.split()], outputs.split(), **attributes)


def f32(values: Any) -> np.ndarray:
    return np.asarray(values, np.float32)


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


# ------------------------------------------------------------------------------------------------ rules


@pytest.mark.parametrize(
    ("rule", "expected"), [("saliency", [-2, 1, -2, 1]), ("guided", [-2, 1, -2, 1]), ("deconvnet", [1, 1, 1, 1])]
)
def test_a_rectifier_whose_input_is_also_read_elsewhere(rule: Any, expected: list[float]) -> None:
    """y = sum(3 relu(h) - 2 h): the second path is a plain gradient under every rule."""
    nodes = [
        node("Relu", "x", "r"),
        node("Mul", "r three", "a"),
        node("Mul", "x two", "b"),
        node("Sub", "a b", "d"),
        node("ReduceSum", "d axes", "y", keepdims=0),
    ]
    model = net(nodes, [1, 1, 4], {"three": f32(3), "two": f32(2), "axes": np.array([2])})
    got = oracle(model, {"x": f32([[[-1, 2, -3, 4]]])}, rule=rule)
    np.testing.assert_array_equal(got.attribution, [[expected]])


def by_hand(rule: str, x: np.ndarray, w1: np.ndarray, w2: np.ndarray, w3: np.ndarray, k: int) -> np.ndarray:
    """Three linear layers with two rectifiers, backwards as the papers write it."""
    h1 = w1 @ x
    h2 = w2 @ np.maximum(h1, 0)
    g = w3[k]
    for h, w in ((h2, w2), (h1, w1)):
        if rule in ("guided", "deconvnet"):
            g = np.maximum(g, 0)
        if rule in ("guided", "saliency"):
            g = g * (h > 0)
        g = w.T @ g
    return g


@pytest.mark.parametrize("rule", RULES)
def test_rules_against_the_papers_in_numpy(rule: Any) -> None:
    rng = np.random.default_rng(3)
    w1, w2, w3 = normal(rng, 9, 6), normal(rng, 8, 9), normal(rng, 5, 8)
    nodes = [
        node("Reshape", "x flat", "v"),
        node("Gemm", "v w1", "h1", transB=1),
        node("Relu", "h1", "r1"),
        node("Gemm", "r1 w2", "h2", transB=1),
        node("Relu", "h2", "r2"),
        node("Gemm", "r2 w3", "h3", transB=1),
        node("Softmax", "h3", "y"),
    ]
    model = net(nodes, [2, 2, 3], {"w1": w1, "w2": w2, "w3": w3, "flat": np.array([0, -1])})
    x = normal(rng, 2, 2, 3)
    got = oracle(model, {"x": x}, rule=rule, target=[4, 1])
    for i, k in enumerate((4, 1)):
        want = by_hand(rule, *(v.astype(np.float64) for v in (x[i].ravel(), w1, w2, w3)), k)
        np.testing.assert_allclose(got.attribution[i].ravel(), want, rtol=1e-12)
    assert len(got.rectifiers) == 2


ZERO, SIX = f32(0), f32(6)
FORMS: dict[str, tuple[list[onnx.NodeProto], bool]] = {
    "Relu": ([node("Relu", "h", "r")], False),
    "Clip from 0": ([node("Clip", "h zero", "r")], False),
    "Clip 0..6": ([node("Clip", "h zero six", "r")], True),
    "Clip with Constant bounds": (
        [
            node("Constant", "", "lo", value=numpy_helper.from_array(ZERO)),
            node("Identity", "lo", "low"),
            node("Clip", "h low six", "r"),
        ],
        True,
    ),
    "ThresholdedRelu": ([node("ThresholdedRelu", "h", "r", alpha=0.0)], False),
    "Max(x, 0)": ([node("Max", "h zero", "r")], False),
    "Max(0, x)": ([node("Max", "zero h", "r")], False),
    "Where(x > 0, x, 0)": ([node("Greater", "h zero", "c"), node("Where", "c h zero", "r")], False),
    "Where(0 < x, x, 0)": ([node("Less", "zero h", "c"), node("Where", "c h zero", "r")], False),
    "Where(x <= 0, 0, x)": ([node("LessOrEqual", "h zero", "c"), node("Where", "c zero h", "r")], False),
    "Where(not x < 0, x, 0)": (
        [node("Less", "h zero", "l"), node("Not", "l", "c"), node("Where", "c h zero", "r")],
        False,
    ),
    "x * (x > 0)": (
        [node("Greater", "h zero", "c"), node("Cast", "c", "m", to=TensorProto.FLOAT), node("Mul", "h m", "r")],
        False,
    ),
    "Min(Max(x, 0), 6)": ([node("Max", "h zero", "a"), node("Min", "a six", "r")], True),
    "Max(Min(x, 6), 0)": ([node("Min", "h six", "a"), node("Max", "a zero", "r")], True),
    "Min(Relu(x), 6)": ([node("Relu", "h", "a"), node("Min", "six a", "r")], True),
    "LeakyRelu with slope 0": ([node("LeakyRelu", "h", "r", alpha=0.0)], False),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_rectifier(form: str, rule: str) -> None:
    nodes, is_capped = FORMS[form]
    weights = f32([[[1, -2, 3, -4, 5, 6]]])
    nodes = [node("Mul", "x one", "h"), *nodes, node("Mul", "r w", "p"), node("ReduceSum", "p", "y", keepdims=0)]
    model = net(nodes, [1, 1, 6], {"one": f32(1), "w": weights, "zero": ZERO, "six": SIX})
    x = f32([[[-1, 2, 0, 7, 3, 6]]])
    got = oracle(model, {"x": x}, rule=rule)  # type: ignore[arg-type]
    mask = (x > 0) & ((x < 6) | (not is_capped))
    g = weights if rule == "saliency" else np.maximum(weights, 0)
    want = g if rule == "deconvnet" else np.where(mask, g, 0)
    np.testing.assert_array_equal(got.attribution, want)
    assert got.rectifiers


def test_activations_that_no_rule_gates_keep_their_derivative() -> None:
    for kind in ("LeakyRelu", "Elu", "Sigmoid", "HardSwish", "Softplus"):
        nodes = [node(kind, "x", "r"), node("Mul", "r w", "p"), node("ReduceSum", "p", "y", keepdims=0)]
        model = net(nodes, [1, 1, 4], {"w": f32([-1, 2, -3, 4])})
        x = {"x": f32([[[-1.5, 2, 0.5, -0.25]]])}
        maps = [oracle(model, x, rule=rule).attribution for rule in RULES]  # type: ignore[arg-type]
        np.testing.assert_array_equal(maps[0], maps[1])
        np.testing.assert_array_equal(maps[0], maps[2])
        assert oracle(model, x).rectifiers == []
        np.testing.assert_allclose(maps[0], slope_everywhere(model, x["x"]), rtol=1e-6, atol=1e-9)


# ------------------------------------------------------------------------------------------------ target and head


def test_the_seed_goes_before_the_head_and_finds_its_place_through_moves() -> None:
    rng = np.random.default_rng(0)
    nodes = [
        node("Conv", "x w", "z"),
        node("Softmax", "z", "s", axis=1),
        node("Transpose", "s", "t", perm=[0, 2, 3, 1]),
        node("Reshape", "t flat", "y"),
    ]
    w = normal(rng, 3, 2, 1, 1)
    model = net(nodes, [1, 2, 2, 2], {"w": w, "flat": np.array([0, -1])})
    x = normal(rng, 1, 2, 2, 2)
    for target in range(12):
        pixel, channel = divmod(target, 3)
        want = np.zeros((1, 2, 2, 2))
        want[0, :, pixel // 2, pixel % 2] = w[channel, :, 0, 0]
        got = oracle(model, {"x": x}, target=target)
        np.testing.assert_allclose(got.attribution, want, rtol=1e-12)
        through = oracle(model, {"x": x}, target=target, explain="output").attribution
        want_output = slope_everywhere(model, x, lambda y, t=target: float(y.ravel()[t]))
        np.testing.assert_allclose(through, want_output, rtol=1e-5, atol=1e-9)


def test_the_default_target_is_each_image_s_largest_output() -> None:
    model = net([node("GlobalAveragePool", "x", "p"), node("Flatten", "p", "y")], [2, 3, 2, 2])
    x = np.zeros((2, 3, 2, 2), np.float32)
    x[0, 2], x[1, 1] = 1, 1
    for target in (None, -1, [2, -1]):
        got = oracle(model, {"x": x}, target=target)
        assert got.target == [2, 1]
        np.testing.assert_array_equal(got.attribution, x / 4)


def test_the_default_output_is_the_first_one_with_a_head() -> None:
    nodes = [node("Flatten", "x", "boxes"), node("Sigmoid", "boxes", "scores")]
    model = net(nodes, [1, 1, 3], outputs=("boxes", "scores"))
    assert oracle(model, {"x": f32([[[1, 2, 3]]])}).output == "scores"


# ------------------------------------------------------------------------------------------------ forced gates


def test_forced_gates_decide_and_the_arithmetic_stays_float64() -> None:
    nodes = [
        node("Relu", "x", "r"),
        node("MaxPool", "r", "m", kernel_shape=[1, 2], strides=[1, 2]),
        node("ReduceSum", "m", "y", keepdims=0),
    ]
    model = net(nodes, [1, 1, 1, 4])
    x = f32([[[[1, 2, 1e-7, -1]]]])
    free = oracle(model, {"x": x})
    np.testing.assert_array_equal(free.attribution.ravel(), [0, 1, 1, 0])
    gates = {"x": f32([[[[1, 2, -1e-7, -1]]]]), "r": f32([[[[3, 2, 0, 0]]]])}
    held = oracle(model, {"x": x}, gates_from=gates)
    np.testing.assert_array_equal(held.attribution.ravel(), [1, 0, 0, 0])
    with pytest.raises(ValueError, match="gates for x"):
        oracle(model, {"x": x}, gates_from={"x": f32([1, 2])})


@pytest.mark.parametrize("rule", RULES)
def test_float32_activations_are_every_tensor_and_change_nothing_where_no_gate_flips(rule: Any) -> None:
    model, x = small_net()
    gates = float32_activations(model, {"x": x})
    made = {o for n in model.graph.node for o in n.output}
    assert made <= set(gates)
    got = oracle(model, {"x": x}, rule=rule, gates_from=gates)
    assert compare(got.attribution, oracle(model, {"x": x}, rule=rule).attribution).max_rel < 1e-12


# ------------------------------------------------------------------------------------------------ forward values


def backend_cases() -> list[Any]:
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return [c for c in collect_testcases(None) if {n.op_type for n in c.model.graph.node} <= set(OPS) | {"If"}]


# What ONNX's own case file expects and ONNX Runtime does not do (it takes the rounded output size), cases whose
# expected values are written with four digits, and reductions over nothing.
BACKEND_SKIP = {
    "test_resize_downsample_scales_linear_align_corners",
    "test_resize_downsample_scales_cubic_align_corners",
    "test_averagepool_2d_ceil_last_window_starts_on_pad",
    "test_gridsample_bicubic",
    "test_reduce_max_empty_set",
    "test_reduce_max_empty_set_bool",
    "test_reduce_min_empty_set",
}


def test_operators_against_onnx_s_own_cases() -> None:
    checked: dict[str, int] = {}
    for case in backend_cases():
        plain = all(np.asarray(v).dtype.kind in "fiub" for ins, outs in case.data_sets for v in (*ins, *outs))
        if not plain or case.name in BACKEND_SKIP:
            continue
        for inputs, outputs in case.data_sets:
            graph = case.model.graph
            feeds = {i.name: np.asarray(v) for i, v in zip(graph.input, inputs, strict=False)}
            try:
                got = forward(case.model, feeds)
            except Unsupported:
                continue
            for info, want in zip(graph.output, outputs, strict=True):
                want = np.asarray(want)
                assert got[info.name].shape == want.shape, case.name
                rtol = 2e-3 if want.dtype == np.float16 else 2e-5
                np.testing.assert_allclose(
                    got[info.name].astype(np.float64), want.astype(np.float64), rtol, 1e-6, err_msg=case.name
                )
            for kind in {n.op_type for n in graph.node}:
                checked[kind] = checked.get(kind, 0) + 1
    assert sum(checked.values()) > 1000
    without_a_case = {"ImageScaler", "Upsample", "Scatter", "GlobalLpPool"}
    assert set(OPS) - set(checked) <= without_a_case


def ort_equal(model: onnx.ModelProto, x: np.ndarray) -> float:
    want = session(model, optimise=False).run(None, {"x": x})[0]
    got = forward(model, {"x": x})["y"]
    assert got.shape == want.shape
    return float(np.abs(got - want).max() / np.abs(want).max())


@pytest.mark.parametrize("seed", range(25))
def test_windows_against_onnx_runtime(seed: int) -> None:
    """Pads, strides, dilations, ceil_mode and auto_pad of convolutions and pools, in one to three dimensions."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 4))
    size, kernel = rng.integers(6, 10, n), rng.integers(1, 4, n)
    stride = np.minimum(rng.integers(1, 4, n), kernel)
    dilation = rng.integers(1, 3, n)
    pads = [*(int(rng.integers(0, k)) for k in kernel), *(int(rng.integers(0, k)) for k in kernel)]
    x = normal(rng, 2, 4, *size)
    shape = {"kernel_shape": [int(k) for k in kernel], "strides": [int(s) for s in stride]}
    dilated = {"dilations": [int(d) for d in dilation]}
    for mode in ({"pads": pads}, {"auto_pad": "SAME_UPPER"}, {"auto_pad": "SAME_LOWER"}, {"auto_pad": "VALID"}):
        free = {**shape, **mode, **(dilated if "pads" in mode else {})}
        ceil = {"ceil_mode": int(rng.integers(0, 2))} if mode.get("auto_pad", "NOTSET") == "NOTSET" else {}
        counted = {"count_include_pad": int(rng.integers(0, 2))}
        bias = normal(rng, 6)
        cases = [
            net([node("MaxPool", "x", **free, **ceil)], list(x.shape)),
            net([node("AveragePool", "x", **free, **ceil, **counted)], list(x.shape), opset=19),
            net([node("AveragePool", "x", **shape, **mode, **counted)], list(x.shape), opset=9),
            net([node("Conv", "x w b", **free, group=2)], list(x.shape), {"w": normal(rng, 6, 2, *kernel), "b": bias}),
        ]
        out = [int(rng.integers(0, max(s, d))) for s, d in zip(stride, dilation, strict=True)]
        transposed = {**free, **({"output_padding": out} if "pads" in mode else {}), "group": 2}
        cases.append(
            net(
                [node("ConvTranspose", "x w b", **transposed)],
                list(x.shape),
                {"w": normal(rng, 4, 3, *kernel), "b": bias},
            )
        )
        for model in cases:
            try:
                session(model, optimise=False).run(None, {"x": x})
            except Exception as refused:  # a few random configurations are none
                assert "pad" in str(refused).lower(), refused
                continue
            assert ort_equal(model, x) < 2e-5, model.graph.node[0]


@pytest.mark.parametrize("opset", [9, 10, 11, 13, 18, 19])
def test_resize_against_onnx_runtime(opset: int) -> None:
    rng = np.random.default_rng(opset)
    for _ in range(20):
        x = normal(rng, 1, 2, *rng.integers(3, 8, 2))
        scales = f32([1, 1, *rng.choice([0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0], 2)])
        mode = str(rng.choice(["nearest", "linear"] + (["cubic"] if opset > 10 else [])))
        if opset < 11:
            scales = np.maximum(scales, 1) if opset == 9 else scales
            kind = "Upsample" if opset == 9 else "Resize"
            model = net([node(kind, "x s", mode=mode)], list(x.shape), {"s": scales}, opset=opset)
        else:
            how = str(rng.choice(["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]))
            more = {"nearest_mode": str(rng.choice(["floor", "round_prefer_floor"]))} if mode == "nearest" else {}
            resize = node("Resize", "x roi s", mode=mode, coordinate_transformation_mode=how, **more)
            model = net([resize], list(x.shape), {"roi": np.zeros(0, np.float32), "s": scales}, opset=opset)
        assert ort_equal(model, x) < 2e-5, model.graph.node[0]


def check_every_tensor(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> None:
    """Every float tensor of the run, not only a softmax that is near 0 and 1 in any case."""
    reference = float32_activations(model, feeds)
    got = forward(model, feeds, list(reference))
    assert len(set(reference) & set(got)) == len(reference)
    for name, want in reference.items():
        scale = np.abs(want).max(initial=0)
        if scale and np.isfinite(scale):
            assert np.abs(got[name] - want).max() <= 1e-4 * scale, name


@needs_corpus
@pytest.mark.corpus
@pytest.mark.parametrize("path", [p for p in FLOAT_MODELS if p.stem not in SLOW], ids=lambda p: p.stem)
def test_corpus_models_against_onnx_runtime(path: Path) -> None:
    model = onnx.load(str(path))
    check_every_tensor(model, run_corpus.feeds_for(path.stem, session(model).get_inputs(), 0))


@pytest.mark.parametrize("name", SMALL_LIGHT)
def test_light_models_with_random_weights_against_onnx_runtime(name: str) -> None:
    model = randomise_weights(run_corpus.LIGHT / f"light_{name}.onnx", 1)
    check_every_tensor(model, run_corpus.feeds_for(name, session(model).get_inputs(), 0))


# ------------------------------------------------------------------------------------------------ derivatives


def slope_everywhere(
    model: onnx.ModelProto, x: np.ndarray, read: Callable[[np.ndarray], float] | None = None, step: float = 1e-6
) -> np.ndarray:
    """Central differences of a scalar of the first output (default: its largest value), in float64."""
    x = x.astype(np.float64)
    name = model.graph.output[0].name
    if read is None:
        at = int(forward(model, {"x": x})[name].argmax())
        read = lambda y: float(y.ravel()[at])  # noqa: E731
    out = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[i] += step
        down[i] -= step
        out[i] = (read(forward(model, {"x": up})[name]) - read(forward(model, {"x": down})[name])) / (2 * step)
    return out


def small_net() -> tuple[onnx.ModelProto, np.ndarray]:
    rng = np.random.default_rng(11)
    nodes = [
        node("Conv", "x w1 b1", "c1", kernel_shape=[3, 3], pads=[1, 0, 0, 1], strides=[1, 2]),
        node("BatchNormalization", "c1 g b m v", "n1"),
        node("Relu", "n1", "r1"),
        node("MaxPool", "r1", "p1", kernel_shape=[3, 2], strides=[2, 1], ceil_mode=1),
        node("LRN", "p1", "l1", size=3, alpha=0.1),
        node("Conv", "l1 w2", "c2", group=2),
        node("PRelu", "c2 slope", "q2"),
        node("AveragePool", "q2", "a2", kernel_shape=[2, 2], pads=[1, 0, 1, 0], count_include_pad=1),
        node("Concat", "a2 a2", "k2", axis=1),
        node("Clip", "k2 zero six", "d2"),
        node("GlobalAveragePool", "d2", "e2"),
        node("Flatten", "e2", "f2"),
        node("Gemm", "f2 w3 b3", "z", transB=1),
        node("Softmax", "z", "y"),
    ]
    parameters = {
        "w1": normal(rng, 4, 3, 3, 3),
        "b1": normal(rng, 4),
        "g": 1 + 0.1 * normal(rng, 4),
        "b": normal(rng, 4),
        "m": normal(rng, 4),
        "v": f32([0.5, 1, 2, 1]),
        "w2": normal(rng, 6, 2, 2, 2),
        "slope": f32([[[0.1]]]),
        "w3": 0.05 * normal(rng, 5, 12),
        "b3": normal(rng, 5),
        "zero": ZERO,
        "six": SIX,
    }
    return net(nodes, [1, 3, 7, 9], parameters), normal(rng, 1, 3, 7, 9)


def other_nets() -> dict[str, tuple[onnx.ModelProto, np.ndarray]]:
    rng = np.random.default_rng(5)
    upscale = [
        node("ConvTranspose", "x w", "t", strides=[2, 1], pads=[1, 0, 0, 1], output_padding=[1, 0]),
        node("InstanceNormalization", "t g b", "i"),
        node("Resize", "i - s", "r", mode="linear"),
        node("Softplus", "r", "m"),
        node("ReduceMax", "m", "p", axes=[2], keepdims=0),
        node("ReduceL2", "p", "y", axes=[2], keepdims=0),
    ]
    norms = [
        node("LayerNormalization", "x g b", "l", axis=2),
        node("HardSwish", "l", "h"),
        node("Pad", "h pads", "p", mode="reflect"),
        node("Slice", "p starts ends axes steps", "s"),
        node("LpNormalization", "s", "n", axis=1),
        node("Split", "n", "u v", axis=1),
        node("Mul", "u v", "m"),
        node("Gather", "m index", "k", axis=2),
        node("DepthToSpace", "k", "d", blocksize=1),
        node("GlobalMaxPool", "d", "q"),
        node("LogSoftmax", "q", "y", axis=1),
    ]
    steps = {"pads": np.array([0, 0, 1, 2, 0, 0, 2, 1]), "index": np.array([2, 0, 2])}
    window = {k: np.array(v) for k, v in {"starts": [5, 0], "ends": [-9, 5], "axes": [2, 3], "steps": [-1, 2]}.items()}
    return {
        "upscale": (
            net(
                upscale,
                [1, 2, 4, 3],
                {"w": normal(rng, 2, 3, 3, 2), "g": normal(rng, 3), "b": normal(rng, 3), "s": f32([1, 1, 1.5, 2])},
            ),
            normal(rng, 1, 2, 4, 3),
        ),
        "norms": (
            net(norms, [1, 4, 4, 4], {"g": normal(rng, 4, 4), "b": normal(rng, 4, 4), **steps, **window}),
            3 * normal(rng, 1, 4, 4, 4),
        ),
    }


@pytest.mark.parametrize("name", ["small", "upscale", "norms"])
def test_saliency_against_finite_differences(name: str) -> None:
    model, x = small_net() if name == "small" else other_nets()[name]
    got = oracle(model, {"x": x}, explain="output")
    np.testing.assert_allclose(got.attribution, slope_everywhere(model, x), rtol=1e-5, atol=1e-8)
    assert np.abs(got.attribution).max() > 1e-3


@needs_corpus
@pytest.mark.corpus
@pytest.mark.parametrize("name", ["ort_java_cnn_mnist_pytorch", "keras_resnet8_cifar10_tf2onnx", "paddle_ppocr_cls"])
def test_corpus_saliency_against_finite_differences(name: str) -> None:
    """At the ten largest pixels: the logit moves as the map says (a step too small to cross a gate there)."""
    model = onnx.load(str(run_corpus.CORPUS / "models" / f"{name}.onnx"))
    feeds = run_corpus.feeds_for(name, session(model).get_inputs(), 0)
    wrt = run_corpus.image_input(feeds)
    x = feeds[wrt].astype(np.float64)
    step = 1e-6 * np.abs(x).max()
    found = oracle(model, {wrt: x})
    for flat in np.argsort(-np.abs(found.attribution).ravel())[:10]:
        i = np.unravel_index(flat, x.shape)
        moved = []
        for sign in (1, -1):
            y = x.copy()
            y[i] += sign * step
            moved.append(oracle(model, {wrt: y}, target=found.target).explained[0])
        assert (moved[0] - moved[1]) / (2 * step) == pytest.approx(found.attribution[i], rel=1e-4)


@pytest.mark.parametrize("rule", RULES)
def test_against_captum_where_captum_is_right(rule: str) -> None:
    """Modular rectifiers, each reading a tensor that nobody else reads."""
    captum = pytest.importorskip("captum.attr")
    nn = torch.nn
    torch.manual_seed(0)
    layers: list[Any] = [
        nn.Conv2d(3, 6, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(6, 8, 3, stride=2, groups=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 4 * 4, 10),
        nn.ReLU(),
        nn.Linear(10, 4),
    ]
    module = nn.Sequential(*layers).double().eval()
    module[4].running_mean.normal_()
    module[4].running_var.uniform_(0.5, 2)
    nodes = [
        node("Conv", "x 0.weight 0.bias", "a", pads=[1, 1, 1, 1]),
        node("Relu", "a", "b"),
        node("MaxPool", "b", "c", kernel_shape=[3, 3], strides=[2, 2]),
        node("Conv", "c 3.weight 3.bias", "d", strides=[2, 2], group=2),
        node("BatchNormalization", "d 4.weight 4.bias 4.running_mean 4.running_var", "e"),
        node("Relu", "e", "f"),
        node("Flatten", "f", "g"),
        node("Gemm", "g 7.weight 7.bias", "h", transB=1),
        node("Relu", "h", "i"),
        node("Gemm", "i 9.weight 9.bias", "y", transB=1),
    ]
    parameters = {k: v.numpy() for k, v in module.state_dict().items() if "num_batches" not in k}
    model = net(nodes, [2, 3, 20, 20], parameters)
    x = np.random.default_rng(1).standard_normal((2, 3, 20, 20))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        method = {
            "saliency": captum.Saliency,
            "guided": captum.GuidedBackprop,
            "deconvnet": captum.Deconvolution,
        }[rule](module)
        more = {"abs": False} if rule == "saliency" else {}
        want = method.attribute(torch.from_numpy(x).requires_grad_(), target=[1, 3], **more).detach().numpy()
    got = oracle(model, {"x": x}, rule=rule, target=[1, 3]).attribution  # type: ignore[arg-type]
    # BatchNormalization's epsilon is a float32 in the file and a float64 in torch.
    assert compare(got, want).max_rel < 1e-10
    assert np.abs(want).max() > 1e-3


# ------------------------------------------------------------------------------------------------ ties and structure


def test_ties_go_to_the_first_maximum_and_are_shared_by_several_inputs() -> None:
    pool = net([node("MaxPool", "x", "m", kernel_shape=[2, 2]), node("ReduceSum", "m", "y", keepdims=0)], [1, 1, 3, 3])
    got = oracle(pool, {"x": np.zeros((1, 1, 3, 3), np.float32)})
    np.testing.assert_array_equal(got.attribution[0, 0], [[1, 1, 0], [1, 1, 0], [0, 0, 0]])
    reduce = net([node("ReduceMax", "x", "y", keepdims=0)], [1, 1, 4])
    np.testing.assert_array_equal(oracle(reduce, {"x": f32([[[1, 2, 2, 0]]])}).attribution, [[[0, 1, 0, 0]]])
    shared = [node("Mul", "x two", "a"), node("Max", "x a", "m"), node("ReduceSum", "m", "y", keepdims=0)]
    tied = oracle(net(shared, [1, 1, 3], {"two": f32(2)}), {"x": f32([[[0, 1, -1]]])})
    np.testing.assert_array_equal(tied.attribution, [[[1.5, 2, 1]]])


def test_local_functions_and_branches_are_evaluated() -> None:
    body = [
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("LeakyRelu", ["r"], ["b"]),
    ]
    body[1].attribute.append(onnx.AttributeProto(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT))
    f = helper.make_function("local", "Twice", ["a"], ["b"], body, [helper.make_opsetid("", 17)], ["slope"])
    empty = [onnx.ValueInfoProto(name="t")]
    then = helper.make_graph([node("Mul", "h k", "t")], "then", [], empty)
    other = helper.make_graph([node("Neg", "h", "t")], "else", [], empty)
    nodes = [
        helper.make_node("Twice", ["x"], ["h"], domain="local", slope=0.5),
        helper.make_node("If", ["yes"], ["i"], then_branch=then, else_branch=other),
        node("ReduceSum", "i", "y", keepdims=0),
    ]
    model = net(nodes, [1, 1, 2], {"k": f32(3), "yes": np.array(True)}, functions=(f,))
    got = oracle(model, {"x": f32([[[-1, 2]]])})
    np.testing.assert_array_equal(got.attribution, [[[0, 3]]])
    assert [kind for _, kind in got.rectifiers] == ["Relu"]


def test_an_input_that_the_output_does_not_need_has_a_map_of_zeros() -> None:
    model = net([node("Shape", "x", "s"), node("Cast", "s", "y", to=TensorProto.FLOAT)], [1, 2, 3])
    np.testing.assert_array_equal(oracle(model, {"x": np.ones((1, 2, 3), np.float32)}).attribution, np.zeros((1, 2, 3)))


def test_unknown_operators_are_named() -> None:
    with pytest.raises(Unsupported, match="Det"):
        oracle(net([node("Det", "x")], [1, 2, 2]), {"x": np.ones((1, 2, 2), np.float32)})


# ------------------------------------------------------------------------------------------------ helpers


def test_random_weights_are_seeded_and_keep_shapes() -> None:
    path = run_corpus.LIGHT / "light_shufflenet.onnx"
    a, b, c = randomise_weights(path, 1), randomise_weights(path, 1), randomise_weights(path, 2)
    assert a.SerializeToString() == b.SerializeToString() != c.SerializeToString()
    tensors = {t.name: numpy_helper.to_array(t) for t in a.graph.initializer}
    assert not any(n.op_type == "ConstantOfShape" for n in a.graph.node)
    variances = [tensors[n.input[4]] for n in a.graph.node if n.op_type == "BatchNormalization"]
    assert variances and all(v.min() > 0 for v in variances)
    weights = [tensors[n.input[1]] for n in a.graph.node if n.op_type == "Conv"]
    assert all(np.unique(w).size > 0.99 * w.size for w in weights)
    assert np.std(weights[0]) == pytest.approx(np.sqrt(2 / weights[0][0].size), rel=0.1)


def test_compare() -> None:
    b = np.array([3.0, -4.0])
    assert compare(b, b) == compare(b * 1.0, b)
    assert compare(b, b).agrees and compare(b * (1 + 5e-5), b).agrees
    assert compare(np.array([3.0, -4.0, 0.01]), np.array([3.0, -4.0, 0.0])).agrees  # the direction and length hold
    assert not compare(b * 1.01, b).agrees
    assert not compare(-b, b).agrees
    assert not compare(b[::-1], b).agrees
    assert not compare(np.array([np.nan, 1.0]), b).agrees
    assert compare(np.zeros(2), np.zeros(2)).agrees and not compare(b, np.zeros(2)).agrees
    assert not compare(np.zeros(2), b).agrees
    with pytest.raises(ValueError, match="shapes differ"):
        compare(b, b[:1])
