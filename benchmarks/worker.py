"""One measurement in a process of its own: sessions that share a process disturb each other.

    python -m benchmarks.worker guided model.onnx --batch 1 --threads 2

Prints one JSON line: "ms" the median of a call (all of its batch), "import_ms" of what the variant needs, "load_ms"
from the file to something that runs, "first_ms" the first call, "start_ms" these three together, "peak" bytes of
resident memory; and "build_ms" where the variant writes a gradient graph: how much of the loading that is.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import peak

OURS = (
    "inference",
    "session",
    "guided",
    "guided, portable",
    "saliency",
    "deconvnet",
    "three rules",
    "explain, one class",
    "explain, five classes",
    "first map",
)
PEERS = ("captum", "onnx2torch + captum", "onnx-ad")


@dataclass(frozen=True)
class Settings:
    """What a variant is asked for. `threads` 0 = as the library chooses; `size` where a model leaves pixels open."""

    variant: str
    model: Path
    batch: int = 1
    size: int = 224
    threads: int = 0


Prepared = tuple[Callable[[], Any], Callable[[], float] | None]
"""What is timed; and what writes the gradient graph once more and returns its milliseconds."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variant", choices=(*OURS, *PEERS))
    parser.add_argument("model", type=Path)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=1.0, help="for how long calls are repeated, five at least")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    settings = Settings(given.variant, given.model, given.batch, given.size, given.threads)
    print(json.dumps(measured(settings, given.seconds)))


def measured(settings: Settings, seconds: float) -> dict[str, float]:
    started = time.perf_counter()
    if settings.variant in PEERS:
        from benchmarks import peers as variants
    else:
        from benchmarks import ours as variants  # type: ignore[no-redef]

    variants.imports(settings.variant)
    imported = time.perf_counter()
    call, build = variants.prepare(settings)
    ready = time.perf_counter()
    call()
    first = time.perf_counter()
    times = []
    while time.perf_counter() - first < seconds or len(times) < 5 * (seconds > 0):
        begin = time.perf_counter()
        call()
        times.append((time.perf_counter() - begin) * 1e3)
    facts = {
        "import_ms": (imported - started) * 1e3,
        "load_ms": (ready - imported) * 1e3,
        "first_ms": (first - ready) * 1e3,
        "start_ms": (first - started) * 1e3,
        "peak": float(peak()),
    }
    if times:
        facts["ms"] = statistics.median(times[len(times) // 10 :])
    if build is not None and seconds > 0:
        facts["build_ms"] = build()
    return facts


if __name__ == "__main__":
    main()
