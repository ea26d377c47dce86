"""Which models of the corpus are explained, and which are refused, with the reason.

    python -m tests.corpus_split             the table; exit status 1 where it differs from the checked-in list
    python -m tests.corpus_split --update    also write that list (tests/corpus_split.json) anew

A model is explained where its explainer, with all rules, runs in ONNX Runtime and gives finite maps of the input's
shape that are not all zero; refused where `build` ends with one of the documented errors. Whatever else happens is a
failure, and is never on the list.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

import gbp_onnx
from gbp_onnx.errors import GbpError, OperatorError
from tests.corpus import CORPUS

LIST = Path(__file__).with_suffix(".json")
RULES = ("saliency", "deconvnet", "guided")
EXPLAINED = "explained"
TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}


@dataclass(frozen=True)
class Outcome:
    """What became of a model. `verdict`: "explained", the code of the refusal, or what went wrong."""

    verdict: str
    detail: str
    runs: bool  # whether ONNX Runtime loads the source
    seconds: float
    error: GbpError | None = None


def models() -> list[Path]:
    """The files of the corpus' folder of models."""
    return sorted(p for p in (CORPUS / "models").iterdir() if p.is_file()) if CORPUS.is_dir() else []


def expected() -> dict[str, str]:
    """The checked-in list: verdict by file name."""
    found: dict[str, str] = json.loads(LIST.read_text(encoding="utf-8"))
    return found


def outcome(path: Path) -> Outcome:
    """Build the model's explainer and run it once."""
    begin, error = time.perf_counter(), None
    runs = _loads(path)
    try:
        verdict, detail = EXPLAINED, _explained(path)
    except GbpError as refusal:
        verdict, detail, error = refusal.code, _why(refusal), refusal
    except Exception as failure:
        verdict, detail = f"failed ({type(failure).__name__})", str(failure).splitlines()[0]
    return Outcome(verdict, detail, runs, time.perf_counter() - begin, error)


def _session(model: bytes | Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _loads(path: Path) -> bool:
    try:
        _session(path)
    except Exception:
        return False
    return True


def _explained(path: Path) -> str:
    """The rules that gave a map, with how many rectifiers they gate; raises where a map is not what it should be."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        built = gbp_onnx.build(path, RULES)
    props = {e.key: e.value for e in built.metadata_props}
    image, roles = json.loads(props["gbp.inputs"])["image"], json.loads(props["gbp.outputs"])
    session = _session(built.SerializeToString())
    feeds = feeds_for(session)
    for rule in RULES:
        (found,) = session.run([roles[f"attribution_{rule}"]], feeds)
        if found.shape != feeds[image].shape or not np.isfinite(found).all() or not found.any():
            raise ValueError(f"{rule}: the map is {found.shape}, finite {np.isfinite(found).all()}, {found.any()}")
    counts = gbp_onnx.inspect(path).counts
    return ", ".join(f"{n} {kind}" for kind, n in counts.items()) or "no rectifier"


def feeds_for(session: ort.InferenceSession) -> dict[str, Any]:
    """Seeded random inputs of each input's shape (64 for unknown sizes), -1 for the target."""
    rng, feeds = np.random.default_rng(0), dict[str, Any]()
    for value in session.get_inputs():
        if value.name == "target":
            feeds[value.name] = np.full(len(next(iter(feeds.values()))), -1)
            continue
        sizes = [d if isinstance(d, int) and d > 0 else 1 if k == 0 else 64 for k, d in enumerate(value.shape)]
        kind = np.dtype(TYPES[value.type])
        low = -128 if kind == np.int8 else 0
        array = rng.integers(low, low + 256, sizes) if kind.kind in "iu" else rng.normal(size=sizes)
        feeds[value.name] = array.astype(kind)
    return feeds


def _why(error: GbpError) -> str:
    if isinstance(error, OperatorError) and error.reasons:
        found = dict.fromkeys(f"{r.op}: {r.why}" for r in error.reasons)
        return "; ".join(list(found)[:2]) + (f"; and {len(found) - 2} more" if len(found) > 2 else "")
    return error.what.splitlines()[0]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="files of the corpus; all by default")
    parser.add_argument("--update", action="store_true", help="write the checked-in list anew")
    arguments = parser.parse_args()
    ort.set_default_logger_severity(4)
    known, found, changed = expected() if LIST.exists() else {}, {}, []
    for path in models():
        if arguments.names and path.name not in arguments.names:
            continue
        one = outcome(path)
        found[path.name] = one.verdict
        differs = known.get(path.name) != one.verdict
        changed += [f"{path.name}: {known.get(path.name, 'not on the list')} -> {one.verdict}"] if differs else []
        loads = "" if one.runs else "  (ONNX Runtime does not load the source)"
        print(f"{'!' if differs else ' '} {path.name:66} {one.verdict:10} {one.seconds:6.1f} s  {one.detail}{loads}")
        sys.stdout.flush()
    explained = sum(v == EXPLAINED for v in found.values())
    print(f"\n{explained} of {len(found)} explained, {len(found) - explained} refused")
    failed = [name for name, verdict in found.items() if verdict.startswith("failed")]
    if arguments.update and not failed:
        gone = {} if not arguments.names else known
        LIST.write_text(json.dumps(dict(sorted({**gone, **found}.items())), indent=2) + "\n", encoding="utf-8")
        print(f"written: {LIST}")
        changed = []
    print(*changed, sep="\n", end="\n" if changed else "")
    return 1 if changed or failed or not found else 0


if __name__ == "__main__":
    sys.exit(main())
