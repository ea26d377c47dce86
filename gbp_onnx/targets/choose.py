"""A target and what the model returned for one image, made into the scalar that is explained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gbp_onnx.errors import InputError
from gbp_onnx.targets.detection import best_boxes, of_box
from gbp_onnx.targets.forms import Box, Form, Index, Mask, Seed, Similar
from gbp_onnx.targets.layouts import find_detections
from gbp_onnx.targets.scalar import Scalar, target_index
from gbp_onnx.targets.scene import Scene
from gbp_onnx.targets.segmentation import find_segmentation, is_segmenter, over_mask
from gbp_onnx.targets.similarity import similar_to

__all__ = ["best", "choose", "needs_a_look"]


def choose(form: Form, scene: Scene, see: Callable[[Any], tuple[Scene, str]]) -> Scalar:
    """The scalar of a target. `see`: runs the model on another image, and gives that image's name too.

    Raises GBP407, GBP408, and what reading files may raise.
    """
    match form:
        case Index():
            return _at(form, scene)
        case Mask():
            segmentation = find_segmentation(scene)
            if segmentation is None:
                raise _unfit("a mask needs an output with a value for each class and place", scene)
            return over_mask(form, scene, segmentation)
        case Box():
            detections = find_detections(scene)
            if detections is None:
                raise _unfit("no boxes with scores are found among the outputs", scene)
            return of_box(form, scene, detections)
        case Similar():
            return similar_to(scene, *see(form.image))
        case Seed():
            return _from_seed(form, scene)


def best(scene: Scene, count: int) -> list[Box] | list[Mask]:
    """What a detector or a segmenter sees best, at most `count` targets; none where the model is neither."""
    detections = find_detections(scene)
    if detections is not None:
        found = best_boxes(detections, count)
        return [Box(c, k) for k, c in found] or [Box()]  # without any box, that is what the error says
    segmentation = find_segmentation(scene)
    if segmentation is not None and is_segmenter(scene, segmentation):
        return [Mask(c) for c in segmentation.by_area()[:count]]
    return []


def needs_a_look(shape: tuple[int, ...]) -> bool:
    """Whether the largest value of an output of this shape may be no class: more than one axis counts."""
    return sum(d != 1 for d in shape) > 1 or 0 in shape


def _at(form: Index, scene: Scene) -> Scalar:
    name = form.output or scene.output
    value = scene.outputs[name]
    key = _fitted(form, value.shape)
    picked = np.asarray(value[key], np.float64)
    if not picked.size:
        raise InputError("GBP407", f"{form} is empty: the output has shape {list(value.shape)}", "target", "widen it")
    words = str(Index(name, key))
    if all(isinstance(k, int) for k in key):
        flat = int(np.ravel_multi_index(key, value.shape)) if key else 0  # type: ignore[arg-type]
        names = scene.class_names(value.size)
        target = target_index(flat, value.shape)
        label = names[flat] if names is not None and name == scene.output and isinstance(target, int) else None
        return Scalar(name, flat, target, label, label or words, float(picked))
    seed = np.zeros(value.shape)
    seed[key] = 1 / picked.size
    return Scalar(name, seed, words, None, f"mean of {words}", float(picked.mean()))


def _fitted(form: Index, shape: tuple[int, ...]) -> tuple[int | slice, ...]:
    """The key without the batch axis; places from 0 on, within the shape."""
    key = form.key
    if len(key) == len(shape) + 1 and key[0] in (0, slice(None)):
        key = key[1:]
    fits = len(key) == len(shape) and all(0 <= k < d for k, d in zip(key, shape, strict=True) if isinstance(k, int))
    if not fits:
        what = f"index {form} is out of range: one image's output has shape {list(shape)}"
        raise InputError(
            "GBP407", what, "target", "choose a place in range, with or without the batch axis (0) in front"
        )
    return key


def _from_seed(form: Seed, scene: Scene) -> Scalar:
    seed = form.read(scene.output)
    shape = scene.outputs[scene.output].shape
    if seed.shape not in (shape, (1, *shape)):
        what = f"the seed has shape {list(seed.shape)}, one image's output {scene.output!r} {list(shape)}"
        raise InputError("GBP407", what, str(form.path), "save a seed of the output's shape")
    weights: NDArray[Any] = seed.reshape(shape)
    return Scalar(scene.output, weights, None, None, f"the seed {form.path}", None)


def _unfit(what: str, scene: Scene) -> InputError:
    fix = f"the outputs, for one image: {scene.in_words}; name an entry: OUTPUT[0, 1, 2]"
    return InputError("GBP407", what, "target", fix)
