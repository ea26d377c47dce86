"""A second answer for quantised models: straight-through gradients in NumPy float64, fed with the deployed integers.

Imports nothing from `gbp_onnx`. The deployed model runs in ONNX Runtime with every quantised tensor exposed; those
integers alone decide every gate and every maximum. Everything else is the float64 transpose of the float operator, on
the real numbers scale * (q - zero point) of the weights. Cotangents are d(explained) / d(real number), also of integer
tensors; an integer input gets them times its scale, per unit of the integer.

What it takes from the contract: a quantiser passes strictly inside its range; at a lower end that stands for real 0
too, unless it is a rectifier there (its input can be negative, and is no input of the model); a Relu or Clip that only
a quantiser reads is one rectifier with it, gated by zero point < q < top; quantisers after the last operator that
computes never gate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

__all__ = ["Found", "quantised_oracle"]

Array = np.ndarray
Floats = dict[str, Array]
RANGES = {
    "int8": (-128, 127),
    "uint8": (0, 255),
    "int16": (-32768, 32767),
    "uint16": (0, 65535),
    "int4": (-8, 7),
    "uint4": (0, 15),
}
ENDS = {"QuantizeLinear": 1, "QLinearConv": 6, "QLinearMatMul": 6, "QLinearAdd": 6, "QLinearMul": 6, "QGemm": 7}
ENDS |= {"QLinearConcat": 0, "QLinearWhere": 7}
ENDS |= dict.fromkeys(
    ("QLinearAveragePool", "QLinearGlobalAveragePool", "QLinearLeakyRelu", "QLinearSigmoid", "QLinearSoftmax"), 3
)
MOVERS = ("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Dropout", "Cast")
SAME_SIGN = (
    *MOVERS,
    "Pad",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "DequantizeLinear",
    "QuantizeLinear",
    "Relu",
)
HEADS = ("Softmax", "LogSoftmax", "Sigmoid", "QLinearSoftmax", "QLinearSigmoid")


@dataclass
class Found:
    """`attribution`: float64, the input's shape. `outputs`: what the deployed model returned. `rectifiers`: names of
    the nodes that gate as rectifiers.
    """

    attribution: Array
    outputs: Floats
    integers: Floats
    rectifiers: list[str] = field(default_factory=list)


def quantised_oracle(
    model: onnx.ModelProto | str | Path, feeds: Floats, rule: str, target: int | None = None, wrt: str | None = None
) -> Found:
    """The map of `wrt` (default: the first input) for the class `target` (default: the largest) under a rule."""
    loaded = model if isinstance(model, onnx.ModelProto) else onnx.load(model)
    return _Walk(loaded, feeds, rule, target).run(wrt or loaded.graph.input[0].name)


def deployed(model: onnx.ModelProto, feeds: Floats) -> tuple[Floats, Floats]:
    """What the model returns, and every quantised tensor, in one run that changes no result."""
    exposed, relabelled = _relabelled(model)
    declared = {o.name for o in model.graph.output}
    integers = {i.name for i in model.graph.input if i.type.tensor_type.elem_type not in (1, 10, 11)}
    for node in model.graph.node:
        moved = node.op_type in (*MOVERS, "Pad", "MaxPool") and node.input[0] in integers
        if moved or (node.op_type in ENDS and not _is_float_gemm(node)):
            integers.add(node.output[0])
            if node.output[0] not in declared:
                exposed.graph.output.append(onnx.ValueInfoProto(name=node.output[0]))
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1

    def run(m: onnx.ModelProto) -> Floats:
        session = ort.InferenceSession(m.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return dict(zip((o.name for o in session.get_outputs()), session.run(None, feeds), strict=True))

    everything = run(exposed)
    plain = run(model)
    for name in declared:
        np.testing.assert_array_equal(everything[name], plain[name], err_msg="exposing the integers changed the result")
    everything.update({name: (everything[name].astype(int) - 128).astype(np.int8) for name in relabelled})
    return plain, everything


def _relabelled(model: onnx.ModelProto) -> tuple[onnx.ModelProto, set[str]]:
    """The model with int8 tensors as uint8 where ONNX Runtime itself does that on x86 (one reader of the quantised
    tensor, one of what is dequantised), so that reading them changes nothing; and those tensors' names.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    count: dict[str, int] = {o.name: 1 for o in model.graph.output}
    for name in (name for n in model.graph.node for name in n.input):
        count[name] = count.get(name, 0) + 1
    moved = set[str]()
    for first in copy.graph.node:
        for second in copy.graph.node:
            pair = (first.op_type, second.op_type) == ("QuantizeLinear", "DequantizeLinear")
            if not pair or first.output[0] != second.input[0] or len(first.input) < 3 or len(second.input) < 3:
                continue
            zero = stored[first.input[2]]
            if zero.dtype != np.int8 or count[first.output[0]] > 1 or count.get(second.output[0], 0) > 1:
                continue
            new = f"{first.output[0]}/zero point of uint8"
            copy.graph.initializer.append(numpy_helper.from_array((zero.astype(int) + 128).astype(np.uint8), new))
            first.input[2] = second.input[2] = new
            moved.add(first.output[0])
    del copy.graph.value_info[:]
    return copy, moved


