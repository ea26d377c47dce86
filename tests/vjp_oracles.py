"""Forward definitions in double where onnx.reference computes in float32, or something else than the standard says."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun

from tests.recurrent_oracles import GRU, LSTM, RNN

_erf = np.vectorize(math.erf, otypes=["d"])


class Erf(OpRun):
    """onnx.reference rounds the result to float32."""

    def _run(self, x: np.ndarray) -> tuple[np.ndarray]:
        return (_erf(x),)


class Gelu(OpRun):
    def _run(self, x: np.ndarray, approximate: str = "none") -> tuple[np.ndarray]:
        if approximate == "tanh":
            return (0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),)
        return (0.5 * x * (1 + _erf(x / math.sqrt(2))),)


class LRN(OpRun):
    """onnx.reference lets the window grow towards the later channels."""

    def _run(
        self, x: np.ndarray, alpha: Any = None, beta: Any = None, bias: Any = None, size: Any = None
    ) -> tuple[np.ndarray]:
        total = np.zeros_like(x)
        for c in range(x.shape[1]):
            low, high = max(0, c - (size - 1) // 2), min(x.shape[1] - 1, c + size // 2)
            total[:, c] = np.sum(x[:, low : high + 1] ** 2, axis=1)
        return (x / (bias + alpha / size * total) ** beta,)


class GlobalMaxPool(OpRun):
    """onnx.reference takes 2-D images for granted."""

    def _run(self, x: np.ndarray) -> tuple[np.ndarray]:
        return (x.max(axis=tuple(range(2, x.ndim)), keepdims=True),)


class GlobalLpPool(OpRun):
    """onnx.reference has none."""

    def _run(self, x: np.ndarray, p: Any = None) -> tuple[np.ndarray]:
        return ((np.abs(x) ** p).sum(axis=tuple(range(2, x.ndim)), keepdims=True) ** (1 / p),)


class LpPool(OpRun):
    """onnx.reference divides the windows that reach over the end (ceil_mode) by another count."""

    def _run(self, x: np.ndarray, kernel_shape: Any = None, p: Any = None, **attrs: Any) -> tuple[np.ndarray]:
        count = len(kernel_shape)
        strides, dilations = (attrs.get(name) or [1] * count for name in ("strides", "dilations"))
        pads = attrs.get("pads") or [0] * 2 * count
        widths = [(0, 0), (0, 0)]
        shape = []
        for k in range(count):
            extent = (kernel_shape[k] - 1) * dilations[k] + 1
            size = x.shape[2 + k]
            if attrs.get("auto_pad") == "SAME_UPPER":
                total = max((-(-size // strides[k]) - 1) * strides[k] + extent - size, 0)
                begin, end = total // 2, total - total // 2
            else:
                begin, end = pads[k], pads[count + k]
            room = size + begin + end - extent
            shape.append((-(-room // strides[k]) if attrs.get("ceil_mode") else room // strides[k]) + 1)
            widths.append((begin, end + strides[k]))
        padded = np.pad(np.abs(x) ** p, widths)
        y = np.zeros((*x.shape[:2], *shape))
        for tap in np.ndindex(*kernel_shape):
            box = [
                slice(j * d, j * d + (n - 1) * s + 1, s)
                for j, d, n, s in zip(tap, dilations, shape, strides, strict=True)
            ]
            y += padded[(slice(None), slice(None), *box)]
        return (y ** (1 / p),)


class MaxRoiPool(OpRun):
    """onnx.reference has none."""

    def _run(
        self, x: np.ndarray, rois: np.ndarray, pooled_shape: Any = None, spatial_scale: Any = None
    ) -> tuple[np.ndarray]:
        y = np.zeros((len(rois), x.shape[1], *pooled_shape))
        for place in np.ndindex(len(rois), *pooled_shape):
            roi = rois[place[0]]
            box = []
            for k in (0, 1):
                start, end = (math.floor(abs(v * spatial_scale) + 0.5) * np.sign(v) for v in (roi[2 - k], roi[4 - k]))
                step = max(end - start + 1, 1) / pooled_shape[k]
                edges = (math.floor(place[1 + k] * step) + start, math.ceil((place[1 + k] + 1) * step) + start)
                box.append(slice(*(int(np.clip(e, 0, x.shape[2 + k])) for e in edges)))
            patch = x[int(roi[0]), :, box[0], box[1]]
            if patch.size:
                y[place[0], :, place[1], place[2]] = patch.max(axis=(1, 2))
        return (y,)


class MeanVarianceNormalization(OpRun):
    """onnx.reference mixes float32 constants in."""

    def _run(self, x: np.ndarray, axes: Any = None) -> tuple[np.ndarray]:
        axis = tuple(axes)
        return ((x - x.mean(axis, keepdims=True)) / (x.std(axis, keepdims=True) + 1e-9),)


class GroupNormalization(OpRun):
    """onnx.reference computes the statistics in float32."""

    def _run(
        self,
        x: np.ndarray,
        scale: np.ndarray,
        bias: np.ndarray,
        epsilon: Any = None,
        num_groups: Any = None,
        stash_type: Any = None,
    ) -> tuple[np.ndarray]:
        rows = x.reshape(x.shape[0], num_groups, -1)
        normal = (rows - rows.mean(2, keepdims=True)) / np.sqrt(rows.var(2, keepdims=True) + epsilon)
        if len(scale) == x.shape[1]:  # one a channel (opset 21), or one a group
            flat = (len(scale), *[1] * (x.ndim - 2))
            return (normal.reshape(x.shape) * scale.reshape(flat) + bias.reshape(flat),)
        return ((normal * scale[:, None] + bias[:, None]).reshape(x.shape),)


class RMSNormalization(OpRun):
    """onnx.reference computes in float32."""

    def _run(
        self, x: np.ndarray, scale: np.ndarray, axis: Any = None, epsilon: Any = None, stash_type: Any = None
    ) -> tuple[np.ndarray]:
        axis = -1 if axis is None else axis
        axes = tuple(range(axis % x.ndim, x.ndim))
        return (x / np.sqrt((x**2).mean(axes, keepdims=True) + (1e-5 if epsilon is None else epsilon)) * scale,)


class SimplifiedLayerNormalization(RMSNormalization):
    """ONNX Runtime's, in the standard domain."""


