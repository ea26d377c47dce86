"""Interpolation at computed places: GridSample, AffineGrid. The weights are computed again from the coordinates.

A place reads `T` neighbours along each axis (1 nearest, 2 linear, 4 cubic). Padding is settled for each neighbour
alone, which by symmetry is the same as reflecting or clamping the coordinate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.reader import Node, Tensor
from gbp_onnx.vjp.common import rank_of, reshape_like
from gbp_onnx.vjp.layout import scatter_along
from gbp_onnx.vjp.registry import Cotangents, vjp

__all__ = [
    "Taps",
    "add_taps",
    "gather_taps",
    "interpolation",
    "joint_weights",
    "slopes",
    "spread_taps",
    "through_weights",
]

_INT64 = onnx.TensorProto.INT64
_A = -0.75  # of the cubic kernel (Keys 1981), as ONNX fixes it for GridSample
_WEIGHTS: dict[str, tuple[int, list[list[float]]]] = {
    # The first neighbour, and for every power of the fraction its coefficient in each neighbour's weight.
    "nearest": (0, [[1]]),
    "linear": (0, [[1, 0], [-1, 1]]),
    "cubic": (-1, [[0, 1, 0, 0], [_A, 0, -_A, 0], [-2 * _A, -_A - 3, 2 * _A + 3, _A], [_A, _A + 2, -_A - 2, -_A]]),
}


@dataclass(frozen=True, slots=True)
class Taps:
    """What each of the places [B, P] reads along one axis: [B, P, T] indices (inside), weights, and their slopes."""

    index: Tensor
    weight: Tensor
    slope: Tensor
    count: int


@vjp("GridSample", since=16)
def grid_sample(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """x: ct times each neighbour's weight, added there;  grid: ct times the sum of x times the weight's slope"""
    x, grid = node.inputs[:2]
    axes = rank_of(op, x) - 2
    # onnx knows no schema for com.microsoft, and so no defaults.
    align, mode = bool(node.attrs.get("align_corners", 0)), node.attrs.get("mode", "bilinear").removeprefix("bi")
    padding = node.attrs.get("padding_mode", "zeros")
    sizes = [op.dim(x, 2 + k) for k in range(axes)]
    points = op.Reshape(grid, op.Concat(op.dim(grid, 0), _product(op, grid, 1, 1 + axes), [axes], axis=0), allowzero=1)
    taps, units = [], []
    for k, size in enumerate(sizes):  # the grid's last axis counts from the last axis of x
        real = op.Cast(size, to=op.elem_type(grid))
        unit = op.Mul(op.Sub(real, 1.0) if align else real, 0.5)  # pixels per unit of the grid
        place = op.Gather(points, op.constant(np.int64(axes - 1 - k)), axis=2)
        pixel = op.Add(op.Mul(place, unit), op.Mul(op.Sub(real, 1.0), 0.5))
        taps.append(interpolation(op, pixel, size, mode, padding, align))
        units.append(unit)
    images = op.dim(x, 0)
    flat = op.Reshape(
        ct, op.Concat(images, op.dim(x, 1), op.Slice(op.Shape(points), [1], [2], [0]), axis=0), allowzero=1
    )
    counter = op.Range(op.constant(np.int64(0)), op.Squeeze(images, axes=[0]), op.constant(np.int64(1)))

    def to_x() -> Tensor:
        return spread_taps(op, flat, taps, sizes, x, counter)

    def to_grid() -> Tensor:
        through = through_weights(op, flat, x, taps, sizes, counter)
        parts = [op.Unsqueeze(op.Mul(s, u), axes=[2]) for s, u in zip(slopes(op, through, taps), units, strict=True)]
        made: Tensor = op.Reshape(op.Concat(*reversed(parts), axis=2), op.shape(grid), allowzero=1)
        return made

    return to_x, None if mode == "nearest" else to_grid


@vjp("AffineGrid", since=20)
def affine_grid(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """theta: ct^T @ the homogeneous coordinates of the grid's places"""
    theta = node.inputs[0]
    axes = rank_of(op, node.outputs[0]) - 2
    kind = op.elem_type(ct)
    whole = op.Slice(op.Shape(ct), [1], [1 + axes], [0])
    count = op.ReduceProd(whole, axes=[0], keepdims=1)
    columns = []
    for k in reversed(range(axes)):
        n = op.Slice(op.Shape(ct), [1 + k], [2 + k], [0])
        steps = op.Range(op.constant(np.int64(0)), op.Squeeze(n, axes=[0]), op.constant(np.int64(1)))
        number, real = op.Cast(steps, to=kind), op.Cast(n, to=kind)
        if node.attrs["align_corners"]:
            # Counted from the end: ONNX Runtime puts a single position at 1.
            back, gaps = op.Sub(op.Sub(real, 1.0), number), op.Max(op.Sub(real, 1.0), op.constant(1, kind))
            place = op.Sub(1.0, op.Div(op.Mul(back, 2.0), gaps))
        else:
            place = op.Sub(op.Div(op.Add(op.Mul(number, 2.0), 1.0), real), 1.0)
        shaped = op.Unsqueeze(place, axes=[a for a in range(axes) if a != k]) if axes > 1 else place
        columns.append(op.Reshape(op.Expand(shaped, whole), op.Concat(count, [1], axis=0), allowzero=1))
    columns.append(op.Add(op.Mul(columns[0], 0.0), 1.0))
    places = op.Concat(*columns, axis=1)  # [P, axes + 1]
    rows = op.Reshape(ct, op.Concat(op.dim(theta, 0), count, [axes], axis=0), allowzero=1)
    return (op.MatMul(op.Transpose(rows, perm=[0, 2, 1]), places),)


