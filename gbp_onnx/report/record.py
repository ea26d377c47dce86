"""The record of an audit: what every report is written from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["AuditReport", "CheckResult", "Finding", "ImageRow", "Threshold", "number_text"]

Values = Mapping[str, float | bool | None]


@dataclass(frozen=True, slots=True)
class Threshold:
    """A limit of a check and how it came out. `value`: what was measured (the worst image's, or the mean)."""

    words: str
    measure: str
    mean: bool
    value: float | None
    passed: bool


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found in one image, or in the model as a whole (`image` is empty).

    `status`: "pass", "fail", "error" (it could not be measured) or "skip" (there was nothing to measure). `message`:
    why it is none of "pass". `about`: what was measured, where a model has several findings.
    """

    status: str
    image: str = ""
    about: str = ""
    message: str = ""
    values: Values = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Whether it counts against the check."""
        return self.status in ("fail", "error")


@dataclass(frozen=True, slots=True)
class CheckResult:
    """A check over the model and all images. `status`: "pass", "fail" or "skip". `line`: of its table in the config."""

    code: str
    name: str
    title: str
    severity: str
    status: str
    message: str
    meaning: str
    paper: str
    thresholds: tuple[Threshold, ...]
    means: Values
    findings: tuple[Finding, ...]
    line: int | None = None

    @property
    def gates(self) -> bool:
        """Whether it fails the run."""
        return self.status == "fail" and self.severity == "gate"

    @property
    def failures(self) -> tuple[Finding, ...]:
        """The findings that count against it."""
        return tuple(finding for finding in self.findings if finding.failed)


@dataclass(frozen=True, slots=True)
class ImageRow:
    """An image in the reports. `status`: the worst of its findings by the gating checks. `picture(kind)`: a small JPEG
    of "photo", "map" or "baseline", or None.
    """

    name: str
    path: str
    status: str
    label: str | None = None
    predicted: str | None = None
    score: float | None = None
    explained: str | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class AuditReport:
    """A finished (or stopped) audit. `exit_status`: as the command line returns it. `complete`: whether every image was
    looked at. `picture(image, kind)`: a small JPEG for the page, or None.
    """

    config: str
    model: Mapping[str, Any]
    baseline: Mapping[str, Any] | None
    versions: Mapping[str, str]
    checks: tuple[CheckResult, ...]
    images: tuple[ImageRow, ...]
    total: int
    complete: bool
    exit_status: int
    notes: tuple[str, ...] = ()
    picture: Callable[[str, str], bytes | None] = field(default=lambda image, kind: None, repr=False, compare=False)

    @property
    def passed(self) -> bool:
        """Whether nothing fails the run."""
        return self.exit_status == 0

    def check(self, name: str) -> CheckResult:
        """The result of a check, by its name. Raises KeyError."""
        return {check.name: check for check in self.checks}[name]

    @property
    def summary(self) -> str:
        """One line: how it ended, and why."""
        failed = [check for check in self.checks if check.gates]
        seen = f"{len(self.images)} of {self.total} images" if not self.complete else f"{self.total} images"
        if failed:
            return f"failed: {', '.join(check.name for check in failed)} ({seen})"
        reported = [check.name for check in self.checks if check.status == "fail"]
        tail = f"; reported: {', '.join(reported)}" if reported else ""
        return f"{'passed' if self.passed else 'not complete'}: {len(self.checks)} checks on {seen}{tail}"


def number_text(value: float | bool | None) -> str:
    """A measured value in words."""
    if value is None:
        return "-"
    return ("yes" if value else "no") if isinstance(value, bool) else f"{value:.4g}"
