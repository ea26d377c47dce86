"""A process for each test: one that crashes or hangs takes only itself down."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait

from tests.conformance.suite import OperatorTest
from tests.conformance.verdict import WAYS, Verdict, verdicts

Job = tuple[OperatorTest, multiprocessing.process.BaseProcess, Connection, float]


def judge_all(
    tests: Sequence[OperatorTest], jobs: int, limit: float, judge: Callable[[OperatorTest], list[Verdict]] = verdicts
) -> Iterator[list[Verdict]]:
    """The verdicts of every test, as they come; `limit`: seconds for each, beyond which it counts as unusable."""
    fork = multiprocessing.get_context("fork")  # this process has no sessions and no threads
    waiting, running = list(reversed(tests)), list[Job]()
    while waiting or running:
        while waiting and len(running) < jobs:
            test = waiting.pop()
            mine, theirs = fork.Pipe(duplex=False)
            process = fork.Process(target=_work, args=(judge, test, theirs), daemon=True)
            process.start()
            theirs.close()
            running.append((test, process, mine, time.monotonic() + limit))
        wait([pipe for _, _, pipe, _ in running], timeout=0.2)
        still: list[Job] = []
        for test, process, pipe, deadline in running:
            if pipe.poll():
                try:
                    found: list[Verdict] = pipe.recv()
                except EOFError:  # it died without a word
                    process.join()
                    found = _every(test, "crash", f"the process ended with status {process.exitcode}")
                process.join()
                yield found
            elif time.monotonic() > deadline:
                process.kill()
                process.join()
                yield _every(test, "unusable", f"not done within {limit:g} s")
            else:
                still.append((test, process, pipe, deadline))
        running = still


def _work(judge: Callable[[OperatorTest], list[Verdict]], test: OperatorTest, pipe: Connection) -> None:
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 2)
    try:
        found = judge(test)
    except Exception as error:
        found = _every(test, "unusable", f"the check itself failed: {type(error).__name__}: {str(error)[:200]}")
    pipe.send(found)
    pipe.close()


def _every(test: OperatorTest, state: str, why: str) -> list[Verdict]:
    return [Verdict(test.name, test.op, wrt, way, state, why) for wrt in test.wrt for way in WAYS]
