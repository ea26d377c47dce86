"""The report as Markdown, for a job summary or a pull request."""

from __future__ import annotations

import re
from collections.abc import Iterator

from gbp_onnx.report.record import AuditReport, CheckResult, number_text

__all__ = ["as_markdown"]

MOST = 50  # images that a table names


def as_markdown(report: AuditReport) -> str:
    """The report as the text of a Markdown file."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: AuditReport) -> Iterator[str]:
    yield f"## {'✅' if report.passed else '❌'} Audit of `{report.model.get('path', '')}`"
    yield ""
    yield f"{_escaped(report.summary)}."
    if report.baseline is not None:
        yield f"Compared with `{report.baseline['path']}`."
    yield ""
    yield "| | check | severity | thresholds |"
    yield "|---|---|---|---|"
    for check in report.checks:
        held = "<br>".join(_threshold(t.words, t.value, t.passed) for t in check.thresholds if t.value is not None)
        yield f"| {_mark(check)} | {check.code} {check.title} | {check.severity} | {held} |"
    for check in report.checks:
        if check.status == "fail":
            yield from _failed(check)
    if report.notes:
        yield ""
        yield from (f"- {_escaped(note)}" for note in report.notes)


def _mark(check: CheckResult) -> str:
    return "❌" if check.gates else {"pass": "✅", "fail": "⚠️", "skip": "⏭️"}[check.status]


def _threshold(words: str, value: float | None, passed: bool) -> str:
    text = f"{_escaped(words)}: {number_text(value)}"
    return text if passed else f"**{text}**"


def _failed(check: CheckResult) -> Iterator[str]:
    yield ""
    yield f"### {_mark(check)} {check.title}"
    yield ""
    yield f"{_escaped(check.message)}"
    images = [finding for finding in check.failures if finding.image]
    if images:
        yield ""
        yield "| image | what |"
        yield "|---|---|"
        yield from (f"| {_escaped(finding.image)} | {_escaped(finding.message)} |" for finding in images[:MOST])
    if len(images) > MOST:
        yield ""
        yield f"And {len(images) - MOST} more."


def _escaped(text: str) -> str:
    """Text that Markdown leaves as it is."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))
