"""The command line: what lands on stdout and stderr, exit statuses, files, and what bad input leads to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from make_tiny import make
from PIL import Image

from gbp_onnx import bundled
from gbp_onnx.cli.main import run
from gbp_onnx.errors import CODES

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Result:
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Result]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a few models and pictures."""
    for name in ("labelled", "plain", "two_inputs", "segmentation", "no_rectifier", "not_differentiable", "unknown_op"):
        onnx.save(make(name), tmp_path / f"{name}.onnx")
    random = np.random.default_rng(0)
    for name, shape in (("one", (40, 60, 3)), ("two", (60, 40, 3)), ("grey", (30, 30))):
        Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "text.png").write_text("this is no picture")
    (tmp_path / "text.onnx").write_text("this is no model")
    (tmp_path / "empty.onnx").write_bytes(b"")
    (tmp_path / "garbage.onnx").write_bytes(random.bytes(4096))
    (tmp_path / "half.onnx").write_bytes((tmp_path / "plain.onnx").read_bytes()[:1500])
    (tmp_path / "half.png").write_bytes((tmp_path / "one.png").read_bytes()[:2000])
    (tmp_path / "labels.txt").write_text("ant\nbee\ncat\ndog\nelk\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def cli(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run a command in this process; an exception that comes through is a traceback, and fails the test."""
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)

    def call(*argv: object) -> Result:
        capsys.readouterr()
        status = run([str(arg) for arg in argv])
        captured = capsys.readouterr()
        return Result(status, captured.out, captured.err)

    return call


