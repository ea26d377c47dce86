"""The pytest plugin: a test item for each check of an audit.

    @pytest.mark.gbp_onnx(config="audit.toml")
    def test_explanations(gbp_onnx):
        ...

The test runs once for each check that the configuration switches on, and once for the images ("images": whether every
one can be read). `gbp_onnx` is that check's result (`gbp_onnx.report.record.CheckResult`). A check of severity "gate"
that fails fails its item, whatever the body does; one of severity "report" is left to the body. The audit itself runs
once for each configuration.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

__all__ = ["gbp_onnx"]

_REPORTS = pytest.StashKey[dict[Path, Any]]()


def pytest_configure(config: pytest.Config) -> None:
    """Announce the marker."""
    config.addinivalue_line(
        "markers", "gbp_onnx(config): run an audit's configuration, one test item per check (fixture gbp_onnx)"
    )
    config.stash[_REPORTS] = {}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """An item for each check."""
    marker = metafunc.definition.get_closest_marker("gbp_onnx")
    if marker is None or "gbp_onnx" not in metafunc.fixturenames:
        return
    from gbp_onnx.auditing.config import read_config
    from gbp_onnx.errors import AuditError

    path = _path(marker, metafunc.definition.path)
    try:
        found = read_config(path)
    except AuditError as error:
        raise pytest.UsageError(str(error)) from error
    metafunc.parametrize("gbp_onnx", ["images", *found.checks], indirect=True)


@pytest.fixture
def gbp_onnx(request: pytest.FixtureRequest) -> Any:
    """The result of one check: `.status`, `.message`, `.means`, `.findings`, `.failures`."""
    marker = request.node.get_closest_marker("gbp_onnx")
    if marker is None or not hasattr(request, "param"):
        pytest.fail('the fixture gbp_onnx goes with @pytest.mark.gbp_onnx(config="audit.toml")', pytrace=False)
    report = _report(request.config, _path(marker, request.node.path))
    if report.exit_status == 3:
        pytest.fail("the model cannot be explained:\n" + "\n".join(report.notes), pytrace=False)
    result = report.check(request.param)
    if result.status == "skip":
        pytest.skip(result.message)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Fail the item of a gating check that failed, after its body has had its say."""
    outcome = yield
    result = getattr(item, "funcargs", {}).get("gbp_onnx")
    if item.get_closest_marker("gbp_onnx") is not None and result is not None and result.gates:
        images = [f"  {finding.image}: {finding.message}" for finding in result.failures if finding.image]
        pytest.fail("\n".join([f"{result.code} {result.title}: {result.message}", *images[:20]]), pytrace=False)
    return outcome


def _path(marker: pytest.Mark, beside: Path) -> Path:
    """The configuration's path, relative to the test's file."""
    name = marker.kwargs.get("config", marker.args[0] if marker.args else None)
    if name is None:
        raise pytest.UsageError('write @pytest.mark.gbp_onnx(config="audit.toml")')
    return beside.parent / str(name)


def _report(config: pytest.Config, path: Path) -> Any:
    from gbp_onnx.auditing.api import audit

    known = config.stash[_REPORTS]
    if path not in known:
        known[path] = audit(path)
    return known[path]
