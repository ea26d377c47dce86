"""A class over its mask: the mean of its values over the pixels where it is predicted, or over a given region."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gbp_onnx.errors import InputError
from gbp_onnx.imaging.outline import Outline
from gbp_onnx.targets.forms import Mask
from gbp_onnx.targets.region import in_frame, on_grid
from gbp_onnx.targets.scalar import Scalar
from gbp_onnx.targets.scene import Scene
from gbp_onnx.types import Prediction

__all__ = ["Segmentation", "find_segmentation", "is_segmenter", "over_mask", "seen_in"]

BACKGROUNDS = ("background", "__background__", "bg", "_background_", "unlabeled", "unlabelled", "void", "none")


@dataclass(frozen=True, slots=True, eq=False)
class Segmentation:
    """An output with one value for each class and cell of a grid over the picture.

    `classes`: float64 [C, h, w]. `axis`: where C stands in one image's output. `predicted`: int [h, w], the class of
    each cell; -1 where an output of one class says no. `background`: a class that stands for nothing, or None.
    """

    classes: NDArray[np.float64]
    axis: int
    predicted: NDArray[np.int64]
    background: int | None

    @property
    def shares(self) -> NDArray[np.float64]:
        """The share of the picture that each class covers."""
        counts = np.bincount(self.predicted[self.predicted >= 0].ravel(), minlength=len(self.classes))
        return np.asarray(counts / max(1, self.predicted.size), np.float64)

    def by_area(self) -> list[int]:
        """Classes that are predicted somewhere, the largest area first, background last."""
        shares = self.shares
        order = sorted(np.flatnonzero(shares), key=lambda c: (c == self.background, -shares[c]))
        return [int(c) for c in order]


def find_segmentation(scene: Scene) -> Segmentation | None:
    """The explained output as a segmentation: rank 3, with an axis of classes. None where it is no such thing."""
    values = scene.values
    if values.ndim == 2:
        if not scene.is_picture(values):
            return None
        values, axis = values[None], 0
    elif values.ndim == 3:
        axis = _class_axis(scene, values)
    else:
        return None
    classes = np.moveaxis(values, axis, 0)
    if min(classes.shape[1:]) < 2:
        return None
    if len(classes) == 1:
        threshold = 0.5 if scene.head == "Sigmoid" else 0.0
        predicted = np.where(classes[0] > threshold, 0, -1)
    else:
        predicted = np.where(np.isnan(classes), -np.inf, classes).argmax(axis=0)
    return Segmentation(classes, axis, predicted.astype(np.int64), _background(scene, len(classes)))


def is_segmenter(scene: Scene, found: Segmentation) -> bool:
    """Whether the output is surely a segmentation, so that no single pixel of it is what a user asks for.

    A tail that decides over the classes, a Softmax or Sigmoid, fitting labels, or a grid of the input's own size
    with another number of channels than a picture has.
    """
    classes = len(found.classes)
    full = found.classes.shape[1:] == scene.size
    if scene.values.ndim == 2:
        return full and scene.head == "Sigmoid"
    if (scene.axis is not None and scene.tail) or scene.head in ("Softmax", "LogSoftmax", "Sigmoid"):
        return True
    return (scene.labels is not None and scene.class_names(classes) is not None) or (full and classes not in (1, 3))


def over_mask(form: Mask, scene: Scene, found: Segmentation) -> Scalar:
    """The scalar of a mask target. Raises GBP407 where the class is predicted nowhere and no region is given."""
    count = len(found.classes)
    frame_mask = None if form.region is None else in_frame(form.region, scene.frame, scene.size)
    region = None if frame_mask is None else on_grid(frame_mask, found.predicted.shape)
    label = _label(form, scene, found, region)
    where = found.predicted == label if region is None else region
    if not where.any():
        areas = ", ".join(f"{scene.name_of(c, count)} ({found.shares[c]:.1%})" for c in found.by_area()[:5])
        what = f"{scene.name_of(label, count)} is predicted nowhere in this image"
        fix = f"it sees {areas or 'nothing'}; or give a region: mask:{label}@left,top,right,bottom"
        raise InputError("GBP407", what, "target", fix)
    weights = np.zeros(found.classes.shape)
    weights[label][where] = 1 / where.sum()
    seed = np.moveaxis(weights, 0, found.axis).reshape(scene.values.shape)
    share = f"{where.mean():.1%} of the picture"
    name, names = scene.name_of(label, count), scene.class_names(count)
    over = f"its predicted mask, {share}" if region is None else f"the region, {share}"
    guessed = form.label is None and found.background is not None and names is None
    outline = _enlarged(where, scene.size) if frame_mask is None else frame_mask
    return Scalar(
        output=scene.output,
        seed=seed,
        target=f"mask:{label}" + ("" if form.region is None else f"@{_region_text(form)}"),
        label=None if names is None else names[label],
        name=f"{name} over {over}",
        score=float(found.classes[label][where].mean()),
        outline=Outline(mask=outline),
        notes=(f"class {found.background} is taken as background",) if guessed else (),
        predictions=seen_in(scene, found),
        shares=True,
    )


def seen_in(scene: Scene, found: Segmentation) -> tuple[Prediction, ...]:
    """The five classes of the largest areas; their scores are shares of the picture."""
    names, shares = scene.class_names(len(found.classes)), found.shares
    return tuple(
        Prediction(c, None if names is None else names[c], float(shares[c]))
        for c in sorted(found.by_area(), key=lambda c: -shares[c])[:5]
    )


def _label(form: Mask, scene: Scene, found: Segmentation, region: NDArray[np.bool_] | None) -> int:
    count = len(found.classes)
    if form.label is not None:
        return scene.class_index(form.label, count)
    if count == 1:
        return 0
    if region is None:
        return next(iter(found.by_area()))
    inside = np.bincount(found.predicted[region], minlength=count)
    if found.background is not None and inside.sum() > inside[found.background]:
        inside[found.background] = 0
    return int(inside.argmax())


def _class_axis(scene: Scene, values: NDArray[np.float64]) -> int:
    """Where the classes stand in [C, h, w] or [h, w, C]: the tail decides over them, a Softmax sums to 1 there, the
    labels fit, or the image input has its channels there.
    """
    if scene.tail and scene.axis is not None:
        return scene.axis - 1 if scene.axis > 0 else scene.axis % values.ndim
    candidates: Sequence[int] = (2, 0) if scene.channels_last else (0, 2)
    if scene.head in ("Softmax", "LogSoftmax"):
        shares = np.exp(values) if scene.head == "LogSoftmax" else values
        for axis in candidates:
            if np.allclose(shares.sum(axis=axis), 1, atol=1e-2):
                return axis
    if scene.labels is not None:
        for axis in candidates:
            if scene.class_names(values.shape[axis]) is not None:
                return axis
    return candidates[0]


def _background(scene: Scene, classes: int) -> int | None:
    """The class that stands for nothing: by its label, or class 0 where there are several without labels."""
    names = scene.class_names(classes)
    if names is None:
        return 0 if classes > 1 else None
    return next((k for k, name in enumerate(names) if name.strip().casefold() in BACKGROUNDS), None)


def _enlarged(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    rows, columns = (((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(size, mask.shape, strict=True))
    return np.asarray(mask[np.ix_(rows, columns)])


def _region_text(form: Mask) -> str:
    if isinstance(form.region, tuple):
        return ",".join(f"{n:g}" for n in form.region)
    return "region" if isinstance(form.region, np.ndarray) else str(form.region)
