"""Many images for one explainer: what belongs to each of them, and what becomes of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sized
from itertools import repeat
from typing import Any

import numpy as np

from gbp_onnx.errors import GbpError, InputError
from gbp_onnx.imaging.folder import expand
from gbp_onnx.seeds import Target, one_each

__all__ = ["attempt", "with_targets"]

Job = tuple[Any, Target]
"""An image and its target."""


def with_targets(images: Iterable[Any] | str | os.PathLike[str], target: Target) -> Iterator[Job]:
    """Each image with its target. `images`: a folder stands for the images in it, in order of their names.

    Raises GBP401 (a folder without images), GBP407 (as many targets as images, where there is more than one).
    """
    if isinstance(images, str | os.PathLike):
        images = expand([os.fspath(images)])
    if isinstance(images, Sized):
        return zip(images, one_each(target, len(images)), strict=True)
    if isinstance(target, list) or (isinstance(target, np.ndarray) and target.dtype.kind in "iu"):
        fix = "pass the images as a list, or one target for all"
        raise InputError("GBP407", "a target for each image, of images that are not counted", "target", fix)
    return zip(images, repeat(target), strict=False)


def attempt(explain: Callable[[Any, Target], Any], job: Job) -> Any:
    """What `explain` makes of the image, or the error that it ends in."""
    try:
        return explain(*job)
    except GbpError as error:
        return error
