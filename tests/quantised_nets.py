"""Small quantised networks, made on the spot: by ONNX Runtime's own quantiser, or node by node."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

Array = np.ndarray
SHAPE = (1, 3, 12, 12)
SCHEMES: dict[str, dict[str, Any]] = {
    "qdq_u8": {"quant_format": QuantFormat.QDQ, "activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8},
    "qdq_u8_per_channel": {
        "quant_format": QuantFormat.QDQ,
        "activation_type": QuantType.QUInt8,
        "weight_type": QuantType.QInt8,
        "per_channel": True,
    },
    "qdq_s8": {"quant_format": QuantFormat.QDQ, "activation_type": QuantType.QInt8, "weight_type": QuantType.QInt8},
    "qdq_s8_symmetric": {
        "quant_format": QuantFormat.QDQ,
        "activation_type": QuantType.QInt8,
        "weight_type": QuantType.QInt8,
        "extra_options": {"ActivationSymmetric": True},
    },
    "qdq_u16": {"quant_format": QuantFormat.QDQ, "activation_type": QuantType.QUInt16, "weight_type": QuantType.QInt8},
    "qdq_contrib": {
        "quant_format": QuantFormat.QDQ,
        "activation_type": QuantType.QUInt8,
        "weight_type": QuantType.QUInt8,
        "extra_options": {"UseQDQContribOps": True},
    },
    "operators_u8": {
        "quant_format": QuantFormat.QOperator,
        "activation_type": QuantType.QUInt8,
        "weight_type": QuantType.QUInt8,
    },
    "operators_s8_per_channel": {
        "quant_format": QuantFormat.QOperator,
        "activation_type": QuantType.QInt8,
        "weight_type": QuantType.QInt8,
        "per_channel": True,
    },
}


def graph(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, tuple[int, Sequence[Any]]],
    outputs: dict[str, int],
    stored: dict[str, Array],
    opset: int = 17,
    contrib: bool = False,
) -> onnx.ModelProto:
    made = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info(n, t, s) for n, (t, s) in inputs.items()],
        [helper.make_tensor_value_info(n, t, None) for n, t in outputs.items()],
        [v if isinstance(v, onnx.TensorProto) else numpy_helper.from_array(v, n) for n, v in stored.items()],
    )
    opsets = [helper.make_opsetid("", opset)] + ([helper.make_opsetid("com.microsoft", 1)] if contrib else [])
    model = helper.make_model(made, opset_imports=opsets, ir_version=10)
    return model if contrib else onnx.shape_inference.infer_shapes(model)


def float_net() -> onnx.ModelProto:
    """Convolutions, a residual sum, pools, a concatenation, a gate by Sigmoid; Relu, Relu6, LeakyRelu; Softmax."""
    random = np.random.RandomState(5)
    stored: dict[str, Array] = {"zero": np.float32(0), "six": np.float32(6)}
    nodes = []

    def node(op: str, inputs: str, output: str, **attrs: Any) -> None:
        nodes.append(helper.make_node(op, inputs.split(), [output], name=output, **attrs))

    def conv(x: str, y: str, o: int, i: int, k: int, **attrs: Any) -> None:
        stored[f"{y}_w"] = (random.randn(o, i, k, k) / np.sqrt(i * k * k)).astype(np.float32)
        stored[f"{y}_b"] = (random.randn(o) * 0.1).astype(np.float32)
        node("Conv", f"{x} {y}_w {y}_b", y, kernel_shape=[k, k], **attrs)

    conv("x", "c1", 8, 3, 3, pads=[1, 1, 1, 1])
    node("Relu", "c1", "r1")
    node("MaxPool", "r1", "m1", kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1])
    conv("m1", "c2", 8, 1, 3, pads=[1, 1, 1, 1], group=8)
    node("Clip", "c2 zero six", "r2")
    conv("r2", "c3", 8, 8, 1)
    node("Add", "c3 m1", "sum")
    node("Relu", "sum", "r3")
    conv("r3", "c4", 4, 8, 3, pads=[1, 1, 1, 1])
    node("LeakyRelu", "c4", "l4", alpha=0.1)
    conv("r3", "c5", 4, 8, 1)
    node("Sigmoid", "c5", "s5")
    node("Mul", "l4 s5", "gated")
    node("Concat", "gated r3", "cat", axis=1)
    node("AveragePool", "cat", "a", kernel_shape=[2, 2], strides=[2, 2])
    conv("a", "c6", 10, 12, 3)
    node("Relu", "c6", "r6")
    node("GlobalAveragePool", "r6", "g")
    node("Flatten", "g", "f")
    stored["fc_w"] = (random.randn(10, 7) * 0.5).astype(np.float32)
    stored["fc_b"] = random.randn(7).astype(np.float32) * 0.1
    node("Gemm", "f fc_w fc_b", "logits")
    node("Softmax", "logits", "y", axis=-1)
    return graph(nodes, {"x": (TensorProto.FLOAT, SHAPE)}, {"y": TensorProto.FLOAT}, stored)


class _Calibration(CalibrationDataReader):
    def __init__(self) -> None:
        random = np.random.RandomState(0)
        self.rest: Iterator[Array] = iter(random.randn(8, *SHAPE).astype(np.float32))

    def get_next(self) -> dict[str, Array] | None:
        x = next(self.rest, None)
        return None if x is None else {"x": x}


@cache
def quantised_net(scheme: str) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float.onnx", Path(folder) / "int.onnx"
        onnx.save(float_net(), source)
        if scheme == "dynamic":
            quantize_dynamic(source, target, weight_type=QuantType.QUInt8)
        else:
            quantize_static(source, target, _Calibration(), **SCHEMES[scheme])
        return onnx.load(target)


def image(seed: int = 1) -> Array:
    return np.random.RandomState(seed).randn(*SHAPE).astype(np.float32)


def run(model: onnx.ModelProto, feeds: dict[str, Array]) -> dict[str, Array]:
    session = _session(model)
    return dict(zip((o.name for o in session.get_outputs()), session.run(None, feeds), strict=True))


def fused(model: onnx.ModelProto) -> Counter[str]:
    """The operators on integers that ONNX Runtime runs: counted in its optimised graph."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimised.onnx"
        _session(model, path)
        nodes = onnx.load(path).graph.node
    marks = ("QLinear", "QGemm", "Nhwc", "Integer", "DynamicQuantizeMatMul")
    return Counter(n.op_type for n in nodes if any(mark in n.op_type for mark in marks))


def _session(model: onnx.ModelProto, optimised: Path | None = None) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
