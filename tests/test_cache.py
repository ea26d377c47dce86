"""What is kept for the next start of a model: the same maps, a bounded folder, no harm from what lies in it."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from make_tiny import make

import gbp_onnx
from gbp_onnx import bundled, cache, stored, together, variants
from gbp_onnx.cache import Cache, cache_folder
from gbp_onnx.graph.external import external_tensors
from gbp_onnx.runtime.session import takes_weights_from_memory

X = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is built and lowered from now on."""
    seen: list[str] = []

    def watched(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            seen.append(name)
            return function(*arguments, **options)

        return call

    monkeypatch.setattr(stored, "build_loaded", watched("built", stored.build_loaded))
    monkeypatch.setattr(variants, "lower", watched("lowered", variants.lower))
    return seen


def forget_what_is_ready(folder: Path) -> None:
    """Take the graphs that ONNX Runtime has optimised away, for which nothing needs to be lowered."""
    for ready in folder.glob("*.files"):
        shutil.rmtree(ready)


def maps(model: Any, target: Any = None, **options: Any) -> np.ndarray:
    return gbp_onnx.Explainer(model, providers="cpu", **options).attribute(X, target)["guided"]


def test_a_second_start_builds_nothing(folder: Path, model: Path, made: list[str]) -> None:
    first, second = maps(model), maps(model)
    assert made == ["built", "lowered"]
    np.testing.assert_array_equal(first, second)
    seed = np.ones(1000, np.float32)
    np.testing.assert_array_equal(maps(model, seed), maps(model, seed))
    assert made == ["built", "lowered", "lowered"]


def test_a_built_file_is_lowered_once(folder: Path, tmp_path: Path, made: list[str]) -> None:
    gbp_onnx.save(gbp_onnx.build(bundled.model_path()), tmp_path / "built.onnx")
    np.testing.assert_array_equal(maps(tmp_path / "built.onnx"), maps(tmp_path / "built.onnx"))
    assert made == ["lowered"]


def test_graphs_are_kept_without_weights(folder: Path, model: Path) -> None:
    maps(model)
    assert sum(f.stat().st_size for f in folder.glob("*.gbp")) < model.stat().st_size / 2


def test_other_options_and_other_contents_are_other_entries(folder: Path, model: Path, made: list[str]) -> None:
    plain = maps(model)
    assert not np.array_equal(maps(model, explain="output"), plain)
    assert not np.array_equal(gbp_onnx.Explainer(model, "saliency").attribute(X)["saliency"], plain)
    changed = onnx.load(model)
    for tensor in changed.graph.initializer:
        if len(tensor.dims) == 4:
            tensor.raw_data = (np.frombuffer(tensor.raw_data, np.float32) * np.float32(1.01)).tobytes()
    onnx.save(changed, model)
    assert not np.array_equal(maps(model), plain)
    assert made.count("built") == 4


def test_a_change_of_the_code_is_a_change(folder: Path, model: Path, made: list[str], monkeypatch: Any) -> None:
    maps(model)
    monkeypatch.setattr(stored, "code_digest", lambda: "another version")
    maps(model)
    assert made.count("built") == 2


def test_the_file_may_be_renamed_and_go_away(folder: Path, model: Path, made: list[str]) -> None:
    first = maps(model, 281)
    explainer = gbp_onnx.Explainer(model.rename(model.with_name("other.onnx")), providers="cpu")
    model.with_name("other.onnx").unlink()
    np.testing.assert_array_equal(explainer.attribute(X, 281)["guided"], first)
    seeded = explainer.attribute(X, np.eye(1000, dtype=np.float32)[281])["guided"]  # a session that is made now
    np.testing.assert_allclose(seeded, first, rtol=1e-5, atol=1e-7)
    assert made.count("built") == 1


def test_a_file_that_changes_is_not_read_again(folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is built later is of the model that was opened."""
    monkeypatch.setattr(together, "ALONE_FIRST", 1)
    photo = np.random.default_rng(1).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    explainer = gbp_onnx.Explainer(model, providers="cpu")
    first = explainer.explain(photo, "top5")
    onnx.save(make("plain"), model)
    for one, other in zip(first, explainer.explain(photo, "top5"), strict=True):  # from one forward pass now
        assert one.target == other.target
        np.testing.assert_allclose(one.attributions["guided"], other.attributions["guided"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "no model", "another file's weights"])
def test_damaged_entries_are_written_anew(folder: Path, model: Path, made: list[str], damage: str) -> None:
    first = maps(model)
    forget_what_is_ready(folder)
    for entry in folder.glob("*.gbp"):
        data = bytearray(entry.read_bytes())
        if damage == "another file's weights":
            other = onnx.ModelProto.FromString(bytes(data[32:]))
            for tensor in external_tensors(other)[0]:
                next(e for e in tensor.external_data if e.key == "location").value = "../secret"
            data = bytearray(other.SerializeToString())
            data = bytearray(hashlib.sha256(data).digest()) + data
        elif damage == "no model":
            data = bytearray(hashlib.sha256(b"no model").digest()) + b"no model"
        elif damage == "flipped":
            data[len(data) // 2] ^= 255
        else:
            del data[0 if damage == "empty" else len(data) // 2 :]
        entry.write_bytes(data)
    np.testing.assert_array_equal(maps(model), first)
    assert made == ["built", "lowered"] * 2
    forget_what_is_ready(folder)
    np.testing.assert_array_equal(maps(model), first)
    assert made == ["built", "lowered"] * 2


def test_a_folder_that_takes_nothing_is_no_cache(
    tmp_path: Path, model: Path, monkeypatch: Any, made: list[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GBP_CACHE", str(tmp_path / "file" / "cache"))
    np.testing.assert_array_equal(maps(model), maps(model))
    assert made.count("built") == 2


def test_what_is_not_a_file_is_not_kept(folder: Path, model: Path) -> None:
    maps(model.read_bytes())
    maps(onnx.load(model))
    maps(model, cache=False)
    assert not folder.exists()


def test_the_environment_names_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for word in ("off", "0", "OFF"):
        monkeypatch.setenv("GBP_CACHE", word)
        assert cache_folder() is None
    monkeypatch.delenv("GBP_CACHE")
    monkeypatch.setenv("LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "gbp-onnx"


def test_what_was_not_used_for_longest_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MOST_BYTES", 4 * (1000 + 32))
    monkeypatch.setattr(cache, "MOST_OF_ONE", 2000)
    kept = Cache(tmp_path)
    kept.put("large", bytes(2001))
    assert kept.get("large") is None
    for at, name in enumerate("abcd"):
        kept.put(name, name.encode() * 1000)
        os.utime(kept._path(name), ns=(at, at))
    assert kept.get("a") == b"a" * 1000  # now it was used last
    kept.put("e", b"e" * 1000)
    assert [name for name in "abcde" if kept.get(name) is not None] == ["a", "c", "d", "e"]


def test_folders_of_files_go_like_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MOST_BYTES", 3200)
    kept = Cache(tmp_path)
    assert kept.takes(800)
    assert not kept.takes(801)
    for at, name in enumerate("abc"):
        with kept.filling(name) as folder:
            assert folder is not None
            (folder / "one").write_bytes(name.encode() * 400)
            (folder / "two").write_bytes(name.encode() * 400)
        entry = kept.files(name)
        assert entry is not None
        os.utime(entry, ns=(at, at))
    assert kept.files("a") is not None  # now it was used last
    kept.put("d", b"d" * 1000)
    assert [name for name in "abc" if kept.files(name) is not None] == ["a", "c"]
    assert kept.get("d") == b"d" * 1000
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".files", ".files", ".gbp"]


def test_a_folder_that_fails_is_not_kept(tmp_path: Path) -> None:
    kept = Cache(tmp_path / "cache")
    with pytest.raises(KeyError), kept.filling("key") as folder:
        assert folder is not None
        (folder / "one").write_bytes(b"1")
        raise KeyError("key")
    assert kept.files("key") is None
    assert not list((tmp_path / "cache").iterdir())
    (tmp_path / "file").write_text("")
    with Cache(tmp_path / "file" / "cache").filling("key") as folder:
        assert folder is None


def test_the_environment_says_how_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("GBP_CACHE_SIZE", "2")
    assert Cache(tmp_path).takes(1 << 19)
    assert not Cache(tmp_path).takes((1 << 19) + 1)
    monkeypatch.setenv("GBP_CACHE_SIZE", "1 GB")
    for start in (lambda: Cache(tmp_path), lambda: gbp_onnx.Explainer(providers="cpu")):
        with pytest.raises(gbp_onnx.GbpError) as error:
            start()
        assert error.value.code == "GBP410"
    assert Cache(None).get("key") is None  # that is switched off: its size says nothing


@pytest.mark.skipif(
    not takes_weights_from_memory(), reason="this ONNX Runtime takes weights from files and models only"
)
@pytest.mark.parametrize("source", ["path", "bytes", "proto"])
def test_weights_of_a_held_model_are_in_memory_once(model: Path, source: str) -> None:
    given = {"path": model, "bytes": model.read_bytes(), "proto": onnx.load(model)}[source]
    explainer = gbp_onnx.Explainer(given, providers="cpu")
    built = explainer._runner._variants._built
    assert built.ByteSize() < model.stat().st_size / 2
    assert explainer._props["gbp.source_sha256"]
    whole = gbp_onnx.Explainer(gbp_onnx.build(model), providers="cpu", lowering="portable")
    np.testing.assert_allclose(
        explainer.attribute(X, 3)["guided"], whole.attribute(X, 3)["guided"], rtol=1e-4, atol=1e-6
    )


def test_models_without_large_weights(folder: Path, tmp_path: Path, made: list[str]) -> None:
    onnx.save(make("plain"), tmp_path / "plain.onnx")
    x = np.ones((2, 3, 16, 16), np.float32)
    found = [gbp_onnx.Explainer(tmp_path / "plain.onnx").attribute(x)["guided"] for _ in range(2)]
    np.testing.assert_array_equal(*found)
    assert made.count("built") == 1
