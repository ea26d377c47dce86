"""Targets as indices into an image's output; and several targets of one image, which share its forward pass: a sweep
for each, whose maps are stacked.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.reader import FLOAT_TYPES, Tensor

__all__ = ["largest_or", "ranked", "stacked", "stacked_info"]


def largest_or(op: Emitter, rows: Tensor, target: Tensor) -> Tensor:
    """Each row's index: the target, int64 [N], or where that is negative the place of the row's largest value."""
    largest = op.ArgMax(_floats(op, rows), axis=1, keepdims=0)
    index: Tensor = op.Where(op.Less(target, 0), largest, target)
    return index


def ranked(op: Emitter, rows: Tensor, target: Tensor, count: int) -> list[Tensor]:
    """`count` indices into the one row that there is, int64 [1] each: the target's, int64 [count]; -1 stands for the
    place of the largest value, -2 for that of the second largest...
    """
    places = op.TopK(_floats(op, rows), [count], axis=1, outputs=2)[1]
    best = op.Reshape(places, [-1])
    rank = op.Sub(op.Neg(target), 1)
    own = op.Where(op.Less(target, 0), op.Gather(best, op.Where(op.Less(rank, 0), 0, rank), axis=0), target)
    return [op.Gather(own, [k], axis=0) for k in range(count)]


def stacked(op: Emitter, tensors: Sequence[Tensor], along: bool) -> Tensor:
    """The tensors in one: along their first axis, which counts one image, or else along a new one."""
    parts = tensors if along else [op.Unsqueeze(t, axes=[0]) for t in tensors]
    together: Tensor = op.Concat(*parts, axis=0)
    return together


def stacked_info(info: onnx.ValueInfoProto, count: int, along: bool) -> onnx.ValueInfoProto:
    """The declaration of `stacked`, of `count` tensors declared by `info`; in place."""
    shape = info.type.tensor_type.shape
    if not along:
        rest = list(shape.dim)
        del shape.dim[:]
        shape.dim.add()
        shape.dim.extend(rest)
    if shape.dim:
        shape.dim[0].Clear()
        shape.dim[0].dim_value = count
    return info


def _floats(op: Emitter, rows: Tensor) -> Tensor:
    """The rows in a float type: those of a quantised output are compared as they are ordered."""
    if op.elem_type(rows) in FLOAT_TYPES:
        return rows
    made: Tensor = op.Cast(rows, to=onnx.TensorProto.FLOAT)
    return made
