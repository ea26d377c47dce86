"""Gradient: the saliency map is the derivative, by finite differences on the user's own model and images."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gbp_onnx.auditing.case import Case
from gbp_onnx.auditing.check import Check, Measured, NotApplicable
from gbp_onnx.auditing.differences import across, along, is_half, is_stepwise
from gbp_onnx.auditing.settings import CheckSettings, limit, whole
from gbp_onnx.auditing.subject import Run, Subject

__all__ = ["CHECK"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gradient(CheckSettings):
    """How well the two derivatives agree."""

    max_along: float | None = limit(0.05, "relative difference along the map itself, where the value changes most", 0)
    max_mean_along: float | None = limit(0.02, "the same, mean over the images", 0)
    max_across: float | None = limit(0.35, "along random noise, over the map's length; kinks make it uneven", 0)
    max_mean_across: float | None = limit(0.15, "the same, mean over the images", 0)
    directions: int = whole(2, "directions of noise for each image", 1, 64)


def measure(case: Case, settings: Gradient) -> Measured:
    """The map against central differences: along itself, and along noise, which sees what the map leaves out.

    In flat parts of a photograph max-pooling ties: the derivative is not unique, and the map is one of several. Where
    the differences are large, both are taken once more at the photograph with a little noise, which breaks ties.
    """
    subject, x, gradient = case.subject, case.x, case.run.raw["saliency"]
    if is_stepwise(subject.source):
        raise NotApplicable("a quantised model is a staircase: its derivative is zero or infinite, its map is neither")
    if x.dtype.kind in "iu":
        raise NotApplicable("the model's input is integer, it takes no small change")
    if not gradient.any():
        return Measured(failure="the saliency map is zero everywhere")
    generator = case.lab.random(zlib.crc32(case.item.name.encode()))
    values, pairs = _differences(subject, x, case.run, settings.directions, generator)
    notes: dict[str, Any] = {"pairs": pairs}
    if values["along"] > DOUBTFUL[0] or values.get("across", 0.0) > DOUBTFUL[1]:
        beside = (x + TIE_BREAK * float(x.std(dtype=np.float64)) * generator.standard_normal(x.shape)).astype(x.dtype)
        run = subject.explain(beside, case.frame, case.target)
        if run.raw["saliency"].any():
            again, pairs = _differences(subject, beside, run, settings.directions, generator)
            notes |= {"at the photograph itself": values, "pairs": pairs}
            values = again
    return Measured(values, notes)


DOUBTFUL = 0.02, 0.2  # differences, along and across, that may come from ties
TIE_BREAK = 4e-3  # the noise that breaks them, over the input's deviation: less than a grey level


def _differences(
    subject: Subject, x: NDArray[Any], run: Run, directions: int, generator: np.random.Generator
) -> tuple[dict[str, float], list[list[float]]]:
    """Both measures at one input, and each (difference quotient, what the map says)."""
    gradient = run.raw["saliency"]
    found, length = along(subject, x, gradient, run.target, run.explained)
    values = {"along": abs(found - length) / max(abs(found), length)}
    pairs = [(found, length)]
    if not is_half(subject.source):
        noise = [across(subject, x, gradient, run.target, generator) for _ in range(directions)]
        values["across"] = math.sqrt(float(np.mean([(q - p) ** 2 for q, p in noise]))) / length
        pairs += noise
    return values, [[float(f"{q:.6g}"), float(f"{p:.6g}")] for q, p in pairs]


CHECK = Check(
    code="GBP-A3",
    name="gradient",
    title="Gradient",
    meaning="The explained value changes as the saliency map says: central differences on the model itself, along the "
    "map and along random noise, against the map's scalar product with that direction.",
    paper="Simonyan et al. 2013, Deep Inside Convolutional Networks (the saliency map is the derivative)",
    settings=Gradient,
    image=measure,
    rules=("saliency",),
)
