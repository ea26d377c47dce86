"""Stability: a change that nobody sees does not change the map."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gbp_onnx.auditing.case import Case
from gbp_onnx.auditing.check import Check, Measured
from gbp_onnx.auditing.settings import CheckSettings, limit, names, number, text, whole
from gbp_onnx.imaging.photo import read_photo
from gbp_onnx.imaging.regions import jpeg
from gbp_onnx.metrics import spearman, ssim

__all__ = ["CHECK"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stability(CheckSettings):
    """The changes, and how alike the maps must stay."""

    severity: str = text("report", "gate: can fail the run; report: measured and shown", ("gate", "report"))
    images: int = whole(20, "how many images it looks at, evenly spread; 0: all")
    rules: tuple[str, ...] = names(("guided",), "the maps that are compared")
    noise: float = number(2.0, "standard deviation of the noise, of 255; 0: left out", 0.0, 255.0)
    shift: int = whole(2, "pixels that the picture is moved, right and down; 0: left out", 0, 64)
    jpeg_quality: int = whole(80, "of the file that the picture is stored in; 0: left out", 0, 100)
    min_mean_noise_spearman: float | None = limit(0.5, "rank correlation of the strengths at each pixel", -1, 1)
    min_mean_shift_spearman: float | None = limit(0.5, "the same, the map moved back", -1, 1)
    min_mean_jpeg_spearman: float | None = limit(0.5, "the same", -1, 1)
    max_mean_top1_changed: float | None = limit(0.1, "share of changes that change the predicted class", 0, 1)


def measure(case: Case, settings: Stability) -> Measured:
    """Explain the same class in each changed picture."""
    values: dict[str, float | bool | None] = {}
    changed = []
    top1 = int(np.argmax(case.run.values))
    for name, pixels, moved in _changes(case, settings):
        x, frame = case.subject.see(read_photo(pixels))
        run = case.subject.explain(x, frame, case.target)
        changed.append(float(int(np.argmax(run.values)) != top1))
        for rule in settings.rules:
            still, now = case.run.maps[rule], run.maps[rule]
            still, now = (still[:-moved, :-moved], now[moved:, moved:]) if moved else (still, now)
            values[f"{rule}.{name}_spearman"] = spearman(still, now)
            values[f"{rule}.{name}_ssim"] = ssim(still, now)
    if changed:
        values["top1_changed"] = sum(changed) / len(changed)
    return Measured(values)


def _changes(case: Case, settings: Stability) -> Iterator[tuple[str, NDArray[np.uint8], int]]:
    """(name, changed picture, pixels that it was moved)."""
    image = case.frame.image
    if settings.noise:
        generator = case.lab.random(zlib.crc32(case.item.name.encode()))
        noisy = image + generator.normal(0.0, settings.noise, image.shape)
        yield "noise", np.rint(np.clip(noisy, 0, 255)).astype(np.uint8), 0
    if settings.shift and settings.shift < min(image.shape[:2]):
        by = settings.shift
        yield "shift", np.pad(image, ((by, 0), (by, 0), (0, 0)), mode="edge")[:-by, :-by], by
    if settings.jpeg_quality:
        yield "jpeg", np.array(jpeg(read_photo(image), settings.jpeg_quality)), 0


CHECK = Check(
    code="GBP-A9",
    name="stability",
    title="Stability",
    meaning="A little noise, a shift by a few pixels and JPEG compression leave prediction and map as they were.",
    paper="Alvarez-Melis & Jaakkola 2018, On the Robustness of Interpretability Methods; Kindermans et al. 2017, The "
    "(Un)reliability of Saliency Methods",
    settings=Stability,
    image=measure,
)
