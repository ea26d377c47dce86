"""Where the tables and keys of a TOML file stand: `tomllib` reads values, and forgets the lines."""

from __future__ import annotations

import re

__all__ = ["line_of", "lines_of"]

_TABLE = re.compile(r"^\s*\[\[?\s*([^\]]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"""^\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=""")

Path = tuple[str, ...]


def lines_of(text: str) -> dict[Path, int]:
    """The line (from 1) of every table and key, by its dotted path. Keys inside inline tables are not told apart."""
    found: dict[Path, int] = {}
    table: Path = ()
    closing: str | None = None
    depth = 0
    for count, line in enumerate(text.splitlines(), start=1):
        if closing is not None:  # inside a string of several lines
            if closing in line:
                closing = None
            continue
        if depth > 0:  # inside a list of several lines
            depth += _open_brackets(line)
            continue
        header, key = _TABLE.match(line), _KEY.match(line)
        if header:
            table = _parts(header.group(1))
            found.setdefault(table, count)
        elif key:
            found.setdefault((*table, *_parts(key.group(1))), count)
            rest = line[key.end() :]
            for quotes in ('"""', "'''"):
                if rest.count(quotes) == 1:
                    closing = quotes
            if closing is None:
                depth = max(0, _open_brackets(rest))
    return found


def line_of(lines: dict[Path, int], path: Path) -> int | None:
    """The line of a path, or of the nearest table around it."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path)


def _parts(dotted: str) -> Path:
    return tuple(part.strip().strip("\"'") for part in re.findall(r"\"[^\"]*\"|'[^']*'|[^.\s]+", dotted))


def _open_brackets(text: str) -> int:
    """Brackets that a piece of text opens and does not close, strings and comments left out."""
    bare = re.sub(r"\"(?:\\.|[^\"\\])*\"|'[^']*'|#.*", "", text)
    return sum(bare.count(c) for c in "[{") - sum(bare.count(c) for c in "]}")
