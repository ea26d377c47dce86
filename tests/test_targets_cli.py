"""Targets behind --target: the same as in Python, one for all images or one for each."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from PIL import Image

from gbp_onnx.cli.main import run
from tests.head_models import head_model
from tests.test_targets import photo


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """(status, stdout, stderr) of a command in a folder with three models and two pictures."""
    for name in ("deeplab", "yolov8", "embedding"):
        onnx.save(head_model(name), tmp_path / f"{name}.onnx")
    for k in range(2):
        Image.fromarray(photo(k, 40, 60)).save(tmp_path / f"{k}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)

    def call(*argv: str) -> tuple[int, str, str]:
        status = run([*argv])
        return status, *capsys.readouterr()

    return call


@pytest.mark.parametrize(
    ("model", "target", "recorded", "explains"),
    [
        ("deeplab", "mask:2", "mask:2", "class 2 over its predicted mask"),
        ("yolov8", "box:1@9", [5, 9], "class 1 in box 9"),
        ("yolov8", "output0[0, 5, 3]", [5, 3], "output0[5, 3]"),
        ("yolov8", "[5,3]", [5, 3], "output0[5, 3]"),
        ("yolov8", "5,3", [5, 3], "output[5, 3]"),
        ("embedding", "similar:1.png", "similar:1.png", "similarity to 1.png"),
        ("embedding", "vector[3]", 3, "vector[3]"),
    ],
)
def test_targets_on_the_command_line(
    cli: Callable[..., Any], model: str, target: str, recorded: Any, explains: str
) -> None:
    status, out, err = cli("explain", f"{model}.onnx", "0.png", "--json", "--preprocess", "unit", "-t", target)
    (record,) = json.loads(out)
    assert status == 0 and record["target"] == recorded and record["explains"].startswith(explains)
    assert explains in err and Path(record["files"][-1]).exists()


def test_a_target_for_each_image_on_the_command_line(cli: Callable[..., Any]) -> None:
    common = ("explain", "yolov8.onnx", "0.png", "1.png", "--json", "--preprocess", "unit")
    Path("targets.txt").write_text("box:1@3\n\n[4, 7]\n")
    for targets in (("-t", "box:1@3", "-t", "[4, 7]"), ("-t", "@targets.txt")):
        status, out, _ = cli(*common, *targets)
        assert status == 0 and [r["target"] for r in json.loads(out)] == [[5, 3], [4, 7]]
    for targets in (("-t", "1", "-t", "2", "-t", "3"), ("-t", "@missing.txt"), ("-t", "mask:9")):
        status, out, _ = cli(*common, *targets)
        assert status == 2 and "GBP407" in out


def test_a_bad_target_lists_the_outputs(cli: Callable[..., Any]) -> None:
    status, _, err = cli("explain", "embedding.onnx", "0.png", "-t", "scores[0, 3]")
    assert status == 2 and "GBP407" in err and "'vector' ['N', 16]" in err
