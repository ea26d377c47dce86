"""The same work on many things: several at a time, the results in order, a bounded number of them held.

How many, and on how many threads of ONNX Runtime each, was measured on a CPU (guided maps, two cores that other
programs used as well, milliseconds an image, alternating processes):

    images at a time x threads of one image    1 x 2    2 x 2    2 x 1
    SqueezeNet 1.1                                31       24       17
    ResNet-50                                    176       98       97

One session serves all of them, so the weights are held once; each image under way has its own intermediate results
(SqueezeNet 24 MB, ResNet-50 45 MB more in all for the second). Threads that share one convolution wait for each other,
threads that have an image each do not; and what an image needs besides its explanation (decoding, drawing, compressing)
fills the time between. The maps of five networks were the same bits either way.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

__all__ = ["in_order", "processors", "shared_out", "workers_beside"]

MOST = 8
"""Images at a time, for the sake of memory: where there are more processors, each image gets several."""
ON_A_GPU = 4
"""Images at a time on a GPU: while it has one, the others are decoded and drawn. Not measured."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def processors() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shared_out(count: int) -> tuple[int, int]:
    """How `count` images share the processors: (images at a time, threads of ONNX Runtime for each).

    0 threads is ONNX Runtime's own choice, all processors: for one image, and where there is one processor.
    """
    workers = max(1, min(MOST, processors(), count))
    return workers, processors() // workers if workers > 1 else 0


def workers_beside(threads: int, on_cpu: bool) -> int:
    """Images at a time where a session with so many threads for each (0: all processors) is there already."""
    if not on_cpu:
        return ON_A_GPU
    return min(MOST, processors(), max(2, processors() // (threads or processors())))


def in_order(work: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Generator[Result, None, None]:
    """`work(item)` for each item, by so many threads (1: by the caller's own), the results in the items' order.

    Items are taken when a thread can be had soon: no more than 2 * `workers` are under way or wait for the caller to
    take them, so that a slow one holds the others up only then. What `work` raises is raised in its place. Whoever
    stops early closes the generator (or loses it): work that has begun ends, no other begins.
    """
    if workers <= 1:
        yield from map(work, items)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="gbp-onnx")
    begun, under_way = _begun(pool, work, items), deque[Future[Result]]()
    try:
        while True:
            under_way.extend(islice(begun, 2 * workers - len(under_way)))
            if not under_way:
                return
            yield under_way.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _begun(pool: ThreadPoolExecutor, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Future[Result]]:
    """The items' work, handed over as it is asked for; where the items break off, work that raises what they raised."""
    try:
        for item in items:
            yield pool.submit(work, item)
    except Exception as error:
        broken: Future[Result] = Future()
        broken.set_exception(error)
        yield broken
