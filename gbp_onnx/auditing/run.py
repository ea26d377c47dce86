"""An audit from its configuration to its report."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from gbp_onnx.auditing.baseline import INDEX, ModelBaseline, StoredBaseline, store_maps
from gbp_onnx.auditing.case import Baseline, Case, Lab
from gbp_onnx.auditing.check import Check, Measured, NotApplicable
from gbp_onnx.auditing.checks import CHECKS
from gbp_onnx.auditing.config import Config
from gbp_onnx.auditing.images import find_images
from gbp_onnx.auditing.item import Item, spread
from gbp_onnx.auditing.outcome import ImageResult, report_of, unexplainable
from gbp_onnx.auditing.settings import CheckSettings
from gbp_onnx.auditing.store import Store
from gbp_onnx.auditing.subject import Subject
from gbp_onnx.errors import InputError, OperatorError, RuntimeFailure
from gbp_onnx.imaging.regions import thumbnail
from gbp_onnx.imaging.render import render
from gbp_onnx.pipeline import in_order
from gbp_onnx.report.record import AuditReport
from gbp_onnx.runtime.providers import CPU, choose_providers, runtime_version
from gbp_onnx.version import package_version

__all__ = ["Progress", "run_audit", "update_baseline"]

Progress = Callable[[int, int, str], None]
"""Called with (images done, images in all, what was done last)."""

THUMBNAIL = 176  # pixels: the longer side of a picture in the page


def run_audit(
    config: Config, *, pictures: bool = False, fresh: bool = False, progress: Progress | None = None
) -> tuple[AuditReport, Callable[[], None]]:
    """Run an audit, or go on with one that was stopped. The report, and what forgets the kept results once the report
    is written.

    `pictures`: keep small pictures of images and maps for the page. `fresh`: forget what an earlier run has kept.
    """
    started = time.monotonic()
    items = find_images(config)
    try:
        subject = _subject(config)
    except OperatorError as error:
        return unexplainable(config, error, len(items)), _nothing
    baseline = _baseline(config, subject)
    lab = Lab(config, subject, baseline, items)
    facts = _facts(config, subject, baseline)
    store = Store(config.place(config.run.state), _key(facts, config, pictures))
    if fresh:
        store.clear()
        store = Store(config.place(config.run.state), _key(facts, config, pictures))
    try:
        work = _Work(lab, store, pictures, started)
        before = work.of_model(after=False)
        images = list(work.of_images(progress))
        complete = len(images) == len(items)
        behind = work.of_model(after=True) if complete else None
        complete = before is not None and behind is not None
        report = report_of(config, facts, {**(before or {}), **(behind or {})}, images, len(items), complete)
    finally:
        store.close()
    keys = {result.item.name: result.key for result in images}
    report = replace(report, picture=lambda image, kind: store.picture(keys.get(image, ""), kind))
    return report, store.clear if complete else _nothing


def update_baseline(config: Config, progress: Progress | None = None) -> tuple[Path, int, list[str]]:
    """Store the model's maps as the baseline: the folder, the number of images, and what could not be read."""
    if config.baseline.maps is None:
        fix = 'write maps = "baseline" under [baseline]'
        raise config.error("GBP504", "no folder for the maps is named", "baseline", fix=fix)
    items, subject = find_images(config), _subject(config)
    rules = tuple(getattr(config.checks.get("drift"), "rules", ("guided",)))
    lab, bad = Lab(config, subject, None, items), list[str]()

    def explained(item: Item) -> Case | str:
        case = lab.case(item)
        try:
            _ = case.run, case.digest
        except (InputError, RuntimeFailure) as error:
            return f"{item.name}: {error}"
        return case

    def readable(cases: Iterator[Case | str]) -> Iterator[Case]:
        for count, (item, case) in enumerate(zip(items, cases, strict=True), start=1):
            if isinstance(case, Case):
                yield case
            else:
                bad.append(case)
            if progress is not None:
                progress(count, len(items), item.name)

    folder = config.place(config.baseline.maps)
    with closing(in_order(explained, items, config.workers(subject.providers))) as cases:
        return folder, store_maps(folder, readable(cases), rules, subject), bad


def _nothing() -> None:
    """There is nothing to forget."""


# --- what is audited ----------------------------------------------------------------------------------------------


