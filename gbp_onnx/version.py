"""The package's own version, as installed."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version

__all__ = ["package_version"]


@cache
def package_version() -> str:
    """The installed version of gbp-onnx; "0+unknown" where it runs from a folder that is not installed."""
    try:
        return version("gbp-onnx")
    except PackageNotFoundError:
        return "0+unknown"
