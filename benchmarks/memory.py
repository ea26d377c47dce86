"""Peak memory of building and explaining a large model, each step in a process of its own.

    python -m benchmarks.memory                     a synthetic CNN of 3 GB, made in a temporary folder
    python -m benchmarks.memory model.onnx          your own (float32 image input of static size)

Peaks are the largest resident set (VmHWM), mapped pages of the weights included. The disk takes the model once.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measure import peak
from benchmarks.synthetic import write_cnn

ROOT = Path(__file__).resolve().parents[1]
STEPS = ("onnxruntime", "build", "explain", "explain, low memory", "explain, fast", "explainer file in onnxruntime")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("--gigabytes", type=float, default=3.0, help="size of the synthetic model")
    parser.add_argument("--folder", type=Path, help="where the synthetic model is made and removed again")
    parser.add_argument("--steps", nargs="*", choices=STEPS, default=STEPS)
    parser.add_argument("--step", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        print(json.dumps(measure(arguments.step, arguments.model)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        model = arguments.model or write_cnn(Path(folder) / "cnn.onnx", int(arguments.gigabytes * 1e9))
        print(table(model, arguments.steps))


def table(model: Path, steps: list[str]) -> str:
    """One row for each step, in MB (10^6 bytes) and as a multiple of the model's size."""
    from gbp_onnx.graph.files import read_model

    size = model.stat().st_size + sum(p.stat().st_size for p in read_model(model, leave=True).data.values())
    lines = [
        f"{model.name}: {size / 1e6:.0f} MB",
        "",
        "| step | peak MB | of the file | of plain ONNX Runtime | seconds |",
    ]
    lines.append("|---|---|---|---|---|")
    plain = None
    for step in steps:
        command = [sys.executable, "-m", "benchmarks.memory", str(model), "--step", step]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
        found = json.loads(done.stdout.splitlines()[-1])
        plain = found["peak"] if step == "onnxruntime" else plain
        beside = "" if plain is None else f"{found['peak'] / plain:.2f}"
        lines.append(
            f"| {step} | {found['peak'] / 1e6:.0f} | {found['peak'] / size:.2f} | {beside} | {found['seconds']:.1f} |"
        )
    explainer_of(model).unlink(missing_ok=True)
    return "\n".join(lines)


def explainer_of(model: Path) -> Path:
    return model.with_name("explainer-of-" + model.name)


def measure(step: str, model: Path) -> dict[str, float]:
    """Do one step and say what this process took."""
    begin = time.perf_counter()
    explainer = explainer_of(model)
    match step:
        case "onnxruntime":
            run(model)
        case "build":
            from gbp_onnx.cli.main import run as gbp

            assert gbp(["build", str(model), "-o", str(explainer), "-r", "guided"]) == 0
        case "explainer file in onnxruntime":
            run(explainer)
        case _:
            import gbp_onnx

            low = {"explain, low memory": True, "explain, fast": False}.get(step)
            one = gbp_onnx.Explainer(model, rules=("guided",), providers="cpu", low_memory=low, preprocess="imagenet")
            assert one.explain(ROOT / "models" / "chelsea.png").attributions["guided"].any()
    return {"peak": peak(), "seconds": time.perf_counter() - begin}


def run(path: Path) -> None:
    """A model on a seeded random image in plain ONNX Runtime, with its own defaults."""
    import numpy as np
    import onnxruntime as ort

    ort.set_default_logger_severity(3)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    feeds = {}
    for value in session.get_inputs():
        sizes = [d if isinstance(d, int) else 1 for d in value.shape]
        image = np.random.default_rng(0).standard_normal(sizes).astype(np.float32)
        feeds[value.name] = np.array([-1]) if value.name == "target" else image
    session.run(None, feeds)


if __name__ == "__main__":
    main()
