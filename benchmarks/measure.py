"""Measurements in processes of their own, in alternating rounds; medians of per-round ratios, with their ranges."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
Facts = dict[str, float]
"""What one process found: milliseconds under names that end in "ms", bytes under "peak"."""


@dataclass(frozen=True)
class Task:
    """One measurement: a variant of `worker` on a model."""

    variant: str
    model: Path
    batch: int = 1
    size: int = 224
    python: str = sys.executable


@dataclass
class Series:
    """The rounds of one task: facts of each, or why there are none."""

    rounds: list[Facts]
    why: str = ""


@dataclass(frozen=True)
class Spread:
    """A median and its range."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))

    def text(self, digits: int = 2) -> str:
        return f"{self.median:.{digits}f} [{self.low:.{digits}f}-{self.high:.{digits}f}]"


def environment(caches: Path | None = None) -> dict[str, str]:
    """This environment, with the project on the path of modules and, where given, a folder of its own for caches."""
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    own = {} if caches is None else {"XDG_CACHE_HOME": str(caches)}
    return {**os.environ, "PYTHONPATH": paths, **own}


def alternate(
    tasks: Mapping[str, Task], rounds: int, *, threads: int = 0, seconds: float = 1.0, caches: Path | None = None
) -> dict[str, Series]:
    """Run each task once in each round, one after the other. A task that fails is not tried again."""
    found = {name: Series([]) for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            if not found[name].why:
                _once(task, found[name], threads, seconds, caches)
    return found


def _once(task: Task, series: Series, threads: int, seconds: float, caches: Path | None) -> None:
    command = [task.python, "-m", "benchmarks.worker", task.variant, str(task.model)]
    command += ["--batch", str(task.batch), "--size", str(task.size)]
    command += ["--threads", str(threads), "--seconds", str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment(caches))
    if done.returncode:
        series.rounds.clear()
        said = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith(" ")]
        series.why = (said or [f"status {done.returncode}"])[-1].strip()[:200]
    else:
        series.rounds.append(json.loads(done.stdout.splitlines()[-1]))


def ratio(series: Series, base: Series, key: str = "ms", by: float = 1.0) -> Spread | None:
    """Of each round, over `by` times the base of the same round; None where one of the two is missing."""
    pairs = list(zip(series.rounds, base.rounds, strict=False))
    return Spread.of([a[key] / (by * b[key]) for a, b in pairs]) if pairs else None


def spread(series: Series, key: str = "ms") -> Spread | None:
    return Spread.of([facts[key] for facts in series.rounds]) if series.rounds else None


def whole_process(command: Sequence[str], caches: Path | None = None) -> Facts:
    """{"s": seconds, "peak": bytes} of a process from start to end. Raises where it fails."""
    launch = [sys.executable, "-I", "-S", str(ROOT / "benchmarks" / "launch.py"), *command]
    done = subprocess.run(launch, capture_output=True, text=True, cwd=ROOT, env=environment(caches))
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()[-400:]}")
    facts: Facts = json.loads(done.stdout)
    return facts


def peak() -> int:
    """Bytes: the largest resident set of this process so far."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage counts here what the parent held when it started this process
        return next(int(s.split()[1]) * 1024 for s in status.read_text().splitlines() if s.startswith("VmHWM"))
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