def _is_float_gemm(node: onnx.NodeProto) -> bool:
    return node.op_type == "QGemm" and (len(node.input) < 8 or not node.input[7])


class _Walk:
    def __init__(self, model: onnx.ModelProto, feeds: Floats, rule: str, target: int | None) -> None:
        self.graph, self.feeds, self.rule, self.target = model.graph, feeds, rule, target
        self.nodes = list(self.graph.node)
        self.maker = {name: n for n in self.nodes for name in n.output if name}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for n in self.nodes:
            for name in n.input:
                self.readers.setdefault(name, []).append(n)
        self.weights = {t.name: numpy_helper.to_array(t) for t in self.graph.initializer}
        for n in self.nodes:
            if n.op_type == "Constant":
                self.weights[n.output[0]] = numpy_helper.to_array(n.attribute[0].t)
            if n.op_type == "Identity" and n.input[0] in self.weights:
                self.weights[n.output[0]] = self.weights[n.input[0]]
            if n.op_type == "Cast" and n.input[0] in self.weights:
                kind = helper.tensor_dtype_to_np_dtype(_attrs(n)["to"])
                self.weights[n.output[0]] = self.weights[n.input[0]].astype(kind)
        self.outputs, self.integers = deployed(model, feeds)
        self.inputs = {i.name for i in self.graph.input} - set(self.weights)
        self.rectifiers: list[str] = []
        self.signs: dict[str, bool] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}

    # --- values ---------------------------------------------------------------------------------------------------

    def real(self, name: str, scale: str, zero: str, axis: int = 1) -> Array:
        """scale * (q - zero point) in float64, for a stored or computed quantised tensor."""
        q = self.weights[name] if name in self.weights else self.integers.get(name, self.feeds.get(name))
        q = np.asarray(q).astype(np.float64)
        s = self.weights[scale].astype(np.float64)
        z = self.weights[zero].astype(np.float64) if zero else np.zeros(())
        return _along(s, q, axis) * (q - _along(z, q, axis))

    def value(self, name: str) -> Array:
        """The real number of a float tensor that a few plain operators make from quantised ones."""
        if name in self.weights:
            return self.weights[name].astype(np.float64)
        if name in self.feeds:
            return self.feeds[name].astype(np.float64)
        node = self.maker[name]
        x = node.input
        match node.op_type:
            case "DequantizeLinear":
                return self.real(x[0], x[1], x[2] if len(x) > 2 else "", _attrs(node).get("axis", 1))
            case _ if name in self.integers:  # its own unit will do: only maxima and signs are asked of it
                return self.integers[name].astype(np.float64)
            case "Transpose":
                return np.transpose(self.value(x[0]), _attrs(node).get("perm"))
            case "Identity" | "Cast":
                return self.value(x[0])
            case "MaxPool":
                return self.values_of_pool(node)
            case "PRelu":
                v = self.value(x[0])
                return np.where(v > 0, v, self.value(x[1]) * v)
            case "Reshape" | "Flatten" | "Squeeze":
                return self.value(x[0])
        raise NotImplementedError(f"the value of {name} ({node.op_type})")

    def values_of_pool(self, node: onnx.NodeProto) -> Array:
        return _windows(self.value(node.input[0]), _attrs(node), -np.inf).max(axis=(4, 5))

    # --- who gates ------------------------------------------------------------------------------------------------

    def non_negative(self, name: str) -> bool:
        if name not in self.signs:
            self.signs[name] = self._sign(name)
        return self.signs[name]

    def _sign(self, name: str) -> bool:
        if name in self.weights:
            return bool((self.weights[name] >= 0).all())
        node = self.maker.get(name)
        if node is None:
            return False
        if node.op_type in ENDS and not _is_float_gemm(node) and self.begins_at_zero(node):
            return True
        return self.sign_before(node)

    def sign_before(self, node: onnx.NodeProto) -> bool:
        """Whether what a node computes (before its own quantiser) cannot be negative."""
        x = node.input
        match node.op_type:
            case "Relu" | "Sigmoid" | "Softmax" | "QLinearSigmoid" | "QLinearSoftmax":
                return True
            case "Clip":
                return len(x) > 1 and self.non_negative(x[1])
            case "DequantizeLinear" if x[0] in self.inputs or x[0] in self.weights:
                return self.begins_at_zero(node)
            case op if op in SAME_SIGN or op in ("QLinearAveragePool", "QLinearGlobalAveragePool", "QLinearLeakyRelu"):
                return self.non_negative(x[0])
            case "Add" | "Sum" | "Concat":
                return all(map(self.non_negative, x))
            case "QLinearAdd" | "QLinearMul":
                return self.non_negative(x[0]) and self.non_negative(x[3])
            case "QLinearConcat":
                return all(map(self.non_negative, x[2::3]))
        return False

    def terms(self, node: onnx.NodeProto) -> tuple[float, float, tuple[int, int]]:
        """The scale, zero point and range of a quantising or dequantising node."""
        place = ENDS.get(node.op_type, 1)
        zero = self.weights[node.input[place + 1]] if len(node.input) > place + 1 else np.zeros((), np.uint8)
        scale = self.weights[node.input[place]].reshape(-1)[0]
        return float(scale), float(zero.reshape(-1)[0]), RANGES[zero.dtype.name]

    def begins_at_zero(self, node: onnx.NodeProto) -> bool:
        _, zero, (low, _) = self.terms(node)
        return zero == low

    def last(self) -> set[str]:
        """Outputs of the quantisers that never gate."""
        found, name = set[str](), self.graph.output[0].name
        while (node := self.maker.get(name)) is not None:
            if node.op_type in ENDS:
                found.add(name)
            if node.op_type not in (*MOVERS, *HEADS, "QuantizeLinear", "DequantizeLinear"):
                break
            name = node.input[0]
        return found

    def reads_input(self, node: onnx.NodeProto) -> bool:
        name = node.input[0]
        while (maker := self.maker.get(name)) is not None and maker.op_type in (*MOVERS, "DequantizeLinear"):
            name = maker.input[0]
        return node.op_type == "QuantizeLinear" and name in self.inputs

    def absorbed(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        """The Relu or Clip from 0 that only this QuantizeLinear reads."""
        before = self.maker.get(node.input[0])
        if node.op_type != "QuantizeLinear" or before is None or len(self.readers[before.output[0]]) != 1:
            return None
        is_clip = before.op_type == "Clip" and len(before.input) > 1 and not self.weights[before.input[1]].any()
        return before if before.op_type == "Relu" or is_clip else None

    def through_quantiser(self, node: onnx.NodeProto, ct: Array) -> Array:
        """The cotangent in front of a node's own quantiser."""
        q = self.integers[node.output[0]].astype(np.float64)
        _, zero, (low, high) = self.terms(node)
        inside = q < high
        before, is_last = self.absorbed(node), node.output[0] in self.last_ones
        if before is not None:
            self.rectifiers.append(before.name)
            return self.rectified(ct, (q > zero) & (inside | is_last))
        if is_last:
            return ct
        if zero != low:
            return np.where((q > low) & inside, ct, 0)
        if self.sign_before(node) or self.reads_input(node):
            return np.where(inside, ct, 0)
        self.rectifiers.append(node.name)
        return self.rectified(ct, (q > zero) & inside)

    def rectified(self, ct: Array, open_: Array) -> Array:
        if self.rule == "deconvnet":
            return np.maximum(ct, 0)
        return np.where(open_, np.maximum(ct, 0) if self.rule == "guided" else ct, 0)

    # --- backwards ------------------------------------------------------------------------------------------------

    def run(self, wrt: str) -> Found:
        self.last_ones = self.last()
        output = self.graph.output[0].name
        result = self.outputs[output]
        chosen = int(result.reshape(-1).argmax()) if self.target is None else self.target
        seed = np.zeros(result.size)
        seed[chosen] = 1
        self.cts: Floats = {output: seed.reshape(result.shape)}
        absorbed = {id(b) for n in self.nodes if (b := self.absorbed(n)) is not None}
        for node in reversed(self.nodes):
            if node.output[0] not in self.cts or node.output[0] in self.weights:
                continue
            ct = self.cts[node.output[0]]
            if id(node) in absorbed:
                self.add(node.input[0], ct)
                continue
            is_head = node.op_type in HEADS and self.is_head(node)
            if node.op_type in ENDS and not _is_float_gemm(node):
                ct = self.through_quantiser(node, ct)
            if is_head:
                self.add(node.input[0], ct)
            else:
                BACK[node.op_type](self, node, ct, _attrs(node))
        ct = self.cts[wrt]
        if self.feeds[wrt].dtype.kind != "f":
            ct = ct * self.input_scale(wrt)
        return Found(ct, self.outputs, self.integers, self.rectifiers)

    def is_head(self, node: onnx.NodeProto) -> bool:
        name = self.graph.output[0].name
        while (maker := self.maker[name]) is not node:
            if maker.op_type not in (*MOVERS, "QuantizeLinear", "DequantizeLinear"):
                return False
            name = maker.input[0]
        return True

    def input_scale(self, name: str) -> float:
        reader = self.readers[name][0]
        while reader.op_type in MOVERS:
            reader = self.readers[reader.output[0]][0]
        return float(self.weights[reader.input[1]].reshape(-1)[0])

    def add(self, name: str, ct: Array) -> None:
        if name in self.weights:
            return
        self.cts[name] = self.cts[name] + ct if name in self.cts else ct

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor: looked up where it is at hand, else worked out from what makes it."""
        for place in (self.weights, self.integers, self.feeds, self.cts):
            if name in place:
                return tuple(place[name].shape)
        node = self.maker[name]
        if node.op_type == "Transpose":
            source = self.shape(node.input[0])
            return tuple(source[k] for k in _attrs(node).get("perm", range(len(source))[::-1]))
        if node.op_type in ("DequantizeLinear", "Identity", "Cast", "Relu", "Clip"):
            return self.shape(node.input[0])
        return self.inferred[name]

    @cached_property
    def inferred(self) -> dict[str, tuple[int, ...]]:
        bare = helper.make_model(self.graph, opset_imports=[helper.make_opsetid("", 17)])
        shapes = onnx.shape_inference.infer_shapes(bare).graph.value_info
        return {v.name: tuple(max(d.dim_value, 1) for d in v.type.tensor_type.shape.dim) for v in shapes}


def _along(term: Array, q: Array, axis: int) -> Array:
    if term.ndim == 1 and term.size > 1:
        return term.reshape([-1 if k == axis % q.ndim else 1 for k in range(q.ndim)])
    return term.reshape(()) if term.size == 1 else term


def _attrs(node: onnx.NodeProto) -> dict[str, Any]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


# --- windows ------------------------------------------------------------------------------------------------------


def _geometry(attrs: dict[str, Any], kernel: tuple[int, ...], size: tuple[int, ...]) -> tuple[list[int], ...]:
    strides, dilations = (list(attrs.get(k, [1, 1])) for k in ("strides", "dilations"))
    pads = list(attrs.get("pads", [0, 0, 0, 0]))
    auto = attrs.get("auto_pad", b"NOTSET")
    if auto in (b"SAME_UPPER", b"SAME_LOWER"):
        for k in range(2):
            total = max((-(-size[k] // strides[k]) - 1) * strides[k] + (kernel[k] - 1) * dilations[k] + 1 - size[k], 0)
            small, large = total // 2, total - total // 2
            pads[k], pads[k + 2] = (small, large) if auto == b"SAME_UPPER" else (large, small)
    return strides, dilations, pads


def _windows(x: Array, attrs: dict[str, Any], fill: float) -> Array:
    """[N, C, oh, ow, kh, kw]"""
    kernel = tuple(attrs["kernel_shape"])
    strides, dilations, pads = _geometry(attrs, kernel, x.shape[2:])
    extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    if attrs.get("ceil_mode"):
        for k in range(2):
            rest = (x.shape[2 + k] + pads[k] + pads[k + 2] - extents[k]) % strides[k]
            pads[k + 2] += (strides[k] - rest) % strides[k]
    padded = np.pad(x, [(0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])], constant_values=fill)
    views = np.lib.stride_tricks.sliding_window_view(padded, extents, axis=(2, 3))
    return views[:, :, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]]


def _back_from_windows(ct: Array, shape: tuple[int, ...], attrs: dict[str, Any]) -> Array:
    """The sum of [N, C, oh, ow, kh, kw] where the windows lay: [N, C, h, w]"""
    kernel = tuple(ct.shape[4:])
    strides, dilations, pads = _geometry(attrs, kernel, shape[2:])
    extra = [s * n + k * d for s, n, k, d in zip(strides, ct.shape[2:4], kernel, dilations, strict=True)]
    full = np.zeros((*shape[:2], shape[2] + sum(pads[0::2]) + extra[0], shape[3] + sum(pads[1::2]) + extra[1]))
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            top, left = i * dilations[0], j * dilations[1]
            rows = slice(top, top + strides[0] * ct.shape[2], strides[0])
            columns = slice(left, left + strides[1] * ct.shape[3], strides[1])
            full[:, :, rows, columns] += ct[..., i, j]
    return full[:, :, pads[0] : pads[0] + shape[2], pads[1] : pads[1] + shape[3]]


def _conv_back(ct: Array, w: Array, shape: tuple[int, ...], attrs: dict[str, Any]) -> Array:
    group = attrs.get("group", 1)
    grouped = ct.reshape(ct.shape[0], group, -1, *ct.shape[2:])
    weights = w.reshape(group, -1, *w.shape[1:])
    taps = np.einsum("ngohw,gocij->ngchwij", grouped, weights, optimize=True)
    return _back_from_windows(taps.reshape(ct.shape[0], -1, *taps.shape[3:]), shape, attrs)


# --- operators ----------------------------------------------------------------------------------------------------

Back = Callable[[_Walk, onnx.NodeProto, Array, dict[str, Any]], None]
BACK: dict[str, Back] = {}


def back(*ops: str) -> Callable[[Back], Back]:
    def register(function: Back) -> Back:
        BACK.update(dict.fromkeys(ops, function))
        return function

    return register


@back("QuantizeLinear", "DequantizeLinear", "Identity", "Cast", "Dropout")
def _same(w: _Walk, n: onnx.NodeProto, ct: Array, a: dict[str, Any]) -> None:
    w.add(n.input[0], ct)


@back("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def _reshape(w: _Walk, n: onnx.NodeProto, ct: Array, a: dict[str, Any]) -> None:
    w.add(n.input[0], ct.reshape(w.shape(n.input[0])))


@back("Transpose")
def _transpose(w: _Walk, n: onnx.NodeProto, ct: Array, a: dict[str, Any]) -> None:
    perm = a.get("perm", range(ct.ndim)[::-1])
    w.add(n.input[0], np.transpose(ct, np.argsort(perm)))


@back("Conv")
def _conv(w: _Walk, n: onnx.NodeProto, ct: Array, a: dict[str, Any]) -> None:
    w.add(n.input[0], _conv_back(ct, w.value(n.input[1]), w.shape(n.input[0]), a))


@back("QLinearConv")
def _qlinear_conv(w: _Walk, n: onnx.NodeProto, ct: Array, a: dict[str, Any]) -> None:
    w.add(n.input[0], _conv_back(ct, w.real(*n.input[3:6], axis=0), w.shape(n.input[0]), a))


@back("MatMul")
def _matmul(w: _Walk, n: onnx.NodeProto, ct: Array, a: dict[str, Any]) -> None:
    w.add(n.input[0], ct @ np.swapaxes(w.value(n.input[1]), -1, -2))


@back("QLinearMatMul")
def _qlinear_matmul(w: _Walk, n: onnx.NodeProto, ct: Array, a: dict[str, Any]) -> None:
    w.add(n.input[0], ct @ np.swapaxes(w.real(*n.input[3:6], axis=-1), -1, -2))


def _gemm_back(ct: Array, b: Array, a: dict[str, Any]) -> Array:
    made = a.get("alpha", 1.0) * ct @ (b if a.get("transB") else b.T)
    return made.T if a.get("transA") else made


@back("Gemm")
def _gemm(w: _Walk, n: onnx.NodeProto, ct: Array, a: dict[str, Any]) -> None:
    w.add(n.input[0], _gemm_back(ct, w.value(n.input[1]), a))


@back("QGemm")
def _qgemm(w: _Walk, n: onnx.NodeProto, ct: Array, a: dict[str, Any]) -> None:
    w.add(n.input[0], _gemm_back(ct, w.real(*n.input[3:6], axis=0 if a.get("transB") else 1), a))


def _summed(ct: Array, shape: tuple[int, ...]) -> Array:
    ct = ct.sum(axis=tuple(range(ct.ndim - len(shape))))
    return ct.sum(axis=tuple(k for k, d in enumerate(shape) if d == 1 and ct.shape[k] != 1), keepdims=True)


@back("Add", "Sum")
def _add(w: _Walk, n: onnx.NodeProto, ct: Array, a: dict[str, Any]) -> None:
    for name in n.input:
        if name not in w.weights:
            w.add(name, _summed(ct, w.shape(name)))


@back("Mul")
def _mul(w: _Walk, n: onnx.NodeProto, ct: Array, a: dict[str, Any]) -> None:
    for x, y in (n.input, n.input[::-1]):
        if x not in w.weights:
            w.add(x, _summed(ct * w.value(y), w.shape(x)))


@back("QLinearAdd")
def _qlinear_add(w: _Walk, n: onnx.NodeProto, ct: Array, a: dict[str, Any]) -> None:
    for name in (n.input[0], n.input[3]):
        w.add(name, _summed(ct, w.shape(name)))


@back("QLinearMul")
def _qlinear_mul(w: _Walk, n: onnx.NodeProto, ct: Array, a: dict[str, Any]) -> None:
    x, y = n.input[:3], n.input[3:6]
    w.add(x[0], _summed(ct * w.real(*y), w.shape(x[0])))
    w.add(y[0], _summed(ct * w.real(*x), w.shape(y[0])))


@back("QLinearWhere")
def _qlinear_where(w: _Walk, n: onnx.NodeProto, ct: Array, a: dict[str, Any]) -> None:
    condition = w.feeds[n.input[0]] if n.input[0] in w.feeds else w.weights[n.input[0]]
    w.add(n.input[1], _summed(np.where(condition, ct, 0), w.shape(n.input[1])))
    w.add(n.input[4], _summed(np.where(condition, 0, ct), w.shape(n.input[4])))


@back("Pad")
def _pad(w: _Walk, n: onnx.NodeProto, ct: Array, a: dict[str, Any]) -> None:
    pads = w.weights[n.input[1]].tolist()
    cut = tuple(
        slice(b, ct.shape[k] - e) for k, (b, e) in enumerate(zip(pads[: ct.ndim], pads[ct.ndim :], strict=True))
    )
    w.add(n.input[0], ct[cut])


@back("Concat")
def _concat(w: _Walk, n: onnx.NodeProto, ct: Array, a: dict[str, Any]) -> None:
    _cut(w, list(n.input), ct, a["axis"])


@back("QLinearConcat")
def _qlinear_concat(w: _Walk, n: onnx.NodeProto, ct: Array, a: dict[str, Any]) -> None:
    _cut(w, list(n.input[2::3]), ct, a["axis"])


def _cut(w: _Walk, names: list[str], ct: Array, axis: int) -> None:
    sizes = [w.shape(name)[axis] for name in names]
    for name, part in zip(names, np.split(ct, np.cumsum(sizes)[:-1], axis=axis), strict=True):
        w.add(name, part)


@back("MaxPool")
def _max_pool(w: _Walk, n: onnx.NodeProto, ct: Array, a: dict[str, Any]) -> None:
    windows = _windows(w.value(n.input[0]), a, -np.inf)
    flat = windows.reshape(*windows.shape[:4], -1)
    first = np.arange(flat.shape[-1]) == flat.argmax(axis=-1)[..., None]
    w.add(n.input[0], _back_from_windows((first * ct[..., None]).reshape(windows.shape), w.shape(n.input[0]), a))


@back("AveragePool", "QLinearAveragePool")
def _average_pool(w: _Walk, n: onnx.NodeProto, ct: Array, a: dict[str, Any]) -> None:
    shape = w.shape(n.input[0])
    inside = _windows(np.ones(shape), a, float(a.get("count_include_pad", 0)))
    share = ct / inside.sum(axis=(4, 5))
    w.add(n.input[0], _back_from_windows(np.broadcast_to(share[..., None, None], inside.shape), shape, a))


@back("GlobalAveragePool", "QLinearGlobalAveragePool")
def _global_average_pool(w: _Walk, n: onnx.NodeProto, ct: Array, a: dict[str, Any]) -> None:
    shape = w.shape(n.input[0])
    w.add(n.input[0], np.broadcast_to(ct / np.prod(shape[2:]), shape))


@back("QLinearLeakyRelu")
def _qlinear_leaky_relu(w: _Walk, n: onnx.NodeProto, ct: Array, a: dict[str, Any]) -> None:
    w.add(n.input[0], np.where(w.real(*n.input[:3]) > 0, ct, a.get("alpha", 0.01) * ct))


@back("LeakyRelu")
def _leaky_relu(w: _Walk, n: onnx.NodeProto, ct: Array, a: dict[str, Any]) -> None:
    w.add(n.input[0], np.where(w.value(n.input[0]) > 0, ct, a.get("alpha", 0.01) * ct))


@back("PRelu")
def _prelu(w: _Walk, n: onnx.NodeProto, ct: Array, a: dict[str, Any]) -> None:
    w.add(n.input[0], np.where(w.value(n.input[0]) > 0, ct, w.value(n.input[1]) * ct))


@back("QLinearSigmoid")
def _qlinear_sigmoid(w: _Walk, n: onnx.NodeProto, ct: Array, a: dict[str, Any]) -> None:
    s = 1 / (1 + np.exp(-w.real(*n.input[:3])))
    w.add(n.input[0], ct * s * (1 - s))


@back("QLinearSoftmax")
def _qlinear_softmax(w: _Walk, n: onnx.NodeProto, ct: Array, a: dict[str, Any]) -> None:
    x, axis = w.real(*n.input[:3]), a.get("axis", -1)
    s = np.exp(x - x.max(axis=axis, keepdims=True))
    s /= s.sum(axis=axis, keepdims=True)
    w.add(n.input[0], s * (ct - (ct * s).sum(axis=axis, keepdims=True)))


@back("Sigmoid")
def _sigmoid(w: _Walk, n: onnx.NodeProto, ct: Array, a: dict[str, Any]) -> None:
    s = 1 / (1 + np.exp(-w.value(n.input[0])))
    w.add(n.input[0], ct * s * (1 - s))


@back("Relu")
def _relu(w: _Walk, n: onnx.NodeProto, ct: Array, a: dict[str, Any]) -> None:
    w.rectifiers.append(n.name)
    w.add(n.input[0], w.rectified(ct, w.value(n.input[0]) > 0))
