"""An image to look at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gbp_onnx.auditing.annotations import Annotation

__all__ = ["Item", "spread"]


@dataclass(frozen=True, slots=True)
class Item:
    """An image to look at. `name`: how reports call it (the path as given, or within the folder)."""

    name: str
    path: Path
    label: str | None = None
    annotation: Annotation | None = None


def spread(items: tuple[Item, ...], count: int) -> tuple[Item, ...]:
    """`count` of the items, evenly spread; all of them for 0."""
    if count == 0 or count >= len(items):
        return items
    return tuple(items[k * (len(items) - 1) // max(1, count - 1)] for k in range(count))
