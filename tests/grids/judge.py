"""The verdict on one configuration: right, refused, wrong, crash, or unusable (ONNX Runtime does not compute it)."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

import gbp_onnx
from gbp_onnx.errors import GbpError
from tests.grids.draw import Draw
from tests.vjp_check import in_double, session
from tests.vjp_oracles import OWN

__all__ = ["Verdict", "judge"]

_STEP = 2e-4
_LARGEST = 400  # elements of an input that are moved one by one; of a larger one, so many


@dataclass(frozen=True)
class Verdict:
    kind: str
    why: str = ""


def judge(draw: Draw) -> Verdict:
    """Compare J^T s of the emitted model with differences of the forward."""
    try:
        model = draw.model()
        run = _forward(draw, model)
    except Exception as error:
        return Verdict("unusable", str(error).splitlines()[0])
    if not draw.wrt:
        return Verdict("unusable", "nothing to differentiate")
    forward = session(model).run(None, draw.feeds)
    differentiated = [
        o.name for o, v in zip(model.graph.output, forward, strict=True) if v.dtype.kind == "f" and v.size
    ]
    if not differentiated:
        return Verdict("unusable", "no float output")
    random = np.random.RandomState(1)
    weights = {
        o.name: np.asarray(random.uniform(0.5, 1.5, v.shape) * random.choice([-1, 1], v.shape), v.dtype)
        for o, v in zip(model.graph.output, forward, strict=True)
        if o.name in differentiated
    }
    try:
        built = gbp_onnx.differentiate(model, wrt=draw.wrt, outputs=differentiated)
        made = session(built)
        feeds = {**draw.feeds, **{f"{n}_seed": w for n, w in weights.items()}}
        got = dict(zip([o.name for o in made.get_outputs()], made.run(None, feeds), strict=True))
    except GbpError as error:
        return Verdict("refused", str(error))
    except Exception:
        return Verdict("crash", traceback.format_exc(limit=-3))
    for name in draw.wrt:
        gradient, x = got[f"{name}_grad"], draw.feeds[name]
        if gradient.shape != x.shape or gradient.dtype != x.dtype:
            return Verdict("wrong", f"{name}: {gradient.dtype}{gradient.shape} for {x.dtype}{x.shape}")
        places, want = _differences(draw, run, weights, model, name)
        scale = max(float(np.abs(want).max(initial=0)), 5e-2)
        error = float(np.abs(gradient.reshape(-1)[places] - want).max(initial=0)) / scale
        if not error < (2e-2 if draw.coarse else 2e-3):  # a wrong derivative is off by far more
            return Verdict("wrong", f"{name}: off by {error:.3g} of {scale:.3g}")
    return Verdict("right")


def _forward(draw: Draw, model: onnx.ModelProto) -> Callable[[dict[str, np.ndarray]], list[np.ndarray]]:
    if draw.linear or draw.coarse:
        exact = session(model)
        types = {k: v.dtype for k, v in draw.feeds.items()}
        return lambda f: exact.run(None, {k: v.astype(types[k]) for k, v in f.items()})
    try:
        wide = session(in_double(model))
        return lambda f: wide.run(None, f)
    except Exception:  # no kernel for doubles
        reference = ReferenceEvaluator(in_double(model), new_ops=OWN)
        point = {k: v.astype(np.float64) if v.dtype.kind == "f" else v for k, v in draw.feeds.items()}
        for other, own in zip(reference.run(None, point), session(model).run(None, draw.feeds), strict=True):
            np.testing.assert_allclose(other, own, rtol=1e-4, atol=1e-5)
        return lambda f: [np.asarray(r) for r in reference.run(None, f)]


def _differences(
    draw: Draw,
    run: Callable[[dict[str, np.ndarray]], list[np.ndarray]],
    weights: dict[str, np.ndarray],
    model: onnx.ModelProto,
    name: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Central differences along the elements of one input, and which elements."""
    feeds = {k: v.astype(np.float64) if v.dtype.kind == "f" else v for k, v in draw.feeds.items()}
    x = feeds[name]
    names = [o.name for o in model.graph.output]
    step = 1.0 if draw.linear else 2e-2 if draw.coarse else _STEP
    places = np.random.RandomState(2).permutation(x.size)[:_LARGEST]

    def moved(place: int, by: float) -> dict[str, np.ndarray]:
        flat = x.reshape(-1).copy()
        flat[place] += by
        made = run({**feeds, name: flat.reshape(x.shape)})
        return {n: np.asarray(v, np.float64) for n, v in zip(names, made, strict=True) if n in weights}

    def slope(place: int) -> float:
        plus, minus = moved(place, step), moved(place, -step)
        return float(sum(np.sum((plus[n] - minus[n]) * weights[n].astype(np.float64)) for n in weights) / (2 * step))

    return places, np.array([slope(int(p)) for p in places])
