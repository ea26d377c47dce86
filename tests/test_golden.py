"""The maps are those that a person looked at: see golden/make_golden.py."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.golden.make_golden import current

GOLDEN = json.loads((Path(__file__).parent / "golden" / "maps.json").read_text())


@pytest.fixture(scope="module")
def maps() -> dict[str, dict[str, object]]:
    return current()


def test_nothing_is_missing(maps: dict[str, dict[str, object]]) -> None:
    assert maps.keys() == GOLDEN.keys()


@pytest.mark.parametrize("name", GOLDEN)
def test_the_map_is_the_golden_one(maps: dict[str, dict[str, object]], name: str) -> None:
    for key, wanted in GOLDEN[name].items():
        scale = np.abs(wanted).max()
        # Gates that sit on zero may flip between machines; a whole wrong mask moves these numbers by 10 % and more.
        np.testing.assert_allclose(maps[name][key], wanted, rtol=1e-3, atol=1e-3 * scale, err_msg=key)
