"""Folders of images. Loads nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gbp_onnx.errors import InputError
from gbp_onnx.imaging.suffixes import IMAGE_SUFFIXES

__all__ = ["expand"]


def expand(names: Sequence[str]) -> list[str]:
    """Folders become the images in them, in order of their names. Raises GBP401 where a folder has none."""
    found: list[str] = []
    for name in names:
        path = Path(name)
        if not path.is_dir():
            found.append(name)
            continue
        inside = sorted(
            str(p) for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file() and p.name[0] != "."
        )
        if not inside:
            raise InputError(
                "GBP401", "the folder holds no images", name, f"known suffixes: {' '.join(IMAGE_SUFFIXES)}"
            )
        found += inside
    return found
