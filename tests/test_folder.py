"""Many photographs: in order, several at a time, a bounded number held, written by one; what an error leaves behind."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from make_tiny import make
from PIL import Image

import gbp_onnx
from gbp_onnx import pipeline
from gbp_onnx.cli.main import run
from gbp_onnx.errors import GbpError, InputError
from gbp_onnx.explanation import Explanation
from gbp_onnx.pipeline import in_order, shared_out, workers_beside

WAIT = 30.0
"""Seconds after which a test gives up waiting for another thread; none waits so long that passes."""


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a model and a folder of twelve pictures, of which the fifth is none."""
    monkeypatch.chdir(tmp_path)
    onnx.save(make("labelled"), tmp_path / "model.onnx")
    noise(tmp_path / "photos", 12)
    (tmp_path / "photos" / "04.png").write_text("this is no picture")
    return tmp_path


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    return lambda count: monkeypatch.setattr(pipeline, "processors", lambda: count)


def noise(folder: Path, count: int, side: int = 40) -> None:
    folder.mkdir()
    random = np.random.default_rng(0)
    for k in range(count):
        pixels = random.integers(0, 256, (side, side + 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{k:02d}.png")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below, hidden ones too."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# --- the pipeline -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_come_in_order(workers: int) -> None:
    assert list(in_order(lambda k: k * k, range(60), workers)) == [k * k for k in range(60)]


def test_a_slow_one_holds_nothing_up() -> None:
    """The first waits until all that may be under way beside it are done."""
    done = threading.Semaphore(0)

    def work(k: int) -> int:
        if k == 0:
            assert all(done.acquire(timeout=WAIT) for _ in range(5))
        done.release()
        return k

    assert list(in_order(work, range(9), 3)) == list(range(9))


def test_no_more_than_two_for_each_worker_are_held() -> None:
    taken = given = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for k in range(60):
            taken += 1
            assert taken - given <= 2 * 3
            yield k

    for given, result in enumerate(in_order(lambda k: k, items(), 3), start=1):
        assert result == given - 1
    assert (taken, given) == (60, 60)


@pytest.mark.parametrize("workers", [1, 3])
def test_an_error_is_raised_in_its_place(workers: int) -> None:
    def work(k: int) -> int:
        if k == 4:
            raise KeyError(k)
        return k

    results, seen = in_order(work, range(20), workers), []
    with pytest.raises(KeyError):
        seen.extend(results)
    assert seen == [0, 1, 2, 3]


@pytest.mark.parametrize("workers", [1, 3])
def test_items_that_break_off_lose_none_before(workers: int) -> None:
    def items() -> Iterator[int]:
        yield from range(4)
        raise OSError("the camera is gone")

    seen: list[int] = []
    with pytest.raises(OSError, match="camera"):
        seen.extend(in_order(lambda k: k, items(), workers))
    assert seen == [0, 1, 2, 3]


def test_who_stops_early_starts_no_more() -> None:
    begun = 0
    lock = threading.Lock()

    def work(k: int) -> int:
        nonlocal begun
        with lock:
            begun += 1
        return k

    results = in_order(work, range(1000), 2)
    assert [next(results), next(results)] == [0, 1]
    results.close()
    known = begun
    assert known <= 2 + 2 * 2
    assert not [t for t in threading.enumerate() if t.name.startswith("gbp-onnx")]
    assert begun == known


def test_one_worker_is_the_callers_own_thread() -> None:
    assert set(in_order(lambda _: threading.get_ident(), range(3), 1)) == {threading.get_ident()}
    assert threading.get_ident() not in set(in_order(lambda _: threading.get_ident(), range(3), 2))


def test_how_processors_are_shared_out(cores: Callable[[int], None]) -> None:
    for processors, count, expected in [
        (1, 500, (1, 0)),
        (2, 1, (1, 0)),
        (2, 500, (2, 1)),
        (8, 3, (3, 2)),
        (64, 500, (8, 8)),
    ]:
        cores(processors)
        workers, threads = shared_out(count)
        assert (workers, threads) == expected
        assert min(count, workers_beside(threads, on_cpu=True)) == workers


# --- the explainer ------------------------------------------------------------------------------------------------


def test_explain_many_is_explain_many_times(photos: Path) -> None:
    """The same bits, whatever the number of threads; the picture that is none gives its error in its place."""
    explainer = gbp_onnx.Explainer("model.onnx", threads=1)
    paths = sorted((photos / "photos").iterdir())
    one_by_one = gbp_onnx.Explainer("model.onnx")
    for given in (paths, iter(paths), "photos", photos / "photos"):
        found = list(explainer.explain_many(given, workers=3))
        assert [isinstance(f, GbpError) for f in found] == [k == 4 for k in range(12)]
        assert isinstance(found[4], InputError) and found[4].code == "GBP402" and "04.png" in str(found[4])
        for path, one in zip(paths, found, strict=True):
            if isinstance(one, Explanation):
                expected = one_by_one.explain(path)
                assert Path(one.source).name == path.name and one.predictions == expected.predictions
                np.testing.assert_array_equal(one.attributions["guided"], expected.attributions["guided"])


def test_targets_of_many(photos: Path) -> None:
    explainer = gbp_onnx.Explainer("model.onnx")
    pixels = [np.full((8, 8, 3), k, np.uint8) for k in range(3)]
    assert [one.target for one in explainer.explain_many(pixels, 2)] == [2, 2, 2]
    assert [one.target for one in explainer.explain_many(pixels, [3, 0, 1])] == [3, 0, 1]
    assert [len(five) for five in explainer.explain_many(iter(pixels), "top5")] == [5, 5, 5]
    for images, targets in ((pixels, [0, 1]), (iter(pixels), [0, 1, 2]), (iter(pixels), np.arange(3))):
        with pytest.raises(InputError, match="GBP407"):
            explainer.explain_many(images, targets)
    (photos / "nothing").mkdir()
    with pytest.raises(InputError, match="GBP401"):
        explainer.explain_many("nothing")


def test_images_are_taken_as_they_are_needed() -> None:
    def frames() -> Iterator[Any]:
        while True:
            yield np.zeros((8, 8, 3), np.uint8)

    results = gbp_onnx.Explainer(make("plain")).explain_many(frames(), workers=2)
    assert all(isinstance(next(results), Explanation) for _ in range(10))
    results.close()  # type: ignore[attr-defined]


# --- the command line ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [[], ["--json", "--raw", "--maps"], ["--target", "top5", "--overlay"]])
def test_the_same_files_and_lines_at_any_number_at_a_time(
    photos: Path, capsys: pytest.CaptureFixture[str], cores: Callable[[int], None], options: list[str]
) -> None:
    seen = []
    for count in (1, 4):
        cores(count)
        status = run(["explain", "model.onnx", "photos", "-o", "out", *options])
        said = capsys.readouterr()
        assert status == 2 and "1 of 12 images could not be explained" in said.err
        seen.append((said.out, said.err, contents(photos / "out")))
        for file in (photos / "out").iterdir():
            file.unlink()
    assert seen[0] == seen[1]
    assert len(seen[0][2]) >= 11


def test_nothing_is_written_behind_an_error_that_ends_all(
    photos: Path, capsys: pytest.CaptureFixture[str], cores: Callable[[int], None]
) -> None:
    """The third figure's place is a folder."""
    cores(4)
    (photos / "out" / "02.png").mkdir(parents=True)
    assert run(["explain", "model.onnx", "photos", "-o", "out", "-q"]) == 2
    assert capsys.readouterr().out.split() == ["out/00.png", "out/01.png"]
    assert set(contents(photos / "out")) == {"00.png", "01.png"}


def test_an_interrupt_leaves_no_half_file(
    photos: Path, capsys: pytest.CaptureFixture[str], cores: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    cores(4)
    whole, count = Path.write_bytes, 0

    def interrupted(path: Path, data: bytes) -> int:
        nonlocal count
        count += 1
        if count == 3:
            whole(path, data[: len(data) // 2])
            raise KeyboardInterrupt
        return whole(path, data)

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    assert run(["explain", "model.onnx", "photos", "-o", "out", "-q"]) == 130
    said = capsys.readouterr()
    assert said.out.split() == ["out/00.png", "out/01.png"] and "interrupted" in said.err
    assert set(contents(photos / "out")) == {"00.png", "01.png"}
    assert not [t for t in threading.enumerate() if t.name.startswith("gbp-onnx")]


def test_memory_is_flat(photos: Path, cores: Callable[[int], None], capsys: pytest.CaptureFixture[str]) -> None:
    """What is kept of 80 more photographs is far less than their figures (which two of them at a time come near)."""
    cores(2)
    noise(photos / "few", 10, side=200)
    noise(photos / "many", 90, side=200)
    peaks = []
    for folder in ("few", "few", "many"):  # the first run loads what is loaded once
        tracemalloc.start()
        try:
            assert run(["explain", "model.onnx", folder, "-o", f"out-{folder}", "-q"]) == 0
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    figures = sum(len(data) for data in contents(photos / "out-many").values())
    assert peaks[2] - peaks[1] < 0.6 * figures
