"""Models that take pixels as they come: uint8 and other integers, any layout, preprocessed inside the graph."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import gbp_onnx
from tests.vjp_check import session

RANDOM = np.random.RandomState(11)
KERNEL, BIAS, DENSE = (RANDOM.standard_normal(s).astype(np.float32) for s in ((4, 3, 3, 3), (4,), (5, 4)))
MEAN, STD = (np.array(v, np.float32).reshape(3, 1, 1) for v in ((0.5, 0.4, 0.45), (0.2, 0.25, 0.3)))


@dataclass(frozen=True)
class Front:
    """What stands in front of the net: lines "Op(inputs) -> result", from `x` to the float [N, 3, H, W] `pixels`."""

    lines: str
    shape: tuple[Any, ...]
    attrs: dict[str, dict[str, Any]] = field(default_factory=dict)  # by the name of the result
    stored: dict[str, Any] = field(default_factory=dict)
    kind: int = TensorProto.UINT8
    rounds: bool = False  # the float variant does not

    def model(self, kind: int = 0) -> onnx.ModelProto:
        """The whole model; with `kind` float, the same on real numbers."""
        nodes = []
        for line in filter(None, map(str.strip, self.lines.splitlines())):
            call, result = (s.strip() for s in line.split("->"))
            op, inputs = call.rstrip(")").split("(")
            names = [n.strip().strip("-") for n in inputs.split(",")]
            if kind and op in ("Round", "Clip"):  # a rounding to pixels
                op, names = "Identity", names[:1]
            results = [r.strip() for r in result.split(",")]
            attrs = dict(self.attrs.get(results[0], {}))
            if op == "Cast":
                attrs.setdefault("to", TensorProto.FLOAT)
                if kind:
                    attrs["to"] = TensorProto.FLOAT
            nodes.append(helper.make_node(op, names, results, f"{op}_{results[0]}", **attrs))
        nodes += [
            helper.make_node("Conv", ["pixels", "kernel", "bias"], ["c"], "conv", pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c"], ["r"], "relu"),
            helper.make_node("GlobalAveragePool", ["r"], ["g"]),
            helper.make_node("Flatten", ["g"], ["f"]),
            helper.make_node("Gemm", ["f", "dense"], ["scores"], "gemm", transB=1),
        ]
        weights = {"kernel": KERNEL, "bias": BIAS, "dense": DENSE}
        for name, value in self.stored.items():
            array = np.asarray(value)
            weights[name] = array.astype(np.float32) if kind and array.dtype in (np.uint8, np.int32) else array
        graph = helper.make_graph(
            nodes,
            "net",
            [helper.make_tensor_value_info("x", kind or self.kind, self.shape)],
            [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, 5])],
            [numpy_helper.from_array(w, n) for n, w in weights.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)

    @property
    def x(self) -> np.ndarray:
        dtype = helper.tensor_dtype_to_np_dtype(self.kind)
        shape = [d if isinstance(d, int) else {"n": 2, "h": 7, "w": 9}[d] for d in self.shape]
        low, high = (-128, 128) if dtype == np.int8 else (0, 256)
        if self.rounds:  # blocks of four equal pixels: their mean is whole
            small = RANDOM.randint(low, high, [*shape[:2], (shape[2] + 1) // 2, (shape[3] + 1) // 2])
            return small.repeat(2, 2).repeat(2, 3)[:, :, : shape[2], : shape[3]].astype(dtype)
        return RANDOM.randint(low, high, shape).astype(dtype)


NORMALISE = "Div(t, k255) -> d\nSub(d, mean) -> s\nDiv(s, std) -> pixels"
CONSTANTS = {"k255": np.float32(255), "mean": MEAN, "std": STD}
NHWC, NCHW = (1, 8, 9, 3), (1, 3, 8, 9)
FIRST = {"t": {"perm": [0, 3, 1, 2]}}
HALF = np.array([1, 1, 0.5, 0.5], np.float32)
SMOOTH = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}

FRONTS = {
    "nhwc, cast, normalised, transposed": Front(
        f"Cast(x) -> c0\nTranspose(c0) -> t\n{NORMALISE}", NHWC, FIRST, CONSTANTS
    ),
    "transposed as uint8": Front(f"Transpose(x) -> i\nCast(i) -> t\n{NORMALISE}", NHWC, {"i": FIRST["t"]}, CONSTANTS),
    "bgr by gather": Front(
        f"Gather(x, order) -> i\nCast(i) -> c0\nTranspose(c0) -> t\n{NORMALISE}", NHWC,
        {"i": {"axis": 3}, **FIRST}, {"order": np.array([2, 1, 0]), **CONSTANTS},
    ),
    "bgr by slice": Front(
        f"Slice(x, last, past, one, back) -> i\nCast(i) -> t\n{NORMALISE}", NCHW, {},
        {"last": np.array([-1]), "past": np.array([-10]), "one": np.array([1]), "back": np.array([-1]), **CONSTANTS},
    ),
    "bgr by split and concat": Front(
        f"Split(x) -> b, g0, r0\nConcat(r0, g0, b) -> i\nCast(i) -> t\n{NORMALISE}", NCHW,
        {"b": {"axis": 1, "num_outputs": 3}, "i": {"axis": 1}}, CONSTANTS,
    ),
    "resized as uint8, nearest": Front(
        f"Resize(x, -, scales) -> i\nCast(i) -> t\n{NORMALISE}", NCHW, {"i": {"mode": "nearest"}},
        {"scales": HALF, **CONSTANTS},
    ),
    "resized as uint8, linear": Front(
        f"Resize(x, -, scales) -> i\nCast(i) -> t\n{NORMALISE}", NCHW, {"i": SMOOTH}, {"scales": HALF, **CONSTANTS},
        rounds=True,
    ),
    "resized as float to a fixed size": Front(
        f"Cast(x) -> c0\nTranspose(c0) -> t0\nResize(t0, -, -, sizes) -> t\n{NORMALISE}", (1, "h", "w", 3),
        {"t0": FIRST["t"], "t": SMOOTH}, {"sizes": np.array([1, 3, 6, 6]), **CONSTANTS},
    ),
    "cropped and padded as uint8": Front(
        f"Slice(x, begin, end, axes) -> i0\nPad(i0, pads, fill) -> i\nCast(i) -> t\n{NORMALISE}", NCHW, {},
        {"begin": np.array([1, 2]), "end": np.array([7, 8]), "axes": np.array([2, 3]),
         "pads": np.array([0, 0, 1, 1, 0, 0, 2, 0]), "fill": np.uint8(114), **CONSTANTS},
    ),
    "no batch axis": Front(
        f"Unsqueeze(x, front) -> u\nCast(u) -> c0\nTranspose(c0) -> t\n{NORMALISE}", (8, 9, 3), FIRST,
        {"front": np.array([0]), **CONSTANTS},
    ),
    "no batch axis, open sizes": Front(
        f"Cast(x) -> c0\nTranspose(c0) -> t0\nUnsqueeze(t0, front) -> t\n{NORMALISE}", (8, "w", 3),
        {"t0": {"perm": [2, 0, 1]}}, {"front": np.array([0]), **CONSTANTS},
    ),
    "reshaped": Front(
        f"Reshape(x, flat) -> i0\nReshape(i0, back) -> i\nCast(i) -> t\n{NORMALISE}", NCHW, {},
        {"flat": np.array([1, -1]), "back": np.array([1, 3, 8, 9]), **CONSTANTS},
    ),
    "grey, repeated": Front(
        f"Cast(x) -> c0\nConcat(c0, c0, c0) -> t\n{NORMALISE}", (1, 1, 8, 9), {"t": {"axis": 1}}, CONSTANTS
    ),
    "grey, expanded as uint8": Front(
        f"Expand(x, shape) -> i\nCast(i) -> c0\nTranspose(c0) -> t\n{NORMALISE}", (1, 8, 9, 1), FIRST,
        {"shape": np.array([1, 8, 9, 3]), **CONSTANTS},
    ),
    "rgba, alpha left out": Front(
        f"Slice(x, zero, three, axis) -> i\nCast(i) -> c0\nTranspose(c0) -> t\n{NORMALISE}", (1, 8, 9, 4), FIRST,
        {"zero": np.array([0]), "three": np.array([3]), "axis": np.array([3]), **CONSTANTS},
    ),
    "rgba, premultiplied": Front(
        f"Cast(x) -> c0\nTranspose(c0) -> t0\nSplit(t0, parts) -> rgb, a\nDiv(a, k255) -> o\nMul(rgb, o) -> t\n"
        f"{NORMALISE}", (1, 8, 9, 4), {"t0": FIRST["t"], "rgb": {"axis": 1}},
        {"parts": np.array([3, 1]), **CONSTANTS},
    ),
    "int8": Front(f"Cast(x) -> t\n{NORMALISE}", NCHW, {}, CONSTANTS, TensorProto.INT8),
    "int32, shifted as integers": Front(
        f"Sub(x, shift) -> i\nCast(i) -> t\n{NORMALISE}", NCHW, {}, {"shift": np.int32(128), **CONSTANTS},
        TensorProto.INT32,
    ),
    "uint16": Front(f"Cast(x) -> t\n{NORMALISE}", NCHW, {}, CONSTANTS, TensorProto.UINT16),
    "int64, open batch": Front(f"Cast(x) -> t\n{NORMALISE}", ("n", 3, "h", "w"), {}, CONSTANTS, TensorProto.INT64),
    "rounded to pixels on the way": Front(
        f"Cast(x) -> c0\nResize(c0, -, scales) -> z\nRound(z) -> q\nClip(q, lo, hi) -> q1\nCast(q1) -> i\n"
        f"Cast(i) -> t\n{NORMALISE}", NCHW, {"z": SMOOTH, "i": {"to": TensorProto.UINT8}},
        {"scales": HALF, "lo": np.float32(0), "hi": np.float32(255), **CONSTANTS}, rounds=True,
    ),
}  # fmt: skip


def maps(model: onnx.ModelProto, x: np.ndarray, rule: str) -> np.ndarray:
    built = gbp_onnx.build(model, rule)
    onnx.checker.check_model(built, full_check=True)
    target = np.full(1 if x.ndim == 3 else len(x), 2)
    return np.asarray(session(built).run([f"attribution_{rule}"], {"x": x, "target": target})[0])


@pytest.mark.parametrize("rule", ["saliency", "guided"])
@pytest.mark.parametrize("name", FRONTS)
def test_the_map_of_integers_is_that_of_the_same_real_numbers(name: str, rule: str) -> None:
    front = FRONTS[name]
    x = front.x
    found = maps(front.model(), x, rule)
    assert found.dtype == np.float32 and found.shape == x.shape and found.any()
    expected = maps(front.model(TensorProto.FLOAT), x.astype(np.float32), rule)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


@pytest.mark.parametrize("name", [n for n, f in FRONTS.items() if not f.rounds])
def test_the_map_says_what_one_grey_level_changes(name: str) -> None:
    """Differences of the deployed model's own score, with every Relu open: the net is linear then."""
    front = FRONTS[name]
    model = front.model()
    for tensor in model.graph.initializer:
        if tensor.name == "bias":
            tensor.CopyFrom(numpy_helper.from_array(np.full(4, 40, np.float32), "bias"))
    x, run = np.clip(front.x, 40, 100), session(model)
    found = maps(model, x, "saliency")
    for flat in RANDOM.choice(x.size, 12, replace=False):
        place = np.unravel_index(flat, x.shape)
        row = 0 if x.ndim == 3 else place[0]
        up, down = x.copy(), x.copy()
        up[place] += 20
        down[place] -= 20
        scores = [run.run(None, {"x": v})[0][row, 2].astype(float) for v in (up, down)]
        assert abs((scores[0] - scores[1]) / 40 - found[place]) <= 5e-3 * np.abs(found).max()


