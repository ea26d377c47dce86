"""The layouts in which detectors return boxes and scores, read off names, shapes and values.

boxes [A, 4] beside scores [A, C], [C, A] or [A], or on a grid         SSD, UltraFace, P-Net, DETR, torchvision, ...
[A, 5 + C]: centre x, centre y, width, height, objectness, classes     YOLOv3 .. v7
[4 + C, A]: centre x, centre y, width, height, classes                 Ultralytics YOLOv8 and later
[n, 6] or [n, 7]: corners, score and class of what is left             after non-maximum suppression
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gbp_onnx.targets.scene import Scene

__all__ = ["Detections", "find_detections"]

Array = NDArray[np.float64]
Entries = tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """`output`: the one that holds the scores. `scores`: float64 [A, C]; -inf where a box has no score for a class.

    `boxes`: float64 [A, 4], left, top, right, bottom in pixels of what the model saw, or None where the model's boxes
    are offsets from places that only its decoder knows. `entries(k, c)`: the places (flat index, weight) whose
    weighted sum changes as the score does. `background`: a class that stands for nothing. `layout`: in words.
    """

    output: str
    scores: Array
    boxes: Array | None
    entries: Callable[[int, int], Entries]
    background: int | None
    layout: str

    @property
    def foreground(self) -> Array:
        """The scores without the background's."""
        scores = np.where(np.isnan(self.scores), -np.inf, self.scores)
        if self.background is not None and scores.shape[1] > 1:
            scores[:, self.background] = -np.inf
        return scores


def find_detections(scene: Scene) -> Detections | None:
    """The boxes and scores among a model's outputs; None where they have none of the known layouts."""
    arrays = {n: a for n, a in scene.outputs.items() if a.dtype.kind == "f" and a.ndim >= 2}
    order = sorted(arrays, key=lambda n: n != scene.output)
    beside = (_beside(scene, name, boxes) for boxes in arrays for name in _scores_for(scene, boxes))
    alone = (layout(scene, name) for name in order for layout in (_final_rows, _with_objectness, _columns))
    return next((found for found in (*beside, *alone) if found is not None), None)


# --- boxes beside scores ------------------------------------------------------------------------------------------


def _scores_for(scene: Scene, boxes: str) -> Iterator[str]:
    """Names of the outputs that may score these boxes, the explained one first."""
    if scene.outputs[boxes].shape[-1] == 4:
        scored = [n for n, a in scene.outputs.items() if a.dtype.kind == "f" and n != boxes]
        yield from sorted(scored, key=lambda n: (n != scene.output, "score" not in n.lower()))


def _beside(scene: Scene, name: str, boxes_name: str) -> Detections | None:
    """Scores [A, C], [C, A] or [A] of boxes [A, 4]; with labels [A] beside, the class of each."""
    raw, boxes = scene.outputs[name], np.asarray(scene.outputs[boxes_name], np.float64).reshape(-1, 4)
    count = len(boxes)
    values = np.asarray(raw, np.float64)
    if values.size == count and raw.ndim <= 2:
        return _one_class_each(scene, name, values.reshape(-1), boxes, boxes_name)
    if raw.ndim >= 2 and raw.shape[-1] != values.size and values.size == count * raw.shape[-1]:
        scores, step = values.reshape(count, -1), (raw.shape[-1], 1)
    elif raw.ndim == 2 and raw.shape[1] == count:
        scores, step = values.T, (1, count)
    else:
        return None
    if raw.ndim == 3 and scene.outputs[boxes_name].ndim == 3:  # a cell of a grid each; the boxes are offsets from it
        placed: Array | None = _cells(raw.shape[:2], scene.size)
    else:
        placed = _in_pixels(boxes, _is_centred(boxes_name, boxes), "detection_boxes" in boxes_name, scene.size)
    return Detections(
        name,
        scores,
        placed,
        lambda k, c: ((k * step[0] + c * step[1], 1.0),),
        _background(scene, scores, boxes_name),
        f"scores {name!r} of {count} boxes {boxes_name!r}",
    )


