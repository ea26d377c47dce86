"""An audit's configuration: TOML read into settings, with errors that name the line."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from gbp_onnx.auditing.checks import CHECKS
from gbp_onnx.auditing.settings import (
    CheckSettings,
    flag,
    names,
    number,
    read_field,
    text,
    text_or,
    whole,
)
from gbp_onnx.auditing.toml_lines import line_of, lines_of
from gbp_onnx.errors import AuditError
from gbp_onnx.pipeline import workers_beside
from gbp_onnx.rules import RULES
from gbp_onnx.runtime.providers import CPU

__all__ = ["BaselineSection", "Config", "ImagesSection", "ModelSection", "RunSection", "read_config"]

VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSection:
    """``[model]``: what is audited."""

    path: str | None = text(None, "the model, an .onnx file; paths are relative to this file")
    preprocess: Any = text_or(
        None, "how photographs become its input; without it: as the model's metadata say", (str, dict), "a preset"
    )
    labels: str | None = text(None, "a file of class labels; without it: the model's metadata")
    output: str | None = text(None, "the output to explain; without it: the first behind a Softmax or Sigmoid")
    wrt: str | None = text(None, "the image input; without it: the first of rank 3 or more")
    explain: str = text("logit", "logit: the value in front of the head; output: as it is", ("logit", "output"))
    rectify: tuple[str, ...] = names((), "also gate these activations", ("leaky", "smooth"))
    providers: str = text("auto", "where to run", ("auto", "cpu", "cuda"))


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineSection:
    """``[baseline]``: what the model is compared with, a model or stored maps."""

    model: str | None = text(None, "the model to compare with, an .onnx file")
    maps: str | None = text(None, "a folder of stored maps, written by --update-baseline")
    preprocess: Any = text_or(
        None, "how photographs become its input; without it: as for [model]", (str, dict), "a preset"
    )
    output: str | None = text(None, "the output to explain; without it: as for any model")
    wrt: str | None = text(None, "the image input")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagesSection:
    """``[images]``: what the model is audited on. One of `folder`, `list`, `table`, `coco`."""

    folder: str | None = text(None, "a folder; its images, in order of their names")
    recursive: bool = flag(False, "also the folders inside it")
    list: str | None = text(None, "a text file with one path a line")
    table: str | None = text(None, "a CSV or Parquet file with paths, and perhaps labels and boxes")
    coco: str | None = text(None, "a COCO file (instances), with boxes and masks")
    root: str | None = text(None, "the folder that paths in the list, table or COCO file are relative to")
    path_column: str = text("path", "the table's column of paths")
    label_column: str = text("label", "the table's column of labels (class index or name); may be missing")
    boxes: str | None = text(None, "annotations: a folder of VOC XML files, or a CSV (path, left, top, right, bottom)")
    masks: str | None = text(None, "annotations: a folder of masks with the images' names (white is the object)")
    limit: int = whole(0, "look at so many images only, evenly spread; 0: all")
    severity: str = text("gate", "whether an image that cannot be read fails the run", ("gate", "report"))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSection:
    """``[run]``: how the audit runs."""

    target: Any = text_or(
        "top1",
        'what is explained: "top1" (of the baseline, where there is one), "label", or a class',
        (str, int),
        "a class",
    )
    time_budget: float = number(0.0, "stop after so many seconds; a second run goes on from there; 0: no limit", 0.0)
    state: str = text(".gbp-audit", "the folder for the results of finished images, until the run is complete")
    seed: int = whole(0, "of everything random")
    workers: int = whole(0, "images that are looked at at the same time; 0: one for each processor, at most 8", 0, 64)


@dataclass(frozen=True, slots=True)
class Config:
    """A whole configuration. `where`: the file; `folder`: what paths are relative to; `lines`: where things stand."""

    where: str
    folder: Path
    model: ModelSection
    baseline: BaselineSection
    images: ImagesSection
    run: RunSection
    checks: Mapping[str, CheckSettings]
    lines: Mapping[tuple[str, ...], int]

    def place(self, path: str) -> Path:
        """A path of the configuration as one that can be opened."""
        return self.folder / Path(path).expanduser()

    def workers(self, providers: Sequence[str]) -> int:
        """How many images are looked at at the same time: on a GPU, two keep it busy."""
        return self.run.workers or (workers_beside(1, on_cpu=True) if providers[0] == CPU else 2)

    def error(self, code: str, what: str, *path: str, fix: str = "") -> AuditError:
        """An error that names the file and the line of a setting."""
        return AuditError(code, what, _at(self.where, line_of(dict(self.lines), path)), fix)


SECTIONS = {"model": ModelSection, "baseline": BaselineSection, "images": ImagesSection, "run": RunSection}

Section = TypeVar("Section")


def read_config(source: str | os.PathLike[str] | Mapping[str, Any]) -> Config:
    """The configuration in a TOML file, or in a mapping of the same form (paths are relative to the current folder).

    Raises GBP501 (the file, its TOML) and GBP502 (a setting), with the line.
    """
    if isinstance(source, Mapping):
        return _config(source, "<configuration>", Path(), {})
    path = Path(source)
    try:
        content = path.read_text(encoding="utf-8-sig")
        values = tomllib.loads(content)
    except (OSError, UnicodeDecodeError) as error:
        why = "no such file" if isinstance(error, FileNotFoundError) else getattr(error, "strerror", None) or str(error)
        fix = "write one: gbp-onnx audit --init MODEL --images FOLDER -o audit.toml"
        raise AuditError("GBP501", f"cannot read the configuration ({why})", str(path), fix) from error
    except tomllib.TOMLDecodeError as error:
        place = _at(str(path), _syntax_line(str(error), content))
        raise AuditError("GBP501", f"not valid TOML ({error})", place, "see https://toml.io") from error
    return _config(values, str(path), path.parent, lines_of(content))


def _syntax_line(message: str, content: str) -> int | None:
    words = message.rpartition("at line ")[2].split(",")[0]
    return int(words) if words.isdigit() else len(content.splitlines()) or None


def _at(where: str, line: int | None) -> str:
    return where if line is None else f"{where}:{line}"


def _config(values: Mapping[str, Any], where: str, folder: Path, lines: dict[tuple[str, ...], int]) -> Config:
    def refuse(what: str, *path: str, fix: str = "") -> AuditError:
        return AuditError("GBP502", what, _at(where, line_of(lines, path)), fix)

    def section(kind: type[Section], table: Any, *path: str) -> Section:
        if not isinstance(table, Mapping):
            raise refuse(f"{'.'.join(path)} is a table: write [{'.'.join(path)}]", *path)
        known = {entry.name: entry for entry in fields(kind)}  # type: ignore[arg-type]
        found = {}
        for key, value in table.items():
            if key not in known:
                raise refuse(f"[{'.'.join(path)}] has no setting {key!r}", *path, key, fix=_nearest(key, known))
            try:
                found[key] = read_field(known[key], value)
            except ValueError as error:
                raise refuse(f"{key} cannot be {_shown(value)}: {error}", *path, key) from error
        return kind(**found)

    for key in values:
        if key not in (*SECTIONS, "version", "checks"):
            raise refuse(f"there is no table [{key}]", key, fix=_nearest(key, (*SECTIONS, "checks")))
    if values.get("version", VERSION) != VERSION:
        raise refuse(f"version is {_shown(values['version'])}, this program reads {VERSION}", "version")
    made: dict[str, Any] = {key: section(kind, values.get(key, {}), key) for key, kind in SECTIONS.items()}
    tables = values.get("checks", {})
    if not isinstance(tables, Mapping):
        raise refuse("checks are tables: write [checks.coverage]", "checks")
    checks = {}
    for name in tables:
        if name not in CHECKS:
            raise refuse(f"there is no check {name!r}", "checks", name, fix=_nearest(name, CHECKS))
    for name, check in CHECKS.items():
        if name in tables:
            settings = section(check.settings, tables[name], "checks", name)
            if settings.enabled:
                checks[name] = settings
    config = Config(where, folder, made["model"], made["baseline"], made["images"], made["run"], checks, lines)
    _check_whole(config)
    return config


def _check_whole(config: Config) -> None:
    """What no single setting can say."""
    if config.model.path is None:
        raise config.error("GBP502", "no model is named", "model", fix='write path = "model.onnx" under [model]')
    sources = [key for key in ("folder", "list", "table", "coco") if getattr(config.images, key) is not None]
    if len(sources) != 1:
        said = "no images are named" if not sources else f"images come from one place, not from {' and '.join(sources)}"
        raise config.error(
            "GBP502", said, "images", fix='write folder = "photos" (or list, table, coco) under [images]'
        )
    if not config.checks:
        raise config.error("GBP502", "no check is switched on", "checks", fix="write [checks.coverage], for instance")
    if config.baseline.model is not None and config.baseline.maps is not None:
        fix = "keep the one to compare with"
        raise config.error("GBP502", "the baseline is a model or stored maps, not both", "baseline", fix=fix)
    if "drift" in config.checks and config.baseline.model is None and config.baseline.maps is None:
        fix = 'write model = "other.onnx" or maps = "baseline" under [baseline], or leave the check out'
        raise config.error("GBP502", "drift needs a baseline", "checks", "drift", fix=fix)
    target = config.run.target
    if isinstance(target, int) and target < 0:
        raise config.error("GBP502", f"target cannot be {target}", "run", "target", fix="a class index starts at 0")
    for name, settings in config.checks.items():
        unknown = [rule for rule in getattr(settings, "rules", ()) if rule not in RULES]
        if unknown:
            what = f"{unknown[0]!r} is no rule"
            raise config.error("GBP502", what, "checks", name, "rules", fix=f"choose from {', '.join(RULES)}")


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def _nearest(name: str, known: Any) -> str:
    near = difflib.get_close_matches(str(name), list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
