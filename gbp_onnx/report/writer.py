"""Reports as files, by the name of their format."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from gbp_onnx.files import write_whole
from gbp_onnx.report.record import AuditReport

__all__ = ["FORMATS", "text", "write"]

FORMATS = {
    "json": "json_file:as_json",
    "junit": "junit:as_junit",
    "sarif": "sarif:as_sarif",
    "markdown": "markdown:as_markdown",
    "html": "html:as_html",
}
"""Format -> the module here, and the function in it that makes the text. Modules are loaded when they are used."""


def text(report: AuditReport, form: str) -> str:
    """The report in a format. Raises GBP412 where a package that it needs is missing."""
    module, _, name = FORMATS[form].partition(":")
    made: str = getattr(import_module(f"gbp_onnx.report.{module}"), name)(report)
    return made


def write(report: AuditReport, form: str, path: str) -> bool:
    """Write the report to a file, whole or not at all; False where the path is "-" and nothing is written."""
    if path == "-":
        return False
    made = text(report, form)
    with write_whole(Path(path)) as temporary:
        temporary.write_text(made, encoding="utf-8")
    return True
