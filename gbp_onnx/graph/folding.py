"""Constants, evaluated: what a node computes when all its inputs are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from gbp_onnx.graph.shapes import slice_positions

__all__ = ["Array", "evaluate", "split"]

Array = NDArray[Any]


def evaluate(op: str, inputs: Sequence[Array | None], attrs: Mapping[str, Any]) -> Array | None:
    """The one output of a shape-arithmetic operator on known inputs; None where the operator is not in this table."""
    rule = _RULES.get(op)
    if rule is None:
        return None
    try:
        return np.asarray(rule(inputs, attrs))
    except (IndexError, TypeError, ValueError, ZeroDivisionError):
        return None  # malformed: ONNX Runtime will say what is wrong with it


def split(inputs: Sequence[Array | None], attrs: Mapping[str, Any], count: int) -> list[Array] | None:
    """The outputs of a Split on known inputs; None where it is malformed."""
    data, axis = _need(inputs[0]), int(attrs.get("axis", 0))
    try:
        if len(inputs) > 1 and inputs[1] is not None:
            sizes = inputs[1].tolist()
        else:
            size = -(-data.shape[axis] // count)
            sizes = [min(size, data.shape[axis] - k * size) for k in range(count)]
        if len(sizes) != count or min(sizes) < 0 or sum(sizes) != data.shape[axis]:
            return None
        return [np.asarray(piece) for piece in np.split(data, np.cumsum(sizes)[:-1].tolist(), axis)]
    except (IndexError, ValueError):
        return None


def _divide(x: Array, y: Array) -> Array:
    if np.issubdtype(x.dtype, np.integer):
        return (np.sign(x) * np.sign(y) * (abs(x) // abs(y))).astype(x.dtype)  # ONNX Div truncates towards zero
    return x / y


def _slice(i: Sequence[Array | None], _: Mapping[str, Any]) -> Array:
    data, starts, ends = _need(i[0]), _need(i[1]), _need(i[2])
    axes = i[3] if len(i) > 3 and i[3] is not None else np.arange(len(starts))
    steps = i[4] if len(i) > 4 and i[4] is not None else np.ones(len(starts), np.int64)
    for axis, start, end, step in zip(axes.tolist(), starts.tolist(), ends.tolist(), steps.tolist(), strict=True):
        data = np.take(data, slice_positions(start, end, step, data.shape[axis]), axis)
    return data


def _reshape(i: Sequence[Array | None], attrs: Mapping[str, Any]) -> Array:
    data, target = _need(i[0]), _need(i[1]).tolist()
    if not attrs.get("allowzero"):
        target = [data.shape[k] if d == 0 else d for k, d in enumerate(target)]
    return data.reshape(target)


def _squeeze(i: Sequence[Array | None], _: Mapping[str, Any]) -> Array:
    return np.squeeze(_need(i[0]), axis=tuple(_need(i[1]).tolist()) if len(i) > 1 and i[1] is not None else None)


def _unsqueeze(i: Sequence[Array | None], _: Mapping[str, Any]) -> Array:
    data, axes = _need(i[0]), _need(i[1]).tolist()
    return np.expand_dims(data, tuple(axes))


def _reduce(function: Callable[..., Any]) -> Callable[[Sequence[Array | None], Mapping[str, Any]], Array]:
    def rule(i: Sequence[Array | None], attrs: Mapping[str, Any]) -> Array:
        data = _need(i[0])
        axes = i[1].tolist() if len(i) > 1 and i[1] is not None else attrs.get("axes")
        if not axes and attrs.get("noop_with_empty_axes"):
            return data
        result = function(data, axis=tuple(axes) if axes else None, keepdims=bool(attrs.get("keepdims", 1)))
        return np.asarray(result, data.dtype)

    return rule


def _constant_of_shape(i: Sequence[Array | None], attrs: Mapping[str, Any]) -> Array:
    value = attrs.get("value")
    filler = np.zeros(1, np.float32) if value is None else np.asarray(getattr(value, "values", value))
    return np.full(_need(i[0]).tolist(), filler.reshape(-1)[0], filler.dtype)


def _cast(i: Sequence[Array | None], attrs: Mapping[str, Any]) -> Array:
    return _need(i[0]).astype(onnx.helper.tensor_dtype_to_np_dtype(int(attrs["to"])))


def _range(i: Sequence[Array | None], _: Mapping[str, Any]) -> Array:
    start, limit, delta = (_need(v).reshape(-1)[0] for v in i)
    return np.arange(start, limit, delta, dtype=_need(i[0]).dtype)


def _need(value: Array | None) -> Array:
    if value is None:
        raise ValueError("an input is missing")
    return value


_Rule = Callable[[Sequence[Any], Mapping[str, Any]], Any]

_RULES: dict[str, _Rule] = {
    "Abs": lambda i, _: abs(i[0]),
    "Add": lambda i, _: i[0] + i[1],
    "And": lambda i, _: np.logical_and(i[0], i[1]),
    "Cast": _cast,
    "Ceil": lambda i, _: np.ceil(i[0]),
    "Concat": lambda i, a: np.concatenate(i, axis=int(a["axis"])),
    "ConstantOfShape": _constant_of_shape,
    "Div": lambda i, _: _divide(i[0], i[1]),
    "Equal": lambda i, _: i[0] == i[1],
    "Expand": lambda i, _: np.broadcast_to(i[0], np.broadcast_shapes(i[0].shape, tuple(i[1].tolist()))),
    "Floor": lambda i, _: np.floor(i[0]),
    "Gather": lambda i, a: np.take(i[0], i[1], axis=int(a.get("axis", 0))),
    "Greater": lambda i, _: i[0] > i[1],
    "GreaterOrEqual": lambda i, _: i[0] >= i[1],
    "Identity": lambda i, _: i[0],
    "Less": lambda i, _: i[0] < i[1],
    "LessOrEqual": lambda i, _: i[0] <= i[1],
    "Max": lambda i, _: np.maximum.reduce(i),
    "Min": lambda i, _: np.minimum.reduce(i),
    "Mod": lambda i, a: np.fmod(i[0], i[1]) if a.get("fmod") else np.mod(i[0], i[1]),
    "Mul": lambda i, _: i[0] * i[1],
    "Neg": lambda i, _: -i[0],
    "Not": lambda i, _: np.logical_not(i[0]),
    "Or": lambda i, _: np.logical_or(i[0], i[1]),
    "Range": _range,
    "ReduceMax": _reduce(np.max),
    "ReduceMin": _reduce(np.min),
    "ReduceProd": _reduce(np.prod),
    "ReduceSum": _reduce(np.sum),
    "Reshape": _reshape,
    "Shape": lambda i, a: np.asarray(i[0].shape, np.int64)[slice(a.get("start", 0), a.get("end"))],
    "Size": lambda i, _: np.asarray(i[0].size, np.int64),
    "Slice": _slice,
    "Sqrt": lambda i, _: np.sqrt(i[0]),
    "Squeeze": _squeeze,
    "Sub": lambda i, _: i[0] - i[1],
    "Transpose": lambda i, a: np.transpose(i[0], a.get("perm")),
    "Unsqueeze": _unsqueeze,
    "Where": lambda i, _: np.where(i[0], i[1], i[2]),
}
