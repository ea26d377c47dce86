"""Audits: configurations, checks, thresholds, what is kept, reports and exit statuses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import pytest
from make_tiny import make
from PIL import Image

import gbp_onnx
from gbp_onnx.auditing import run as running
from gbp_onnx.auditing.annotations import coco_annotations
from gbp_onnx.auditing.baseline import packed, unpacked
from gbp_onnx.auditing.checks import CHECKS
from gbp_onnx.auditing.config import read_config
from gbp_onnx.auditing.curves import area, ranked, stages
from gbp_onnx.auditing.images import find_images
from gbp_onnx.auditing.places import border, corners, energy_inside, pointing_game
from gbp_onnx.auditing.randomise import layers_from_top, shuffled
from gbp_onnx.auditing.settings import limits_of
from gbp_onnx.auditing.toml_lines import lines_of
from gbp_onnx.cli.main import run
from gbp_onnx.errors import AuditError
from gbp_onnx.metrics import cosine, top_overlap
from gbp_onnx.report import github, html, writer
from gbp_onnx.report.record import AuditReport

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = json.loads((ROOT / "gbp_onnx" / "report" / "audit-1.schema.json").read_text(encoding="utf-8"))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a model and a folder of six pictures."""
    onnx.save(make("labelled"), tmp_path / "model.onnx")
    random = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for k in range(6):
        small = random.integers(0, 256, (5, 6, 3), dtype=np.uint8)
        Image.fromarray(small).resize((60, 50), Image.Resampling.BICUBIC).save(tmp_path / "photos" / f"{k}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def settings(*checks: str, **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "model": {"path": "model.onnx"},
        "images": {"folder": "photos"},
        "run": {"workers": 1},
        "checks": {name: {} for name in checks},
    }
    if "drift" in checks:
        made["baseline"] = {"model": "model.onnx"}
    for key, value in more.items():
        made[key] = {**made.get(key, {}), **value}
    return made


def shuffle_first_layer(path: str) -> None:
    model = onnx.load("model.onnx")
    layers = layers_from_top(model)
    onnx.save(shuffled(model, layers[-1:], np.random.default_rng(1)), path)


# --- configuration ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ('[model]\npath = "model.onnx"\nfoo\n', 3, "not valid TOML"),
        ('[model]\npath = "model.onnx\n', 2, "not valid TOML"),
        ('[model]\npath = "model.onnx"\n\npats = 1\n[images]\nfolder = "photos"\n', 4, "no setting 'pats'"),
        ('[model]\npath = 7\n[images]\nfolder = "photos"\n', 2, "path cannot be 7"),
        ('[model]\npath = "m"\n[images]\nfolder = "p"\n[checks.drfit]\n', 5, "no check 'drfit'"),
        ('[model]\npath = "m"\n[images]\nfolder = "p"\n[checks.drift]\nmin_cosine = 3\n', 6, "must be -1 to 1"),
        ('[model]\npath = "m"\n[images]\nfolder = "p"\n[checks.drift]\n', 5, "drift needs a baseline"),
        ('[model]\npath = "m"\n[images]\nfolder = "p"\n[checks.sanity]\nrules = ["grad"]\n', 6, "no rule"),
        ('[model]\npath = "m"\n[images]\nfolder = "p"\nlist = "q"\n[checks.parity]\n', 3, "from one place"),
        ('[model]\npath = "m"\n[images]\nfolder = "p"\n', None, "no check is switched on"),
        ('[modl]\npath = "m"\n', 1, "no table [modl]"),
        ("version = 2\n", 1, "version is 2"),
    ],
)  # fmt: skip
def test_a_broken_configuration_names_its_line(
    place: Path, capsys: pytest.CaptureFixture[str], text: str, line: int | None, what: str
) -> None:
    Path("audit.toml").write_text(text)
    assert run(["audit", "audit.toml"]) == 2
    said = capsys.readouterr().err
    assert what in said and "GBP50" in said
    assert ("audit.toml:" in said) == (line is not None) or line is None
    if line is not None:
        assert f"audit.toml:{line}:" in said, said


