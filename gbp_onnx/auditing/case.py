"""One image under audit, and what the checks of a run share: nothing is computed twice, nor before it is asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gbp_onnx.auditing.check import NotApplicable
from gbp_onnx.auditing.item import Item, spread
from gbp_onnx.auditing.subject import Run, Subject
from gbp_onnx.errors import InputError
from gbp_onnx.imaging.photo import read_photo
from gbp_onnx.imaging.regions import in_frame
from gbp_onnx.labels import find_label
from gbp_onnx.metrics import strength

if TYPE_CHECKING:
    from PIL import Image

    from gbp_onnx.auditing.config import Config

__all__ = ["Baseline", "Case", "Lab", "Past"]


@dataclass(frozen=True, slots=True)
class Past:
    """What a baseline says of an image: the class that it predicts, the class that is explained, that one's probability
    and the maps for it.
    """

    top1: int
    target: int
    score: float
    maps: dict[str, NDArray[np.float32]]


class Baseline(Protocol):
    """What the audited model is compared with."""

    def past(self, case: Case, target: int | None) -> Past | None:
        """What it says of an image, for a target (None: the class that it predicts); None where it does not know."""


@dataclass(frozen=True, slots=True)
class Lab:
    """What all images share: the model, the baseline, the configuration and the images."""

    config: Config
    subject: Subject
    baseline: Baseline | None
    items: tuple[Item, ...]

    def case(self, item: Item) -> Case:
        """An image, ready to be looked at. Nothing is read yet."""
        return Case(self, item)

    def sample(self, count: int) -> Iterator[Case]:
        """So many images, evenly spread (0: all); those that cannot be read are left out."""
        for item in spread(self.items, count):
            case = self.case(item)
            try:
                _ = case.x
            except InputError:
                continue
            yield case

    def random(self, *salt: int) -> np.random.Generator:
        """A source of random numbers of its own: the same in every run, whatever ran before."""
        return np.random.default_rng([self.config.run.seed, *salt])


class Case:
    """One image: its pixels, its explanation and its baseline's, each computed once, when a check asks for it."""

    def __init__(self, lab: Lab, item: Item) -> None:
        self.lab, self.item = lab, item

    @property
    def subject(self) -> Subject:
        """The audited model."""
        return self.lab.subject

    @cached_property
    def photo(self) -> Image.Image:
        """The photograph, upright RGB."""
        return read_photo(self.item.path)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file."""
        try:
            return hashlib.sha256(self.item.path.read_bytes()).hexdigest()
        except OSError as error:
            why = "there is no such file" if isinstance(error, FileNotFoundError) else error.strerror or str(error)
            raise InputError("GBP401", why, str(self.item.path), "check the path and its permissions") from error

    @cached_property
    def _seen(self) -> tuple[NDArray[Any], Any]:
        return self.subject.see(self.photo)

    @property
    def x(self) -> NDArray[Any]:
        """The model's input, batch axis first."""
        x: NDArray[Any] = self._seen[0]
        return x

    @property
    def frame(self) -> Any:
        """What the model saw."""
        return self._seen[1]

    @cached_property
    def past(self) -> Past | None:
        """What the baseline says; None without one, or where it does not know the image."""
        return None if self.lab.baseline is None else self.lab.baseline.past(self, self.fixed)

    @cached_property
    def run(self) -> Run:
        """The model's explanation. Without a fixed target: of the baseline's class, so that both explain the same."""
        asked = self.fixed if self.fixed is not None else -1 if self.past is None else self.past.target
        return self.subject.explain(self.x, self.frame, asked)

    @property
    def target(self) -> int:
        """The class that is explained."""
        return self.run.target

    @cached_property
    def fixed(self) -> int | None:
        """The class that the configuration or the image's label names."""
        wanted = self.lab.config.run.target
        if wanted == "top1":
            return None
        if wanted == "label":
            if self.item.label is None:
                raise InputError("GBP407", 'the image has no label, and target is "label"', str(self.item.path))
            return self._class(self.item.label)
        return self._class(wanted)

    def _class(self, label: int | str) -> int:
        classes = self.subject.classes(self.x)
        if isinstance(label, str) and not label.strip().isdigit():
            return find_label(label, self.subject.labels(classes))
        if not int(label) < classes:
            what = f"class {label} is out of range: the output has {classes} values"
            raise InputError("GBP407", what, str(self.item.path), "choose a class in range")
        return int(label)

    def heat(self, rule: str) -> NDArray[np.float64]:
        """The strength of the map at each pixel: float64 [H, W], sum over the channels of |a|."""
        return strength(self.run.maps[rule])

    @cached_property
    def annotation(self) -> NDArray[np.bool_]:
        """The annotated object in the frame: bool [H, W]."""
        mask = (
            None if self.item.annotation is None else self.item.annotation.mask((self.photo.height, self.photo.width))
        )
        if mask is None:
            raise NotApplicable("the image has no box and no mask")
        seen = in_frame(mask, self.frame)
        if not seen.any():
            raise NotApplicable("the annotated object lies outside what the model sees")
        return seen
