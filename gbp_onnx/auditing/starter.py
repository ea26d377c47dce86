"""A first configuration: commented, and running as it is."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from gbp_onnx.auditing.check import Check
from gbp_onnx.auditing.checks import CHECKS
from gbp_onnx.auditing.config import BaselineSection, ImagesSection, ModelSection, RunSection
from gbp_onnx.auditing.settings import about
from gbp_onnx.errors import AuditError, GbpError
from gbp_onnx.files import write_whole
from gbp_onnx.graph.files import load_model
from gbp_onnx.imaging.preprocess import default_preprocess, from_metadata
from gbp_onnx.imaging.suffixes import IMAGE_SUFFIXES
from gbp_onnx.inspection import inspect

__all__ = ["write_starter"]


def write_starter(model: str, images: str, baseline: str | None, out: str) -> list[str]:
    """Write the configuration, and return what the user should know. Nothing is fitted to the model or the baseline.

    Raises GBP503 (no images there), GBP1xx and GBP2xx are left to the run.
    """
    folder = Path(images)
    if not folder.is_dir():
        raise AuditError("GBP503", "there is no such folder", images, "name a folder of images")
    if not any(p.suffix.lower() in IMAGE_SUFFIXES for p in folder.iterdir()):
        raise AuditError("GBP503", "the folder holds no images", images, f"known suffixes: {' '.join(IMAGE_SUFFIXES)}")
    for path in filter(None, (model, baseline)):
        load_model(path)
    preprocess, said = _preprocess(model)
    notes = [said] if said else []
    home = Path(out).resolve().parent

    def place(path: str) -> str:
        try:
            relative = os.path.relpath(Path(path).resolve(), home)
        except ValueError:  # another drive
            return str(Path(path).resolve())
        return Path(relative).as_posix()

    given: dict[str, dict[str, Any]] = {
        "model": {"path": place(model)} | ({"preprocess": preprocess} if preprocess else {}),
        "baseline": {"model": place(baseline)} if baseline is not None else {},
        "images": {"folder": place(images)},
        "run": {},
    }
    with write_whole(out) as temporary:
        temporary.write_text("\n".join(_lines(given, out, baseline is not None)) + "\n", encoding="utf-8")
    return notes


def _preprocess(model: str) -> tuple[str, str]:
    """The guess that the file should name openly, and what is said about it; empty where the model says it itself."""
    loaded = load_model(model)
    if from_metadata({e.key: e.value for e in loaded.metadata_props}) is not None:
        return "", ""
    kind = "float32"
    try:
        kind = str(inspect(loaded).inputs[0]["type"]).replace("float", "float32") if loaded.graph.input else kind
    except GbpError:  # the run says it
        return "", ""
    guess = default_preprocess("float32" if "float" in kind else kind).name
    return guess, f'the model does not say how it wants its input: preprocess = "{guess}" is a guess, check it'


def _lines(given: dict[str, dict[str, Any]], out: str, compared: bool) -> Iterator[str]:
    yield "# What is checked, on which images, and what fails."
    yield f"#   gbp-onnx audit {Path(out).name} --html audit.html"
    yield "# Paths are relative to this file. A line behind # shows a setting that is not set, or its default."
    yield "# Thresholds: min_ and max_ hold for each image, min_mean_ and max_mean_ for the mean; false is none."
    yield ""
    yield "version = 1"
    sections = {"model": ModelSection, "baseline": BaselineSection, "images": ImagesSection, "run": RunSection}
    for name, kind in sections.items():
        yield ""
        yield f"[{name}]" if given[name] or name != "baseline" else "# [baseline]  # what drift compares with"
        for entry in fields(kind):
            value = given[name].get(entry.name)
            yield _line(entry.name, entry.default if value is None else value, about(entry), value is not None)
    for check in CHECKS.values():
        yield ""
        yield from _check(check, compared)


def _check(check: Check, compared: bool) -> Iterator[str]:
    on = check.needs == "" or (check.needs == "baseline" and compared)
    mark = "" if on else "# "
    yield f"# {check.code} {check.title}"
    yield from (f"# {line}" for line in _wrapped(check.meaning))
    if check.paper:
        yield from (f"# {line}" for line in _wrapped(check.paper))
    if not on:
        yield f"# Off: it needs {'a [baseline]' if check.needs == 'baseline' else 'boxes or masks under [images]'}."
    yield f"{mark}[checks.{check.name}]"
    for entry in fields(check.settings):
        if entry.metadata["shown"]:
            yield _line(entry.name, entry.default, about(entry), on and entry.default not in (None, ()))


def _line(name: str, value: Any, words: str, active: bool) -> str:
    text = f"{'' if active else '# '}{name} = {_toml(value)}"
    return f"{text:<34}  # {words}" if words else text


def _toml(value: Any) -> str:
    if value is None:
        return '"..."'
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _wrapped(text: str, width: int = 116) -> list[str]:
    import textwrap

    return textwrap.wrap(text, width)
