"""What a model returned for one image, and what is known about it: what targets are chosen from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gbp_onnx.errors import InputError
from gbp_onnx.imaging.preprocess import Frame
from gbp_onnx.labels import find_label, labels_for

__all__ = ["Scene"]


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """`outputs`: the model's arrays for one image, without batch axis, and inner tensors that targets point into.

    `output`: the name of the one that the explainer was built for. `head`: Softmax, LogSoftmax, Sigmoid or None.
    `tail`: the operator behind the output where it is an inner tensor ("" else), `axis` the one over which it decides
    (the batch axis counted). `frame`: what the model saw, `size` its height and width. `channels_last`: as the input.
    """

    outputs: Mapping[str, NDArray[Any]]
    output: str
    head: str | None
    tail: str
    axis: int | None
    labels: tuple[str, ...] | None
    frame: Frame | None
    size: tuple[int, int]
    channels_last: bool

    @property
    def values(self) -> NDArray[np.float64]:
        """The explained output, as float64."""
        return np.asarray(self.outputs[self.output], np.float64)

    def class_names(self, classes: int) -> tuple[str, ...] | None:
        """The labels, where they fit so many classes."""
        return labels_for(self.labels, classes)

    def class_index(self, label: int | str, classes: int) -> int:
        """The class of an index or label. Raises GBP407 (out of range), GBP408 (no such label)."""
        if isinstance(label, str):
            return find_label(label, self.class_names(classes))
        if not 0 <= label < classes:
            what = f"class {label} is out of range: there are {classes}, 0..{classes - 1}"
            raise InputError("GBP407", what, "target", "choose a class in range")
        return int(label)

    def name_of(self, label: int, classes: int) -> str:
        """A class in words."""
        names = self.class_names(classes)
        return f"class {label}" if names is None else names[label]

    def is_picture(self, table: NDArray[Any]) -> bool:
        """Whether two axes have the picture's proportions, as rows and columns of something else hardly ever have."""
        ratio = table.shape[0] * self.size[1] / max(1, table.shape[1] * self.size[0])
        return bool(0.8 < ratio < 1.25)

    @property
    def in_words(self) -> str:
        """The outputs and their shapes, for messages."""
        return ", ".join(f"{name!r} {list(value.shape)}" for name, value in self.outputs.items())
