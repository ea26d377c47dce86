"""Coverage: every operator has a derivative, every rectifier is gated, nothing falls back silently."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gbp_onnx.auditing.case import Case, Lab
from gbp_onnx.auditing.check import Check, Measured
from gbp_onnx.auditing.settings import CheckSettings, limit
from gbp_onnx.inspection import inspect

__all__ = ["CHECK"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage(CheckSettings):
    """What is allowed to be missing."""

    max_unsupported: float | None = limit(0.0, "operators without a derivative; with one, nothing can be explained", 0)
    max_ungated: float | None = limit(0.0, "activations that no rule gates (the map is partly a plain gradient)", 0)
    min_rectifiers: float | None = limit(1.0, "rectifiers that the rules gate", 0)
    max_fallbacks: float | None = limit(0.0, "providers that were asked for and are not used", 0)
    max_not_finite: float | None = limit(0.0, "values of a map that are NaN or infinite", 0)
    max_zero_maps: float | None = limit(0.0, "maps that are zero everywhere", 0)


def measure_model(lab: Lab, settings: Coverage) -> Iterator[Measured]:
    """Count what `inspect` sees, and compare the providers with those that were chosen."""
    subject = lab.subject
    found = inspect(subject.source, **subject.options)
    fallen = [name for name in subject.choice.names if name not in subject.runner.providers]
    values = {
        "unsupported": len(found.unsupported),
        "ungated": len(found.ungated),
        "rectifiers": len(found.rectifiers),
        "fallbacks": len(fallen),
    }
    notes = {
        "rectifiers": ", ".join(f"{count} {kind}" for kind, count in found.counts.items()) or "none",
        "ungated": [f"{entry['kind']} {entry['name']}" for entry in found.ungated],
        "fallbacks": fallen,
        "providers": list(subject.runner.providers),
        "warnings": [*found.warnings, *_said(lab)],
    }
    yield Measured(values, notes)


def _said(lab: Lab) -> Iterator[str]:
    if lab.subject.guessed:
        yield f"the model does not say how it wants its input: {lab.subject.preprocess.name!r} is a guess"


def measure_image(case: Case, settings: Coverage) -> Measured:
    """Look for NaN, infinite values and zeros in the maps."""
    maps = case.run.maps
    broken = {rule: int((~np.isfinite(a)).sum()) for rule, a in maps.items()}
    zero = [rule for rule, a in maps.items() if not a.any()]
    notes = {"zero": zero} if zero else {}
    return Measured({"not_finite": sum(broken.values()), "zero_maps": len(zero)}, notes)


CHECK = Check(
    code="GBP-A1",
    name="coverage",
    title="Coverage",
    meaning="Every operator between the image and the explained value has a derivative, every rectifier is gated, the "
    "providers that were asked for are used, and the maps are finite and not zero.",
    paper="Springenberg et al. 2014, Striving for Simplicity: The All Convolutional Net",
    settings=Coverage,
    image=measure_image,
    model=measure_model,
)
