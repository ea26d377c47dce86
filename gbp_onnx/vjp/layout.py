"""Operators that move values: shapes, axes, joining, cutting, padding."""

from __future__ import annotations

import numpy as np

from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.reader import Node, Tensor
from gbp_onnx.graph.shapes import slice_positions
from gbp_onnx.vjp.common import constant_axes, masked, rank_of, reshape_like, scatter_add, unbroadcast, zeros
from gbp_onnx.vjp.registry import Cotangents, Refusal, vjp

# --- shapes and axes ----------------------------------------------------------------------------------------------


@vjp("Reshape", since=5)
@vjp("Flatten", "Squeeze", "Unsqueeze")
def reshape(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct in the shape of x"""
    return (reshape_like(op, ct, node.inputs[0]),)


@vjp("Squeeze", since=13)
def squeeze(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """Unsqueeze(ct), which asks for no shape"""
    axes = node.input(1)
    return (reshape_like(op, ct, node.inputs[0]) if axes is None else op.Unsqueeze(ct, axes),)


@vjp("Unsqueeze", since=13)
def unsqueeze(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """Squeeze(ct), which asks for no shape"""
    return (op.Squeeze(ct, node.inputs[1]),)


@vjp("Transpose")
def transpose(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct under the inverse permutation"""
    perm = node.attrs.get("perm")
    return (op.Transpose(ct, perm=None if perm is None else np.argsort(perm).tolist()),)


@vjp("Expand", since=8)
def expand(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct summed over the repeated axes"""
    return (unbroadcast(op, ct, node.inputs[0], node.outputs[0]),)


@vjp("Tile", since=6)
def tile(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct summed over the copies"""
    x, repeats = node.inputs[:2]
    rank = rank_of(op, x)
    pairs = op.Concat(op.Unsqueeze(repeats, axes=[1]), op.Unsqueeze(op.shape(x), axes=[1]), axis=1)
    copies = op.Reshape(ct, op.Reshape(pairs, [-1]))  # each axis as [repeats, size]
    return (op.ReduceSum(copies, axes=list(range(0, 2 * rank, 2)), keepdims=0),)


@vjp("DepthToSpace", since=11)
def depth_to_space(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """the blocks of ct gathered back into channels"""
    x, block = node.inputs[0], node.attrs["blocksize"]
    if node.attrs["mode"] == "DCR":
        return (op.SpaceToDepth(ct, blocksize=block),)
    n, c, h, w = (op.dim(x, axis) for axis in range(4))
    split = op.Reshape(ct, op.Concat(n, op.Div(c, block * block), h, [block], w, [block], axis=0))
    return (reshape_like(op, op.Transpose(split, perm=[0, 1, 3, 5, 2, 4]), x),)


@vjp("SpaceToDepth")
def space_to_depth(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """DepthToSpace(ct)"""
    return (op.DepthToSpace(ct, blocksize=node.attrs["blocksize"], mode=node.attrs.get("mode", "DCR")),)


# --- joining and cutting ------------------------------------------------------------------------------------------


@vjp("Concat", since=4)
def concat(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct, cut at the seams"""
    axis = node.attrs["axis"]
    if len(node.inputs) == 1:
        return (ct,)
    sizes = op.Concat(*(op.dim(x, axis) for x in node.inputs), axis=0)
    return tuple(op.Split(ct, sizes, axis=axis, outputs=len(node.inputs)))


@vjp("Split", since=2, outputs="all")
def split(op: Emitter, node: Node, ct: tuple[Tensor | None, ...]) -> Cotangents:
    """the pieces' cotangents, joined (zeros for pieces that nothing differentiates)"""
    present = next(c for c in ct if c is not None)
    pieces = [
        zeros(op, op.shape(y) if op.known_shape(y) is not None else op.Shape(y), op.elem_type(present))
        if c is None
        else c
        for c, y in zip(ct, node.outputs, strict=True)
        if y is not None
    ]
    return (op.Concat(*pieces, axis=node.attrs["axis"]) if len(pieces) > 1 else pieces[0],)


@vjp("Slice", since=10)
def slice_(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct scattered to the positions that were taken, axis by axis (padded where the step is 1)"""
    x, starts, ends = node.inputs[:3]
    rank = rank_of(op, x)
    if node.input(3) is not None and op.value(node.inputs[3]) is None:
        return (_scatter_slices(op, ct, x, _for_all_axes(op, node, rank), list(range(rank))),)
    count = op.known_shape(starts)
    axes = constant_axes(op, node, 3, rank)
    if axes is None:
        if count is None or not isinstance(count[0], int):
            raise Refusal("its number of axes is known only at run time")
        axes = list(range(count[0]))
    steps = [1] * len(axes) if node.input(4) is None else op.value(node.inputs[4])
    sizes = op.known_shape(x) or ()
    known_starts, known_ends = op.value(starts), op.value(ends)
    whole = all(isinstance(sizes[a], int) for a in axes)
    if (
        known_starts is not None
        and known_ends is not None
        and whole
        and steps is not None
        and all(s == 1 for s in steps)
    ):
        pads = [0] * (2 * rank)
        for axis, start, end in zip(axes, known_starts.tolist(), known_ends.tolist(), strict=True):
            taken = slice_positions(start, end, 1, int(sizes[axis] or 0))
            pads[axis], pads[rank + axis] = taken.start, int(sizes[axis] or 0) - taken.start - len(taken)
        return (op.Pad(ct, pads) if any(pads) else ct,)
    return (_scatter_slices(op, ct, x, (starts, ends, node.input(4)), axes),)


def _for_all_axes(op: Emitter, node: Node, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Starts, ends and steps of every axis, where the axes that are sliced are known only at run time."""
    axes = positive_axes(op, node.inputs[3], rank)
    starts, ends, steps = (
        op.constant(np.full(rank, default)) for default in (np.int64(0), np.iinfo(np.int64).max, np.int64(1))
    )
    given = [op.Cast(t, to=7) for t in node.inputs[1:3] if t is not None]
    starts = op.ScatterElements(starts, axes, given[0], axis=0)
    ends = op.ScatterElements(ends, axes, given[1], axis=0)
    step = node.input(4)
    return starts, ends, steps if step is None else op.ScatterElements(steps, axes, op.Cast(step, to=7), axis=0)


def positive_axes(op: Emitter, axes: Tensor, rank: int) -> Tensor:
    """Axes known only at run time, int64, negative ones counted from the front."""
    wide = op.Cast(axes, to=7)
    made: Tensor = op.Where(op.Less(wide, 0), op.Add(wide, rank), wide)
    return made


def _scatter_slices(
    op: Emitter, ct: Tensor, x: Tensor, bounds: tuple[Tensor, Tensor, Tensor | None], axes: list[int]
) -> Tensor:
    """Any step, any start known only at run time: slice the positions of each axis alike, and scatter along it."""
    starts, ends, steps = bounds
    out = ct
    for k, axis in enumerate(axes):
        size = op.dim(x, axis)
        positions = op.Range(op.constant(np.int64(0)), op.Squeeze(size, axes=[0]), op.constant(np.int64(1)))
        one = [op.Slice(t, [k], [k + 1], [0]) for t in (starts, ends)]
        step = None if steps is None else op.Slice(steps, [k], [k + 1], [0])
        taken = op.Slice(positions, *one, op.constant([0], op.elem_type(starts)), step)
        out = scatter_along(op, out, taken, size, axis, rank_of(op, x))
    return out


def scatter_along(op: Emitter, ct: Tensor, positions: Tensor, size: Tensor, axis: int, rank: int) -> Tensor:
    """Add the slices of `ct` along `axis` to `positions` (int64 [K]) of a zero tensor that has `size` there."""
    shape = op.Shape(ct)
    full = op.Concat(op.Slice(shape, [0], [axis], [0]), size, op.Slice(shape, [axis + 1], [rank], [0]), axis=0)
    indices = op.Expand(op.Unsqueeze(positions, axes=[a for a in range(rank) if a != axis]), shape)
    return scatter_add(op, full, indices, ct, axis)


# --- padding ------------------------------------------------------------------------------------------------------


@vjp("Pad", since=11)
def pad(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct without the padding;  constant_value: the padding's part of ct, summed

    Where the padding repeats values of x, its cotangent is added to them.
    """
    x, pads, fill = node.inputs[0], node.inputs[1], node.input(2)
    rank, mode = rank_of(op, x), node.attrs["mode"]
    if node.input(3) is not None and op.value(node.inputs[3]) is None:
        chosen = positive_axes(op, node.inputs[3], rank)
        both = op.Concat(chosen, op.Add(chosen, rank), axis=0)  # begins, then ends
        axes, pads = None, op.ScatterElements(op.constant(np.zeros(2 * rank, np.int64)), both, pads, axis=0)
    else:
        axes = constant_axes(op, node, 3, rank)
    if mode == "constant":
        if axes is not None:
            amounts = [op.Slice(pads, [k], [k + 1], [0]) for k in range(2 * len(axes))]
            full = [op.constant([0])] * (2 * rank)
            for k, axis in enumerate(axes):
                full[axis], full[rank + axis] = amounts[k], amounts[len(axes) + k]
            pads = op.Concat(*full, axis=0)
        return op.Pad(ct, op.Neg(pads)), None, None if fill is None else lambda: _sum_of_padding(op, ct, x, pads, fill)
    out = ct
    count = rank if axes is None else len(axes)
    for k, axis in enumerate(range(rank) if axes is None else axes):
        begin, end = (op.Slice(pads, [i], [i + 1], [0]) for i in (k, count + k))
        if (amount := (op.value(begin), op.value(end))) and all(a is not None and not a.any() for a in amount):
            continue
        size = op.dim(x, axis)
        positions = op.Range(op.constant(np.int64(0)), op.Squeeze(size, axes=[0]), op.constant(np.int64(1)))
        # The forward, run on the positions along this axis, tells where every value came from.
        sources = op.Cast(op.Pad(op.Cast(positions, to=1), op.Concat(begin, end, axis=0), mode=mode), to=7)
        out = scatter_along(op, out, sources, size, axis, rank)
    return (out,)


def _sum_of_padding(op: Emitter, ct: Tensor, x: Tensor, pads: Tensor, fill: Tensor) -> Tensor:
    """The sum of `ct` over the places that `fill` was put in."""
    inner = op.ConstantOfShape(op.shape(x), value=np.zeros(1, np.float32))
    filled = op.Greater(op.Pad(inner, pads, op.constant(np.float32(1))), 0.0)
    total = op.ReduceSum(masked(op, filled, ct), axes=list(range(rank_of(op, x))), keepdims=0)
    return reshape_like(op, total, fill)


@vjp("CenterCropPad", since=18)
def center_crop_pad(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct, padded where x was cropped, and cropped where it was padded"""
    x, target = node.inputs[:2]
    rank = rank_of(op, x)
    axes = node.attrs.get("axes") or list(range(rank))
    pads = [op.constant([0])] * (2 * rank)
    for k, axis in enumerate(a % rank for a in axes):
        missing = op.Sub(op.dim(x, axis), op.Slice(target, [k], [k + 1], [0]))
        pads[axis] = op.Div(missing, 2)  # towards 0
        pads[rank + axis] = op.Sub(missing, pads[axis])
    return (op.Pad(ct, op.Concat(*pads, axis=0)),)