# --- shared with RoiAlign and DeformConv ----------------------------------------------------------------------------


def interpolation(op: Emitter, pixel: Tensor, size: Tensor, mode: str, padding: str, align: bool) -> Taps:
    """The neighbours of the coordinates `pixel` [B, P] on an axis of `size`: zeros, border or reflection beyond it."""
    first, rows = _WEIGHTS[mode]
    count, kind = len(rows[0]), op.elem_type(pixel)
    base = op.Round(pixel) if mode == "nearest" else op.Floor(pixel)
    fraction = op.Unsqueeze(op.Sub(pixel, base), axes=[2])
    index = op.Add(op.Unsqueeze(op.Cast(base, to=_INT64), axes=[2]), op.constant(np.arange(count) + first, _INT64))
    weight = _polynomial(op, rows, fraction, kind)
    slope = _polynomial(op, [[p * c for c in row] for p, row in enumerate(rows)][1:] or [[0.0]], fraction, kind)
    last = op.Sub(size, 1)
    if padding == "zeros":
        inside = op.And(op.GreaterOrEqual(index, 0), op.Less(index, size))
        weight, slope = op.Where(inside, weight, 0.0), op.Where(inside, slope, 0.0)
    elif padding == "reflection":
        period = op.Max(op.Mul(last, 2), op.constant([1])) if align else op.Mul(size, 2)
        turned = op.Mod(index, period)
        back = op.Sub(period if align else op.Sub(period, 1), turned)
        index = op.Where(op.Greater(turned, last), back, turned)
    index = op.Min(op.Max(index, op.constant([0])), last)
    shape = op.Shape(index)
    return Taps(index, op.Expand(weight, shape), op.Expand(slope, shape), count)


def spread_taps(
    op: Emitter, ct: Tensor, taps: Sequence[Taps], sizes: Sequence[Tensor], x: Tensor, row: Tensor
) -> Tensor:
    """`ct` [B, C, P] times the weights, added to zeros of the shape of x; row b belongs to image `row[b]`."""
    turned = op.Unsqueeze(op.Transpose(ct, perm=[0, 2, 1]), axes=[2])
    return add_taps(op, op.Mul(turned, op.Unsqueeze(joint_weights(op, taps), axes=[3])), taps, sizes, x, row)


def add_taps(op: Emitter, ct: Tensor, taps: Sequence[Taps], sizes: Sequence[Tensor], x: Tensor, row: Tensor) -> Tensor:
    """`ct` [B, P, T, C], one for each neighbour, added to zeros of the shape of x [N, C, *sizes]."""
    places = _places(op, taps, sizes, row)
    count = op.Reshape(op.Size(places), [1])
    images, channels, space = op.dim(x, 0), op.dim(x, 1), _total(op, sizes)
    rows = op.Reshape(ct, op.Concat(count, channels, axis=0), allowzero=1)
    added = scatter_along(op, rows, op.Reshape(places, count, allowzero=1), op.Mul(images, space), 0, 2)
    shaped = op.Reshape(added, op.Concat(images, space, channels, axis=0), allowzero=1)
    return reshape_like(op, op.Transpose(shaped, perm=[0, 2, 1]), x)


