"""The sessions of one built explainer, each made when it is first needed: for targets or for free seeds, in the form
that the provider likes or in the portable one, for the sizes of what is fed; and the forward pass alone.
"""

from __future__ import annotations

import json
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx

from gbp_onnx.cache import Cache
from gbp_onnx.errors import InputError
from gbp_onnx.graph.external import bytes_outside
from gbp_onnx.graph.files import serialised
from gbp_onnx.graph.sizes import Dims, input_dims, output_dims, with_sizes
from gbp_onnx.lowering import lower
from gbp_onnx.probes import for_given_classes, forward_part, prune, takes_seeds, with_probes, with_seed_input
from gbp_onnx.ready import session_of
from gbp_onnx.runtime.providers import CPU, Choice
from gbp_onnx.runtime.session import Copies, Session
from gbp_onnx.stored import location_in, parsed

__all__ = ["PORTABLE", "Loading", "Shaped", "Variants", "form_of"]

PORTABLE = "portable"
ONE_BLOCK_BELOW = 1 << 24
"""Bytes of large weights: models with more have the tensors of a run apart, which takes less memory."""
SIZES_KEPT = 4
"""Sessions for sizes of their own that are kept; beyond, the one that was not used for longest goes."""
SMALL = 1 << 24
"""Bytes of weights up to which a session of its own for given classes is worth its memory."""


class _NoIndexError(Exception):
    """The explainer has no class index of its own that could be given."""


class Shaped(Protocol):
    """An array, or what has the shape of one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of its axes."""


_Sizes = tuple[tuple[str, tuple[int | None, ...]], ...]


@dataclass(frozen=True, slots=True)
class Loading:
    """How sessions are made. `form`: the lowering; `folder`: where weights lie that were left on disk; `threads`: of
    each session, 0 = ONNX Runtime's choice; `unchanged`: raises where files that weights are read from have changed.
    """

    choice: Choice
    where: str
    form: str = PORTABLE
    folder: Path | None = None
    copies: Copies = Copies.ALL
    threads: int = 0
    held: Mapping[str, bytes] = field(default_factory=dict)
    cache: Cache = field(default_factory=lambda: Cache(None))
    unchanged: Callable[[], None] = lambda: None

    @property
    def on_cpu(self) -> bool:
        """Whether nothing but the CPU is asked for first."""
        return self.choice.names[:1] == (CPU,)


def form_of(props: Mapping[str, str]) -> str:
    """The form that a built explainer has already, by its metadata."""
    return props.get("gbp.lowering", PORTABLE)


