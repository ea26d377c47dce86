"""A seeded part of the random grids (``python -m tests.grids`` runs all of them), and what they once found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.grids.draw import Draw, Given, spread
from tests.grids.families import FAMILIES
from tests.grids.judge import judge
from tests.grids.run import describe, run


@pytest.mark.parametrize("family", FAMILIES)
def test_random_configurations(family: str) -> None:
    found = list(run(FAMILIES[family], 8, seed=99))
    bad = [f"{describe(d)}: {v.kind} {v.why}" for _, d, v in found if v.kind not in ("right", "unusable")]
    assert not bad, "\n".join(bad)
    assert sum(v.kind == "right" for _, _, v in found) == 8


def x(*shape: int) -> Given:
    return Given(spread(np.random.RandomState(0), shape), wrt=True)


def stored(value: Any, dtype: Any = np.float32) -> Given:
    return Given(np.asarray(value, dtype), stored=True)


ONE = np.ones((1, 1, 1), np.float32)
POLICY: dict[str, Any] = {"keep_aspect_ratio_policy": "not_larger", "mode": "nearest"}
CROP: dict[str, Any] = {**POLICY, "mode": "linear", "coordinate_transformation_mode": "tf_crop_and_resize"}
FINDINGS = {
    "auto_pad that leaves gaps": Draw(
        "MaxPool",
        [x(1, 1, 9)],
        {"kernel_shape": [1], "strides": [3], "auto_pad": "SAME_LOWER", "storage_order": 1, "dilations": [1]},
        22,
    ),
    "auto_pad that leaves gaps, Conv": Draw(
        "Conv", [x(1, 1, 6), stored(ONE)], {"strides": [3], "auto_pad": "SAME_UPPER"}, linear=True
    ),
    "auto_pad with dilations": Draw(
        "AveragePool", [x(1, 1, 7)], {"kernel_shape": [2], "dilations": [2], "auto_pad": "SAME_UPPER"}, 19, linear=True
    ),
    "a last window in the padding": Draw(
        "AveragePool", [x(2, 1, 8, 6)], {"kernel_shape": [3, 1], "strides": [1, 3], "ceil_mode": 1}, linear=True
    ),
    "a window larger than its input": Draw(
        "AveragePool", [x(2, 1, 4, 5)], {"kernel_shape": [1, 6], "strides": [3, 3]}, linear=True, free=True
    ),
    "SAME of a ConvTranspose that would cut nothing": Draw(
        "ConvTranspose", [x(1, 1, 3), stored(ONE)], {"strides": [3], "auto_pad": "SAME_UPPER"}, linear=True
    ),
    "output_shape below the input's": Draw(
        "ConvTranspose", [x(1, 1, 9), stored(np.ones((1, 1, 2)))], {"output_shape": [7]}, linear=True
    ),
    "run-time sizes, auto_pad and a weight": Draw(
        "Conv",
        [x(1, 1, 7), Given(np.asarray([[[0.5, 2]]], np.float32), wrt=True)],
        {"strides": [2], "auto_pad": "SAME_LOWER", "kernel_shape": [2]},
        linear=True,
        free=True,
    ),
    "a policy over all axes": Draw(
        "Resize", [x(2, 2, 4, 6), None, None, stored([2, 2, 3, 4], np.int64)], POLICY, 18, linear=True
    ),
    "a policy with a negative axis": Draw(
        "Resize", [x(1, 1, 6, 2), None, None, stored([5, 1], np.int64)], {**POLICY, "axes": [2, -1]}, 18, linear=True
    ),
    "a policy with a roi": Draw(
        "Resize",
        [x(1, 1, 5, 4), stored([0.1, 0, 0.8, 1]), None, stored([3, 3], np.int64)],
        {**CROP, "axes": [2, 3]},
        18,
        linear=True,
    ),
    "Resize-10 in two directions": Draw(
        "Resize", [x(1, 1, 4, 5), stored([1, 1, 2, 0.5])], {"mode": "nearest"}, 10, linear=True
    ),
    "Resize-10 by any scales": Draw(
        "Resize", [x(1, 1, 4, 5), Given(np.asarray([1, 1, 2, 0.6], np.float32))], {"mode": "nearest"}, 10, linear=True
    ),
}


@pytest.mark.parametrize("name", FINDINGS)
def test_findings(name: str) -> None:
    verdict = judge(FINDINGS[name])
    assert verdict.kind == "right", verdict.why