def test_a_missing_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["audit", "nowhere.toml"]) == 2
    assert "GBP501: nowhere.toml" in capsys.readouterr().err


def test_lines_of_tables_and_keys() -> None:
    text = 'a = 1\n[t]\nb = [\n  1,  # c = 3\n]\n"d e" = """\nx = 2\n"""\n[t.u]\nf.g = "[[" # ]\nh = 1\n'
    found = lines_of(text)
    expected = {("a",): 1, ("t",): 2, ("t", "b"): 3, ("t", "d e"): 6, ("t", "u"): 9, ("t", "u", "f", "g"): 10}
    assert found == {**expected, ("t", "u", "h"): 11}


def test_thresholds_are_read_off_the_names() -> None:
    drift = CHECKS["drift"].settings(min_cosine=None)
    words = {limit.words for limit in limits_of(drift)}
    assert "mean cosine >= 0.85" in words and "top1_lost <= 0" in words
    assert not any(word.startswith("cosine") for word in words)
    ssim = next(limit for limit in limits_of(drift) if limit.measure == "ssim" and not limit.mean)
    assert ssim.governs("guided.ssim") and not ssim.governs("guided.ssim_all")
    assert not ssim.holds(None) and not ssim.holds(float("nan")) and ssim.holds(0.5)


def test_every_check_has_its_own_file_code_and_words() -> None:
    assert [check.code for check in CHECKS.values()] == [f"GBP-A{k}" for k in range(1, 10)]
    for name, check in CHECKS.items():
        assert (ROOT / "gbp_onnx" / "auditing" / "checks" / f"{name}.py").is_file()
        assert check.meaning.endswith(".") and check.paper
        report = name in ("faithfulness", "sanity", "stability")
        assert check.settings().severity == ("report" if report else "gate")


def test_the_first_configuration_runs_as_it_is(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["audit", "--init", "model.onnx", "--images", "photos", "--baseline", "model.onnx", "-o", "a.toml"]) == 0
    assert capsys.readouterr().out == "a.toml\n"
    text = Path("a.toml").read_text()
    assert "0.png" not in text and 'folder = "photos"' in text
    config = read_config("a.toml")
    assert set(config.checks) == set(CHECKS) - {"localisation"}
    for name, found in config.checks.items():
        assert found == CHECKS[name].settings(), "written thresholds are the fixed ones"
    assert run(["audit", "a.toml", "--json", "a.json", "-q"]) in (0, 1)
    report = json.loads(Path("a.json").read_text())
    assert [check["name"] for check in report["checks"]] == ["images", *config.checks]
    assert all(check["status"] != "skip" for check in report["checks"])
    for name in ("coverage", "parity", "gradient", "drift"):
        assert next(c for c in report["checks"] if c["name"] == name)["status"] == "pass"


def test_init_without_baseline_or_metadata(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(make("plain"), "plain.onnx")
    (place / "sub").mkdir()
    assert run(["audit", "--init", "plain.onnx", "--images", "photos", "-o", "sub/a.toml"]) == 0
    assert "a guess" in capsys.readouterr().err
    config = read_config("sub/a.toml")
    assert "drift" not in config.checks and config.model.preprocess == "imagenet"
    assert config.place(str(config.model.path)).is_file() and len(find_images(config)) == 6


@pytest.mark.parametrize("arguments", [[], ["--init", "model.onnx"], ["a.toml", "--images", "photos"]])
def test_usage(place: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.toml").write_text('[model]\npath = "model.onnx"\n[images]\nfolder = "photos"\n[checks.coverage]\n')
    assert run(["audit", *arguments]) == 2
    assert "--images" in capsys.readouterr().err


# --- images -------------------------------------------------------------------------------------------------------


def test_sources_of_images(place: Path) -> None:
    Path("list.txt").write_text("# mine\nphotos/1.png\tsecond\nphotos/0.png\n")
    Path("table.csv").write_text(
        "path,label,left,top,right,bottom\nphotos/2.png,3,0,0,10,10\nphotos/2.png,3,20,20,30,30\n"
    )
    items = find_images(read_config({**settings("parity"), "images": {"list": "list.txt"}}))
    assert [(i.name, i.label) for i in items] == [("photos/1.png", "second"), ("photos/0.png", None)]
    items = find_images(read_config({**settings("parity"), "images": {"table": "table.csv"}}))
    assert [i.name for i in items] == ["photos/2.png"] and items[0].label == "3"
    assert items[0].annotation is not None
    mask = items[0].annotation.mask((50, 60))
    assert mask is not None and mask.sum() == 200 and mask[25, 25] and not mask[15, 15]
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"file": ["photos/0.png"], "y": [4]}), "t.parquet")
    section = {"table": "t.parquet", "path_column": "file", "label_column": "y"}
    (item,) = find_images(read_config({**settings("parity"), "images": section}))
    assert (item.name, item.label) == ("photos/0.png", "4")


