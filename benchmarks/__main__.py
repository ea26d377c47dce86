"""What an explanation costs, beside plain inference and beside other libraries.

    python -m benchmarks                                 the bundled model; some minutes
    python -m benchmarks --zoo FOLDER --rounds 7         the networks that `benchmarks.zoo` exported, too
    python -m benchmarks model.onnx --parts costs        a model of your own
    python -m benchmarks --write                         renews docs/benchmarks.md and its plots

Other libraries run in the interpreter that --peers names; those that it lacks are left out, which the page says.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.machine import machine
from benchmarks.measure import ROOT, Task, alternate, environment
from benchmarks.models import resized
from benchmarks.page import Results, page
from benchmarks.plots import write_plots
from benchmarks.starts import cold_start, folder_rate, starts
from benchmarks.worker import OURS as VARIANTS
from benchmarks.worker import PEERS
from gbp_onnx import bundled
from gbp_onnx.files import write_whole

PAGE = ROOT / "docs" / "benchmarks.md"
PARTS = ("costs", "sizes", "batches", "cold", "starts", "folder")
OURS = tuple(variant for variant in VARIANTS if variant not in ("session", "first map"))  # these are starts
GROWING = ("inference", "guided", "captum")
BATCHES = (1, 2, 4, 8, 16)
SIZES = (128, 224, 320, 448, 640)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path, help="ONNX models besides the bundled one")
    parser.add_argument("--zoo", type=Path, help="a folder of exported networks; the bundled one stands for its own")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="for how long a process repeats its call")
    parser.add_argument("--threads", type=int, default=0, help="0 = what each library chooses")
    parser.add_argument("--photographs", type=int, default=500, help="in the folder")
    parser.add_argument("--growing", type=Path, nargs="*", help="models that images and batches grow for (the bundled)")
    parser.add_argument("--peers", type=Path, default=ROOT / ".venv-oracle" / "bin" / "python", metavar="PYTHON")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured; renewed after each part")
    parser.add_argument("--read", type=Path, metavar="FILE", help="measure nothing: take what --json wrote")
    parser.add_argument("--write", action="store_true", help="renew docs/benchmarks.md and docs/images")
    given = parser.parse_args()
    if given.write and not importlib.util.find_spec("matplotlib"):
        parser.error("--write draws plots with matplotlib: pip install 'gbp-onnx[bench]'")
    results = Results.from_json(json.loads(given.read.read_text())) if given.read else measure(given)
    if given.write:
        names = write_plots(results, PAGE.parent / "images")
        text = page(results, {part: f"images/{name}" for part, name in names.items()})
        save(PAGE, text)
    print(page(results, {}))


def measure(given: argparse.Namespace) -> Results:
    """Each part in turn; progress on stderr."""
    own = bundled.model_path().resolve()
    zoo = sorted(p for p in given.zoo.glob("*.onnx") if p.stem != own.stem) if given.zoo else []
    models = list(dict.fromkeys(p.resolve() for p in (own, *given.models, *zoo)))
    bigger = [p.resolve() for p in given.growing or [own]]
    python, peers, notes = others(given.peers)
    results = Results(machine(given.threads), given.rounds, notes)
    common = {"threads": given.threads, "seconds": given.seconds}

    def task(variant: str, model: Path, batch: int = 1, size: int = 224) -> Task:
        return Task(variant, model, batch, size, python if variant in PEERS else sys.executable)

    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        growing = [v for v in GROWING if v not in PEERS or v in peers]
        for part in given.parts:
            for model in models if part in ("costs", "starts") else bigger:
                title = title_of(model, own)
                print(f"{part}: {title}", file=sys.stderr, flush=True)
                if part == "costs":
                    tasks = {v: task(v, model) for v in (*OURS, *peers)} | {"guided, batch 8": task("guided", model, 8)}
                    results.costs[title] = alternate(tasks, given.rounds, caches=place, **common)
                elif part == "sizes":
                    files = {size: resized(model, size, place) for size in SIZES}
                    found = {n: {v: task(v, real(v, model, f), size=n) for v in growing} for n, f in files.items()}
                    results.sizes[title] = grown(found, given.rounds, place, common)
                elif part == "batches":
                    found = {n: {v: task(v, model, n) for v in growing} for n in BATCHES}
                    results.batches[title] = grown(found, given.rounds, place, common)
                elif part == "starts":
                    results.starts[title] = starts(model, given.rounds, given.threads)
                elif part == "folder":
                    rounds = min(given.rounds, 3)
                    results.folders[title] = folder_rate(model, given.photographs, rounds, given.threads)
            if part == "cold":
                results.cold = cold_start(given.rounds, python if "captum" in peers else None)
            if given.json:
                save(given.json, json.dumps(results.to_json()))
    return results


def save(path: Path, text: str) -> None:
    with write_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def real(variant: str, model: Path, copy: Path) -> Path:
    """captum takes its network by the file's name, whatever the size of the image."""
    return model if variant == "captum" else copy


def grown(steps: dict, rounds: int, caches: Path, common: dict) -> dict:  # type: ignore[type-arg]
    """All steps of all variants in the same rounds."""
    flat = {(n, v): task for n, row in steps.items() for v, task in row.items()}
    found = alternate({f"{n} {v}": t for (n, v), t in flat.items()}, rounds, caches=caches, **common)
    return {n: {v: found[f"{n} {v}"] for v in row} for n, row in steps.items()}


def title_of(model: Path, own: Path) -> str:
    return f"{model.stem} (bundled)" if model == own else model.stem


def others(python: Path) -> tuple[str, list[str], list[str]]:
    """The interpreter of the other libraries, which of them it has, and a line for each that is left out."""
    python = python.absolute()  # an environment's interpreter is a link: where it leads is another one
    if not python.is_file():
        return "", [], [f"{', '.join(PEERS)}: there is no {python.name} that has them (`make bench-zoo` installs them)"]
    command = [str(python), "-m", "benchmarks.peers", "--available"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT, env=environment())
    found = json.loads(done.stdout)
    return str(python), found, [f"{p}: its modules are not installed" for p in PEERS if p not in found]


if __name__ == "__main__":
    main()
