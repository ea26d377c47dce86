"""A model made ready to explain: read, differentiated where it is no explainer yet, in a form and types that run here;
built again where a target needs another output.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import onnx

from gbp_onnx.batch import BatchRunner
from gbp_onnx.cache import Cache, cache_folder
from gbp_onnx.errors import InputError
from gbp_onnx.graph.external import bytes_outside
from gbp_onnx.graph.files import ModelFile, ModelSource, read_model
from gbp_onnx.graph.precision import has_bfloat16, without_bfloat16
from gbp_onnx.lowering import LOWERINGS, check_lowering, liked_by
from gbp_onnx.rules import RULES, check_rules
from gbp_onnx.runtime.providers import CPU, Choice
from gbp_onnx.runtime.session import Copies, takes_weights_from_memory
from gbp_onnx.stored import HELD, built_or_kept, is_held, key_of, without_weights_of
from gbp_onnx.target import is_explainer
from gbp_onnx.variants import PORTABLE, Loading, form_of

__all__ = ["BLOCKED_FROM", "DEFAULT_RULES", "LOW_MEMORY_FROM", "Opened", "copies_for"]

DEFAULT_RULES = ("guided",)
BLOCKED_FROM, LOW_MEMORY_FROM = 1 << 26, 1 << 30
"""Bytes of weights on disk: beyond, packed copies, and all copies in faster layouts, cost more memory and start-up time
than they are worth.
"""

_MOST_THREADS = 1024


class Opened:
    """A source model or a built explainer, opened. Thread-safe.

    `options`: `output`, `wrt`, `explain`, `rectify`, as for `build`. The others: see `Explainer`.
    """

    def __init__(
        self,
        source: ModelSource,
        rules: Sequence[str] | str | None,
        choice: Choice,
        options: Mapping[str, Any],
        lowering: str = "auto",
        low_memory: bool | None = None,
        threads: int = 0,
        cache: bool = True,
    ) -> None:
        asked = None if rules is None else check_rules(rules)
        check_threads(threads)
        if lowering != "auto":
            check_lowering(lowering)
        self._cache, hold = Cache(cache_folder() if cache else None), takes_weights_from_memory()
        self._read: Callable[[], ModelFile] = partial(
            read_model, source, leave=True, whole_below=0 if low_memory else None, hold=hold
        )
        file: ModelFile = self._read()
        self.widened = choice.names[0] == CPU and has_bfloat16(file.model)
        """Whether a bfloat16 model is run in float32."""
        if self.widened:  # weights that are converted do not stay where they are
            self._read = partial(read_model, source)
            file = self._read()
        if is_held(file):  # the file may change or go meanwhile
            self._read = replace(file, model=onnx.ModelProto()).fresh
        self._unchanged = replace(file, model=onnx.ModelProto()).check_unchanged
        self.where, self._options = file.where, dict(options)
        self._asked = asked or tuple(RULES)
        self.is_built = is_explainer(file.model)
        """Whether it was an explainer already, which has made its choices."""
        if self.is_built:
            _check_built({e.key: e.value for e in file.model.metadata_props}, options, lowering, self.where)
        built, key = (without_weights_of(file, file.model), key_of(file)) if self.is_built else self._build(file)
        self.props = {e.key: e.value for e in built.metadata_props}
        self.rules = _rules_of(asked, tuple(json.loads(self.props["gbp.rules"])), self.where)
        held = {HELD: file.content} if is_held(file) and file.content is not None else {}
        copies = copies_for(low_memory, 0 if file.folder is None else bytes_outside(built))
        self.low_memory = copies is Copies.NONE
        """Whether weights have no copies in faster layouts."""
        form = _form(lowering, choice, self.low_memory)
        self._loading = Loading(
            choice, self.where, form, file.folder, copies, threads, held, self._cache, self._unchanged
        )
        self.lowering = form_of(self.props) if form_of(self.props) != PORTABLE else form
        """The form that runs."""
        self.runner = self._start(built, key)
        self._others: dict[tuple[str, str], tuple[BatchRunner, dict[str, str]]] = {}
        self._several: dict[int, BatchRunner] = {}
        self._lock = threading.Lock()

    def elsewhere(self, output: str, explain: str) -> tuple[BatchRunner, dict[str, str]]:
        """The explainer of another output, or of the output as it is, and its metadata; built on first use.

        Raises GBP407 where there is no source to build it from.
        """
        if output == self.props["gbp.output"] and explain == self.props["gbp.explain"]:
            return self.runner, self.props
        if self.is_built:
            what = f"this built explainer explains {self.props['gbp.explained']!r}, the target is in {output!r}"
            fix = f"build it again from its model, with output={output!r}, explain={explain!r}"
            raise InputError("GBP407", what, self.where, fix)
        with self._lock:
            key = (output, explain)
            if key not in self._others:
                built, kept = self._build(self._again(), output=output, explain=explain)
                self._others[key] = self._start(built, kept), {e.key: e.value for e in built.metadata_props}
            return self._others[key]

    def several(self, count: int) -> BatchRunner:
        """The explainer of `count` targets of one image at once (see `build_loaded`); built on first use."""
        with self._lock:
            if count not in self._several:
                self._several[count] = self._start(*self._build(self._again(), several=count))
            return self._several[count]

    def _again(self) -> ModelFile:
        """The model as it was read first."""
        self._unchanged()
        return self._read()

    def _build(self, file: ModelFile, **changes: Any) -> tuple[onnx.ModelProto, str]:
        """The explainer of the source with some options changed, and the key under which more of it is kept."""
        return built_or_kept(file, self._asked, {**self._options, **changes}, self._cache)

    def _start(self, built: onnx.ModelProto, key: str) -> BatchRunner:
        return BatchRunner(without_bfloat16(built) if self.widened else built, self.rules, self._loading, key)


def check_threads(threads: int) -> int:
    """A number of threads, 0 for ONNX Runtime's choice. Raises GBP410."""
    if isinstance(threads, bool) or not isinstance(threads, int) or not 0 <= threads <= _MOST_THREADS:
        what = f"{threads!r} is no number of threads"
        raise InputError("GBP410", what, "threads", "pass 0 (ONNX Runtime's choice), or the number of cores to use")
    return threads


