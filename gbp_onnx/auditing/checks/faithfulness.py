"""Faithfulness: what the map calls strong matters to the model, more than what chance or an edge detector calls so."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gbp_onnx.auditing.case import Case
from gbp_onnx.auditing.check import Check, Measured
from gbp_onnx.auditing.curves import area, blurred, edges, ranked, stages
from gbp_onnx.auditing.settings import CheckSettings, limit, names, number, text, whole

__all__ = ["CHECK"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Faithfulness(CheckSettings):
    """The curves, and what they are compared with."""

    severity: str = text("report", "gate: can fail the run; report: measured and shown", ("gate", "report"))
    images: int = whole(20, "how many images it looks at, evenly spread; 0: all")
    rules: tuple[str, ...] = names(("guided",), "the maps whose order of pixels is followed")
    steps: int = whole(32, "points of each curve", 2, 1024)
    blur: float = number(5.0, "standard deviation, in pixels, of the blur that insertion starts from", 0.1, 100.0)
    substrate: str = text("zero", "what deletion puts in place of a pixel, in the model's input", ("zero", "mean"))
    min_mean_insertion_over_random: float | None = limit(0.0, "insertion's area above that of a random order", -1, 1)
    min_mean_deletion_under_random: float | None = limit(0.0, "deletion's area below that of a random order", -1, 1)
    min_mean_insertion_over_edges: float | None = limit(0.0, "insertion's area above that of an edge detector", -1, 1)
    min_mean_deletion_under_edges: float | None = limit(0.0, "deletion's area below that of an edge detector", -1, 1)


def measure(case: Case, settings: Faithfulness) -> Measured:
    """Insertion and deletion in the order of each map, of chance and of the edges."""
    generator = case.lab.random(zlib.crc32(case.item.name.encode()))
    size = case.frame.image.shape[:2]
    orders = {rule: ranked(case.heat(rule)) for rule in settings.rules}
    orders["random"] = generator.permutation(size[0] * size[1])
    orders["edges"] = ranked(edges(case.frame.image))
    x = case.x[0] if case.subject.runner.batched else case.x
    first = case.subject.fitted.layout == "NCHW"
    soft = blurred(x, settings.blur, first)
    empty = np.zeros_like(x) if settings.substrate == "zero" else np.broadcast_to(_mean(x, first), x.shape)
    curves: dict[str, dict[str, list[float]]] = {"insertion": {}, "deletion": {}}
    for name, order in orders.items():
        for kind, start, end in (("insertion", soft, x), ("deletion", x, empty)):
            batch = stages(start, end, order, settings.steps, first)
            shares = case.subject.probabilities(case.subject.values(batch))[:, case.target]
            curves[kind][name] = [round(float(s), 5) for s in shares]
    return Measured(_values(curves, settings.rules), {"curves": curves})


def _values(curves: Mapping[str, Mapping[str, list[float]]], rules: tuple[str, ...]) -> dict[str, float | bool]:
    areas = {kind: {name: area(curve) for name, curve in found.items()} for kind, found in curves.items()}
    inserted, deleted = areas["insertion"], areas["deletion"]
    values: dict[str, float | bool] = {}
    for rule in rules:
        values[f"{rule}.insertion"], values[f"{rule}.deletion"] = inserted[rule], deleted[rule]
        for other in ("random", "edges"):
            values[f"{rule}.insertion_over_{other}"] = inserted[rule] - inserted[other]
            values[f"{rule}.deletion_under_{other}"] = deleted[other] - deleted[rule]
    return values


def _mean(x: NDArray[Any], channels_first: bool) -> NDArray[Any]:
    mean: NDArray[Any] = x.mean(axis=(1, 2) if channels_first else (0, 1), keepdims=True).astype(x.dtype)
    return mean


CHECK = Check(
    code="GBP-A7",
    name="faithfulness",
    title="Faithfulness",
    meaning="The class's probability rises early when the pixels that the map calls strong are put into a blurred "
    "photograph, and falls early when they are taken out: areas under both curves, against a random order and the "
    "edges of the photograph.",
    paper="Petsiuk et al. 2018, RISE: Randomized Input Sampling for Explanation of Black-box Models",
    settings=Faithfulness,
    image=measure,
)
