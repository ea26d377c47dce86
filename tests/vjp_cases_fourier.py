"""More of the table: Fourier transforms."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.vjp_cases import case, fed, fixed, t

for _parts in (1, 2):
    _kind = ("real", "complex")[_parts - 1]
    for _inverse in (0, 1):
        _name = f"{_kind}{', inverse' * _inverse}"
        case(f"{_name}, opset 17", "DFT", t(2, 5, _parts), axis=1, inverse=_inverse, tolerance=3e-6)
        case(f"{_name}, opset 20", "DFT", t(2, 4, 3, _parts), inverse=_inverse, opset=20, tolerance=3e-6)
        for _length in (3, 8):
            _point = fixed(_length, np.int64) if _length == 3 else fed(_length)
            case(
                f"{_name}, {_length} points",
                "DFT",
                t(1, 5, 2, _parts),
                _point,
                fed(-3),
                inverse=_inverse,
                opset=20,
                tolerance=3e-6,
            )
for _length in (None, 4, 5, 9):
    _more: dict[str, Any] = {"onesided": 1, "tolerance": 3e-6}
    _number = None if _length is None else fixed(_length, np.int64)
    case(f"one-sided, {_length} points", "DFT", t(2, 5, 2, 1), _number, axis=1, **_more)
    case(f"one-sided, {_length} points, opset 20", "DFT", t(2, 2, 5, 1), _number, fed(2), opset=20, **_more)
for _length in (None, 8, 9):
    _number = None if _length is None else fixed(_length, np.int64)
    _more = {"onesided": 1, "inverse": 1, "tolerance": 3e-6, "dynamic": _length is None}
    case(f"inverse one-sided, {_length} points", "DFT", t(2, 5, 2, 2), _number, axis=-3, **_more)
    case(
        f"inverse one-sided, {_length} points, opset 20",
        "DFT",
        t(2, 2, 5, 2),
        _number,
        fixed(-2, np.int64),
        opset=20,
        **_more,
    )

for _parts in (1, 2):
    for _sides in (0, 1):
        for _fed in (False, True):
            _as = fed if _fed else (lambda v: fixed(v, np.int64))
            _name = f"{('real', 'complex')[_parts - 1]}{', one-sided' * _sides}{', fed' * _fed}"
            _more = {"onesided": _sides, "tolerance": 3e-6}
            case(f"{_name}, window", "STFT", t(2, 11, _parts), _as(2), t(5, low=0.3), **_more)
            case(f"{_name}, length", "STFT", t(2, 9, _parts), _as(3), None, _as(4), **_more)
            case(f"{_name}, gaps", "STFT", t(1, 10, _parts), _as(4), t(3), _as(3), **_more)
