"""What ``gbp-onnx explain`` writes, and where."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gbp_onnx.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gbp_onnx.explanation import Explanation

__all__ = ["Drawn", "File", "draw", "places"]

File = tuple[Path, bytes]
"""Where, and what."""

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


@dataclass(frozen=True, slots=True)
class Drawn:
    """What is to be written of one image: (path, content) of each explanation's files, and of the figure."""

    parts: list[list[File]]
    figure: File

    @property
    def files(self) -> Iterator[File]:
        """All of them in order, the figure last."""
        yield from (file for files in self.parts for file in files)
        yield self.figure


def draw(
    found: Explanation | list[Explanation],
    place: Path,
    options: dict[str, Any],
    check: Callable[[Iterable[Path]], None],
) -> Drawn:
    """Draw and encode what was asked for; nothing is written. `check` raises where a path must not be written to."""
    from gbp_onnx.imaging.figure import stack
    from gbp_onnx.imaging.write import picture_bytes

    style = {"style": options["style"], "percentile": options["percentile"], "colormap": options["colormap"]}
    several = found if isinstance(found, list) else [found]
    figures = [one.figure(**style) for one in several]
    planned = []
    for rank, one in enumerate(several, start=1):
        stem = place.stem if one is found else f"{place.stem}.{rank}-{_slug(one.name)}"
        planned.append(_planned(one, place.with_name(stem), options, style))
    check([place, *(path for files in planned for path, _ in files)])
    parts = [[(path, content(path)) for path, content in files] for files in planned]
    return Drawn(parts, (place, picture_bytes(figures[0] if len(figures) == 1 else stack(figures), place)))


def _planned(
    one: Explanation, base: Path, options: dict[str, Any], style: dict[str, Any]
) -> list[tuple[Path, Callable[[Path], bytes]]]:
    """The files of one explanation besides the figure, and what makes their content."""
    from gbp_onnx.imaging.write import picture_bytes

    files: list[tuple[Path, Callable[[Path], bytes]]] = []

    def add(suffix: str, content: Callable[[Path], bytes]) -> None:
        files.append((base.with_name(base.name + suffix), content))

    if options["raw"]:
        add(".npz", one.content)
        add(".json", one.content)
    photo = _photo(one.source) if options["overlay"] else None
    for rule in one.attributions:
        if options["maps"]:
            add(f".{rule}.png", partial(picture_bytes, one.picture(rule, **style)))
        if photo is not None:
            add(f".{rule}.overlay.png", partial(picture_bytes, one.overlay(rule, whole_photo=photo, **style)))
    return files


def _photo(path: str) -> NDArray[np.uint8]:
    import numpy as np

    from gbp_onnx.imaging.photo import read_photo

    return np.asarray(read_photo(path))


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60] or "target"
