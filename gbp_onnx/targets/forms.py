"""Targets as objects, and the strings that stand for them: the same in Python and on the command line.

scores[0, 17, 3]          Index("scores", (0, 17, 3))     an entry of the output "scores"; a slice is the mean over it
mask, mask:               Mask()                          the class that covers most, over the pixels it is predicted at
mask:dog                  Mask("dog")                     that class over its predicted mask
mask:dog@person.png       Mask("dog", "person.png")       that class over the white pixels of a picture
mask:dog@10,20,110,220    Mask("dog", (10, 20, 110, 220)) that class over left, top, right, bottom in the photograph
mask:person.png           Mask(region="person.png")       the class that is predicted most often there
box, box:                 Box()                           the best box, for its best class
box:dog                   Box("dog")                      the box that is best for that class
box:dog@17                Box("dog", 17)                  box 17, for that class
box:@10,20,110,220        Box(None, (10, 20, 110, 220))   the box that overlaps that region most
similar:other.jpg         Similar("other.jpg")            the cosine between the embeddings of the two images
seed.npy, seed.npz        Seed("seed.npy")                any seed of the output's shape
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gbp_onnx.errors import InputError

__all__ = ["Box", "Form", "Index", "Mask", "Place", "Seed", "Similar", "parse"]

Rectangle = tuple[float, float, float, float]
Place = str | os.PathLike[str] | Rectangle | NDArray[Any]
"""Part of a photograph: a picture or .npy file whose bright pixels are meant, such an array, or left, top, right,
bottom in the photograph's pixels.
"""


@dataclass(frozen=True, slots=True)
class Index:
    """An entry of an output (the explained one where `output` is None), or the mean over a slice of it.

    `key`: integers and slices, with or without the batch axis.
    """

    output: str | None
    key: tuple[int | slice, ...]

    def __str__(self) -> str:
        return f"{self.output or 'output'}[{', '.join(_key_text(k) for k in self.key)}]"


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """The mean of a class' values over the pixels where it is predicted, or over `region`.

    `label`: class index or label; None: the class that covers most of the picture (of the region, where there is
    one), background apart.
    """

    label: int | str | None = None
    region: Place | None = None


@dataclass(frozen=True, slots=True)
class Box:
    """A detector's score of one box for one class.

    `label`: class index or label; None: the best one, background apart. `place`: the box's number, or a rectangle
    (left, top, right, bottom in the photograph's pixels) that it overlaps most; None: the box with the best score.
    """

    label: int | str | None = None
    place: int | Rectangle | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Similar:
    """The cosine between the output for this image and the output for another one (path, PIL image or array)."""

    image: Any


@dataclass(frozen=True, slots=True)
class Seed:
    """A seed of the output's shape from a .npy file, or from a .npz file with one array or one named as the output."""

    path: str | os.PathLike[str]

    def read(self, output: str) -> NDArray[np.float32]:
        """The array, as float32 (float64 stays). Raises GBP407."""
        where, fix = os.fspath(self.path), "save a float array with numpy.save"
        try:
            with Path(where).open("rb") as file:
                loaded = np.load(file, allow_pickle=False)
                if isinstance(loaded, np.lib.npyio.NpzFile):
                    name = output if output in loaded.files else loaded.files[0] if len(loaded.files) == 1 else None
                    if name is None:
                        what = f"the file holds {', '.join(map(repr, loaded.files)) or 'nothing'}"
                        raise InputError("GBP407", what, where, f"call one of its arrays {output!r}, as the output")
                    loaded = loaded[name]
        except (OSError, ValueError, EOFError) as error:
            why = getattr(error, "strerror", None) or str(error).splitlines()[0]
            raise InputError("GBP407", f"the seed cannot be read ({why})", where, fix) from error
        array = np.asarray(loaded)
        if array.dtype.kind not in "fiub" or array.size == 0 or not np.isfinite(array).all():
            what = f"the seed is {array.dtype} {list(array.shape)}, wanted are finite numbers"
            raise InputError("GBP407", what, where, fix)
        return array if array.dtype == np.float64 else array.astype(np.float32)


Form = Index | Mask | Box | Similar | Seed

_INDEX = re.compile(r"(?s)(.*?)\s*\[([^\[\]]*)\]")
_PART = re.compile(r"([+-]?\d+)?(?:(:)([+-]?\d+)?(?:(:)([+-]?\d+)?)?)?")
_PICTURES = tuple(".avif .bmp .gif .jpeg .jpg .npy .pgm .png .ppm .tif .tiff .webp".split())  # noqa: SIM905
_KINDS = "mask, mask:CLASS@REGION, box, box:CLASS@NUMBER, similar:FILE, OUTPUT[0, 1, 2], seed.npy"


def parse(text: str, outputs: Iterable[str] = ()) -> Form | None:
    """The form that a string stands for; None where it is none of these (a label, a class, top1). Raises GBP407.

    `outputs`: names that may hold brackets themselves.
    """
    bare = text.strip()
    index = _INDEX.fullmatch(bare)
    named = next((o for o in outputs if index is None and bare.startswith(f"{o}[") and bare.endswith("]")), None)
    if index is not None or named is not None:
        name, key = (named, bare[len(named) + 1 : -1]) if named is not None else index.groups()  # type: ignore[union-attr]
        return Index(name or None, tuple(_part(part, bare) for part in _parts(key, bare)))
    kind, colon, rest = bare.partition(":")
    match kind.strip().lower():
        case "mask" | "box" if not colon:
            return Mask() if kind.strip().lower() == "mask" else Box()
        case "mask":
            label, _, region = rest.partition("@")
            if not region and label.strip().lower().endswith(_PICTURES):
                label, region = "", label
            return Mask(_label(label), _region(region))
        case "box":
            label, _, place = rest.partition("@")
            return Box(_label(label), _box_place(place.strip()))
        case "similar" if colon:
            if not rest.strip():
                raise InputError("GBP407", f"{text!r} names no image", "target", "write similar:other.jpg")
            return Similar(rest.strip())
    if bare.lower().endswith((".npy", ".npz")):
        return Seed(bare)
    return None


def _parts(key: str, whole: str) -> list[str]:
    parts = [part.strip() for part in key.split(",")]
    if parts and not parts[-1] and len(parts) > 1:
        parts.pop()  # (3,) is an index too
    if not all(parts):
        raise InputError("GBP407", f"{whole!r} has an empty place", "target", "write whole numbers between commas")
    return parts


def _part(part: str, whole: str) -> int | slice:
    found = _PART.fullmatch("".join(part.split()))
    if found is None:
        fix = "write whole numbers from 0 on, or slices like 10:20 and :"
        raise InputError("GBP407", f"{part!r} in {whole!r} is no index", "target", fix)
    start, colon, stop, _, step = found.groups()
    if not colon:
        return int(start)
    if step is not None and int(step) < 1:
        raise InputError("GBP407", f"{part!r} in {whole!r} has no step from 1 on", "target", "write 10:20:2")
    return slice(*(None if n is None else int(n) for n in (start, stop, step)))


def _key_text(key: int | slice) -> str:
    if isinstance(key, int):
        return str(key)
    ends = f"{'' if key.start is None else key.start}:{'' if key.stop is None else key.stop}"
    return ends if key.step is None else f"{ends}:{key.step}"


def _label(text: str) -> int | str | None:
    bare = text.strip()
    if bare.lower() in ("", "top1"):
        return None
    return int(bare) if re.fullmatch(r"\d{1,18}", bare) else bare


def _region(text: str) -> Place | None:
    bare = text.strip()
    return (_rectangle(bare) or bare) if bare else None


def _box_place(text: str) -> int | Rectangle | None:
    if not text or re.fullmatch(r"\d{1,18}", text):
        return int(text) if text else None
    rectangle = _rectangle(text)
    if rectangle is None:
        fix = "write box:CLASS@17, or @left,top,right,bottom in the photograph's pixels"
        raise InputError("GBP407", f"{text!r} is no box", "target", fix)
    return rectangle


def _rectangle(text: str) -> Rectangle | None:
    numbers = text.split(",")
    if len(numbers) != 4:
        return None
    try:
        left, top, right, bottom = (float(n) for n in numbers)
    except ValueError:
        return None
    return left, top, right, bottom


def unknown_form(text: Any) -> InputError:
    """The error for what is no target at all."""
    return InputError("GBP407", f"{text!r} is no target", "target", f"pass a class, a label, top1, top5, or {_KINDS}")