class Variants:
    """The sessions of a built explainer. Thread-safe.

    The sizes that the file leaves open are fixed where that pays and nothing can change: the batch axis at 1 for one
    image on the CPU, in every form; height and width in lowered forms, which need them, with a session for each size.
    A lowered file stays as it is, in its one form. `key`: stands for all that `built` was made of, where lowered forms
    may be kept; empty where not.
    """

    def __init__(self, built: onnx.ModelProto, loading: Loading, key: str = "") -> None:
        props = {e.key: e.value for e in built.metadata_props}
        roles = json.loads(props["gbp.inputs"])
        self._image, self._target = roles["image"], roles["target"]
        self._is_lowered = form_of(props) != PORTABLE
        self._form = PORTABLE if self._is_lowered else loading.form
        self._built, self._loading, self._props, self._key = built, loading, props, key
        maps = set(json.loads(props["gbp.outputs"]).values())
        self.own = {o.name for o in built.graph.output} - maps | {props["gbp.output"]}
        """The names of the model's own outputs, and of the tensor that targets point into."""
        self.probes = with_probes(built)
        """The names of the explained tensor and of the seed in front of it, outputs of the sessions."""
        self.returned = {o.name for o in built.graph.output}
        """The names of what sessions return; a lowered file may have lost a probe."""
        self.inputs = input_dims(built)
        """The declared shapes of the inputs, the target's too."""
        self._declared = output_dims(built)
        self._weights = sum(4 * math.prod(t.dims) for t in built.graph.initializer)
        self._own_sizes: OrderedDict[tuple[str, str, _Sizes], Session] = OrderedDict()
        self._sessions: dict[tuple[str, str, _Sizes], Session] = {}
        self._forward: Session | None = None
        self._lock = threading.RLock()
        self._expected = self._sizes_for({name: [1] for name in self.inputs}, self._form)
        waits = self._form != PORTABLE and any(
            not isinstance(d, int) for name, dims in self.inputs.items() for d in dims[1:]
        )
        self.first = self.forward() if waits else self._session("target", self._form, self._expected)
        """The session that says what the inputs and outputs are: of the forward pass, where sizes are not known yet."""
        self.outputs = {n: self._opened(n, dims) for n, dims in self.first.output_shapes.items() if n in self.own}
        """The shapes of the model's own outputs, as declared and inferred; the batch axis as the file has it."""

    def for_targets(self, feeds: Mapping[str, Shaped], form: str = "") -> Session:
        """The session that takes class indices. `form`: another than the provider's."""
        return self._for("target", feeds, form or self._form)

    def for_classes(self, feeds: Mapping[str, Shaped]) -> Session | None:
        """The session that takes class indices from 0 on and returns the attributions alone; None where it would save
        little for the memory that it takes, or cannot be had.
        """
        if self._is_lowered or self._weights > SMALL:
            return None
        try:
            return self._for("class", feeds, self._form)
        except _NoIndexError:
            return None

    def for_seeds(self, feeds: Mapping[str, Shaped], form: str = "") -> Session:
        """The session that takes float seeds, under the name ``gbp.seed``.

        Raises GBP407 where a lowered file has no place for them.
        """
        return self._for("seed", feeds, form or self._form)

    @property
    def seed_type(self) -> type[np.float32 | np.float64]:
        """What seeds are given in: float32, as the backward part computes; float64 where the output is."""
        return np.float64 if self.first.output_types[self._props["gbp.output"]] == np.float64 else np.float32

    @property
    def is_lowered(self) -> bool:
        """Whether sessions run a form that was made here of the portable one, which is at hand all the same."""
        return self._form != PORTABLE

    def forward(self) -> Session:
        """The session of the forward pass alone, with the model's own outputs."""
        with self._lock:
            if self._forward is None:
                self._forward = self._load(lambda: forward_part(self._built, self.own))
            return self._forward

    def _for(self, kind: str, feeds: Mapping[str, Shaped], form: str) -> Session:
        sizes = self._sizes_for({name: list(value.shape) for name, value in feeds.items()}, form)
        return self._session(kind, form, sizes)

    def _sizes_for(self, shapes: Mapping[str, list[int]], form: str) -> _Sizes:
        """What of the open sizes is fixed for inputs of these shapes (cut short where they are not known yet)."""
        dims = self.inputs[self._image]
        further = set(self.inputs) - {self._image, self._target}
        one = self._loading.on_cpu and not further and shapes[self._image][:1] == [1]
        found: dict[str, tuple[int | None, ...]] = {}
        for name, declared in self.inputs.items():
            if name == self._target:
                fixed: list[int | None] = [1 if one and dims and not isinstance(dims[0], int) else None]
            else:
                known = shapes.get(name, [])
                fixed = [
                    None
                    if isinstance(d, int) or axis >= len(known)
                    else (1 if one else None)
                    if axis == 0
                    else (known[axis] if form != PORTABLE else None)
                    for axis, d in enumerate(declared)
                ]
            if any(size is not None for size in fixed):
                found[name] = tuple(fixed)
        return tuple(found.items())

    def _session(self, kind: str, form: str, sizes: _Sizes) -> Session:
        key = (kind, form, sizes)
        with self._lock:
            kept = self._sessions if sizes in ((), self._expected) else self._own_sizes
            if key not in kept:
                kept[key] = self._make(kind, form, sizes)
            if kept is self._own_sizes:
                self._own_sizes.move_to_end(key)
                while len(self._own_sizes) > SIZES_KEPT:
                    self._own_sizes.popitem(last=False)
            return kept[key]

    def _make(self, kind: str, form: str, sizes: _Sizes) -> Session:
        if kind == "seed" and not takes_seeds(self._built):
            what = "this explainer was lowered for class indices: it has no place for a seed"
            fix = "explain the source model, or build the explainer with lowering=portable"
            raise InputError("GBP407", what, self._loading.where, fix)
        role = f"seed {self.seed_type.__name__}" if kind == "seed" else kind
        key = f"{self._key} {role} {form} {sizes}" if self._key else ""
        usual = key if sizes in ((), self._expected) or not self._own_sizes else ""  # not each of many sizes
        if form == PORTABLE:
            return self._load(lambda: self._variant(kind, sizes), usual)
        return self._load(partial(self._lowered, kind, form, sizes, key), usual)

    def _lowered(self, kind: str, form: str, sizes: _Sizes, key: str) -> bytes:
        """The lowered form, from the cache or made now and kept there."""
        data = self._loading.cache.get(key) if key else None
        if data is None or parsed(data, location_in(self._built)) is None:
            model = lower(self._variant(kind, sizes), form)
            if kind == "class":
                prune(model)  # the forward nodes that only the scores needed
            data = serialised(model, self._loading.where)
            if key:
                self._loading.cache.put(key, data)
        return data

    def _variant(self, kind: str, sizes: _Sizes) -> onnx.ModelProto:
        """A copy in the portable form, with these sizes; the explainer itself where it is that."""
        if kind == "seed":
            model = with_seed_input(self._built, self.seed_type == np.float64)[0]
        elif kind == "class":
            given = for_given_classes(self._built)
            if given is None:
                raise _NoIndexError
            model = given
        elif not sizes and not self.is_lowered:
            return self._built
        else:
            model = onnx.ModelProto()
            model.CopyFrom(self._built)
        with_sizes(model, {name: fixed for name, fixed in sizes if name != self._target or kind != "seed"})
        return model

    def _load(self, make: Callable[[], onnx.ModelProto | bytes], key: str = "") -> Session:
        """The session of the model that `make` makes. `key`: under which what ONNX Runtime makes of it may be kept."""
        how, weights = self._loading, bytes_outside(self._built)

        def data() -> bytes:
            model = make()
            return model if isinstance(model, bytes) else serialised(model, how.where)

        def new(model: bytes, optimised: bool = False, **changes: Any) -> Session:
            if not optimised:
                how.unchanged()
            options: dict[str, Any] = {
                "threads": how.threads,
                "where": how.where,
                "folder": how.folder,
                "copies": how.copies,
                "held": how.held,
                "one_block": weights < ONE_BLOCK_BELOW,
            }
            session = Session(model, how.choice, optimised=optimised, **{**options, **changes})
            if not optimised:
                how.unchanged()  # while weights were read
            return session

        # Blocked copies of weights are as large as these; their derivatives have others.
        pays = how.choice.names == (CPU,) and how.copies is not Copies.NONE and how.cache.takes(2 * weights)
        return session_of(new, data, how.cache, f"{key} {how.copies.value}" if key and pays else "")

    def _opened(self, name: str, dims: list[Any]) -> Dims:
        """A shape that a session inferred with one image, as it is for any number of them."""
        batch = self.inputs[self._image][:1]
        if not self._expected or not dims or isinstance(batch[0], int) or self.first is self._forward:
            return list(dims)  # nothing was fixed
        declared = self._declared.get(name, [])
        if len(declared) != len(dims):
            return [batch[0] if dims[0] == 1 else None, *dims[1:]]
        open_first = dims[0] if isinstance(declared[0], int) else declared[0]
        rest = [d if w is None or w != batch[0] else w for d, w in zip(dims[1:], declared[1:], strict=True)]
        return [open_first, *rest]
