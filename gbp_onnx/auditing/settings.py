"""Settings with a type, a range and a sentence: what a configuration may hold, and what `--init` writes of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import Field, dataclass, field, fields
from typing import Any

__all__ = [
    "CheckSettings",
    "Limit",
    "about",
    "boxes",
    "flag",
    "limit",
    "limits_of",
    "names",
    "number",
    "read_field",
    "text",
    "text_or",
    "whole",
]


def _setting(default: Any, words: str, read: Callable[[Any], Any], shown: bool) -> Any:
    return field(default=default, metadata={"about": words, "read": read, "shown": shown})


def about(entry: Field[Any]) -> str:
    """The sentence of a setting; empty where it is not shown in a first configuration."""
    return str(entry.metadata["about"]) if entry.metadata["shown"] else ""


def read_field(entry: Field[Any], value: Any) -> Any:
    """The value of a setting as its type. Raises ValueError with what is wanted."""
    return entry.metadata["read"](value)


def text(default: str | None, words: str, choices: Sequence[str] = (), shown: bool = True) -> Any:
    """A string, of `choices` where they are given."""

    def read(value: Any) -> str:
        if not isinstance(value, str) or not value.strip():
            raise ValueError("a text in quotes is wanted")
        if choices and value not in choices:
            raise ValueError(f"it is one of: {', '.join(choices)}")
        return value

    return _setting(default, words, read, shown)


def text_or(default: Any, words: str, kinds: tuple[type, ...], wanted: str, shown: bool = True) -> Any:
    """A value of one of several types, which its reader understands."""

    def read(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise ValueError(f"{wanted} is wanted")
        return value

    return _setting(default, words, read, shown)


def flag(default: bool, words: str, shown: bool = True) -> Any:
    """true or false."""

    def read(value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValueError("true or false is wanted")
        return value

    return _setting(default, words, read, shown)


def whole(default: int, words: str, low: int = 0, high: int | None = None, shown: bool = True) -> Any:
    """A whole number in a range."""

    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError("a whole number is wanted")
        return int(_in_range(value, low, high))

    return _setting(default, words, read, shown)


def number(default: float, words: str, low: float | None = None, high: float | None = None, shown: bool = True) -> Any:
    """A finite number in a range."""
    return _setting(default, words, lambda value: _number(value, low, high), shown)


def limit(
    default: float | None, words: str, low: float | None = None, high: float | None = None, shown: bool = True
) -> Any:
    """A threshold: a number, or false for none. Its field is called min_, max_, min_mean_ or max_mean_ and the
    measure.
    """
    return _setting(default, words, lambda value: None if value is False else _number(value, low, high), shown)


def names(default: tuple[str, ...], words: str, choices: Sequence[str] = (), shown: bool = True) -> Any:
    """A list of strings, of `choices` where they are given."""

    def read(value: Any) -> tuple[str, ...]:
        entries = [value] if isinstance(value, str) else value
        if not isinstance(entries, list | tuple) or not all(isinstance(entry, str) for entry in entries):
            raise ValueError('a list of texts is wanted, like ["a", "b"]')
        for entry in entries:
            if choices and entry not in choices:
                raise ValueError(f"{entry!r} is none of: {', '.join(choices)}")
        return tuple(dict.fromkeys(entries))

    return _setting(default, words, read, shown)


def boxes(words: str, shown: bool = True) -> Any:
    """A list of [left, top, right, bottom], as fractions of the photograph's width and height."""

    def read(value: Any) -> tuple[tuple[float, ...], ...]:
        if not isinstance(value, list | tuple):
            raise ValueError("a list of [left, top, right, bottom] is wanted")
        found = []
        for entry in value:
            if not isinstance(entry, list | tuple) or len(entry) != 4:
                raise ValueError("each region is [left, top, right, bottom]")
            left, top, right, bottom = (_number(side, 0.0, 1.0) for side in entry)
            if left >= right or top >= bottom:
                raise ValueError("left must be below right, and top below bottom")
            found.append((left, top, right, bottom))
        return tuple(found)

    return _setting((), words, read, shown)


def _number(value: Any, low: float | None, high: float | None) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("a number is wanted")
    return float(_in_range(value, low, high))


def _in_range(value: float, low: float | None, high: float | None) -> float:
    if (low is not None and value < low) or (high is not None and value > high):
        span = f"{low:g} or more" if high is None else f"{high:g} or less" if low is None else f"{low:g} to {high:g}"
        raise ValueError(f"it must be {span}, not {value:g}")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckSettings:
    """What every check has. `severity`: "gate" can fail the run, "report" is measured and shown."""

    enabled: bool = flag(True, "false leaves this check out", shown=False)
    severity: str = text("gate", "gate: can fail the run; report: measured and shown", ("gate", "report"))
    images: int = whole(0, "how many images it looks at, evenly spread; 0: all", shown=False)


@dataclass(frozen=True, slots=True)
class Limit:
    """A threshold: `measure` is at least ("min") or at most ("max") `bound`, for each image or for their mean."""

    measure: str
    kind: str
    mean: bool
    bound: float

    def holds(self, value: float | bool | None) -> bool:
        """Whether a value keeps it; one that could not be computed does not."""
        if value is None or not math.isfinite(value):
            return False
        return value >= self.bound if self.kind == "min" else value <= self.bound

    def governs(self, measure: str) -> bool:
        """Whether it is about this measure: its name, with or without a rule in front ("guided.cosine")."""
        return measure.rpartition(".")[2] == self.measure

    @property
    def words(self) -> str:
        """As text: "cosine >= 0.9"."""
        sign = ">=" if self.kind == "min" else "<="
        return f"{'mean ' if self.mean else ''}{self.measure} {sign} {self.bound:g}"


def limits_of(settings: CheckSettings) -> tuple[Limit, ...]:
    """The thresholds among the settings, by their names."""
    found = []
    for entry in fields(settings):
        kind, _, rest = entry.name.partition("_")
        bound = getattr(settings, entry.name)
        if kind in ("min", "max") and rest and isinstance(bound, float):
            mean = rest.startswith("mean_")
            found.append(Limit(rest.removeprefix("mean_"), kind, mean, bound))
    return tuple(found)
