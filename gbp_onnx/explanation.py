"""One explained image: maps, target, predictions; as figure, picture, raw arrays or record."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gbp_onnx.errors import InputError
from gbp_onnx.files import write_bytes
from gbp_onnx.types import Prediction, Preprocess

if TYPE_CHECKING:
    from PIL import Image

    from gbp_onnx.imaging.outline import Outline
    from gbp_onnx.imaging.preprocess import Frame

__all__ = ["TITLES", "Explanation"]

TITLES = {"deconvnet": "Deconvnet", "guided": "Guided Backpropagation", "saliency": "Saliency"}
"""Rules in the order of the well-known figure, and what its panels are called."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Explanation:
    """The maps of one image for one target.

    `attributions`: {rule: float32 [H, W, C], upright, RGB, in the frame of `image`}, per unit of the model's input.
    `image`: uint8 [H, W, 3],
    what the model saw. `target`: the class index, or the index into the image's output, or None for a seed; a string
    ("mask:15", "similar:b.jpg") where it is none of these. `score`: the output's value there (its mean over a mask);
    `explained`: the explained scalar (the logit in front of the head). `predictions`: the five largest values of the
    output; the five best boxes of a detector; the five classes of a segmenter that cover most, with their shares of
    the picture. `shares`: whether these are what the predictions' scores
    are. `what`: a target that is no plain class, in words. `outline`: of the mask or box, in the frame of
    `image`.
    """

    attributions: dict[str, NDArray[np.float32]]
    image: NDArray[np.uint8]
    target: int | tuple[int, ...] | str | None
    label: str | None
    score: float | None
    explained: float
    predictions: tuple[Prediction, ...]
    warnings: tuple[str, ...]
    source: str
    preprocess: Preprocess
    head: str | None
    frame: Frame = field(repr=False)
    record: Mapping[str, Any] = field(repr=False)
    what: str | None = None
    outline: Outline | None = None
    shares: bool = False

    def in_photo(self, rule: str) -> NDArray[np.float32]:
        """The map put back on the whole photograph: float32 [photo height, photo width, C], zero outside the crop."""
        return self.frame.to_photo(self._map(rule))

    def __repr__(self) -> str:
        """The target, its score, the image and the rules; not the arrays."""
        return f"<Explanation of {self.source!r}: {self.heading}; {', '.join(self.attributions)}>"

    @property
    def heading(self) -> str:
        """Class and score in words."""
        return f"{self.name}  {self.score_text}".strip()

    @property
    def name(self) -> str:
        """The target in words."""
        if self.what is not None:
            return self.what
        if self.label is not None:
            return self.label
        return (
            "a seed"
            if self.target is None
            else f"class {self.target}"
            if isinstance(self.target, int)
            else f"output{list(self.target)}"
        )

    @property
    def score_text(self) -> str:
        """The score as a percentage where the model gives probabilities, else as it is."""
        return "" if self.score is None else score_text(self.score, self.head)

    @property
    def seen(self) -> str:
        """The predictions in a line; empty where they are flat places of an output, which say nothing."""
        if self.outline is None and not isinstance(self.target, int):
            return ""
        head = "Softmax" if self.shares else self.head
        return ", ".join(f"{p.label or p.index} {score_text(p.score, head)}" for p in self.predictions)

    def panels(self, style: str = "color", **options: Any) -> list[tuple[str, NDArray[np.uint8]]]:
        """(title, uint8 [H, W, 3]) of the photograph and each rule's map, in the order of the well-known figure."""
        from gbp_onnx.imaging.render import render

        order = [r for r in TITLES if r in self.attributions] + [r for r in self.attributions if r not in TITLES]
        drawn = [(TITLES.get(rule, rule), render(self.attributions[rule], style, **options)) for rule in order]
        return [("Photograph", self._outlined()), *drawn]

    def _outlined(self) -> NDArray[np.uint8]:
        if self.outline is None:
            return self.image
        from gbp_onnx.imaging.outline import draw_outline

        return draw_outline(self.image, self.outline)

    def figure(self, style: str = "color", **options: Any) -> Image.Image:
        """The photograph and its maps side by side, class and score above. `options`: percentile, colormap (see
        `imaging.render`).
        """
        from gbp_onnx.imaging.figure import four_panels

        return four_panels(self.panels(style, **options), self.heading, Path(self.source).name)

    def picture(self, rule: str, style: str = "color", **options: Any) -> NDArray[np.uint8]:
        """One map as a picture, uint8 [H, W, 3]."""
        from gbp_onnx.imaging.render import render

        return render(self._map(rule), style, **options)

    def overlay(
        self,
        rule: str,
        style: str = "color",
        *,
        alpha: float = 0.8,
        whole_photo: NDArray[np.uint8] | None = None,
        **options: Any,
    ) -> NDArray[np.uint8]:
        """One map over what the model saw, or over the `whole_photo` (uint8 [photo height, photo width, 3]) that it
        was cut from.
        """
        from gbp_onnx.imaging.render import overlay

        ground, values = (self.image, self._map(rule)) if whole_photo is None else (whole_photo, self.in_photo(rule))
        return overlay(ground, values, style, alpha, **options)

    def to_dict(self) -> dict[str, Any]:
        """The record: model hash, rules, target, preprocessing, versions, predictions and warnings, as plain JSON
        values.
        """
        return {
            **self.record,
            "image": self.source,
            "target": list(self.target) if isinstance(self.target, tuple) else self.target,
            "label": self.label,
            "explains": self.name,
            "score": _finite(self.score),
            "explained": _finite(self.explained),
            "rules": list(self.attributions),
            "shape": list(self.image.shape[:2]),
            "photo_size": list(self.frame.photo_size),
            "preprocess": self.preprocess.to_dict(),
            "predictions": [{"index": p.index, "label": p.label, "score": _finite(p.score)} for p in self.predictions],
            "warnings": list(self.warnings),
        }

    def save(self, path: str | os.PathLike[str], style: str = "color", **options: Any) -> Path:
        """Write the explanation, whole or not at all, and return the path.

        The suffix says what: ``.png`` (.jpg, .webp) the figure; ``.npz`` the raw maps under their rules' names, the
        image the model saw
        (``image``) and the record (``record``, JSON text); ``.json`` the record. Raises GBP411.
        """
        return write_bytes(path, self.content(path, style, **options))

    def content(self, name: str | os.PathLike[str], style: str = "color", **options: Any) -> bytes:
        """The bytes of the file that `save` would write under this name ("a.png": its suffix counts). Raises GBP411."""
        from gbp_onnx.imaging.write import npz_bytes, picture_bytes

        suffix = Path(name).suffix.lower()
        if suffix not in (".npz", ".json"):
            return picture_bytes(self.figure(style, **options), name)
        record = json.dumps(self.to_dict(), indent=2, ensure_ascii=False)
        if suffix == ".json":
            return f"{record}\n".encode()
        return npz_bytes({**self.attributions, "image": self.image, "record": np.array(record)})

    def _map(self, rule: str) -> NDArray[np.float32]:
        if rule not in self.attributions:
            raise InputError(
                "GBP410",
                f"this explanation has no rule {rule!r}",
                "rule",
                f"choose from {', '.join(self.attributions)}",
            )
        return self.attributions[rule]


