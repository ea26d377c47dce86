"""How much of a map lies in a place."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["border", "corners", "energy_inside", "fraction_box", "pointing_game"]

Mask = NDArray[np.bool_]


def energy_inside(strength: NDArray[Any], inside: Mask) -> float:
    """The share of a strength [H, W] (not negative) inside a mask; 0 for a map of zeros."""
    total = float(strength.sum(dtype=np.float64))
    return float(strength[inside].sum(dtype=np.float64)) / total if total else 0.0


def pointing_game(strength: NDArray[Any], inside: Mask, tolerance: int = 0) -> bool:
    """Whether the strongest pixel (any of them, where several are) lies in the mask, or at most `tolerance` pixels
    beside it. A map of zeros points nowhere.
    """
    peak = strength.max()
    if not peak > 0:
        return False
    places = np.argwhere(strength == peak)
    if tolerance == 0:
        return bool(inside[tuple(places.T)].any())
    there = np.argwhere(inside)
    if not len(there):
        return False
    squared = min(int(((there - place) ** 2).sum(axis=1).min()) for place in places)
    return squared <= tolerance**2


def border(size: tuple[int, int], width: float) -> Mask:
    """The border of a frame, `width` of its shorter side wide and at least one pixel."""
    wide = max(1, round(width * min(size)))
    mask = np.ones(size, bool)
    mask[wide:-wide, wide:-wide] = False
    return mask


def corners(size: tuple[int, int], side: float) -> Mask:
    """The four corners of a frame, each `side` of its height high and of its width wide."""
    high, wide = (max(1, round(side * length)) for length in size)
    mask = np.zeros(size, bool)
    for rows in (slice(0, high), slice(-high, None)):
        for columns in (slice(0, wide), slice(-wide, None)):
            mask[rows, columns] = True
    return mask


def fraction_box(size: tuple[int, int], box: tuple[float, ...]) -> Mask:
    """(left, top, right, bottom) in fractions, as a mask of a photograph of this (height, width)."""
    left, top, right, bottom = box
    mask = np.zeros(size, bool)
    rows = slice(math.floor(top * size[0]), math.ceil(bottom * size[0]))
    mask[rows, math.floor(left * size[1]) : math.ceil(right * size[1])] = True
    return mask
