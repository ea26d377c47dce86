"""The explainer: a model, ready to explain images."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gbp_onnx import bundled
from gbp_onnx.errors import InputError, ModelError
from gbp_onnx.explanation import Explanation, top_predictions
from gbp_onnx.graph.files import ModelSource, load_model, serialised, source_name, source_sha256
from gbp_onnx.imaging.photo import read_photo
from gbp_onnx.imaging.preprocess import Frame, apply, default_preprocess, fit_to_input, from_metadata, parse_preprocess
from gbp_onnx.labels import Labels, find_label, labels_for, labels_from_metadata, read_labels
from gbp_onnx.rules import check_rules
from gbp_onnx.runtime.providers import Providers, choose_providers, runtime_version
from gbp_onnx.runtime.session import Session
from gbp_onnx.target import build_loaded, is_explainer, with_probes, with_seed_input
from gbp_onnx.types import Preprocess
from gbp_onnx.version import package_version

__all__ = ["Explainer", "Target"]

_Feeds = Mapping[str, NDArray[Any]]
Target = int | str | Sequence[int] | tuple[int, ...] | NDArray[Any] | None
"""What is explained: see `Explainer.explain`."""

DEFAULT_RULES = ("guided",)


@dataclass(frozen=True, slots=True)
class _Result:
    """A batch that ran: for each image the output's values, the attributions and the explained scalar."""

    values: NDArray[Any]
    attributions: dict[str, NDArray[np.float32]]
    explained: NDArray[np.float64]