def _one_class_each(scene: Scene, name: str, scores: Array, boxes: Array, boxes_name: str) -> Detections:
    """One score for each box; the class stands in an output of its own, or there is but one."""
    beside = {n: v.reshape(-1) for n, v in scene.outputs.items() if n not in (name, boxes_name)}
    whole = [
        n
        for n, flat in beside.items()
        if flat.size == len(scores) and flat.dtype.kind in "iuf" and np.array_equal(flat, np.rint(flat))
    ]
    whole.sort(key=lambda n: not ("class" in n.lower() or "label" in n.lower()))
    labels = np.maximum(beside[whole[0]].astype(np.int64), 0) if whole else np.zeros(len(scores), np.int64)
    yxyx = "detection_boxes" in boxes_name
    placed = _in_pixels(boxes, _is_centred(boxes_name, boxes), yxyx, scene.size)
    layout = f"scores {name!r} of {len(boxes)} boxes {boxes_name!r}, one class each"
    return Detections(name, _spread(scores, labels, scene), placed, lambda k, c: ((k, 1.0),), None, layout)


# --- everything in one output -------------------------------------------------------------------------------------


def _final_rows(scene: Scene, name: str) -> Detections | None:
    """[n, 6] or [n, 7]: corners, score and class of each box that is left, in one of the usual orders."""
    raw = np.asarray(scene.outputs[name], np.float64)
    rows = raw.reshape(-1, raw.shape[-1])
    if len(rows) != raw.shape[-2]:
        return None  # a picture
    columns = rows.shape[1]
    # first column of the corners, of the score, of the class
    orders = {6: ((0, 4, 5), (2, 1, 0)), 7: ((1, 6, 5), (3, 2, 1))}.get(columns, ())
    for corner, score, label in orders:
        classes, scores, box = rows[:, label], rows[:, score], rows[:, corner : corner + 4]
        whole = np.array_equal(classes, np.rint(classes)) and (classes >= -1).all() and (classes < 1e6).all()
        unit = ((scores >= 0) & (scores <= 1)).all()
        if whole and unit and (box[:, 2:] >= box[:, :2]).all():
            kept = np.maximum(classes, 0).astype(np.int64)
            return Detections(
                name,
                _spread(np.where(classes < 0, -np.inf, scores), kept, scene),
                _in_pixels(box, False, False, scene.size),
                lambda k, c, score=score: ((k * columns + score, 1.0),),  # type: ignore[misc]
                None,
                f"{len(rows)} boxes in {name!r}, [corners, score, class] each",
            )
    return None


def _with_objectness(scene: Scene, name: str) -> Detections | None:
    """[A, 5 + C]: the score of a class is objectness x class, d score = class d objectness + objectness d class."""
    rows = _matrix(scene, name)
    if rows is None or rows.shape[0] <= rows.shape[1]:
        return None
    count, width = rows.shape
    number = _number_of_classes(scene, name, width - 5)
    if number < 0 or not _is_yolo(rows[:, : 5 + number]) or len(scene.labels or ()) == number + 1:
        return None
    objectness, classes = rows[:, 4], rows[:, 5 : 5 + number] if number else np.ones((count, 1))

    def entries(k: int, c: int) -> Entries:
        own = ((k * width + 5 + c, float(objectness[k])),) if number else ()
        return ((k * width + 4, float(classes[k, c])), *own)

    layout = f"{count} boxes in {name!r}, [centre, size, objectness, {number} classes] each"
    boxes = _in_pixels(rows[:, :4], True, False, scene.size)
    return Detections(name, objectness[:, None] * classes, boxes, entries, None, layout)


def _columns(scene: Scene, name: str) -> Detections | None:
    """[4 + C, A] or [A, 4 + C]: the score of a class stands for itself."""
    table = _matrix(scene, name)
    if table is None:
        return None
    lying = table.shape[0] < table.shape[1]
    rows = table.T if lying else table
    count, width = rows.shape
    number = _number_of_classes(scene, name, width - 4)
    if number < 1 or not _is_yolo(rows[:, : 4 + number]):
        return None
    return Detections(
        name,
        rows[:, 4 : 4 + number],
        _in_pixels(rows[:, :4], True, False, scene.size),
        lambda k, c: (((4 + c) * count + k if lying else k * width + 4 + c, 1.0),),
        None,
        f"{count} boxes in {name!r}, [centre, size, {number} classes] each",
    )


