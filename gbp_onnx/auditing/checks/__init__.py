"""The checks, by the names of their tables in a configuration. One file each."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from gbp_onnx.auditing.check import Check
from gbp_onnx.auditing.checks import (
    coverage,
    drift,
    faithfulness,
    forbidden,
    gradient,
    localisation,
    parity,
    sanity,
    stability,
)

__all__ = ["CHECKS"]

_FILES = (coverage, parity, gradient, drift, localisation, forbidden, faithfulness, sanity, stability)

CHECKS: Mapping[str, Check] = MappingProxyType({file.CHECK.name: file.CHECK for file in _FILES})
"""In the order in which they run and are reported."""
