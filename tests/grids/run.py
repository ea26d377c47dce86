"""Draw until enough configurations are usable, and judge each."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from tests.grids.draw import Draw, Random
from tests.grids.judge import Verdict, judge

__all__ = ["describe", "run"]


def run(draw: Callable[[Random], Draw], count: int, seed: int = 0) -> Iterator[tuple[int, Draw, Verdict]]:
    """Seed, configuration and verdict of each one drawn; `count` of them are usable."""
    usable, attempt = 0, 0
    while usable < count and attempt < 20 * count:
        number = seed * 1_000_000 + attempt
        attempt += 1
        drawn = draw(np.random.RandomState(number))
        verdict = judge(drawn)
        usable += verdict.kind != "unusable"
        yield number, drawn, verdict


def describe(draw: Draw) -> str:
    """The configuration on one line."""
    parts = []
    for given in draw.inputs:
        if given is None:
            parts.append("-")
        else:
            value = given.value
            text = f"{value.tolist()}" if value.dtype.kind != "f" or value.size <= 10 else f"{list(value.shape)}"
            parts.append(f"{value.dtype}{text}{' stored' if given.stored else ''}{' wrt' if given.wrt else ''}")
    return f"{draw.op}-{draw.opset} {draw.attrs} ({', '.join(parts)}){' free' if draw.free else ''}"
