"""Annotations for GitHub Actions, and the job's summary."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from gbp_onnx.report.markdown import as_markdown
from gbp_onnx.report.record import AuditReport, CheckResult

__all__ = ["commands", "job_summary"]

NAMED = 8  # images that an annotation names


def commands(report: AuditReport) -> Iterator[str]:
    """Workflow commands: one for each check that failed, at its table in the configuration; last the summary.

    GitHub shows ten of a kind for each step, so that images are named inside.
    """
    if report.exit_status == 3:
        reasons = "\n".join(report.notes)
        yield _command("error", report, None, "the model cannot be explained", reasons)
    for check in report.checks:
        if check.status == "fail" and report.exit_status != 3:
            kind = "error" if check.severity == "gate" else "warning"
            yield _command(kind, report, check.line, f"{check.code} {check.title}", _words(check))
    if not report.complete and report.exit_status != 3:
        yield _command("error", report, None, "not complete", report.notes[0] if report.notes else report.summary)
    yield _command("notice", report, None, "gbp-onnx audit", report.summary)


def job_summary(report: AuditReport) -> None:
    """Append the report to the job's summary, where there is one ($GITHUB_STEP_SUMMARY)."""
    place = os.environ.get("GITHUB_STEP_SUMMARY")
    if place:
        with Path(place).open("a", encoding="utf-8") as file:
            file.write(as_markdown(report))


def _words(check: CheckResult) -> str:
    lines = [check.message]
    images = [finding for finding in check.failures if finding.image]
    lines += [f"{finding.image}: {finding.message}" for finding in images[:NAMED]]
    if len(images) > NAMED:
        lines.append(f"and {len(images) - NAMED} more")
    return "\n".join(lines)


def _command(kind: str, report: AuditReport, line: int | None, title: str, message: str) -> str:
    where = [("file", report.config), *([("line", str(line))] if line else []), ("title", title)]
    properties = ",".join(f"{key}={_property(value)}" for key, value in where)
    return f"::{kind} {properties}::{_data(message)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
