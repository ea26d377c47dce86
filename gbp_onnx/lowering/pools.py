"""The derivative of MaxPool without Indices, which keeps the pool in the blocked layout: first maxima by comparison.

A window's first maximum in row-major order lies in the first of its rows that holds the maximum, at the first place
in that row. So the cotangent goes from the pool's output to the maxima of rows, and from these to the input; each time
tap after tap takes it where its value is the maximum, and leaves the rest to the next:

    m_i = [x_i = p] = Relu(1 - 2^90 (p - x_i))      exact: equal numbers differ by 0, others by 2^-90 or more
                                                    (scaled after the difference, which large numbers survive)
    g_i = rest * m_i;  rest = rest - g_i            the last tap takes what is left

Where the input cannot be negative, zeros may stand for the padding: they equal a maximum only where that is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from gbp_onnx.lowering.blocked import clip, fits, pick, pointwise, relu, sized, total
from gbp_onnx.lowering.draft import Draft
from gbp_onnx.lowering.masks import SHUT, Gated, factor
from gbp_onnx.lowering.patterns import Pool

__all__ = ["Zero", "pool_phases"]

_STEEP = 2.0**90


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
    """Windows along one axis. `value(i)`: what tap i sees, negative, shaped as the maxima; `inside(i)`: 0, and 2^60
    where that tap lies in the padding at the begin, or None where none does.
    """

    kernel: int
    stride: int
    begin: int
    value: Callable[[int], str]
    inside: Callable[[int], str | None]


def pool_phases(g: Draft, pool: Pool, zero: Zero) -> dict[tuple[int, int], str] | None:
    """The cotangent of a pool's input in phases of its strides; None where the sizes do not fit."""
    size, small = g.space(pool.y), g.space(pool.p)
    if size is None or small is None or not fits(g, pool.y):
        return None
    (kh, kw), (sh, sw), (ph, pw) = pool.kernel, pool.strides, pool.begins
    (channels, height, width), (oh, ow) = size, small[1:]
    end = (ow - 1) * sw + kw - width - pw
    if pw >= kw or ph >= kh or end >= kw or (end < 0 and (width + pw - kw) // sw + 1 != ow):
        return None
    ct = pool.ct
    if zero is Zero.DROP:
        ct = g.emit("Mul", [ct, factor(g, Gated(pool.p))], g.shape(pool.p))
    zero = Zero.ANYWHERE if zero is Zero.DROP else zero
    rows = g.emit(
        "MaxPool",
        [pool.y],
        sized(g, pool.y, channels, height, ow),
        kernel_shape=[1, kw],
        strides=[1, sw],
        pads=[0, pw, 0, max(end, 0)],
    )
    ones = clip(g, pointwise(g, pool.y, 1.0, 1.0), 1.0, 1.0) if zero is Zero.FIRST and (ph or pw) else ""
    high = -(-height // sh), -(-width // sw)

    def padding(source: str, offset: tuple[int, int], strides: tuple[int, int], shape: tuple[int, int]) -> str:
        # Clipped, so that no sum joins this convolution: the runtime would add its bias last, and round.
        return clip(g, pick(g, source, offset, strides, shape, -SHUT, SHUT), 0.0, SHUT)

    upright = _Line(
        kh,
        sh,
        ph,
        lambda i: pick(g, rows, (i - ph, 0), (sh, 1), (oh, ow), -1.0),
        lambda i: padding(ones, (i - ph, 0), (sh, sw), (oh, ow)) if ones and i < ph else None,
    )
    found: dict[tuple[int, int], str] = {}
    parts = _shares(g, ct, pool.p, upright)
    for a in range(sh):
        below = _phase(g, parts, upright, a, (high[0], ow), upright=True)
        level = _level(g, pool, rows, a, high[0], ow, padding if ones else None, ones)
        maxima = pick(g, rows, (a, 0), (sh, 1), (high[0], ow))
        across = _shares(g, below, maxima, level)
        for b in range(sw):
            found[a, b] = _phase(g, across, level, b, high, upright=False)
    return found


def _level(
    g: Draft,
    pool: Pool,
    rows: str,
    a: int,
    high: int,
    ow: int,
    padding: Callable[[str, tuple[int, int], tuple[int, int], tuple[int, int]], str] | None,
    ones: str,
) -> _Line:
    """The windows along the rows of phase a."""
    kw, (sh, sw), pw = pool.kernel[1], pool.strides, pool.begins[1]
    return _Line(
        kw,
        sw,
        pw,
        lambda j: pick(g, pool.y, (a, j - pw), (sh, sw), (high, ow), -1.0),
        lambda j: padding(ones, (a, j - pw), (sh, sw), (high, ow)) if padding is not None and j < pw else None,
    )


def _shares(g: Draft, ct: str, maxima: str, line: _Line) -> list[str]:
    """What each tap takes of ct."""
    shares, rest = [], ct
    for i in range(line.kernel - 1):
        padded = line.inside(i)
        above = maxima if padded is None else total(g, maxima, padded)
        equal = relu(g, pointwise(g, total(g, above, line.value(i)), -_STEEP, 1.0))
        shares.append(g.emit("Mul", [rest, equal], g.shape(rest)))
        rest = total(g, rest, pointwise(g, shares[-1], -1.0))
    return [*shares, rest]


def _phase(g: Draft, shares: Sequence[str], line: _Line, phase: int, size: tuple[int, int], upright: bool) -> str:
    """The sum of what the taps bring to one phase of an axis, each moved to where it lies."""
    moved = []
    for i, share in enumerate(shares):
        step, other = divmod(phase - i + line.begin, line.stride)
        if other == 0:
            moved.append(pick(g, share, (step, 0) if upright else (0, step), (1, 1), size))
    if not moved:
        return pointwise(g, pick(g, shares[0], (0, 0), (1, 1), size), 0.0)
    moved.sort(key=lambda name: name not in shares)  # a tap that stays in place needs no node, and begins the sum
    return total(g, *moved)
