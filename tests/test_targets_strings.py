"""Targets as strings: what they stand for, whatever is written, and what the page about them says."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gbp_onnx.errors import GbpError
from gbp_onnx.targets import Box, Index, Mask, Seed, Similar
from gbp_onnx.targets.choose import choose
from gbp_onnx.targets.forms import parse
from gbp_onnx.targets.scene import Scene


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("scores[0, 17, 3]", Index("scores", (0, 17, 3))), (" [3] ", Index(None, (3,))),
        ("a.b/c[1,]", Index("a.b/c", (1,))),
        ("out[:, 2:5, ::2]", Index("out", (slice(None), slice(2, 5), slice(None, None, 2)))), ("box", Box()),
        ("box:", Box()), ("box:dog", Box("dog")), ("box:dog@17", Box("dog", 17)), ("box:3@", Box(3)),
        ("box:@1,2,3.5,4", Box(None, (1, 2, 3.5, 4))), ("BOX:traffic light@2", Box("traffic light", 2)),
        ("seed.NPY", Seed("seed.NPY")), ("tabby", None), ("top1", None), ("281", None), ("3,4", None),
        ("tabby, tabby cat", None), ("boxer", None), ("masked:2", None),
    ],
)  # fmt: skip
def test_strings(text: str, form: Any) -> None:
    assert parse(text) == form


@pytest.mark.parametrize(
    ("text", "label", "region"),
    [
        ("mask", None, None), ("mask:", None, None), ("mask:top1", None, None), ("mask:dog", "dog", None),
        ("mask:15", 15, None), ("mask:dog@1,2,3,4", "dog", (1, 2, 3, 4)), ("mask:dog@a b.png", "dog", "a b.png"),
        ("mask:p.png", None, "p.png"),
        ("mask:@1,2,3,4", None, (1, 2, 3, 4)),
    ],
)  # fmt: skip
def test_mask_strings(text: str, label: Any, region: Any) -> None:
    form = parse(text)
    assert isinstance(form, Mask) and (form.label, form.region) == (label, region)


places = st.one_of(
    st.integers(0, 10**6),
    st.builds(
        slice,
        st.none() | st.integers(-50, 50),
        st.none() | st.integers(-50, 50),
        st.none() | st.integers(1, 9),
    ),
)


@settings(deadline=None)
@given(st.none() | st.from_regex(r"[A-Za-z_][\w./:]{0,12}", fullmatch=True), st.lists(places, min_size=1, max_size=5))
def test_an_index_is_read_back_from_its_own_text(name: str | None, key: list[Any]) -> None:
    index = Index(name, tuple(key))
    text = str(index) if name else f"[{str(index).partition('[')[2]}"
    assert parse(text) == index


@settings(deadline=None, max_examples=300)
@given(st.text(max_size=30) | st.from_regex(r"(mask|box|similar|out)?[:\[@]?[-\d:,\[\]@. a]{0,20}", fullmatch=True))
def test_no_text_breaks_the_reader(text: str) -> None:
    try:
        parse(text)
    except GbpError as error:
        assert error.code == "GBP407" and error.fix


@settings(deadline=None)
@given(st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 6)), st.data())
def test_an_index_picks_what_numpy_picks(shape: tuple[int, ...], data: st.DataObject) -> None:
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    scene = Scene({"out": values}, "out", None, "", None, None, None, (8, 8), False)
    key = tuple(data.draw(st.integers(0, d - 1) | st.just(slice(None))) for d in shape)
    batched = data.draw(st.sampled_from([(), (0,), (slice(None),)]))
    scalar = choose(Index("out", (*batched, *key)), scene, lambda _: (scene, ""))
    assert scalar.score == pytest.approx(float(values[key].mean()))
    if isinstance(scalar.seed, int):
        assert values.reshape(-1)[scalar.seed] == values[key]
    else:
        assert float((scalar.seed * values).sum()) == pytest.approx(float(values[key].mean()))


ROOT = Path(__file__).resolve().parents[1]


def test_the_page_of_targets_is_true() -> None:
    """The first string of each row of its table stands for the first object beside it."""
    names = {"Box": Box, "Index": Index, "Mask": Mask, "Seed": Seed, "Similar": Similar}
    page = (ROOT / "docs" / "targets.md").read_text(encoding="utf-8")
    rows = re.findall(rf"^\| `(.*?)`.*? \| `((?:{'|'.join(names)})\(.*?\))`[ ,]", page, re.MULTILINE)
    assert len(rows) >= 12
    for text, code in rows:
        form, wanted = parse(text), eval(code, names)
        assert type(form) is type(wanted)
        assert [getattr(form, f.name) for f in fields(form)] == [getattr(wanted, f.name) for f in fields(wanted)], text
