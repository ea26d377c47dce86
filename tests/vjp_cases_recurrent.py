"""More of the table: LSTM, GRU and RNN."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.recurrent_oracles import DEFAULTS
from tests.vjp_cases import CASES, fed, fixed, t
from tests.vjp_check import Case, In

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
FUNCTIONS = {"LSTM": 3, "GRU": 2, "RNN": 1}


def recurrent(
    op: str,
    name: str,
    *,
    time: int = 3,
    batch: int = 2,
    lengths: In | None = None,
    present: str = "BhcP",
    reach: float = 0.9,
    opset: int = 17,
    **attrs: Any,
) -> Case:
    """A case. `present`: those of the inputs that may be left out; more of `attrs` are fields of the case."""
    many, rows, hidden = 2 if attrs.get("direction") == "bidirectional" else 1, GATES[op] * 2, 2
    own = {k: attrs.pop(k) for k in tuple(attrs) if k in ("differentiated", "dynamic", "outputs", "tolerance")}

    def some(letter: str, *shape: int) -> In | None:
        return t(*shape, low=-reach, high=reach) if letter in present else None

    inputs = [
        t(time, batch, 2),
        *(t(many, rows, size, low=-reach, high=reach) for size in (2, hidden)),
        some("B", many, 2 * rows),
        lengths,
        some("h", many, batch, hidden),
        *((some("c", many, batch, hidden), some("P", many, 3 * hidden)) if op == "LSTM" else ()),
    ]
    fields: dict[str, Any] = {"outputs": 3 if op == "LSTM" else 2, "tolerance": 4e-6, "step": 1e-5, **own}
    given = {"hidden_size": hidden, **attrs}
    return Case(f"{op}/{name}", op, tuple(inputs), given, opset, oracle="reference", **fields)


for _op in ("LSTM", "GRU", "RNN"):
    for _direction in ("forward", "reverse", "bidirectional"):
        _more: dict[str, Any] = {"direction": _direction}
        CASES += [
            recurrent(_op, _direction, **_more),
            recurrent(_op, f"{_direction}, inputs left out", present="", outputs=1, **_more),
            recurrent(_op, f"{_direction}, lengths", lengths=fed([3, 1], np.int32), **_more),
            recurrent(_op, f"{_direction}, clip", clip=0.3, present="Bc", opset=14, **_more),
        ]
    CASES += [
        recurrent(_op, "stored lengths, one of 0", lengths=fixed([2, 0, 3], np.int32), batch=3, opset=22),
        recurrent(_op, "one step", time=1, present="B"),
        recurrent(_op, "last states alone", differentiated=("y1",), present="Bc"),
        recurrent(_op, "opset 7", opset=7, present="B", direction="reverse"),
    ]
    for _name in ("Relu", "Sigmoid", "Softsign", "Softplus", *DEFAULTS):
        _activations = [_name] * FUNCTIONS[_op]
        _count = len(_activations)
        CASES.append(recurrent(_op, f"{_name}", present="Bh", activations=_activations, reach=0.5))
        if _name in DEFAULTS:
            _more = {"activations": _activations, "activation_alpha": [0.3 + 0.1 * k for k in range(_count)]}
            if DEFAULTS[_name][1] is not None:
                _more["activation_beta"] = [0.7 - 0.2 * k for k in range(_count)]
            CASES.append(recurrent(_op, f"{_name}, given", present="Bh", reach=0.5, **_more))
for _direction in ("forward", "bidirectional"):
    _more = {"direction": _direction, "lengths": fed([2, 3], np.int32)}
    CASES += [
        recurrent("LSTM", f"{_direction}, input_forget", input_forget=1, **_more),
        recurrent("GRU", f"{_direction}, linear_before_reset", linear_before_reset=1, **_more),
        recurrent("GRU", f"{_direction}, linear_before_reset without biases", linear_before_reset=1, present="h"),
    ]
CASES += [
    recurrent("GRU", "names in small letters", activations=["sigmoid", "TANH"]),
    recurrent("LSTM", "cell state alone", differentiated=("y2",)),
    recurrent(
        "LSTM",
        "alphas go to those that take one",
        direction="bidirectional",
        activations=["Sigmoid", "LeakyRelu", "Tanh", "HardSigmoid", "Affine", "Elu"],
        activation_alpha=[0.3, 0.25, 0.5, 0.8],
        activation_beta=[0.4, 0.1],
    ),
]
