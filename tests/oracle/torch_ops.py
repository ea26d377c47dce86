"""ONNX operators as torch functions in float64, written from the operator specification.

Each function takes a `Call` and its input tensors (None for an omitted one) and returns one tensor or a tuple. Floats
of every width are float64, integers of every width int64: a cast between widths changes nothing but wrapped integers.
A decision that makes the function piecewise (a sign, a maximum, a bound) reads `call.gate(i)`, never the tensor
itself: that is how a float32 run can dictate the branches while the arithmetic stays float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import onnx
import torch
import torch.nn.functional as F  # noqa: N812
from onnx import helper, numpy_helper

Tensor = torch.Tensor
INTS = {
    onnx.TensorProto.INT8: torch.int8,
    onnx.TensorProto.INT16: torch.int16,
    onnx.TensorProto.INT32: torch.int32,
    onnx.TensorProto.INT64: torch.int64,
    onnx.TensorProto.UINT8: torch.uint8,
}
FLOATS = {
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.BFLOAT16,
}


class Unsupported(NotImplementedError):  # noqa: N818
    """The oracle has no meaning for this operator or attribute."""


class Call(Protocol):
    """What an operator may ask about the node that it evaluates."""

    opset: int
    n_outputs: int

    def attr(self, name: str, default: Any = None) -> Any: ...
    def gate(self, i: int) -> Tensor: ...
    def gate_out(self, computed: Tensor) -> Tensor: ...


OPS: dict[str, Callable[..., Any]] = {}


def op(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(fn: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            OPS[name] = fn
        return fn

    return register


def f32(value: float) -> float:
    """A default from the specification, as the float32 that a runtime holds."""
    return float(np.float32(value))


def to_tensor(array: Any) -> Any:
    """float* -> float64, int* and uint* -> int64, bool -> bool; strings and the like stay as they are."""
    array = np.asarray(array)
    if array.dtype == np.bool_:
        return torch.from_numpy(np.array(array))
    if array.dtype.kind in "iu":
        return torch.from_numpy(array.astype(np.int64))
    if array.dtype.kind == "f" or "float" in array.dtype.name:
        return torch.from_numpy(array.astype(np.float64))
    if "int" in array.dtype.name:
        return torch.from_numpy(array.astype(np.int64))
    return array


def ints(value: Any) -> list[int] | None:
    if value is None:
        return None
    if isinstance(value, Tensor):
        return [int(v) for v in value.reshape(-1).tolist()]
    return [int(v) for v in value]


def first_argmax(x: Tensor, largest: bool = True) -> Tensor:
    """Index of the first extreme value along the last axis (NaN counts as extreme)."""
    a = x.detach().numpy()
    return torch.from_numpy(np.asarray(a.argmax(-1) if largest else a.argmin(-1)))


# ------------------------------------------------------------------------------------------------ constants and shapes


@op("Constant")
def constant(c: Call) -> Any:
    for name in ("value", "value_float", "value_int", "value_floats", "value_ints"):
        value = c.attr(name)
        if value is not None:
            if isinstance(value, onnx.TensorProto):
                value = numpy_helper.to_array(value)
            return to_tensor(value)
    for name in ("value_string", "value_strings"):
        if c.attr(name) is not None:
            return np.asarray(c.attr(name), dtype=object)
    raise Unsupported("Constant without a dense value")


@op("ConstantOfShape")
def constant_of_shape(c: Call, shape: Tensor) -> Tensor:
    value = c.attr("value")
    fill = to_tensor(numpy_helper.to_array(value) if value is not None else np.zeros(1, np.float32))
    return fill.reshape(-1)[0].expand(ints(shape)).clone()


@op("Shape")
def shape_of(c: Call, x: Tensor) -> Tensor:
    return torch.tensor(list(x.shape)[c.attr("start", 0) : c.attr("end")], dtype=torch.int64)


@op("Size")
def size_of(c: Call, x: Tensor) -> Tensor:
    return torch.tensor(x.numel(), dtype=torch.int64)


@op("Range")
def range_(c: Call, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    n = max(math.ceil((limit.item() - start.item()) / delta.item()), 0)
    return start + torch.arange(n, dtype=start.dtype) * delta


@op("EyeLike")
def eye_like(c: Call, x: Tensor) -> Tensor:
    k = c.attr("k", 0)
    return torch.from_numpy(np.eye(*x.shape, k=k)).to(x.dtype)


@op("Identity")
def identity(c: Call, x: Any) -> Any:
    return x


@op("Dropout")
def dropout(c: Call, x: Tensor, ratio: Tensor | None = None, training: Tensor | None = None) -> Any:
    if training is not None and bool(training):
        raise Unsupported("Dropout in training mode")
    return x, torch.ones_like(x, dtype=torch.bool)


@op("Cast")
def cast(c: Call, x: Tensor) -> Tensor:
    return cast_to(x, c.attr("to"))


@op("CastLike")
def cast_like(c: Call, x: Tensor, like: Tensor) -> Tensor:
    return x.to(like.dtype)


def cast_to(x: Tensor, to: Any) -> Tensor:
    if isinstance(to, bytes | str):  # opset below 6 names the type
        to = onnx.TensorProto.DataType.Value(to.decode() if isinstance(to, bytes) else to)
    if to in FLOATS:
        return x.to(torch.float64)
    if to == onnx.TensorProto.BOOL:
        return x != 0
    if to in INTS:
        return x.to(torch.int64).to(INTS[to]).to(torch.int64)
    raise Unsupported(f"Cast to {onnx.TensorProto.DataType.Name(to)}")


# ------------------------------------------------------------------------------------------------ elementwise


def legacy_broadcast(c: Call, a: Tensor, b: Tensor) -> Tensor:
    """Below opset 7, `broadcast=1` aligns b with a from `axis` on (default: at the end)."""
    if c.opset >= 7 or not c.attr("broadcast", 0) or c.attr("axis") is None:
        return b
    axis = c.attr("axis") % a.ndim
    return b.reshape(tuple(b.shape) + (1,) * (a.ndim - axis - b.ndim))


def binary(fn: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    def run(c: Call, a: Tensor, b: Tensor) -> Tensor:
        return fn(a, legacy_broadcast(c, a, b))

    return run


def _div(a: Tensor, b: Tensor) -> Tensor:
    return a / b if a.is_floating_point() or b.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


for _name, _fn in {
    "Add": torch.add,
    "Sub": torch.sub,
    "Mul": torch.mul,
    "Div": _div,
    "And": torch.logical_and,
    "Or": torch.logical_or,
    "Xor": torch.logical_xor,
}.items():
    op(_name)(binary(_fn))


@op("Pow")
def pow_(c: Call, a: Tensor, b: Tensor) -> Tensor:
    b = legacy_broadcast(c, a, b)
    return torch.pow(a, b.to(a.dtype)) if a.is_floating_point() else torch.pow(a.double(), b.double()).to(a.dtype)


@op("Mod")
def mod(c: Call, a: Tensor, b: Tensor) -> Tensor:
    return torch.fmod(a, b) if c.attr("fmod", 0) else torch.remainder(a, b)


@op("Sum")
def sum_(c: Call, *xs: Tensor) -> Tensor:
    out = xs[0]
    for x in xs[1:]:
        out = out + x
    return out


@op("Mean")
def mean_(c: Call, *xs: Tensor) -> Tensor:
    return sum_(c, *xs) / len(xs)


def _extreme(c: Call, xs: Sequence[Tensor], largest: bool) -> Tensor:
    """Max or Min of several inputs; the cotangent is shared equally by those that are equal to the result."""
    xs = torch.broadcast_tensors(*xs)
    gates = torch.stack(torch.broadcast_tensors(*(c.gate(i) for i in range(len(xs)))))
    best = gates.amax(0) if largest else gates.amin(0)
    chosen = (gates == best) | torch.isnan(gates)
    if not xs[0].is_floating_point():
        return torch.stack(list(xs)).amax(0) if largest else torch.stack(list(xs)).amin(0)
    count = chosen.sum(0).to(torch.float64)
    return sum_(c, *(torch.where(chosen[i], x / count, torch.zeros_like(x)) for i, x in enumerate(xs)))


@op("Max")
def max_(c: Call, *xs: Tensor) -> Tensor:
    return _extreme(c, xs, True)


@op("Min")
def min_(c: Call, *xs: Tensor) -> Tensor:
    return _extreme(c, xs, False)


def compare_op(fn: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    def run(c: Call, a: Tensor, b: Tensor) -> Tensor:
        return fn(c.gate(0), legacy_broadcast(c, a, c.gate(1)))

    return run


for _name, _fn in {
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Equal": torch.eq,
}.items():
    op(_name)(compare_op(_fn))


@op("Where")
def where(c: Call, cond: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return torch.where(cond, x, y)


def unary(fn: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    def run(c: Call, x: Tensor) -> Tensor:
        return fn(x)

    return run


for _name, _fn in {
    "Neg": torch.neg,
    "Reciprocal": torch.reciprocal,
    "Exp": torch.exp,
    "Log": torch.log,
    "Sqrt": torch.sqrt,
    "Erf": torch.erf,
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
    "Sin": torch.sin,
    "Cos": torch.cos,
    "Tan": torch.tan,
    "Asin": torch.asin,
    "Acos": torch.acos,
    "Atan": torch.atan,
    "Sinh": torch.sinh,
    "Cosh": torch.cosh,
    "Asinh": torch.asinh,
    "Acosh": torch.acosh,
    "Atanh": torch.atanh,
    "Not": torch.logical_not,
    "IsNaN": torch.isnan,
    "Sign": torch.sign,
    "Floor": torch.floor,
    "Ceil": torch.ceil,
    "Round": torch.round,
    "Mish": lambda x: x * torch.tanh(torch.logaddexp(x, torch.zeros_like(x))),
    "Softplus": lambda x: torch.logaddexp(x, torch.zeros_like(x)),
    "Softsign": lambda x: x / (1 + torch.abs(x)),
}.items():
    op(_name)(unary(_fn))


@op("IsInf")
def is_inf(c: Call, x: Tensor) -> Tensor:
    positive = torch.isposinf(x) & bool(c.attr("detect_positive", 1))
    return positive | (torch.isneginf(x) & bool(c.attr("detect_negative", 1)))


# ------------------------------------------------------------------------------------------------ activations


@op("Abs")
def abs_(c: Call, x: Tensor) -> Tensor:
    return x * torch.sign(c.gate(0)).to(x.dtype)


@op("Relu")  # reached for integers only: a float Relu is a rectifier and never gets here
def relu(c: Call, x: Tensor) -> Tensor:
    return torch.clamp(x, min=0)


@op("Clip")
def clip(c: Call, x: Tensor, lo: Tensor | None = None, hi: Tensor | None = None) -> Tensor:
    """The derivative is 1 strictly between the bounds, else 0."""
    low = lo if lo is not None else c.attr("min")
    high = hi if hi is not None else c.attr("max")
    gate = c.gate(0)
    out = x
    if low is not None:
        low = torch.as_tensor(low, dtype=x.dtype)
        out = torch.where(gate > low, out, low)
    if high is not None:
        high = torch.as_tensor(high, dtype=x.dtype)
        at = gate if low is None else torch.maximum(gate, low)
        out = torch.where(at < high, out, high)
    return out


def _negative_part(c: Call, x: Tensor, fn: Callable[[Tensor], Tensor]) -> Tensor:
    """x where the gate is positive, fn(x) elsewhere; fn never sees a large positive number."""
    positive = c.gate(0) > 0
    return torch.where(positive, x, fn(torch.where(positive, torch.zeros_like(x), x)))


@op("LeakyRelu")
def leaky_relu(c: Call, x: Tensor) -> Tensor:
    return _negative_part(c, x, lambda v: v * c.attr("alpha", f32(0.01)))


@op("PRelu")
def prelu(c: Call, x: Tensor, slope: Tensor) -> Tensor:
    if c.opset < 7 and slope.ndim == 1 and x.ndim > 1:
        slope = slope.reshape((-1,) + (1,) * (x.ndim - 2))
    return _negative_part(c, x, lambda v: v * slope)


@op("Elu")
def elu(c: Call, x: Tensor) -> Tensor:
    return _negative_part(c, x, lambda v: c.attr("alpha", 1.0) * torch.expm1(v))


@op("Celu")
def celu(c: Call, x: Tensor) -> Tensor:
    alpha = c.attr("alpha", 1.0)
    return _negative_part(c, x, lambda v: alpha * torch.expm1(v / alpha))


@op("Selu")
def selu(c: Call, x: Tensor) -> Tensor:
    alpha, gamma = c.attr("alpha", f32(1.6732632423543772)), c.attr("gamma", f32(1.0507009873554805))
    return gamma * _negative_part(c, x, lambda v: alpha * torch.expm1(v))


@op("ThresholdedRelu")  # reached for nothing float: kept so that the table is whole
def thresholded_relu(c: Call, x: Tensor) -> Tensor:
    return torch.where(c.gate(0) > c.attr("alpha", 1.0), x, torch.zeros_like(x))


@op("Shrink")
def shrink(c: Call, x: Tensor) -> Tensor:
    lambd, bias, gate = c.attr("lambd", 0.5), c.attr("bias", 0.0), c.gate(0)
    return torch.where(gate < -lambd, x + bias, torch.where(gate > lambd, x - bias, torch.zeros_like(x)))


@op("HardSigmoid")
def hard_sigmoid(c: Call, x: Tensor) -> Tensor:
    y = c.attr("alpha", f32(0.2)) * x + c.attr("beta", 0.5)
    gate = c.gate_out(torch.clamp(y.detach(), 0, 1))
    return torch.where((gate > 0) & (gate < 1), y, (gate >= 1).to(x.dtype))


@op("HardSwish")
def hard_swish(c: Call, x: Tensor) -> Tensor:
    gate = c.gate(0)
    return torch.where(gate >= 3, x, torch.where(gate <= -3, torch.zeros_like(x), x * (x / 6 + 0.5)))


@op("Gelu")
def gelu(c: Call, x: Tensor) -> Tensor:
    return F.gelu(x, approximate=_text(c.attr("approximate", "none")))


@op("Swish")
def swish(c: Call, x: Tensor) -> Tensor:
    return x * torch.sigmoid(c.attr("alpha", 1.0) * x)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _rows(c: Call, x: Tensor, fn: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Softmax's axis: one axis from opset 13 on, before that everything from the axis on (default 1)."""
    if c.opset >= 13:
        return fn(x, c.attr("axis", -1))
    axis = c.attr("axis", 1) % max(x.ndim, 1)
    rows = math.prod(x.shape[:axis])
    return fn(x.reshape(rows, -1), 1).reshape(x.shape)


