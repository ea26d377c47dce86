"""The conformance run itself: does it see what is wrong, what crashes, what is refused?"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import numpy as np
import onnx
import pytest

import gbp_onnx
from gbp_onnx.errors import OperatorError, Reason
from tests.conformance import verdict
from tests.conformance.scoreboard import page, totals
from tests.conformance.suite import OperatorTest, operator_tests
from tests.conformance.verdict import STATES, Verdict, verdicts
from tests.conformance.workers import judge_all

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def shipped() -> dict[str, OperatorTest]:
    return {test.name: test for test in operator_tests()}


def states(found: list[Verdict]) -> dict[str, set[str]]:
    return {wrt: {v.state for v in found if v.wrt == wrt} for wrt in {v.wrt for v in found}}


def test_the_suite_is_there(shipped: dict[str, OperatorTest]) -> None:
    assert len(shipped) > 1000 and {"Conv", "MatMul", "Softmax"} <= {t.op for t in shipped.values()}


def test_right_and_stops(shipped: dict[str, OperatorTest]) -> None:
    assert states(verdicts(shipped["test_mul_bcast"])) == {"x": {"right"}, "y": {"right"}}
    assert states(verdicts(shipped["test_floor"])) == {"x": {"stops"}}


def test_a_kink_is_left_out_or_unusable(shipped: dict[str, OperatorTest]) -> None:
    """test_sign has a place at 0, where it jumps; the others stand."""
    assert states(verdicts(shipped["test_sign"])) == {"x": {"stops"}}


def _refuses(*args: object, **kwargs: object) -> onnx.ModelProto:
    raise OperatorError.of((Reason("GBP202", "Exp", "n", "for a reason"),))


def test_refused_with_code(shipped: dict[str, OperatorTest], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gbp_onnx, "differentiate", _refuses)
    found = verdicts(shipped["test_exp"])
    assert {(v.state, v.why) for v in found} == {("refused", "GBP202 Exp: for a reason")}


@pytest.mark.parametrize("factor", [1.02, -1.0, np.nan])
def test_wrong_is_seen(shipped: dict[str, OperatorTest], monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    true = verdict._run
    monkeypatch.setattr(verdict, "_run", lambda *args: true(*args) * np.float32(factor))
    assert states(verdicts(shipped["test_exp"])) == {"x": {"wrong"}}


def test_a_stopped_gradient_is_seen(shipped: dict[str, OperatorTest], monkeypatch: pytest.MonkeyPatch) -> None:
    true = verdict._run
    monkeypatch.setattr(verdict, "_run", lambda *args: np.zeros_like(true(*args)))
    assert states(verdicts(shipped["test_exp"])) == {"x": {"wrong"}}


def _raises(*args: object, **kwargs: object) -> onnx.ModelProto:
    raise KeyError("oh")


def test_crash_is_seen(shipped: dict[str, OperatorTest], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gbp_onnx, "differentiate", _raises)
    assert states(verdicts(shipped["test_exp"])) == {"x": {"crash"}}


def _dies(test: OperatorTest) -> list[Verdict]:
    os._exit(7)


def _hangs(test: OperatorTest) -> list[Verdict]:
    while True:
        pass


@pytest.mark.parametrize(("judge", "state", "why"), [(_dies, "crash", "status 7"), (_hangs, "unusable", "0.3 s")])
def test_a_lost_process_takes_only_itself_down(
    shipped: dict[str, OperatorTest], judge: Callable[[OperatorTest], list[Verdict]], state: str, why: str
) -> None:
    found: Iterator[list[Verdict]] = judge_all([shipped["test_exp"], shipped["test_abs"]], 2, 0.3, judge)
    every = [v for verdicts in found for v in verdicts]
    assert {v.test for v in every} == {"test_exp", "test_abs"}
    assert {v.state for v in every} == {state} and all(why in v.why for v in every)


def test_scoreboard_counts() -> None:
    made = [Verdict("t", "Op", "x", way, s, "a | b") for way in verdict.WAYS for s in STATES]
    assert totals(made) == {way: dict.fromkeys(STATES, 1) for way in verdict.WAYS}
    text = page(made, 1)
    assert "| `Op` | " + " | ".join(["1 / 1"] * len(STATES)) + " |" in text and "a \\| b" in text