class Explainer:
    """Explains images under one or several rules, all from one forward pass.

    `model`: a source model or a built explainer, as path, bytes or ModelProto; None is the bundled SqueezeNet 1.1.
    `rules`: of "saliency",
    "deconvnet", "guided" (a built explainer brings its own). `providers`: "auto" (CUDA where it truly works, else the
    CPU), "cpu", "cuda", or
    ONNX Runtime's list. `preprocess`: a preset, short form, mapping or `Preprocess` (default: the model's metadata,
    else a guess that
    each explanation's warnings announce). `labels`: a list or a file (default: the model's metadata). `output`, `wrt`,
    `explain`, `rectify`: as for `build`.

    Thread-safe: one explainer may serve several threads. On the CPU the same input gives the same bits on the same
    machine and thread
    count; on CUDA sums over overlapping pools may differ in the last bits from run to run.

    Raises ModelError (GBP1xx), OperatorError (GBP2xx), RuntimeFailure (GBP3xx), InputError (GBP408, GBP409, GBP410).
    """

    def __init__(
        self,
        model: ModelSource | None = None,
        rules: Sequence[str] | str = DEFAULT_RULES,
        *,
        providers: Providers = "auto",
        preprocess: str | Mapping[str, Any] | Preprocess | None = None,
        labels: Labels | None = None,
        output: str | None = None,
        wrt: str | None = None,
        explain: str = "logit",
        rectify: Iterable[str] = (),
    ) -> None:
        asked = check_rules(rules)
        given = None if preprocess is None else parse_preprocess(preprocess)
        source: ModelSource = bundled.model_path() if model is None else model
        self.where = source_name(source)
        loaded = load_model(source)
        if is_explainer(loaded):
            built = loaded
        else:
            built = build_loaded(
                loaded,
                asked,
                output=output,
                wrt=wrt,
                explain=explain,
                rectify=rectify,
                where=self.where,
                digest=source_sha256(source),
            )
        self._props = {e.key: e.value for e in built.metadata_props}
        roles = _metadata_object(self._props, "gbp.outputs", self.where)
        self.rules = _rules_of(asked, tuple(json.loads(self._props["gbp.rules"])), self.where)
        self._attributions = {
            rule: next(v for k, v in roles.items() if k.startswith(f"attribution_{rule}")) for rule in self.rules
        }
        names = _metadata_object(self._props, "gbp.inputs", self.where)
        self.image_input, self._target_input = names["image"], names["target"]
        self.output, self.head = self._props["gbp.output"], self._props["gbp.head"] or None
        self._built, self._lock = built, threading.Lock()
        self._seeded: tuple[Session, str] | None = None
        self._choice = choose_providers(providers)
        probed, *self._probes = with_probes(built)
        self._session = Session(serialised(probed, self.where), self._choice, where=self.where)
        self._shape = self._session.input_shapes[self.image_input]
        self._batched = len(self._shape) >= 4
        self._dtype = self._session.input_types[self.image_input] or np.dtype(np.float32)
        self._labels = read_labels(labels) if labels is not None else labels_from_metadata(self._props, self.where)
        found = given or from_metadata(self._props)
        self._guessed = found is None
        self.preprocess = found or default_preprocess(self._dtype)
        """How photographs are brought to the model: as given, as the metadata say, or guessed."""

    @property
    def providers(self) -> tuple[str, ...]:
        """The execution providers that are really used."""
        return self._session.providers

    @property
    def provider_note(self) -> str:
        """Why these providers were chosen."""
        return self._choice.why

    def explain(self, image: Any, target: Target = None) -> Any:
        """Explain one image (path, PIL image or uint8 [H, W, C] array), or each of a list.

        `target`: a class index; a label; "top1" (default); "top5" (five explanations); a list or integer array = one
        class for each image of
        a list; a tuple = an index into the output, with or without the batch axis; a float array of the output's shape
        = any seed.
        Returns an `Explanation`; a list for "top5"; and a list of these for a list of images.

        Raises InputError: GBP401..GBP406 (the image), GBP407 (the target), GBP408 (the label).
        """
        if isinstance(image, list):
            return [self.explain(one, each) for one, each in zip(image, _one_each(target, len(image)), strict=True)]
        target = _one_each(target, 1)[0]
        further = [name for name in self._session.input_types if name not in (self.image_input, self._target_input)]
        if further:
            names = ", ".join(map(repr, further))
            raise InputError(
                "GBP406",
                f"the model has further inputs ({names})",
                self.where,
                "pass arrays: attribute({name: array, ...})",
            )
        photo = read_photo(image)
        fitted = fit_to_input(self.preprocess, self._shape, self._dtype.kind in "iu")
        x, frame = apply(photo, fitted, self._dtype)
        feeds = {self.image_input: x[None] if self._batched else x}
        where = os.fspath(image) if isinstance(image, str | os.PathLike) else f"<{type(image).__name__}>"
        if isinstance(target, str) and target.lower() == "top5":
            values = self._run(feeds, np.array([-1])).values[0]
            return [self._explain_one(feeds, p.index, frame, fitted, where) for p in top_predictions(values, None)]
        return self._explain_one(feeds, target, frame, fitted, where)

    def attribute(
        self, x: NDArray[Any] | Mapping[str, NDArray[Any]], target: Target = None
    ) -> dict[str, NDArray[np.float32]]:
        """The attributions of a batch that is preprocessed already: {rule: float32 array of the shape and layout of
        `x`}.

        `x`: the image input's array, batch axis first, or a mapping with every input of the model. `target`: as for
        `explain`, one for all images
        or a list (array) with one for each; not "top5". Raises GBP405 (shape or type), GBP407, GBP408.
        """
        feeds = self._checked(x if isinstance(x, Mapping) else {self.image_input: x})
        count = len(feeds[self.image_input]) if self._batched else 1
        return self._run(feeds, self._seeds(target, feeds, count)).attributions

    # --- one image ------------------------------------------------------------------------------------------------

    def _explain_one(self, feeds: _Feeds, target: Target, frame: Frame, fitted: Preprocess, where: str) -> Explanation:
        seeds = self._seeds(target, feeds, 1)
        result = self._run(feeds, seeds)
        values = result.values[0]
        labels = labels_for(self._labels, values.size)
        predictions = top_predictions(values, labels)
        flat = None if seeds.dtype.kind == "f" else int(seeds[0]) if seeds[0] >= 0 else predictions[0].index
        maps = {rule: frame.to_rgb_hwc(a[0] if self._batched else a, fitted) for rule, a in result.attributions.items()}
        return Explanation(
            attributions=maps,
            image=frame.image,
            target=None if flat is None else _target_index(flat, values.shape),
            label=None if flat is None or labels is None else labels[flat],
            score=None if flat is None else float(values.reshape(-1)[flat]),
            explained=float(result.explained[0]),
            predictions=predictions,
            warnings=self._warnings(maps, values),
            source=where,
            preprocess=fitted,
            head=self.head,
            frame=frame,
            record=self._record(),
        )

    def _warnings(self, maps: Mapping[str, NDArray[np.float32]], values: NDArray[Any]) -> tuple[str, ...]:
        said = list(json.loads(self._props.get("gbp.warnings", "[]")))
        if self._guessed:
            said.append(
                f"the model does not say how it wants its input: {self.preprocess.name!r} is a guess; "
                "check the predictions, and set preprocess if they are wrong"
            )
        if self._labels is not None and labels_for(self._labels, values.size) is None:
            said.append(f"{len(self._labels)} labels do not fit {values.size} values of the output: none is shown")
        if not np.isfinite(values).all():
            said.append("the model's output holds NaN or infinite values")
        for rule, attribution in maps.items():
            broken = int((~np.isfinite(attribution)).sum())
            if broken:
                said.append(f"{rule}: {broken} of {attribution.size} values of the map are NaN or infinite")
            elif not attribution.any():
                said.append(f"{rule}: the map is zero everywhere (every path to the target is gated off)")
        return tuple(said)

    def _record(self) -> dict[str, Any]:
        return {
            "model": self.where,
            "source_sha256": self._props["gbp.source_sha256"],
            "output": self.output,
            "explained_tensor": self._props["gbp.explained"],
            "head": self.head,
            "providers": list(self.providers),
            "versions": {
                "gbp-onnx": package_version(),
                "built with": self._props["gbp.version"],
                "onnxruntime": runtime_version(),
            },
        }

    # --- targets --------------------------------------------------------------------------------------------------

    def _seeds(self, target: Target, feeds: _Feeds, count: int) -> NDArray[Any]:
        """The target as int64 [N], flat indices (-1: the largest value), or as float seeds [N, ...] of the output's
        shape.
        """
        if isinstance(target, np.ndarray) and target.dtype.kind == "f":
            shape = self._image_values(feeds, count).shape
            if target.shape == shape[1:]:
                target = np.broadcast_to(target, shape)
            if target.shape != shape:
                raise InputError(
                    "GBP407",
                    f"the seed has shape {list(target.shape)}, the output {list(shape)}",
                    "target",
                    "pass a seed of the output's shape",
                )
            return target
        if isinstance(target, tuple):
            shape = self._image_values(feeds, count).shape
            index = target[1:] if len(target) == len(shape) else target
            if len(target) == len(shape) and not 0 <= int(target[0]) < count:
                raise _out_of_range(f"index {list(target)}", f"the output's shape is {list(shape)}")
            if len(index) != len(shape) - 1 or not all(0 <= int(i) < d for i, d in zip(index, shape[1:], strict=True)):
                raise _out_of_range(f"index {list(target)}", f"the output's shape is {list(shape)}")
            return np.full(count, np.ravel_multi_index([int(i) for i in index], shape[1:]), np.int64)
        flat = [self._class(one, feeds, count) for one in _one_each(target, count)]
        if max(flat) >= 0:
            size = int(np.prod(self._image_values(feeds, count).shape[1:]))
            if max(flat) >= size:
                raise _out_of_range(f"class {max(flat)}", f"the output has {size} values for each image: 0..{size - 1}")
        return np.array(flat, np.int64)

    def _class(self, target: Target, feeds: _Feeds, count: int) -> int:
        """One class index: -1 for "top1"."""
        match target:
            case None | -1:
                return -1
            case str() if target.lower() == "top1":
                return -1
            case bool():
                pass
            case int() | np.integer() if int(target) >= 0:
                return int(target)
            case str() if target.lower() == "top5":
                raise InputError(
                    "GBP407",
                    "top5 is for explain(); attribute() takes one target for each image",
                    "target",
                    "pass class indices",
                )
            case str():
                labels = (
                    None
                    if self._labels is None
                    else labels_for(self._labels, int(np.prod(self._image_values(feeds, count).shape[1:])))
                )
                return find_label(target, labels)
        raise InputError(
            "GBP407",
            f"{target!r} is no target",
            "target",
            "pass a class index from 0 on, a label, top1, top5, a tuple or a float array",
        )

    def _image_values(self, feeds: _Feeds, count: int) -> NDArray[Any]:
        """The output's shape for this batch as an empty array [N, ...]; the model runs once where its file does not
        say.
        """
        known = self._session.output_shapes.get(self.output) or []
        if len(known) > 1 and all(isinstance(d, int) and d > 0 for d in known[1:]):
            return np.empty((count, *known[1:]), np.bool_)
        return self._run(feeds, np.full(count, -1)).values

    # --- running --------------------------------------------------------------------------------------------------

    def _run(self, feeds: _Feeds, seeds: NDArray[Any]) -> _Result:
        """Run a batch in pieces of the size that the model's batch axis takes, or that suits the provider."""
        count = len(seeds)
        fixed = self._shape[0] if self._batched and isinstance(self._shape[0], int) and self._shape[0] > 0 else None
        # On the CPU image after image is faster than a large batch, whose intermediates fall out of the cache.
        step = fixed or (1 if self.providers[0] == "CPUExecutionProvider" else 8)
        if count == step or not self._batched or (fixed is None and len(feeds) > 1):
            return self._run_piece(feeds, seeds)
        pieces = []
        for start in range(0, count, step):
            rows = np.minimum(
                np.arange(start, start + step), count - 1
            )  # the last piece is filled up with its last image
            pieces.append(
                self._run_piece({n: v[rows] if len(v) == count else v for n, v in feeds.items()}, seeds[rows])
            )
        return _Result(
            np.concatenate([p.values for p in pieces])[:count],
            {rule: np.concatenate([p.attributions[rule] for p in pieces])[:count] for rule in self.rules},
            np.concatenate([p.explained for p in pieces])[:count],
        )

    def _run_piece(self, feeds: _Feeds, seeds: NDArray[Any]) -> _Result:
        session, extra = self._session, {self._target_input: seeds.astype(np.int64)}
        if seeds.dtype.kind == "f":
            session, name = self._seeded_session()
            shape = self._raw_shape(feeds, seeds)
            extra = {name: seeds.reshape(shape).astype(session.input_types[name] or np.float32)}
        found = session.run({**feeds, **extra})
        count = len(seeds)
        output = found[self.output]
        explained, at = (np.asarray(found[name], np.float64) for name in self._probes)
        return _Result(
            output.reshape(count, *(output.shape[1:] if output.ndim > 1 else (-1,))),
            {rule: found[name] for rule, name in self._attributions.items()},
            np.where(at != 0, explained * at, 0.0).reshape(count, -1).sum(axis=1),
        )

    def _raw_shape(self, feeds: _Feeds, seeds: NDArray[Any]) -> tuple[int, ...]:
        """The seeds' shape as the model's output has it: without batch axis where the export has dropped it."""
        known = self._session.output_shapes.get(self.output)
        return seeds.shape if known is None or len(known) > 1 else (-1,)

    def _seeded_session(self) -> tuple[Session, str]:
        with self._lock:
            if self._seeded is None:
                probed, *_ = with_probes(self._built)
                model, name = with_seed_input(probed)
                self._seeded = (Session(serialised(model, self.where), self._choice, where=self.where), name)
            return self._seeded

    def _checked(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The feeds as the session takes them. Raises GBP405."""
        wanted = {n: t for n, t in self._session.input_types.items() if n != self._target_input}
        if set(feeds) != set(wanted):
            raise InputError(
                "GBP405",
                f"the model's inputs are {', '.join(wanted)}, not {', '.join(feeds)}",
                self.where,
                "pass one array for each input",
            )
        checked = {}
        for name, value in feeds.items():
            array, kind, shape = np.asarray(value), wanted[name], self._session.input_shapes[name]
            fits = array.ndim == len(shape) and all(
                not isinstance(d, int) or d < 1 or d == n for d, n in zip(shape[1:], array.shape[1:], strict=True)
            )
            if array.dtype.kind not in "fiub" or not fits or array.size == 0:
                text = f"{array.dtype} {list(array.shape)}"
                raise InputError(
                    "GBP405",
                    f"input {name!r} takes {kind} {list(shape)}, not {text}",
                    self.where,
                    "pass preprocessed arrays, batch axis first",
                )
            if kind is not None and kind.kind in "iu" and array.dtype.kind == "f":
                raise InputError(
                    "GBP405",
                    f"input {name!r} takes {kind}, not {array.dtype}",
                    self.where,
                    "round and convert the array first",
                )
            checked[name] = array.astype(kind, copy=False) if kind is not None else array
        return checked


def _rules_of(asked: tuple[str, ...], built: tuple[str, ...], where: str) -> tuple[str, ...]:
    """The rules to show: what was asked for; all that a built explainer has, where nothing in particular was."""
    missing = [r for r in asked if r not in built]
    if not missing:
        return asked if asked != DEFAULT_RULES or built == asked else built
    if asked == DEFAULT_RULES:
        return built
    raise InputError(
        "GBP410",
        f"this built explainer has no {', '.join(missing)}",
        where,
        f"it has {', '.join(built)}; build it again with more rules",
    )


def _one_each(target: Target, count: int) -> list[Any]:
    """One target for each of `count` images."""
    if isinstance(target, np.ndarray) and target.dtype.kind in "iu" and target.ndim == 1:
        target = target.tolist()
    if not isinstance(target, list):
        return [target] * count
    if len(target) != count:
        what = f"{len(target)} targets for {count} images"
        raise InputError("GBP407", what, "target", "pass one for all, or one for each")
    return target


def _target_index(flat: int, shape: tuple[int, ...]) -> int | tuple[int, ...]:
    """The class index, or the index into an output of more than one axis (axes of size 1 do not count)."""
    if sum(d > 1 for d in shape) <= 1:
        return flat
    return tuple(int(i) for i in np.unravel_index(flat, shape))


def _out_of_range(what: str, why: str) -> InputError:
    return InputError("GBP407", f"{what} is out of range: {why}", "target", "choose a target in range")


def _metadata_object(props: Mapping[str, str], key: str, where: str) -> dict[str, str]:
    """A JSON object of strings from the metadata of a built explainer. Raises GBP112."""
    try:
        value = json.loads(props[key])
        if not isinstance(value, dict):
            raise TypeError(f"it is a {type(value).__name__}")
    except (KeyError, ValueError, TypeError) as error:
        raise ModelError(
            "GBP112", f"the explainer's metadata {key} cannot be used ({error})", where, "build the explainer again"
        ) from error
    return value
