"""Tests keep nothing in the user's cache, and find nothing there."""

import os
import shutil
from pathlib import Path

import pytest

os.environ["GBP_CACHE"] = "off"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("GBP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model file that the test may change: the bundled one."""
    from gbp_onnx import bundled

    return Path(shutil.copy(bundled.model_path(), tmp_path / "model.onnx"))
