"""A model that runs: arrays in, arrays out, errors in the project's own words."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gbp_onnx.errors import RuntimeFailure
from gbp_onnx.runtime.binding import Replayed, run_bound
from gbp_onnx.runtime.memory import give_back
from gbp_onnx.runtime.providers import CPU, Choice, Providers, choose_providers, onnxruntime

__all__ = ["OPTIMISED", "Copies", "Session", "takes_weights_from_memory"]

OPTIMISED = ("model.onnx", "weights")
_OUTSIDE_NAME = "session.optimized_model_external_initializers_file_name"
_OUTSIDE_SIZE = "session.optimized_model_external_initializers_min_size_in_bytes"
_FOLDER = "session.model_external_initializers_file_folder_path"
_NEWER = ("Unsupported model IR version", "is under development", "Opset ", "No Op registered")


class Copies(Enum):
    """Which copies of weights ONNX Runtime may make on the CPU, in layouts that run faster.

    ALL: blocked for convolutions, packed for matrix products and transposed convolutions. BLOCKED: the former, which
    gain more. NONE: every weight stays as it lies in the file.
    """

    ALL = "all"
    BLOCKED = "blocked"
    NONE = "none"


def takes_weights_from_memory() -> bool:
    """Whether this version of ONNX Runtime takes the content of data files as bytes."""
    return hasattr(onnxruntime().SessionOptions, "add_external_initializers_from_files_in_memory")


class Session:
    """An ONNX Runtime session. Thread-safe: `run` may be called from several threads at once.

    `model`: serialised ModelProto, or the path of a model file. `threads`: intra-op threads, 0 = ONNX Runtime's choice.
    `folder`: where the external data of a serialised model lie; `held`: the content of data files that are none, by the
    location that the model gives. `copies`: of weights, in layouts that run faster. `one_block`: whether the tensors of
    a run lie in one block of memory on the CPU, which is some per cent faster for small models, and takes up to twice
    as much. `optimised`: the model is what ONNX Runtime wrote to the `into` of another session, and runs as it is.
    `into`: a folder for that, which is to be empty: a model file and one for its large weights, at home on this
    processor, by the names OPTIMISED. Raises GBP304 where ONNX Runtime refuses the model.
    """

    def __init__(
        self,
        model: bytes | str | os.PathLike[str],
        providers: Providers | Choice = "auto",
        *,
        threads: int = 0,
        where: str = "",
        folder: str | os.PathLike[str] | None = None,
        copies: Copies = Copies.ALL,
        held: Mapping[str, bytes] | None = None,
        one_block: bool = True,
        optimised: bool = False,
        into: Path | None = None,
    ) -> None:
        ort = onnxruntime()
        self.choice = providers if isinstance(providers, Choice) else choose_providers(providers)
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads
        if self.choice.names == (CPU,):
            # The search for tensors whose memory others may take over is quadratic: seconds for thousands of nodes. The
            # arena finds memory for them as quickly without, and less of it.
            options.enable_mem_reuse = False
            options.enable_mem_pattern = one_block
        if folder is not None:
            options.add_session_config_entry(_FOLDER, str(Path(folder).resolve()))
        if held:
            contents = list(held.values())
            options.add_external_initializers_from_files_in_memory(list(held), contents, list(map(len, contents)))
        if copies is not Copies.ALL:
            options.add_session_config_entry("session.disable_prepacking", "1")
        if copies is Copies.NONE:  # the level above EXTENDED is the one that changes layouts
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        if optimised:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        if into is not None:
            options.optimized_model_filepath = str(into / OPTIMISED[0])
            options.add_session_config_entry(_OUTSIDE_NAME, OPTIMISED[1])
            options.add_session_config_entry(_OUTSIDE_SIZE, str(1 << 16))
        try:
            self._session = ort.InferenceSession(
                model if isinstance(model, bytes) else os.fspath(model), options, providers=list(self.choice.providers)
            )
        except Exception as error:
            raise _refused(error, where) from error
        give_back()
        self.where = where
        self._device = int(self.choice.option("device_id") or 0)
        self._replayed = Replayed(self._session, "cuda", self._device) if self.choice.captures else None
        self.input_types = {i.name: _numpy_type(i.type) for i in self._session.get_inputs()}
        self.input_shapes: dict[str, list[Any]] = {i.name: list(i.shape) for i in self._session.get_inputs()}
        self.output_types = {o.name: _numpy_type(o.type) for o in self._session.get_outputs()}
        self.output_shapes: dict[str, list[Any]] = {o.name: list(o.shape) for o in self._session.get_outputs()}

    @property
    def providers(self) -> tuple[str, ...]:
        """The providers that the session really uses."""
        return tuple(self._session.get_providers())

    def run(self, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
        """Run the model and return its outputs (all, or those that are named). Raises GBP305 where running fails."""
        names = list(self.output_shapes if outputs is None else outputs)
        try:
            if self._replayed is not None:
                values = self._replayed.run(feeds, names)
            else:
                values = self._session.run(names, {k: np.ascontiguousarray(v) for k, v in feeds.items()})
        except Exception as error:
            raise _failed(error, self.where) from error
        return dict(zip(names, values, strict=True))

    def run_on(self, device: str, feeds: Mapping[str, Any], outputs: Sequence[str]) -> dict[str, Any]:
        """Run the model with its outputs left on a device ("cpu", "cuda"), as OrtValues. `feeds`: OrtValues or arrays.

        Raises GBP305 where running fails.
        """
        try:
            return run_bound(self._session, feeds, outputs, device, self._device)
        except Exception as error:
            raise _failed(error, self.where) from error


def _failed(error: Exception, where: str) -> RuntimeFailure:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return RuntimeFailure(
        "GBP305",
        f"ONNX Runtime failed while running the model: {lines[0] if lines else type(error).__name__}",
        where,
        "check the shapes and the memory that is free; if the model itself runs, please report this",
    )


def _refused(error: Exception, where: str) -> RuntimeFailure:
    text = " ".join(str(error).split())
    fix = "check that the source model itself runs in ONNX Runtime"
    if any(mark in text for mark in _NEWER):
        fix = "update onnxruntime, or export the model with an older opset"
    if "is not a registered function/op" in text or "Could not find an implementation" in text:
        fix = "the model needs an operator that this build of ONNX Runtime lacks"
    return RuntimeFailure("GBP304", f"ONNX Runtime refuses the model: {text}", where, fix)


def _numpy_type(name: str) -> np.dtype[Any] | None:
    """The NumPy type of an ONNX Runtime type name; None where NumPy has none (bfloat16, sequences)."""
    inner = name.removeprefix("tensor(").removesuffix(")")
    kinds = {"float": "float32", "double": "float64"}
    try:
        return np.dtype(kinds.get(inner, inner))
    except (TypeError, ValueError):
        return None
