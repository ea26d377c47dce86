"""Targets, in every form that callers may use, made into seeds."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gbp_onnx.errors import InputError
from gbp_onnx.labels import find_label, is_label, labels_for
from gbp_onnx.targets.forms import Form

__all__ = ["Target", "near_one", "one_each", "resolve", "times_power"]

Target = int | str | Sequence[Any] | tuple[int, ...] | NDArray[Any] | Form | None
"""What is explained: see `Explainer.explain`."""

ImageShape = Callable[[], tuple[int, ...]]
"""The shape of one image's output; called only where it matters, because finding it out may take a run."""


def resolve(target: Target, count: int, image_shape: ImageShape, labels: tuple[str, ...] | None) -> NDArray[Any]:
    """The seeds of `count` images: int64 [N], flat indices into an image's output (-1: its largest), or float [N, ...].

    Raises GBP407 (out of range, wrong form), GBP408 (no such label).
    """
    if isinstance(target, np.ndarray) and target.dtype.kind == "f":
        return _float_seeds(target, (count, *image_shape()))
    if isinstance(target, tuple):
        return np.full(count, _flat_index(target, (count, *image_shape())), np.int64)
    flat = [_class(one, image_shape, labels) for one in one_each(target, count)]
    if max(flat) >= 0:
        size = int(np.prod(image_shape()))
        if max(flat) >= size:
            raise _out_of_range(f"class {max(flat)}", f"the output has {size} values for each image: 0..{size - 1}")
    return np.array(flat, np.int64)


def one_each(target: Target, count: int) -> list[Any]:
    """One target for each of `count` images."""
    if isinstance(target, np.ndarray) and target.dtype.kind in "iu" and target.ndim == 1:
        target = target.tolist()
    if not isinstance(target, list):
        return [target] * count
    if len(target) != count:
        what = f"{len(target)} targets for {count} images"
        raise InputError("GBP407", what, "target", "pass one for all, or one for each")
    return target


def near_one(seeds: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intc]]:
    """Each image's float seed times a power of two that brings its largest magnitude into [1, 2), and the exponents
    that bring what is linear in the seed back (see `times_power`).

    Maps are linear in it but for signs, which no positive factor changes, under every rule. A seed of zeros, or with
    NaN or infinities, stays as it is.
    """
    largest = np.abs(seeds).max(axis=tuple(range(1, seeds.ndim)), initial=0)
    ordinary = (largest > 0) & np.isfinite(largest)
    powers = np.where(ordinary, np.frexp(largest)[1] - 1, 0).astype(np.intc)
    return times_power(seeds, -powers), powers


def times_power(values: NDArray[Any], powers: NDArray[np.intc]) -> NDArray[Any]:
    """values[i] * 2 ** powers[i], exact while the type holds it; where there is one power, all values (a map may have
    no batch axis).
    """
    if not powers.any():
        return values
    each = powers if len(powers) == 1 else powers.reshape(-1, *(1,) * (values.ndim - 1))
    with np.errstate(over="ignore", under="ignore"):
        scaled: NDArray[Any] = np.ldexp(values, each)
    return scaled


def _float_seeds(seed: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    whole = np.broadcast_to(seed, shape) if seed.shape == shape[1:] else seed
    if whole.shape != shape:
        what = f"the seed has shape {list(seed.shape)}, the output {list(shape)}"
        raise InputError("GBP407", what, "target", "pass a seed of the output's shape")
    return whole


def _flat_index(index: tuple[int, ...], shape: tuple[int, ...]) -> int:
    """The flat index of an index with or without the batch axis."""
    inner = index[1:] if len(index) == len(shape) else index
    in_batch = len(index) != len(shape) or 0 <= int(index[0]) < shape[0]
    fits = len(inner) == len(shape) - 1 and all(0 <= int(i) < d for i, d in zip(inner, shape[1:], strict=True))
    if not (in_batch and fits):
        raise _out_of_range(f"index {list(index)}", f"the output's shape is {list(shape)}")
    return int(np.ravel_multi_index([int(i) for i in inner], shape[1:]))


def _class(target: Target, image_shape: ImageShape, labels: tuple[str, ...] | None) -> int:
    """One class index, -1 for "top1"."""
    match target:
        case None | "":
            return _no_target(target) if target == "" else -1
        case str() if target.lower() == "top1":
            return -1
        case str() if target.lower() == "top5":
            what = "top5 is for explain(); attribute() takes one target for each image"
            raise InputError("GBP407", what, "target", "pass class indices")
        case str() if re.fullmatch(r"\s*\d+\s*", target) and not is_label(target, labels):
            return int(target)
        case str() if labels is None or target.lower() not in (label.lower() for label in labels):
            if re.fullmatch(r"top-?\d+", target.lower()):
                raise InputError("GBP407", f"{target!r} is no target", "target", "top1 and top5 are")
            return find_label(target, None if labels is None else labels_for(labels, int(np.prod(image_shape()))))
        case str():
            return find_label(target, None if labels is None else labels_for(labels, int(np.prod(image_shape()))))
        case bool():
            return _no_target(target)
        case int() | np.integer() if int(target) >= -1:
            return int(target)
        case _:
            return _no_target(target)


def _no_target(target: Any) -> int:
    fix = "pass a class index from 0 on, a label, top1, top5, a tuple or a float array"
    raise InputError("GBP407", f"{target!r} is no target", "target", fix)


def _out_of_range(what: str, why: str) -> InputError:
    return InputError("GBP407", f"{what} is out of range: {why}", "target", "choose a target in range")
