"""LSTM, GRU and RNN in double, one step at a time, from the standard's formulas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun

Array = np.ndarray
Function = Callable[[Array], Array]

_BY_NAME: dict[str, Callable[[Array, float, float], Array]] = {
    "Relu": lambda x, a, b: np.maximum(x, 0),
    "Tanh": lambda x, a, b: np.tanh(x),
    "Sigmoid": lambda x, a, b: 1 / (1 + np.exp(-x)),
    "Affine": lambda x, a, b: a * x + b,
    "LeakyRelu": lambda x, a, b: np.where(x >= 0, x, a * x),
    "ThresholdedRelu": lambda x, a, b: np.where(x > a, x, 0),
    "ScaledTanh": lambda x, a, b: a * np.tanh(b * x),
    "HardSigmoid": lambda x, a, b: np.clip(a * x + b, 0, 1),
    "Elu": lambda x, a, b: np.where(x >= 0, x, a * (np.exp(np.minimum(x, 0)) - 1)),
    "Softsign": lambda x, a, b: x / (1 + np.abs(x)),
    "Softplus": lambda x, a, b: np.log1p(np.exp(x)),
}
DEFAULTS = {
    "Affine": (0.0, 0.0),
    "LeakyRelu": (0.01, None),
    "ThresholdedRelu": (0.0, None),
    "ScaledTanh": (0.0, 0.0),
    "HardSigmoid": (0.2, 0.5),
    "Elu": (1.0, None),
}
"""alpha and beta of ONNX Runtime where the node gives none; None: there is no beta."""


class Recurrent(OpRun):
    gates = 1
    default = ("Tanh",)
    states = 1

    def step(self, x: Array, state: list[Array], r: Array, b: Array, p: Array, f: list[Function]) -> list[Array]:
        raise NotImplementedError

    def clipped(self, x: Array) -> Array:
        return x if self.clip is None else np.clip(x, -self.clip, self.clip)

    def _run(self, x: Array, w: Array, r: Array, b: Any = None, lengths: Any = None, *rest: Any, **attrs: Any) -> Any:
        self.attrs, self.clip = attrs, attrs.get("clip")
        (time, batch, _), (directions, rows, _) = x.shape, w.shape
        hidden = rows // self.gates
        b = np.zeros((directions, 2 * rows)) if b is None else b
        lengths = np.full(batch, time) if lengths is None else lengths
        given = [*rest, *[None] * 3]
        zero = np.zeros((directions, batch, hidden))
        first = [zero if s is None else np.array(s) for s in given[: self.states]]
        p = np.zeros((directions, 3 * hidden)) if given[2] is None else given[2]
        y, last = np.zeros((time, directions, batch, hidden)), [np.zeros_like(zero) for _ in first]
        functions = self.functions(directions)
        for d in range(directions):
            backwards = attrs.get("direction") == "reverse" or d == 1
            own = functions[d * len(self.default) :][: len(self.default)]
            state = [np.where(lengths[:, None] > 0, s[d], 0) for s in first]
            for t in reversed(range(time)) if backwards else range(time):
                runs = (t < lengths)[:, None]
                new = self.step(x[t] @ w[d].T + b[d, :rows], state, r[d].T, b[d, rows:], p[d], own)
                state = [np.where(runs, after, before) for after, before in zip(new, state, strict=True)]
                y[t, d] = np.where(runs, new[0], 0)
            for k, value in enumerate(state):
                last[k][d] = value
        return (y, *last)[: len(self.onnx_node.output)]

    def functions(self, directions: int) -> list[Function]:
        alphas, betas = (list(self.attrs.get(f"activation_{k}") or ()) for k in ("alpha", "beta"))
        made: list[Function] = []
        for written in self.attrs.get("activations") or self.default * directions:
            name = next(known for known in _BY_NAME if known.lower() == written.lower())
            a, b = DEFAULTS.get(name, (0.0, 0.0))
            if name in DEFAULTS:
                a = alphas.pop(0) if alphas else a
                b = betas.pop(0) if betas and b is not None else b
            made.append(lambda x, name=name, a=a, b=b: _BY_NAME[name](x, a, b))  # type: ignore[misc]
        return made


class RNN(Recurrent):
    def step(self, x: Array, state: list[Array], r: Array, b: Array, p: Array, f: list[Function]) -> list[Array]:
        return [f[0](self.clipped(x + state[0] @ r + b))]


class GRU(Recurrent):
    gates = 3
    default = ("Sigmoid", "Tanh")

    def step(self, x: Array, state: list[Array], r: Array, b: Array, p: Array, f: list[Function]) -> list[Array]:
        (h,), (xz, xr, xh), (rz, rr, rh), (bz, br, bh) = state, *(np.split(v, 3, -1) for v in (x, r, b))
        update, reset = f[0](self.clipped(xz + h @ rz + bz)), f[0](self.clipped(xr + h @ rr + br))
        through = reset * (h @ rh + bh) if self.attrs.get("linear_before_reset") else (reset * h) @ rh + bh
        return [(1 - update) * f[1](self.clipped(xh + through)) + update * h]


class LSTM(Recurrent):
    gates = 4
    default = ("Sigmoid", "Tanh", "Tanh")
    states = 2

    def step(self, x: Array, state: list[Array], r: Array, b: Array, p: Array, f: list[Function]) -> list[Array]:
        (h, c), (pi, po, pf) = state, np.split(p, 3)
        xi, xo, xf, xc = np.split(x + h @ r + b, 4, -1)
        i = f[0](self.clipped(xi + pi * c))
        forget = 1 - i if self.attrs.get("input_forget") else f[0](self.clipped(xf + pf * c))
        c = forget * c + i * f[1](self.clipped(xc))
        return [f[0](self.clipped(xo + po * c)) * f[2](c), c]
