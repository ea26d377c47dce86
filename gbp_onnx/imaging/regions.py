"""Places in a photograph: boxes, polygons and masks, and where they lie in what the model saw."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gbp_onnx.imaging.photo import read_photo
from gbp_onnx.imaging.preprocess import Frame

__all__ = ["in_frame", "jpeg", "polygon_mask", "read_mask", "thumbnail"]

Mask = NDArray[np.bool_]
Size = tuple[int, int]


def in_frame(mask: Mask, frame: Frame) -> Mask:
    """A mask [photo height, photo width] in the frame: bool [H, W], each pixel as the photograph's under its centre."""
    lines = []
    for axis in (0, 1):
        centres = np.arange(frame.image.shape[axis]) + 0.5 + frame.offset[axis]
        lines.append(np.floor(centres * frame.photo_size[axis] / frame.scaled[axis]).astype(np.intp))
    inside = [(line >= 0) & (line < size) for line, size in zip(lines, frame.photo_size, strict=True)]
    rows, columns = (np.clip(line, 0, size - 1) for line, size in zip(lines, frame.photo_size, strict=True))
    seen: Mask = mask[rows[:, None], columns[None, :]] & inside[0][:, None] & inside[1][None, :]
    return seen


def polygon_mask(size: Size, polygons: Sequence[Sequence[float]]) -> Mask:
    """The inside of polygons (x, y, x, y, ... in pixels) in a photograph of this (height, width)."""
    from PIL import ImageDraw  # it brings letters along, which take a while and some memory to load

    canvas = Image.new("1", (size[1], size[0]))
    draw = ImageDraw.Draw(canvas)
    for polygon in polygons:
        draw.polygon([tuple(pair) for pair in np.reshape(np.asarray(polygon, float), (-1, 2)).tolist()], fill=1)
    return np.asarray(canvas, bool)


def read_mask(path: str | os.PathLike[str], size: Size) -> Mask:
    """A picture as a mask (brighter than mid grey is inside), brought to this (height, width) by the nearest pixel.

    Raises GBP401 to GBP404 as `read_photo`.
    """
    picture = read_photo(path).convert("L")
    if (picture.height, picture.width) != size:
        picture = picture.resize((size[1], size[0]), Image.Resampling.NEAREST)
    return np.asarray(picture) > 127


def jpeg(photo: Image.Image, quality: int) -> Image.Image:
    """A photograph as it comes back from a JPEG file of this quality."""
    memory = io.BytesIO()
    photo.save(memory, "JPEG", quality=quality)
    return Image.open(io.BytesIO(memory.getvalue())).convert("RGB")


def thumbnail(pixels: NDArray[np.uint8], side: int) -> bytes:
    """A picture uint8 [H, W, 3] as the bytes of a small JPEG, no side longer than `side`."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((side, side), Image.Resampling.BILINEAR, reducing_gap=1.0)
    memory = io.BytesIO()
    picture.save(memory, "JPEG", quality=82)
    return memory.getvalue()
