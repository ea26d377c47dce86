"""Difference quotients of the explained value, beside what its gradient says."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from gbp_onnx.auditing.subject import Subject

__all__ = ["across", "along", "is_half", "is_stepwise"]

Array = NDArray[Any]

# A rectifier network is straight only between its kinks, and float32 sees nothing below 1e-7 of the value. With the
# first of these steps both errors are small on most images: the value changes by a thousandth along the map, and every
# pixel by 2e-4 of the input's deviation across it. Where kinks lie closer, a smaller step shows the derivative; a
# derivative that is wrong is wrong with every step.
ALONG, ACROSS = 1e-3, 2e-4
SMALLER = (1.0, 1 / 4, 1 / 16)
CLOSE = 0.01, 0.1  # differences, along and across, with which no smaller step is tried
COARSER = 90.0  # the root of how much coarser half precision is than single


def along(subject: Subject, x: Array, gradient: Array, target: int, value: float) -> tuple[float, float]:
    """(difference quotient, what the gradient says) along the gradient itself, as a unit vector."""
    length = float(np.linalg.norm(gradient.astype(np.float64)))
    step = ALONG * (COARSER if is_half(subject.source) else 1.0) * max(abs(value), 1e-3) / length
    direction = gradient.astype(np.float64) / length
    return _closest(subject, x, direction, step, target, length, CLOSE[0] * length), length


def across(
    subject: Subject, x: Array, gradient: Array, target: int, generator: np.random.Generator
) -> tuple[float, float]:
    """(difference quotient, what the gradient says) along noise with deviation 1 at every value of the input."""
    noise = generator.standard_normal(gradient.shape)
    step = ACROSS * (float(x.std(dtype=np.float64)) or 1.0)
    said = float((noise * gradient).sum())
    near = CLOSE[1] * float(np.linalg.norm(gradient.astype(np.float64)))
    return _closest(subject, x, noise, step, target, said, near), said


def _closest(subject: Subject, x: Array, direction: Array, step: float, target: int, said: float, near: float) -> float:
    """The difference quotient that comes closest to what the gradient says; smaller steps while none is near."""
    best = math.inf
    for factor in SMALLER:
        found = _quotient(subject, x, direction, factor * step, target)
        best = min(best, found, key=lambda quotient: abs(quotient - said))
        if abs(best - said) <= near:
            break
    return best


def _quotient(subject: Subject, x: Array, direction: Array, step: float, target: int) -> float:
    offset = (step * direction).reshape(x.shape)
    ahead, behind = ((x + sign * offset).astype(x.dtype) for sign in (1, -1))
    return (subject.scalar(ahead, target) - subject.scalar(behind, target)) / (2 * step)


def is_stepwise(model: onnx.ModelProto) -> bool:
    """Whether values are rounded to integers on the way (weights alone do not count)."""
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    return any(_ROUNDING.fullmatch(node.op_type) for node in nodes)


_ROUNDING = re.compile(r"(Dynamic)?QuantizeLinear|QLinear\w+|QGemm|QAttention|DynamicQuantize\w+|\w+Integer\w*|Round")


def is_half(model: onnx.ModelProto) -> bool:
    """Whether the model computes in half precision."""
    halves = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    return any(t.data_type in halves for t in model.graph.initializer)