def shell(*argv: str, cwd: Path, **environment: str) -> Result:
    done = subprocess.run(
        [sys.executable, "-m", "gbp_onnx", *argv],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return Result(done.returncode, done.stdout, done.stderr)


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# --- explain ------------------------------------------------------------------------------------------------------


def test_without_arguments_the_bundled_cat(folder: Path) -> None:
    """By subprocess: the whole way, as a user goes it."""
    done = shell("explain", cwd=folder)
    assert done.status == 0
    assert done.lines == ["gbp-out/chelsea.png"]
    with Image.open(folder / "gbp-out" / "chelsea.png") as figure:
        assert figure.width > 3 * figure.height * 0.8
    assert "Egyptian cat" in done.err and "tabby" in done.err
    assert "warning" not in done.err


def test_warnings_and_predictions_are_on_stderr(folder: Path) -> None:
    done = shell("explain", "plain.onnx", "one.png", "-o", "figure.png", cwd=folder)
    assert (done.status, done.lines) == (0, ["figure.png"])
    assert "warning: the model does not say how it wants its input: 'imagenet' is a guess" in done.err
    assert "running on" in done.err and "one.png" in done.err


def test_the_figure_is_the_last_line(cli: Cli, folder: Path) -> None:
    done = cli("explain", "labelled.onnx", "one.png", "--maps", "--raw", "--overlay", "-o", "out")
    assert done.status == 0
    rules = ("saliency", "deconvnet", "guided")
    pictures = {f"out/one.{rule}{kind}.png" for rule in rules for kind in ("", ".overlay")}
    assert set(done.lines) == {"out/one.npz", "out/one.json", "out/one.png"} | pictures
    assert done.lines[-1] == "out/one.png"
    assert all((folder / line).is_file() for line in done.lines)
    assert {f for f in files(folder) if f.startswith("out/")} == set(done.lines)
    for rule in rules:
        with (
            Image.open(folder / f"out/one.{rule}.png") as drawn,
            Image.open(folder / f"out/one.{rule}.overlay.png") as laid,
        ):
            assert drawn.size == (16, 16)
            assert laid.size == (60, 40), "laid over the whole photograph"


def test_raw_maps_and_record(cli: Cli, folder: Path) -> None:
    assert cli("explain", "labelled.onnx", "one.png", "--raw", "-o", "figure.png", "-r", "guided").status == 0
    with np.load(folder / "figure.npz") as arrays:
        assert set(arrays.files) == {"guided", "image", "record"}
        assert arrays["guided"].dtype == np.float32 and arrays["guided"].shape == (16, 16, 3)
        inner = json.loads(str(arrays["record"]))
    record = json.loads((folder / "figure.json").read_text())
    assert inner == record
    assert record["rules"] == ["guided"] and record["preprocess"]["name"] == "tf"
    assert record["label"] in ("ant", "bee", "cat", "dog", "elk")


def test_json_is_all_of_stdout(cli: Cli, folder: Path) -> None:
    done = cli("explain", "labelled.onnx", "one.png", "two.png", "--json", "-o", "out")
    assert done.status == 0
    assert [record["files"] for record in done.json] == [["out/one.png"], ["out/two.png"]]
    for record in done.json:
        assert len(record["predictions"]) == 5 and record["head"] == "Softmax"
        assert record["score"] == max(p["score"] for p in record["predictions"])


def refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON (RFC 8259)")


def test_json_of_a_model_that_overflows_is_json(cli: Cli, folder: Path) -> None:
    onnx.save(make("infinite"), "infinite.onnx")
    done = cli("explain", "infinite.onnx", "one.png", "--preprocess", "raw", "--raw", "--json", "-o", "figure.png")
    assert done.status == 0
    (record,) = json.loads(done.out, parse_constant=refuse_constant)
    assert record["score"] is None and record["warnings"]
    json.loads((folder / "figure.json").read_text(), parse_constant=refuse_constant)


@pytest.mark.parametrize(
    ("target", "index", "label"), [("3", 3, "dog"), ("elk", 4, "elk"), ("BEE", 1, "bee"), ("scores[2]", [2], "cat")]
)
def test_targets(cli: Cli, target: str, index: Any, label: str) -> None:
    (record,) = cli("explain", "labelled.onnx", "one.png", "--json", "-t", target).json
    assert record["label"] == label
    assert record["target"] in (index, index[0] if isinstance(index, list) else index)


def test_a_target_in_an_output_of_more_axes(cli: Cli) -> None:
    (record,) = cli("explain", "segmentation.onnx", "one.png", "--json", "-t", "1,5,7", "--preprocess", "unit").json
    assert record["target"] == [1, 5, 7]


def test_top5(cli: Cli, folder: Path) -> None:
    done = cli("explain", "labelled.onnx", "one.png", "-t", "top5", "-o", "out", "--raw", "-r", "guided")
    assert done.status == 0 and done.lines[-1] == "out/one.png"
    records = sorted(f for f in files(folder) if f.startswith("out/") and f.endswith(".json"))
    assert len(records) == 5 and records[0].startswith("out/one.1-")
    found = [json.loads((folder / f).read_text()) for f in records]
    assert [r["score"] for r in found] == sorted((r["score"] for r in found), reverse=True)
    assert len({r["label"] for r in found}) == 5
    with Image.open(folder / "out/one.png") as stacked:
        assert stacked.height > stacked.width


def test_a_folder_of_images(cli: Cli, folder: Path) -> None:
    (folder / "photos").mkdir()
    for name in ("b.png", "a.png"):
        (folder / "photos" / name).write_bytes((folder / "one.png").read_bytes())
    (folder / "photos" / "notes.txt").write_text("not an image")
    done = cli("explain", "labelled.onnx", "photos", "-o", "out", "-q", "-r", "guided")
    assert (done.status, done.lines, done.err) == (0, ["out/a.png", "out/b.png"], "")


def test_images_without_a_model_meet_the_bundled_one(cli: Cli) -> None:
    done = cli("explain", "one.png", "--json", "-r", "saliency")
    assert done.status == 0 and done.json[0]["model"] == str(bundled.model_path())


def test_equal_names_do_not_overwrite_each_other(cli: Cli, folder: Path) -> None:
    for name in ("x", "y"):
        (folder / name).mkdir()
        (folder / name / "same.png").write_bytes((folder / "one.png").read_bytes())
    done = cli("explain", "labelled.onnx", "x/same.png", "y/same.png", "-o", "out")
    assert done.lines == ["out/same.png", "out/same_1.png"]


def test_one_bad_image_does_not_stop_the_others(cli: Cli, folder: Path) -> None:
    done = cli("explain", "labelled.onnx", "one.png", "text.png", "half.png", "gone.png", "two.png", "-o", "out")
    assert done.status == 2
    assert done.lines == ["out/one.png", "out/two.png"]
    for name, code in (("text.png", "GBP402"), ("half.png", "GBP403"), ("gone.png", "GBP401")):
        assert f"error: {code}: {name}" in done.err
    assert "3 of 5 images could not be explained" in done.err
    assert {f for f in files(folder) if f.startswith("out/")} == {"out/one.png", "out/two.png"}


def test_one_bad_image_in_json(cli: Cli) -> None:
    done = cli("explain", "labelled.onnx", "one.png", "text.png", "--json")
    assert done.status == 2
    good, bad = done.json
    assert good["files"] and bad["error"]["code"] == "GBP402" and bad["image"] == "text.png"


def test_a_grey_photograph_for_a_colour_model(cli: Cli) -> None:
    assert cli("explain", "labelled.onnx", "grey.png").status == 0


def test_a_built_explainer_in_place_of_a_model(cli: Cli, folder: Path) -> None:
    assert cli("build", "plain.onnx", "-o", "e.onnx", "--preprocess", "unit", "--labels", "labels.txt").status == 0
    source = cli(
        "explain", "plain.onnx", "one.png", "--preprocess", "unit", "--labels", "labels.txt", "--raw", "-o", "a.png"
    )
    built = cli("explain", "e.onnx", "one.png", "--raw", "-o", "b.png")
    assert source.status == built.status == 0
    assert "guess" not in built.err
    with np.load(folder / "a.npz") as a, np.load(folder / "b.npz") as b:
        for rule in ("saliency", "deconvnet", "guided"):
            np.testing.assert_array_equal(a[rule], b[rule])
    one, other = (json.loads((folder / f"{name}.json").read_text()) for name in "ab")
    assert one["label"] == other["label"] is not None
    assert one["source_sha256"] == other["source_sha256"]


def test_a_model_without_rectifiers_is_announced(cli: Cli) -> None:
    done = cli("explain", "no_rectifier.onnx", "one.png", "--preprocess", "unit")
    assert done.status == 0 and "no rectifier lies on the way" in done.err


def test_quiet_says_no_more_than_warnings(cli: Cli) -> None:
    assert cli("explain", "labelled.onnx", "one.png", "-q", "-r", "guided").err == ""
    assert cli("explain", "labelled.onnx", "one.png", "-q").err.startswith("warning: deconvnet reads nothing")


# --- build, inspect, ops ------------------------------------------------------------------------------------------


def test_build(cli: Cli, folder: Path) -> None:
    done = cli("build", "plain.onnx", "-o", "out/e.onnx")
    assert (done.status, done.lines) == (0, ["out/e.onnx"])
    model = onnx.load(folder / "out/e.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [i.name for i in model.graph.input] == ["image", "target"]
    assert [o.name for o in model.graph.output] == [
        "scores", "attribution_saliency", "attribution_deconvnet", "attribution_guided",
    ]  # fmt: skip


def test_build_json(cli: Cli) -> None:
    facts = cli("build", "plain.onnx", "-o", "e.onnx", "-r", "guided", "--json").json
    assert facts["file"] == "e.onnx" and facts["rules"] == ["guided"]
    assert facts["inputs"] == {"image": "image", "target": "target"}
    assert facts["outputs"] == {"attribution_guided": "attribution_guided"}
    assert len(facts["source_sha256"]) == 64


def test_inspect(cli: Cli) -> None:
    done = cli("inspect", "plain.onnx")
    assert done.status == 0
    assert "2 Relu" in done.out and "Softmax" in done.out and "image" in done.out


def test_inspect_json(cli: Cli) -> None:
    found = cli("inspect", "plain.onnx", "--json").json
    assert len(found["rectifiers"]) == 2 and found["unsupported"] == []


def test_inspect_lists_every_obstacle(cli: Cli) -> None:
    plain, as_json = cli("inspect", "unknown_op.onnx"), cli("inspect", "unknown_op.onnx", "--json")
    assert plain.status == as_json.status == 3
    assert [(r["code"], r["op"]) for r in as_json.json["unsupported"]] == [
        ("GBP201", "com.example::Frobnicate"), ("GBP201", "com.example::Twiddle"),
    ]  # fmt: skip
    for word in ("com.example::Frobnicate", "com.example::Twiddle", "GBP201"):
        assert word in plain.out


def test_ops(cli: Cli) -> None:
    rows = cli("ops", "--json").json
    found = {row["op"]: row for row in rows if not row["domain"]}
    assert found["Conv"]["state"] == "differentiable" and found["ArgMax"]["state"] == "stops the gradient"
    assert found["Bernoulli"]["state"] == "refused" and found["Bernoulli"]["inputs"] == []
    assert found["Conv"]["inputs"] == ["X", "W", "B"] and found["Where"]["inputs"] == ["X", "Y"]
    assert found["Concat"]["inputs"] == ["inputs"]
    assert found["Tan"]["cpu"] == "7-21, 22- [f32]" and found["Tan"]["cuda"] == ""
    assert all(row["form"] and row["since"] >= 1 for row in rows)
    assert all(bool(row["inputs"]) == (row["state"] == "differentiable") for row in rows)
    shown = cli("ops")
    assert shown.status == 0 and len(shown.lines) >= len(rows) + 1


@pytest.mark.parametrize("argv", [["--help"], *([name, "--help"] for name in ("explain", "build", "inspect", "ops"))])
def test_help_has_an_example(cli: Cli, argv: list[str]) -> None:
    done = cli(*argv)
    assert done.status == 0 and "Examples:" in done.out and "gbp-onnx" in done.out and done.err == ""


def test_version(folder: Path) -> None:
    assert shell("--version", cwd=folder).out.startswith("gbp-onnx, version ")


# --- bad input ----------------------------------------------------------------------------------------------------


def save(model: onnx.ModelProto, name: str) -> str:
    onnx.save(model, name)
    return name


BAD: dict[str, tuple[int, str, list[str]]] = {
    "missing model": (2, "GBP101", ["explain", "gone.onnx", "one.png"]),
    "missing model, inspect": (2, "GBP101", ["inspect", "gone.onnx"]),
    "missing model, build": (2, "GBP101", ["build", "gone.onnx", "-o", "e.onnx"]),
    "folder for a model": (2, "GBP101", ["inspect", "."]),
    "folder for a model, build": (2, "GBP101", ["build", ".", "-o", "e.onnx"]),
    "garbage model": (2, "GBP102", ["explain", "garbage.onnx", "one.png"]),
    "half a model": (2, "GBP102", ["inspect", "half.onnx"]),
    "text for a model": (2, "GBP102", ["explain", "text.onnx", "one.png"]),
    "empty model": (2, "GBP102", ["explain", "empty.onnx", "one.png"]),
    "picture for a model": (2, "GBP102", ["inspect", "one.png"]),
    "no image input": (2, "GBP108", ["explain", "@no_image", "one.png"]),
    "no such output": (2, "GBP110", ["explain", "plain.onnx", "one.png", "--output", "nothing"]),
    "no such input": (2, "GBP110", ["inspect", "plain.onnx", "--wrt", "nothing"]),
    "unknown operator": (3, "GBP201", ["explain", "@unknown_op", "one.png"]),
    "unknown operator, build": (3, "GBP201", ["build", "@unknown_op", "-o", "e.onnx"]),
    "training mode": (3, "GBP202", ["explain", "@batchnorm_training", "one.png"]),
    "training mode, build": (3, "GBP202", ["build", "@batchnorm_training", "-o", "e.onnx"]),
    "not differentiable": (3, "GBP203", ["explain", "@not_differentiable", "one.png"]),
    "independent of the image": (3, "GBP203", ["build", "@disconnected", "-o", "e.onnx", "--output", "scores"]),
    "missing image": (2, "GBP401", ["explain", "plain.onnx", "gone.png"]),
    "empty folder": (2, "GBP401", ["explain", "plain.onnx", "nothing/"]),
    "text for an image": (2, "GBP402", ["explain", "plain.onnx", "text.png"]),
    "model for an image": (2, "GBP402", ["explain", "plain.onnx", "plain.onnx"]),
    "half an image": (2, "GBP403", ["explain", "plain.onnx", "half.png"]),
    "further inputs": (2, "GBP406", ["explain", "two_inputs.onnx", "one.png"]),
    "five channels": (2, "GBP406", ["explain", "@five_channels", "one.png"]),
    "two-channel preprocessing": (2, "GBP409", ["explain", "plain.onnx", "one.png", "--preprocess", "raw,channels=LA"]),
    "grey onto colour": (2, "GBP406", ["explain", "plain.onnx", "one.png", "--preprocess", "raw,channels=L"]),
    "class out of range": (2, "GBP407", ["explain", "plain.onnx", "one.png", "-t", "5"]),
    "negative class": (2, "GBP407", ["explain", "plain.onnx", "one.png", "-t", "-7"]),
    "too many axes": (2, "GBP407", ["explain", "plain.onnx", "one.png", "-t", "1,2,3"]),
    "unknown label": (2, "GBP408", ["explain", "labelled.onnx", "one.png", "-t", "dgo"]),
    "no labels": (2, "GBP408", ["explain", "plain.onnx", "one.png", "-t", "dog"]),
    "missing labels": (2, "GBP408", ["explain", "plain.onnx", "one.png", "--labels", "gone.txt"]),
    "unknown preset": (2, "GBP409", ["explain", "plain.onnx", "one.png", "--preprocess", "imagnet"]),
    "unknown style": (2, "GBP410", ["explain", "plain.onnx", "one.png", "--style", "colour"]),
    "percentile out of range": (2, "GBP410", ["explain", "plain.onnx", "one.png", "--percentile", "0"]),
    "unknown colour map": (
        2,
        "GBP410",
        ["explain", "plain.onnx", "one.png", "--style", "signed", "--colormap", "nope"],
    ),
    "unwritable figure": (2, "GBP411", ["explain", "plain.onnx", "one.png", "-o", "text.png/figure.png"]),
    "unwritable explainer": (2, "GBP411", ["build", "plain.onnx", "-o", "text.onnx/e.onnx"]),
    "folder for an explainer": (2, "GBP411", ["build", "plain.onnx", "-o", "."]),
    "one file for two images": (2, "GBP411", ["explain", "plain.onnx", "one.png", "two.png", "-o", "figure.png"]),
    "built twice": (2, "GBP111", ["build", "@explainer", "-o", "e.onnx"]),
    "broken metadata": (2, "GBP112", ["explain", "@broken_metadata", "one.png"]),
}


def five_channels() -> onnx.ModelProto:
    model = make("plain")
    weight = next(t for t in model.graph.initializer if len(t.dims) == 4)
    wide = np.concatenate([onnx.numpy_helper.to_array(weight)] * 2, axis=1)[:, :5]
    weight.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(wide), weight.name))
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 5
    return model