def gather_taps(op: Emitter, x: Tensor, taps: Sequence[Taps], sizes: Sequence[Tensor], row: Tensor) -> Tensor:
    """The values of x [N, C, *sizes] at every neighbour: [B, P, T, C]."""
    images, channels, space = op.dim(x, 0), op.dim(x, 1), _total(op, sizes)
    planes = op.Reshape(x, op.Concat(images, channels, space, axis=0), allowzero=1)
    turned = op.Transpose(planes, perm=[0, 2, 1])
    rows = op.Reshape(turned, op.Concat(op.Mul(images, space), channels, axis=0), allowzero=1)
    made: Tensor = op.Gather(rows, _places(op, taps, sizes, row), axis=0)
    return made


def through_weights(
    op: Emitter, ct: Tensor, x: Tensor, taps: Sequence[Taps], sizes: Sequence[Tensor], row: Tensor
) -> Tensor:
    """The cotangents [B, P, T] of the weights: ct [B, C, P] times the values of x, summed over channels."""
    turned = op.Unsqueeze(op.Transpose(ct, perm=[0, 2, 1]), axes=[2])
    made: Tensor = op.ReduceSum(op.Mul(gather_taps(op, x, taps, sizes, row), turned), axes=[3], keepdims=0)
    return made


def slopes(op: Emitter, through: Tensor, taps: Sequence[Taps]) -> list[Tensor]:
    """The cotangents [B, P] of the coordinates of each axis, from those of the neighbours' weights [B, P, T]."""
    made = []
    for k in range(len(taps)):
        parts = [t.slope if j == k else t.weight for j, t in enumerate(taps)]
        made.append(op.ReduceSum(op.Mul(through, _product_of(op, parts, taps)), axes=[2], keepdims=0))
    return made


def _places(op: Emitter, taps: Sequence[Taps], sizes: Sequence[Tensor], row: Tensor) -> Tensor:
    """The rows [B, P, T] of all neighbours in [images * positions, C]."""
    index = taps[0].index
    for k in range(1, len(taps)):
        index = _outer(op.Mul(index, sizes[k]), taps[k].index, op, op.Add, taps[k].count ** (k + 1))
    made: Tensor = op.Add(index, op.Mul(op.Unsqueeze(row, axes=[1, 2]), _total(op, sizes)))
    return made


def joint_weights(op: Emitter, taps: Sequence[Taps]) -> Tensor:
    """The weights [B, P, T] of all neighbours."""
    return _product_of(op, [t.weight for t in taps], taps)


def _product_of(op: Emitter, parts: Sequence[Tensor], taps: Sequence[Taps]) -> Tensor:
    """The products [B, P, T] of one factor [B, P, t] of each axis."""
    made = parts[0]
    for k in range(1, len(parts)):
        made = _outer(made, parts[k], op, op.Mul, taps[k].count ** (k + 1))
    return made


def _outer(first: Tensor, second: Tensor, op: Emitter, combine: Callable[..., Tensor], width: int) -> Tensor:
    """Every pair of the last axes of [B, P, S] and [B, P, T], combined: [B, P, S * T] (no -1, as P may be 0)."""
    made: Tensor = op.Reshape(combine(op.Unsqueeze(first, axes=[3]), op.Unsqueeze(second, axes=[2])), [0, 0, width])
    return made


def _polynomial(op: Emitter, rows: list[list[float]], x: Tensor, kind: int) -> Tensor:
    """rows[0] + rows[1] * x + rows[2] * x^2 ..., by Horner's rule: [..., len(row)]."""
    made = op.constant(np.asarray(rows[-1]), kind)
    for row in reversed(rows[:-1]):
        made = op.Add(op.Mul(made, x), op.constant(np.asarray(row), kind))
    return made


def _total(op: Emitter, sizes: Sequence[Tensor]) -> Tensor:
    made = sizes[0]
    for size in sizes[1:]:
        made = op.Mul(made, size)
    return made


def _product(op: Emitter, tensor: Tensor, begin: int, end: int) -> Tensor:
    """The number of positions of the axes begin..end."""
    return _total(op, [op.dim(tensor, axis) for axis in range(begin, end)])
