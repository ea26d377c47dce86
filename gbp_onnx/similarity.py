"""How alike two maps are: cosine, Spearman's rank correlation, SSIM and the overlap of the strongest pixels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gbp_onnx.extras import extra

__all__ = ["as_seen", "cosine", "heat", "similarities", "spearman", "ssim", "top_overlap"]

Array = NDArray[Any]


def heat(attribution: Array) -> NDArray[np.float64]:
    """The strength of a map [H, W, C] at each pixel: float64 [H, W], the sum over the channels of |a|."""
    summed: NDArray[np.float64] = np.abs(attribution, dtype=np.float64).sum(axis=2)
    return summed


def as_seen(strength: Array, percentile: float = 99.0) -> NDArray[np.float64]:
    """A strength [H, W] brought to 0..1 as the eye gets it: over its 99th percentile (its peak where that is 0),
    clipped.
    """
    top = float(np.percentile(strength, percentile)) or float(strength.max())
    scaled: NDArray[np.float64] = np.clip(np.asarray(strength, np.float64) / (top or 1.0), 0.0, 1.0)
    return scaled


def cosine(a: Array, b: Array) -> float:
    """a.b / (|a| |b|) over all values, signs counted. Two maps of zeros are alike (1), one is like nothing (0)."""
    x, y = (np.asarray(v, np.float64).reshape(-1) for v in (a, b))
    scale = math.sqrt(float(x @ x)) * math.sqrt(float(y @ y))
    return float(x @ y) / scale if scale else float(not x.any() and not y.any())


def spearman(a: Array, b: Array) -> float:
    """Spearman's rank correlation over all values, ties ranked by their mean. Constant maps: 1 if both are, else 0."""
    with extra("audit"):
        from scipy.stats import rankdata

    x, y = (np.asarray(v).reshape(-1) for v in (a, b))
    flat = [bool((v == v[0]).all()) for v in (x, y)]
    if any(flat):
        return float(all(flat))
    ranks = [rankdata(v) for v in (x, y)]
    return cosine(*(r - r.mean() for r in ranks))


def ssim(a: Array, b: Array, data_range: float = 1.0) -> float:
    """The mean structural similarity of two pictures [H, W] (Wang et al. 2004), as scikit-image computes it: windows
    of 7 x 7, smaller where the picture is.
    """
    with extra("audit"):
        from skimage.metrics import structural_similarity

    side = min(7, *a.shape)
    return float(structural_similarity(a, b, data_range=data_range, win_size=side - (side % 2 == 0)))


def top_overlap(a: Array, b: Array, share: float = 0.05) -> float:
    """Of the `share` of pixels with the largest values in `a`, the part that `b` has among its own; ties by place."""
    count = max(1, math.ceil(share * a.size))
    first, second = (np.argsort(-np.asarray(v).reshape(-1), kind="stable")[:count] for v in (a, b))
    return len(np.intersect1d(first, second)) / count


def similarities(a: Array, b: Array, share: float = 0.05) -> dict[str, float]:
    """Two maps [H, W, C] by all four: cosine of the signed values, the others of the strengths at each pixel."""
    strong, other = heat(a), heat(b)
    return {
        "cosine": cosine(a, b),
        "spearman": spearman(strong, other),
        "ssim": ssim(as_seen(strong), as_seen(other)),
        "top_overlap": top_overlap(strong, other, share),
    }