def test_coco(place: Path) -> None:
    counts = [5, 3, 4, 2, 6]  # a 4 x 5 image, down the columns
    data = {
        "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
        "categories": [{"id": 9, "name": "cat"}],
        "annotations": [
            {"image_id": 1, "category_id": 9, "bbox": [1, 1, 2, 3], "segmentation": {"size": [4, 5], "counts": counts}},
            {"image_id": 2, "category_id": 9, "bbox": [2, 0, 2, 2]},
        ],
    }
    (name, label, first), (_, _, second) = coco_annotations(data)
    assert (name, label) == ("a.png", "cat")
    mask = first.mask((4, 5))
    assert mask is not None
    flat = np.array([0] * 5 + [1] * 3 + [0] * 4 + [1] * 2 + [0] * 6, bool)
    assert (mask == flat.reshape(5, 4).T).all()
    boxed = second.mask((4, 5))
    assert boxed is not None and boxed[:2, 2:4].all() and boxed.sum() == 4


def test_compressed_run_lengths_are_cocos() -> None:
    """The string is what pycocotools writes for these counts."""
    from gbp_onnx.auditing.annotations import _decoded

    def encoded(counts: list[int]) -> str:
        text = ""
        for k, count in enumerate(counts):
            value = count - counts[k - 2] if k > 2 else count
            more = True
            while more:
                code = value & 0x1F
                value >>= 5
                more = value != -1 if code & 0x10 else value != 0
                text += chr((code | 0x20 if more else code) + 48)
        return text

    for counts in ([5, 3, 4, 2, 6], [0, 1000, 3, 70000, 2, 1], [12, 8]):
        assert _decoded(encoded(counts)) == counts


def test_voc_boxes_and_masks(place: Path) -> None:
    (place / "voc").mkdir()
    box = "<xmin>1</xmin><ymin>1</ymin><xmax>30</xmax><ymax>50</ymax>"
    (place / "voc" / "0.xml").write_text(f"<annotation><object><bndbox>{box}</bndbox></object></annotation>")
    (place / "masks").mkdir()
    Image.new("L", (60, 50), 255).save(place / "masks" / "1.png")
    images = {"folder": "photos", "boxes": "voc", "masks": "masks"}
    items = find_images(read_config({**settings("localisation"), "images": images}))
    left, whole = (items[k].annotation for k in (0, 1))
    assert left is not None and whole is not None and items[2].annotation is None
    assert left.mask((50, 60)).sum() == 50 * 30 and whole.mask((50, 60)).all()  # type: ignore[union-attr]
    report = gbp_onnx.audit({**settings("localisation"), "images": images})
    check = report.check("localisation")
    assert [f.status for f in check.findings].count("skip") == 4
    assert next(f for f in check.findings if f.image == "1.png").values["guided.energy"] == pytest.approx(1)


@pytest.mark.parametrize(
    "images", [{"folder": "nowhere"}, {"list": "nowhere"}, {"coco": "model.onnx"}, {"table": "empty.csv"}]
)
def test_images_that_are_not_there(place: Path, images: dict[str, str]) -> None:
    Path("empty.csv").write_text("file\nx.png\n")
    with pytest.raises(AuditError, match="GBP503"):
        gbp_onnx.audit({**settings("parity"), "images": images})


