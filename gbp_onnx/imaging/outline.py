"""The outline of what is explained, drawn on what the model saw: a mask's border, or a box."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["Outline", "draw_outline"]

INNER, OUTER = (255, 235, 59), (20, 20, 20)  # yellow between dark lines: seen on any ground


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """`mask`: bool [H, W] in the frame of what the model saw; `box`: left, top, right, bottom in its pixels."""

    mask: NDArray[np.bool_] | None = None
    box: tuple[float, float, float, float] | None = None


def draw_outline(image: NDArray[np.uint8], outline: Outline) -> NDArray[np.uint8]:
    """A copy of `image` (uint8 [H, W, 3]) with the outline over it; lines get wider with the picture."""
    width = max(1, round(min(image.shape[:2]) / 110))
    drawn = image.copy()
    if outline.mask is not None and outline.mask.any():
        inside = _shrunk(outline.mask, width)
        drawn[_grown(outline.mask, width) & ~outline.mask] = OUTER
        drawn[outline.mask & ~inside] = INNER
    if outline.box is not None:
        from PIL import ImageDraw  # it brings letters along, which take a while and some memory to load

        picture = Image.fromarray(drawn)
        pen = ImageDraw.Draw(picture)
        height, across = image.shape[:2]
        left, right = (min(max(round(x), 0), across - 1) for x in outline.box[::2])
        top, bottom = (min(max(round(y), 0), height - 1) for y in outline.box[1::2])
        ends = [min(left, right), min(top, bottom), max(left, right), max(top, bottom)]
        pen.rectangle([ends[0] - width, ends[1] - width, ends[2] + width, ends[3] + width], None, OUTER, 3 * width)
        pen.rectangle(ends, None, INNER, width)
        drawn = np.array(picture)
    return drawn


def _grown(mask: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    """The mask and everything within `by` pixels of it (along rows and columns)."""
    found = mask
    for _ in range(by):
        padded = np.pad(found, 1)
        found = found | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    return found


def _shrunk(mask: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    """The mask without what lies within `by` pixels of the outside; the picture's border is no outside."""
    return ~_grown(~mask, by)
