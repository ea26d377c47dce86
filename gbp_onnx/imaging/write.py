"""Pictures and arrays as files, written whole or not at all."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gbp_onnx.errors import InputError
from gbp_onnx.files import write_bytes
from gbp_onnx.imaging.png import png

__all__ = ["npz_bytes", "picture_bytes", "save_npz", "save_png"]

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
    return write_bytes(path, picture_bytes(image, path))


def picture_bytes(image: Image.Image | NDArray[np.uint8], name: str | os.PathLike[str]) -> bytes:
    """The content of the file that `save_png` would write under this name. Raises GBP411 but for the place."""
    target = Path(name)
    suffix = target.suffix.lower() or ".png"
    if suffix not in FORMATS:
        known = ", ".join(FORMATS)
        raise InputError("GBP411", f"pictures are not written as {suffix}", str(target), f"use one of: {known}")
    kind, options = FORMATS[suffix]
    pixels = image if isinstance(image, np.ndarray) else np.asarray(image) if image.mode in ("RGB", "L") else None
    memory = io.BytesIO()
    try:
        if kind == "PNG" and pixels is not None and pixels.shape[2:] in ((), (3,)):
            return png(pixels)
        picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
        picture.save(memory, format=kind, **options)
    except (OSError, ValueError, KeyError) as error:  # Pillow: too large for the format, a mode that it lacks
        raise InputError("GBP411", f"{kind} cannot hold this picture ({error})", str(target), "use .png") from error
    return memory.getvalue()


def save_npz(path: str | os.PathLike[str], arrays: Mapping[str, NDArray[Any]]) -> Path:
    """Write named arrays as an uncompressed .npz (numpy.load reads it) under exactly this path, and return it.

    The same arrays give the same bytes. Raises GBP411 where the place cannot be written.
    """
    return write_bytes(path, npz_bytes(arrays))


def npz_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The content of the file that `save_npz` would write."""
    memory = io.BytesIO()
    np.savez(memory, **dict[str, Any](arrays))
    return memory.getvalue()
