"""Class labels: from a list, a text file (a line each) or a JSON file; found again by name."""

from __future__ import annotations

import ast
import difflib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gbp_onnx.errors import InputError, ModelError

__all__ = ["Labels", "find_label", "is_label", "labels_for", "labels_from_metadata", "read_labels"]

Labels = Sequence[str] | str | os.PathLike[str]
"""What callers pass: the labels themselves, or the path of a file that holds them."""

_SYNSET = re.compile(r"^n\d{8}\s+")
_NUMBERED = re.compile(r"^(\d+)\s*(?:[:,\t]\s*|\s+)(.+?),?$")


def read_labels(labels: Labels) -> tuple[str, ...]:
    """The labels in class order. Files: one a line (``n02123045 tabby`` and ``281: tabby`` too), or JSON (a list, or
    an object by index). GBP408.
    """
    if not isinstance(labels, str | os.PathLike):
        return tuple(str(label) for label in labels)
    path = Path(labels)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = "no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise InputError(
            "GBP408", f"the labels cannot be read ({why})", str(path), "pass a text file with one label a line"
        ) from error
    found = _from_json(text, str(path)) if text.lstrip()[:1] in ("{", "[") else _from_lines(text)
    if not found:
        raise InputError("GBP408", "the file holds no labels", str(path), "pass a text file with one label a line")
    return found


def labels_from_metadata(props: dict[str, str], where: str) -> tuple[str, ...] | None:
    """The labels in ``gbp.labels`` (a JSON list), else in Ultralytics' ``names`` ({0: 'person', ...}); None where there
    are none. GBP112 where the former cannot be used.
    """
    text = props.get("gbp.labels")
    if text is None:
        return _ultralytics_names(props.get("names", ""))
    try:
        return _from_json(text, where)
    except InputError as error:
        raise ModelError("GBP112", f"gbp.labels: {error.what}", where, "pass labels=...") from error


def _ultralytics_names(text: str) -> tuple[str, ...] | None:
    try:
        return _from_json(text, "names") if text.lstrip()[:1] in ("{", "[") else None
    except InputError:
        return None  # some other tool's names


def labels_for(labels: tuple[str, ...] | None, classes: int) -> tuple[str, ...] | None:
    """The labels for an output of so many classes: with "background" in front where the model has one class more
    (TensorFlow's habit).
    """
    if labels is None or len(labels) == classes:
        return labels
    if len(labels) + 1 == classes:
        return ("background", *labels)
    return labels[1:] if len(labels) == classes + 1 and labels[0].casefold() == "background" else None


def is_label(name: str, labels: tuple[str, ...] | None) -> bool:
    """Whether a class is called so, whatever the case; one of several names between commas will do."""
    wanted = name.strip().casefold()
    return any(
        wanted == label.casefold() or wanted in (part.strip().casefold() for part in label.split(","))
        for label in labels or ()
    )


def find_label(name: str, labels: tuple[str, ...] | None) -> int:
    """The class of a label, whatever its case; one of several names between commas will do. GBP408."""
    if labels is None:
        raise InputError(
            "GBP408",
            f"the model has no labels, so {name!r} cannot be found",
            "target",
            "pass labels=..., or a class index",
        )
    wanted = name.strip().casefold()
    exact = [k for k, label in enumerate(labels) if label.casefold() == wanted]
    loose = exact or [
        k for k, label in enumerate(labels) if wanted in (part.strip().casefold() for part in label.split(","))
    ]
    if len(loose) == 1:
        return loose[0]
    if loose:
        raise InputError(
            "GBP408",
            f"{name!r} names {len(loose)} classes: {', '.join(map(str, loose))}",
            "target",
            "pass the class index",
        )
    by_fold = {label.casefold(): label for label in labels}
    near = [f for f in by_fold if wanted in f][:3] or difflib.get_close_matches(wanted, by_fold, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(repr(by_fold[n]) for n in near)}?" if near else "pass the class index"
    raise InputError("GBP408", f"no label {name!r}", "target", hint)


def _from_lines(text: str) -> tuple[str, ...]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    numbered = [_NUMBERED.match(line) for line in lines]
    pairs = [(int(m.group(1)), m.group(2).strip(" '\"")) for m in numbered if m]
    if len(pairs) == len(lines) and sorted(k for k, _ in pairs) == list(range(len(lines))):
        return tuple(label for _, label in sorted(pairs))
    return tuple(_SYNSET.sub("", line) for line in lines)


def _parsed(text: str) -> Any:
    """JSON, or the Python literal that class lists are often passed on as."""
    try:
        return json.loads(text)
    except ValueError as error:
        try:
            return ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise error from None


def _from_json(text: str, where: str) -> tuple[str, ...]:
    try:
        data = _parsed(text)
        if isinstance(data, dict) and isinstance(data.get("id2label"), dict):
            data = data["id2label"]  # a Hugging Face config.json
        if isinstance(data, dict):
            order = sorted((int(k), v) for k, v in data.items())
            if [k for k, _ in order] != list(range(len(order))):
                raise ValueError("the indices are not 0, 1, 2...")
            data = [v[-1] if isinstance(v, list) else v for _, v in order]  # Keras: {"0": ["n01440764", "tench"]}
        if not isinstance(data, list) or not all(isinstance(label, str) for label in data):
            raise ValueError("not a list of strings")
    except ValueError as error:
        raise InputError(
            "GBP408", f"the labels are not usable JSON ({error})", where, 'write ["first", "second"] or {"0": "first"}'
        ) from error
    return tuple(data)
