"""Small networks for the tests of the lowered forms, and one check: the maps are the portable form's."""

from __future__ import annotations

import json
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import gbp_onnx
from gbp_onnx.lowering import lower

__all__ = ["LEVELS", "RULES", "Net", "agree", "attributions", "fired", "lowered", "portable", "run"]

Array = NDArray[Any]
RULES = ("saliency", "deconvnet", "guided")
LEVELS = {
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "none": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}


class Net:
    """A network under construction: every method adds a node and returns its output's name."""

    def __init__(self, channels: int = 3, height: int = 12, width: int = 13, batch: Any = "N", seed: int = 0) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, Array] = {}
        self.inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, channels, height, width])]
        self.channels = {"x": channels}
        self.random = np.random.default_rng(seed)

    def weight(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"w{len(self.weights)}"
        self.weights[name] = np.asarray(value, dtype)
        return name

    def node(self, op: str, *inputs: str, outputs: int = 1, name: str = "", **attrs: Any) -> Any:
        made = [name or f"{op.lower()}{len(self.nodes)}"] if outputs == 1 else []
        made = made or [f"{op.lower()}{len(self.nodes)}_{k}" for k in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), made, name=f"node_{len(self.nodes)}", **attrs))
        for output in made:
            self.channels[output] = self.channels.get(inputs[0], 0)
        return made[0] if outputs == 1 else made

    def conv(
        self, x: str, out: int, kernel: Any = 3, stride: Any = 1, pads: Any = None, group: int = 1, **attrs: Any
    ) -> str:
        """A convolution with a bias. `pads`: one number, or begins and ends of both axes; default half the kernel."""
        kh, kw = _pair(kernel)
        space = [kh // 2, kw // 2] * 2 if pads is None else [pads] * 4 if isinstance(pads, int) else list(pads)
        inside = self.channels[x] // group
        scale = 1.5 / np.sqrt(inside * kh * kw)
        w = self.weight(self.random.standard_normal((out, inside, kh, kw)) * scale)
        b = self.weight(self.random.standard_normal(out) * 0.2)
        if "auto_pad" not in attrs:
            attrs["pads"] = space
        y = self.node("Conv", x, w, b, strides=_pair(stride), group=group, kernel_shape=[kh, kw], **attrs)
        self.channels[y] = out
        return str(y)

    def relu(self, x: str) -> str:
        return str(self.node("Relu", x))

    def clip(self, x: str, cap: float) -> str:
        return str(self.node("Clip", x, self.weight(0.0), self.weight(cap)))

    def act(self, x: str, cap: float | None = None) -> str:
        return self.relu(x) if cap is None else self.clip(x, cap)

    def block(self, x: str, out: int, kernel: Any = 3, stride: Any = 1, cap: float | None = None, **attrs: Any) -> str:
        """Conv and rectifier."""
        return self.act(self.conv(x, out, kernel, stride, **attrs), cap)

    def pool(self, x: str, kernel: Any = 3, stride: Any = 2, pads: Any = 0, **attrs: Any) -> str:
        space = [pads] * 4 if isinstance(pads, int) else list(pads)
        return str(self.node("MaxPool", x, kernel_shape=_pair(kernel), strides=_pair(stride), pads=space, **attrs))

    def concat(self, *xs: str) -> str:
        y = self.node("Concat", *xs, axis=1)
        self.channels[y] = sum(self.channels[x] for x in xs)
        return str(y)

    def norm(self, x: str, gamma: Any = None) -> str:
        """BatchNormalization with random statistics."""
        c = self.channels[x]
        g = self.random.standard_normal(c) if gamma is None else np.broadcast_to(gamma, c)
        rest = (self.random.standard_normal(c) * 0.3, self.random.standard_normal(c) * 0.3, np.full(c, 0.8))
        return str(self.node("BatchNormalization", x, self.weight(g), *(self.weight(v) for v in rest)))

    def head(self, x: str, classes: int = 5, trans: int | None = 1) -> str:
        """Global mean and a classifier: Gemm with transB (`trans`), or MatMul."""
        f = self.node("Flatten", self.node("GlobalAveragePool", x))
        c = self.channels[x]
        w = self.random.standard_normal((classes, c) if trans else (c, classes))
        if trans is None:
            return str(self.node("MatMul", f, self.weight(w), name="y"))
        b = self.weight(self.random.standard_normal(classes))
        return str(self.node("Gemm", f, self.weight(w), b, transB=trans, name="y"))

    def model(self, *outputs: str, opset: int = 17, ir: int = 8) -> onnx.ModelProto:
        """The model, with these outputs (default "y")."""
        graph = helper.make_graph(
            self.nodes,
            "net",
            self.inputs,
            [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs or ("y",)],
            [numpy_helper.from_array(v, k) for k, v in self.weights.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)
        inferred = onnx.shape_inference.infer_shapes(model)
        for output, found in zip(model.graph.output, inferred.graph.output, strict=True):
            output.CopyFrom(found)
        return model


def _pair(value: Any) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


def portable(model: onnx.ModelProto, rules: Sequence[str] | str = RULES, **options: Any) -> onnx.ModelProto:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gbp_onnx.GbpWarning)
        return gbp_onnx.build(model, rules, **options)


def lowered(built: onnx.ModelProto, form: str = "cpu", without: Collection[str] = ()) -> onnx.ModelProto:
    """A lowered copy."""
    copy = onnx.ModelProto()
    copy.CopyFrom(built)
    return lower(copy, form, without=without)


def fired(model: onnx.ModelProto) -> dict[str, int]:
    """How often each rewrite found its place."""
    found = json.loads(next(e.value for e in model.metadata_props if e.key == "gbp.rewrites"))
    return {k: int(v) for k, v in found.items() if k != "weights"}


def run(model: onnx.ModelProto, feeds: Mapping[str, Array], level: str = "all") -> dict[str, Array]:
    options = ort.SessionOptions()
    options.graph_optimization_level = LEVELS[level]
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip((o.name for o in session.get_outputs()), session.run(None, dict(feeds)), strict=True))


def attributions(found: Mapping[str, Array]) -> dict[str, Array]:
    return {k: v for k, v in found.items() if k.startswith("attribution_")}


def agree(
    built: onnx.ModelProto,
    other: onnx.ModelProto,
    feeds: Mapping[str, Array],
    levels: Sequence[str] = ("all", "none"),
    tolerance: float = 5e-6,
    nonzero: bool = True,
) -> None:
    """Assert that two models of `build` return the same values: maps within `tolerance` of their maximum.

    `nonzero`: one map at least must hold something, or the check says nothing.
    """
    for level in levels:  # the same for both: the forward pass rounds otherwise at another one, which gates may notice
        wanted, found = run(built, feeds, level), run(other, feeds, level)
        assert not nonzero or any(m.any() for m in attributions(wanted).values())
        assert list(found) == list(wanted)
        for name, value in wanted.items():
            assert found[name].shape == value.shape, (name, level)
            assert found[name].dtype == value.dtype, (name, level)
            assert np.isfinite(value).all(), f"{name} of the portable form"
            error = np.abs(found[name].astype(np.float64) - value).max(initial=0)
            assert error <= tolerance * np.abs(value).max(initial=0), f"{name}, {level}: off by {error:.1e}"
