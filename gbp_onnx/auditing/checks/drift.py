"""Drift: predictions and maps against those of another model, or of another day."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gbp_onnx.auditing.case import Case
from gbp_onnx.auditing.check import Check, Measured
from gbp_onnx.auditing.settings import CheckSettings, limit, names, number
from gbp_onnx.metrics import cosine, spearman, ssim, top_overlap

__all__ = ["CHECK"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift(CheckSettings):
    """How far model and baseline may be apart."""

    rules: tuple[str, ...] = names(("guided",), "the maps that are compared")
    max_top1_lost: float | None = limit(0.0, "1 where the baseline's class is not among the five best, else 0", 0, 1)
    max_top1_changed: float | None = limit(None, "1 where the predicted class is another, else 0", 0, 1, shown=False)
    max_score_change: float | None = limit(0.25, "change of the explained class's probability", 0, 1)
    min_cosine: float | None = limit(0.7, "cosine of the two maps, signs counted", -1, 1)
    min_spearman: float | None = limit(0.6, "rank correlation of the strengths at each pixel", -1, 1)
    min_ssim: float | None = limit(0.5, "structural similarity of the strengths", -1, 1)
    min_top_overlap: float | None = limit(0.4, "share of the strongest pixels that both have", 0, 1)
    max_mean_top1_changed: float | None = limit(0.1, "share of images whose predicted class is another", 0, 1)
    max_mean_score_change: float | None = limit(0.1, "mean over the images, as the following ones", 0, 1)
    min_mean_cosine: float | None = limit(0.85, "", -1, 1)
    min_mean_spearman: float | None = limit(0.75, "", -1, 1)
    min_mean_ssim: float | None = limit(0.7, "", -1, 1)
    min_mean_top_overlap: float | None = limit(0.6, "", 0, 1)
    top_share: float = number(0.05, "which pixels are the strongest: this share of all", 0.0001, 1.0)


def measure(case: Case, settings: Drift) -> Measured:
    """Compare the two explanations of the same class."""
    past, run = case.past, case.run
    if past is None:
        return Measured(failure="the baseline holds no map of this image: store it with --update-baseline")
    share = case.subject.probabilities(run.values)
    top1 = int(np.argmax(run.values))
    values: dict[str, float | bool | None] = {
        "top1_lost": float(past.top1 not in np.argsort(-run.values, kind="stable")[:5]),
        "top1_changed": float(top1 != past.top1),
        "score_change": abs(float(share[run.target]) - past.score),
    }
    for rule in settings.rules:
        a, b = run.maps[rule], past.maps[rule]
        if a.shape != b.shape:
            return Measured(values, failure=f"the maps are {a.shape[:2]} and {b.shape[:2]} pixels: not comparable")
        values |= {
            f"{rule}.cosine": cosine(a, b),
            f"{rule}.spearman": spearman(a, b),
            f"{rule}.ssim": ssim(a, b),
            f"{rule}.top_overlap": top_overlap(a, b, settings.top_share),
        }
    names_of = case.subject.labels(run.values.size)
    notes = {
        key: names_of[k] if names_of is not None and k < len(names_of) else str(k)
        for key, k in (("predicted", top1), ("baseline_predicted", past.top1))
    }
    return Measured(values, notes)


CHECK = Check(
    code="GBP-A4",
    name="drift",
    title="Drift",
    meaning="Model and baseline predict the same and explain the same class alike: cosine of the signed maps; "
    "Spearman, SSIM and overlap of the strongest pixels of the strengths.",
    paper="Wang et al. 2004, Image Quality Assessment (SSIM); Adebayo et al. 2018, Sanity Checks for Saliency Maps "
    "(similarities of maps)",
    settings=Drift,
    image=measure,
    needs="baseline",
)
