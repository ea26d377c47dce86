"""What a check is: a code, a meaning, thresholds, and functions that measure. Judging is not its business."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gbp_onnx.auditing.settings import CheckSettings

if TYPE_CHECKING:
    from gbp_onnx.auditing.case import Case, Lab

__all__ = ["Check", "Measured", "NotApplicable"]

Values = Mapping[str, float | bool | None]


class NotApplicable(Exception):  # noqa: N818 - nothing is wrong
    """This check has nothing to measure here; the text says why."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a check measured, of one image or of the whole model.

    `values`: numbers and truths by name, maps' ones as "rule.measure". `notes`: words, lists and curves for the reader
    and the report. `failure`: why it fails whatever the thresholds say; empty where it does not. `about`: what was
    measured, where that is neither an image nor the model as a whole.
    """

    values: Values = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    failure: str = ""
    about: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """A check: stable `code` and `name`, what it means, its paper, its settings, and what it measures.

    `image(case, settings)`: one image. `model(lab, settings)`: the model as a whole, once, before the images
    (`after=True`: behind them). `rules`: maps that it always reads, besides those that its settings name. `needs`: what
    a first configuration must have for it ("baseline", "annotations"); empty where nothing.
    """

    code: str
    name: str
    title: str
    meaning: str
    paper: str
    settings: type[CheckSettings]
    image: Callable[[Case, Any], Measured] | None = None
    model: Callable[[Lab, Any], Iterator[Measured]] | None = None
    after: bool = False
    rules: tuple[str, ...] = ()
    needs: str = ""
