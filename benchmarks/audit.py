"""An audit of 200 images with four checks: its time over what the checks need, its memory, and a run that is killed.

    python -m benchmarks.audit FOLDER [--images 200] [--kill 120]

FOLDER holds photographs; they are taken in turn until there are enough. What the checks need, for each image: the
explanation of the model (guided and saliency), that of the baseline (guided), one inference for parity and six for the
difference quotients; ten images are explained twice. It is timed one call after the other, on all processors; the
processor time, which a busy machine changes less, on one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from gbp_onnx import bundled
from gbp_onnx.auditing import run as running
from gbp_onnx.auditing.config import read_config
from gbp_onnx.auditing.subject import Subject
from gbp_onnx.imaging.photo import read_photo
from gbp_onnx.imaging.suffixes import IMAGE_SUFFIXES
from gbp_onnx.runtime.providers import choose_providers
from gbp_onnx.runtime.session import Session

CONFIG = """
[model]
path = {model}
[baseline]
model = {model}
[images]
folder = "photos"
[checks.coverage]
[checks.parity]
[checks.gradient]
[checks.drift]
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--kill", type=int, default=120)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        collect(options.folder, place / "photos", options.images)
        (place / "audit.toml").write_text(CONFIG.format(model=json.dumps(str(bundled.model_path()))))
        wall, _ = needed(place, options.images, threads=0)
        _, work = needed(place, options.images, threads=1)
        seconds, busy, memory = audited(place, "whole.json")
        print(f"needed: {1e3 * wall:.1f} ms for each image; on one thread {1e3 * work:.1f} ms of processor time")
        each, own = seconds / options.images, busy / options.images
        print(f"audit, start and report included: {1e3 * each:.1f} ms for each image, {each / wall:.2f} times;")
        print(f"    {1e3 * own:.1f} ms of processor time, {own / work:.2f} times")
        print(f"processor time of the images over that inside ONNX Runtime: {overhead(place):.2f}")
        print(f"memory, MiB: {', '.join(f'{m / 2**20:.0f}' for m in memory)}")
        killed(place, options.kill)
        audited(place, "resumed.json")
        same = (place / "whole.json").read_bytes() == (place / "resumed.json").read_bytes()
        print(f"killed after image {options.kill}, resumed: the report is {'the same' if same else 'ANOTHER'}")


def collect(folder: Path, photos: Path, count: int) -> None:
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    photos.mkdir()
    for k in range(count):
        source = found[k % len(found)]
        shutil.copy(source, photos / f"{k:03d}_{source.name}")


def needed(place: Path, count: int, threads: int) -> tuple[float, float]:
    """Seconds, and seconds of processor time, for each image; twenty images speak for all."""
    choice = choose_providers("cpu")
    model = Subject(bundled.model_path(), ("guided", "saliency"), choice, threads=threads, where="model")
    baseline = Subject(bundled.model_path(), ("guided",), choice, threads=threads, where="baseline")
    paths = sorted((place / "photos").iterdir())
    seen = [model.see(read_photo(paths[int(k)])) for k in np.linspace(0, len(paths) - 1, 20)]
    times = []
    for x, frame in [*seen[:2], *seen]:
        begin = time.perf_counter(), time.process_time()
        run = model.explain(x, frame)
        baseline.explain(x, frame)
        model.forward(x)
        for _ in range(6):
            model.scalar(x, run.target)
        between = time.perf_counter(), time.process_time()
        model.explain(x, frame)
        after = time.perf_counter(), time.process_time()
        share = min(1.0, 10 / count)  # ten images are explained twice
        times.append([m - b + share * (a - m) for b, m, a in zip(begin, between, after, strict=True)])
    wall, work = np.mean(times[2:], axis=0)
    return float(wall), float(work)


def overhead(place: Path) -> float:
    """Processor time that images take, over what of it ONNX Runtime takes: the same load weighs on both."""
    spent, lock = {"images": 0.0, "runs": 0.0}, threading.Lock()

    def timed(function: Any, name: str) -> Any:
        def wrapper(*arguments: Any) -> Any:
            begin = time.thread_time()
            try:
                return function(*arguments)
            finally:
                with lock:
                    spent[name] += time.thread_time() - begin

        return wrapper

    import scipy.stats  # noqa: F401 - once for all images
    import skimage.metrics  # noqa: F401

    config = tomllib.loads((place / "audit.toml").read_text())
    config |= {"images": {"folder": str(place / "photos"), "limit": 60}, "run": {"state": str(place / "overhead")}}
    look = mock.patch.object(running._Work, "_look", timed(running._Work._look, "images"))
    with look, mock.patch.object(Session, "run", timed(Session.run, "runs")):
        running.run_audit(read_config(config))
    return spent["images"] / spent["runs"]


def audited(place: Path, report: str) -> tuple[float, float, list[int]]:
    """Seconds, seconds of processor time, and the resident memory at ten moments."""
    start, used = time.perf_counter(), os.times()
    process = launch(place, report)
    memory = []
    while process.poll() is None:
        memory.append(resident(process.pid))
        time.sleep(0.2)
    assert process.returncode in (0, 1), process.returncode
    seconds, now = time.perf_counter() - start, os.times()
    busy = now.children_user + now.children_system - used.children_user - used.children_system
    return seconds, busy, [memory[int(k)] for k in np.linspace(0, len(memory) - 2, 10)]


def killed(place: Path, after: int) -> None:
    """Start an audit and kill it without warning when so many images are finished."""
    process = launch(place, "never.json")
    while process.poll() is None:
        kept = list(place.glob(".gbp-audit/*/results.jsonl"))
        if kept and kept[0].read_bytes().count(b"\n") > after:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return
        time.sleep(0.05)
    raise SystemExit("the audit ended before it could be killed")


def launch(place: Path, report: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "gbp_onnx", "audit", "audit.toml", "-q", "--json", report]
    paths = os.pathsep.join(filter(None, (str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": paths}
    return subprocess.Popen(command, cwd=place, env=environment, stdout=subprocess.DEVNULL)


def resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


if __name__ == "__main__":
    main()
