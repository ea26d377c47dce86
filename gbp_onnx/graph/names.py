"""Names that are free."""

from __future__ import annotations

__all__ = ["unique_name"]


def unique_name(name: str, taken: set[str]) -> str:
    """`name`, or `name_1`, `name_2`... where it is taken; the result is added to `taken`."""
    candidate, count = name, 0
    while candidate in taken:
        count += 1
        candidate = f"{name}_{count}"
    taken.add(candidate)
    return candidate
