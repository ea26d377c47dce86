"""Sanity: a map that explains the model changes when the model's weights are put out of order, or another class is
asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from gbp_onnx.auditing.case import Case, Lab
from gbp_onnx.auditing.check import Check, Measured, NotApplicable
from gbp_onnx.auditing.randomise import Layer, layers_from_top, shuffled
from gbp_onnx.auditing.settings import CheckSettings, limit, names, text, whole
from gbp_onnx.auditing.subject import Subject
from gbp_onnx.similarity import as_seen, heat, spearman, ssim

__all__ = ["CHECK"]


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
    seen = {rule: [_Strength(case.run.maps[rule]) for case in cases] for rule in settings.rules}
    bounds = {rule: _pairs(lab, found, settings.pairs) for rule, found in seen.items()}
    groups = [
        tuple(layers[k] for k in part) for part in np.array_split(range(len(layers)), min(settings.steps, len(layers)))
    ]
    curves: dict[str, dict[str, list[float]]] = {rule: {"ssim": [], "spearman": []} for rule in settings.rules}
    changing = _Shuffled(lab, cases)
    for group in groups:
        for rule, pairs in changing.next(group, settings.rules).items():
            alike = [trained.alike(_Strength(now)) for trained, now in zip(seen[rule], pairs, strict=True)]
            for k, kind in enumerate(("ssim", "spearman")):
                curves[rule][kind].append(round(float(np.mean([one[k] for one in alike])), 5))
    other = [_least_likely(case) for case in cases]
    for rule in settings.rules:
        by_class = [trained.alike(_Strength(maps[rule])) for trained, maps in zip(seen[rule], other, strict=True)]
        yield _verdict(
            rule, curves[rule], bounds[rule], [float(np.mean([o[k] for o in by_class])) for k in (0, 1)], groups
        )


class _Strength:
    """A map as it is compared: its strength at each pixel, and that as the eye gets it."""

    def __init__(self, attribution: Any) -> None:
        self.heat = heat(np.nan_to_num(attribution, posinf=0.0, neginf=0.0)).astype(np.float32)
        self.seen = as_seen(self.heat)

    def alike(self, other: _Strength) -> tuple[float, float]:
        """(SSIM, Spearman)."""
        return ssim(self.seen, other.seen), spearman(self.heat, other.heat)


def _pairs(lab: Lab, found: Sequence[_Strength], count: int) -> tuple[float, float]:
    """The mean similarity (SSIM, Spearman) of the maps of random pairs of different images."""
    every = [(a, b) for a in range(len(found)) for b in range(a)]
    chosen = lab.random(1).permutation(len(every))[:count]
    alike = [found[every[k][0]].alike(found[every[k][1]]) for k in chosen]
    return float(np.mean([a[0] for a in alike])), float(np.mean([a[1] for a in alike]))


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
        now = Subject(self._model, rules, old.choice, preprocess=old.preprocess, options=old.options, where=old.where)
        runs = [now.explain(case.x, case.frame, case.target) for case in self._cases]
        return {rule: [run.maps[rule] for run in runs] for rule in rules}


def _verdict(
    rule: str,
    curves: dict[str, list[float]],
    bound: tuple[float, float],
    by_class: Sequence[float],
    groups: Sequence[Sequence[Layer]],
) -> Measured:
    """Numbers and a sentence, from this model's own curves."""
    upper = max(0, round(len(groups) / 4) - 1)
    values: dict[str, float | bool] = {
        f"{rule}.ssim_upper": curves["ssim"][upper],
        f"{rule}.ssim_all": curves["ssim"][-1],
        f"{rule}.ssim_pairs": bound[0],
        f"{rule}.ssim_excess": curves["ssim"][-1] - bound[0],
        f"{rule}.spearman_upper": curves["spearman"][upper],
        f"{rule}.spearman_all": curves["spearman"][-1],
        f"{rule}.spearman_pairs": bound[1],
        f"{rule}.class_ssim": by_class[0],
        f"{rule}.class_spearman": by_class[1],
    }
    count, depth = sum(len(group) for group in groups), sum(len(group) for group in groups[: upper + 1])
    # 1 is the trained map, the pairs' mean is a map of something else: where between the two does the map stand?
    left = (curves["spearman"][upper] - bound[1]) / max(1e-9, 1 - bound[1])
    said = "insensitive" if left >= 0.5 else "sensitive"
    sentence = (
        f"{rule} is {said} to the upper layers of this model: with {depth} of {count} layers out of order its maps keep "
        f"a Spearman correlation of {curves['spearman'][upper]:.2f} and an SSIM of {curves['ssim'][upper]:.2f} with the "
        f"trained model's (maps of different images: {bound[1]:.2f} and {bound[0]:.2f})"
    )
    notes = {
        "sentence": sentence,
        "steps": [group[-1].name for group in groups],
        "ssim": curves["ssim"],
        "spearman": curves["spearman"],
    }
    return Measured(values, notes, about=rule)


CHECK = Check(
    code="GBP-A8",
    name="sanity",
    title="Sanity",
    meaning="Maps lose their likeness when the model's weights are put out of order, layer by layer from the output down: "
    "SSIM ends below that of random pairs of images. And the map of another class is another map.",
    paper="Adebayo et al. 2018, Sanity Checks for Saliency Maps; Arun et al. 2021, Assessing the Trustworthiness of "
    "Saliency Maps for Localizing Abnormalities in Medical Imaging (the pass rule)",
    settings=Sanity,
    model=measure,
    after=True,
)
