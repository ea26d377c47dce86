"""Resize. It is linear and separable: the operator itself, run on an identity matrix, gives each axis its matrix."""

from __future__ import annotations

from typing import NoReturn

import numpy as np

from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.reader import Node, Tensor
from gbp_onnx.vjp.common import as_real, rank_of
from gbp_onnx.vjp.registry import Cotangents, Refusal, vjp

_KEPT = ("coordinate_transformation_mode", "cubic_coeff_a", "exclude_outside", "mode", "nearest_mode", "antialias")


@vjp("Resize", since=11)
def resize(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """A_h^T @ ct @ A_w, where A = Resize(identity) along one axis; the same for more axes"""
    x, y, attrs = node.inputs[0], node.outputs[0], node.attrs
    rank = rank_of(op, x)
    listed = [a % rank for a in attrs.get("axes") or range(rank)]
    scales = node.input(2)
    if scales is not None and op.known_shape(scales) == (0,):
        scales = None
    policy = attrs.get("keep_aspect_ratio_policy", "stretch") if scales is None else "stretch"
    resized = list(range(len(listed)))
    if policy != "stretch":  # ONNX Runtime passes over axes that are written as negative numbers
        resized = [k for k, axis in enumerate(attrs.get("axes") or listed) if axis >= 0]
        if len(resized) > 3 and attrs["mode"] != "nearest":
            return (ct,)  # it resizes three axes at most: the common scale is 1
    out, shape_x = ct, op.known_shape(x) or ()
    shape_y = op.known_shape(y) or (None,) * rank
    if all(isinstance(d, int) for d in shape_x) and shape_x == shape_y:
        return (ct,)  # ONNX Runtime copies a tensor that keeps its shape, whatever the scales
    roi = node.input(1) if attrs["coordinate_transformation_mode"] == "tf_crop_and_resize" else None
    for k in resized:
        axis = listed[k]
        if (
            policy == "stretch"
            and shape_x[axis] is not None
            and shape_x[axis] == shape_y[axis]
            and _scale_is_one(op, scales, k)
        ):
            continue
        scale = None if scales is None else op.Slice(scales, [k], [k + 1], [0])
        ends = () if roi is None else tuple(op.Slice(roi, [i], [i + 1], [0]) for i in (k, len(listed) + k))
        if policy == "stretch" or len(resized) == 1:
            # Under the policy, a single axis gets the size that is asked for (and onnx may infer another one).
            size_y = op.dim(y, axis) if policy == "stretch" else op.Slice(node.inputs[3], [k], [k + 1], [0])
            matrix = _axis_matrix(op, node, x, y, axis, size_y, scale, ends)
        else:
            matrix = _kept_aspect_matrix(op, node, x, [listed[j] for j in resized], resized.index(k), resized, ends)
        last = axis == rank - 1
        perm = list(range(rank))
        perm[axis], perm[-1] = perm[-1], perm[axis]
        turned = out if last else op.Transpose(out, perm=perm)
        product = op.MatMul(turned, op.Transpose(as_real(op, matrix, ct), perm=[1, 0]))
        out = product if last else op.Transpose(product, perm=perm)
    return out, None if roi is None else _refused_box


def _refused_box() -> NoReturn:
    raise Refusal("its roi depends on the input")


def _scale_is_one(op: Emitter, scales: Tensor | None, k: int) -> bool:
    """Whether axis k is copied: with scales given, equal sizes alone do not say so (1.2 may round to 1)."""
    if scales is None:
        return True
    value = op.value(scales)
    return value is not None and float(value[k]) == 1.0


def _axis_matrix(
    op: Emitter,
    node: Node,
    x: Tensor,
    y: Tensor,
    axis: int,
    size_y: Tensor,
    scale: Tensor | None,
    ends: tuple[Tensor, ...] = (),
) -> Tensor:
    """The transposed matrix of one axis, [size of x, size of y]: the forward's own kernel, run on the identity."""
    size_x = op.dim(x, axis)
    square = op.Concat(size_x, size_x, axis=0)
    identity = op.EyeLike(op.ConstantOfShape(square, value=np.zeros(1, np.float32)), dtype=1)
    attrs = {k: node.attrs[k] for k in _KEPT if k in node.attrs}
    # As one-row images [1, size, 1, size] whose width is resized: the form that every kernel has.
    image = op.Unsqueeze(identity, axes=[0, 2])
    roi = None
    if ends:  # what lies outside becomes extrapolation_value, which is 0 here: nothing of x
        rest = op.constant(np.zeros(3), op.elem_type(ends[0]))
        roi = op.Concat(rest, ends[0], op.Add(rest, 1.0), ends[1], axis=0)
    if scale is not None:
        ones = op.constant(np.ones(2, np.float32))
        scales = op.Concat(ones, _rows(op, x, y, scale), op.Cast(scale, to=1), axis=0)
        resized = op.Slice(op.Resize(image, roi, scales, **attrs), [0], [1], [2])
    else:
        sizes = op.Concat([1], size_x, [1], size_y, axis=0)
        resized = op.Resize(image, roi, None, sizes, **attrs)
    made: Tensor = op.Squeeze(resized, axes=[0, 2])
    return made


def _kept_aspect_matrix(
    op: Emitter, node: Node, x: Tensor, listed: list[int], k: int, places: list[int], ends: tuple[Tensor, ...]
) -> Tensor:
    """The same under keep_aspect_ratio_policy, where one axis decides the scale of all: they are all resized.

    The image is the identity along axis k and constant along the others, of which one position is kept. `places`:
    where the listed axes stand in the node's sizes.
    """
    sizes = [op.dim(x, axis) for axis in listed]
    square = op.Concat(sizes[k], sizes[k], axis=0)
    identity = op.EyeLike(op.ConstantOfShape(square, value=np.zeros(1, np.float32)), dtype=1)
    others = [2 + j for j in range(len(listed)) if j != k]
    image = op.Expand(op.Unsqueeze(identity, axes=[0, *others]), op.Concat([1], sizes[k], *sizes, axis=0))
    attrs = {name: node.attrs[name] for name in (*_KEPT, "keep_aspect_ratio_policy") if name in node.attrs}
    given = op.Gather(node.inputs[3], places, axis=0)
    box = None if not ends else _box_along(op, ends, k, len(listed))
    resized = op.Resize(image, box, None, given, axes=list(range(2, 2 + len(listed))), **attrs)
    first = [0] * len(others)
    line = op.Slice(resized, first, [1] * len(others), others) if others else resized
    made: Tensor = op.Squeeze(line, axes=[0, *others])
    return made


def _box_along(op: Emitter, ends: tuple[Tensor, ...], k: int, count: int) -> Tensor:
    """A roi that crops along the k-th of `count` axes alone."""
    kind = op.elem_type(ends[0])
    sides = [[op.constant([fill], kind)] * count for fill in (0, 1)]
    for side, end in zip(sides, ends, strict=True):
        side[k] = end
    made: Tensor = op.Concat(*sides[0], *sides[1], axis=0)
    return made


def _rows(op: Emitter, x: Tensor, y: Tensor, scale: Tensor) -> Tensor:
    """How often the one row is repeated: twice where the axis may keep its size (a scale of 1.2 over 4 positions).

    ONNX Runtime copies a tensor whose shape stays, and interpolates along every axis of one that changes in any. The
    second row makes the identity change, unless x keeps its whole shape.
    """
    value = op.value(scale)
    if value is not None and not 1 < float(value[0]) < 2:
        return op.constant(np.ones(1, np.float32))
    moved = op.Not(op.Equal(op.shape(x), op.shape(y)))
    made: Tensor = op.Add(op.ReduceMax(op.Cast(moved, to=1), axes=[0], keepdims=1), 1.0)
    return made
