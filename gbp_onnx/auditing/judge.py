"""Measurements against thresholds: the only place where something passes or fails."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gbp_onnx.auditing.check import Check
from gbp_onnx.auditing.settings import CheckSettings, Limit, limits_of
from gbp_onnx.report.record import CheckResult, Finding, Threshold, number_text

__all__ = ["finding_of", "judged"]

Result = Mapping[str, Any]
"""A stored measurement: values, notes, failure, about; or skip; or error."""


def finding_of(result: Result, settings: CheckSettings, image: str = "") -> Finding:
    """A measurement judged by the thresholds for one image."""
    values, notes = result.get("values", {}), result.get("notes", {})
    base = {"image": image, "about": result.get("about", ""), "values": values, "notes": notes}
    if result.get("skip"):
        return Finding("skip", message=result["skip"], **base)
    if result.get("error"):
        return Finding("error", message=result["error"], **base)
    broken = [
        f"{name} {number_text(value)} (wanted {limit.words})"
        for limit in limits_of(settings)
        if not limit.mean
        for name, value in values.items()
        if limit.governs(name) and not limit.holds(value)
    ]
    if result.get("failure"):
        broken.insert(0, result["failure"])
    return Finding("fail" if broken else "pass", message="; ".join(broken), **base)


def judged(check: Check, settings: CheckSettings, findings: Sequence[Finding], line: int | None) -> CheckResult:
    """A check over all its findings: each of them, and the means."""
    means = _means(findings)
    thresholds = tuple(_threshold(limit, means, findings) for limit in limits_of(settings))
    failed = [finding for finding in findings if finding.failed]
    said = [f"{t.words}: {number_text(t.value)}" for t in thresholds if t.mean and not t.passed]
    of_model = [f for f in failed if not f.image]
    said += [f"{f.about + ': ' if f.about else ''}{f.message}" for f in of_model]
    of_images = [f for f in failed if f.image]
    if of_images:
        named = ", ".join(f.image for f in of_images[:3]) + (" ..." if len(of_images) > 3 else "")
        said.append(f"{len(of_images)} of {len([f for f in findings if f.image])} images: {named}")
    skipped = [f for f in findings if f.status == "skip"]
    if not findings or len(skipped) == len(findings):
        status, message = "skip", skipped[0].message if skipped else "nothing was looked at"
    else:
        status, message = ("fail", "; ".join(said)) if said else ("pass", "")
    return CheckResult(
        check.code,
        check.name,
        check.title,
        settings.severity,
        status,
        message,
        check.meaning,
        check.paper,
        thresholds,
        means,
        tuple(findings),
        line,
    )


def _means(findings: Sequence[Finding]) -> dict[str, float | None]:
    """The mean of each value over the findings that have it; None where one of them could not be computed."""
    columns: dict[str, list[float | None]] = {}
    for finding in findings:
        for name, value in finding.values.items():
            columns.setdefault(name, []).append(None if value is None else float(value))
    return {name: _mean(column) for name, column in columns.items()}


def _mean(column: Sequence[float | None]) -> float | None:
    known = [value for value in column if value is not None]
    return math.fsum(known) / len(known) if len(known) == len(column) else None


def _threshold(limit: Limit, means: Mapping[str, float | None], findings: Sequence[Finding]) -> Threshold:
    """A limit with the worst of the means, or of the images, that it is about."""
    if limit.mean:
        values = [value for name, value in means.items() if limit.governs(name)]
    else:
        values = [
            None if value is None else float(value)
            for finding in findings
            for name, value in finding.values.items()
            if limit.governs(name)
        ]
    known = [value for value in values if value is not None]
    worst = None if len(known) < len(values) or not known else (min(known) if limit.kind == "min" else max(known))
    return Threshold(limit.words, limit.measure, limit.mean, worst, all(limit.holds(value) for value in values))
