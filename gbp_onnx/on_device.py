"""Attributions of arrays that are on a device already, left there: ONNX Runtime's values in, its values out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gbp_onnx.batch import BatchRunner
from gbp_onnx.errors import InputError
from gbp_onnx.runtime.binding import is_value
from gbp_onnx.seeds import Target, resolve

__all__ = ["attributions_on_device"]


@dataclass(frozen=True, slots=True)
class _Shape:
    """The shape of an array that is elsewhere."""

    shape: tuple[int, ...]


def attributions_on_device(
    runner: BatchRunner, x: Any, target: Target | Any, labels: tuple[str, ...] | None, where: str
) -> dict[str, Any]:
    """The attributions of the batch `x`, an OrtValue, from one run: OrtValues on its device, by rule.

    `target`: classes, or float seeds of the output's shape as an OrtValue. Raises GBP405, GBP407, GBP408.
    """
    shape = _checked(runner, x, where)
    if isinstance(target, np.ndarray) and target.dtype.kind == "f":
        what = "the image is an OrtValue, the seed an array"
        raise InputError("GBP407", what, "target", "pass the seed as an OrtValue too, or the image as an array")
    session, name = runner.session_for({runner.image_input: _Shape(shape)}, is_value(target))
    if not is_value(target):
        count = shape[0] if runner.batched else 1
        target = resolve(target, count, lambda: runner.image_shape({runner.image_input: x.numpy()}), labels)
    names = list(runner.maps.values())
    found = session.run_on(x.device_name(), {runner.image_input: x, name: target}, names)
    return {rule: found[output] for rule, output in runner.maps.items()}


def _checked(runner: BatchRunner, x: Any, where: str) -> tuple[int, ...]:
    """The shape of a value that is the model's image input. Raises GBP405 where it does not fit."""
    shape, kind = tuple(x.shape()), x.data_type().removeprefix("tensor(").removesuffix(")")
    wanted = {"float32": "float", "float64": "double"}.get(runner.dtype.name, runner.dtype.name)
    sizes = zip(runner.shape, shape, strict=False)
    fits = len(shape) == len(runner.shape) and all(not isinstance(d, int) or d == n for d, n in sizes)
    if runner.further_inputs or kind != wanted or not fits or 0 in shape:
        what = f"the model takes {wanted} {runner.shape}" + (" and further inputs" if runner.further_inputs else "")
        raise InputError("GBP405", f"{what}, not {kind} {list(shape)} alone", where, "pass arrays from NumPy")
    return shape
