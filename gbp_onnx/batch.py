"""A built explainer on batches of arrays: fixed and dynamic batches, targets and free seeds, the explained scalar."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from gbp_onnx.errors import InputError, ModelError
from gbp_onnx.runtime.providers import CPU
from gbp_onnx.runtime.session import Session
from gbp_onnx.seeds import near_one, times_power
from gbp_onnx.variants import PORTABLE, Loading, Shaped, Variants

__all__ = ["BatchResult", "BatchRunner", "Feeds"]

Feeds = Mapping[str, NDArray[Any]]
"""The model's inputs, without the target."""


@dataclass(frozen=True, slots=True)
class BatchResult:
    """A batch that ran. For each image: the output's values (real numbers, where it is quantised), the attributions by
    rule, the explained scalar.
    """

    values: NDArray[Any]
    attributions: dict[str, NDArray[np.float32]]
    explained: NDArray[np.float64]


class BatchRunner:
    """Runs a built explainer. Thread-safe."""

    def __init__(self, built: onnx.ModelProto, rules: Sequence[str], loading: Loading, key: str = "") -> None:
        """`built`: made its own; the probes become outputs of it. `key`: what it is kept under, see `Variants`."""
        self._where = loading.where
        props = {e.key: e.value for e in built.metadata_props}
        inputs, outputs = (_names(props, key, loading.where) for key in ("gbp.inputs", "gbp.outputs"))
        self.image_input, self._target_input, self.output = inputs["image"], inputs["target"], props["gbp.output"]
        self.maps = {r: next(v for k, v in outputs.items() if k.startswith(f"attribution_{r}")) for r in rules}
        """The names of the attributions, by rule."""
        self._terms: list[float] = json.loads(props.get("gbp.output_terms", "[1.0, 0.0]"))
        self._seed = props["gbp.seed"]
        self._variants = Variants(built, loading, key)
        self._probes, self._session = self._variants.probes, self._variants.first
        self.outputs = self._variants.outputs
        """The declared shapes of the model's own outputs, and of the inner tensor that targets point into."""
        self.shape = self._variants.inputs[self.image_input]
        """The image input's declared shape: sizes, symbols or None."""
        self.batched = bool(json.loads(props["gbp.batched"]))
        """Whether the image input has a batch axis."""
        self.dtype = self._session.input_types[self.image_input] or np.dtype(np.float32)
        """The image input's type."""

    @property
    def providers(self) -> tuple[str, ...]:
        """The execution providers that are really used."""
        return self._session.providers

    @property
    def further_inputs(self) -> list[str]:
        """Inputs besides the image and the target."""
        return [n for n in self._session.input_types if n not in (self.image_input, self._target_input)]

    @property
    def classes(self) -> int | None:
        """The number of values of the output for each image; None where the file does not say."""
        sizes = self._sizes_of_one()
        return int(np.prod(sizes)) if sizes else None

    def session_for(self, shapes: Mapping[str, Shaped], floats: bool) -> tuple[Session, str]:
        """The session for inputs of these shapes, and the name of its input for the target: int64 indices, or floats of
        the output's shape.
        """
        if floats:
            return self._variants.for_seeds(shapes), self._seed
        return self._variants.for_targets(shapes), self._target_input

    def count(self, feeds: Feeds) -> int:
        """The number of images in a batch."""
        return len(feeds[self.image_input]) if self.batched else 1

    def checked(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        """The feeds in the types that the model takes. Raises GBP405 where names, shapes or types do not fit."""
        wanted = {n: t for n, t in self._session.input_types.items() if n != self._target_input}
        if set(feeds) != set(wanted):
            what = f"the model's inputs are {', '.join(wanted)}, not {', '.join(feeds)}"
            raise InputError("GBP405", what, self._where, "pass one array for each input")
        return {name: self._typed(name, np.asarray(value), wanted[name]) for name, value in feeds.items()}

    def image_shape(self, feeds: Feeds) -> tuple[int, ...]:
        """The shape of one image's output; the model runs once where its file does not say."""
        sizes = self._sizes_of_one()
        if sizes and self.outputs[self.output] != list(sizes):
            return sizes
        one = {n: v[:1] if self.batched and len(v) == self.count(feeds) else v for n, v in feeds.items()}
        return self.forward(one)[self.output].shape or (1,)

    def forward(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        """One image's outputs, each without its batch axis where it has one. No gradient is computed.

        `feeds`: those of one image. What is no array (a list of maps) is left out.
        """
        fixed = self._fixed_batch or 1
        full = {n: np.repeat(v, fixed, axis=0) if fixed > 1 and len(v) == 1 else v for n, v in feeds.items()}
        found = {n: v for n, v in self._variants.forward().run(full).items() if isinstance(v, np.ndarray)}
        return {n: v[0] if v.shape[:1] == (fixed,) and self._has_batch_axis(n, v) else v for n, v in found.items()}

    def run_several(self, feeds: Feeds, targets: NDArray[Any]) -> list[BatchResult]:
        """The results of several targets of one image, from one forward pass, where the explainer was built for so
        many. `targets`: int64, flat indices into the image's output; -1: its largest value, -2: the second largest...
        """
        found = self._found(self._variants.for_targets, feeds, {**feeds, self._target_input: targets.astype(np.int64)})
        values = self._values(found, 1)
        explained, at = (
            np.asarray(found[name], np.float64).reshape(rows, -1)
            for name, rows in zip(self._probes, (1, len(targets)), strict=True)
        )
        scalars = np.where(at != 0, explained * at, 0.0).sum(axis=1)
        rows = [slice(k, k + 1) if self.batched else k for k in range(len(targets))]
        return [
            BatchResult(values, {r: found[n][row] for r, n in self.maps.items()}, scalars[k : k + 1])
            for k, row in enumerate(rows)
        ]

    def run(self, feeds: Feeds, seeds: NDArray[Any], maps_only: bool = False) -> BatchResult:
        """Run a batch in pieces of the size that the model's batch axis takes, or that suits the provider.

        `seeds`: int64 [N], flat indices into each image's output (-1: its largest value), or float [N, ...].
        `maps_only`: values and scalars are not asked for; they may be empty and NaN then.
        """
        count, fixed = len(seeds), self._fixed_batch
        # On the CPU image after image is faster than a large batch, whose intermediates fall out of the cache.
        step = fixed or (1 if self.providers[0] == CPU else min(count, 8))
        if count == step or not self.batched or (fixed is None and len(feeds) > 1):
            return self._run_piece(feeds, seeds, maps_only)
        pieces = []
        for start in range(0, count, step):
            rows = np.minimum(np.arange(start, start + step), count - 1)  # filled up with the last image
            part = {name: value[rows] if len(value) == count else value for name, value in feeds.items()}
            pieces.append(self._run_piece(part, seeds[rows], maps_only))
        return BatchResult(
            np.concatenate([p.values for p in pieces])[:count],
            {r: np.concatenate([p.attributions[r] for p in pieces])[:count] for r in self.maps},
            np.concatenate([p.explained for p in pieces])[:count],
        )

    def _sizes_of_one(self) -> tuple[int, ...] | None:
        """The shape of one image's output, without a batch axis; None where the file does not say."""
        dims = list(self.outputs.get(self.output) or ())
        if dims and (dims[0] == 1 or not self._single):
            del dims[0]
        sizes = tuple(d for d in dims if isinstance(d, int) and d > 0)
        return sizes if len(sizes) == len(dims) else None

    @property
    def _fixed_batch(self) -> int | None:
        size = self.shape[0] if self.batched else None
        return size if isinstance(size, int) and size > 0 else None

    @property
    def takes_one(self) -> bool:
        """Whether a single image fills a run: the file fixes no larger batch."""
        return self._fixed_batch in (None, 1)

    @property
    def _single(self) -> bool:
        """Whether the model takes one image only, so that its whole output belongs to that image."""
        return not self.batched or self._fixed_batch == 1

    def _has_batch_axis(self, name: str, value: NDArray[Any]) -> bool:
        """Whether an output's first axis, of the batch's size, counts images and not something else that is 1 now."""
        known = self.outputs.get(name)
        if name == self.output or not known or not self._single:  # as _run_piece takes it
            return True
        return isinstance(known[0], int) or value.ndim > 2

    def _run_piece(self, feeds: Feeds, seeds: NDArray[Any], maps_only: bool) -> BatchResult:
        if maps_only and seeds.dtype.kind != "f" and seeds.min() >= 0:
            session = self._variants.for_classes(feeds)
            found = None if session is None else self._maps_of(session, feeds, seeds)
            if found is not None:
                return BatchResult(np.empty((len(seeds), 0)), found, np.full(len(seeds), np.nan))
        return self._whole_piece(feeds, seeds)

    def _maps_of(self, session: Session, feeds: Feeds, seeds: NDArray[Any]) -> dict[str, NDArray[np.float32]] | None:
        """The attributions of classes, from a session that returns them alone; None where a lowered form may fail."""
        found = session.run({**feeds, self._target_input: seeds.astype(np.int64)}, list(self.maps.values()))
        if self._variants.is_lowered and not all(map(_is_tame, found.values())):
            return None
        return {rule: found[name] for rule, name in self.maps.items()}

    def _whole_piece(self, feeds: Feeds, seeds: NDArray[Any]) -> BatchResult:
        session, count, powers = self._variants.for_targets, len(seeds), np.zeros(len(seeds), np.intc)
        if seeds.dtype.kind == "f":
            session = self._variants.for_seeds
            known, kind = self.outputs.get(self.output), self._variants.seed_type
            seeds, powers = near_one(seeds)
            whole = seeds[0] if self._single and known is not None and len(known) == seeds.ndim - 1 else seeds
            given = {**feeds, self._seed: whole.astype(kind)}
        else:
            given = {**feeds, self._target_input: seeds.astype(np.int64)}
        found = self._found(session, feeds, given)
        values = self._values(found, count)
        return BatchResult(
            values,
            {rule: times_power(found[name], powers) for rule, name in self.maps.items()},
            times_power(self._explained(found, values, seeds), powers),
        )

    def _found(
        self, session: Callable[..., Session], feeds: Feeds, given: Mapping[str, NDArray[Any]]
    ) -> dict[str, NDArray[Any]]:
        """What a session returns; that of the portable form, where a lowered one may be wrong."""
        names = dict.fromkeys((self.output, *self._probes, *self.maps.values()))
        wanted = [name for name in names if name in self._variants.returned]
        found = session(feeds).run(given, wanted)
        if self._variants.is_lowered and not all(_is_tame(found[name]) for name in self.maps.values()):
            found = session(feeds, PORTABLE).run(given, wanted)
        return found

    def _values(self, found: Mapping[str, NDArray[Any]], count: int) -> NDArray[Any]:
        """The output's values for each of `count` images, real numbers."""
        output = found[self.output]
        if self._terms != [1.0, 0.0]:  # integers: the real numbers that they stand for
            output = (output.astype(np.float32) - np.float32(self._terms[1])) * np.float32(self._terms[0])
        dropped = self._single and output.shape[:1] != (1,)  # the export has no batch axis at its output
        values = output[None] if dropped else output.reshape(count, *output.shape[1:])
        return values if values.ndim > 1 else values[:, None]

    def _explained(
        self, found: Mapping[str, NDArray[Any]], values: NDArray[Any], seeds: NDArray[Any]
    ) -> NDArray[np.float64]:
        """Each image's explained scalar: the explained tensor times the seed in front of it, summed.

        A lowered file that has lost that seed takes indices alone: they say the place, unless the shapes differ (NaN).
        """
        explained, at = (None if found.get(n) is None else np.asarray(found[n], np.float64) for n in self._probes)
        if explained is not None and at is not None:
            return np.asarray(np.where(at != 0, explained * at, 0.0).reshape(len(seeds), -1).sum(axis=1))
        flat = values.reshape(len(values), -1)
        index = np.where(seeds < 0, flat.argmax(axis=1), seeds).astype(int)
        if explained is None or explained.size != flat.size or index.max() >= flat.shape[1]:
            return np.full(len(seeds), np.nan)
        return np.asarray(explained.reshape(flat.shape)[np.arange(len(flat)), index])

    def _typed(self, name: str, array: NDArray[Any], kind: np.dtype[Any] | None) -> NDArray[Any]:
        shape = self._variants.inputs[name]
        fits = array.ndim == len(shape) and all(
            not isinstance(d, int) or d < 1 or d == n for d, n in zip(shape[1:], array.shape[1:], strict=True)
        )
        if array.dtype.kind not in "fiub" or not fits or array.size == 0:
            what = f"input {name!r} takes {kind} {shape}, not {array.dtype} {list(array.shape)}"
            raise InputError("GBP405", what, self._where, "pass preprocessed arrays, batch axis first")
        if kind is not None and kind.kind in "iu" and array.dtype.kind == "f":
            what = f"input {name!r} takes {kind}, not {array.dtype}"
            raise InputError("GBP405", what, self._where, "round and convert the array first")
        return array if kind is None else array.astype(kind, copy=False)


_TAME = 1e12
"""Maps beyond may come of cotangents for which the masks of a lowered form are not exact (1e18); of seeds around 1."""


def _is_tame(attribution: NDArray[np.float32]) -> bool:
    """Whether a map is finite and of a size that a lowered form gets right: by its norm, in one pass."""
    return bool(np.vdot(attribution, attribution) <= _TAME**2)


def _names(props: Mapping[str, str], key: str, where: str) -> dict[str, str]:
    """A JSON object of names from the metadata of a built explainer. Raises GBP112."""
    try:
        value = json.loads(props[key])
        if not isinstance(value, dict):
            raise TypeError(f"it is a {type(value).__name__}")
    except (KeyError, ValueError, TypeError) as error:
        what = f"the explainer's metadata {key} cannot be used ({error})"
        raise ModelError("GBP112", what, where, "build the explainer again") from error
    return value
