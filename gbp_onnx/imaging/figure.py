"""Pictures side by side, with titles: the figure that people know."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from gbp_onnx.errors import InputError

__all__ = ["four_panels", "stack"]

Panel = tuple[str, NDArray[np.uint8]]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

LEAST, MOST = 336, 480  # pixels: the height of a panel
MARGIN, GAP = 24, 14
INK, GREY, PAPER = "#1a1a1a", "#6b6b6b", "white"
HEADING, TITLE, SMALL = 25, 17, 13  # pixels: the sizes of the letters


def four_panels(
    panels: Sequence[Panel], heading: str, footer: str | None = None, height: int | None = None
) -> Image.Image:
    """The panels side by side over a white ground: RGB image.

    `panels`: one to ten (title, uint8 [H, W, 3] or [H, W]); by custom photograph, Deconvnet, Guided Backpropagation,
    Saliency. `heading` (class and score) stands above them, over at most two lines, `footer` small and grey below;
    titles that are too long end in an ellipsis. All panels get one height: `height` pixels, by default their own
    within 336..480. Pixels that are enlarged at least fourfold stay visible as squares, others are resampled smoothly.
    Raises GBP405 where a panel is no such picture.
    """
    if not panels:
        raise InputError("GBP405", "a figure needs at least one panel")
    pictures = [_picture(title, pixels) for title, pixels in panels]
    tall = height or min(MOST, max(LEAST, *(picture.height for picture in pictures)))
    scaled = [_scaled(picture, tall) for picture in pictures]
    width = max(480, sum(picture.width for picture in scaled) + GAP * (len(scaled) - 1) + 2 * MARGIN)
    lines = _wrapped(heading, _font(HEADING), width - 2 * MARGIN, 2) if heading else []
    notes = _wrapped(footer, _font(SMALL), width - 2 * MARGIN, 3) if footer else []
    top = MARGIN + len(lines) * (HEADING + 8) + (8 if lines else 0)
    below = top + TITLE + 12 + tall
    total = below + (12 + len(notes) * (SMALL + 6) if notes else 0) + MARGIN
    canvas = Image.new("RGB", (width, total), PAPER)
    draw = ImageDraw.Draw(canvas)
    for row, line in enumerate(lines):
        draw.text((width / 2, MARGIN + row * (HEADING + 8)), line, INK, _font(HEADING), anchor="mt")
    left = (width - sum(picture.width for picture in scaled) - GAP * (len(scaled) - 1)) // 2
    for (title, _), picture in zip(panels, scaled, strict=True):
        text = _ellipsised(title, _font(TITLE), picture.width)
        draw.text((left + picture.width / 2, top + TITLE), text, INK, _font(TITLE), anchor="ms")
        canvas.paste(picture, (left, top + TITLE + 12))
        left += picture.width + GAP
    for row, line in enumerate(notes):
        draw.text((width / 2, below + 12 + row * (SMALL + 6) + SMALL), line, GREY, _font(SMALL), anchor="ms")
    return canvas


def stack(figures: Sequence[Image.Image]) -> Image.Image:
    """Figures one below the other, centred on white: for instance one for each of the five best classes."""
    if not figures:
        raise InputError("GBP405", "a stack needs at least one figure")
    width = max(figure.width for figure in figures)
    canvas = Image.new("RGB", (width, sum(figure.height for figure in figures)), PAPER)
    top = 0
    for figure in figures:
        canvas.paste(figure, ((width - figure.width) // 2, top))
        top += figure.height
    return canvas


def _picture(title: str, pixels: NDArray[Any]) -> Image.Image:
    shape = "x".join(str(n) for n in pixels.shape)
    if pixels.dtype != np.uint8 or pixels.size == 0 or not (pixels.ndim == 2 or pixels.shape[2:] in ((3,), (1,))):
        what = f"the panel {title!r} is {pixels.dtype} [{shape}], wanted is uint8 [H, W, 3]"
        raise InputError("GBP405", what, fix="draw attributions with render()")
    flat = pixels[:, :, 0] if pixels.shape[2:] == (1,) else pixels
    return Image.fromarray(np.ascontiguousarray(flat)).convert("RGB")


def _scaled(picture: Image.Image, tall: int) -> Image.Image:
    wide = max(1, min(4 * tall, round(picture.width * tall / picture.height)))
    if (wide, tall) == picture.size:
        return picture
    smooth = tall < 4 * picture.height
    return picture.resize((wide, tall), Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST)


@lru_cache(maxsize=8)
def _font(size: int) -> Font:
    return ImageFont.load_default(size)


def _fits(text: str, font: Font, width: float) -> bool:
    return font.getlength(text) <= width


@lru_cache(maxsize=64)
def _ellipsised(text: str, font: Font, width: float) -> str:
    """`text`, or as much of its beginning as fits with an ellipsis."""
    text = " ".join(text.split())
    if _fits(text, font, width):
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if _fits(text[:middle].rstrip() + "…", font, width):
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip() + "…"


def _wrapped(text: str, font: Font, width: float, most: int) -> list[str]:
    """`text` broken at spaces into at most `most` lines; the last one ends in an ellipsis where that is not enough."""
    words = text.split()
    lines: list[str] = []
    while words and len(lines) < most - 1:
        count = 1
        while count < len(words) and _fits(" ".join(words[: count + 1]), font, width):
            count += 1
        lines.append(_ellipsised(" ".join(words[:count]), font, width))
        words = words[count:]
    return lines + ([_ellipsised(" ".join(words), font, width)] if words else [])