def _subject(config: Config) -> Subject:
    section = config.model
    rules = dict.fromkeys(r for n, s in config.checks.items() for r in (*CHECKS[n].rules, *getattr(s, "rules", ())))
    path = config.place(str(section.path))
    options = {"output": section.output, "wrt": section.wrt, "explain": section.explain, "rectify": section.rectify}
    return Subject(
        path,
        tuple(rules) or ("guided",),
        choose_providers(section.providers),
        preprocess=_preprocess(config, section.preprocess),
        labels=None if section.labels is None else config.place(section.labels),
        options=options,
        threads=_threads(config),
        where=str(path),
    )


def _threads(config: Config) -> int:
    """Several images at a time, each on one thread, is faster than one image on several threads."""
    return 1 if config.workers((CPU,)) > 1 else 0


def _preprocess(config: Config, value: Any) -> Any:
    """A preset, fields, or a .json file beside the configuration."""
    return str(config.place(value)) if isinstance(value, str) and value.lower().endswith(".json") else value


def _baseline(config: Config, subject: Subject) -> Baseline | None:
    section, drift = config.baseline, config.checks.get("drift")
    if drift is None:
        return None
    if section.maps is not None:
        return StoredBaseline(config.place(section.maps))
    path = config.place(str(section.model))
    options = {"output": section.output, "wrt": section.wrt, "explain": config.model.explain}
    given = _preprocess(config, section.preprocess)
    rules = getattr(drift, "rules", ("guided",))
    other = Subject(
        path, rules, subject.choice, preprocess=given, options=options, threads=_threads(config), where=str(path)
    )
    if given is None and other.guessed:
        other.preprocess = subject.preprocess
    if other.fitted.size != subject.fitted.size:
        what = f"it sees {other.fitted.size} pixels, the model {subject.fitted.size}: maps cannot be compared"
        raise config.error("GBP504", what, "baseline", "model")
    counts = [one.runner.classes for one in (subject, other)]
    if None not in counts and counts[0] != counts[1]:
        what = f"its output has {counts[1]} values, the model's {counts[0]}: classes cannot be matched"
        raise config.error("GBP504", what, "baseline", "model")
    return ModelBaseline(other)


def _facts(config: Config, subject: Subject, baseline: Baseline | None) -> dict[str, Any]:
    """What the report says of model, baseline and program."""
    past: dict[str, Any] | None = None
    if isinstance(baseline, ModelBaseline):
        past = {"path": str(config.baseline.model), "sha256": baseline.subject.sha256}
    elif isinstance(baseline, StoredBaseline):
        index = (baseline.folder / INDEX).read_bytes()
        past = {"path": str(config.baseline.maps), "sha256": hashlib.sha256(index).hexdigest()}
    return {
        "model": {
            "path": str(config.model.path),
            "sha256": subject.sha256,
            "output": subject.runner.output,
            "explained": subject.props["gbp.explained"],
            "head": subject.head,
            "rules": list(subject.rules),
            "preprocess": subject.fitted.to_dict(),
            "providers": list(subject.runner.providers),
        },
        "baseline": past,
        "versions": {"gbp-onnx": package_version(), "onnxruntime": runtime_version()},
    }


def _key(facts: Mapping[str, Any], config: Config, pictures: bool) -> str:
    """A name for everything that measurements depend on. Thresholds are no part of it: they may change on the way."""
    measuring = {
        name: {
            entry.name: getattr(settings, entry.name)
            for entry in fields(settings)
            if entry.name.partition("_")[0] not in ("min", "max", "severity")
        }
        for name, settings in config.checks.items()
    }
    known = [facts, measuring, config.run.target, config.run.seed, pictures]
    return hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest()[:16]


# --- the work -----------------------------------------------------------------------------------------------------


Looked = tuple[dict[str, Any], dict[str, bytes]]
"""The result of an image, and its pictures."""


