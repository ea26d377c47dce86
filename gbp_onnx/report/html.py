"""The report as one HTML page: no network, no files beside it, light and dark, sortable, usable by keyboard."""

from __future__ import annotations

import base64
from typing import Any

from gbp_onnx.extras import extra
from gbp_onnx.report.record import AuditReport, CheckResult, ImageRow, number_text

__all__ = ["as_html"]

PASSING = 200  # images without a failure whose maps are shown; those with one are all shown


def as_html(report: AuditReport) -> str:
    """The report as the text of an HTML file."""
    with extra("audit"):
        from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("gbp_onnx.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["number"] = number_text
    page = environment.get_template("audit.html.j2")
    rows = _rows(report)
    return page.render(
        report=report,
        rows=rows,
        columns=_columns(report),
        curves=[(check, curve) for check in report.checks for curve in _curves(check)],
        words={"pass": "passed", "fail": "failed", "report": "reported", "error": "error", "skip": "left out"},
        word=_word,
    )


def _word(check: CheckResult) -> str:
    return "failed" if check.gates else {"pass": "passed", "fail": "reported", "skip": "left out"}[check.status]


def _columns(report: AuditReport) -> list[tuple[str, str]]:
    """(check, value) of the numbers that thresholds are about, for the table of images."""
    found: dict[tuple[str, str], None] = {}
    order = {"drift": 0, "coverage": 2, "parity": 2}  # what is nearly always 0 stands last
    for check in sorted(report.checks, key=lambda check: order.get(check.name, 1)):
        governed = {t.measure for t in check.thresholds}
        for finding in check.findings:
            if finding.image:
                found |= {(check.name, v): None for v in finding.values if v.rpartition(".")[2] in governed}
    return list(found)


def _rows(report: AuditReport) -> list[dict[str, Any]]:
    """The images, those that failed first, with their values and pictures."""
    values: dict[str, dict[tuple[str, str], Any]] = {}
    bad: dict[str, set[tuple[str, str]]] = {}
    for check in report.checks:
        for finding in check.findings:
            mine = values.setdefault(finding.image, {})
            for name, value in finding.values.items():
                mine[check.name, name] = value
                if finding.failed and f"{name} {number_text(value)} (" in finding.message:
                    bad.setdefault(finding.image, set()).add((check.name, name))
    order = {"error": 0, "fail": 1, "report": 2, "pass": 3}
    rows, passing = [], 0
    for image in sorted(report.images, key=lambda row: order[row.status]):
        passing += image.status == "pass"
        shown = image.status != "pass" or passing <= PASSING
        pictures = {kind: _data(report, image, kind) if shown else None for kind in ("photo", "map", "baseline")}
        rows.append(
            {
                "image": image,
                "values": values.get(image.name, {}),
                "bad": bad.get(image.name, set()),
                "pictures": pictures,
            }
        )
    return rows


def _data(report: AuditReport, image: ImageRow, kind: str) -> str | None:
    data = report.picture(image.name, kind)
    return None if data is None else f"data:image/jpeg;base64,{base64.b64encode(data).decode('ascii')}"


WIDTH, HEIGHT = 320, 120  # of a curve's drawing, in its own units


def _curves(check: CheckResult) -> list[dict[str, Any]]:
    """The curves of a check on the model: points from left to right, 0 to 1 upwards."""
    drawn = []
    for finding in check.findings:
        for kind in ("spearman", "ssim"):
            curve = finding.notes.get(kind)
            if isinstance(curve, list) and curve:
                values = [1.0, *curve]
                points = " ".join(
                    f"{WIDTH * k / (len(values) - 1):.1f},{HEIGHT * (1 - max(0.0, min(1.0, v))):.1f}"
                    for k, v in enumerate(values)
                )
                level = finding.values.get(f"{finding.about}.{kind}_pairs")
                drawn.append(
                    {
                        "title": f"{finding.about}: {kind}",
                        "points": points,
                        "bound": None if level is None else HEIGHT * (1 - max(0.0, min(1.0, float(level)))),
                        "first": values[1],
                        "last": values[-1],
                        "steps": len(curve),
                    }
                )
    return drawn
