"""Two forms of one model (float and int8, before and after an optimiser), explained side by side and measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gbp_onnx.errors import InputError
from gbp_onnx.explainer import Explainer
from gbp_onnx.explanation import TITLES, Explanation
from gbp_onnx.graph.files import ModelSource
from gbp_onnx.imaging.preprocess import default_preprocess
from gbp_onnx.labels import labels_for
from gbp_onnx.metrics import METRICS, check_packages, measure
from gbp_onnx.pipeline import in_order, shared_out
from gbp_onnx.rules import RULES
from gbp_onnx.runtime.providers import Providers
from gbp_onnx.seeds import Target

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Comparison", "Pair", "compare"]

Values = dict[str, float | None]
"""A value for each metric; None where it has none."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One image under both models.

    `a`, `b`: the explanations of the same class, `b`'s index being `classes[1]`. `metrics`: {rule: {metric: value}}.
    `frame`: "model" where both saw the same pixels, so that the maps are compared as they are, else "photograph".
    """

    image: str
    a: Explanation
    b: Explanation
    same_top1: bool
    top5_overlap: float
    metrics: dict[str, Values]
    frame: str
    maps: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = field(repr=False)
    """{rule: the two maps that were compared, float64 [H, W, C], per grey level of the photograph}"""

    def figure(self, names: tuple[str, str], **options: Any) -> Image.Image:
        """Both models' maps, one row for each model. `options`: style, percentile, colormap (`imaging.render`)."""
        from gbp_onnx.imaging.figure import four_panels, stack
        from gbp_onnx.imaging.render import render

        rows = []
        for side, (one, name) in enumerate(zip((self.a, self.b), names, strict=True)):
            drawn = [
                (self._title(rule, side), render(self.maps[rule][side].astype(np.float32), **options))
                for rule in TITLES
                if rule in self.maps
            ]
            footer = None if side == 0 else f"{Path(self.image).name}, compared in the frame of the {self.frame}"
            rows.append(four_panels([("Photograph", one.image), *drawn], f"{name}: {one.heading}", footer))
        return stack(rows)

    def _title(self, rule: str, side: int) -> str:
        value = self.metrics[rule]["cosine"]
        return TITLES[rule] if side == 0 or value is None else f"{TITLES[rule]}, cosine {value:.4f}"

    def to_dict(self) -> dict[str, Any]:
        """The numbers as plain JSON values."""
        scores = [e.score if e.score is not None and isfinite(e.score) else None for e in (self.a, self.b)]
        change = None if scores[0] is None or scores[1] is None else scores[1] - scores[0]
        return {
            "image": self.image,
            "target": {"a": self.a.target, "b": self.b.target, "label": self.a.label or self.b.label},
            "score": {"a": scores[0], "b": scores[1], "difference": change},
            "top1": {"a": self.a.predictions[0].index, "b": self.b.predictions[0].index, "same": self.same_top1},
            "top5_overlap": self.top5_overlap,
            "metrics": self.metrics,
            "frame": self.frame,
            "warnings": {"a": list(self.a.warnings), "b": list(self.b.warnings)},
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models over several images. `notes`: what was done to make them comparable."""

    models: tuple[str, str]
    pairs: tuple[Pair, ...]
    notes: tuple[str, ...]

    @property
    def rules(self) -> tuple[str, ...]:
        """The rules that both models were explained under."""
        return tuple(self.pairs[0].metrics)

    @property
    def mean(self) -> dict[str, Values]:
        """{rule: {metric: mean over the images in which it has a value}}."""
        return {
            rule: {
                name: _mean([pair.metrics[rule][name] for pair in self.pairs if pair.metrics[rule][name] is not None])
                for name in METRICS
            }
            for rule in self.rules
        }

    @property
    def undefined(self) -> int:
        """How many values there are not, because a map is degenerate."""
        return sum(
            value is None for pair in self.pairs for values in pair.metrics.values() for value in values.values()
        )

    @property
    def agreement(self) -> dict[str, float]:
        """The share of images with the same best class; the mean overlap of the five best; the mean |score change|."""
        changes = [abs(c) for p in self.pairs if (c := p.to_dict()["score"]["difference"]) is not None]
        return {
            "top1": fmean(pair.same_top1 for pair in self.pairs),
            "top5_overlap": fmean(pair.top5_overlap for pair in self.pairs),
            "score_difference": fmean(changes) if changes else 0.0,
        }

    def failures(self, minimums: Mapping[str, float]) -> list[str]:
        """What lies below a minimum, in words; no value counts as below.

        `minimums`: for metrics (the mean, for each rule), and "agreement" (of the best class).
        """
        found = []
        for name, least in minimums.items():
            if name == "agreement":
                if self.agreement["top1"] < least:
                    found.append(f"top-1 agreement is {self.agreement['top1']:.4f}, less than {least:g}")
                continue
            for rule, values in self.mean.items():
                value = values[name]
                if value is None or value < least:
                    has = "has no value" if value is None else f"is {value:.4f}"
                    found.append(f"{rule}: mean {METRICS[name].title} {has}, less than {least:g}")
        return found

    def to_dict(self) -> dict[str, Any]:
        """The numbers as plain JSON values."""
        return {
            "models": {"a": self.models[0], "b": self.models[1]},
            "agreement": self.agreement,
            "mean": self.mean,
            "undefined": self.undefined,
            "notes": list(self.notes),
            "images": [pair.to_dict() for pair in self.pairs],
        }


def compare(
    a: ModelSource | Explainer,
    b: ModelSource | Explainer,
    images: Sequence[Any],
    rules: Sequence[str] | str | None = None,
    *,
    target: Target = "top1",
    preprocess: Any = None,
    preprocess_b: Any = None,
    labels: Any = None,
    labels_b: Any = None,
    providers: Providers = "auto",
) -> Comparison:
    """Explain `images` with both models, for the same class, and measure how alike the maps are.

    `a`, `b`: models as for `Explainer`, or explainers. `images`: as for `Explainer.explain`. `target`: as there, but
    one for all and no seed; "top1" is the best class of `a`. `preprocess`, `labels`: for both models, unless
    `preprocess_b`, `labels_b` say otherwise for `b`. An input of integers takes its own default where `preprocess` does
    not fit it.

    Where both models see the same pixels, the maps are compared as they are; else on the photograph, in the part that
    both see. Both are per grey level of the photograph. Classes are matched by label where both have labels, else by
    index, one further where one model has a background class in front.

    Raises what `Explainer` raises, GBP407 (no common classes), GBP412 (SciPy or scikit-image is missing).
    """
    check_packages()
    chosen = tuple(RULES) if rules is None else rules
    notes: list[str] = []
    threads = shared_out(len(images))[1]
    first = _explainer(a, chosen, providers, preprocess, labels, threads)
    second = _explainer(
        b,
        chosen,
        providers,
        preprocess if preprocess_b is None else preprocess_b,
        labels if labels_b is None else labels_b,
        threads,
    )
    whole = second.dtype.kind in "iu" and first.dtype.kind == "f"
    if second is not b and whole and preprocess is not None and preprocess_b is None:
        second.preprocess = default_preprocess(second.dtype)
        notes.append(f"{second.where}: takes integers, so its preprocessing is {second.preprocess.name!r}")
    common = [rule for rule in first.rules if rule in second.rules]
    if not common:
        raise InputError("GBP410", "the two models have no rule in common", "rules", "build them with the same rules")
    classes, said = _matched(first, second)
    workers = min(len(images), first.workers, second.workers)
    pairs = tuple(in_order(lambda image: _pair(first, second, image, target, common, classes), images, workers))
    if not pairs:
        raise InputError("GBP401", "there is no image to compare with", "images", "name one or more")
    if any(pair.frame == "photograph" for pair in pairs):
        said.append("the models see different pixels: maps are compared on the photograph, where both look")
    return Comparison((first.where, second.where), pairs, (*notes, *said))


def _explainer(
    model: ModelSource | Explainer,
    rules: Sequence[str] | str,
    providers: Providers,
    preprocess: Any,
    labels: Any,
    threads: int,
) -> Explainer:
    if isinstance(model, Explainer):
        return model
    return Explainer(model, rules, providers=providers, preprocess=preprocess, labels=labels, threads=threads)


class _Identity(dict[int, int]):
    def __missing__(self, key: int) -> int:
        return key


def _matched(a: Explainer, b: Explainer) -> tuple[Mapping[int, int], list[str]]:
    """The class of `b` for each class of `a`, and what should be said about it."""
    sizes = a.classes, b.classes
    names = [None if n is None else labels_for(e.labels, n) for e, n in zip((a, b), sizes, strict=True)]
    if names[0] is not None and names[1] is not None and names[0] != names[1]:
        places = {_first_name(label): k for k, label in enumerate(names[1])}
        found = {k: places[_first_name(n)] for k, n in enumerate(names[0]) if _first_name(n) in places}
        if len(found) > len(names[0]) / 2:
            return found, [f"{len(found)} of {len(names[0])} classes are matched by their labels"]
    if None in sizes or sizes[0] == sizes[1]:
        return _Identity(), []
    assert sizes[0] is not None and sizes[1] is not None
    shift = sizes[1] - sizes[0]
    if abs(shift) != 1:
        what = f"the models' outputs have {sizes[0]} and {sizes[1]} values for each image"
        raise InputError("GBP407", what, "classes", "compare forms of one model, or give both their labels")
    more = "second" if shift == 1 else "first"
    said = f"the {more} model has one class more, taken for a background class in front"
    return {k: k + shift for k in range(sizes[0]) if k + shift >= 0}, [said]


def _first_name(label: str) -> str:
    return label.split(",")[0].strip().casefold()


def _pair(
    a: Explainer, b: Explainer, image: Any, target: Target, rules: Sequence[str], classes: Mapping[int, int]
) -> Pair:
    one = a.explain(image, target)
    if not isinstance(one, Explanation) or one.target is None:
        raise InputError("GBP407", "a comparison is about one class", "target", "pass a class index, a label or top1")
    other: Target = one.target
    if isinstance(one.target, int):
        if one.target not in classes and not isinstance(classes, _Identity):
            what = f"class {one.target} ({one.name}) of the first model has no counterpart in the second"
            raise InputError("GBP407", what, "target", "choose another class")
        other = classes[one.target]
    two = b.explain(image, other)
    seen = [{p.index for p in e.predictions} for e in (one, two)]
    mapped = {classes[k] for k in seen[0] if k in classes or isinstance(classes, _Identity)}
    best = one.predictions[0].index
    known = best in classes or isinstance(classes, _Identity)
    maps, frame = {}, ""
    for rule in rules:
        maps[rule], frame = _comparable(one, two, rule)
    return Pair(
        image=one.source,
        a=one,
        b=two,
        same_top1=known and classes[best] == two.predictions[0].index,
        top5_overlap=len(mapped & seen[1]) / max(1, len(seen[1])),
        metrics={rule: measure(*both) for rule, both in maps.items()},
        frame=frame,
        maps=maps,
    )


def _comparable(
    a: Explanation, b: Explanation, rule: str
) -> tuple[tuple[NDArray[np.float64], NDArray[np.float64]], str]:
    """The two maps in one frame and one unit, and which frame that is."""
    frames = [(e.frame.photo_size, e.frame.scaled, e.frame.offset, e.image.shape) for e in (a, b)]
    if frames[0] == frames[1]:
        maps, frame = [a.attributions[rule], b.attributions[rule]], "model"
    else:
        seen = [e.frame.to_photo(np.ones((*e.image.shape[:2], 1), np.float32))[:, :, 0] > 0 for e in (a, b)]
        both = seen[0] & seen[1]  # a rectangle, as each of them is
        rows, columns = np.flatnonzero(both.any(axis=1)), np.flatnonzero(both.any(axis=0))
        if not rows.size:
            raise InputError("GBP406", "the two models look at no common part of the photograph", a.source)
        part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        maps, frame = [e.in_photo(rule)[part] for e in (a, b)], "photograph"
    found = [_per_grey_level(m, e) for m, e in zip(maps, (a, b), strict=True)]
    if found[0].shape[2] != found[1].shape[2]:  # a grey input beside a coloured one
        found = [m.sum(axis=2, keepdims=True) for m in found]
    return (found[0], found[1]), frame


def _per_grey_level(attribution: NDArray[Any], of: Explanation) -> NDArray[np.float64]:
    """Per unit of the input  =>  per grey level: times scale / std of each channel, in RGB order."""
    how = of.preprocess
    slopes = how.scale / np.broadcast_to(np.asarray(how.std, np.float64), (len(how.channels),))
    order = [how.channels.index(name) for name in ("L" if how.channels == "L" else "RGB")]
    scaled: NDArray[np.float64] = attribution.astype(np.float64) * slopes[order]
    return scaled


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
