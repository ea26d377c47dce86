"""Masks of rectifiers as sums and products, which fuse into convolutions; a select would leave the blocked layout.

    additive:  Relu(ct + Z)      Z = 0 where the gate is open, at most -2^60 where it is shut
    factor:    ct * M            M = 1 or 0, for a rule that does not clamp

Exact for float32 with |ct| < 2^60 and for outputs y that are 0 or above 2^-66 (2^-40 beneath a cap: below, y may count
as 0); an infinite or NaN ct comes through a shut gate, which `Explainer` notices and answers in the portable form.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from gbp_onnx.lowering.blocked import clip, pick, pointwise
from gbp_onnx.lowering.draft import Draft

__all__ = ["SHUT", "Gated", "additive", "can_fold", "factor"]

SHUT = 2.0**60
_STEEP = 2.0**127
_FOLD = 2.0**-40


@dataclass(frozen=True, slots=True)
class Gated:
    """The output y of a rectifier with a cap or none; of y, the places `strides` r + `at` for every r of `size`."""

    y: str
    cap: float | None = None
    at: tuple[int, int] = (0, 0)
    strides: tuple[int, int] = (1, 1)
    size: tuple[int, int] | None = None

    def line(self, g: Draft, slope: float, bias: float) -> str:
        """slope * y + bias, at these places."""
        _, *whole = g.space(self.y) or (0, 0, 0)
        return pick(g, self.y, self.at, self.strides, self.size or (whole[0], whole[1]), slope, bias)


def can_fold(cap: float | None) -> bool:
    """Whether a cap is large enough for what `_folded` takes away to leave it as it is."""
    return cap is None or np.float32(cap) - np.float32(_FOLD) == np.float32(cap)


def additive(g: Draft, gated: Gated) -> str:
    """Z(y): Clip(2^127 y - 2^60, -2^60, 0), one fused node; two beneath a cap."""
    if gated.cap is None:
        return clip(g, gated.line(g, _STEEP, -SHUT), -SHUT, 0.0)
    below, step = _below(gated.cap)
    slope = SHUT / step
    return clip(g, _folded(g, gated, gated.cap).line(g, -slope, below * slope), -SHUT, 0.0)


def factor(g: Draft, gated: Gated) -> str:
    """M(y): Clip(2^127 y, 0, 1), one fused node; two beneath a cap."""
    if gated.cap is None:
        return clip(g, gated.line(g, _STEEP, 0.0), 0.0, 1.0)
    below, step = _below(gated.cap)
    return clip(g, _folded(g, gated, gated.cap).line(g, -1 / step, below / step + 1), 0.0, 1.0)


def _folded(g: Draft, gated: Gated, cap: float) -> Gated:
    """A value that is `cap` where y = 0 and where y = cap, and less in between; of all of y, for all its places."""
    bent = pointwise(g, gated.y, 1.0, -_FOLD)
    return replace(gated, y=g.emit("LeakyRelu", [bent], g.shape(bent), alpha=-cap / _FOLD))


def _below(cap: float) -> tuple[float, float]:
    """The largest float32 below cap, and the step between them (a power of two)."""
    below = float(np.nextafter(np.float32(cap), np.float32(0)))
    return below, 2.0 ** round(math.log2(float(np.float32(cap)) - below))