def _finite(value: float | None) -> float | None:
    """The value as JSON can hold it: null for NaN and infinities."""
    return value if value is not None and math.isfinite(value) else None


def score_text(score: float, head: str | None) -> str:
    """A value of the output in words: per cent behind Softmax and Sigmoid (exp first behind LogSoftmax), else the
    number.
    """
    head = None if head is None else head.removeprefix("QLinear")
    if head not in ("Softmax", "Sigmoid", "LogSoftmax"):
        return f"(score {score:.4g})"
    share = 100 * (float(np.exp(score)) if head == "LogSoftmax" else score)
    return "< 0.1 %" if 0 <= share < 0.05 else f"{share:.1f} %"


def top_predictions(values: NDArray[Any], labels: Sequence[str] | None, count: int = 5) -> tuple[Prediction, ...]:
    """The largest values of one image's output (flattened), largest first; NaN counts as smallest."""
    flat = np.asarray(values, np.float64).reshape(-1)
    negative = np.where(np.isnan(flat), np.inf, -flat)
    enough = np.arange(flat.size)
    if flat.size > 1000 * count:  # a segmentation has millions of values: sort only those that may be among the first
        enough = np.flatnonzero(negative <= np.partition(negative, count - 1)[count - 1])
    order = enough[np.argsort(negative[enough], kind="stable")[:count]]
    return tuple(Prediction(int(k), None if labels is None else labels[int(k)], float(flat[k])) for k in order)
