"""What ``gbp-onnx explain`` writes, and where."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gbp_onnx.cli.options import protect
from gbp_onnx.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gbp_onnx.explanation import Explanation

__all__ = ["places", "write"]

FIGURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
OTHER_SUFFIXES = tuple(".avif .bmp .eps .gif .html .json .npy .npz .onnx .pdf .svg .tif .tiff".split())  # noqa: SIM905


def places(images: Sequence[str], out: str | None) -> list[Path]:
    """The figure's path for each image: `out` itself where it names a picture, else a file in that folder; no two the
    same.
    """
    suffix = "" if out is None or Path(out).is_dir() or out.endswith(("/", os.sep)) else Path(out).suffix.lower()
    if out is not None and suffix in (*FIGURE_SUFFIXES, *OTHER_SUFFIXES):
        if suffix in OTHER_SUFFIXES:
            known = ", ".join(FIGURE_SUFFIXES)
            raise InputError("GBP411", f"figures are not written as {suffix}", out, f"use one of {known}, or a folder")
        if len(images) > 1:
            raise InputError("GBP411", f"{len(images)} images do not fit into one file", out, "name a folder with -o")
        return [Path(out)]
    folder, taken, found = Path(out or "gbp-out"), set[str](), []
    for image in images:
        stem = Path(image).stem or "image"
        name, count = stem, 0
        while name.casefold() in taken:
            count += 1
            name = f"{stem}_{count}"
        taken.add(name.casefold())
        found.append(folder / f"{name}.png")
    return found


def write(
    found: Explanation | list[Explanation], place: Path, options: dict[str, Any], protected: Sequence[str]
) -> tuple[list[list[Path]], Path]:
    """Write what was asked for, over none of the `protected` files: each explanation's files, and last the figure."""
    from gbp_onnx.imaging.figure import stack
    from gbp_onnx.imaging.write import save_png

    style = {"style": options["style"], "percentile": options["percentile"], "colormap": options["colormap"]}
    several = found if isinstance(found, list) else [found]
    figures = [one.figure(**style) for one in several]
    planned = []
    for rank, one in enumerate(several, start=1):
        stem = place.stem if one is found else f"{place.stem}.{rank}-{_slug(one.name)}"
        planned.append(_planned(one, place.with_name(stem), options, style))
    protect(protected, [place, *(path for files in planned for path, _ in files)])
    written = [[save(path) for path, save in files] for files in planned]
    return written, save_png(figures[0] if len(figures) == 1 else stack(figures), place)


def _planned(
    one: Explanation, base: Path, options: dict[str, Any], style: dict[str, Any]
) -> list[tuple[Path, Callable[[Path], Path]]]:
    """The files of one explanation besides the figure, and what writes them."""
    from gbp_onnx.imaging.write import save_png

    files: list[tuple[Path, Callable[[Path], Path]]] = []

    def add(suffix: str, save: Callable[[Path], Path]) -> None:
        files.append((base.with_name(base.name + suffix), save))

    if options["raw"]:
        add(".npz", one.save)
        add(".json", one.save)
    photo = _photo(one.source) if options["overlay"] else None
    for rule in one.attributions:
        if options["maps"]:
            add(f".{rule}.png", partial(save_png, one.picture(rule, **style)))
        if photo is not None:
            add(f".{rule}.overlay.png", partial(save_png, one.overlay(rule, whole_photo=photo, **style)))
    return files


def _photo(path: str) -> NDArray[np.uint8]:
    import numpy as np

    from gbp_onnx.imaging.photo import read_photo

    return np.asarray(read_photo(path))


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60] or "target"
