"""The derivative of MaxPool without Indices, which keeps the pool in the blocked layout: first maxima by comparison.

A window's first maximum in row-major order lies in the first of its rows that holds the maximum, at the first place
in that row. So the cotangent goes from the pool's output to the maxima of rows, and from these to the input; each time
tap after tap takes it where its value is the maximum, and leaves the rest to the next:

    m_i = [x_i = p] = Relu(1 - 2^90 (p - x_i))      exact: equal numbers differ by 0, others by 2^-90 or more
                                                    (scaled after the difference, which large numbers survive)
    g_i = rest * m_i;  rest = rest - g_i            the last tap takes what is left

The m_i depend on no cotangent: rules and targets share them. Where the input cannot be negative, zeros may stand for
the padding: they equal a maximum only where that is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from gbp_onnx.lowering.blocked import clip, fits, pick, pointwise, relu, sized, total
from gbp_onnx.lowering.draft import Draft
from gbp_onnx.lowering.masks import Gated, factor
from gbp_onnx.lowering.patterns import Pool

__all__ = ["Zero", "pool_phases"]

_STEEP = 2.0**90
_LEAST = 2.0**-88


class Zero(Enum):
    """What becomes of the cotangent of windows whose maximum is 0.

    DROP: nothing of it is passed on (a mask [y > 0] follows, and is left out). ANYWHERE: it lands on zeros of the
    input, or is lost (a mask [y > 0] follows). FIRST: it goes to the first maximum, as everywhere.
    """

    DROP = "drop"
    ANYWHERE = "anywhere"
    FIRST = "first"


@dataclass(frozen=True, slots=True)
class _Line:
    """Windows along one axis. `value(i)`: what tap i sees, times -1, shaped as the maxima; `axis`: 0 or 1."""

    kernel: int
    stride: int
    begin: int
    axis: int
    value: Callable[[int], str]


def pool_phases(g: Draft, pool: Pool, zero: Zero, begin: str | None = None) -> dict[tuple[int, int], str] | None:
    """The cotangent of a pool's input in phases of its strides; None where the sizes do not fit.

    `begin`: a tensor that the sum may begin with, where there is one phase.
    """
    size, small = g.space(pool.y), g.space(pool.p)
    if size is None or small is None or not fits(g, pool.y):
        return None
    (kh, kw), (sh, sw), (ph, pw) = pool.kernel, pool.strides, pool.begins
    (channels, height, width), (oh, ow) = size, small[1:]
    end = (ow - 1) * sw + kw - width - pw
    if pw >= kw or ph >= kh or end >= kw or (end < 0 and (width + pw - kw) // sw + 1 != ow):
        return None
    ct, y, maxima = pool.ct, pool.y, pool.p
    if zero is Zero.DROP:
        ct = g.emit("Mul", [ct, factor(g, Gated(maxima))], g.shape(maxima))
    elif zero is Zero.FIRST and (ph or pw):  # every value above the zeros of the padding
        y, maxima = (clip(g, pointwise(g, t, 1.0), _LEAST, float(np.finfo(np.float32).max)) for t in (y, maxima))
    pads = [0, pw, 0, max(end, 0)]
    shape = sized(g, y, channels, height, ow)
    rows = g.emit("MaxPool", [y], shape, kernel_shape=[1, kw], strides=[1, sw], pads=pads)
    upright = _Line(kh, sh, ph, 0, lambda i: pick(g, rows, (i - ph, 0), (sh, 1), (oh, ow), -1.0))
    shares = _shares(g, ct, maxima, upright)
    high = -(-height // sh), -(-width // sw)
    found: dict[tuple[int, int], str] = {}
    for a in range(sh):
        below = _phase(g, shares, upright, a, (high[0], ow))
        level = _level(g, pool, y, a, (high[0], ow))
        across = _shares(g, below, pick(g, rows, (a, 0), (sh, 1), (high[0], ow)), level)
        for b in range(sw):
            found[a, b] = _phase(g, across, level, b, high, begin if sh == sw == 1 else None)
    return found


def _level(g: Draft, pool: Pool, y: str, a: int, size: tuple[int, int]) -> _Line:
    """The windows along the rows a, a + stride, ..."""
    kw, strides, pw = pool.kernel[1], pool.strides, pool.begins[1]
    return _Line(kw, strides[1], pw, 1, lambda j: pick(g, y, (a, j - pw), strides, size, -1.0))


def _shares(g: Draft, ct: str, maxima: str, line: _Line) -> list[str]:
    """What each tap takes of ct."""
    shares, rest = [], ct
    for i in range(line.kernel - 1):
        equal = relu(g, pointwise(g, total(g, maxima, line.value(i)), -_STEEP, 1.0))
        shares.append(g.emit("Mul", [rest, equal], g.shape(rest)))
        rest = total(g, rest, pointwise(g, shares[-1], -1.0))
    return [*shares, rest]


def _phase(
    g: Draft, shares: Sequence[str], line: _Line, phase: int, size: tuple[int, int], begin: str | None = None
) -> str:
    """The sum of what the taps bring to one phase of an axis, each moved to where it lies."""
    moved = [] if begin is None else [begin]
    for i, share in enumerate(shares):
        step, other = divmod(phase - i + line.begin, line.stride)
        if other == 0:
            moved.append(pick(g, share, (step, 0) if line.axis == 0 else (0, step), (1, 1), size))
    if not moved:
        return pointwise(g, pick(g, shares[0], (0, 0), (1, 1), size), 0.0)
    moved.sort(key=lambda name: name != begin and name not in shares)  # what stays in place is no node: it comes first
    return total(g, *moved)
