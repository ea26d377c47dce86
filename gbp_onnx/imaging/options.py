"""Errors for a name that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from gbp_onnx.errors import InputError

__all__ = ["unknown"]


def unknown(code: str, kind: str, value: object, known: Iterable[str], where: str = "") -> InputError:
    """The error for a `value` that is none of the `known` ones: lists them, and names the nearest."""
    names = list(known)
    lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(str(value).lower(), lower, n=1, cutoff=0.6)
    hint = f" (did you mean {lower[near[0]]!r}?)" if near else ""
    return InputError(code, f"no {kind} {value!r}{hint}", where, f"choose one of: {', '.join(names)}")
