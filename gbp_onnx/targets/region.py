"""A part of the photograph, in the frame of what the model saw and on the grid of an output."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gbp_onnx.errors import InputError
from gbp_onnx.imaging.photo import read_photo
from gbp_onnx.imaging.preprocess import Frame
from gbp_onnx.targets.forms import Place

__all__ = ["in_frame", "on_grid", "rectangle_in_frame"]

Mask = NDArray[np.bool_]


def in_frame(place: Place, frame: Frame | None, size: tuple[int, int]) -> Mask:
    """The pixels of what the model saw (bool [H, W], of `size`) that lie in `place`; a pixel counts by its centre.

    `place` is in the photograph's frame; without one (arrays), in the input's own. A picture of another size is
    stretched over the photograph. Raises GBP407 where nothing is left, or the file holds no mask.
    """
    rows, columns = (_centres(frame, size, axis) for axis in (0, 1))  # 0..1 along the photograph
    if isinstance(place, tuple):
        left, top, right, bottom = _checked(place)
        height, width = size if frame is None else frame.photo_size
        inside_rows = (rows * height >= top) & (rows * height < bottom)
        inside_columns = (columns * width >= left) & (columns * width < right)
        found = inside_rows[:, None] & inside_columns[None, :]
        where = f"box {','.join(f'{n:g}' for n in place)}"
    else:
        mask, where = _read(place)
        places = [np.clip((c * n).astype(int), 0, n - 1) for c, n in zip((rows, columns), mask.shape, strict=True)]
        seen = ((rows >= 0) & (rows < 1))[:, None] & ((columns >= 0) & (columns < 1))[None, :]
        found = mask[np.ix_(*places)] & seen
    if not found.any():
        what = "nothing of this region is in the part of the photograph that the model sees"
        raise InputError("GBP407", what, where, "choose another region, or preprocess with resize=pad")
    return found


def on_grid(mask: Mask, shape: tuple[int, int]) -> Mask:
    """A mask of the frame on a grid that covers it: the cells whose centre it holds, else those that it touches."""
    rows, columns = (((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(shape, mask.shape, strict=True))
    found: Mask = mask[np.ix_(rows, columns)]
    if not found.any():
        y, x = np.nonzero(mask)
        found[y * shape[0] // mask.shape[0], x * shape[1] // mask.shape[1]] = True
    return found


def rectangle_in_frame(place: tuple[float, float, float, float], frame: Frame | None) -> NDArray[np.float64]:
    """Left, top, right, bottom in the photograph's pixels, in those of what the model saw."""
    box = np.asarray(_checked(place), np.float64)
    if frame is None:
        return box
    scale = np.array([s / p for s, p in zip(frame.scaled, frame.photo_size, strict=True)])[[1, 0, 1, 0]]
    return np.asarray(box * scale - np.array(frame.offset)[[1, 0, 1, 0]])


def _centres(frame: Frame | None, size: tuple[int, int], axis: int) -> NDArray[np.float64]:
    """Where the frame's pixel centres lie along the photograph, which is 0..1."""
    centres = np.arange(size[axis]) + 0.5
    return centres / size[axis] if frame is None else (centres + frame.offset[axis]) / frame.scaled[axis]


def _checked(place: tuple[Any, ...]) -> tuple[float, float, float, float]:
    if len(place) != 4 or not all(np.isfinite(n) for n in place) or place[0] >= place[2] or place[1] >= place[3]:
        fix = "give left, top, right, bottom in pixels of the photograph"
        raise InputError("GBP407", f"{place} is no box", "target", fix)
    left, top, right, bottom = map(float, place)
    return left, top, right, bottom


def _read(place: Any) -> tuple[Mask, str]:
    """A mask from an array, a .npy file or a picture: what is true, or brighter than the middle."""
    where = os.fspath(place) if isinstance(place, str | os.PathLike) else "region"
    if isinstance(place, str | os.PathLike) and where.lower().endswith(".npy"):
        try:
            place = np.load(where, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise InputError("GBP407", f"the mask cannot be read ({why})", where, "save it with numpy.save") from error
    if isinstance(place, np.ndarray) and place.ndim == 2:
        limit = 127.5 if place.dtype.kind in "iu" and place.size and place.max() > 1 else 0.5
        mask = place if place.dtype == np.bool_ else place > limit
    else:
        mask = np.asarray(read_photo(place)).max(axis=2) > 127
    if mask.size == 0 or not mask.any():
        raise InputError("GBP407", "the mask is empty: no pixel is bright", where, "paint what is meant white")
    return mask, where
