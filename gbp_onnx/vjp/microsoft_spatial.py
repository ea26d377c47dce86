"""ONNX Runtime's own operators (com.microsoft) on images: GridSample, CropAndResize."""

from __future__ import annotations

import numpy as np

from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.reader import Node, Tensor
from gbp_onnx.vjp import roi, sampling
from gbp_onnx.vjp.common import masked
from gbp_onnx.vjp.registry import Cotangents, Refusal, vjp
from gbp_onnx.vjp.sampling import Taps


@vjp("GridSample", domain="com.microsoft")
def grid_sample(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """as for GridSample of ai.onnx"""
    return sampling.grid_sample(op, node, ct)


@vjp("CropAndResize", domain="com.microsoft")
def crop_and_resize(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """A_h^T @ ct @ A_w by each box's weights, 0 outside the image"""
    x, rois, images, crop = node.inputs[:4]
    bins = op.value(crop)
    if bins is None:
        raise Refusal("its crop_size is computed at run time")
    sizes = [op.dim(x, 2), op.dim(x, 3)]
    nearest = node.attrs.get("mode", "bilinear") == "nearest"
    lines = [_crop_line(op, rois, k, int(bins[k]), sizes[k], nearest) for k in (0, 1)]
    return lambda: roi.average(op, x, ct, lines, sizes, op.Cast(images, to=7)), roi.refused_boxes


def _crop_line(op: Emitter, rois: Tensor, k: int, bins: int, size: Tensor, nearest: bool) -> roi.Line:
    """Where a box (y1, x1, y2, x2, from 0 to 1) reads along axis k: two neighbours of each of its `bins` places."""
    kind = op.elem_type(rois)
    begin, end = (op.Slice(rois, [c], [c + 1], [1]) for c in (k, 2 + k))  # [R, 1]
    last = op.Sub(op.Cast(size, to=kind), 1.0)
    if bins > 1:
        step = op.Div(op.Mul(op.Sub(end, begin), last), float(bins - 1))
        place = op.Add(op.Mul(begin, last), op.Mul(step, op.constant(np.arange(bins), kind)))
    else:
        place = op.Mul(op.Mul(op.Add(begin, end), 0.5), last)
    inside = op.And(op.GreaterOrEqual(place, 0.0), op.LessOrEqual(place, last))
    kept = op.Min(op.Max(place, op.constant(0, kind)), last)
    low = op.Floor(op.Add(kept, 0.5) if nearest else kept)
    fraction = op.Mul(low, 0.0) if nearest else op.Sub(kept, low)
    weights = [op.Unsqueeze(masked(op, inside, w), axes=[2]) for w in (op.Sub(1.0, fraction), fraction)]
    first = op.Unsqueeze(op.Cast(low, to=7), axes=[2])
    index = op.Concat(first, op.Min(op.Add(first, 1), op.Sub(size, 1)), axis=2)
    weight = op.Concat(*weights, axis=2)
    return roi.Line(Taps(index, weight, weight, 2), inside, op.constant([1]), bins)