class CumProd(OpRun):
    def _run(self, x: np.ndarray, axis: Any, exclusive: Any = None, reverse: Any = None) -> tuple[np.ndarray]:
        axis = int(np.asarray(axis).reshape(-1)[0])
        turned = np.flip(x, axis) if reverse else x
        made = np.cumprod(turned, axis)
        if exclusive:
            made = np.concatenate([np.ones_like(np.take(x, [0], axis)), made], axis)
            made = np.delete(made, -1, axis)
        return (np.flip(made, axis) if reverse else made,)


class Det(OpRun):
    """onnx.reference gives a number, not a tensor, for one matrix."""

    def _run(self, x: np.ndarray) -> tuple[np.ndarray]:
        return (np.asarray(np.linalg.det(x)),)


MICROSOFT = "com.microsoft"


def _gelu(x: np.ndarray) -> np.ndarray:
    return np.asarray(0.5 * x * (1 + _erf(x / math.sqrt(2))))


class MicrosoftGelu(OpRun):
    op_domain = MICROSOFT

    def _run(self, x: np.ndarray, approximate: Any = None) -> tuple[np.ndarray]:
        return (_gelu(x),)  # the attribute is the standard operator's, whose schema onnx.reference takes


class BiasGelu(OpRun):
    op_domain = MICROSOFT

    def _run(self, x: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray]:
        return (_gelu(x + bias),)


class FastGelu(OpRun):
    op_domain = MICROSOFT

    def _run(self, x: np.ndarray, bias: Any = None) -> tuple[np.ndarray]:
        x = x if bias is None else x + bias
        return (0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),)


class QuickGelu(OpRun):
    op_domain = MICROSOFT

    def _run(self, x: np.ndarray, alpha: Any = None) -> tuple[np.ndarray]:
        return (x / (1 + np.exp(-(1.702 if alpha is None else alpha) * x)),)


