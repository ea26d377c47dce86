"""Sequences of tensors, and optionals. The cotangent of a sequence is a sequence of its tensors' cotangents; that of an
optional is its content's.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.inside import Inside
from gbp_onnx.graph.kinds import cotangent_number, scalar_type, sequence_type
from gbp_onnx.graph.reader import Node, Tensor
from gbp_onnx.vjp.common import need, zeros
from gbp_onnx.vjp.registry import Cotangents, stops_gradient, vjp

__all__ = ["add", "mapped", "zeros_like"]

_INT64, _BOOL = onnx.TensorProto.INT64, onnx.TensorProto.BOOL


# --- arithmetic ---------------------------------------------------------------------------------------------------


def add(op: Emitter, a: Tensor, b: Tensor) -> Tensor:
    """The sum of two cotangents; of sequences, tensor by tensor."""
    if op.is_sequence(a):
        return mapped(op, lambda inside, one, other: inside.Add(one, other), a, b)
    made: Tensor = op.Add(a, b)
    return made


def zeros_like(op: Emitter, tensor: Tensor) -> Tensor:
    """The cotangent of `tensor` that is zero; for a sequence, a sequence of zeros."""
    kind = cotangent_number(op.elem_type(tensor))
    if op.is_sequence(tensor):
        return mapped(op, lambda inside, one: zeros(inside, inside.Shape(one), kind), tensor, kind=kind)
    return zeros(op, op.shape(tensor), kind)


def mapped(op: Emitter, build: Callable[..., Tensor], *sequences: Tensor, kind: int = 0) -> Tensor:
    """The sequence of what `build` makes of the tensors of the sequences (of equal length), one after the other."""
    first = sequences[0]
    kind = kind or op.elem_type(first)
    inside = Inside(op)
    at, go = inside.placeholder("at", scalar_type(_INT64)), inside.placeholder("go", scalar_type(_BOOL))
    so_far = inside.placeholder("so_far", sequence_type(kind))
    one = build(inside, *(inside.SequenceAt(inside.capture(s), at) for s in sequences))
    body = inside.body([at, go, so_far], [go, inside.SequenceInsert(so_far, one)])
    given = [op.SequenceLength(first), op.constant(np.asarray(True)), op.SequenceEmpty(dtype=kind)]
    return op.attach("Loop", given, [sequence_type(kind)], {"body": body})[0]


def _counted(op: Emitter, position: Tensor | None, length: Tensor, last: int) -> Tensor:
    """A position as a non-negative int64 number, given the sequence's length; `last`: where it is left out, counted
    from the end.
    """
    if position is None:
        made: Tensor = op.Add(length, last)
    else:
        wide = op.Cast(position, to=_INT64)
        made = op.Where(op.Less(wide, 0), op.Add(wide, length), wide)
    return made


# --- sequences ----------------------------------------------------------------------------------------------------

stops_gradient("SequenceEmpty", why="it has no differentiable input")
stops_gradient("SequenceLength", why="its result is a position or a count, not a value")
stops_gradient("OptionalHasElement", why="its result is true or false")


@vjp("SequenceConstruct", since=11)
def sequence_construct(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """each tensor's place of ct"""
    return tuple(op.SequenceAt(ct, op.constant(np.int64(k))) for k in range(len(node.inputs)))


@vjp("SequenceAt", since=11)
def sequence_at(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """zeros, and ct at the position"""
    sequence, position = need(node.inputs[0], "sequence"), need(node.inputs[1], "position")
    if op.elem_type(ct) != op.elem_type(sequence):
        ct = op.Cast(ct, to=op.elem_type(sequence))
    rest = op.SequenceErase(zeros_like(op, sequence), position)
    return (op.SequenceInsert(rest, ct, _counted(op, position, op.SequenceLength(sequence), -1)),)


@vjp("SequenceInsert", since=11)
def sequence_insert(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """the sequence: ct without the position;  the tensor: ct at the position"""
    if node.input(2) is None:
        return lambda: op.SequenceErase(ct), lambda: op.SequenceAt(ct, op.constant(np.int64(-1)))
    position = _counted(op, node.input(2), op.SequenceLength(node.inputs[0]), 0)
    return lambda: op.SequenceErase(ct, position), lambda: op.SequenceAt(ct, position)


@vjp("SequenceErase", since=11)
def sequence_erase(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct with zeros put in at the position"""
    sequence = need(node.inputs[0], "sequence")
    position = _counted(op, node.input(1), op.SequenceLength(sequence), -1)
    return (op.SequenceInsert(ct, zeros_like(op, op.SequenceAt(sequence, position)), position),)


@vjp("SplitToSequence", since=11)
def split_to_sequence(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct's tensors, joined"""
    stacked = node.input(1) is None and not node.attrs["keepdims"]
    return (op.ConcatFromSequence(ct, axis=node.attrs["axis"], new_axis=int(stacked)),)


@vjp("ConcatFromSequence", since=11)
def concat_from_sequence(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct, cut at the seams"""
    axis = node.attrs["axis"]
    if node.attrs["new_axis"]:
        return (op.SplitToSequence(ct, axis=axis, keepdims=0),)
    sequence = need(node.inputs[0], "sequence")
    sizes = mapped(op, lambda inside, one: inside.Gather(inside.Shape(one), [axis], axis=0), sequence, kind=_INT64)
    return (op.SplitToSequence(ct, op.ConcatFromSequence(sizes, axis=0), axis=axis),)


# --- optionals ----------------------------------------------------------------------------------------------------


@vjp("Optional", since=15)
@vjp("OptionalGetElement", since=15)
def optional(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct"""
    return (ct,)
