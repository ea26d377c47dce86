"""Localisation: the map lies on the annotated object."""

from __future__ import annotations

from dataclasses import dataclass

from gbp_onnx.auditing.case import Case
from gbp_onnx.auditing.check import Check, Measured
from gbp_onnx.auditing.places import energy_inside, pointing_game
from gbp_onnx.auditing.settings import CheckSettings, limit, names, whole

__all__ = ["CHECK"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Localisation(CheckSettings):
    """How much of the map must lie on the object."""

    rules: tuple[str, ...] = names(("guided",), "the maps that are looked at")
    min_mean_pointing: float | None = limit(0.6, "share of images whose strongest pixel lies on the object", 0, 1)
    min_energy: float | None = limit(None, "share of the map that lies on the object, each image", 0, 1, shown=False)
    min_mean_energy: float | None = limit(None, "the same, mean over the images", 0, 1, shown=False)
    min_mean_energy_ratio: float | None = limit(1.0, "that share over the object's share of the frame, mean", 0)
    min_energy_ratio: float | None = limit(None, "the same, each image", 0, shown=False)
    tolerance: int = whole(0, "pixels that the strongest one may lie beside the object (Zhang et al. 2016: 15)")


def measure(case: Case, settings: Localisation) -> Measured:
    """Pointing game and energy inside, for each rule."""
    inside = case.annotation
    values: dict[str, float | bool] = {"object_share": float(inside.mean())}
    for rule in settings.rules:
        heat = case.heat(rule)
        energy = energy_inside(heat, inside)
        values |= {
            f"{rule}.pointing": float(pointing_game(heat, inside, settings.tolerance)),
            f"{rule}.energy": energy,
            f"{rule}.energy_ratio": energy / float(inside.mean()),
        }
    return Measured(values)


CHECK = Check(
    code="GBP-A5",
    name="localisation",
    title="Localisation",
    meaning="The strongest pixel lies on the annotated object (pointing game), and so does the map's energy, more of "
    "it than on any other place of that size.",
    paper="Zhang et al. 2016, Top-down Neural Attention by Excitation Backprop (pointing game); Wang et al. 2020, "
    "Score-CAM (energy-based pointing game)",
    settings=Localisation,
    image=measure,
    needs="annotations",
)
