"""J^T s by central differences of the forward, at a sample of places; what sits on a kink is left out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx
import onnxruntime as ort
from onnx.reference import ReferenceEvaluator

from tests.conformance.suite import OperatorTest, Values, doubled, in_double, is_float, same
from tests.vjp_oracles import OWN

Run = Callable[[Values], list[np.ndarray]]
PLACES = 24  # of each input are looked at; all where there are no more


@dataclass(frozen=True)
class Forward:
    """The forward as a function. `step`: of the differences; `tolerance`: of the result, relative to the largest."""

    kind: str
    run: Run
    step: float
    tolerance: float
    dtype: type | None = None


@dataclass(frozen=True)
class Slopes:
    """The differences at some places (flat indices) of one input."""

    places: np.ndarray
    values: np.ndarray
    kind: str
    tolerance: float
    at_kinks: int


class Unusable(Exception):  # noqa: N818 - a verdict, not an error
    """No difference can be had; the text says why."""


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def forwards(test: OperatorTest) -> Iterator[Forward]:
    """The forward in double by onnx.reference, in double by ONNX Runtime, and in float32 by ONNX Runtime, each only if
    it gives the results that the test expects.
    """
    makers: tuple[tuple[str, Callable[[], Run], float, float], ...] = (
        ("ONNX Runtime, double", lambda: _runtime(in_double(test.model)), 1e-5, 1e-3),
        ("onnx.reference, double", lambda: _reference(in_double(test.model)), 1e-5, 1e-3),
        ("ONNX Runtime, float32", lambda: _runtime(test.model), 2e-2, 1e-2),
    )
    wide = {k: doubled(v) for k, v in test.feeds.items()}
    half = any(is_float(v) and v.dtype.itemsize == 2 for v in (*test.feeds.values(), *test.expected))
    rtol, atol = max(test.rtol, 2e-2 if half else 1e-3), max(test.atol, 1e-2 if half else 1e-4)
    for kind, make, step, tolerance in makers:
        exact = kind != "ONNX Runtime, float32"
        if half and not exact:
            continue
        try:
            run = make()
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                got = run(wide if exact else test.feeds)
        except Exception:
            continue
        if same(got, test.expected, rtol, atol):
            yield Forward(kind, run, step, tolerance * (20 if half else 1), None if exact else np.float32)


def _runtime(model: onnx.ModelProto) -> Run:
    made = session(model)
    return lambda feeds: made.run(None, feeds)


def _reference(model: onnx.ModelProto) -> Run:
    made = ReferenceEvaluator(model, new_ops=OWN)
    return lambda feeds: made.run(None, feeds)


def slopes(test: OperatorTest, forward: Forward, wrt: str, seeds: Values) -> Slopes:
    """d(sum of seed * output)/d(wrt) at up to PLACES places away from kinks; Unusable where there is none."""
    names = [o.name for o in test.model.graph.output]
    feeds = {k: doubled(v) for k, v in test.feeds.items()} if forward.dtype is None else dict(test.feeds)
    x = np.asarray(test.feeds[wrt], np.float64)
    if x.size == 0:
        return Slopes(np.zeros(0, np.int64), np.zeros(0), forward.kind, forward.tolerance, 0)
    shapes = {n: np.shape(s) for n, s in seeds.items()}
    random = np.random.RandomState(7)
    places = np.sort(random.permutation(x.size)[:PLACES])

    def at(place: int, offset: float) -> float:
        moved = x.reshape(-1).copy()
        moved[place] += offset
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            results = forward.run({**feeds, wrt: moved.reshape(x.shape).astype(forward.dtype or np.float64)})
        total = 0.0
        for name, y in zip(names, results, strict=True):
            if name in seeds:
                if np.shape(y) != shapes[name]:
                    raise Unusable("the output's shape depends on this input's values")
                wide = np.asarray(y, np.float64)
                weight = np.asarray(seeds[name], np.float64)
                total += float(np.sum(np.where(weight == 0, 0, wide * weight)))
        return total

    try:
        centre = at(int(places[0]), 0.0)
        rows = [
            _slope(partial(at, int(p)), centre, forward.step * max(1.0, abs(x.reshape(-1)[int(p)]))) for p in places
        ]
    except Unusable:
        raise
    except Exception as error:
        raise Unusable(f"the forward fails beside the point ({str(error).splitlines()[0][:100]})") from None
    coarse, fine, bend, bend_fine = np.asarray(rows).T
    scale = max(float(np.max(np.abs(fine[np.isfinite(fine)]), initial=0.0)), 1e-6 if forward.dtype is None else 1e-3)
    slack = scale * forward.tolerance
    with np.errstate(all="ignore"):
        smooth = (np.abs(coarse - fine) <= slack) & ((bend_fine <= slack) | (bend_fine <= 0.75 * bend))
    good = np.isfinite(fine) & smooth
    if not good.any():
        raise Unusable("at every place differences of two step sizes disagree (a kink, or no finite value)")
    # Richardson: the error of second order cancels.
    return Slopes(
        places[good], (4 * fine[good] - coarse[good]) / 3, forward.kind, forward.tolerance, int((~good).sum())
    )


def _slope(at: Callable[[float], float], centre: float, step: float) -> tuple[float, float, float, float]:
    """Central differences with the step and half of it, and how far the one-sided ones are apart with each."""
    up, down, half_up, half_down = at(step), at(-step), at(step / 2), at(-step / 2)
    return (
        (up - down) / (2 * step),
        (half_up - half_down) / step,
        abs((up - centre) - (centre - down)) / step,
        abs((half_up - centre) - (centre - half_down)) / (step / 2),
    )
