"""What a target means for one image: the model runs forward, and the target is chosen from what it returns."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gbp_onnx.batch import BatchRunner, Feeds
from gbp_onnx.errors import InputError
from gbp_onnx.imaging.preprocess import Frame
from gbp_onnx.labels import is_label
from gbp_onnx.seeds import Target
from gbp_onnx.targets.choose import best, choose, needs_a_look
from gbp_onnx.targets.forms import Box, Form, Index, Mask, Seed, Similar, parse
from gbp_onnx.targets.layouts import find_detections
from gbp_onnx.targets.scalar import Scalar
from gbp_onnx.targets.scene import Scene
from gbp_onnx.targets.segmentation import find_segmentation

__all__ = ["Looks"]

Prepared = tuple[Feeds, Frame | None]


class Looks:
    """Finds the scalars of one image. `prepare`: brings another image to the model, for targets that compare. `free`:
    whether nobody chose the output, so that top1 may be in another one.

    A target that a class index, a place or a float array states by itself has none: the built file takes it as it is.
    """

    def __init__(
        self,
        runner: BatchRunner,
        props: Mapping[str, str],
        labels: tuple[str, ...] | None,
        prepare: Callable[[Any], Prepared],
        free: bool,
    ) -> None:
        self._runner, self._labels, self._prepare, self._free = runner, labels, prepare, free
        tail = json.loads(props.get("gbp.tail", "{}"))
        self._tail, self._axis = tail.get("op", ""), tail.get("axis")
        self._head = props["gbp.head"] or None

    def form(self, target: Target) -> Form | None:
        """The target as a form; None for a class, a label, top1, top5, a place or a float array. Raises GBP407."""
        if isinstance(target, Index | Mask | Box | Similar | Seed):
            return target
        if not isinstance(target, str) or is_label(target, self._labels) or not target.strip():
            return None
        found = parse(target, self._runner.outputs)
        if isinstance(found, Index) and found.output not in (None, *self._runner.outputs):
            known = ", ".join(f"{n!r} {s}" for n, s in self._runner.outputs.items())
            raise InputError(
                "GBP407", f"the model has no output {found.output!r}", "target", f"its outputs are {known}"
            )
        return found

    def scalar(self, target: Target, feeds: Feeds, frame: Frame | None) -> Scalar | None:
        """What `target` means for one image (or None, see `form`); `feeds`: that image's, with a batch axis.

        top1 of a detector is its best box, of a segmenter the class of the largest area, background apart; a label is
        the best box, or the mask, of that class.
        """
        form = self.form(target)
        if form is not None:
            return choose(form, self.scene(feeds, frame), self._see)
        default = target is None or (isinstance(target, str) and target.strip().lower() == "top1")
        named = isinstance(target, str) and is_label(target, self._labels)
        if not (default or named) or not self._may_be_more(feeds):
            return None
        scene = self.scene(feeds, frame)
        if default:
            found = self._best(scene, 1)
            return self._said(type(found[0])(), scene, "top1") if found else None
        if self._in_reach(scene):
            return self._said(Box(str(target)), scene, f"{target!r}")
        return self._said(Mask(str(target)), scene, f"{target!r}") if find_segmentation(scene) is not None else None

    def five_best(self, feeds: Feeds, frame: Frame | None) -> list[Box] | list[Mask]:
        """The five best boxes of a detector, or the five largest classes of a segmenter; none where it is neither."""
        return self._best(self.scene(feeds, frame), 5) if self._may_be_more(feeds) else []

    def scene(self, feeds: Feeds, frame: Frame | None) -> Scene:
        """What the model returns for one image."""
        image = feeds[self._runner.image_input]
        shape = image.shape[1:] if self._runner.batched else image.shape
        last = shape[-1] in (1, 3, 4) and shape[0] not in (1, 3, 4)
        size = (shape[0], shape[1]) if last else (shape[-2], shape[-1])
        outputs = self._runner.forward(feeds)
        return Scene(outputs, self._runner.output, self._head, self._tail, self._axis, self._labels, frame, size, last)

    def _best(self, scene: Scene, count: int) -> list[Box] | list[Mask]:
        found = best(scene, count)
        return found if self._in_reach(scene) or not any(isinstance(f, Box) for f in found) else []

    def _in_reach(self, scene: Scene) -> bool:
        """Whether the model is a detector whose scores are in the explained output, or may be explained instead."""
        detections = find_detections(scene)
        return detections is not None and (self._free or detections.output == scene.output)

    def _may_be_more(self, feeds: Feeds) -> bool:
        """Whether the output may hold more than one value for each class: it has further axes, or boxes beside it."""
        own, batch = self._runner.outputs[self._runner.output], self._runner.shape[:1]
        others = (s for n, s in self._runner.outputs.items() if n != self._runner.output)
        if any(len(s) > 1 and s[-1] == 4 and (len(s) > 2 or s[:1] != batch) for s in others):
            return True
        return len(own) != 2 and needs_a_look(self._runner.image_shape(feeds))

    def _said(self, form: Form, scene: Scene, asked: str) -> Scalar:
        """The scalar, with a note that says what the plain target has become."""
        scalar = choose(form, scene, self._see)
        kind = "detector" if isinstance(form, Box) else "segmenter"
        measure = "score" if isinstance(form, Box) else "mean"
        note = f"the model is taken for a {kind}: {asked} is the {measure} of {scalar.name}"
        return replace(scalar, notes=(note, *scalar.notes))

    def _see(self, image: Any) -> tuple[Scene, str]:
        """The scene of another image, and its name."""
        if isinstance(image, np.ndarray) and image.dtype.kind == "f":
            return self.scene(self._arrays(image), None), "the given array"
        feeds, frame = self._prepare(image)
        name = Path(image).name if isinstance(image, str | os.PathLike) else f"<{type(image).__name__}>"
        return self.scene(feeds, frame), name

    def _arrays(self, image: NDArray[Any]) -> Feeds:
        rank = len(self._runner.shape)
        return self._runner.checked({self._runner.image_input: image[None] if image.ndim == rank - 1 else image})
