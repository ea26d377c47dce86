"""Gradient: the saliency map is the derivative, by finite differences on the user's own model and images."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import numpy as np

from gbp_onnx.auditing.case import Case
from gbp_onnx.auditing.check import Check, Measured, NotApplicable
from gbp_onnx.auditing.differences import across, along, is_half, is_stepwise
from gbp_onnx.auditing.settings import CheckSettings, limit, whole

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
    """The map against central differences: along itself, and along noise, which sees what the map leaves out."""
    subject, x, gradient = case.subject, case.x, case.run.raw["saliency"]
    if is_stepwise(subject.source):
        raise NotApplicable("a quantised model is a staircase: its derivative is zero or infinite, its map is neither")
    if x.dtype.kind in "iu":
        raise NotApplicable("the model's input is integer, it takes no small change")
    if not gradient.any():
        return Measured(failure="the saliency map is zero everywhere")
    found, length = along(subject, x, gradient, case.target, case.run.explained)
    values: dict[str, float | bool] = {"along": abs(found - length) / max(abs(found), length)}
    pairs = [(found, length)]
    if not is_half(subject.source):
        generator = case.lab.random(zlib.crc32(case.item.name.encode()))
        noise = [across(subject, x, gradient, case.target, generator) for _ in range(settings.directions)]
        values["across"] = math.sqrt(float(np.mean([(q - p) ** 2 for q, p in noise]))) / length
        pairs += noise
    return Measured(values, {"pairs": [[float(f"{q:.6g}"), float(f"{p:.6g}")] for q, p in pairs]})


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
