"""Difference quotients of the explained value, beside what its gradient says."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from gbp_onnx.auditing.subject import Subject
from gbp_onnx.errors import is_quantised

__all__ = ["across", "along", "is_half", "is_stepwise"]

Array = NDArray[Any]

# A rectifier network is flat only between its kinks, and float32 sees nothing below 1e-7 of the value. Measured on
# SqueezeNet and MobileNet v2, these steps keep both errors small: the value changes by a thousandth along the map, and
# every pixel by 2e-4 of the input's deviation across it.
ALONG, ACROSS = 1e-3, 2e-4
COARSER = 90.0  # the root of how much coarser half precision is than single


def along(subject: Subject, x: Array, gradient: Array, target: int, value: float) -> tuple[float, float]:
    """(difference quotient, what the gradient says) along the gradient itself, as a unit vector."""
    length = float(np.linalg.norm(gradient.astype(np.float64)))
    step = ALONG * (COARSER if is_half(subject.source) else 1.0) * max(abs(value), 1e-3) / length
    return _quotient(subject, x, gradient.astype(np.float64) / length, step, target), length


def across(
    subject: Subject, x: Array, gradient: Array, target: int, generator: np.random.Generator
) -> tuple[float, float]:
    """(difference quotient, what the gradient says) along noise with deviation 1 at every value of the input."""
    noise = generator.standard_normal(gradient.shape)
    step = ACROSS * (float(x.std(dtype=np.float64)) or 1.0)
    return _quotient(subject, x, noise, step, target), float((noise * gradient).sum())


def _quotient(subject: Subject, x: Array, direction: Array, step: float, target: int) -> float:
    offset = (step * direction).reshape(x.shape)
    ahead, behind = ((x + sign * offset).astype(x.dtype) for sign in (1, -1))
    return (subject.scalar(ahead, target) - subject.scalar(behind, target)) / (2 * step)


def is_stepwise(model: onnx.ModelProto) -> bool:
    """Whether values are quantised on the way (weights alone do not count)."""
    graphs = [node.op_type for node in model.graph.node] + [n.op_type for f in model.functions for n in f.node]
    return any(is_quantised(op) and op != "DequantizeLinear" for op in graphs)


def is_half(model: onnx.ModelProto) -> bool:
    """Whether the model computes in half precision."""
    halves = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    return any(t.data_type in halves for t in model.graph.initializer)
