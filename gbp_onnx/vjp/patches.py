"""Operators on patches of an image, cut out at a grid (Col2Im) or at computed places (DeformConv)."""

from __future__ import annotations

import numpy as np

from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.reader import Node, Tensor
from gbp_onnx.vjp.common import need, rank_of, reshape_like
from gbp_onnx.vjp.registry import Cotangents, Refusal, vjp
from gbp_onnx.vjp.sampling import gather_taps, interpolation, joint_weights, slopes, spread_taps


def _range(op: Emitter, count: Tensor) -> Tensor:
    """0, 1 ... count - 1 for an int64 vector of one element."""
    made: Tensor = op.Range(op.constant(np.int64(0)), op.Squeeze(count, axes=[0]), op.constant(np.int64(1)))
    return made


@vjp("Col2Im", since=18)
def col2im(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """the patches of ct (Im2Col)"""
    x, image, block = node.inputs[:3]
    axes = rank_of(op, node.outputs[0]) - 2 if op.known_shape(node.outputs[0]) else 0
    known = op.known_shape(image)
    if not axes and known and isinstance(known[0], int):
        axes = known[0]
    if not axes:
        raise Refusal("its number of axes is known only at run time")
    pads = node.attrs.get("pads") or [0] * 2 * axes
    strides, dilations = (node.attrs.get(name) or [1] * axes for name in ("strides", "dilations"))
    patches = op.Pad(ct, [0, 0, *pads[:axes], 0, 0, *pads[axes:]]) if any(pads) else ct
    taken = []
    for k in range(axes):
        size, taps = (op.Slice(t, [k], [k + 1], [0]) for t in (image, block))
        room = op.Sub(op.Add(size, pads[k] + pads[axes + k] - 1), op.Mul(op.Sub(taps, 1), dilations[k]))
        count = op.Add(op.Div(room, strides[k]), 1)
        starts = op.Mul(_range(op, count), strides[k])
        offsets = op.Unsqueeze(op.Mul(_range(op, taps), dilations[k]), axes=[1])
        patches = op.Gather(patches, op.Add(offsets, starts), axis=2 + 2 * k)  # the axis becomes [taps, patches]
        taken.append(count)
    order = [0, 1, *range(2, 2 + 2 * axes, 2), *range(3, 3 + 2 * axes, 2)]
    return (reshape_like(op, op.Transpose(patches, perm=order), x),)


@vjp("DeformConv", since=19)
def deform_conv(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """the derivative of a convolution over bilinear samples, and theirs: W^T @ ct sent to x, offsets and mask"""
    x, weight, offset = need(node.input(0), "input"), need(node.input(1), "weight"), need(node.input(2), "offset")
    mask = node.input(4)
    kernel = [d for d in (op.known_shape(weight) or ())[2:] if isinstance(d, int)]
    if len(kernel) != 2:
        raise Refusal("its kernel size is known only at run time")
    group, parts, taps_count = node.attrs["group"], node.attrs["offset_group"], kernel[0] * kernel[1]
    strides, dilations = (node.attrs.get(name) or [1, 1] for name in ("strides", "dilations"))
    pads = node.attrs.get("pads") or [0] * 4
    kind = op.elem_type(ct)
    images, channels = op.dim(x, 0), op.dim(x, 1)
    sizes = [op.dim(x, 2), op.dim(x, 3)]
    rows = op.Mul(images, parts)  # one row for each image and offset group
    per_part = op.Div(channels, parts)
    split = op.Reshape(x, op.Concat(rows, per_part, *sizes, axis=0), allowzero=1)
    space = op.Slice(op.Shape(ct), [2], [4], [0])
    places = op.Mul(op.ReduceProd(space, axes=[0], keepdims=1), taps_count)
    shifts = op.Reshape(offset, op.Concat(rows, [taps_count, 2], space, axis=0), allowzero=1)
    tap = np.stack(np.meshgrid(np.arange(kernel[0]), np.arange(kernel[1]), indexing="ij")).reshape(2, taps_count)
    lines = []
    for k in (0, 1):
        along = op.Cast(op.Mul(_range(op, op.Slice(space, [k], [k + 1], [0])), strides[k]), to=kind)
        fixed = op.Add(
            op.constant((tap[k] * dilations[k] - pads[k]).reshape(1, taps_count, 1, 1), kind),
            op.Unsqueeze(along, axes=[1 - k]),
        )
        moved = op.Add(op.Gather(shifts, op.constant(np.int64(k)), axis=2), fixed)
        pixel = op.Reshape(moved, op.Concat(rows, places, axis=0), allowzero=1)
        lines.append(interpolation(op, pixel, sizes[k], "linear", "zeros", False))
    row = _range(op, rows)
    flat = op.Concat(images, [group], op.Div(op.dim(weight, 0), group), op.Div(places, taps_count), axis=0)
    arrived = op.Reshape(ct, flat, allowzero=1)  # [N, group, O / group, positions]
    matrix = op.Reshape(weight, op.Concat([group], op.Div(op.dim(weight, 0), group), [-1], axis=0))
    columns = op.MatMul(op.Transpose(matrix, perm=[0, 2, 1]), arrived)  # [N, group, C / group * taps, positions]
    by_part = op.Concat(rows, per_part, places, axis=0)
    sampled_ct = op.Reshape(columns, by_part, allowzero=1)  # of the masked samples
    factor = None if mask is None else op.Reshape(mask, op.Concat(rows, [1], places, axis=0), allowzero=1)
    weighted = sampled_ct if factor is None else op.Mul(sampled_ct, factor)

    def samples() -> Tensor:
        values = op.Mul(gather_taps(op, split, lines, sizes, row), op.Unsqueeze(joint_weights(op, lines), axes=[3]))
        made: Tensor = op.Transpose(op.ReduceSum(values, axes=[2], keepdims=0), perm=[0, 2, 1])
        return made

    def to_x() -> Tensor:
        return reshape_like(op, spread_taps(op, weighted, lines, sizes, split, row), x)

    def to_weight() -> Tensor:
        read = samples() if factor is None else op.Mul(samples(), factor)
        shape = op.Concat(op.Slice(flat, [0], [2], [0]), [-1], op.Div(places, taps_count), axis=0)
        products = op.MatMul(arrived, op.Transpose(op.Reshape(read, shape), perm=[0, 1, 3, 2]))
        return reshape_like(op, op.ReduceSum(products, axes=[0], keepdims=0), weight)

    def to_offset() -> Tensor:
        turned = op.Unsqueeze(op.Transpose(weighted, perm=[0, 2, 1]), axes=[2])
        through = op.ReduceSum(op.Mul(gather_taps(op, split, lines, sizes, row), turned), axes=[3], keepdims=0)
        shape = op.Concat(rows, [taps_count, 1], space, axis=0)
        both = [op.Reshape(s, shape, allowzero=1) for s in slopes(op, through, lines)]
        return reshape_like(op, op.Concat(*both, axis=2), offset)

    def to_mask() -> Tensor:
        total = op.ReduceSum(op.Mul(sampled_ct, samples()), axes=[1], keepdims=0)
        return reshape_like(op, total, need(mask, "mask"))

    return to_x, to_weight, to_offset, lambda: op.ReduceSum(ct, axes=[0, 2, 3], keepdims=0), to_mask
