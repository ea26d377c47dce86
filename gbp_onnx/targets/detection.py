"""The score of a detector's box for a class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gbp_onnx.errors import InputError
from gbp_onnx.imaging.outline import Outline
from gbp_onnx.targets.forms import Box
from gbp_onnx.targets.layouts import Detections
from gbp_onnx.targets.region import rectangle_in_frame
from gbp_onnx.targets.scalar import Scalar, target_index
from gbp_onnx.targets.scene import Scene
from gbp_onnx.types import Prediction

__all__ = ["best_boxes", "of_box"]

OVERLAP = 0.45  # boxes of one class that overlap more (intersection over union) are one object
CANDIDATES = 300


def of_box(form: Box, scene: Scene, found: Detections) -> Scalar:
    """The scalar of a box target. Raises GBP407 where there is no such box."""
    scores = found.foreground
    classes = scores.shape[1]
    if not np.isfinite(scores).any():
        what = "the model finds no box in this image"
        raise InputError("GBP407", what, "target", "choose another image, or an entry: OUTPUT[0, 1, 2]")
    label = None if form.label is None else scene.class_index(form.label, classes)
    column = scores.max(axis=1) if label is None else found.scores[:, label]
    box = _chosen(form, scene, found, column)
    if label is None:
        label = int(scores[box].argmax())
    score = float(found.scores[box, label])
    if not np.isfinite(score):
        what = f"box {box} has no score for {scene.name_of(label, classes)}"
        raise InputError("GBP407", what, "target", f"choose box:@{box}, whatever its class")
    names, entries = scene.class_names(classes), found.entries(box, label)
    shape = scene.outputs[found.output].shape
    notes = [f"read as a detector: {found.layout}"]
    if form.label is None and found.background is not None and names is None:
        notes.append(f"class {found.background} is taken as background")
    single = len(entries) == 1
    return Scalar(
        output=found.output,
        seed=entries[0][0] if single else _seed(entries, shape),
        target=target_index(entries[0][0], shape) if single else f"box:{label}@{box}",
        label=None if names is None else names[label],
        name=f"{scene.name_of(label, classes)} in box {box}",
        score=score,
        value=None if single else score,
        outline=None if found.boxes is None else Outline(box=tuple(map(float, found.boxes[box]))),  # type: ignore[arg-type]
        notes=tuple(notes),
        predictions=tuple(
            Prediction(c, None if names is None else names[c], float(found.scores[k, c]))
            for k, c in best_boxes(found, 5)
        ),
    )


def best_boxes(found: Detections, count: int) -> list[tuple[int, int]]:
    """(box, class) of the best scores, each object once: a box that overlaps a better one of its class is left out."""
    scores = found.foreground
    best = scores.argmax(axis=1)
    top = scores[np.arange(len(scores)), best] if len(scores) else np.zeros(0)
    order = [int(k) for k in np.argsort(-top, kind="stable")[:CANDIDATES] if np.isfinite(top[k])]
    kept: list[tuple[int, int]] = []
    for k in order:
        same = [j for j, c in kept if c == best[k]]
        if found.boxes is None or not same or overlaps(found.boxes[same], found.boxes[k]).max() <= OVERLAP:
            kept.append((k, int(best[k])))
        if len(kept) == count:
            break
    return kept


def overlaps(boxes: NDArray[np.float64], box: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intersection over union of each of `boxes` [A, 4] with `box` [4]."""
    low, high = np.maximum(boxes[:, :2], box[:2]), np.minimum(boxes[:, 2:], box[2:])
    shared = np.maximum(high - low, 0).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod() - shared
    return np.asarray(np.divide(shared, areas, out=np.zeros_like(shared), where=areas > 0))


def _chosen(form: Box, scene: Scene, found: Detections, column: NDArray[np.float64]) -> int:
    """The box's number."""
    if isinstance(form.place, int):
        if not 0 <= form.place < len(column):
            what = f"box {form.place} is out of range: the model returns {len(column)} boxes"
            raise InputError("GBP407", what, "target", f"choose 0..{len(column) - 1}")
        return form.place
    if form.place is None:
        return int(np.where(np.isnan(column), -np.inf, column).argmax())
    if found.boxes is None:
        raise InputError("GBP407", "the model's boxes have no place here", "target", "give the number of a box")
    shared = overlaps(found.boxes, rectangle_in_frame(form.place, scene.frame))
    if not shared.max() > 0:
        raise InputError("GBP407", "no box of the model overlaps this region", "target", "give the number of a box")
    near = np.where(shared >= 0.9 * shared.max(), np.where(np.isfinite(column), column, -np.inf), -np.inf)
    return int(near.argmax())


def _seed(entries: tuple[tuple[int, float], ...], shape: tuple[int, ...]) -> NDArray[np.float64]:
    seed = np.zeros(int(np.prod(shape)))
    for place, weight in entries:
        seed[place] = weight
    return seed.reshape(shape)
