"""The explainer: a model, ready to explain images."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gbp_onnx import bundled
from gbp_onnx.batch import BatchResult, BatchRunner, Feeds
from gbp_onnx.errors import GbpError, InputError
from gbp_onnx.explanation import Explanation, top_predictions
from gbp_onnx.graph.files import ModelSource
from gbp_onnx.imaging.photo import read_photo
from gbp_onnx.imaging.preprocess import Frame, apply, default_preprocess, fit_to_input, from_metadata, parse_preprocess
from gbp_onnx.labels import Labels, labels_for, labels_from_metadata, read_labels
from gbp_onnx.looks import Looks
from gbp_onnx.many import attempt, with_targets
from gbp_onnx.on_device import attributions_on_device
from gbp_onnx.opened import DEFAULT_RULES, Opened
from gbp_onnx.pipeline import in_order, workers_beside
from gbp_onnx.rules import check_rectify
from gbp_onnx.runtime.binding import is_value
from gbp_onnx.runtime.providers import CPU, Providers, choose_providers, runtime_version
from gbp_onnx.seeds import Target, one_each, resolve
from gbp_onnx.targets.scalar import Scalar, target_index
from gbp_onnx.together import Together
from gbp_onnx.types import Preprocess
from gbp_onnx.version import package_version

__all__ = ["Explainer"]


class Explainer:
    """Explains images under one or several rules, all from one forward pass.

    `model`: a source model or a built explainer, as path, bytes or ModelProto; None is the bundled SqueezeNet 1.1.
    `rules`: of "saliency", "deconvnet", "guided"; None for all (a built explainer brings its own). `providers`: "auto"
    (CUDA where it truly works, else the CPU), "cpu", "cuda", or ONNX Runtime's list. `preprocess`: a preset, short
    form, mapping or `Preprocess` (default: the model's metadata, else a guess that each explanation's warnings
    announce). `labels`: a list or a file (default: the model's metadata). `output`, `wrt`, `explain`, `rectify`: as for
    `build`; a built explainer has made its choice. `low_memory`: whether ONNX Runtime makes no copies of weights,
    in layouts that run faster (default: where more than 1 GiB of them lie on disk). A model file of 16 MiB or more, and
    external data, are read where they lie: they must stay as they are while the explainer lives (else GBP106).
    `lowering`: the form of the backward part, as for `build`; "auto" is the one that the provider in use runs fastest
    (the portable one under `low_memory`). A built explainer that is portable is lowered here, one that is lowered stays
    as it is. `threads`: of ONNX Runtime for one image, 0 = its own choice; 1 is the fastest for `explain_many`.
    `cache`: whether what is built of a model file, and ONNX Runtime's optimised graph with its weights, are kept for
    the next start (see docs/running.md; the environment's GBP_CACHE names the folder, or "off").

    Thread-safe: one explainer may serve several threads. On the CPU the same input gives the same bits on the same
    machine and thread count; on CUDA sums over overlapping pools may differ in the last bits from run to run.

    Raises ModelError (GBP1xx), OperatorError (GBP2xx), RuntimeFailure (GBP3xx), InputError (GBP408, GBP409, GBP410).
    """

    def __init__(
        self,
        model: ModelSource | None = None,
        rules: Sequence[str] | str | None = DEFAULT_RULES,
        *,
        providers: Providers = "auto",
        preprocess: str | Mapping[str, Any] | Preprocess | None = None,
        labels: Labels | None = None,
        output: str | None = None,
        wrt: str | None = None,
        explain: str = "logit",
        rectify: Iterable[str] = (),
        low_memory: bool | None = None,
        lowering: str = "auto",
        threads: int = 0,
        cache: bool = True,
    ) -> None:
        given = None if preprocess is None else parse_preprocess(preprocess)
        self._choice = choose_providers(providers)
        self.threads = threads
        """Of ONNX Runtime, for one image; 0: its own choice."""
        options: dict[str, Any] = {"output": output, "wrt": wrt, "explain": explain, "rectify": check_rectify(rectify)}
        source: ModelSource = bundled.model_path() if model is None else model
        self._opened = Opened(source, rules, self._choice, options, lowering, low_memory, threads, cache)
        self._props, self._runner = self._opened.props, self._opened.runner
        self.where, self.rules = self._opened.where, self._opened.rules
        self.output, self.head = self._props["gbp.output"], self._props["gbp.head"] or None
        self._labels = read_labels(labels) if labels is not None else labels_from_metadata(self._props, self.where)
        found = given or from_metadata(self._props)
        self._guessed = found is None
        self.preprocess = found or default_preprocess(self._runner.dtype)
        """How photographs are brought to the model: as given, as the metadata say, or guessed."""
        free = output is None and not self._opened.is_built
        self._together = Together(self._opened)
        self._looks = Looks(self._runner, self._props, self._labels, self._prepared, free=free)

    @property
    def image_input(self) -> str:
        """The name of the explained input."""
        return self._runner.image_input

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the explained input."""
        return self._runner.dtype

    @property
    def labels(self) -> tuple[str, ...] | None:
        """The class labels; None where there are none."""
        return self._labels

    @property
    def classes(self) -> int | None:
        """The number of values of the explained output for each image; None where the file does not say."""
        return self._runner.classes

    @property
    def providers(self) -> tuple[str, ...]:
        """The execution providers that are really used."""
        return self._runner.providers

    @property
    def low_memory(self) -> bool:
        """Whether weights have no copies in faster layouts."""
        return self._opened.low_memory

    @property
    def lowering(self) -> str:
        """The form of the backward part that runs: "portable", "cpu" or "cuda"."""
        return self._opened.lowering

    @property
    def provider_note(self) -> str:
        """Why these providers were chosen."""
        return self._choice.why

    def explain(self, image: Any, target: Target = None) -> Any:
        """Explain one image (path, PIL image or uint8 [H, W, C] array), or each of a list.

        `target`: a class index; a label; "top1" (default); "top5" (five explanations); a list or integer array = one
        target for each image of a list, or several for one image; a tuple = an index into the output, with or without
        the batch axis; a float array of the output's shape = any seed; one of `targets`, or the string that stands for
        it: "scores[0, 17, 3]", "mask:dog", "box:dog@17", "similar:other.jpg", "seed.npy". top1 of a detector is its
        best box, of a segmenter the class of the largest area over its mask, background apart; the explanation's
        warnings say so.
        Returns an `Explanation`; a list for "top5" and several targets; and a list of these for a list of images.
        Several classes of an image share its forward pass from the second such image on.

        Raises InputError: GBP401..GBP406 (the image), GBP407 (the target), GBP408 (the label).
        """
        if isinstance(image, list):
            return [self.explain(one, each) for one, each in zip(image, one_each(target, len(image)), strict=True)]
        several = _several_of(target)
        target = one_each(target, 1)[0] if several is None else None
        if self._runner.further_inputs:
            names = ", ".join(map(repr, self._runner.further_inputs))
            raise InputError(
                "GBP406", f"the model has further inputs ({names})", self.where, "pass arrays: attribute({name: array})"
            )
        if self._runner.batched and len(self._runner.shape) < 4:
            what = f"input {self.image_input!r} takes signals {self._runner.shape}, not pictures"
            raise InputError("GBP406", what, self.where, "pass arrays: attribute(x)")
        fitted = fit_to_input(self.preprocess, self._runner.shape, self._runner.dtype.kind in "iu")
        feeds, frame = self._prepared(image)
        where = os.fspath(image) if isinstance(image, str | os.PathLike) else f"<{type(image).__name__}>"
        if several is not None:
            return self._explain_each(feeds, several, frame, fitted, where)
        if isinstance(target, str) and target.lower() == "top5":
            seen = self._looks.five_best(feeds, frame)
            if seen:
                return [self._explain_one(feeds, form, frame, fitted, where) for form in seen]
            best = self._together.best(feeds)
            return [self._explained(k, None, np.array([k]), run, frame, fitted, where) for k, run in best]
        return self._explain_one(feeds, target, frame, fitted, where)

    def explain_many(
        self, images: Iterable[Any] | str | os.PathLike[str], target: Target = None, *, workers: int | None = None
    ) -> Iterator[Explanation | list[Explanation] | GbpError]:
        """Explain images one after the other, several at a time: what `explain` returns for each, in order, or the
        error (a GbpError, returned and not raised) that an image ends in.

        `images`: as for `explain`, in a list or any other iterable, or a folder. `target`: one for all, or a list with
        one for each. `workers`: images at a time; default: `workers` of the explainer, which is most with threads=1.
        Memory does not grow with the number of images: at most 2 * `workers` are decoded, or explained and not taken
        yet. Drawing and writing overlap with explaining too where they are done in between:

            for found in Explainer(model, threads=1).explain_many("photos/"):
                print(found if isinstance(found, GbpError) else found.save(...))

        Raises GBP401 (a folder without images), GBP407 (not as many targets as images).
        """
        return in_order(partial(attempt, self.explain), with_targets(images, target), workers or self.workers)

    @property
    def workers(self) -> int:
        """Images that `explain_many` explains at a time, unless it is told: one where memory is to be low."""
        if self.low_memory and self.threads != 1:
            return 1
        return workers_beside(self.threads, self.providers[0] == CPU)

    def _explain_each(
        self, feeds: Feeds, targets: list[Target], frame: Frame, fitted: Preprocess, where: str
    ) -> list[Explanation]:
        """One image's explanations for several targets; classes share a forward pass."""
        scalars = [self._looks.scalar(target, feeds, frame) for target in targets]
        seeds = [None if s is not None else self._seeds(t, feeds) for s, t in zip(scalars, targets, strict=True)]
        if any(seed is None or seed.dtype.kind == "f" for seed in seeds):
            return [self._explain_one(feeds, target, frame, fitted, where) for target in targets]
        flat = [seed for seed in seeds if seed is not None]
        runs = self._together.run(feeds, np.concatenate(flat))
        each = zip(targets, flat, runs, strict=True)
        return [self._explained(t, None, seed, run, frame, fitted, where) for t, seed, run in each]

    def attribute(
        self, x: NDArray[Any] | Mapping[str, NDArray[Any]], target: Target = None
    ) -> dict[str, NDArray[np.float32]]:
        """The attributions of a batch that is preprocessed already: {rule: float32 array of the shape and layout of
        `x`}.

        `x`: the image input's array, batch axis first, or a mapping with every input of the model. `target`: as for
        `explain`, one for all images
        or a list (array) with one for each; not "top5"; "top1" is the largest value of the output here, whatever the
        model is. An ``onnxruntime.OrtValue`` in place of the array gives OrtValues on the device where it is, from one
        run of the whole batch: classes only, or a seed that is an OrtValue too, and nothing is scaled or run again.
        Raises GBP405 (shape or type), GBP407, GBP408.
        """
        if is_value(x):
            return attributions_on_device(self._runner, x, target, self._labels, self.where)
        feeds = self._runner.checked(x if isinstance(x, Mapping) else {self.image_input: x})
        each = one_each(target, self._runner.count(feeds))
        if not any(self._looks.form(one) for one in each):
            return self._runner.run(feeds, self._seeds(target, feeds), maps_only=True).attributions
        parts = []
        for row, one in enumerate(each):
            own = {n: v[row : row + 1] if self._runner.batched and len(v) == len(each) else v for n, v in feeds.items()}
            scalar = self._looks.scalar(one, own, None) if self._looks.form(one) else None
            parts.append(self._run(scalar, one, own)[1].attributions)
        return {r: np.concatenate([p[r] for p in parts]) if self._runner.batched else parts[0][r] for r in self.rules}

    def _prepared(self, image: Any) -> tuple[Feeds, Frame]:
        """One image's feeds, and what the model sees of it."""
        fitted = fit_to_input(self.preprocess, self._runner.shape, self._runner.dtype.kind in "iu")
        x, frame = apply(read_photo(image), fitted, self._runner.dtype)
        return {self.image_input: x[None] if self._runner.batched else x}, frame

    def _run(self, scalar: Scalar | None, target: Target, feeds: Feeds) -> tuple[NDArray[Any], BatchResult]:
        """The seed of one image, and the result of its run, in the explainer that the target needs."""
        if scalar is None:
            seeds = self._seeds(target, feeds)
            return seeds, self._runner.run(feeds, seeds)
        seeds = np.asarray(scalar.seed)[None]
        return seeds, self._for(scalar)[0].run(feeds, seeds)

    def _for(self, scalar: Scalar) -> tuple[BatchRunner, dict[str, str]]:
        """The explainer of the tensor that a scalar lies in, and its metadata."""
        explain = "output" if scalar.as_it_is and self.head else self._props["gbp.explain"]
        return self._opened.elsewhere(scalar.output, explain)

    def _seeds(self, target: Target, feeds: Feeds) -> NDArray[Any]:
        shape = partial(self._runner.image_shape, feeds)
        return resolve(target, self._runner.count(feeds), shape, self._labels)

    # --- one image ------------------------------------------------------------------------------------------------

    def _explain_one(self, feeds: Feeds, target: Target, frame: Frame, fitted: Preprocess, where: str) -> Explanation:
        scalar = self._looks.scalar(target, feeds, frame)
        seeds, result = self._run(scalar, target, feeds)
        return self._explained(target, scalar, seeds, result, frame, fitted, where)

    def _explained(
        self,
        target: Target,
        scalar: Scalar | None,
        seeds: NDArray[Any],
        result: BatchResult,
        frame: Frame,
        fitted: Preprocess,
        where: str,
    ) -> Explanation:
        """What a run says of one image."""
        values = result.values[0]
        labels = labels_for(self._labels, values.size)
        predictions = (scalar and scalar.predictions) or top_predictions(values, labels)
        flat = None if seeds.dtype.kind == "f" else int(seeds[0]) if seeds[0] >= 0 else predictions[0].index
        maps = {
            rule: frame.to_rgb_hwc(a[0] if self._runner.batched else a, fitted)
            for rule, a in result.attributions.items()
        }
        said = self._warnings(maps, values, scalar)
        props = self._props if scalar is None else self._for(scalar)[1]
        common: dict[str, Any] = {
            "attributions": maps,
            "image": frame.image,
            "predictions": predictions,
            "source": where,
            "preprocess": fitted,
            "frame": frame,
            "head": props["gbp.head"] or None,
            "record": self._record(props),
        }
        if scalar is not None:
            return Explanation(
                target=scalar.target,
                label=scalar.label,
                score=scalar.score,
                explained=float(result.explained[0]) if scalar.value is None else scalar.value,
                warnings=(*scalar.notes, *said),
                what=scalar.name,
                outline=scalar.outline,
                shares=scalar.shares,
                **common,
            )
        place = None if flat is None else target_index(flat, values.shape)
        if _is_default(target) and isinstance(place, tuple):
            note = f"top1 is the largest of the output's {values.size} values, at {list(place)}: no class or object"
            said = (f"{note}; name one of the targets mask, box, OUTPUT[0, 1, 2]", *said)
        return Explanation(
            target=place,
            label=None if flat is None or labels is None else labels[flat],
            score=None if flat is None else float(values.reshape(-1)[flat]),
            explained=float(result.explained[0]),
            warnings=said,
            **common,
        )

    def _warnings(
        self, maps: Mapping[str, NDArray[np.float32]], values: NDArray[Any], scalar: Scalar | None
    ) -> tuple[str, ...]:
        said = [w for w in json.loads(self._props.get("gbp.warnings", "[]")) if _concerns(w, self.rules)]
        if self._guessed:
            said.append(
                f"the model does not say how it wants its input: {self.preprocess.name!r} is a guess; "
                "check the predictions, and set preprocess if they are wrong"
            )
        if self._opened.widened:
            said.append("the model computes in bfloat16, for which the CPU has no kernels: it was run in float32")
        if scalar is None and self._labels is not None and labels_for(self._labels, values.size) is None:
            said.append(f"{len(self._labels)} labels do not fit {values.size} values of the output: none is shown")
        if not np.isfinite(values).all():
            said.append("the model's output holds NaN or infinite values")
        for rule, attribution in maps.items():
            broken = int((~np.isfinite(attribution)).sum())
            if broken:
                said.append(f"{rule}: {broken} of {attribution.size} values of the map are NaN or infinite")
            elif not attribution.any():
                said.append(
                    f"{rule}: the map is zero everywhere (gates or weights of zero block every path from the target)"
                )
        return tuple(said)

    def _record(self, props: Mapping[str, str]) -> dict[str, Any]:
        return {
            "model": self.where,
            "source_sha256": props["gbp.source_sha256"],
            **({"data_sha256": json.loads(props["gbp.data_sha256"])} if "gbp.data_sha256" in props else {}),
            "output": props["gbp.output"],
            "explained_tensor": props["gbp.explained"],
            "head": props["gbp.head"] or None,
            "providers": list(self.providers),
            "versions": {
                "gbp-onnx": package_version(),
                "built with": props["gbp.version"],
                "onnxruntime": runtime_version(),
            },
        }


def _several_of(target: Target) -> list[Any] | None:
    """Several targets for one image; None where there is one."""
    if isinstance(target, np.ndarray) and target.dtype.kind in "iu" and target.ndim == 1:
        target = target.tolist()
    return target if isinstance(target, list) and len(target) > 1 else None


def _is_default(target: Target) -> bool:
    return target is None or (isinstance(target, str) and target.lower() == "top1")


def _concerns(warning: str, rules: Sequence[str]) -> bool:
    """Whether a note of the built file is about the rules that are shown."""
    if warning.startswith("target:"):
        return True
    if warning.startswith("deconvnet"):
        return "deconvnet" in rules
    return any(rule != "saliency" for rule in rules)
