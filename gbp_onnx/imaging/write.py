"""Pictures and arrays, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gbp_onnx.errors import InputError
from gbp_onnx.files import write_whole

__all__ = ["save_npz", "save_png"]

FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {"compress_level": 4}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"quality": 95}),
}


def save_png(image: Image.Image | NDArray[np.uint8], path: str | os.PathLike[str]) -> Path:
    """Write a picture (PIL image, or uint8 [H, W, 3] or [H, W]) and return its path.

    The suffix says the format: .png (also without a suffix), .jpg, .jpeg, .webp. Raises GBP411 for other suffixes,
    for a picture that the format cannot hold, and where the place cannot be written.
    """
    target = Path(path)
    suffix = target.suffix.lower() or ".png"
    if suffix not in FORMATS:
        known = ", ".join(FORMATS)
        raise InputError("GBP411", f"pictures are not written as {suffix}", str(target), f"use one of: {known}")
    name, options = FORMATS[suffix]
    picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    with write_whole(target) as temporary:
        try:
            picture.save(temporary, format=name, **options)
        except (ValueError, KeyError) as error:  # Pillow: too large for the format, a mode that it lacks
            raise InputError("GBP411", f"{name} cannot hold this picture ({error})", str(target), "use .png") from error
    return target


def save_npz(path: str | os.PathLike[str], arrays: Mapping[str, NDArray[Any]]) -> Path:
    """Write named arrays as an uncompressed .npz (numpy.load reads it) under exactly this path, and return it.

    The same arrays give the same bytes. Raises GBP411 where the place cannot be written.
    """
    target = Path(path)
    with write_whole(target) as temporary, temporary.open("wb") as handle:
        np.savez(handle, **dict[str, Any](arrays))
    return target