class _Work:
    """What is left to do, and what is known already."""

    def __init__(self, lab: Lab, store: Store, pictures: bool, started: float) -> None:
        self._lab, self._store, self._pictures = lab, store, pictures
        budget = lab.config.run.time_budget
        self._until = started + budget if budget else math.inf
        self._samples = {
            name: {item.name for item in spread(lab.items, settings.images)}
            for name, settings in lab.config.checks.items()
        }

    def of_model(self, after: bool) -> dict[str, list[Mapping[str, Any]]] | None:
        """The results of the checks on the model as a whole; None where the time is over."""
        found: dict[str, list[Mapping[str, Any]]] = {}
        for name, settings in self._lab.config.checks.items():
            check = CHECKS[name]
            if check.model is None or check.after != after:
                continue
            known = self._store.get(f"model-{name}")
            if known is None:
                if time.monotonic() > self._until:
                    return None
                known = {"results": list(self._whole(check, settings))}
                self._store.put(f"model-{name}", known, {})
            found[name] = known["results"]
        return found

    def _whole(self, check: Check, settings: CheckSettings) -> Iterator[Mapping[str, Any]]:
        assert check.model is not None
        try:
            for measured in check.model(self._lab, settings):
                yield _plain(measured)
        except NotApplicable as error:
            yield {"skip": str(error)}

    def of_images(self, progress: Progress | None) -> Iterator[ImageResult]:
        """The results of the images, in order, until the time is over."""
        items, workers = self._lab.items, self._lab.config.workers(self._lab.subject.providers)
        with closing(in_order(self._found, items, workers)) as results:
            for count, (item, found) in enumerate(zip(items, results, strict=True), start=1):
                if found is None:
                    return
                key, looked = found
                if looked is not None:
                    self._store.put(key, *looked)
                yield ImageResult(item, key, self._store.get(key))
                if progress is not None:
                    progress(count, len(items), item.name)

    def _found(self, item: Item) -> tuple[str, Looked | None] | None:
        """An image's name, and what is not known about it yet; None where there is no time to look."""
        key = self._name(item)
        if self._store.get(key) is not None:
            return key, None
        return None if time.monotonic() > self._until else (key, self._look(item))

    def _name(self, item: Item) -> str:
        """A name for an image: its content, its place and what is said about it."""
        digest = hashlib.sha256(repr((item.name, item.label, item.annotation)).encode())
        with suppress(OSError):
            digest.update(item.path.read_bytes())
        return digest.hexdigest()[:24]

    def _look(self, item: Item) -> Looked:
        """Everything about one image."""
        case = self._lab.case(item)
        try:
            run = case.run
        except (InputError, RuntimeFailure) as error:
            return {"error": _said(error)}, {}
        labels = case.subject.labels(run.values.size)
        shares = case.subject.probabilities(run.values)
        top = int(shares.argmax())
        row = {
            "predicted": str(top) if labels is None else labels[top],
            "explained": str(run.target) if labels is None else labels[run.target],
            "score": _number(float(shares[top])),
        }
        checks = {
            name: self._measure(CHECKS[name], settings, case)
            for name, settings in self._lab.config.checks.items()
            if CHECKS[name].image is not None and item.name in self._samples[name]
        }
        return {"row": row, "checks": checks}, dict(self._draw(case)) if self._pictures else {}

    def _measure(self, check: Check, settings: CheckSettings, case: Case) -> Mapping[str, Any]:
        assert check.image is not None
        try:
            return _plain(check.image(case, settings))
        except NotApplicable as error:
            return {"skip": str(error)}
        except (InputError, RuntimeFailure) as error:
            return {"error": _said(error)}

    def _draw(self, case: Case) -> Iterator[tuple[str, bytes]]:
        rule = next(iter(getattr(self._lab.config.checks.get("drift"), "rules", ())), case.subject.rules[0])
        yield "photo", thumbnail(case.frame.image, THUMBNAIL)
        yield "map", thumbnail(render(case.run.maps[rule]), THUMBNAIL)
        if case.past is not None and rule in case.past.maps:
            yield "baseline", thumbnail(render(case.past.maps[rule]), THUMBNAIL)


def _plain(measured: Measured) -> dict[str, Any]:
    """A measurement as JSON can hold it, empty parts left out."""
    values = {name: value if isinstance(value, bool) else _number(value) for name, value in measured.values.items()}
    parts = {"values": values, "notes": dict(measured.notes), "failure": measured.failure, "about": measured.about}
    return {key: part for key, part in parts.items() if part}


def _number(value: float | None) -> float | None:
    """Eight digits of a number; None for what is none."""
    return float(f"{value:.8g}") if value is not None and math.isfinite(value) else None


def _said(error: InputError | RuntimeFailure) -> str:
    """What is wrong with an image. Raises again what is wrong with all of them: a package that is missing."""
    if error.code == "GBP412":
        raise error
    return f"{error.code}: {error.what}"