def test_a_cast_to_wide_integers_stops_the_gradient_and_is_named() -> None:
    front = Front(
        f"Cast(x) -> i\nCast(i) -> t\n{NORMALISE}", NCHW, {"i": {"to": TensorProto.INT64}}, CONSTANTS, TensorProto.FLOAT
    )
    with pytest.raises(gbp_onnx.GbpError, match="Cast_i") as caught:
        gbp_onnx.build(front.model())
    assert caught.value.code == "GBP203"


@pytest.mark.parametrize("name", FRONTS)
def test_photographs(name: str) -> None:
    front = FRONTS[name]
    photo = RANDOM.randint(0, 256, (40, 50, 3)).astype(np.uint8)
    explained = gbp_onnx.Explainer(front.model(), providers="cpu").explain(photo)
    height, width = explained.image.shape[:2]
    channels = 1 if 1 in (front.shape[-1], front.shape[-3]) and len(front.shape) == 4 else 3
    assert explained.attributions["guided"].shape == (height, width, channels)
    assert explained.attributions["guided"].any()


def test_colours_are_where_the_model_reads_them() -> None:
    """A net that looks at red alone, behind a flip to BGR: red is the first plane of the map."""
    front = FRONTS["bgr by slice"]
    model = front.model()
    for tensor in model.graph.initializer:
        if tensor.name == "kernel":
            kernel = KERNEL.copy()
            kernel[:, :2] = 0  # the net's channels are B, G, R
            tensor.CopyFrom(numpy_helper.from_array(kernel, "kernel"))
    photo = RANDOM.randint(0, 256, (8, 9, 3)).astype(np.uint8)
    found = gbp_onnx.Explainer(model, "saliency", providers="cpu").explain(photo).attributions["saliency"]
    assert found[:, :, 0].any() and not found[:, :, 1:].any()


def test_extension_operators_are_refused_by_name(tmp_path: Path) -> None:
    front = FRONTS["nhwc, cast, normalised, transposed"]
    model = front.model()
    node = helper.make_node("DecodeImage", ["bytes"], ["x"], "decode", domain="ai.onnx.contrib")
    model.graph.node.insert(0, node)
    model.opset_import.append(helper.make_opsetid("ai.onnx.contrib", 1))
    del model.graph.input[:]
    model.graph.input.append(helper.make_tensor_value_info("bytes", TensorProto.UINT8, [1, 1, None]))
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    with pytest.raises(gbp_onnx.GbpError, match=r"ai\.onnx\.contrib::DecodeImage"):
        gbp_onnx.build(path)