def broken_metadata() -> onnx.ModelProto:
    model = make("plain")
    model.metadata_props.add(key="gbp.preprocess", value="{not json")
    return model


def explainer() -> onnx.ModelProto:
    import gbp_onnx

    return gbp_onnx.build(make("plain"))


SPECIAL = {f.__name__: f for f in (five_channels, broken_metadata, explainer)}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(cli: Cli, folder: Path, case: str) -> None:
    """One clear message that names the culprit, the right exit status, nothing on stdout, no new file."""
    status, code, argv = BAD[case]
    argv = [
        save(SPECIAL.get(arg[1:], lambda name=arg[1:]: make(name))(), f"{arg[1:]}.onnx") if arg[0] == "@" else arg
        for arg in argv
    ]
    (folder / "nothing").mkdir()
    before = files(folder)
    done = cli(*argv)
    assert done.status == status, done.err
    assert done.err.count("error:") == 1 and f"error: {code}: " in done.err
    assert done.out == ""
    assert "Traceback" not in done.err
    assert files(folder) == before
    messages = [line for line in done.err.splitlines() if line.startswith("error:")]
    assert all(len(line) < 400 for line in messages)


def test_an_unwritable_folder(cli: Cli, folder: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    (folder / "locked").mkdir(mode=0o500)
    assert cli("explain", "plain.onnx", "one.png", "-o", "locked/figure.png").status == 2


def test_no_number_input(cli: Cli, folder: Path) -> None:
    """A text input is no image, whatever its rank."""
    model = make("plain")
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.STRING
    onnx.save(model, "strings.onnx")
    done = cli("explain", "strings.onnx", "one.png")
    assert done.status == 2 and "GBP108" in done.err


@pytest.mark.parametrize("name", ["figure.gif", "figure.pdf", "figure.npz"])
def test_a_format_that_figures_are_not_written_in(cli: Cli, folder: Path, name: str) -> None:
    done = cli("explain", "plain.onnx", "one.png", "-o", name)
    assert done.status == 2 and not (folder / name).exists()


def test_the_nearest_label_is_named(cli: Cli) -> None:
    assert "did you mean 'dog'" in cli("explain", "labelled.onnx", "one.png", "-t", "dgo").err


def test_the_nearest_preset_is_named(cli: Cli) -> None:
    assert "imagenet" in cli("explain", "plain.onnx", "one.png", "--preprocess", "imagnet").err


def test_all_reasons_at_once(cli: Cli) -> None:
    err = cli("explain", "unknown_op.onnx", "one.png").err
    assert "Frobnicate" in err and "Twiddle" in err and "2 nodes cannot be differentiated" in err


def test_errors_as_json(cli: Cli) -> None:
    done = cli("explain", "unknown_op.onnx", "one.png", "--json")
    assert done.status == 3 and done.json["exit_status"] == 3
    error = done.json["error"]
    assert error["code"] == "GBP201" and len(error["reasons"]) == 2
    assert {r["code"] for r in error["reasons"]} <= set(CODES)
    assert cli("explain", "gone.onnx", "--json").json["error"]["code"] == "GBP101"


@pytest.mark.parametrize(
    "argv", [["frobnicate"], ["explain", "--frobnicate"], ["build", "plain.onnx"], ["explain", "-r", "x"]]
)
def test_usage(cli: Cli, argv: list[str]) -> None:
    done = cli(*argv)
    assert done.status == 2 and "Usage:" in done.err and done.out == ""


def test_a_failure_while_writing_leaves_the_old_file(cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "figure.png").write_bytes(b"the old figure")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    done = cli("explain", "plain.onnx", "one.png", "-o", "figure.png")
    assert done.status == 2 and "GBP411" in done.err and "No space left" in done.err
    assert (folder / "figure.png").read_bytes() == b"the old figure"
    assert not [f for f in files(folder) if ".figure.png." in f]


def test_a_bad_model_by_subprocess(folder: Path) -> None:
    done = shell("explain", "not_differentiable.onnx", "one.png", cwd=folder)
    assert done.status == 3 and done.out == "" and "GBP203" in done.err and "ArgMax" in done.err


def test_a_closed_pipe_is_no_failure(folder: Path) -> None:
    command = f"{sys.executable} -m gbp_onnx ops | head -1"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and "operator" in done.stdout
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_behind_stdout(folder: Path) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-m", "gbp_onnx", "ops"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2 and "Traceback" not in done.stderr and "No space left" in done.stderr


def test_building_onto_the_source_is_refused(cli: Cli, folder: Path) -> None:
    before = (folder / "plain.onnx").read_bytes()
    done = cli("build", "plain.onnx", "-o", "./plain.onnx")
    assert done.status == 2 and "GBP411" in done.err
    assert (folder / "plain.onnx").read_bytes() == before


def test_a_class_beyond_every_integer(cli: Cli) -> None:
    done = cli("explain", "plain.onnx", "one.png", "-t", "99999999999999999999")
    assert done.status == 2 and "GBP407" in done.err


# --- what strangers do --------------------------------------------------------------------------------------------


def test_an_explainer_with_one_rule_needs_no_flag(cli: Cli, folder: Path) -> None:
    assert cli("build", "plain.onnx", "-o", "guided.onnx", "-r", "guided").status == 0
    (record,) = cli("explain", "guided.onnx", "one.png", "--json", "--preprocess", "raw").json
    assert record["rules"] == ["guided"]
    assert "no saliency" in cli("explain", "guided.onnx", "one.png", "-r", "saliency", "--preprocess", "raw").err


@pytest.mark.parametrize("option", [("--explain", "output"), ("--rectify", "leaky"), ("--output", "other")])
def test_a_built_explainer_does_not_take_another_choice_in_silence(cli: Cli, option: tuple[str, str]) -> None:
    cli("build", "labelled.onnx", "-o", "built.onnx")
    done = cli("explain", "built.onnx", "one.png", *option)
    assert done.status == 2 and "GBP410" in done.err and "build it again" in done.err


def test_a_picture_without_a_suffix_is_a_picture(cli: Cli, folder: Path) -> None:
    (folder / "photo").write_bytes((folder / "one.png").read_bytes())
    assert cli("explain", "photo", "-o", "maps").lines == ["maps/photo.png"]
    (folder / "photo.onnx").write_bytes((folder / "one.png").read_bytes())
    assert "it is a picture" in cli("inspect", "photo.onnx").err


def test_hidden_files_of_a_folder_are_left_alone(cli: Cli, folder: Path) -> None:
    (folder / "photos").mkdir()
    for name in ("a.png", ".hidden.png", "._a.png"):
        (folder / "photos" / name).write_bytes((folder / "one.png").read_bytes())
    assert cli("explain", "photos", "-o", "maps").lines == ["maps/a.png"]


def test_the_reader_of_the_output_may_leave(folder: Path) -> None:
    command = f"{sys.executable} -m gbp_onnx ops | head -1; exit ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr


def test_stdout_may_be_closed(folder: Path) -> None:
    command = f"{sys.executable} -m gbp_onnx explain -o out.png >&-"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert (folder / "out.png").exists()


def test_each_of_the_five_best_has_its_own_files(cli: Cli) -> None:
    records = cli("explain", "labelled.onnx", "one.png", "-t", "top5", "--raw", "--json", "-o", "five.png").json
    own = [set(record["files"]) - {"five.png"} for record in records]
    assert all(len(files) == 2 for files in own)
    assert len(set.union(*own)) == 2 * len(records)


def test_many_nodes_of_one_kind_are_one_line(cli: Cli, folder: Path) -> None:
    model = make("unknown_op")
    node = next(n for n in model.graph.node if n.domain not in ("", "ai.onnx"))
    for count in range(7):
        extra = onnx.NodeProto.FromString(node.SerializeToString())
        extra.name, extra.input[0], extra.output[0] = (
            f"extra_{count}",
            node.output[0] if not count else f"e{count - 1}",
            f"e{count}",
        )
        model.graph.node.insert(list(model.graph.node).index(node) + 1 + count, extra)
    for later in model.graph.node:
        if not later.name.startswith("extra_") and later.output[0] != node.output[0]:
            later.input[:] = ["e6" if name == node.output[0] else name for name in later.input]
    onnx.save(model, "many.onnx")
    done = cli("build", "many.onnx", "-o", "out.onnx", "--json")
    assert done.status == 3 and "and 3 more" in done.err
    assert len(done.json["error"]["reasons"]) == 9
