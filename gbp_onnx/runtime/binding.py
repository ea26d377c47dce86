"""Arrays that stay on a device: runs that take and return ONNX Runtime's own values, and runs that a CUDA graph
replays, which need every array in a place of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gbp_onnx.runtime.providers import onnxruntime

__all__ = ["Replayed", "is_value", "run_bound"]

_NOT_CAPTURED = -1
"""The number of the graph that is none: the run is an ordinary one."""


def is_value(array: Any) -> bool:
    """Whether this is an ``onnxruntime.OrtValue`` of one tensor."""
    return isinstance(array, onnxruntime().OrtValue) and bool(array.is_tensor())


def run_bound(session: Any, feeds: Mapping[str, Any], names: Sequence[str], device: str, index: int) -> dict[str, Any]:
    """Run a session of ONNX Runtime with its outputs left on a device ("cpu", "cuda"), as OrtValues.

    `feeds`: OrtValues, wherever they are, and NumPy arrays, which are copied to where the session reads them.
    """
    binding = session.io_binding()
    for name, value in feeds.items():
        if is_value(value):
            binding.bind_ortvalue_input(name, value)
        else:
            binding.bind_cpu_input(name, np.ascontiguousarray(value))
    for name in names:
        binding.bind_output(name, device, index)
    binding.synchronize_inputs()
    session.run_with_iobinding(binding)
    binding.synchronize_outputs()
    return dict(zip(names, binding.get_outputs(), strict=True))


class Replayed:
    """Runs a session whose provider captures CUDA graphs: one graph for each set of shapes, captured in its first run
    and replayed in the later ones.

    A graph reads and writes the addresses that it was captured with, so each set of shapes has its own arrays on the
    device, which inputs are copied into. One run at a time.
    """

    def __init__(self, session: Any, device: str, index: int) -> None:
        self._session, self._device, self._index = session, device, index
        self._places: dict[Any, tuple[Any, dict[str, Any], list[Any], Any]] = {}
        self._lock = threading.Lock()

    def run(self, feeds: Mapping[str, NDArray[Any]], names: Sequence[str]) -> list[NDArray[Any]]:
        """The named outputs for these inputs, in NumPy."""
        arrays = {name: np.ascontiguousarray(value) for name, value in feeds.items()}
        key = (*((name, a.shape, a.dtype.str) for name, a in arrays.items()), *names)
        with self._lock:
            if key not in self._places:
                self._places[key] = self._prepared(arrays, names)
            binding, inputs, outputs, options = self._places[key]
            for name, array in arrays.items():
                inputs[name].update_inplace(array)
            self._session.run_with_iobinding(binding, options)
            return [np.array(value.numpy()) for value in outputs]  # the next run writes over them

    def _prepared(
        self, arrays: Mapping[str, NDArray[Any]], names: Sequence[str]
    ) -> tuple[Any, dict[str, Any], list[Any], Any]:
        """Arrays on the device for a set of shapes, bound. An ordinary run first says how large the outputs are."""
        ort = onnxruntime()
        inputs = {n: ort.OrtValue.ortvalue_from_numpy(a, self._device, self._index) for n, a in arrays.items()}
        binding = self._session.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        for name in names:
            binding.bind_output(name, self._device, self._index)
        self._session.run_with_iobinding(binding, _options(_NOT_CAPTURED))
        outputs = list(binding.get_outputs())
        binding.clear_binding_outputs()
        for name, value in zip(names, outputs, strict=True):
            binding.bind_ortvalue_output(name, value)
        return binding, inputs, outputs, _options(len(self._places) + 1)


def _options(graph: int) -> Any:
    options = onnxruntime().RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(graph))
    return options
