"""Sanity: a map that explains the model changes when the model's weights are put out of order, or another class is
asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from gbp_onnx.auditing.case import Case, Lab
from gbp_onnx.auditing.check import Check, Measured, NotApplicable
from gbp_onnx.auditing.randomise import Layer, layers_from_top, shuffled
from gbp_onnx.auditing.settings import CheckSettings, limit, names, text, whole
from gbp_onnx.auditing.subject import Subject
from gbp_onnx.metrics import spearman, ssim

__all__ = ["CHECK"]

METRICS = {"ssim": ssim, "spearman": spearman}

Map = NDArray[np.float32]
Curves = dict[str, list[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sanity(CheckSettings):
    """How the test runs, and its rule."""

    severity: str = text("report", "gate: can fail the run; report: measured and shown", ("gate", "report"))
    images: int = whole(11, "how many images it looks at, evenly spread (11 make 55 pairs)", 2)
    rules: tuple[str, ...] = names(("guided", "saliency"), "the maps that are tested")
    steps: int = whole(32, "steps at most; a model with more layers has several put out of order in one", 1)
    pairs: int = whole(50, "pairs of different images whose maps' mean similarity is the bound", 1)
    max_ssim_excess: float | None = limit(
        0.0, "SSIM after all layers, above the mean SSIM of random pairs (Arun et al. 2021)", -2, 2
    )
    max_class_spearman: float | None = limit(
        0.9, "rank correlation of the maps of the explained class and of the least likely one", -1, 1
    )


def measure(lab: Lab, settings: Sanity) -> Iterator[Measured]:
    """Randomise from the output down, and compare each step's maps with the trained model's."""
    layers = layers_from_top(lab.subject.source)
    if not layers:
        raise NotApplicable("the model stores no weights to put out of order")
    cases = [case for case in lab.sample(settings.images) if np.isfinite(case.run.explained)]
    if len(cases) < 2:
        raise NotApplicable("two images that can be read are needed")
    trained = {rule: [case.run.maps[rule] for case in cases] for rule in settings.rules}
    bounds = {rule: _alike(_random_pairs(lab, maps, settings.pairs)) for rule, maps in trained.items()}
    parts = np.array_split(np.arange(len(layers)), min(settings.steps, len(layers)))
    groups = [tuple(layers[k] for k in part) for part in parts]
    curves: dict[str, Curves] = {rule: {name: [] for name in METRICS} for rule in settings.rules}
    changing = _Shuffled(lab, cases)
    for group in groups:
        for rule, maps in changing.next(group, settings.rules).items():
            for name, value in _alike(zip(trained[rule], maps, strict=True)).items():
                curves[rule][name].append(value)
    others = [_least_likely(case) for case in cases]
    for rule in settings.rules:
        by_class = _alike((mine, other[rule]) for mine, other in zip(trained[rule], others, strict=True))
        yield _verdict(rule, curves[rule], bounds[rule], by_class, groups)


def _alike(pairs: Iterable[tuple[Map, Map]]) -> dict[str, float]:
    """The mean SSIM and Spearman correlation of pairs of maps; pairs that have none (a map of zeros) are left out."""
    found: dict[str, list[float]] = {name: [] for name in METRICS}
    for a, b in pairs:
        for name, metric in METRICS.items():
            value = metric(a, b)
            if value is not None:
                found[name].append(value)
    return {name: float(np.mean(values)) if values else math.nan for name, values in found.items()}


def _random_pairs(lab: Lab, maps: Sequence[Map], count: int) -> Iterator[tuple[Map, Map]]:
    """Pairs of the maps of different images."""
    every = [(a, b) for a in range(len(maps)) for b in range(a)]
    for k in lab.random(1).permutation(len(every))[:count]:
        yield maps[every[k][0]], maps[every[k][1]]


def _least_likely(case: Case) -> dict[str, Any]:
    """The maps for the class with the smallest value."""
    values = case.run.values
    return case.subject.explain(case.x, case.frame, int(np.argmin(values))).maps


class _Shuffled:
    """The model on its way to disorder."""

    def __init__(self, lab: Lab, cases: Sequence[Case]) -> None:
        self._subject, self._cases = lab.subject, cases
        self._generator = lab.random(2)
        self._model: onnx.ModelProto = lab.subject.source

    def next(self, layers: Sequence[Layer], rules: Sequence[str]) -> dict[str, list[Any]]:
        """Put further layers out of order; the maps of all images for the classes that were explained at first."""
        self._model = shuffled(self._model, layers, self._generator)
        old = self._subject
        now = Subject(
            self._model,
            rules,
            old.choice,
            preprocess=old.preprocess,
            options=old.options,
            threads=old.threads,
            where=old.where,
        )
        runs = [now.explain(case.x, case.frame, case.target) for case in self._cases]
        return {rule: [run.maps[rule] for run in runs] for rule in rules}


def _verdict(
    rule: str,
    curves: Curves,
    bound: Mapping[str, float],
    by_class: Mapping[str, float],
    groups: Sequence[Sequence[Layer]],
) -> Measured:
    """Numbers and a sentence, from this model's own curves."""
    upper = max(0, round(len(groups) / 4) - 1)
    values: dict[str, float | bool | None] = {f"{rule}.ssim_excess": curves["ssim"][-1] - bound["ssim"]}
    for name, curve in curves.items():
        values |= {
            f"{rule}.{name}_upper": curve[upper],
            f"{rule}.{name}_all": curve[-1],
            f"{rule}.{name}_pairs": bound[name],
            f"{rule}.class_{name}": by_class[name],
        }
    count, depth = sum(map(len, groups)), sum(map(len, groups[: upper + 1]))
    # 1 is the trained map, the pairs' mean is a map of something else: where between the two does the map stand?
    left = (curves["spearman"][upper] - bound["spearman"]) / max(1e-9, 1 - bound["spearman"])
    said = "insensitive" if left >= 0.5 else "sensitive"
    sentence = (
        f"{rule} is {said} to the upper layers of this model: with {depth} of {count} layers out of order its maps "
        f"keep a Spearman correlation of {curves['spearman'][upper]:.2f} and an SSIM of {curves['ssim'][upper]:.2f} "
        f"with the trained model's (maps of different images: {bound['spearman']:.2f} and {bound['ssim']:.2f})"
    )
    notes: dict[str, Any] = {"sentence": sentence, "steps": [group[-1].name for group in groups]}
    notes |= {name: [round(v, 5) if math.isfinite(v) else None for v in curve] for name, curve in curves.items()}
    return Measured(values, notes, about=rule)


CHECK = Check(
    code="GBP-A8",
    name="sanity",
    title="Sanity",
    meaning="Maps lose their likeness when the model's weights are put out of order, layer by layer from the output "
    "down: SSIM ends below that of random pairs of images. And the map of another class is another map.",
    paper="Adebayo et al. 2018, Sanity Checks for Saliency Maps; Arun et al. 2021, Assessing the Trustworthiness of "
    "Saliency Maps for Localizing Abnormalities in Medical Imaging (the pass rule)",
    settings=Sanity,
    model=measure,
    after=True,
)
