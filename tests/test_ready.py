"""Graphs that ONNX Runtime optimised, kept for the next start: the same bits, no harm from what lies in the folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import gbp_onnx
from gbp_onnx import bundled, cache, ready, variants
from gbp_onnx.errors import GbpError, RuntimeFailure
from gbp_onnx.graph import files
from gbp_onnx.graph.external import external_tensors
from gbp_onnx.runtime.machine import machine
from gbp_onnx.runtime.session import Session

X = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)

pytestmark = pytest.mark.skipif(not machine(), reason="the processor is not known here: nothing is kept")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How sessions are made from now on: "plain", "written" (plain, and what is optimised is kept), "kept"."""
    seen: list[str] = []

    class Watched(Session):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            seen.append("kept" if options.get("optimised") else "written" if options.get("into") else "plain")

    monkeypatch.setattr(variants, "Session", Watched)
    return seen


def maps(model: Any, target: Any = None, **options: Any) -> np.ndarray:
    return gbp_onnx.Explainer(model, providers="cpu", **options).attribute(X, target)["guided"]


def entry(folder: Path) -> Path:
    """The one entry."""
    (found,) = folder.glob("*.files")
    return found


def checked_anew(entry: Path) -> None:
    """Let the checksums be those of what lies in the folder now."""
    (entry / "checksums.json").write_text(json.dumps(cache._checksums(entry)))


@pytest.mark.parametrize("lowering", ["auto", "portable"])
def test_the_same_bits(folder: Path, model: Path, started: list[str], lowering: str) -> None:
    wanted = maps(model, cache=False, lowering=lowering)
    np.testing.assert_array_equal(maps(model, lowering=lowering), wanted)
    assert started == ["plain", "written", "kept"]
    np.testing.assert_array_equal(maps(model, lowering=lowering), wanted)
    assert started[3:] == ["kept"]


def test_what_sessions_say_of_themselves(folder: Path, model: Path, started: list[str]) -> None:
    made = [gbp_onnx.Explainer(model, providers="cpu", cache=kept) for kept in (False, True)]
    assert started == ["plain", "written", "kept"]
    plain, kept = (e._runner._session for e in made)
    for name in ("input_types", "input_shapes", "output_types", "output_shapes", "providers"):
        assert getattr(plain, name) == getattr(kept, name)


