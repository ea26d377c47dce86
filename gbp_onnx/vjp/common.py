"""Arithmetic that several families of derivatives share: masks, broadcasting undone, shapes restored, axes resolved."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.reader import Node, Tensor
from gbp_onnx.vjp.registry import Refusal, UnknownShape

__all__ = [
    "as_real",
    "constant_axes",
    "masked",
    "need",
    "rank_of",
    "reshape_like",
    "scaled",
    "scatter_add",
    "unbroadcast",
    "zeros",
]


def need(tensor: Tensor | None, what: str) -> Tensor:
    """A required input; malformed nodes that leave it out are refused."""
    if tensor is None:
        raise Refusal(f"its {what} is missing")
    return tensor


def as_real(op: Emitter, tensor: Tensor, ct: Tensor) -> Tensor:
    """`tensor` in the type of `ct`: integers count as real numbers beside a cotangent, which is always float."""
    kind = op.elem_type(ct)
    made: Tensor = tensor if op.elem_type(tensor) == kind else op.Cast(tensor, to=kind)
    return made


def masked(op: Emitter, mask: Tensor, ct: Tensor) -> Tensor:
    """`ct` where `mask` holds, else 0. A select, not a product: infinities stay out of masked places."""
    made: Tensor = op.Where(mask, ct, 0.0)
    return made


def scaled(op: Emitter, ct: Tensor, factor: float) -> Tensor:
    """``ct * factor``, nothing emitted for a factor of 1."""
    made: Tensor = ct if factor == 1 else op.Mul(ct, float(factor))
    return made


def zeros(op: Emitter, shape: Tensor, elem_type: int) -> Tensor:
    """Zeros of the shape that the int64 vector `shape` gives."""
    floats = op.ConstantOfShape(shape, value=np.zeros(1, np.float32))
    made: Tensor = floats if elem_type == onnx.TensorProto.FLOAT else op.Cast(floats, to=elem_type)
    return made


def scatter_add(op: Emitter, shape: Tensor, indices: Tensor, ct: Tensor, axis: int) -> Tensor:
    """Zeros of `shape` with `ct` added at `indices` along `axis`; in float32 for half precision (the CPU's kernel)."""
    kind = op.elem_type(ct)
    half = kind in (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    wide = op.Cast(ct, to=onnx.TensorProto.FLOAT) if half else ct
    base = zeros(op, shape, onnx.TensorProto.FLOAT if half else kind)
    total = op.ScatterElements(base, indices, wide, axis=axis, reduction="add")
    made: Tensor = op.Cast(total, to=kind) if half else total
    return made


def rank_of(op: Emitter, tensor: Tensor) -> int:
    """The rank, which most index arithmetic needs to be known."""
    shape = op.known_shape(tensor)
    if shape is None:
        raise UnknownShape(f"the rank of {tensor.name!r} is not known")
    return len(shape)


def constant_axes(op: Emitter, node: Node, index: int, rank: int) -> list[int] | None:
    """Axes given as input `index` or as attribute `axes`, made non-negative; None where they are left out.

    Raises Refusal where they are computed at run time.
    """
    tensor = node.input(index)
    if tensor is not None:
        value = op.value(tensor)
        if value is None:
            raise Refusal("its axes are computed at run time")
        axes: Sequence[int] | None = value.reshape(-1).tolist()
    else:
        axes = node.attrs.get("axes")
    return None if axes is None else [int(a) % rank if rank else int(a) for a in axes]


def reshape_like(op: Emitter, ct: Tensor, like: Tensor) -> Tensor:
    """Reshape `ct` to the shape of `like`; one unknown size needs no arithmetic at run time."""
    known = op.known_shape(like)
    if known is not None and 0 not in known and sum(not isinstance(d, int) for d in known) <= 1:
        made: Tensor = op.Reshape(ct, [d if isinstance(d, int) else -1 for d in known])
    else:
        made = op.Reshape(ct, op.shape(like), allowzero=1)
    return made


def unbroadcast(op: Emitter, ct: Tensor, operand: Tensor, result: Tensor) -> Tensor:
    """Sum `ct` (of the shape of `result`) over the axes along which `operand` was broadcast to it."""
    small, large = op.known_shape(operand), op.known_shape(result)
    if small is None or large is None:
        return _unbroadcast_at_run_time(op, ct, operand)
    lead = len(large) - len(small)
    pairs = list(zip(small, large[lead:], strict=True))
    if any(s != 1 and not _surely_equal(s, d) for s, d in pairs):
        return _unbroadcast_at_run_time(op, ct, operand)
    summed = [*range(lead), *(lead + k for k, (s, d) in enumerate(pairs) if s == 1 and d != 1)]
    if not summed:
        return ct
    total = op.ReduceSum(ct, axes=summed, keepdims=1)
    made: Tensor = op.Squeeze(total, axes=list(range(lead))) if lead else total
    return made


def _surely_equal(small: int | str | None, large: int | str | None) -> bool:
    # A known size other than 1 cannot be broadcast, so the result has it too.
    return isinstance(small, int) or (small is not None and small == large)


def _unbroadcast_at_run_time(op: Emitter, ct: Tensor, operand: Tensor) -> Tensor:
    """The same where the sizes are known only at run time: sum over every axis whose size differs."""
    target, full = op.shape(operand), op.Shape(ct)
    missing = op.Sub(op.Shape(full), op.Shape(target))
    ones = op.ConstantOfShape(missing, value=np.ones(1, np.int64))
    differs = op.Not(op.Equal(op.Concat(ones, target, axis=0), full))
    axes = op.Reshape(op.NonZero(differs), [-1])
    total = op.ReduceSum(ct, axes, keepdims=1, noop_with_empty_axes=1)
    made: Tensor = op.Reshape(total, target, allowzero=1)
    return made
