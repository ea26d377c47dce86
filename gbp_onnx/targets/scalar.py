"""The number that is explained for one image: where it is in the output, and what it is in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gbp_onnx.imaging.outline import Outline
from gbp_onnx.types import Prediction

__all__ = ["Scalar", "target_index"]


@dataclass(frozen=True, slots=True, eq=False)
class Scalar:
    """`output`: the tensor that the seed belongs to. `seed`: a flat index into one image's output, or a float array of
    its shape.

    `target` and `label` as in `Explanation`; `name`: what is explained, in words. `score`: the value in the output.
    `value`: the explained number, where it is not the sum of seed x values. `as_it_is`: the seed belongs to the output
    itself, not to what stands in front of its head. `notes`: what should be said of the choice.
    `predictions`: what the model sees, best first, where the largest values of the output would say little;
    `shares`: whether their scores are shares of the picture.
    """

    output: str
    seed: int | NDArray[Any]
    target: int | tuple[int, ...] | str | None
    label: str | None
    name: str
    score: float | None
    value: float | None = None
    as_it_is: bool = False
    outline: Outline | None = None
    notes: tuple[str, ...] = ()
    predictions: tuple[Prediction, ...] | None = None
    shares: bool = False


def target_index(flat: int, shape: tuple[int, ...]) -> int | tuple[int, ...]:
    """The class index, or the index into an output of more than one axis (axes of size 1 do not count)."""
    if sum(d > 1 for d in shape) <= 1:
        return flat
    return tuple(int(i) for i in np.unravel_index(flat, shape))
