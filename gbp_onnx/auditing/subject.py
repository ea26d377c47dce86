"""A model under audit: its explanations, its plain forward pass, and the scalar that is explained."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from gbp_onnx.batch import BatchRunner
from gbp_onnx.errors import AuditError, InputError
from gbp_onnx.graph.files import read_model, serialised
from gbp_onnx.imaging.preprocess import Frame, apply, default_preprocess, fit_to_input, from_metadata, parse_preprocess
from gbp_onnx.labels import Labels, labels_for, labels_from_metadata, read_labels
from gbp_onnx.lowering import liked_by
from gbp_onnx.probes import forward_of, probe_names
from gbp_onnx.runtime.providers import CPU, Choice
from gbp_onnx.runtime.session import Session
from gbp_onnx.target import build_loaded, is_explainer
from gbp_onnx.types import Preprocess
from gbp_onnx.variants import Loading

__all__ = ["Run", "Subject"]


@dataclass(frozen=True, slots=True)
class Run:
    """One image, explained. `values`: the output, flat; `maps`: float32 [H, W, C] in the frame, RGB; `raw`: the
    attributions in the model's own layout; `explained`: the explained scalar.
    """

    values: NDArray[Any]
    maps: dict[str, NDArray[np.float32]]
    raw: dict[str, NDArray[np.float32]]
    explained: float
    target: int


class Subject:
    """A model, with everything that checks ask of it. Thread-safe; sessions are made when they are first used.

    `model`: a source model (path or ModelProto). `rules`: what `explain` computes, all from one forward pass.
    `threads`: of each session; 0: as ONNX Runtime chooses.
    """

    def __init__(
        self,
        model: str | Path | onnx.ModelProto,
        rules: Sequence[str],
        choice: Choice,
        *,
        preprocess: Any = None,
        labels: Labels | None = None,
        options: dict[str, Any] | None = None,
        threads: int = 0,
        where: str,
    ) -> None:
        file = read_model(model)
        self.source, self._folder = file.model, file.folder
        if is_explainer(self.source):
            fix = "name the model that it was built from"
            raise AuditError("GBP502", "this is a built explainer, audits take models", where, fix)
        self.where, self.rules, self.choice, self.threads = where, tuple(rules), choice, threads
        self.options = dict(options or {})
        copy = onnx.ModelProto()
        copy.CopyFrom(self.source)
        self.built = build_loaded(replace(file, model=copy, where=where), self.rules, **self.options)
        form = liked_by(choice.names[0])
        self.runner = BatchRunner(self.built, self.rules, Loading(choice, where, form, file.folder, threads=threads))
        props = {e.key: e.value for e in self.built.metadata_props}
        self.sha256 = props["gbp.source_sha256"]
        self.props, self.head = props, props["gbp.head"] or None
        given = None if preprocess is None else parse_preprocess(preprocess)
        self.guessed = given is None and from_metadata(props) is None
        self.preprocess = given or from_metadata(props) or default_preprocess(self.runner.dtype)
        if self.runner.further_inputs:
            inputs = ", ".join(map(repr, self.runner.further_inputs))
            raise InputError("GBP406", f"the model has further inputs ({inputs})", where, "audits give it photographs")
        self._labels = read_labels(labels) if labels is not None else labels_from_metadata(props, where)
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}
        self._twin: Subject | None = None

    @property
    def providers(self) -> tuple[str, ...]:
        """The execution providers that are really used."""
        return self.runner.providers

    @cached_property
    def fitted(self) -> Preprocess:
        """The preprocessing with size and layout settled."""
        return fit_to_input(self.preprocess, self.runner.shape, self.runner.dtype.kind in "iu")

    def labels(self, classes: int) -> tuple[str, ...] | None:
        """The labels, where they fit an output of so many values."""
        return labels_for(self._labels, classes)

    def see(self, photo: Any) -> tuple[NDArray[Any], Frame]:
        """A photograph as the model's input, batch axis first, and the frame that it saw."""
        x, frame = apply(photo, self.fitted, self.runner.dtype)
        return (x[None] if self.runner.batched else x), frame

    def explain(self, x: NDArray[Any], frame: Frame, target: int = -1) -> Run:
        """Explain one image. `target`: a flat index into its output, -1 for the largest value."""
        found = self.runner.run({self.runner.image_input: x}, np.array([target]))
        values = found.values[0].reshape(-1)
        raw = {rule: a[0] if self.runner.batched else a for rule, a in found.attributions.items()}
        maps = {rule: frame.to_rgb_hwc(a, self.fitted) for rule, a in raw.items()}
        at = int(np.argmax(np.where(np.isnan(values), -np.inf, values))) if target < 0 else target
        return Run(values, maps, raw, float(found.explained[0]), at)

    def forward(self, x: NDArray[Any]) -> NDArray[Any]:
        """The source model's own output for one image, flat."""
        return self._plain.run({self.runner.image_input: x}, [self.runner.output])[self.runner.output].reshape(-1)

    def values(self, batch: NDArray[Any]) -> NDArray[np.float64]:
        """The source model's output for a batch of images [N, ...]: float64 [N, classes]."""
        fixed = self.runner.shape[0] if self.runner.batched else 1
        step = 1 if self._on_cpu or (isinstance(fixed, int) and fixed == 1) else 8
        if isinstance(fixed, int) and fixed > 1:
            step = fixed
        rows = []
        for start in range(0, len(batch), step):
            part = batch[np.minimum(np.arange(start, start + step), len(batch) - 1)]
            found = self._plain.run(
                {self.runner.image_input: part if self.runner.batched else part[0]}, [self.runner.output]
            )[self.runner.output]
            rows.append(found.reshape(len(part), -1)[: len(batch) - start])
        return np.concatenate(rows).astype(np.float64)

    def classes(self, x: NDArray[Any]) -> int:
        """How many values the output has for one image."""
        return int(np.prod(self.runner.image_shape({self.runner.image_input: x})))

    def probabilities(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """The output as probabilities over its last axis: as it is behind a Softmax or Sigmoid (also a quantised one,
        or one that a file hides in another form), else by a softmax.
        """
        v = np.asarray(values, np.float64)
        head = (self.head or "").removeprefix("QLinear")
        whole = bool((v >= 0).all() and (np.abs(v.sum(axis=-1) - 1) < 0.1).all())
        if head in ("Softmax", "Sigmoid") or whole:
            return v
        powers = np.exp(v - v.max(axis=-1, keepdims=True))
        shares: NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
        return shares

    def elsewhere(self, choice: Choice) -> Subject:
        """The same model on other providers, made once."""
        with self._lock:
            if self._twin is None:
                self._twin = Subject(
                    self.source,
                    self.rules,
                    choice,
                    preprocess=self.preprocess,
                    options=self.options,
                    threads=self.threads,
                    where=self.where,
                )
            return self._twin

    def scalar(self, x: NDArray[Any], target: int) -> float:
        """The scalar that is explained, by a forward pass alone."""
        target_input = json.loads(self.props["gbp.inputs"])["target"]
        found = self._scalar.run({self.runner.image_input: x, target_input: np.array([target], np.int64)})
        explained, seed = (np.asarray(found[name], np.float64) for name in probe_names(self.props))
        return float(np.where(seed != 0, explained * seed, 0.0).sum())

    @property
    def _on_cpu(self) -> bool:
        return self.runner.providers[0] == CPU

    @property
    def _plain(self) -> Session:
        return self._session("plain", lambda: self.source)

    @property
    def _scalar(self) -> Session:
        return self._session("scalar", lambda: forward_of(self.built))

    def _session(self, key: str, make: Callable[[], onnx.ModelProto]) -> Session:
        with self._lock:
            if key not in self._sessions:
                self._sessions[key] = Session(
                    serialised(make(), self.where),
                    self.choice,
                    threads=self.threads,
                    where=self.where,
                    folder=self._folder,
                )
            return self._sessions[key]
