"""Regions of interest: RoiAlign, MaxRoiPool. What a region reads is computed again; boxes get no gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import onnx

from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.reader import Node, Tensor
from gbp_onnx.vjp.common import masked, reshape_like, scatter_add
from gbp_onnx.vjp.registry import Cotangents, Refusal, vjp
from gbp_onnx.vjp.sampling import Taps, add_taps, gather_taps, joint_weights

__all__ = ["Line", "average", "refused_boxes"]

_INT64 = onnx.TensorProto.INT64


@dataclass(frozen=True, slots=True)
class Line:
    """The samples of all regions along one axis, [R, bins * samples, 2]; some are only there to fill the table."""

    taps: Taps
    real: Tensor  # bool [R, bins * samples]
    samples: Tensor  # int64 [1]: of each bin
    bins: int


@vjp("RoiAlign", since=10)
def roi_align(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """avg: A_h^T @ ct @ A_w by each region's bilinear weights;  max: ct * weight where the largest product was"""
    x = node.inputs[0]
    sizes = [op.dim(x, 2), op.dim(x, 3)]
    bins = (node.attrs["output_height"], node.attrs["output_width"])
    mean = node.attrs["mode"] == "avg"
    lines = [_line(op, node, k, bins[k], sizes[k], mean) for k in (0, 1)]
    way = average if mean else maximum
    batch = op.Cast(node.inputs[2], to=_INT64)
    return lambda: way(op, x, ct, lines, sizes, batch), refused_boxes


