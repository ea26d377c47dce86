"""Results put together into the report, and the exit status that follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gbp_onnx.auditing.checks import CHECKS
from gbp_onnx.auditing.config import Config
from gbp_onnx.auditing.item import Item
from gbp_onnx.auditing.judge import finding_of, judged
from gbp_onnx.errors import OperatorError, Reason
from gbp_onnx.report.record import AuditReport, CheckResult, Finding, ImageRow
from gbp_onnx.version import package_version

__all__ = ["ImageResult", "report_of", "unexplainable"]

PASSED, FAILED, NOT_EXPLAINABLE = 0, 1, 3


@dataclass(frozen=True, slots=True)
class ImageResult:
    """What was measured of an image, as it is kept. `key`: under which name."""

    item: Item
    key: str
    result: Mapping[str, Any]


def report_of(
    config: Config,
    facts: Mapping[str, Any],
    of_model: Mapping[str, Sequence[Mapping[str, Any]]],
    images: Sequence[ImageResult],
    total: int,
    complete: bool,
) -> AuditReport:
    """Judge everything that was measured. Incomplete runs do not pass."""
    checks = [_images_check(config, images)]
    for name, settings in config.checks.items():
        findings = [finding_of(result, settings) for result in of_model.get(name, ())]
        findings += [
            finding_of(image.result["checks"][name], settings, image.item.name)
            for image in images
            if name in image.result.get("checks", {})
        ]
        line = config.lines.get(("checks", name))
        checks.append(judged(CHECKS[name], settings, findings, line))
    status = FAILED if any(check.gates for check in checks) or not complete else PASSED
    notes = []
    if not complete:
        notes.append(f"the time was over after {len(images)} of {total} images: run it again, it goes on from there")
    for check in checks:
        notes += [str(f.notes["sentence"]) for f in check.findings if "sentence" in f.notes]
        notes += [f"{check.name}: {said}" for f in check.findings for said in f.notes.get("warnings", ())]
    rows = tuple(_row(image, checks) for image in images)
    return AuditReport(
        config.where,
        facts["model"],
        facts["baseline"],
        facts["versions"],
        tuple(checks),
        rows,
        total,
        complete,
        status,
        tuple(notes),
    )


def _images_check(config: Config, images: Sequence[ImageResult]) -> CheckResult:
    """Whether every image could be read: the check that is always there."""
    findings = tuple(
        Finding("error" if "error" in image.result else "pass", image.item.name, message=image.result.get("error", ""))
        for image in images
    )
    bad = [finding for finding in findings if finding.failed]
    named = ", ".join(f"{f.image} ({f.message})" for f in bad[:3]) + (" ..." if len(bad) > 3 else "")
    return CheckResult(
        "GBP-A0",
        "images",
        "Images",
        config.images.severity,
        "fail" if bad else "pass",
        f"{len(bad)} of {len(images)} images: {named}" if bad else "",
        "Every image can be read and explained.",
        "",
        (),
        {},
        findings,
        config.lines.get(("images",)),
    )


def _row(image: ImageResult, checks: Sequence[CheckResult]) -> ImageRow:
    mine = [(check, finding) for check in checks for finding in check.findings if finding.image == image.item.name]
    bad = [(check, finding) for check, finding in mine if finding.failed]
    gating = [finding for check, finding in bad if check.severity == "gate"]
    status = "error" if any(f.status == "error" for f in gating) else "fail" if gating else "report" if bad else "pass"
    row = image.result.get("row", {})
    return ImageRow(
        image.item.name,
        str(image.item.path),
        status,
        label=image.item.label,
        predicted=row.get("predicted"),
        score=row.get("score"),
        explained=row.get("explained"),
        message="; ".join(f"{check.name}: {finding.message}" for check, finding in bad),
    )


def unexplainable(config: Config, error: OperatorError, total: int) -> AuditReport:
    """The report on a model that cannot be explained: coverage fails with every reason, the rest is left out."""
    checks = []
    reasons = [str(reason) for reason in error.reasons] or [error.what]
    for name, settings in config.checks.items():
        finding = Finding("skip", message="the model cannot be explained")
        if name == "coverage":
            finding = Finding(
                "fail",
                message="; ".join(reasons),
                values={"unsupported": float(len(reasons))},
                notes={"reasons": [_plain(reason) for reason in error.reasons]},
            )
        checks.append(judged(CHECKS[name], settings, [finding], config.lines.get(("checks", name))))
    return AuditReport(
        config.where,
        {"path": str(config.model.path)},
        None,
        {"gbp-onnx": package_version()},
        tuple(checks),
        (),
        total,
        False,
        NOT_EXPLAINABLE,
        tuple(reasons),
    )


def _plain(reason: Reason) -> dict[str, str]:
    return {"code": reason.code, "op": reason.op, "node": reason.node, "why": reason.why}
