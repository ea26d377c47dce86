"""Forbidden regions: the map lies on a watermark, a border, a corner: a Clever Hans."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gbp_onnx.auditing.case import Case
from gbp_onnx.auditing.check import Check, Measured, NotApplicable
from gbp_onnx.auditing.places import border, corners, energy_inside, fraction_box
from gbp_onnx.auditing.settings import CheckSettings, boxes, limit, names, number, text
from gbp_onnx.imaging.regions import in_frame, read_mask

__all__ = ["CHECK"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Forbidden(CheckSettings):
    """Where the map must not lie. Ratios: the share of the map there over the region's share of the frame."""

    rules: tuple[str, ...] = names(("guided",), "the maps that are looked at")
    border: float = number(0.05, "width of the frame's border, of its shorter side; 0: not looked at", 0.0, 0.5)
    corners: float = number(0.15, "side of the four corners, of the frame's sides; 0: not looked at", 0.0, 0.5)
    regions: tuple[tuple[float, ...], ...] = boxes(
        "places in the photograph, for instance a watermark: [[left, top, right, bottom]], fractions of its sides"
    )
    mask: str | None = text(None, "a picture, white where nothing may lie; it is stretched over each photograph")
    max_border_ratio: float | None = limit(2.0, "1 is what an even map would have there", 0)
    max_corners_ratio: float | None = limit(3.0, "1 is what an even map would have there", 0)
    max_regions_ratio: float | None = limit(2.0, "1 is what an even map would have there", 0)
    max_mask_ratio: float | None = limit(2.0, "1 is what an even map would have there", 0)
    max_mean_border_ratio: float | None = limit(1.5, "mean over the images, as the following one", 0)
    max_mean_corners_ratio: float | None = limit(1.5, "", 0)
    max_regions_share: float | None = limit(None, "share of the map on the regions", 0, 1, shown=False)
    max_mask_share: float | None = limit(None, "share of the map under the mask", 0, 1, shown=False)


def measure(case: Case, settings: Forbidden) -> Measured:
    """The share of each map on each kind of place."""
    places = dict(_places(case, settings))
    if not places:
        raise NotApplicable("no region is named, or none lies in what the model sees")
    values: dict[str, float | bool] = {}
    for rule in settings.rules:
        heat = case.heat(rule)
        for name, inside in places.items():
            share = energy_inside(heat, inside)
            values[f"{rule}.{name}_share"] = share
            values[f"{rule}.{name}_ratio"] = share / float(inside.mean())
    return Measured(values)


def _places(case: Case, settings: Forbidden) -> list[tuple[str, NDArray[np.bool_]]]:
    """The regions in the frame, those that are not empty."""
    frame = case.frame
    size, photo = frame.image.shape[:2], (case.photo.height, case.photo.width)
    found = []
    if settings.border:
        found.append(("border", border(size, settings.border)))
    if settings.corners:
        found.append(("corners", corners(size, settings.corners)))
    if settings.regions:
        whole = np.zeros(photo, bool)
        for box in settings.regions:
            whole |= fraction_box(photo, box)
        found.append(("regions", in_frame(whole, frame)))
    if settings.mask is not None:
        found.append(("mask", in_frame(read_mask(case.lab.config.place(settings.mask), photo), frame)))
    return [(name, inside) for name, inside in found if inside.any()]


CHECK = Check(
    code="GBP-A6",
    name="forbidden",
    title="Forbidden regions",
    meaning="The map does not gather where no evidence can be: borders, corners, watermarks, places that a mask names.",
    paper="Lapuschkin et al. 2019, Unmasking Clever Hans Predictors and Assessing What Machines Really Learn",
    settings=Forbidden,
    image=measure,
)