def copies_for(low_memory: bool | None, on_disk: int) -> Copies:
    """What the caller asked for, else what suits so many bytes of weights on disk."""
    if low_memory is not None:
        return Copies.NONE if low_memory else Copies.ALL
    return Copies.NONE if on_disk > LOW_MEMORY_FROM else Copies.BLOCKED if on_disk > BLOCKED_FROM else Copies.ALL


def _form(lowering: str, choice: Choice, low_memory: bool) -> str:
    """The lowering by its name; "auto" is what the provider likes, but for weights that are to have no copies."""
    return lowering if lowering != "auto" else PORTABLE if low_memory else liked_by(choice.names[0])


def _check_built(props: Mapping[str, str], options: Mapping[str, Any], lowering: str, where: str) -> None:
    """A built explainer is what it is: refuse options that ask for another one (GBP410)."""
    made = {
        "output": props["gbp.output"],
        "wrt": json.loads(props["gbp.inputs"])["image"],
        "explain": props.get("gbp.explain", "logit"),
        "rectify": tuple(json.loads(props.get("gbp.rectify", "[]"))),
        "lowering": form_of(props),
    }
    asked = {k: v for k, v in options.items() if v and not (k == "explain" and v == "logit")}
    if made["lowering"] != PORTABLE and lowering in LOWERINGS and lowering != "auto":
        asked["lowering"] = lowering
    for option, value in asked.items():
        if value != made[option]:
            what = f"this explainer was built with {made[option]!r}, not {value!r}"
            raise InputError("GBP410", what, f"{where}: {option}", "build it again from its model, with that option")


def _rules_of(asked: tuple[str, ...] | None, built: tuple[str, ...], where: str) -> tuple[str, ...]:
    """The rules to show: what was asked for; all that a built explainer has, where nothing in particular was."""
    if asked is None:
        return built
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
