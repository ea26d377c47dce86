"""Cost of an explanation against plain inference, in alternating processes; and the command line from cold."""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gbp_onnx import bundled

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", type=Path, help="ONNX models (default: the bundled one)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="renew docs/benchmarks.md")
    arguments = parser.parse_args()
    lines = ["# Benchmarks", "", *machine(), "", *cold_start(arguments.rounds), ""]
    for model in arguments.models or [bundled.model_path()]:
        lines += [*costs(model, arguments.rounds), ""]
    text = "\n".join(lines).rstrip() + "\n"
    print(text)
    if arguments.write:
        PAGE.write_text(text, encoding="utf-8")


def machine() -> list[str]:
    import onnxruntime as ort

    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    return [
        f"{cpu}, {platform.system()}, Python {platform.python_version()}, onnxruntime {ort.__version__}, CPU provider."
    ]


def cold_start(rounds: int) -> list[str]:
    """``gbp-onnx explain`` on the bundled pair as a whole process, after one run that fills the file cache."""
    times = []
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "gbp_onnx", "explain", "-q", "-o", folder]
        for _ in range(rounds + 1):
            begin = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            times.append(time.perf_counter() - begin)
    median, low, high = statistics.median(times[1:]), min(times[1:]), max(times[1:])
    return [
        "## From cold",
        "",
        f"`gbp-onnx explain`, three rules, figure written: **{median:.2f} s** [{low:.2f}-{high:.2f}].",
    ]


def costs(model: Path, rounds: int) -> list[str]:
    """Medians over rounds of (variant / plain forward of the same round)."""
    variants = ["forward", "saliency", "deconvnet", "guided", "all"]
    if importlib.util.find_spec("captum") and model == bundled.model_path():
        variants.append("captum")
    seen: dict[str, list[dict[str, float]]] = {v: [] for v in variants}
    for _ in range(rounds):
        for variant in variants:
            command = [sys.executable, "-m", "benchmarks.worker", variant, str(model)]
            result = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
            seen[variant].append(json.loads(result.stdout.splitlines()[-1]))
    rows = [f"## {model.name}", "", "| variant | ms | x forward [range] | build and load ms |", "|---|---|---|---|"]
    for variant, facts in seen.items():
        ratios = [f["ms"] / b["ms"] for f, b in zip(facts, seen["forward"], strict=True)]
        ms, build = (statistics.median(f[key] for f in facts) for key in ("ms", "build_ms"))
        spread = f"{statistics.median(ratios):.2f} [{min(ratios):.2f}-{max(ratios):.2f}]"
        rows.append(f"| {variant} | {ms:.1f} | {spread} | {build:.0f} |")
    return rows


if __name__ == "__main__":
    main()
