"""``python -m tests.grids [FAMILY ...] [--count 400] [--seed 0] [--show refused]``: the score of each family."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from tests.grids import run
from tests.grids.families import FAMILIES


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=f"default: all of {', '.join(FAMILIES)}")
    parser.add_argument("--count", type=int, default=400, help="configurations that ONNX Runtime computes, of each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", type=int, default=3, help="print so many of each kind that is not right")
    arguments = parser.parse_args()
    bad = 0
    for name in arguments.families or FAMILIES:
        begin = time.perf_counter()
        shown: Counter[str] = Counter()
        score: Counter[str] = Counter()
        for seed, draw, verdict in run.run(FAMILIES[name], arguments.count, arguments.seed):
            score[verdict.kind] += 1
            if verdict.kind not in ("right", "unusable"):
                shown[verdict.kind] += 1
                if shown[verdict.kind] <= arguments.show:
                    print(f"  {name} {seed} {verdict.kind}: {run.describe(draw)}\n    {verdict.why}", flush=True)
        bad += score["wrong"] + score["crash"] + score["refused"]
        numbers = ", ".join(f"{score[k]} {k}" for k in ("right", "refused", "wrong", "crash"))
        unusable = f"{score['unusable']} that ONNX Runtime does not compute"
        print(f"{name:16} {numbers}; {unusable}; {time.perf_counter() - begin:.0f} s", flush=True)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
