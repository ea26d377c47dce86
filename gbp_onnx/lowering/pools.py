"""The derivative of MaxPool without Indices, which keeps the pool in the blocked layout: first maxima by comparison.

A window's first maximum in row-major order lies in the first of its rows that holds the maximum, at the first place
in that row. So the cotangent goes from the pool's output to the maxima of rows, and from these to the input. Along
each axis a tap wins where it is larger than every tap before it, and as large as every tap after it:

    [u > v] = Clip(2^90 (u - v), 0, 1)          one convolution of two taps; equal numbers give exactly 0
    three taps: w_2 = [x_2 > x_0] [x_2 > x_1];  w_1 = [x_1 > x_0] without w_2;  the first takes the rest

What the taps win depends on no cotangent: rules and targets share it. Where the input cannot be negative, zeros may
stand for the padding: they equal a maximum only where that is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import numpy as np

from gbp_onnx.lowering.blocked import clip, fits, interleave, pick, pointwise, relu, sized, taps, total
from gbp_onnx.lowering.draft import Draft
from gbp_onnx.lowering.masks import Gated, factor
from gbp_onnx.lowering.patterns import Pool

__all__ = ["Zero", "pool_phases"]

_STEEP = 2.0**90
_LEAST = 2.0**-88
_LONGEST = 3
"""Taps of a window along an axis: of more, every pair would have to be compared."""


class Zero(Enum):
    """What becomes of the cotangent of windows whose maximum is 0.

    DROP: nothing of it is passed on (a mask [y > 0] follows, and is left out). ANYWHERE: it lands on zeros of the
    input, or is lost (a mask [y > 0] follows). FIRST: it goes to the first maximum, as everywhere.
    """

    DROP = "drop"
    ANYWHERE = "anywhere"
    FIRST = "first"


def pool_phases(g: Draft, pool: Pool, zero: Zero, begin: str | None = None) -> dict[tuple[int, int], str] | None:
    """The cotangent of a pool's input, its columns in phases of the stride; None where the sizes do not fit.

    `begin`: a tensor that the sum may begin with, where there is one phase.
    """
    size, small = g.space(pool.y), g.space(pool.p)
    if size is None or small is None or not fits(g, pool.y) or max(pool.kernel) > _LONGEST:
        return None
    (kh, kw), (sh, sw), (ph, pw) = pool.kernel, pool.strides, pool.begins
    (channels, height, width), (oh, ow) = size, small[1:]
    end = (ow - 1) * sw + kw - width - pw
    if pw >= kw or ph >= kh or end >= kw or (end < 0 and (width + pw - kw) // sw + 1 != ow):
        return None
    ct, y = pool.ct, pool.y
    if zero is Zero.DROP:
        ct = g.emit("Mul", [ct, factor(g, Gated(pool.p))], g.shape(pool.p))
    elif zero is Zero.FIRST and (ph or pw):
        y = clip(g, pointwise(g, y, 1.0), _LEAST, float(np.finfo(np.float32).max))  # above the zeros of the padding
    rows = g.emit(
        "MaxPool",
        [y],
        sized(g, y, channels, height, ow),
        kernel_shape=[1, kw],
        strides=[1, sw],
        pads=[0, pw, 0, max(end, 0)],
    )
    upright = _along(g, ct, rows, (kh, sh, ph), 0, (oh, ow), height)
    whole = upright[0]
    if len(upright) > 1:
        whole = interleave(g, {(a, 0): part for a, part in enumerate(upright)}, (height, ow))[0]
    across = _along(g, whole, y, (kw, sw, pw), 1, (height, ow), width, begin)
    return {(0, b): part for b, part in enumerate(across)}


def _along(
    g: Draft,
    ct: str,
    x: str,
    window: tuple[int, int, int],
    axis: int,
    size: tuple[int, int],
    length: int,
    begin: str | None = None,
) -> list[str]:
    """The cotangent of x, whose windows (taps, stride, begin pad) along one axis have the maxima that ct belongs to.

    In phases of the stride, each as long as the longest; `size`: of ct; `length`: of x along the axis.
    """
    kernel, stride, pad = window
    wins = _wins(g, x, window, axis, size)
    shares = [ct, *(g.emit("Mul", [ct, win], g.shape(ct)) for win in wins)]  # the first: before the others take theirs
    long = -(-length // stride)
    space = (long, size[1]) if axis == 0 else (size[0], long)
    phases = []
    for phase in range(stride):
        parts = []
        for tap in range(kernel):
            moves: dict[int, float] = {}
            for taker in (0, tap):  # what a later tap takes, the first one gives
                if tap and (phase - taker + pad) % stride == 0:
                    step = (phase - taker + pad) // stride
                    moves[step] = moves.get(step, 0.0) + (1.0 if taker else -1.0)
            if tap == 0 and (phase + pad) % stride == 0:
                moves[(phase + pad) // stride] = 1.0
            if moves:
                parts.append(_moved(g, shares[tap], moves, axis, space))
        if begin is not None and stride == 1:
            parts.insert(0, begin)
        parts.sort(key=lambda name: name not in (begin, *shares))  # what stays in place needs no node: it comes first
        phases.append(total(g, *parts) if parts else pointwise(g, pick(g, ct, (0, 0), (1, 1), space), 0.0))
    return phases


def _moved(g: Draft, share: str, moves: dict[int, float], axis: int, size: tuple[int, int]) -> str:
    """The sum of factor * share[place + step] over {step: factor}."""
    offsets = {((step, 0) if axis == 0 else (0, step)): weight for step, weight in moves.items()}
    return taps(g, share, offsets, (1, 1), size)


def _wins(g: Draft, x: str, window: tuple[int, int, int], axis: int, size: tuple[int, int]) -> Sequence[str]:
    """1 where the second (third) tap of a window holds its first maximum, else 0."""
    kernel, stride, pad = window

    def larger(one: int, other: int) -> str:
        offsets = [((t - pad, 0) if axis == 0 else (0, t - pad)) for t in (one, other)]
        steps = (stride, 1) if axis == 0 else (1, stride)
        return clip(g, taps(g, x, {offsets[0]: _STEEP, offsets[1]: -_STEEP}, steps, size), 0.0, 1.0)

    if kernel == 1:
        return []
    second = larger(1, 0)
    if kernel == 2:
        return [second]
    third = larger(2, 0)
    if stride == 1:  # [x_2 > x_1] is [x_1 > x_0] of the next window, but for the last one
        after = pick(g, second, (1, 0) if axis == 0 else (0, 1), (1, 1), size, 1.0, -1.0)
        last = larger(2, 1) if pad == 0 else None
        third = relu(g, total(g, third, after)) if last is None else g.emit("Mul", [third, last], g.shape(third))
    else:
        third = g.emit("Mul", [third, larger(2, 1)], g.shape(third))
    return [relu(g, total(g, second, pointwise(g, third, -1.0))), third]