# --- measures -----------------------------------------------------------------------------------------------------


def test_pointing_game_and_energy() -> None:
    heat = np.zeros((6, 8))
    heat[2, 3], heat[5, 7] = 4.0, 1.0
    box = np.zeros((6, 8), bool)
    box[1:4, 2:5] = True
    assert pointing_game(heat, box) and energy_inside(heat, box) == 0.8
    assert not pointing_game(heat, ~box) and energy_inside(heat, ~box) == pytest.approx(0.2)
    assert pointing_game(heat, np.roll(box, 3, axis=1), tolerance=2)
    assert not pointing_game(heat, np.roll(box, 4, axis=1), tolerance=2)
    assert not pointing_game(np.zeros((6, 8)), box) and energy_inside(np.zeros((6, 8)), box) == 0
    assert border((10, 20), 0.1).sum() == 10 * 20 - 8 * 18 and corners((10, 20), 0.1).sum() == 4 * 2


def test_insertion_and_deletion_follow_the_order() -> None:
    start, end = np.zeros((2, 3, 4), np.float32), np.ones((2, 3, 4), np.float32)
    heat = np.arange(12.0).reshape(3, 4)
    batch = stages(start, end, ranked(heat), 12, True)
    assert batch.shape == (13, 2, 3, 4)
    assert (batch.sum(axis=(1, 2, 3)) == 2 * np.arange(13)).all() and (batch[1, :, 2, 3] == 1).all()
    last = stages(start.transpose(1, 2, 0), end.transpose(1, 2, 0), ranked(heat), 12, False)
    assert (last == batch.transpose(0, 2, 3, 1)).all()
    assert area([0, 1]) == 0.5 and area([1, 1, 1]) == 1 and area([0, 0, 1]) == 0.25


def test_layers_are_shuffled_from_the_output_down() -> None:
    model = make("plain")
    layers = layers_from_top(model)
    order = [node.name or node.output[0] for node in model.graph.node]
    places = [order.index(layer.name) for layer in layers]
    assert len(layers) > 2 and places == sorted(places, reverse=True)
    changed = shuffled(model, layers[:1], np.random.default_rng(0))
    before, after = ({t.name: onnx.numpy_helper.to_array(t) for t in m.graph.initializer} for m in (model, changed))
    different = {name for name in before if not np.array_equal(before[name], after[name])}
    assert different == set(layers[0].tensors)
    for name in different:
        assert (np.sort(before[name].ravel()) == np.sort(after[name].ravel())).all()


def test_weights_behind_dequantize_belong_to_the_node_that_reads_them() -> None:
    w = onnx.numpy_helper.from_array(np.arange(8, dtype=np.int8).reshape(2, 4), "w")
    scale = onnx.numpy_helper.from_array(np.array(0.5, np.float32), "s")
    nodes = [
        onnx.helper.make_node("DequantizeLinear", ["w", "s"], ["wf"], "dq"),
        onnx.helper.make_node("MatMul", ["x", "wf"], ["y"], "product"),
    ]
    x, y = (onnx.helper.make_tensor_value_info(n, 1, [1, k]) for n, k in (("x", 2), ("y", 4)))
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [x], [y], [w, scale]))
    (layer,) = layers_from_top(model)
    assert layer.name == "product" and layer.tensors == ("w",)


def test_stored_maps_come_back() -> None:
    random = np.random.default_rng(0)
    a = (random.standard_normal((40, 50, 3)) ** 3).astype(np.float32)
    b = unpacked(packed(a))
    assert b.shape == a.shape and b.dtype == np.float32 and (np.sign(b) == np.sign(a))[np.abs(b) > 0].all()
    similar, overlap = cosine(a, b), top_overlap(a, b, 0.05)
    assert similar is not None and similar > 0.9999 and overlap is not None and overlap > 0.95
    assert len(packed(a)) < a.nbytes / 3 and not unpacked(packed(np.zeros((2, 2, 3), np.float32))).any()


# --- runs ---------------------------------------------------------------------------------------------------------


