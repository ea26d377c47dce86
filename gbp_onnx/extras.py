"""Packages of an extra: imported where they are used, asked for kindly where they are missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gbp_onnx.errors import InputError

__all__ = ["extra"]


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Imports in this block come with ``gbp-onnx[name]``; GBP412 says how to install what is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        what = f"the package {error.name!r} is not installed"
        raise InputError("GBP412", what, fix=f"pip install 'gbp-onnx[{name}]'") from error
