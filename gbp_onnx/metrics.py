"""How alike two attribution maps are. Each metric says on which array it is computed, and who proposed it.

The maps are float [H, W, C] of one shape. A metric of a map that is constant, zero everywhere, not finite or too small
may have no value: it is None then, never NaN. SciPy and scikit-image do the work: ``pip install 'gbp-onnx[compare]'``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gbp_onnx.errors import InputError

__all__ = ["METRICS", "Metric", "check_packages", "cosine", "measure", "spearman", "ssim", "strength", "top_overlap"]

Array = NDArray[np.float64]
_SIGMA, _WINDOW = 1.5, 11  # the Gaussian window of Wang et al. 2004


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric, 1 where two maps are the same. `on`: the array that it is computed on; `source`: where it is from."""

    name: str
    title: str
    on: str
    source: str
    value: Callable[[NDArray[Any], NDArray[Any]], float | None]


def measure(a: NDArray[Any], b: NDArray[Any]) -> dict[str, float | None]:
    """Every metric of two maps by name; None where it has no value. Raises GBP405 (shapes), GBP412 (packages)."""
    if a.shape != b.shape or a.ndim != 3:
        raise InputError("GBP405", f"maps of shapes {list(a.shape)} and {list(b.shape)} cannot be compared", "metrics")
    return {name: metric.value(a, b) for name, metric in METRICS.items()}


def check_packages() -> None:
    """Raise GBP412 where SciPy or scikit-image is missing, before any work is done in vain."""
    for module in ("scipy.stats", "skimage.metrics"):
        _package(module)


def strength(attribution: NDArray[Any]) -> Array:
    """|map| summed over channels: float64 [H, W]."""
    total: Array = np.abs(np.asarray(attribution, np.float64)).sum(axis=2)
    return total


def cosine(a: NDArray[Any], b: NDArray[Any]) -> float | None:
    """a . b / (|a| |b|), with signs; None where a map is zero everywhere."""
    x, y = (np.asarray(v, np.float64).ravel() for v in (a, b))
    if not _finite(x, y) or not (x.any() and y.any()):
        return None
    x, y = x / np.abs(x).max(), y / np.abs(y).max()  # squares of tiny values would vanish
    return float(np.clip((x @ y) / np.sqrt((x @ x) * (y @ y)), -1, 1))


def spearman(a: NDArray[Any], b: NDArray[Any]) -> float | None:
    """The correlation of the ranks of the pixels' strengths; None where a map is equally strong everywhere."""
    x, y = strength(a).ravel(), strength(b).ravel()
    if not _finite(x, y) or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(_package("scipy.stats").spearmanr(x, y).statistic)


def ssim(a: NDArray[Any], b: NDArray[Any]) -> float | None:
    """Structural similarity of the strengths, each divided by its maximum; None below 11 x 11 pixels and for zeros."""
    x, y = strength(a), strength(b)
    if not _finite(x, y) or min(x.shape) < _WINDOW or not (x.any() and y.any()):
        return None
    compare = _package("skimage.metrics").structural_similarity
    scaled = (x / x.max(), y / y.max())
    return float(compare(*scaled, data_range=1, gaussian_weights=True, sigma=_SIGMA, use_sample_covariance=False))


def top_overlap(a: NDArray[Any], b: NDArray[Any], share: float = 0.01) -> float | None:
    """The part of the strongest 1 % of pixels that both maps have in common; None where a map is zero everywhere.

    A map with fewer pixels that are not zero brings those, and is compared with as many of the other. Of equally strong
    pixels the first in row-major order counts.
    """
    x, y = strength(a).ravel(), strength(b).ravel()
    if not _finite(x, y):
        return None
    count = min(max(1, round(share * x.size)), int(np.count_nonzero(x)), int(np.count_nonzero(y)))
    if count == 0:
        return None
    tops = [set(np.argsort(-v, kind="stable")[:count].tolist()) for v in (x, y)]
    return len(tops[0] & tops[1]) / count


def _finite(x: Array, y: Array) -> bool:
    return x.size > 0 and bool(np.isfinite(x).all() and np.isfinite(y).all())


def _package(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        name = {"scipy": "SciPy", "skimage": "scikit-image"}[module.split(".")[0]]
        what = f"comparing maps needs {name}, which is not installed ({error})"
        raise InputError("GBP412", what, fix="pip install 'gbp-onnx[compare]'") from error


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("cosine", "cosine", "the signed map", "the angle between two gradients", cosine),
        Metric("spearman", "Spearman", "|map| summed over channels", "Spearman 1904; Adebayo et al. 2018", spearman),
        Metric("ssim", "SSIM", "|map| summed over channels, divided by its maximum", "Wang et al. 2004", ssim),
        Metric("top_overlap", "top 1 %", "|map| summed over channels", "Ghorbani et al. 2019 (top-k)", top_overlap),
    )
}
