"""Insertion and deletion: pictures between two ends, in the order of a map, and the area under what a model says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gbp_onnx.extras import extra

__all__ = ["area", "blurred", "edges", "ranked", "stages"]


def area(curve: Sequence[float]) -> float:
    """The area under equally spaced points, by trapezia, over 0..1 (Petsiuk et al. 2018)."""
    return float((sum(curve) - (curve[0] + curve[-1]) / 2) / (len(curve) - 1))


def ranked(strength: NDArray[Any]) -> NDArray[np.intp]:
    """The pixels of [H, W], flat, strongest first; ties by place."""
    return np.argsort(-strength.reshape(-1), kind="stable")


def stages(
    start: NDArray[Any], end: NDArray[Any], order: NDArray[np.intp], steps: int, channels_first: bool
) -> NDArray[Any]:
    """Inputs [steps + 1, ...] on the way from `start` to `end`, whose pixels are exchanged in this order."""
    count = len(order)
    begin, finish = (_planar(v, channels_first) for v in (start, end))
    batch = np.repeat(begin[None], steps + 1, axis=0)
    for step in range(1, steps + 1):
        changed = order[: count * step // steps]
        batch[step][:, changed] = finish[:, changed]
    shape = start.shape if channels_first else (start.shape[2], *start.shape[:2])
    whole = batch.reshape(steps + 1, *shape)
    return whole if channels_first else np.ascontiguousarray(np.moveaxis(whole, 1, -1))


def _planar(x: NDArray[Any], channels_first: bool) -> NDArray[Any]:
    """[C, H * W]."""
    planes = x if channels_first else np.moveaxis(x, -1, 0)
    return np.ascontiguousarray(planes).reshape(planes.shape[0], -1)


def blurred(x: NDArray[Any], sigma: float, channels_first: bool) -> NDArray[Any]:
    """An input under a Gaussian blur, channel by channel, in its own type."""
    with extra("audit"):
        from scipy.ndimage import gaussian_filter

    sigmas = (0.0, sigma, sigma) if channels_first else (sigma, sigma, 0.0)
    soft: NDArray[Any] = gaussian_filter(x.astype(np.float32), sigmas)
    return (np.rint(soft) if x.dtype.kind in "iu" else soft).astype(x.dtype)


def edges(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The edges of a picture [H, W, 3]: the magnitude of Sobel's filters on its mean over the channels."""
    with extra("audit"):
        from skimage.filters import sobel

    found: NDArray[np.float64] = sobel(image.astype(np.float64).mean(axis=2))  # type: ignore[no-untyped-call]
    return found