class Inverse(OpRun):
    op_domain = MICROSOFT

    def _run(self, x: np.ndarray) -> tuple[np.ndarray]:
        return (np.linalg.inv(x),)


class SkipLayerNormalization(OpRun):
    op_domain = MICROSOFT

    def _run(
        self,
        x: np.ndarray,
        skip: np.ndarray,
        gamma: np.ndarray,
        beta: Any = None,
        bias: Any = None,
        epsilon: Any = None,
    ) -> tuple[Any, ...]:
        total = x + skip + (0 if bias is None else bias)
        normal = (total - total.mean(-1, keepdims=True)) / np.sqrt(total.var(-1, keepdims=True) + epsilon)
        return (normal * gamma + (0 if beta is None else beta), total)[: len(self.onnx_node.output) // 2 or 1]


class SkipSimplifiedLayerNormalization(OpRun):
    op_domain = MICROSOFT

    def _run(
        self, x: np.ndarray, skip: np.ndarray, gamma: np.ndarray, bias: Any = None, epsilon: Any = None
    ) -> tuple[Any, ...]:
        total = x + skip + (0 if bias is None else bias)
        normal = total / np.sqrt((total**2).mean(-1, keepdims=True) + epsilon)
        return (normal * gamma, total)[: len(self.onnx_node.output) // 2 or 1]


class FusedMatMul(OpRun):
    op_domain = MICROSOFT

    def _run(self, a: np.ndarray, b: np.ndarray, alpha: Any = None, **turned: Any) -> tuple[np.ndarray]:
        left = np.swapaxes(a, -1, -2) if turned.get("transA") else a
        right = np.swapaxes(b, -1, -2) if turned.get("transB") else b
        return (left @ right * (1 if alpha is None else alpha),)


class LinearRegressor(OpRun):
    """onnx.reference has no post_transform here."""

    op_domain = "ai.onnx.ml"

    def _run(
        self,
        x: np.ndarray,
        coefficients: Any = None,
        intercepts: Any = None,
        post_transform: Any = None,
        targets: Any = None,
    ) -> tuple[np.ndarray]:
        scores = x @ np.reshape(coefficients, (targets, -1)).T + np.asarray(intercepts)
        return (scores if targets == 1 else _after(post_transform, scores),)


class LinearClassifier(OpRun):
    """onnx.reference does something else than ONNX Runtime with one score for two classes."""

    op_domain = "ai.onnx.ml"

    def _run(
        self,
        x: np.ndarray,
        classlabels_ints: Any = None,
        classlabels_strings: Any = None,
        coefficients: Any = None,
        intercepts: Any = None,
        multi_class: Any = None,
        post_transform: Any = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        scores = x @ np.reshape(coefficients, (len(intercepts), -1)).T + np.asarray(intercepts)
        if len(intercepts) == 1:
            one = 1 / (1 + np.exp(-scores)) if post_transform == "LOGISTIC" else scores
            scores = np.concatenate([1 - one, one], 1)
        else:
            scores = _after(post_transform, scores)
        return np.argmax(scores, 1), scores


def _after(transform: str, scores: np.ndarray) -> np.ndarray:
    if transform == "SOFTMAX":
        powers = np.exp(scores)
        return np.asarray(powers / powers.sum(1, keepdims=True))
    return np.asarray(1 / (1 + np.exp(-scores)) if transform == "LOGISTIC" else scores)


MicrosoftGelu.__name__ = "Gelu"

OWN = [
    *(Erf, Gelu, GroupNormalization, LRN, GlobalLpPool, GlobalMaxPool, LpPool, MaxRoiPool, MeanVarianceNormalization),
    *(RMSNormalization, Det, CumProd),
    *(MicrosoftGelu, BiasGelu, FastGelu, QuickGelu, Inverse, SkipLayerNormalization),
    *(LinearClassifier, LinearRegressor),
    *(GRU, LSTM, RNN),
    *(FusedMatMul, SkipSimplifiedLayerNormalization, SimplifiedLayerNormalization),
]