def _number_of_classes(scene: Scene, name: str, columns: int) -> int:
    """How many of the last columns are classes: those behind them may be coefficients of masks, as many as another
    output has prototypes, or key points, where there are fewer labels than columns.
    """
    prototypes = [a.shape[0] for n, a in scene.outputs.items() if n != name and a.ndim == 3 and a.shape[1] > 1]
    rest = columns - next(iter(prototypes), 0)
    return min(rest, len(scene.labels)) if scene.labels else rest


def _matrix(scene: Scene, name: str) -> Array | None:
    """An output as a table; None where it comes from a head of its own, is no table, or looks like a picture."""
    table = np.asarray(scene.outputs[name], np.float64)
    headed = name == scene.output and scene.head is not None
    return table if table.ndim == 2 and not headed and min(table.shape) > 4 and not scene.is_picture(table) else None


def _is_yolo(rows: Array) -> bool:
    """Whether these rows are four numbers of a box, sizes not negative, and then probabilities."""
    shares = rows[:, 4:]
    return bool((rows[:, 2:4] >= 0).all() and rows[:, :4].any() and (shares >= 0).all() and (shares <= 1).all())


# --- boxes --------------------------------------------------------------------------------------------------------


def _spread(scores: Array, labels: NDArray[np.int64], scene: Scene) -> Array:
    """One score for each box in its class' column, -inf elsewhere."""
    most = int(labels.max(initial=0)) + 1
    spread = np.full((len(scores), max(most, len(scene.labels or ()))), -np.inf)
    spread[np.arange(len(scores)), labels] = scores
    return spread


def _is_centred(name: str, boxes: Array) -> bool:
    """Whether boxes are centre and size rather than two corners: by DETR's name, else by what is possible."""
    corners = ((boxes[:, 2] >= boxes[:, 0]) & (boxes[:, 3] >= boxes[:, 1])).mean() if len(boxes) else 1.0
    return "pred_boxes" in name or (corners < 0.99 and bool((boxes[:, 2:] >= 0).all()))


def _in_pixels(boxes: Array, centred: bool, rows_first: bool, size: tuple[int, int]) -> Array:
    """Boxes as left, top, right, bottom in pixels; those that lie within 0..1 (and a little beyond) are shares."""
    made = boxes[:, [1, 0, 3, 2]] if rows_first else boxes
    if centred:
        made = np.concatenate([made[:, :2] - made[:, 2:] / 2, made[:, :2] + made[:, 2:] / 2], axis=1)
    scale = np.array([size[1], size[0]] * 2, np.float64)
    return np.asarray(made * scale if np.abs(boxes).max(initial=0) <= 2 else made)


def _cells(grid: tuple[int, ...], size: tuple[int, int]) -> Array:
    """The cells of a grid over the picture, as boxes."""
    top, left = np.divmod(np.arange(grid[0] * grid[1]), grid[1])
    corners = np.stack([left, top, left + 1, top + 1], axis=1)
    return np.asarray(corners * np.array([size[1] / grid[1], size[0] / grid[0]] * 2))


def _background(scene: Scene, scores: Array, boxes_name: str) -> int | None:
    """The class that stands for no object: by its label; DETR's last; the first of scores that sum to 1."""
    classes = int(scores.shape[1])
    names = scene.class_names(classes)
    if names is not None and names[0].strip().casefold() in ("background", "__background__", "bg"):
        return 0
    if classes < 2:
        return None
    if "pred_boxes" in boxes_name:
        return classes - 1
    shares = len(scores) > 0 and bool((scores >= 0).all()) and bool(np.allclose(scores.sum(axis=1), 1, atol=1e-2))
    return 0 if shares or scene.head == "LogSoftmax" else None
