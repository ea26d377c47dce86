"""Verdicts, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import onnx
import onnxruntime

from tests.conformance.verdict import STATES, WAYS, Verdict

SUMMARY = {"constants": "the other inputs as constants", "shipped": "as shipped (all inputs at run time)"}

HEAD = """\
# Conformance

<!-- Written by `make conformance`. -->

The onnx package ships tests of its operators: a model of one node (or the node's function body), inputs, and the
results to expect. Each of them with a float input and a float output is differentiated here with respect to every
float input, once with the other inputs as constants and once with all inputs given at run time, and J^T s for a random
s is compared with central differences of the forward at up to 24 places of that input: in float64 with ONNX Runtime or
onnx.reference, in float32 with a coarser step where neither computes the operator in float64. Places where two step
sizes or the two sides disagree lie on a kink and are left out.

**right**: the numbers agree (1e-3 of the largest; 1e-2 where the differences are float32, 2e-2 for half precision) ·
**stops**: gradient and differences are zero · **refused**: an error with a code and a reason, no number ·
**wrong**, **crash**: bugs · **unusable**: nothing to compare with, reasons at the end. One case is one input of one
test.
"""


def totals(found: Iterable[Verdict]) -> dict[str, dict[str, int]]:
    """For each way, how many cases ended in each state."""
    counts = Counter((v.way, v.state) for v in found)
    return {way: {state: counts[way, state] for state in STATES} for way in WAYS}


def scoreboard(found: Sequence[Verdict]) -> str:
    """A line for each operator: the states of its cases with constants, then as shipped."""
    lines = [f"{'operator':32}" + "  ".join("".join(f"{s[:8]:>9}" for s in STATES) for _ in WAYS)]
    for op, cells in _rows(found):
        lines.append(f"{op:32}" + "  ".join("".join(f"{c or '.':>9}" for c in row) for row in cells))
    return "\n".join(lines)


def page(found: Sequence[Verdict], tests: int) -> str:
    """docs/conformance.md"""
    parts = [HEAD, f"onnx {onnx.__version__}, ONNX Runtime {onnxruntime.__version__} on the CPU; {tests} tests.\n"]
    parts += ["| | " + " | ".join(STATES) + " |", "|---|" + "---:|" * len(STATES)]
    for way, counts in totals(found).items():
        parts.append(f"| {SUMMARY[way]} | " + " | ".join(str(counts[s]) for s in STATES) + " |")
    parts += ["\n## By operator\n", "Two numbers: with constants / as shipped.\n"]
    parts += ["| operator | " + " | ".join(STATES) + " |", "|---|" + "---:|" * len(STATES)]
    for op, (constants, shipped) in _rows(found):
        cells = [f"{a} / {b}" if a or b else "" for a, b in zip(constants, shipped, strict=True)]
        parts.append(f"| `{op}` | " + " | ".join(cells) + " |")
    for state in ("refused", "wrong", "crash", "unusable"):
        reasons = Counter((v.op, v.why) for v in found if v.state == state)
        if reasons:
            parts += [f"\n## {state.capitalize()}, and why\n", "| cases | operator | why |", "|---:|---|---|"]
            for (op, why), count in sorted(reasons.items(), key=lambda r: (-r[1], r[0])):
                text = " ".join(why.split()).replace("|", "\\|").replace("`", "'")
                parts.append(f"| {count} | `{op}` | {text} |")
    return "\n".join(parts) + "\n"


def _rows(found: Sequence[Verdict]) -> list[tuple[str, list[list[int]]]]:
    counts = Counter((v.op, v.way, v.state) for v in found)
    return [
        (op, [[counts[op, way, state] for state in STATES] for way in WAYS]) for op in sorted({v.op for v in found})
    ]