def test_a_model_against_itself_passes(place: Path) -> None:
    report = gbp_onnx.audit(settings("coverage", "parity", "gradient", "drift"))
    assert report.passed and report.complete and report.exit_status == 0, report.summary
    assert report.check("drift").means["guided.cosine"] == pytest.approx(1)
    assert report.check("parity").means["repeat_difference"] == 0
    assert not list(place.glob(".gbp-audit*")), "a complete run leaves nothing behind"


def test_a_shuffled_layer_fails_and_the_report_names_the_images(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shuffle_first_layer("bad.onnx")
    config = (
        '[model]\npath = "bad.onnx"\n[baseline]\nmodel = "model.onnx"\n[images]\nfolder = "photos"\n[checks.drift]\n'
    )
    Path("audit.toml").write_text(config)
    assert run(["audit", "audit.toml", "-q"]) == 1
    out = capsys.readouterr().out
    assert "FAILED" in out and all(f"{k}.png" in out for k in range(6)) and "guided.cosine" in out
    capsys.readouterr()
    assert run(["audit", "audit.toml", "-q", "--format", "github"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("::error file=audit.toml,line=7,title=GBP-A4 Drift::") and "0.png" in out


def test_severity_report_does_not_fail_the_run(place: Path) -> None:
    shuffle_first_layer("bad.onnx")
    config = settings("drift", model={"path": "bad.onnx"}, checks={"drift": {"severity": "report"}})
    report = gbp_onnx.audit(config)
    assert report.passed and report.check("drift").status == "fail" and not report.check("drift").gates
    assert {row.status for row in report.images} == {"report"}


def test_a_model_that_cannot_be_explained(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(make("unknown_op"), "model.onnx")
    Path("audit.toml").write_text(
        '[model]\npath = "model.onnx"\n[images]\nfolder = "photos"\n[checks.coverage]\n[checks.parity]\n'
    )
    assert run(["audit", "audit.toml", "--json", "a.json", "--sarif", "a.sarif", "--html", "a.html", "-q"]) == 3
    captured = capsys.readouterr()
    assert "GBP201" in captured.err and "FAILED" in captured.out
    report = json.loads(Path("a.json").read_text())
    jsonschema.validate(report, SCHEMA)
    assert report["exit_status"] == 3 and report["checks"][0]["gates"]


def test_a_bad_image_is_one_failed_item(place: Path) -> None:
    (place / "photos" / "9.png").write_text("no picture")
    (place / "photos" / "8.jpg").write_bytes(b"")
    report = gbp_onnx.audit(settings("parity"))
    assert report.exit_status == 1 and report.check("parity").status == "pass"
    assert [f.image for f in report.check("images").failures] == ["8.jpg", "9.png"]
    assert len(report.check("parity").findings) == 6
    relaxed = gbp_onnx.audit(settings("parity", images={"severity": "report"}))
    assert relaxed.passed


def test_gradient_sees_a_wrong_map(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A derivative that is doubled, and one that leaves out half of the picture."""
    from gbp_onnx.auditing.subject import Run, Subject

    explain = Subject.explain
    wrong: Callable[[np.ndarray], np.ndarray]

    def changed(self: Subject, *arguments: Any) -> Run:
        found = explain(self, *arguments)
        raw = {**found.raw, "saliency": wrong(found.raw["saliency"])}
        return Run(found.values, found.maps, raw, found.explained, found.target)

    monkeypatch.setattr(Subject, "explain", changed)
    columns = np.arange(16) < 8
    for broken, measure in ((lambda a: 2 * a, "along"), (lambda a: a * columns[: a.shape[-1]], "across")):
        wrong = broken
        check = gbp_onnx.audit(settings("gradient")).check("gradient")
        assert check.status == "fail" and any(t.measure == measure and not t.passed for t in check.thresholds)
    wrong = np.copy
    assert gbp_onnx.audit(settings("gradient")).check("gradient").status == "pass"


def test_stored_maps_as_baseline(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = '[model]\npath = "model.onnx"\n[baseline]\nmaps = "stored"\n[images]\nfolder = "photos"\n[checks.drift]\n'
    Path("audit.toml").write_text(config)
    assert run(["audit", "audit.toml", "-q"]) == 2
    assert "--update-baseline" in capsys.readouterr().err
    assert run(["audit", "audit.toml", "--update-baseline", "-q"]) == 0
    stored = sorted(place.glob("stored/maps/*/*.map"))
    assert len(stored) == 6
    assert run(["audit", "audit.toml", "-q", "--json", "a.json"]) == 0
    before = {path: path.stat().st_mtime_ns for path in stored}
    assert run(["audit", "audit.toml", "--update-baseline", "-q"]) == 0
    assert {path: path.stat().st_mtime_ns for path in sorted(place.glob("stored/maps/*/*.map"))} == before
    shuffle_first_layer("bad.onnx")
    Path("audit.toml").write_text(config.replace('path = "model.onnx"', 'path = "bad.onnx"'))
    assert run(["audit", "audit.toml", "-q"]) == 1
    Image.new("RGB", (60, 50), "red").save(place / "photos" / "7.png")
    Path("audit.toml").write_text(config)
    assert run(["audit", "audit.toml", "-q"]) == 1, "an image without a stored map fails"
    assert "holds no map of this image" in capsys.readouterr().out
    stored[0].write_bytes(b"broken")
    assert run(["audit", "audit.toml", "-q"]) == 2
    assert "GBP504" in capsys.readouterr().err


def test_a_run_that_was_killed_goes_on_from_there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shuffle_first_layer("bad.onnx")
    config = settings("coverage", "parity", "drift", "stability", model={"path": "bad.onnx"})
    whole = writer.text(gbp_onnx.audit(config), "json")
    looked: list[str] = []
    look = running._Work._look

    def killed(self: Any, item: Any) -> Any:
        if len(looked) == 3:
            raise KeyboardInterrupt
        looked.append(item.name)
        return look(self, item)

    monkeypatch.setattr(running._Work, "_look", killed)
    with pytest.raises(KeyboardInterrupt):
        gbp_onnx.audit(config)
    (results,) = place.glob(".gbp-audit/*/results.jsonl")
    with results.open("a") as file:
        file.write('{"key": "half of a li')
    looked.clear()
    monkeypatch.setattr(running._Work, "_look", lambda self, item: looked.append(item.name) or look(self, item))
    assert writer.text(gbp_onnx.audit(config), "json") == whole
    assert looked == ["3.png", "4.png", "5.png"]


def test_thresholds_may_change_between_runs_measurements_may_not(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running.time, "monotonic", iter([0.0, *[1.0] * 4, *[1e9] * 20]).__next__)
    stopped = gbp_onnx.audit(settings("drift", run={"time_budget": 100.0}))
    assert not stopped.complete and stopped.exit_status == 1 and 0 < len(stopped.images) < 6
    assert "time was over" in stopped.notes[0]
    monkeypatch.undo()
    monkeypatch.chdir(place)
    (folder,) = place.glob(".gbp-audit/*/")
    gbp_onnx.audit(settings("drift", checks={"drift": {"rules": ["saliency"]}}))
    assert folder.is_dir(), "another measurement has another place"
    report = gbp_onnx.audit(settings("drift", checks={"drift": {"min_cosine": 0.1}}))
    assert report.complete and report.passed and not folder.exists()


def test_several_workers_give_the_same_report(place: Path) -> None:
    one, three = (
        writer.text(gbp_onnx.audit(settings("parity", "drift", "faithfulness", run={"workers": k})), "json")
        for k in (1, 3)
    )
    assert one == three


def test_target_label(place: Path) -> None:
    Path("list.txt").write_text("photos/0.png\t2\nphotos/1.png\n")
    config = {**settings("coverage"), "images": {"list": "list.txt"}, "run": {"target": "label"}}
    report = gbp_onnx.audit(config)
    first, second = report.images
    labels = json.loads(next(e.value for e in make("labelled").metadata_props if e.key == "gbp.labels"))
    assert first.explained == labels[2] and second.status == "error"


def test_a_target_or_baseline_with_other_classes(place: Path) -> None:
    report = gbp_onnx.audit(settings("coverage", run={"target": 7}))
    assert report.exit_status == 1 and "out of range" in report.check("images").message
    onnx.save(make("grey"), "other.onnx")
    with pytest.raises(AuditError, match="GBP504"):
        gbp_onnx.audit({**settings("drift"), "baseline": {"model": "other.onnx"}})


# --- reports ------------------------------------------------------------------------------------------------------


@pytest.fixture
def failed(place: Path) -> AuditReport:
    """A report with everything in it: passes, failures, a bad image, a reported check, odd names."""
    shuffle_first_layer("bad.onnx")
    (place / "photos" / "a<b>&'\"|`.png").write_text("no picture")
    names = ("coverage", "parity", "drift", "localisation", "forbidden", "sanity", "stability")
    config = settings(*names, model={"path": "bad.onnx"})
    report, forget = running.run_audit(read_config(config), pictures=True)
    kept = {(row.name, kind): report.picture(row.name, kind) for row in report.images for kind in KINDS}
    forget()
    from dataclasses import replace

    return replace(report, picture=lambda image, kind: kept[image, kind])


KINDS = ("photo", "map", "baseline")


def test_json_has_its_schema(failed: AuditReport) -> None:
    report = json.loads(writer.text(failed, "json"))
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(report, SCHEMA)
    assert report["schema"] == SCHEMA["$id"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**report, "exit_status": "1"}, SCHEMA)


def test_junit_is_what_both_schemas_want(failed: AuditReport) -> None:
    root = ET.fromstring(writer.text(failed, "junit").encode())
    assert root.tag == "testsuites" and not root.attrib
    for number, suite in enumerate(root):
        assert [child.tag for child in suite if child.tag != "testcase"] == ["properties", "system-out", "system-err"]
        assert suite[0].tag == "properties" and [c.tag for c in suite][-2:] == ["system-out", "system-err"]
        cases = suite.findall("testcase")
        assert int(suite.attrib["tests"]) == len(cases) and suite.attrib["id"] == str(number)
        for tag, attribute in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
            assert int(suite.attrib[attribute]) == len(suite.findall(f"testcase/{tag}"))
        assert set(suite.attrib) == {
            "name", "timestamp", "hostname", "id", "package", "tests", "failures", "errors", "skipped", "time"
        }  # fmt: skip
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.attrib["timestamp"])
        for case in cases:
            assert set(case.attrib) == {"name", "classname", "time"} and len(case) <= 1
            assert all(child.tag == "skipped" or set(child.attrib) == {"message", "type"} for child in case)
    drift = next(suite for suite in root if "Drift" in suite.attrib["name"])
    assert int(drift.attrib["failures"]) >= 6


def test_sarif_points_at_the_images(failed: AuditReport) -> None:
    log = json.loads(writer.text(failed, "sarif"))
    assert log["version"] == "2.1.0"
    (found,) = log["runs"]
    rules = [rule["id"] for rule in found["tool"]["driver"]["rules"]]
    assert rules[:2] == ["GBP-A0", "GBP-A1"] and found["invocations"][0]["exitCode"] == 1
    for result in found["results"]:
        assert rules[result["ruleIndex"]] == result["ruleId"] and result["level"] in ("error", "warning")
        uri = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
        assert re.fullmatch(r"[A-Za-z0-9%._~/-]+", uri) and not uri.startswith("/")
    places = {r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for r in found["results"]}
    assert "photos/0.png" in places and "photos/a%3Cb%3E%26%27%22%7C%60.png" in places


def test_github_commands_are_one_line_each(failed: AuditReport, monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    lines = list(github.commands(failed))
    assert all("\n" not in line and line.startswith("::") for line in lines)
    assert lines[-1].startswith("::notice") and sum(line.startswith("::error") for line in lines) >= 2
    assert len(lines) <= 10
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(place / "summary.md"))
    github.job_summary(failed)
    assert (place / "summary.md").read_text().startswith("## ❌ Audit of `bad.onnx`")


def test_markdown_names_what_failed_and_escapes(failed: AuditReport) -> None:
    text = writer.text(failed, "markdown")
    assert "| 0.png |" in text and r"a\<b\>&'\"\|\`.png" in text.replace('"', r"\"")
    for line in text.splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) in (3, 5), line


def test_html_is_one_file_and_keeps_names_as_text(failed: AuditReport) -> None:
    page = writer.text(failed, "html")
    assert "a<b>" not in page and "a&lt;b&gt;&amp;" in page
    references = re.findall(r"""(?:src|href|action)\s*=\s*["']([^"']*)""", page)
    assert references and all(r.startswith(("data:", "#")) for r in references)
    assert not re.search(r"url\(|@import|https?://|<link[^>]*stylesheet|fetch\(|XMLHttp", page)
    assert page.count("<img") == 3 * 6 and "color-scheme" in page and "light-dark(" in page
    assert page.index("0.png") < page.index("</table>", page.index('id="table"'))
    assert page.count("aria-label=") == len(html._curves(failed.check("sanity"))) == 4


def test_reports_do_not_overwrite_what_is_read(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("audit.toml").write_text('[model]\npath = "model.onnx"\n[images]\nfolder = "photos"\n[checks.coverage]\n')
    assert run(["audit", "audit.toml", "--json", "audit.toml"]) == 2
    assert run(["audit", "audit.toml", "--json", "model.onnx"]) == 2
    assert run(["audit", "audit.toml", "--json", "x", "--html", "x"]) == 2
    capsys.readouterr()
    assert run(["audit", "audit.toml", "--json", "-", "-q"]) == 0
    jsonschema.validate(json.loads(capsys.readouterr().out), SCHEMA)


def test_a_missing_package_is_asked_for(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    report = gbp_onnx.audit(settings("coverage"))
    with pytest.raises(gbp_onnx.GbpError, match=r"GBP412.*jinja2(?s:.*)pip install 'gbp-onnx\[audit\]'"):
        writer.text(report, "html")


# --- pytest -------------------------------------------------------------------------------------------------------


def test_the_pytest_plugin_makes_an_item_for_each_check(place: Path) -> None:
    shuffle_first_layer("bad.onnx")
    Path("audit.toml").write_text(
        '[model]\npath = "bad.onnx"\n[baseline]\nmodel = "model.onnx"\n[images]\nfolder = "photos"\n'
        "[checks.coverage]\n[checks.drift]\n[checks.localisation]\n"
    )
    Path("test_it.py").write_text(
        "import pytest\n\n\n@pytest.mark.gbp_onnx(config='audit.toml')\n"
        "def test_explanations(gbp_onnx):\n    assert gbp_onnx.means is not None\n"
    )
    arguments = ["-v", "-p", "gbp_onnx.pytest_plugin", "-p", "no:cacheprovider", "--strict-markers", "test_it.py"]
    environment = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        capture_output=True,
        text=True,
        env={**__import__("os").environ, **environment},
        timeout=300,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    for name, outcome in (
        ("images", "PASSED"),
        ("coverage", "PASSED"),
        ("drift", "FAILED"),
        ("localisation", "SKIPPED"),
    ):
        assert f"test_explanations[{name}] {outcome}" in done.stdout, done.stdout
    assert "0.png: guided.cosine" in done.stdout or "0.png: top1_changed" in done.stdout


# --- CI -----------------------------------------------------------------------------------------------------------


def test_the_ci_files_name_commands_that_exist() -> None:
    from gbp_onnx.cli.main import cli

    found = []
    for name in ("audit.yml", "pre-commit-config.yaml"):
        text = (ROOT / "docs" / "ci" / name).read_text(encoding="utf-8")
        found += [line.split() for line in re.findall(r"^\s+(?:entry: )?gbp-onnx (audit .*)$", text, re.MULTILINE)]
        assert 'gbp-onnx[audit]"' in text
    assert len(found) == 2
    for line in found:
        cli.commands[line[0]].make_context(line[0], line[1:])
