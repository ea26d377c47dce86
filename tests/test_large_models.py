"""Weights that stay on disk: read nowhere, written once, shared or copied; the maps do not change by it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import gbp_onnx
from benchmarks.synthetic import write_cnn
from gbp_onnx.cli.main import run
from gbp_onnx.errors import GbpError
from gbp_onnx.graph import files, saving
from gbp_onnx.graph.external import LEFT_OUTSIDE, bytes_outside, external_tensors
from gbp_onnx.graph.files import read_model
from gbp_onnx.graph.wire import without_weights

SIZE = 5_000_000


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small form of the synthetic CNN, its weights in a data file beside it."""
    return write_cnn(tmp_path_factory.mktemp("outside") / "cnn.onnx", SIZE)


@pytest.fixture(scope="module")
def inside(outside: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model in one file."""
    path = tmp_path_factory.mktemp("inside") / "cnn.onnx"
    onnx.save(onnx.load(outside), path)
    return path


@pytest.fixture(scope="module")
def x() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)


@pytest.fixture(scope="module")
def wanted(inside: Path, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The guided map, from the bytes of the one file."""
    return gbp_onnx.Explainer(inside.read_bytes(), providers="cpu").attribute(x, 7)["guided"]


def plain_run(path: Path, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The guided map that ONNX Runtime alone computes from a built file."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["attribution_guided"], {"image": x, "target": np.array([7])})[0])


def same(found: Any, wanted: np.ndarray[Any, Any]) -> None:
    assert wanted.any()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-6 * float(np.abs(wanted).max()))


# --- reading ------------------------------------------------------------------------------------------------------


def test_the_generator_is_seeded(outside: Path, tmp_path: Path) -> None:
    again = write_cnn(tmp_path / "cnn.onnx", SIZE)
    for suffix in ("", ".data"):
        one, two = Path(f"{outside}{suffix}").read_bytes(), Path(f"{again}{suffix}").read_bytes()
        assert one == two
    assert Path(f"{again}.data").stat().st_size >= SIZE


def test_large_external_weights_are_not_read(outside: Path) -> None:
    file = read_model(outside, leave=True)
    assert file.folder == outside.parent
    left, others = external_tensors(file.model)
    assert left and not others
    assert bytes_outside(file.model) > 0.9 * SIZE
    assert file.model.ByteSize() < 0.1 * SIZE
    assert all(not t.raw_data for t in left)
    small = [t for t in file.model.graph.initializer if t.raw_data]
    assert small and all(len(t.raw_data) < LEFT_OUTSIDE for t in small)
    assert read_model(outside).folder is None  # it fits: inside


def test_large_weights_inside_a_file_are_not_read_either(inside: Path) -> None:
    file = read_model(inside, leave=True, whole_below=0)
    left, _ = external_tensors(file.model)
    assert file.model.ByteSize() < 0.1 * SIZE
    assert not file.data
    whole = {t.name: t for t in onnx.load(inside).graph.initializer}
    data = inside.read_bytes()
    for tensor in left:
        at = {e.key: e.value for e in tensor.external_data}
        begin = int(at["offset"])
        assert at["location"] == inside.name
        assert data[begin : begin + int(at["length"])] == whole[tensor.name].raw_data
    for tensor in file.model.graph.initializer:
        assert (tensor.name, tensor.dims, tensor.data_type) == (
            whole[tensor.name].name, whole[tensor.name].dims, whole[tensor.name].data_type
        )  # fmt: skip
    assert read_model(inside, leave=True).folder is None  # a small file is read as a whole


@pytest.mark.parametrize("cut", [1, 100, 5000])
def test_a_file_that_ends_too_early_is_refused_as_ever(inside: Path, tmp_path: Path, cut: int) -> None:
    path = tmp_path / "cut.onnx"
    path.write_bytes(inside.read_bytes()[:-cut])
    with pytest.raises(ValueError):
        without_weights(path)
    with pytest.raises(GbpError) as error:
        read_model(path, leave=True, whole_below=0)
    assert error.value.code == "GBP102"


def test_a_tensor_with_data_here_and_elsewhere_is_left_whole(tmp_path: Path) -> None:
    """A file may claim both; where its bytes lie must not be mixed up with what it claims."""
    tensor = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [LEFT_OUTSIDE], b"\1" * 4 * LEFT_OUTSIDE, raw=True)
    tensor.external_data.add(key="location", value="../secret")
    path = tmp_path / "model.onnx"
    graph = onnx.helper.make_graph([], "g", [], [onnx.helper.make_tensor_value_info("w", 1, None)], [tensor])
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    assert onnx.ModelProto.FromString(without_weights(path)).graph.initializer[0] == tensor


