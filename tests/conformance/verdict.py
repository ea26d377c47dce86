"""One derivative, judged: right, stops, refused, wrong, crash or unusable."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx

import gbp_onnx
from gbp_onnx.errors import GbpError, OperatorError
from tests.conformance.differences import Forward, Slopes, Unusable, forwards, session, slopes
from tests.conformance.suite import OperatorTest, Values, is_float, same, with_constants

STATES = ("right", "stops", "refused", "wrong", "crash", "unusable")
WAYS = ("constants", "shipped")
"""The other inputs as initializers, or all as run-time inputs."""


@dataclass(frozen=True)
class Verdict:
    """`way`: one of WAYS; `state`: one of STATES; `why`: code and reason of a refusal, difference of a wrong number."""

    test: str
    op: str
    wrt: str
    way: str
    state: str
    why: str = ""

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


def verdicts(test: OperatorTest) -> list[Verdict]:
    """Of every float input, in both ways."""
    try:
        got = session(test.model).run(None, test.feeds)
    except Exception as error:
        return _all(test, f"ONNX Runtime does not compute it ({str(error).splitlines()[0][:120]})")
    if not same(got, test.expected, max(test.rtol, 1e-3), max(test.atol, 1e-5)):
        return _all(test, "ONNX Runtime computes something else than the test expects")
    seeds = _seeds(test, got)
    oracles = list(forwards(test))
    found = []
    for wrt in test.wrt:
        truth: Slopes | str = _truth(test, oracles, wrt, seeds)
        for way in WAYS:
            if isinstance(truth, str):
                found.append(Verdict(test.name, test.op, wrt, way, "unusable", truth))
            else:
                state, why = _judge(test, wrt, way, seeds, truth)
                found.append(Verdict(test.name, test.op, wrt, way, state, why))
    return found


def _all(test: OperatorTest, why: str) -> list[Verdict]:
    return [Verdict(test.name, test.op, wrt, way, "unusable", why) for wrt in test.wrt for way in WAYS]


def _seeds(test: OperatorTest, results: list[Any]) -> Values:
    random = np.random.RandomState(3)
    return {
        name: np.asarray(random.uniform(0.5, 1.5, y.shape) * random.choice([-1, 1], y.shape), y.dtype)
        for name, y in zip([o.name for o in test.model.graph.output], results, strict=True)
        if is_float(y) and name in test.outputs
    }


def _truth(test: OperatorTest, oracles: list[Forward], wrt: str, seeds: Values) -> Slopes | str:
    """From the first runtime that gives a slope nearly everywhere (one that computes in float32 inside does not)."""
    why, best = "no runtime gives the expected results in double or float32", None
    for oracle in oracles:
        try:
            found = slopes(test, oracle, wrt, seeds)
        except Unusable as reason:
            why = str(reason)
            continue
        if found.at_kinks <= len(found.places) // 3:
            return found
        if best is None or found.at_kinks < best.at_kinks:
            best = found
    return why if best is None else best


def _judge(test: OperatorTest, wrt: str, way: str, seeds: Values, truth: Slopes) -> tuple[str, str]:
    model, feeds = (test.model, test.feeds) if way == "shipped" else with_constants(test, wrt)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", gbp_onnx.GbpWarning)
            built = gbp_onnx.differentiate(model, wrt=[wrt], outputs=test.outputs)
    except OperatorError as error:
        return "refused", "; ".join(f"{r.code} {r.op}: {r.why}" for r in error.reasons) or str(error)
    except GbpError as error:
        return "refused", f"{error.code} {error.what}"
    except Exception as error:
        return "crash", f"while building: {type(error).__name__}: {str(error)[:200]}"
    try:
        gradient = _run(built, {**feeds, **{f"{n}_seed": s for n, s in seeds.items()}}, f"{wrt}_grad")
    except Exception as error:
        if not _loads(model):  # some tests do not with constants
            return "unusable", "ONNX Runtime does not load the test's own model in this form"
        return "crash", f"the model that was built: {str(error).splitlines()[0][:240]}"
    if gradient.shape != np.shape(test.feeds[wrt]):
        return "wrong", f"shape {gradient.shape} for an input of {np.shape(test.feeds[wrt])}"
    return _compare(gradient.astype(np.float64).reshape(-1)[truth.places], truth)


def _loads(model: onnx.ModelProto) -> bool:
    try:
        session(model)
    except Exception:
        return False
    return True


def _run(model: onnx.ModelProto, feeds: Values, name: str) -> np.ndarray:
    return np.asarray(session(model).run([name], feeds)[0])


def _compare(got: np.ndarray, truth: Slopes) -> tuple[str, str]:
    scale = max(float(np.max(np.abs(truth.values), initial=0.0)), 1e-3)
    error = float(np.max(np.abs(got - truth.values), initial=0.0)) / scale if np.isfinite(got).all() else np.inf
    if error > 2 * truth.tolerance:
        worst = int(np.argmax(np.where(np.isfinite(got), np.abs(got - truth.values), np.inf)))
        return "wrong", (
            f"{got[worst]:.6g} instead of {truth.values[worst]:.6g} at {int(truth.places[worst])} "
            f"(relative {error:.2g}; {truth.kind})"
        )
    if not got.any() and got.size and float(np.max(np.abs(truth.values))) <= 1e-6:
        return "stops", ""
    return "right", f"{truth.at_kinks} places on kinks left out" if truth.at_kinks else ""