@vjp("MaxRoiPool")
def max_roi_pool(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct at the first maximum of each bin"""
    x, rois = node.inputs[:2]
    sizes = [op.dim(x, 2), op.dim(x, 3)]
    lines = [_whole_pixels(op, node, k, node.attrs["pooled_shape"][k], sizes[k]) for k in (0, 1)]
    batch = op.Reshape(
        op.Cast(op.Slice(rois, [0], [1], [1]), to=_INT64), op.Slice(op.Shape(rois), [0], [1], [0]), allowzero=1
    )
    return lambda: maximum(op, x, ct, lines, sizes, batch), refused_boxes


def average(op: Emitter, x: Tensor, ct: Tensor, lines: list[Line], sizes: list[Tensor], batch: Tensor) -> Tensor:
    """Both axes as matrices: columns [R, bins, W], and rows [R * bins, N * H], which also sort regions by image."""
    images, channels = op.dim(x, 0), op.dim(x, 1)

    def matrix(line: Line, size: Tensor, offset: Tensor | None) -> Tensor:
        shape = op.Concat(op.Shape(batch), [line.bins], op.Mul(line.samples, 2), axis=0)
        index = op.Reshape(line.taps.index, shape, allowzero=1)
        index = index if offset is None else op.Add(index, op.Unsqueeze(offset, axes=[1, 2]))
        weight = op.Reshape(line.taps.weight, shape, allowzero=1)
        return scatter_add(op, op.Concat(op.Shape(batch), [line.bins], size, axis=0), index, weight, 2)

    high = op.Mul(images, sizes[0])
    rows = matrix(lines[0], high, op.Mul(batch, sizes[0]))
    columns = op.Unsqueeze(matrix(lines[1], sizes[1], None), axes=[1])
    wide = op.Transpose(op.MatMul(ct, columns), perm=[0, 2, 1, 3])  # [R, bins, C, W]
    count = op.Mul(op.Shape(batch), lines[0].bins)
    left = op.Reshape(rows, op.Concat(count, high, axis=0), allowzero=1)
    right = op.Reshape(wide, op.Concat(count, op.Mul(channels, sizes[1]), axis=0), allowzero=1)
    total = op.MatMul(op.Transpose(left, perm=[1, 0]), right)  # [N * H, C * W]
    shaped = op.Reshape(total, op.Concat(images, sizes[0], channels, sizes[1], axis=0), allowzero=1)
    return reshape_like(op, op.Transpose(shaped, perm=[0, 2, 1, 3]), x)


def maximum(op: Emitter, x: Tensor, ct: Tensor, lines: list[Line], sizes: list[Tensor], batch: Tensor) -> Tensor:
    """The forward takes the largest of all products of a pixel and its weight, not of the interpolated samples."""
    regions, channels = op.Shape(batch), op.dim(x, 1)
    counts = [op.Mul(line.samples, line.bins) for line in lines]
    both = op.Concat(*counts, axis=0)

    each, width = lines[0].taps.count, lines[0].taps.count ** 2

    def everywhere(tensor: Tensor, k: int, width: int) -> Tensor:
        whole = op.Expand(op.Unsqueeze(tensor, axes=[2 - k]), op.Concat(regions, both, [width], axis=0))
        made: Tensor = op.Reshape(whole, op.Concat(regions, op.Mul(*counts), [width], axis=0), allowzero=1)
        return made

    taps = [
        Taps(everywhere(line.taps.index, k, each), everywhere(line.taps.weight, k, each), line.taps.slope, each)
        for k, line in enumerate(lines)
    ]
    real = op.And(*(everywhere(op.Unsqueeze(line.real, axes=[2]), k, 1) for k, line in enumerate(lines)))
    weight = op.Unsqueeze(joint_weights(op, taps), axes=[3])  # [R, P, T, 1]
    products = op.Mul(gather_taps(op, x, taps, sizes, batch), weight)
    lowest = op.constant(-np.inf, op.elem_type(x))
    candidates = op.Where(op.Unsqueeze(real, axes=[3]), products, lowest)
    row, column = lines
    # [R, bins, samples, bins, samples * T, C] -> [R, bins, bins, C, all candidates of a bin]
    split = op.Concat(regions, [row.bins], row.samples, [column.bins], op.Mul(column.samples, width), channels, axis=0)
    turned = op.Transpose(op.Reshape(candidates, split, allowzero=1), perm=[0, 1, 3, 5, 2, 4])
    choices = op.Mul(op.Mul(row.samples, column.samples), width)
    listed = op.Reshape(turned, op.Concat(regions, [row.bins, column.bins], channels, choices, axis=0), allowzero=1)
    chosen = op.ArgMax(listed, axis=4, keepdims=1)
    number = op.Range(op.constant(np.int64(0)), op.Squeeze(choices, axes=[0]), op.constant(np.int64(1)))
    sent = masked(op, op.Equal(chosen, number), op.Unsqueeze(op.Transpose(ct, perm=[0, 2, 3, 1]), axes=[4]))
    back = op.Transpose(op.Reshape(sent, op.Shape(turned), allowzero=1), perm=[0, 1, 4, 2, 5, 3])
    return add_taps(op, op.Mul(op.Reshape(back, op.Shape(products), allowzero=1), weight), taps, sizes, x, batch)


def _line(op: Emitter, node: Node, k: int, bins: int, size: Tensor, mean: bool) -> Line:
    """The samples along axis k. With sampling_ratio 0 their number depends on the region: all get the largest one."""
    rois, ratio = node.inputs[1], node.attrs["sampling_ratio"]
    kind, regions = op.elem_type(rois), op.Slice(op.Shape(node.inputs[1]), [0], [1], [0])
    half = node.attrs.get("coordinate_transformation_mode", "output_half_pixel") == "half_pixel"
    one = op.constant(np.ones((1, 1, 1)), kind)
    begin, end = (
        op.Unsqueeze(op.Slice(rois, [c], [c + 1], [1]), axes=[2]) for c in (1 - k, 3 - k)
    )  # [R, 1, 1]; a box is x1, y1, x2, y2
    scale, shift = float(node.attrs["spatial_scale"]), 0.5 if half else 0.0
    start = op.Sub(op.Mul(begin, scale), shift)
    extent = op.Sub(op.Sub(op.Mul(end, scale), shift), start)
    bin_size = op.Div(extent if half else op.Max(extent, one), float(bins))
    count = op.constant(np.full((1, 1, 1), ratio), kind) if ratio > 0 else op.Ceil(bin_size)
    most = op.Cast(op.Reshape(op.ReduceMax(op.Concat(count, one, axis=0), keepdims=0), [1]), to=_INT64)
    divisor = op.Max(count, one)
    zero, step = op.constant(np.int64(0)), op.constant(np.int64(1))
    number = op.Cast(op.Range(zero, op.Squeeze(most, axes=[0]), step), to=kind)  # of the sample within its bin
    bin_start = op.Add(start, op.Mul(bin_size, op.constant(np.arange(bins)[:, None], kind)))
    place = op.Add(bin_start, op.Div(op.Mul(op.Add(number, 0.5), bin_size), divisor))  # [R, bins, samples]
    real = op.Expand(op.Less(number, count), op.Shape(place))
    inside = op.And(op.GreaterOrEqual(place, -1.0), op.LessOrEqual(place, op.Cast(size, to=kind)))
    share = op.Expand(op.Div(one, divisor) if mean else one, op.Shape(place))
    flat = op.Concat(regions, op.Mul(most, bins), [1], axis=0)
    factor = op.Reshape(masked(op, op.And(real, inside), share), flat, allowzero=1)
    last = op.Sub(op.Cast(size, to=kind), 1.0)
    pixel = op.Min(op.Max(op.Reshape(place, flat, allowzero=1), op.constant(0, kind)), last)
    low = op.Floor(pixel)
    fraction = op.Sub(pixel, low)
    weight = op.Concat(op.Mul(factor, op.Sub(1.0, fraction)), op.Mul(factor, fraction), axis=2)
    first = op.Cast(low, to=_INT64)
    index = op.Concat(first, op.Min(op.Add(first, 1), op.Sub(size, 1)), axis=2)
    return Line(
        Taps(index, weight, weight, 2),
        op.Reshape(real, op.Concat(regions, op.Mul(most, bins), axis=0), allowzero=1),
        most,
        bins,
    )


def _whole_pixels(op: Emitter, node: Node, k: int, bins: int, size: Tensor) -> Line:
    """The pixels of every bin along axis k (Fast R-CNN: ends included and rounded, bins rounded outwards)."""
    rois = node.inputs[1]  # image, x1, y1, x2, y2
    kind, regions = op.elem_type(rois), op.Slice(op.Shape(rois), [0], [1], [0])

    def rounded(column: int) -> Tensor:  # half away from 0, where Round goes to even
        value = op.Mul(op.Slice(rois, [column], [column + 1], [1]), float(node.attrs["spatial_scale"]))
        made: Tensor = op.Mul(op.Sign(value), op.Floor(op.Add(op.Abs(value), 0.5)))
        return made

    one, zero = op.constant(1, kind), op.constant(0, kind)
    start, end = rounded(2 - k), rounded(4 - k)
    bin_size = op.Div(op.Max(op.Add(op.Sub(end, start), 1.0), one), float(bins))  # [R, 1]
    number, limit = op.constant(np.arange(bins), kind), op.Cast(size, to=kind)
    first, last = (
        op.Min(op.Max(op.Add(edge, start), zero), limit)
        for edge in (op.Floor(op.Mul(bin_size, number)), op.Ceil(op.Mul(bin_size, op.Add(number, 1.0))))
    )
    count = op.Sub(last, first)  # [R, bins]
    most = op.ReduceMax(op.Concat(op.Reshape(count, [-1]), op.constant([1], kind), axis=0), keepdims=1)
    most = op.Cast(most, to=_INT64)
    steps = op.Range(op.constant(np.int64(0)), op.Squeeze(most, axes=[0]), op.constant(np.int64(1)))
    offset = op.Cast(steps, to=kind)
    flat = op.Concat(regions, op.Mul(most, bins), axis=0)
    real = op.Reshape(op.Less(offset, op.Unsqueeze(count, axes=[2])), flat, allowzero=1)
    place = op.Cast(op.Add(op.Unsqueeze(first, axes=[2]), offset), to=_INT64)
    index = op.Unsqueeze(op.Reshape(op.Min(place, op.Sub(size, 1)), flat, allowzero=1), axes=[2])
    weight = op.Unsqueeze(op.Cast(real, to=kind), axes=[2])
    return Line(Taps(index, weight, weight, 1), real, most, bins)


def refused_boxes() -> NoReturn:
    """For boxes that want a gradient."""
    raise Refusal("its boxes depend on the input; cut the graph in front of them")