def test_constants_left_on_disk_are_unknown_and_never_looked_for_elsewhere(
    outside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """numpy_helper would open the location below the working directory."""
    from gbp_onnx.graph.reader import Graph

    model = read_model(outside, leave=True).model
    (tmp_path / "cnn.onnx.data").write_bytes(b"\0" * 2 * SIZE)
    monkeypatch.chdir(tmp_path)
    graph = Graph(model)
    name = external_tensors(model)[0][0].name
    assert graph.constant(graph.tensors[name]) is None
    assert graph.static_shape(graph.tensors[name]) is not None


# --- explaining ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("low_memory", [None, False, True])
def test_the_maps_are_the_same_wherever_the_weights_lie(
    outside: Path, inside: Path, x: Any, wanted: Any, low_memory: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (outside, inside):
        explainer = gbp_onnx.Explainer(path, providers="cpu", low_memory=low_memory)
        same(explainer.attribute(x, 7)["guided"], wanted)
    seed = np.zeros((1, 1000), np.float32)
    seed[0, 7] = 1
    same(explainer.attribute(x, seed)["guided"], wanted)
    monkeypatch.setattr(files, "WHOLE_BELOW", 0)
    link = inside.parent / "link.onnx"
    link.unlink(missing_ok=True)
    link.symlink_to(inside)
    for path in (inside, link):
        same(gbp_onnx.Explainer(path, providers="cpu", low_memory=low_memory).attribute(x, 7)["guided"], wanted)


def test_copies_are_made_where_they_are_worth_it() -> None:
    """By the bytes of weights on disk, where the caller does not say."""
    from gbp_onnx.opened import BLOCKED_FROM, LOW_MEMORY_FROM, copies_for
    from gbp_onnx.runtime.session import Copies

    sizes = (0, BLOCKED_FROM, BLOCKED_FROM + 1, LOW_MEMORY_FROM, LOW_MEMORY_FROM + 1)
    found = [copies_for(None, size) for size in sizes]
    assert found == [Copies.ALL, Copies.ALL, Copies.BLOCKED, Copies.BLOCKED, Copies.NONE]
    assert [copies_for(low, 1 << 40) for low in (False, True)] == [Copies.ALL, Copies.NONE]


def test_low_memory_is_what_large_weights_get(outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for least, low in ((0, True), (1 << 40, False)):
        monkeypatch.setattr("gbp_onnx.opened.LOW_MEMORY_FROM", least)
        assert gbp_onnx.Explainer(outside, providers="cpu").low_memory is low
        assert gbp_onnx.Explainer(outside, providers="cpu", low_memory=not low).low_memory is not low


def test_the_record_names_model_and_data(outside: Path, tmp_path: Path) -> None:
    digest = hashlib.sha256(Path(f"{outside}.data").read_bytes()).hexdigest()
    built = gbp_onnx.build(outside)
    props = {e.key: e.value for e in built.metadata_props}
    assert props["gbp.source_sha256"] == hashlib.sha256(outside.read_bytes()).hexdigest()
    assert json.loads(props["gbp.data_sha256"]) == {"cnn.onnx.data": digest}
    record = gbp_onnx.Explainer(outside, providers="cpu", preprocess="imagenet").explain(np.zeros((9, 9, 3), np.uint8))
    assert record.to_dict()["data_sha256"] == {"cnn.onnx.data": digest}


def test_inspecting_reads_no_weights(outside: Path) -> None:
    assert gbp_onnx.inspect(outside).counts == gbp_onnx.inspect(onnx.load(outside)).counts


# --- writing ------------------------------------------------------------------------------------------------------


def test_beside_the_source_its_data_file_is_shared(outside: Path, x: Any, wanted: Any) -> None:
    before = sorted(outside.parent.iterdir())
    out = outside.parent / "explainer.onnx"
    assert run(["build", str(outside), "-o", str(out), "-r", "guided"]) == 0
    assert sorted(outside.parent.iterdir()) == sorted([*before, out])
    assert out.stat().st_size < 0.1 * SIZE
    same(plain_run(out, x), wanted)
    same(gbp_onnx.Explainer(out, providers="cpu").attribute(x, 7)["guided"], wanted)
    out.unlink()


@pytest.mark.parametrize("option", ["auto", "copy"])
def test_elsewhere_the_weights_are_copied(
    outside: Path, tmp_path: Path, x: Any, wanted: Any, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "explainer.onnx"
    assert run(["build", str(outside), "-o", str(out), "-r", "guided", "--weights", option]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{out}.data", str(out)]
    assert sorted(p.name for p in out.parent.iterdir()) == ["explainer.onnx", "explainer.onnx.data"]
    offsets = [int(e.value) for t in external_tensors(onnx.load(out, load_external_data=False))[0]
               for e in t.external_data if e.key == "offset"]  # fmt: skip
    assert offsets and all(offset % 4096 == 0 for offset in offsets)
    same(plain_run(out, x), wanted)
    onnx.checker.check_model(out)


def test_a_data_file_in_a_folder_below_is_shared(outside: Path, tmp_path: Path, x: Any, wanted: Any) -> None:
    (tmp_path / "below").mkdir()
    below = write_cnn(tmp_path / "below" / "cnn.onnx", SIZE)
    out = tmp_path / "explainer.onnx"
    assert run(["build", str(below), "-o", str(out), "-r", "guided"]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["below", "explainer.onnx"]
    same(plain_run(out, x), wanted)


def test_everything_in_one_file(outside: Path, tmp_path: Path, x: Any, wanted: Any) -> None:
    out = tmp_path / "explainer.onnx"
    assert run(["build", str(outside), "-o", str(out), "-r", "guided", "--weights", "inside"]) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["explainer.onnx"]
    assert out.stat().st_size > SIZE
    same(plain_run(out, x), wanted)


def test_one_file_stays_one_file_without_reading_it(
    inside: Path, tmp_path: Path, x: Any, wanted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, streamed = tmp_path / "usual.onnx", tmp_path / "streamed.onnx"
    assert run(["build", str(inside), "-o", str(usual), "-r", "guided"]) == 0
    monkeypatch.setattr(files, "WHOLE_BELOW", 0)
    assert run(["build", str(inside), "-o", str(streamed), "-r", "guided"]) == 0
    models = [onnx.load(usual), onnx.load(streamed)]
    for model in models:
        for tensor in model.graph.initializer:
            tensor.ClearField("data_location")  # the default, said or not
    assert models[0] == models[1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["streamed.onnx", "usual.onnx"]
    same(plain_run(streamed, x), wanted)


def test_what_is_too_large_for_one_file_gets_a_data_file(
    outside: Path, inside: Path, tmp_path: Path, x: Any, wanted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a limit of 1 MB in place of 2 GiB."""
    monkeypatch.setattr(saving, "MAX_PROTOBUF", 1_000_000)
    proto = gbp_onnx.build(inside)
    out = gbp_onnx.save(proto, tmp_path / "explainer.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["explainer.onnx", "explainer.onnx.data"]
    assert out.stat().st_size < 1_000_000
    same(plain_run(out, x), wanted)
    assert all(not external_tensors(proto)[k] for k in (0, 1))  # the caller's model stays as it is
    with pytest.raises(GbpError) as error:
        gbp_onnx.save(proto, tmp_path / "one.onnx", weights="inside")
    assert error.value.code == "GBP113"
    assert not (tmp_path / "one.onnx").exists()


def test_a_result_that_does_not_fit_refers_to_the_weights(
    outside: Path, tmp_path: Path, x: Any, wanted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for models over 2 GiB: what build returns is saved beside the source, or by `save` anywhere."""
    monkeypatch.setattr(files, "MAX_PROTOBUF", 1_000_000 + files._ROOM)
    built = gbp_onnx.build(outside)
    gradient = gbp_onnx.differentiate(outside)
    assert bytes_outside(built) == bytes_outside(gradient) > 0.9 * SIZE
    beside = outside.parent / "by-onnx.onnx"
    onnx.save(built, beside)
    same(plain_run(beside, x), wanted)
    beside.unlink()
    same(plain_run(gbp_onnx.save(built, beside), x), wanted)
    beside.unlink()
    same(plain_run(gbp_onnx.save(built, tmp_path / "far.onnx", source=outside), x), wanted)
    with pytest.raises(GbpError) as error:
        gbp_onnx.save(built, tmp_path / "lost" / "far.onnx")
    assert error.value.code == "GBP106"
    with pytest.raises(GbpError) as error:
        gbp_onnx.Explainer(built)
    assert error.value.code == "GBP106"


def test_no_data_file_that_was_read_is_written_over(outside: Path, tmp_path: Path) -> None:
    model = tmp_path / "a.onnx"
    write_cnn(tmp_path / "b.onnx", SIZE).rename(model)  # its data are b.onnx.data
    before = (tmp_path / "b.onnx.data").stat().st_mtime_ns
    assert run(["build", str(model), "-o", str(tmp_path / "b.onnx"), "--weights", "copy"]) == 2
    assert (tmp_path / "b.onnx.data").stat().st_mtime_ns == before
    assert not (tmp_path / "b.onnx").exists()
    assert run(["build", str(model), "-o", str(tmp_path / "b.onnx.data")]) == 2


def test_nothing_is_left_behind_where_the_disk_is_full(
    outside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saving, "_write", full)
    out = tmp_path / "explainer.onnx"
    assert run(["build", str(outside), "-o", str(out)]) == 2
    assert list(tmp_path.iterdir()) == []


def test_equal_weights_are_written_once(outside: Path, tmp_path: Path) -> None:
    model = onnx.load(outside, load_external_data=False)
    twin = onnx.TensorProto()
    twin.CopyFrom(next(t for t in model.graph.initializer if np.prod(t.dims) * 4 >= LEFT_OUTSIDE))
    twin.name = "twin"
    model.graph.initializer.append(twin)
    out = gbp_onnx.save(model, tmp_path / "twice.onnx", source=outside)
    assert Path(f"{out}.data").stat().st_size <= Path(f"{outside}.data").stat().st_size
    onnx.checker.check_model(out)


@pytest.mark.parametrize("option", ["nowhere", ""])
def test_unknown_places_are_refused(outside: Path, tmp_path: Path, option: str) -> None:
    with pytest.raises(GbpError) as error:
        gbp_onnx.save(onnx.load(outside), tmp_path / "x.onnx", weights=option)
    assert error.value.code == "GBP410"


@pytest.mark.skipif(sys.platform == "win32", reason="getrusage is POSIX")
def test_building_takes_less_memory_than_the_weights(tmp_path: Path) -> None:
    """120 MB of weights; the process itself takes about 90 MB, and onnx and numpy are most of that."""
    path = write_cnn(tmp_path / "cnn.onnx", 120_000_000)
    code = (
        "import sys\nfrom benchmarks.memory import peak\nfrom gbp_onnx.cli.main import run\n"
        "assert run(['inspect', sys.argv[2], '--json']) == 0\nbefore = peak()\n"
        "assert run(['build', sys.argv[1], '-o', sys.argv[1] + '.out.onnx', '--weights', 'copy']) == 0\n"
        "print(peak() - before)\n"
    )
    small = write_cnn(tmp_path / "small.onnx", 1_000_000)
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), str(small)],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert int(done.stdout.splitlines()[-1]) < 60_000_000