def test_another_file_and_another_machine_are_other_entries(
    folder: Path, model: Path, tmp_path: Path, started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    maps(model)
    maps(model, low_memory=False)  # as it was
    maps(shutil.copy(model, tmp_path / "copy.onnx"))  # the contents count
    assert started == ["written", "kept", "kept", "kept"]
    monkeypatch.setattr(ready, "machine", lambda: "another one")
    maps(model)
    assert started[4:] == ["written", "kept"]
    monkeypatch.setattr(ready, "machine", lambda: "")
    maps(model)
    assert started[6:] == ["plain"]


def test_what_is_not_kept(folder: Path, model: Path, started: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    maps(model.read_bytes())
    maps(onnx.load(model))
    maps(model, cache=False)
    maps(model, low_memory=True)
    monkeypatch.setenv("GBP_CACHE_SIZE", "16")  # of which one entry takes a quarter
    maps(model)
    assert started == ["plain"] * 5
    assert not list(folder.glob("*.files"))


def test_of_arrays_of_many_sizes_the_first_is_kept(folder: Path, tmp_path: Path, started: list[str]) -> None:
    free = onnx.load(bundled.model_path())
    for axis in (2, 3):
        free.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"size{axis}"
    onnx.save(free, tmp_path / "free.onnx")
    explainer = gbp_onnx.Explainer(tmp_path / "free.onnx", providers="cpu")
    assert started == ["plain"]  # of the forward pass
    for size in (64, 96, 64):
        explainer.attribute(X[:, :, :size, :size])
    assert started == ["plain", "written", "kept", "plain"]
    assert entry(folder)


def test_only_their_owner_reads_weights(folder: Path, model: Path) -> None:
    folder.mkdir(mode=0o755)
    maps(model)
    assert entry(folder).stat().st_mode & 0o777 == 0o700
    found = {f.name: f.stat().st_mode & 0o777 for f in entry(folder).iterdir()}
    assert found == dict.fromkeys(("checksums.json", "model.onnx", "weights"), 0o600)


@pytest.mark.parametrize("name", ["model.onnx", "weights", "checksums.json"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_damaged_entries_are_written_anew(
    folder: Path, model: Path, started: list[str], name: str, damage: str
) -> None:
    wanted = maps(model)
    file = entry(folder) / name
    data = bytearray(file.read_bytes())
    if damage == "gone":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(data[: len(data) // 2])
    else:
        data[len(data) // 2] ^= 255
        file.write_bytes(data)
    np.testing.assert_array_equal(maps(model), wanted)
    np.testing.assert_array_equal(maps(model), wanted)
    assert started == ["written", "kept"] * 2 + ["kept"]


@pytest.mark.parametrize("graph", ["no model", "of other files", "of unknown nodes"])
def test_graphs_that_are_whole_and_wrong_do_not_run(folder: Path, model: Path, started: list[str], graph: str) -> None:
    """Other files are not opened, whatever an entry says."""
    wanted = maps(model)
    file = entry(folder) / "model.onnx"
    kept = onnx.ModelProto.FromString(file.read_bytes())
    if graph == "of other files":
        place = next(e for e in external_tensors(kept)[0][0].external_data if e.key == "location")
        place.value = "../../model.onnx"
    elif graph == "of unknown nodes":
        kept.graph.node[0].op_type = "Unknown"
    file.write_bytes(b"no model" if graph == "no model" else kept.SerializeToString())
    checked_anew(entry(folder))
    np.testing.assert_array_equal(maps(model), wanted)
    assert started == ["written", "kept", "plain"]


def test_what_cannot_be_written_is_not_tried_again(
    folder: Path, model: Path, started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = maps(model, cache=False)
    real = variants.Session

    def stubborn(*arguments: Any, **options: Any) -> Session:
        if options.get("into"):
            started.append("refused")
            (options["into"] / "half").write_bytes(b"half")
            raise RuntimeFailure("GBP304", "this graph cannot be written")
        return real(*arguments, **options)

    monkeypatch.setattr(variants, "Session", stubborn)
    for _ in range(2):
        np.testing.assert_array_equal(maps(model), wanted)
    assert started == ["plain", "refused", "plain", "plain"]
    assert [f.name for f in entry(folder).iterdir()] == ["checksums.json"]


def test_a_file_that_changes_while_it_is_read_is_not_kept(
    folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that are read where they lie belong to the contents by which entries go, or to none."""
    monkeypatch.setattr(files, "WHOLE_BELOW", 1 << 20)
    real = variants.Session

    def slow(*arguments: Any, **options: Any) -> Session:
        session = real(*arguments, **options)
        if not options.get("optimised"):
            with model.open("ab") as file:
                file.write(b"\0")
        return session

    monkeypatch.setattr(variants, "Session", slow)
    with pytest.raises(GbpError) as error:
        maps(model)
    assert error.value.code == "GBP106"
    assert not list(folder.glob("*.files"))


@pytest.mark.parametrize("change", ["changed", "gone", "another"])
def test_a_large_file_must_stay_as_it_is(model: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    monkeypatch.setattr(files, "WHOLE_BELOW", 1 << 20)
    explainer = gbp_onnx.Explainer(model, providers="cpu")
    first = explainer.attribute(X)["guided"]
    if change == "another":
        shutil.copy(model, model.with_name("other.onnx")).replace(model)
    elif change == "changed":
        with model.open("ab") as file:
            file.write(b"\0")
    else:
        model.unlink()
    np.testing.assert_array_equal(explainer.attribute(X)["guided"], first)
    for later in (
        lambda: explainer.attribute(X, np.eye(1000, dtype=np.float32)[281]),
        lambda: explainer._opened.several(5),
    ):
        with pytest.raises(GbpError) as error:
            later()
        assert error.value.code == "GBP106"
