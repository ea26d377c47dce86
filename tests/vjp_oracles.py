"""Forward definitions in double where onnx.reference computes in float32, or something else than the standard says."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun

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


OWN = [Erf, Gelu, GroupNormalization, LRN, GlobalLpPool, GlobalMaxPool, LpPool, MaxRoiPool, MeanVarianceNormalization]
