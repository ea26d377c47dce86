"""Several classes of one image: from one forward pass, where a graph for that can be had and pays, or each alone."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from gbp_onnx.batch import BatchResult, Feeds
from gbp_onnx.explanation import top_predictions
from gbp_onnx.opened import Opened

__all__ = ["Together"]

TOGETHER = 5
"""Classes that share a forward pass: as many as top5 has."""
ALONE_FIRST = 1
"""Images whose classes are run one by one: the other graph takes longer to build and to load than it saves on one. A
second image is the sign of more (it pays after ten images of ResNet-50, thirty of SqueezeNet or GoogLeNet; after three
to five where the graph is kept).
"""


class Together:
    """Runs classes of one image. Thread-safe. The results are those of the classes alone, within float32 rounding."""

    def __init__(self, opened: Opened) -> None:
        self._opened, self._runner = opened, opened.runner
        self._images = 0
        self._lock = threading.Lock()
        possible = not opened.is_built and not opened.low_memory and self._runner.takes_one
        self._most = min(TOGETHER, self._runner.classes or 0) if possible else 0

    def best(self, feeds: Feeds) -> list[tuple[int, BatchResult]]:
        """The five classes with the largest values and their results, largest first; all where there are fewer."""
        if self._pays(TOGETHER):
            found = self._opened.several(self._most).run_several(feeds, -1 - np.arange(self._most))
            best = [p.index for p in top_predictions(found[0].values[0], None)]
            if len(best) == len(found) and not np.isnan(found[0].values).any():  # how NaN is ranked, runtimes differ
                return list(zip(best, found, strict=True))
        first = self._runner.run(feeds, np.array([-1]))
        order = np.array([p.index for p in top_predictions(first.values[0], None)], np.int64)
        return list(zip(order.tolist(), [first, *self._alone(feeds, order[1:])], strict=True))

    def run(self, feeds: Feeds, indices: NDArray[np.int64]) -> list[BatchResult]:
        """The results of classes, flat indices into the image's output (-1: its largest value)."""
        if not self._pays(len(indices)):
            return self._alone(feeds, indices)
        found, most = [], self._most
        for start in range(0, len(indices), most):
            part = indices[start : start + most]
            if _is_worth_it(len(part), most):
                full = np.resize(part, most)  # filled up with the first ones
                found += self._opened.several(most).run_several(feeds, full)[: len(part)]
            else:
                found += self._alone(feeds, part)
        return found

    def _alone(self, feeds: Feeds, indices: NDArray[np.int64]) -> list[BatchResult]:
        return [self._runner.run(feeds, indices[k : k + 1]) for k in range(len(indices))]

    def _pays(self, count: int) -> bool:
        """Whether `count` classes of the next image are to share its forward pass; counts the images."""
        if self._most < 2 or not _is_worth_it(min(count, self._most), self._most):
            return False
        with self._lock:
            self._images += 1
            return self._images > ALONE_FIRST


def _is_worth_it(count: int, most: int) -> bool:
    """Whether `count` classes one by one cost more than `most` together; a backward pass costs 1.2 forward ones."""
    return count * 2.2 > 1 + most * 1.2
