"""``python -m tests.conformance``: every operator test of the onnx package, differentiated and compared.

python -m tests.conformance                        the scoreboard; exit status 1 if anything is wrong or crashes
python -m tests.conformance --only Conv,Pad -v     some operators, every case that is not right
python -m tests.conformance --write                the scoreboard into docs/conformance.md
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

from tests.conformance.scoreboard import SUMMARY, page, scoreboard, totals
from tests.conformance.suite import operator_tests
from tests.conformance.verdict import Verdict
from tests.conformance.workers import judge_all

TARGET = Path(__file__).resolve().parents[2] / "docs" / "conformance.md"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", help="operators or tests, separated by commas")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at a time")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds for one test")
    parser.add_argument("--json", dest="json_to", type=Path, help="write every verdict to this file")
    parser.add_argument("--write", action="store_true", help=f"write {TARGET.name} anew")
    parser.add_argument("-v", "--verbose", action="store_true", help="list what is refused and unusable as well")
    args = parser.parse_args(argv)
    only = set(filter(None, args.only.split(",")))
    tests = [t for t in operator_tests() if not only or t.op in only or t.name in only]
    found: list[Verdict] = []
    began, shown = time.monotonic(), sys.stderr.isatty()
    for count, verdicts in enumerate(judge_all(tests, max(1, args.jobs), args.limit), 1):
        found += verdicts
        if shown:
            print(f"\r{count}/{len(tests)}", end="", file=sys.stderr)
    if shown:
        print("\r", end="", file=sys.stderr)
    found.sort(key=lambda v: (v.op, v.test, v.wrt, v.way))
    loud = {"wrong", "crash", *(("refused", "unusable") if args.verbose else ())}
    for verdict in found:
        if verdict.state in loud:
            print(f"{verdict.state}: {verdict.test} d/d{verdict.wrt} ({verdict.way}): {verdict.why}")
    print(scoreboard(found))
    for way, counts in totals(found).items():
        print(SUMMARY[way] + ": " + ", ".join(f"{n} {state}" for state, n in counts.items()))
    print(f"{len(tests)} tests in {time.monotonic() - began:.0f} s")
    if args.json_to:
        args.json_to.write_text(json.dumps([v.to_dict() for v in found], indent=1) + "\n", encoding="utf-8")
        print(args.json_to)
    if args.write:
        TARGET.write_text(page(found, len(tests)), encoding="utf-8")
        print(TARGET)
    return int(any(v.state in ("wrong", "crash") for v in found))


if __name__ == "__main__":
    sys.exit(main())
