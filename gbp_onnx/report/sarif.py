"""The report as SARIF 2.1.0 (OASIS): checks are rules, what failed are results at the image or the model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from gbp_onnx.report.record import AuditReport, CheckResult, Finding, number_text

__all__ = ["as_sarif"]

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def as_sarif(report: AuditReport) -> str:
    """The report as the text of a SARIF file."""
    run = {
        "tool": {
            "driver": {
                "name": "gbp-onnx",
                "semanticVersion": _semantic(report.versions.get("gbp-onnx", "")),
                "rules": [_rule(check) for check in report.checks],
            }
        },
        "invocations": [
            {
                "executionSuccessful": report.exit_status in (0, 1),
                "exitCode": report.exit_status,
                "toolExecutionNotifications": [{"level": "note", "message": {"text": note}} for note in report.notes],
            }
        ],
        "results": [result for k, check in enumerate(report.checks) for result in _results(report, check, k)],
        "columnKind": "unicodeCodePoints",
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1, ensure_ascii=False) + "\n"


def _semantic(version: str) -> str:
    """A version that SemVer knows."""
    return version if version.count(".") == 2 and "+" not in version else "0.0.0"


def _level(check: CheckResult) -> str:
    return "error" if check.severity == "gate" else "warning"


def _rule(check: CheckResult) -> dict[str, Any]:
    paper = f" ({check.paper})" if check.paper else ""
    return {
        "id": check.code,
        "name": check.title.title().replace(" ", ""),
        "shortDescription": {"text": check.title},
        "fullDescription": {"text": check.meaning},
        "help": {"text": f"{check.meaning}{paper}"},
        "defaultConfiguration": {"level": _level(check)},
    }


def _results(report: AuditReport, check: CheckResult, index: int) -> Iterator[dict[str, Any]]:
    for finding in check.failures:
        place = _image_path(report, finding.image) if finding.image else str(report.model.get("path", ""))
        yield _result(check, index, f"{_subject(finding)}: {finding.message}", place, dict(finding.values))
    means = [f"{t.words}: {number_text(t.value)}" for t in check.thresholds if t.mean and not t.passed]
    if means:
        yield _result(check, index, "; ".join(means), str(report.model.get("path", "")), dict(check.means))


def _subject(finding: Finding) -> str:
    return finding.image or finding.about or "the model"


def _result(check: CheckResult, index: int, text: str, place: str, values: dict[str, Any]) -> dict[str, Any]:
    digest = hashlib.sha256(f"{check.code}\0{place}".encode()).hexdigest()[:32]
    return {
        "ruleId": check.code,
        "ruleIndex": index,
        "level": _level(check),
        "message": {"text": f"{check.title}: {text}"},
        "locations": [
            {"physicalLocation": {"artifactLocation": {"uri": _uri(place)}, "region": {"startLine": 1}}},
        ],
        "partialFingerprints": {"gbp/v1": digest},
        "properties": {"values": values},
    }


def _image_path(report: AuditReport, name: str) -> str:
    return next((row.path for row in report.images if row.name == name), name)


def _uri(path: str) -> str:
    """A path as a URI, relative where it is."""
    pure = PurePath(path)
    return pure.as_uri() if pure.is_absolute() else quote(pure.as_posix())
