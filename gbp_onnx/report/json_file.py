"""The report as JSON: its schema has a version, and lies beside this file (audit-1.schema.json)."""

from __future__ import annotations

import json
from typing import Any

from gbp_onnx.report.record import AuditReport, CheckResult, Finding, ImageRow

__all__ = ["SCHEMA", "as_json", "to_dict"]

SCHEMA = "gbp-onnx/audit/1"
"""Fields may be added under the same version; a change of meaning makes a new one."""


def as_json(report: AuditReport) -> str:
    """The report as text. The same measurements give the same bytes: no times, no random order."""
    return json.dumps(to_dict(report), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def to_dict(report: AuditReport) -> dict[str, Any]:
    """The report as plain JSON values."""
    return {
        "schema": SCHEMA,
        "summary": report.summary,
        "passed": report.passed,
        "complete": report.complete,
        "exit_status": report.exit_status,
        "config": report.config,
        "model": dict(report.model),
        "baseline": None if report.baseline is None else dict(report.baseline),
        "versions": dict(report.versions),
        "notes": list(report.notes),
        "checks": [_check(check) for check in report.checks],
        "images": {"total": report.total, "seen": len(report.images), "rows": [_row(row) for row in report.images]},
    }


def _check(check: CheckResult) -> dict[str, Any]:
    return {
        "code": check.code,
        "name": check.name,
        "title": check.title,
        "severity": check.severity,
        "status": check.status,
        "gates": check.gates,
        "message": check.message,
        "meaning": check.meaning,
        "paper": check.paper,
        "line": check.line,
        "thresholds": [
            {"words": t.words, "measure": t.measure, "mean": t.mean, "value": t.value, "passed": t.passed}
            for t in check.thresholds
        ],
        "means": dict(check.means),
        "findings": [_finding(finding) for finding in check.findings],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "status": finding.status,
        "image": finding.image or None,
        "about": finding.about or None,
        "message": finding.message,
        "values": dict(finding.values),
        "notes": dict(finding.notes),
    }


def _row(row: ImageRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "path": row.path,
        "status": row.status,
        "label": row.label,
        "predicted": row.predicted,
        "score": row.score,
        "explained": row.explained,
        "message": row.message,
    }