@op("Softmax")
def softmax(c: Call, x: Tensor) -> Tensor:
    return _rows(c, x, torch.softmax)


@op("LogSoftmax")
def log_softmax(c: Call, x: Tensor) -> Tensor:
    return _rows(c, x, torch.log_softmax)


@op("ImageScaler")
def image_scaler(c: Call, x: Tensor) -> Tensor:
    bias = torch.tensor(c.attr("bias", [0.0] * x.shape[1]), dtype=x.dtype)
    return x * c.attr("scale", 1.0) + bias.reshape(1, -1, 1, 1)


# ------------------------------------------------------------------------------------------------ windows


def same_pads(size: int, stride: int, reach: int, upper: bool) -> tuple[int, int]:
    total = max((math.ceil(size / stride) - 1) * stride + reach - size, 0)
    return (total // 2, total - total // 2) if upper else (total - total // 2, total // 2)


def window_geometry(
    c: Call, sizes: Sequence[int], kernel: Sequence[int]
) -> tuple[list[int], list[int], list[int], list[int]]:
    """(strides, dilations, begin pads, end pads) with auto_pad resolved."""
    n = len(sizes)
    strides = list(c.attr("strides") or [1] * n)
    dilations = list(c.attr("dilations") or [1] * n)
    pads = list(c.attr("pads") or [0] * (2 * n))
    auto = _text(c.attr("auto_pad", "NOTSET"))
    begin, end = pads[:n], pads[n:]
    if auto == "VALID":
        begin, end = [0] * n, [0] * n
    elif auto.startswith("SAME"):
        for i, size in enumerate(sizes):
            reach = (kernel[i] - 1) * dilations[i] + 1
            begin[i], end[i] = same_pads(size, strides[i], reach, auto == "SAME_UPPER")
    return strides, dilations, begin, end


CONVS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
DECONVS = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def pad_zero(x: Tensor, begin: Sequence[int], end: Sequence[int], value: float = 0.0) -> Tensor:
    """Pads (or, where negative, crops) the last len(begin) axes."""
    flat = [v for b, e in zip(reversed(begin), reversed(end), strict=True) for v in (b, e)]
    return F.pad(x, flat, value=value) if any(flat) else x


@op("Conv")
def conv(c: Call, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    n = x.ndim - 2
    strides, dilations, begin, end = window_geometry(c, x.shape[2:], w.shape[2:])
    x = pad_zero(x, begin, end)
    return CONVS[n](x, w, b, stride=strides, dilation=dilations, groups=c.attr("group", 1))


@op("ConvTranspose")
def conv_transpose(c: Call, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    n = x.ndim - 2
    strides = list(c.attr("strides") or [1] * n)
    dilations = list(c.attr("dilations") or [1] * n)
    extra = list(c.attr("output_padding") or [0] * n)
    pads = list(c.attr("pads") or [0] * (2 * n))
    auto = _text(c.attr("auto_pad", "NOTSET"))
    wanted = c.attr("output_shape")
    begin, end = pads[:n], pads[n:]
    full = [(x.shape[2 + i] - 1) * strides[i] + (w.shape[2 + i] - 1) * dilations[i] + 1 + extra[i] for i in range(n)]
    if wanted is None and auto.startswith("SAME"):
        # ONNX Runtime never invents output beyond the last product (kernel smaller than stride).
        wanted = [min(x.shape[2 + i] * strides[i], full[i]) for i in range(n)]
    if auto == "VALID":
        begin, end = [0] * n, [0] * n
    if wanted is not None:
        for i in range(n):
            total = max(full[i] - list(wanted)[-n:][i], 0)
            half = total // 2
            begin[i], end[i] = (half, total - half) if auto == "SAME_UPPER" else (total - half, half)
            extra[i] += max(list(wanted)[-n:][i] - full[i], 0)
    y = DECONVS[n](x, w, None, stride=strides, dilation=dilations, groups=c.attr("group", 1))
    y = pad_zero(y, [-v for v in begin], [e - v for e, v in zip(extra, end, strict=True)])
    return y if b is None else y + b.reshape((1, -1) + (1,) * n)


def pool_size(size: int, kernel: int, stride: int, dilation: int, begin: int, end: int, ceil: bool) -> int:
    reach = (kernel - 1) * dilation + 1
    span = size + begin + end - reach
    if not ceil:
        return span // stride + 1
    out = -(-span // stride) + 1
    # A last window that would start in the end padding does not exist.
    return out - 1 if (out - 1) * stride >= size + begin else out


def windows(c: Call, x: Tensor, kernel: Sequence[int]) -> tuple[Tensor, Tensor, Tensor, list[int]]:
    """(index into the flat image [O, K], inside the image [O, K], inside image or padding [O, K], output sizes)."""
    sizes = list(x.shape[2:])
    strides, dilations, begin, end = window_geometry(c, sizes, kernel)
    ceil = bool(c.attr("ceil_mode", 0))
    position = [
        torch.arange(pool_size(s, k, st, d, b, e, ceil)).reshape(-1, 1) * st + torch.arange(k).reshape(1, -1) * d - b
        for s, k, st, d, b, e in zip(sizes, kernel, strides, dilations, begin, end, strict=True)
    ]
    n = len(sizes)
    index = torch.zeros([1] * (2 * n), dtype=torch.int64)
    inside = torch.ones([1] * (2 * n), dtype=torch.bool)
    padded = torch.ones([1] * (2 * n), dtype=torch.bool)
    for i, p in enumerate(position):
        shape = [1] * (2 * n)
        shape[i], shape[n + i] = p.shape
        p = p.reshape(shape)
        index = index * sizes[i] + p.clamp(0, sizes[i] - 1)
        inside = inside & (p >= 0) & (p < sizes[i])
        padded = padded & (p < sizes[i] + end[i])
    out = [int(p.shape[0]) for p in position]
    k = math.prod(kernel)
    full = [*out, *kernel]
    flat = [t.expand(full).reshape(-1, k) for t in (index, inside, padded)]
    return flat[0], flat[1], flat[2], out


@op("MaxPool")
def max_pool(c: Call, x: Tensor) -> Any:
    """The first maximum of each window, in row-major order, gives the value and gets the cotangent."""
    index, inside, _, out = windows(c, x, c.attr("kernel_shape"))
    n, ch = x.shape[:2]
    gate = c.gate(0).reshape(n * ch, -1).to(torch.float64)
    low = torch.tensor(-math.inf, dtype=torch.float64)
    best = (first_argmax(torch.where(inside, row[index], low)).reshape(-1, 1) for row in gate)
    source = torch.stack([torch.gather(index, 1, at)[:, 0] for at in best])
    y = torch.gather(x.reshape(n * ch, -1), 1, source)
    empty = ~inside.any(1)
    if bool(empty.any()):
        y = torch.where(empty, torch.full_like(y, float(np.finfo(np.float32).min)), y)
    if c.attr("storage_order", 0):
        raise Unsupported("MaxPool with column-major Indices")
    flat = source + torch.arange(n * ch).reshape(-1, 1) * x[0, 0].numel()
    return y.reshape([n, ch, *out]), flat.reshape([n, ch, *out])


@op("AveragePool")
def average_pool(c: Call, x: Tensor) -> Tensor:
    index, inside, padded, out = windows(c, x, c.attr("kernel_shape"))
    counted = padded if c.attr("count_include_pad", 0) else inside
    n, ch = x.shape[:2]
    flat = x.reshape(n * ch, -1)
    total = sum(
        torch.where(inside[:, k], flat[:, index[:, k]], torch.zeros((), dtype=x.dtype)) for k in range(index.shape[1])
    )
    return (total / counted.sum(1)).reshape([n, ch, *out])


@op("LpPool")
def lp_pool(c: Call, x: Tensor) -> Tensor:
    index, inside, _, out = windows(c, x, c.attr("kernel_shape"))
    n, ch = x.shape[:2]
    values = torch.where(inside, x.reshape(n * ch, -1)[:, index], torch.zeros((), dtype=x.dtype))
    return torch.linalg.vector_norm(values, c.attr("p", 2), dim=-1).reshape([n, ch, *out])


def _spatial(x: Tensor) -> tuple[int, ...]:
    return tuple(range(2, x.ndim))


@op("GlobalAveragePool")
def global_average_pool(c: Call, x: Tensor) -> Tensor:
    return x.mean(_spatial(x), keepdim=True)


@op("GlobalMaxPool")
def global_max_pool(c: Call, x: Tensor) -> Tensor:
    return _pick_extreme(c, x, list(_spatial(x)), True, True)


@op("GlobalLpPool")
def global_lp_pool(c: Call, x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, c.attr("p", 2), dim=_spatial(x), keepdim=True)


# ------------------------------------------------------------------------------------------------ linear, normalisation


@op("MatMul")
def matmul(c: Call, a: Tensor, b: Tensor) -> Tensor:
    return torch.matmul(a, b)


@op("Gemm")
def gemm(c: Call, a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    a = a.T if c.attr("transA", 0) else a
    b = b.T if c.attr("transB", 0) else b
    y = c.attr("alpha", 1.0) * (a @ b)
    return y if bias is None else y + c.attr("beta", 1.0) * bias


@op("Einsum")
def einsum(c: Call, *xs: Tensor) -> Tensor:
    return torch.einsum(_text(c.attr("equation")).replace(" ", ""), *xs)


def _channel(v: Tensor, x: Tensor) -> Tensor:
    return v.reshape((1, -1) + (1,) * (x.ndim - 2))


@op("BatchNormalization")
def batch_normalization(c: Call, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    if c.attr("training_mode", 0) or (c.opset < 7 and not c.attr("is_test", 0)):
        raise Unsupported("BatchNormalization in training mode")
    if c.opset < 9 and not c.attr("spatial", 1):
        scale, bias, mean, var = (v.reshape((1, *x.shape[1:])) for v in (scale, bias, mean, var))
    else:
        scale, bias, mean, var = (_channel(v, x) for v in (scale, bias, mean, var))
    return (x - mean) / torch.sqrt(var + c.attr("epsilon", f32(1e-5))) * scale + bias


def _standardise(x: Tensor, axes: Sequence[int], epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    mean = x.mean(tuple(axes), keepdim=True)
    var = ((x - mean) ** 2).mean(tuple(axes), keepdim=True)
    inv = 1 / torch.sqrt(var + epsilon)
    return (x - mean) * inv, mean, inv


@op("InstanceNormalization")
def instance_normalization(c: Call, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    y, _, _ = _standardise(x, _spatial(x), c.attr("epsilon", f32(1e-5)))
    return y * _channel(scale, x) + _channel(bias, x)


@op("LayerNormalization")
def layer_normalization(c: Call, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Any:
    axis = c.attr("axis", -1) % x.ndim
    y, mean, inv = _standardise(x, range(axis, x.ndim), c.attr("epsilon", f32(1e-5)))
    y = y * scale
    return (y if bias is None else y + bias), mean, inv


@op("GroupNormalization")
def group_normalization(c: Call, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    groups = c.attr("num_groups")
    grouped = x.reshape(x.shape[0], groups, -1)
    y = _standardise(grouped, [2], c.attr("epsilon", f32(1e-5)))[0].reshape(x.shape)
    if scale.numel() != x.shape[1]:  # opset 18: one number for each group
        scale, bias = (v.repeat_interleave(x.shape[1] // groups) for v in (scale, bias))
    return y * _channel(scale, x) + _channel(bias, x)


@op("RMSNormalization")
def rms_normalization(c: Call, x: Tensor, scale: Tensor) -> Tensor:
    axes = tuple(range(c.attr("axis", -1) % x.ndim, x.ndim))
    return x / torch.sqrt((x * x).mean(axes, keepdim=True) + c.attr("epsilon", f32(1e-5))) * scale


@op("MeanVarianceNormalization")
def mean_variance_normalization(c: Call, x: Tensor) -> Tensor:
    axes = tuple(c.attr("axes", [0, 2, 3]))
    mean = x.mean(axes, keepdim=True)
    return (x - mean) / (torch.sqrt(((x - mean) ** 2).mean(axes, keepdim=True)) + f32(1e-9))


@op("LpNormalization")
def lp_normalization(c: Call, x: Tensor) -> Tensor:
    norm = torch.linalg.vector_norm(x, c.attr("p", 2), dim=c.attr("axis", -1), keepdim=True)
    return x / torch.where(norm == 0, torch.ones_like(norm), norm)


@op("LRN")
def lrn(c: Call, x: Tensor) -> Tensor:
    size = c.attr("size")
    before, after = (size - 1) // 2, size - 1 - (size - 1) // 2
    squares = F.pad((x * x).movedim(1, -1), (before, after))
    total = squares.unfold(-1, size, 1).sum(-1).movedim(-1, 1)
    base = c.attr("bias", 1.0) + c.attr("alpha", f32(1e-4)) / size * total
    return x / base ** c.attr("beta", 0.75)


# ------------------------------------------------------------------------------------------------ reductions


def _axes(c: Call, x: Tensor, axes: Tensor | None) -> list[int] | None:
    """Attribute or input; None = nothing to reduce, by noop_with_empty_axes."""
    found = ints(axes) if axes is not None else ints(c.attr("axes"))
    if not found:
        return None if c.attr("noop_with_empty_axes", 0) else list(range(x.ndim))
    return sorted(a % x.ndim for a in found)


def _pick_extreme(c: Call, x: Tensor, axes: list[int], keep: bool, largest: bool) -> Tensor:
    """The first extreme value in row-major order over the reduced axes."""
    rest = [a for a in range(x.ndim) if a not in axes]
    order = rest + axes
    kept = [x.shape[a] for a in rest]
    flat = x.permute(order).reshape([*kept, -1])
    at = first_argmax(c.gate(0).permute(order).reshape([*kept, -1]), largest)
    y = torch.gather(flat, -1, at.unsqueeze(-1))[..., 0]
    return y.reshape([1 if a in axes else x.shape[a] for a in range(x.ndim)]) if keep else y


def reduction(fn: Callable[[Tensor, tuple[int, ...], bool], Tensor]) -> Callable[..., Tensor]:
    def run(c: Call, x: Tensor, axes: Tensor | None = None) -> Tensor:
        found = _axes(c, x, axes)
        return x if found is None else fn(x, tuple(found), bool(c.attr("keepdims", 1)))

    return run


def _prod(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    for a in reversed(axes):
        x = x.prod(a, keepdim=keep)
    return x


for _name, _red in {
    "ReduceSum": lambda x, a, k: x.sum(a, keepdim=k) if a else x,
    "ReduceMean": lambda x, a, k: x.mean(a, keepdim=k) if a else x,
    "ReduceSumSquare": lambda x, a, k: (x * x).sum(a, keepdim=k),
    "ReduceLogSum": lambda x, a, k: torch.log(x.sum(a, keepdim=k)),
    "ReduceLogSumExp": lambda x, a, k: torch.logsumexp(x, a, keepdim=k),
    "ReduceL1": lambda x, a, k: torch.linalg.vector_norm(x, 1, a, keepdim=k),
    "ReduceL2": lambda x, a, k: torch.linalg.vector_norm(x, 2, a, keepdim=k),
    "ReduceProd": _prod,
}.items():
    op(_name)(reduction(_red))


@op("ReduceMax")
def reduce_max(c: Call, x: Tensor, axes: Tensor | None = None) -> Tensor:
    found = _axes(c, x, axes)
    return x if found is None else _pick_extreme(c, x, found, bool(c.attr("keepdims", 1)), True)


@op("ReduceMin")
def reduce_min(c: Call, x: Tensor, axes: Tensor | None = None) -> Tensor:
    found = _axes(c, x, axes)
    return x if found is None else _pick_extreme(c, x, found, bool(c.attr("keepdims", 1)), False)


def arg_extreme(largest: bool) -> Callable[..., Tensor]:
    def run(c: Call, x: Tensor) -> Tensor:
        axis = c.attr("axis", 0) % x.ndim
        moved = c.gate(0).movedim(axis, -1)
        if c.attr("select_last_index", 0):
            at = moved.shape[-1] - 1 - first_argmax(moved.flip(-1), largest)
        else:
            at = first_argmax(moved, largest)
        return at.unsqueeze(axis) if c.attr("keepdims", 1) else at

    return run


op("ArgMax")(arg_extreme(True))
op("ArgMin")(arg_extreme(False))


@op("TopK")
def top_k(c: Call, x: Tensor, k: Tensor | None = None) -> Any:
    count = int(k.reshape(-1)[0]) if k is not None else c.attr("k")
    axis = c.attr("axis", -1) % x.ndim
    key = c.gate(0).movedim(axis, -1).detach().numpy()
    order = np.argsort(-key if c.attr("largest", 1) else key, axis=-1, kind="stable")[..., :count]
    at = torch.from_numpy(order.copy()).movedim(-1, axis)
    return torch.gather(x, axis, at), at


@op("CumSum")
def cum_sum(c: Call, x: Tensor, axis: Tensor) -> Tensor:
    a = int(axis) % x.ndim
    y = x.flip(a) if c.attr("reverse", 0) else x
    y = torch.cumsum(y, a) - (y if c.attr("exclusive", 0) else 0)
    return y.flip(a) if c.attr("reverse", 0) else y


# ------------------------------------------------------------------------------------------------ layout


@op("Reshape")
def reshape(c: Call, x: Tensor, shape: Tensor | None = None) -> Tensor:
    wanted = ints(shape) if shape is not None else ints(c.attr("shape"))
    assert wanted is not None
    if not c.attr("allowzero", 0):
        wanted = [x.shape[i] if d == 0 else d for i, d in enumerate(wanted)]
    return x.reshape(wanted)


@op("Flatten")
def flatten(c: Call, x: Tensor) -> Tensor:
    axis = c.attr("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@op("Transpose")
def transpose(c: Call, x: Tensor) -> Tensor:
    return x.permute(c.attr("perm") or list(range(x.ndim))[::-1])


@op("Squeeze")
def squeeze(c: Call, x: Tensor, axes: Tensor | None = None) -> Tensor:
    found = ints(axes) if axes is not None else ints(c.attr("axes"))
    drop = {a % x.ndim for a in found} if found is not None else {i for i, d in enumerate(x.shape) if d == 1}
    return x.reshape([d for i, d in enumerate(x.shape) if i not in drop])


@op("Unsqueeze")
def unsqueeze(c: Call, x: Tensor, axes: Tensor | None = None) -> Tensor:
    found = ints(axes) if axes is not None else ints(c.attr("axes"))
    assert found is not None
    rank = x.ndim + len(found)
    for a in sorted(a % rank for a in found):
        x = x.unsqueeze(a)
    return x


@op("Concat")
def concat(c: Call, *xs: Tensor) -> Tensor:
    return torch.cat(xs, c.attr("axis", 1))


@op("Split")
def split(c: Call, x: Tensor, sizes: Tensor | None = None) -> Any:
    axis = c.attr("axis", 0)
    parts = ints(sizes) if sizes is not None else ints(c.attr("split"))
    if parts is None:
        n = c.attr("num_outputs") or c.n_outputs
        chunk = -(-x.shape[axis] // n)
        parts = [min(chunk, x.shape[axis] - i * chunk) for i in range(n)]
    return tuple(torch.split(x, parts, axis))


@op("Slice")
def slice_(
    c: Call,
    x: Tensor,
    starts: Tensor | None = None,
    ends: Tensor | None = None,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    first = ints(starts) if starts is not None else ints(c.attr("starts"))
    last = ints(ends) if ends is not None else ints(c.attr("ends"))
    along = ints(axes) if axes is not None else ints(c.attr("axes"))
    assert first is not None and last is not None
    by = ints(steps) or [1] * len(first)
    for s, e, a, step in zip(first, last, along or range(len(first)), by, strict=True):
        at = range(x.shape[a])[slice(s, e if e > -(2**62) else None, step)]
        x = x.index_select(a, torch.tensor(list(at), dtype=torch.int64))
    return x


@op("Gather")
def gather(c: Call, x: Tensor, index: Tensor) -> Tensor:
    axis = c.attr("axis", 0) % x.ndim
    at = index % x.shape[axis]
    y = x.index_select(axis, at.reshape(-1))
    return y.reshape([*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]])


@op("GatherElements")
def gather_elements(c: Call, x: Tensor, index: Tensor) -> Tensor:
    axis = c.attr("axis", 0) % x.ndim
    return torch.gather(x, axis, index % x.shape[axis])


@op("GatherND")
def gather_nd(c: Call, x: Tensor, index: Tensor) -> Tensor:
    b = c.attr("batch_dims", 0)
    if b:
        flat_x, flat_i = x.reshape(-1, *x.shape[b:]), index.reshape(-1, *index.shape[b:])
        rows = [v[tuple(i.movedim(-1, 0))] for v, i in zip(flat_x, flat_i, strict=True)]
        return torch.stack(rows).reshape([*x.shape[:b], *rows[0].shape])
    return x[tuple(index.movedim(-1, 0))]


@op("ScatterElements", "Scatter")
def scatter_elements(c: Call, x: Tensor, index: Tensor, updates: Tensor) -> Tensor:
    axis = c.attr("axis", 0) % x.ndim
    how = _text(c.attr("reduction", "none"))
    if how == "none":
        return x.scatter(axis, index % x.shape[axis], updates)
    if how == "add":
        return x.scatter_add(axis, index % x.shape[axis], updates)
    raise Unsupported(f"ScatterElements with reduction={how}")


@op("ScatterND")
def scatter_nd(c: Call, x: Tensor, index: Tensor, updates: Tensor) -> Tensor:
    how = _text(c.attr("reduction", "none"))
    if how not in ("none", "add"):
        raise Unsupported(f"ScatterND with reduction={how}")
    return x.index_put(tuple(index.movedim(-1, 0)), updates, accumulate=how == "add")


@op("OneHot")
def one_hot(c: Call, index: Tensor, depth: Tensor, values: Tensor) -> Tensor:
    n = int(depth.reshape(-1)[0])
    at = index.to(torch.int64)
    at = torch.where(at < 0, at + n, at)
    hot = (at.unsqueeze(-1) == torch.arange(n)).movedim(-1, c.attr("axis", -1))
    return torch.where(hot, values[1], values[0])


@op("Trilu")
def trilu(c: Call, x: Tensor, k: Tensor | None = None) -> Tensor:
    at = int(k) if k is not None else 0
    return torch.triu(x, at) if c.attr("upper", 1) else torch.tril(x, at)


@op("Expand")
def expand(c: Call, x: Tensor, shape: Tensor) -> Tensor:
    wanted = ints(shape)
    assert wanted is not None
    return x.expand(torch.broadcast_shapes(x.shape, wanted))


@op("Tile")
def tile(c: Call, x: Tensor, repeats: Tensor) -> Tensor:
    return x.repeat(ints(repeats))


@op("Pad")
def pad(
    c: Call, x: Tensor, pads: Tensor | None = None, value: Tensor | None = None, axes: Tensor | None = None
) -> Tensor:
    amount = ints(pads) if pads is not None else ints(c.attr("pads") or c.attr("paddings"))
    assert amount is not None
    along = [a % x.ndim for a in ints(axes) or range(x.ndim)]
    fill = float(value.reshape(-1)[0]) if value is not None else float(c.attr("value", 0.0))
    mode = _text(c.attr("mode", "constant"))
    begin, end = [0] * x.ndim, [0] * x.ndim
    for i, a in enumerate(along):
        begin[a], end[a] = amount[i], amount[len(along) + i]
    if mode == "constant":
        return pad_zero(x, begin, end, fill)
    for a in range(x.ndim):
        at = np.arange(-begin[a], x.shape[a] + end[a])
        n = x.shape[a]
        if mode == "edge":
            at = at.clip(0, n - 1)
        elif mode == "wrap":
            at = at % n
        elif mode == "reflect":
            at = at % max(2 * n - 2, 1)
            at = np.where(at >= n, 2 * n - 2 - at, at)
        else:
            raise Unsupported(f"Pad with mode={mode}")
        x = x.index_select(a, torch.from_numpy(at))
    return x


@op("DepthToSpace")
def depth_to_space(c: Call, x: Tensor) -> Tensor:
    n, ch, h, w = x.shape
    b = c.attr("blocksize")
    if _text(c.attr("mode", "DCR")) == "DCR":
        y = x.reshape(n, b, b, ch // (b * b), h, w).permute(0, 3, 4, 1, 5, 2)
    else:
        y = x.reshape(n, ch // (b * b), b, b, h, w).permute(0, 1, 4, 2, 5, 3)
    return y.reshape(n, ch // (b * b), h * b, w * b)


@op("SpaceToDepth")
def space_to_depth(c: Call, x: Tensor) -> Tensor:
    n, ch, h, w = x.shape
    b = c.attr("blocksize")
    order = (0, 3, 5, 1, 2, 4) if _text(c.attr("mode", "DCR")) == "DCR" else (0, 1, 3, 5, 2, 4)
    y = x.reshape(n, ch, h // b, b, w // b, b).permute(order)
    return y.reshape(n, ch * b * b, h // b, w // b)


# ------------------------------------------------------------------------------------------------ resize


def _cubic_weights(t: float, a: float) -> list[float]:
    def near(d: float) -> float:
        return ((a + 2) * d - (a + 3)) * d * d + 1

    def far(d: float) -> float:
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

    return [far(1 + t), near(t), near(1 - t), far(2 - t)]


def _coordinate(mode: str, i: Any, n_in: int, n_out: int, scale: Any, roi: tuple[float, float]) -> Any:
    """Where output sample i lies in the input; in the number type of `scale`."""
    one = type(scale)
    half = one(0.5)
    if mode == "asymmetric":
        return i / scale
    if mode == "align_corners":
        return one(0) if n_out == 1 else i * one(n_in - 1) / one(n_out - 1)
    if mode == "tf_half_pixel_for_nn":
        return (i + half) / scale
    if mode == "pytorch_half_pixel":
        return (i + half) / scale - half if n_out > 1 else one(0)
    if mode == "half_pixel":
        return (i + half) / scale - half
    if mode == "half_pixel_symmetric":
        offset = one(n_in) / one(2) * (one(1) - one(n_out) / (scale * one(n_in)))
        return offset + (i + half) / scale - half
    if mode == "tf_crop_and_resize":
        start, stop = one(roi[0]), one(roi[1])
        if n_out == 1:
            return half * (start + stop) * one(n_in - 1)
        return start * one(n_in - 1) + i * (stop - start) * one(n_in - 1) / one(n_out - 1)
    raise Unsupported(f"Resize with coordinate_transformation_mode={mode}")


def _nearest(at: Any, how: str, shrinking: bool) -> int:
    if how == "simple":  # before opset 11
        return math.ceil(at) if shrinking else math.floor(at)
    if how == "floor":
        return math.floor(at)
    if how == "ceil":
        return math.ceil(at)
    if how == "round_prefer_floor":
        return math.ceil(at - type(at)(0.5))
    return math.floor(at + type(at)(0.5))


def resize_matrix(
    mode: str,
    coordinates: str,
    nearest: str,
    n_in: int,
    n_out: int,
    scale: float,
    *,
    roi: tuple[float, float] = (0.0, 1.0),
    cubic_a: float = -0.75,
    exclude_outside: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """([n_out, n_in] weights, [n_out] outside the crop: filled with the extrapolation value)."""
    weights = np.zeros((n_out, n_in))
    outside = np.zeros(n_out, bool)
    # The nearest sample is a decision: it is taken in float32, as runtimes take it. Weights are float64.
    number = np.float32 if mode == "nearest" else np.float64
    for i in range(n_out):
        at = _coordinate(coordinates, number(i), n_in, n_out, number(scale), roi)
        if coordinates == "tf_crop_and_resize" and not 0 <= at <= n_in - 1:
            outside[i] = True
            continue
        if mode == "nearest":
            weights[i, min(max(_nearest(at, nearest, scale < 1), 0), n_in - 1)] = 1
            continue
        if mode == "linear":
            at = min(max(at, 0.0), n_in - 1.0)
            base = math.floor(at)
            taps = [(base, 1 - (at - base)), (base + 1, at - base)]
        else:
            base = math.floor(at)
            taps = list(zip(range(base - 1, base + 3), _cubic_weights(at - base, cubic_a), strict=True))
            if exclude_outside:
                taps = [(j, v) for j, v in taps if 0 <= j < n_in]
                total = sum(v for _, v in taps)
                taps = [(j, v / total) for j, v in taps]
        for j, v in taps:
            weights[i, min(max(j, 0), n_in - 1)] += v
    return weights, outside


def _resize_axis(x: Tensor, axis: int, weights: np.ndarray) -> Tensor:
    if weights.shape[0] == weights.shape[1] and np.array_equal(weights, np.eye(len(weights))):
        return x
    return torch.tensordot(x.to(torch.float64), torch.from_numpy(weights), ([axis], [1])).movedim(-1, axis)


@op("Upsample")
def upsample(c: Call, x: Tensor, scales: Tensor | None = None) -> Tensor:
    factors = scales.tolist() if scales is not None else list(c.attr("scales"))
    return _resize(c, x, [math.floor(d * s) for d, s in zip(x.shape, factors, strict=True)], factors, "asymmetric")


@op("Resize")
def resize(
    c: Call, x: Tensor, roi: Tensor | None = None, scales: Tensor | None = None, sizes: Tensor | None = None
) -> Tensor:
    if c.opset < 11:
        assert roi is not None  # opset 10 has only X and scales
        return upsample(c, x, roi)
    axes = [a % x.ndim for a in c.attr("axes") or range(x.ndim)]
    factor = [1.0] * x.ndim
    out = list(x.shape)
    if sizes is not None and sizes.numel():
        wanted = ints(sizes)
        assert wanted is not None
        policy = _text(c.attr("keep_aspect_ratio_policy", "stretch"))
        ratio = [w / x.shape[a] for w, a in zip(wanted, axes, strict=True)]
        if policy != "stretch":
            one = min(ratio) if policy == "not_larger" else max(ratio)
            ratio = [one] * len(axes)
            wanted = [math.floor(one * x.shape[a] + 0.5) for a in axes]
        for a, w, r in zip(axes, wanted, ratio, strict=True):
            out[a], factor[a] = w, r
    else:
        assert scales is not None
        for a, s in zip(axes, scales.tolist(), strict=True):
            factor[a] = s
            out[a] = math.floor(np.float32(x.shape[a]) * np.float32(s))
    crop = [(0.0, 1.0)] * x.ndim
    if roi is not None and roi.numel():
        for i, a in enumerate(axes):
            crop[a] = (float(roi[i]), float(roi[len(axes) + i]))
    return _resize(c, x, out, factor, _text(c.attr("coordinate_transformation_mode", "half_pixel")), crop)


def _resize(
    c: Call,
    x: Tensor,
    out: Sequence[int],
    factor: Sequence[float],
    coordinates: str,
    roi: Sequence[tuple[float, float]] | None = None,
) -> Tensor:
    mode = _text(c.attr("mode", "nearest"))
    if mode == "bilinear":
        mode = "linear"
    if c.attr("antialias", 0):
        raise Unsupported("Resize with antialias")
    nearest = "simple" if c.opset < 11 else _text(c.attr("nearest_mode", "round_prefer_floor"))
    fill = c.attr("extrapolation_value", 0.0)
    outside_any: list[tuple[int, np.ndarray]] = []
    for axis in range(x.ndim):
        crop = roi[axis] if roi else (0.0, 1.0)
        if out[axis] == x.shape[axis] and factor[axis] == 1:
            continue  # as ONNX Runtime does, even where tf_crop_and_resize asks for a crop
        weights, outside = resize_matrix(
            mode,
            coordinates,
            nearest,
            x.shape[axis],
            out[axis],
            factor[axis],
            roi=crop,
            cubic_a=c.attr("cubic_coeff_a", -0.75),
            exclude_outside=bool(c.attr("exclude_outside", 0)),
        )
        x = _resize_axis(x, axis, weights)
        if outside.any():
            outside_any.append((axis, outside))
    for axis, outside in outside_any:
        shape = [1] * x.ndim
        shape[axis] = -1
        x = torch.where(torch.from_numpy(outside).reshape(shape), torch.tensor(fill, dtype=x.dtype), x)
    return x


@op("GridSample")
def grid_sample(c: Call, x: Tensor, grid: Tensor) -> Tensor:
    mode = _text(c.attr("mode", "linear")).removeprefix("bi")
    return F.grid_sample(
        x,
        grid,
        mode={"linear": "bilinear", "nearest": "nearest", "cubic": "bicubic"}[mode],
        padding_mode=_text(c.attr("padding_mode", "zeros")),
        align_corners=bool(c.attr("align_corners", 0)),
    )


def attribute_value(a: onnx.AttributeProto) -> Any:
    """The value of an attribute, also where a file of IR 1 left its type out."""
    if a.type != onnx.AttributeProto.UNDEFINED:
        return helper.get_attribute_value(a)
    for field in ("ints", "floats", "strings"):
        if len(getattr(a, field)):
            return list(getattr(a, field))
    for field in ("f", "i", "s", "t"):
        if a.HasField(field):
            return getattr(a, field)
    return None
