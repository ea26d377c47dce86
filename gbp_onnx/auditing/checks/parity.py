"""Parity: the explainer computes what the model computes, twice the same, and the same on every device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gbp_onnx.auditing.case import Case
from gbp_onnx.auditing.check import Check, Measured
from gbp_onnx.auditing.item import spread
from gbp_onnx.auditing.settings import CheckSettings, limit, whole
from gbp_onnx.metrics import cosine
from gbp_onnx.runtime.providers import CPU, choose_providers

__all__ = ["CHECK"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity(CheckSettings):
    """How far two runs may be apart."""

    max_forward_difference: float | None = limit(
        1e-3, "between the model's output and its explainer's, over the output's largest value", 0
    )
    max_repeat_difference: float | None = limit(
        0.0, "between the maps of two runs; 0: bit-equal (on CUDA, allow 1e-6)", 0
    )
    max_device_difference: float | None = limit(
        1e-3, "1 - cosine between the maps of CPU and CUDA, where both are there", 0
    )
    repeat_images: int = whole(10, "images that are run twice, evenly spread; 0: all")


def measure(case: Case, settings: Parity) -> Measured:
    """Run the source model beside its explainer, some images a second time, and on the CPU besides CUDA."""
    run, subject = case.run, case.subject
    own = np.asarray(subject.forward(case.x), np.float64)
    scale = float(np.abs(own).max()) or 1.0
    values = {"forward_difference": float(np.abs(own - run.values).max()) / scale}
    if case.item in spread(case.lab.items, settings.repeat_images):
        again = subject.explain(case.x, case.frame, run.target)
        peak = max((float(np.abs(a).max()) for a in run.raw.values()), default=0.0) or 1.0
        values["repeat_difference"] = max(
            float(np.abs(run.raw[rule].astype(np.float64) - again.raw[rule]).max()) / peak for rule in run.raw
        )
    if subject.runner.providers[0] != CPU:
        other = subject.elsewhere(choose_providers("cpu")).explain(case.x, case.frame, run.target)
        values["device_difference"] = max(1 - (cosine(run.raw[rule], other.raw[rule]) or 0.0) for rule in run.raw)
    return Measured(values)


CHECK = Check(
    code="GBP-A2",
    name="parity",
    title="Parity",
    meaning="The explainer's forward pass gives the model's own output, the same run gives the same bits, and CPU and "
    "CUDA agree where both exist.",
    paper="Higham 2002, Accuracy and Stability of Numerical Algorithms (forward error, reproducible rounding)",
    settings=Parity,
    image=measure,
)
