"""The report as JUnit XML: a suite for each check, a case for each image. What only reports is skipped, not failed.

The file keeps to what the two schemas in use (Ant's, and that of Jenkins' xUnit plugin) have in common.
"""

from __future__ import annotations

import io
import platform
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from gbp_onnx.extras import extra
from gbp_onnx.report.record import AuditReport, CheckResult, Finding, number_text

__all__ = ["as_junit"]

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def as_junit(report: AuditReport) -> str:
    """The report as the text of a JUnit XML file."""
    with extra("audit"):
        from junitparser import JUnitXml

    tree = JUnitXml()
    for number, check in enumerate(report.checks):
        tree.add_testsuite(_suite(check, report, number))
    for name in list(tree._elem.attrib):  # Ant's schema has none there
        del tree._elem.attrib[name]
    memory = io.BytesIO()
    tree.write(memory, pretty=True)
    return memory.getvalue().decode("utf-8")


def _suite(check: CheckResult, report: AuditReport, number: int) -> Any:
    from junitparser import TestSuite

    suite = TestSuite(f"{check.code} {check.title}")
    suite.timestamp = datetime.now().isoformat(timespec="seconds")
    suite.hostname = platform.node() or "localhost"
    suite._elem.set("id", str(number))
    suite._elem.set("package", "gbp-onnx.audit")
    suite.add_property("model", _clean(str(report.model.get("path", ""))))
    suite.add_property("severity", check.severity)
    for name, value in check.means.items():
        suite.add_property(_clean(name), number_text(value))
    for case in _cases(check):
        suite.add_testcase(case)
    suite.update_statistics()  # type: ignore[no-untyped-call]
    suite.time = 0.0
    for tag, text in (("system-out", _clean(check.message)), ("system-err", "")):
        element = suite._elem.makeelement(tag, {})
        element.text = text
        suite._elem.append(element)
    return suite


def _cases(check: CheckResult) -> Iterator[Any]:
    """A case for each finding, and one for the means where thresholds are about them."""
    for finding in check.findings:
        name = finding.image or finding.about or "model"
        yield _case(check, name, finding.status, finding.message, _values(finding))
    means = [threshold for threshold in check.thresholds if threshold.mean]
    if means:
        broken = [f"{t.words}: {number_text(t.value)}" for t in means if not t.passed]
        detail = "\n".join(f"{t.words}: {number_text(t.value)}" for t in means)
        yield _case(check, "means", "fail" if broken else "pass", "; ".join(broken), detail)


def _case(check: CheckResult, name: str, status: str, message: str, detail: str) -> Any:
    from junitparser import Error, Failure, Skipped, TestCase

    case = TestCase(_clean(name), classname=f"gbp-onnx.{check.name}", time=0.0)
    message, gates = _clean(message), check.severity == "gate"
    if status == "skip":
        case.result = [Skipped(message)]
    elif status in ("fail", "error") and not gates:
        case.result = [Skipped(f"reported, does not fail the run: {message}")]
    elif status in ("fail", "error"):
        kind = Failure if status == "fail" else Error
        outcome = kind(message, check.code)
        outcome.text = _clean(detail)
        case.result = [outcome]
    return case


def _values(finding: Finding) -> str:
    return "\n".join(f"{name}: {number_text(value)}" for name, value in finding.values.items())


def _clean(text: str) -> str:
    """Without the characters that XML cannot hold."""
    return _NOT_XML.sub("\ufffd", text)
