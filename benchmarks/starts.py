"""Whole processes: the command line from cold, the first and second start of a model, a folder of photographs."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.measure import Task, alternate, whole_process
from benchmarks.models import write_photographs
from gbp_onnx import bundled

COMMAND = (sys.executable, "-m", "gbp_onnx", "explain", "-q")


def cold_start(rounds: int, peers: str | None) -> dict[str, list[dict[str, float]]]:
    """{command: [{"s", "peak"} of each round]}, after one run of each that fills the file cache.

    Both explain one photograph under three rules with the bundled network (captum: with torchvision's SqueezeNet).
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        commands = {"gbp-onnx explain": [*COMMAND, "-o", str(folder)]}
        if peers:
            script = [peers, "-m", "benchmarks.peers", str(bundled.photo_path()), str(folder / "captum.npz")]
            commands["captum script"] = script
        found: dict[str, list[dict[str, float]]] = {c: [] for c in commands}
        for k in range(rounds + 1):
            for title, command in commands.items():
                facts = whole_process(command, folder / "caches")
                found[title] += [facts] if k else []
        return found


def starts(model: Path, rounds: int, threads: int) -> dict[str, Any]:
    """Rounds of {"session", "first", "second"}, ms: ONNX Runtime's session of the model itself; from the start of a
    process to the first map, where the model was never seen, and where it was.
    """
    found = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as name:  # caches of its own: the first start is one
            caches, once = Path(name), {"rounds": 1, "threads": threads, "seconds": 0.0}
            session = alternate({"session": Task("session", model)}, caches=caches, **once)["session"]
            first, second = (
                alternate({"map": Task("first map", model)}, caches=caches, **once)["map"] for _ in range(2)
            )
            series = {"session": session, "first": first, "second": second}
            if failed := next((s.why for s in series.values() if s.why), ""):
                return {"why": failed}
            key = {"session": "load_ms", "first": "start_ms", "second": "start_ms"}
            found.append({name: s.rounds[0][key[name]] for name, s in series.items()})
    return {"rounds": found}


def folder_rate(model: Path, count: int, rounds: int, threads: int) -> dict[str, Any]:
    """Rounds of {"s": seconds of ``gbp-onnx explain FOLDER -r guided``, "few_s": for a tenth of the photographs,
    "bare_ms": one `Explainer.attribute`}.
    """
    found = []
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        write_photographs(bundled.photo_path(), place / "photos", count)
        write_photographs(bundled.photo_path(), place / "few", count // 10)
        own = () if model == bundled.model_path() else (str(model), "--preprocess", "imagenet")
        for k in range(rounds):
            bare = alternate({"bare": Task("guided", model)}, 1, threads=threads, caches=place / "caches")["bare"]
            if bare.why:
                return {"why": bare.why}
            times = {}
            for key, photos in (("few_s", "few"), ("s", "photos")):
                command = [*COMMAND, *own[:1], str(place / photos), "-r", "guided", *own[1:]]
                times[key] = whole_process([*command, "-o", str(place / f"out{k}")], place / "caches")["s"]
            found.append({**times, "bare_ms": bare.rounds[0]["ms"]})
    return {"count": count, "few": count // 10, "rounds": found}
