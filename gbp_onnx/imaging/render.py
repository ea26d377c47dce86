"""An attribution drawn as a picture: the own styles, and those that reproduce the well-known libraries.

Every style first turns float [H, W, C] into brightness: [H, W], which a colour map (or grey) then colours, or
[H, W, 3], which is the picture. Values that are not finite count as zero, and a map of zeros gives the style's
neutral picture. In the formulas a is the map, P_p the percentile p, and mean and sum over c are over the channels.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gbp_onnx.errors import InputError
from gbp_onnx.imaging.options import unknown

__all__ = ["STYLES", "Style", "overlay", "render"]

Array = NDArray[np.float32]
Colours = str | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Style:
    """A way to draw: its name, formula and source (`about`), and what it takes.

    `brightness(a, percentile)`: float32 [H, W, C] -> 0..1, [H, W] or [H, W, 3]. `percentile`: the default, None where
    the style has none. `colormap`: what colours [H, W] (None: grey). `truncate`: 8-bit values are rounded down, where
    the library does that.
    """

    name: str
    about: str
    brightness: Callable[[Array, float], Array]
    percentile: float | None
    colormap: Colours | None
    coloured: bool
    truncate: bool


STYLES: dict[str, Style] = {}


def _style(
    name: str,
    percentile: float | None = None,
    colormap: Colours | None = None,
    coloured: bool = False,
    truncate: bool = False,
) -> Callable[[Callable[[Array, float], Array]], Callable[[Array, float], Array]]:
    def register(function: Callable[[Array, float], Array]) -> Callable[[Array, float], Array]:
        about = " ".join((function.__doc__ or "").split())
        STYLES[name] = Style(name, about, function, percentile, colormap, coloured, truncate)
        return function

    return register


def render(
    attribution: NDArray[Any],
    style: str = "color",
    percentile: float | None = None,
    colormap: str | None = None,
) -> NDArray[np.uint8]:
    """The attribution, float [H, W] or [H, W, C] with C = 1 or 3, as a picture: uint8 [H, W, 3].

    `style`: one of STYLES. `percentile` (0 < p <= 100): where the style clips; default: the style's. `colormap`: any
    name that the cmap library knows; default: the style's. Raises GBP405 (shape or type of the array), GBP410
    (unknown style or colour map, percentile out of range, a colour map for a style that has its own colours).
    """
    chosen = _chosen(style)
    values = chosen.brightness(_clean(attribution), _percentile(percentile, chosen))
    if values.ndim == 3:
        if colormap is not None:
            what = f"style {style!r} has colours of its own, a colour map does not apply"
            raise InputError("GBP410", what, "colormap", "leave it out, or choose the style 'signed' or 'gray'")
        return _bytes(np.broadcast_to(values, (*values.shape[:2], 3)), chosen.truncate)
    colours = colormap or chosen.colormap
    if colours is None:
        return np.stack([_bytes(values, chosen.truncate)] * 3, axis=2)
    table = _table(colours)
    picture: NDArray[np.uint8] = table[np.rint(values * (len(table) - 1)).astype(np.intp)]
    return picture


def overlay(
    image: NDArray[np.uint8],
    attribution: NDArray[Any],
    style: str = "color",
    alpha: float = 0.8,
    percentile: float | None = None,
    colormap: str | None = None,
) -> NDArray[np.uint8]:
    """The picture of the attribution laid over `image`, uint8 [H, W, 3] of the same height and width.

    A pixel's opacity is `alpha` times its strength (sum over c of |a|, over its 99th percentile,
    at most 1): where the attribution is zero, the photograph stays as it is. Raises GBP405, GBP410.
    """
    if not 0.0 <= alpha <= 1.0:
        raise InputError("GBP410", f"alpha must be 0..1, not {alpha:g}", "alpha", "0.8 is the default")
    drawn = render(attribution, style, percentile, colormap)
    if image.shape != drawn.shape or image.dtype != np.uint8:
        shapes = ["x".join(str(n) for n in array.shape) for array in (image, drawn)]
        raise InputError("GBP405", f"the image is {image.dtype} {shapes[0]}, the attribution's picture {shapes[1]}")
    strength = _unsigned(np.abs(_clean(attribution)).sum(axis=2), 99.0)
    opacity = np.float32(alpha) * strength[:, :, None]
    blend = image.astype(np.float32) * (1 - opacity) + drawn.astype(np.float32) * opacity
    laid: NDArray[np.uint8] = np.rint(blend).astype(np.uint8)
    return laid


def _chosen(style: str) -> Style:
    if style not in STYLES:
        raise unknown("GBP410", "style", style, STYLES, "style")
    return STYLES[style]


def _percentile(percentile: float | None, style: Style) -> float:
    if percentile is None:
        return style.percentile if style.percentile is not None else 100.0
    if not 0 < percentile <= 100:
        raise InputError("GBP410", f"the percentile must be in (0, 100], not {percentile:g}", "percentile", "try 99")
    if style.percentile is None:
        what = f"style {style.name!r} does not clip at a percentile"
        names = ", ".join(name for name, other in STYLES.items() if other.percentile is not None)
        raise InputError("GBP410", what, "percentile", f"leave it out, or choose one of: {names}")
    return float(percentile)


def _clean(attribution: NDArray[Any]) -> Array:
    """float32 [H, W, C], finite, and small enough that sums and squares stay finite."""
    array = np.asarray(attribution)
    if array.dtype.kind not in "fiu" or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3)):
        shape = "x".join(str(n) for n in array.shape)
        what = f"an attribution is a float array [H, W, 1 or 3], this is {array.dtype} [{shape}]"
        raise InputError("GBP405", what, fix="pass Explanation.attributions[rule]")
    if array.size == 0:
        raise InputError("GBP405", "the attribution has no pixels")
    values = np.atleast_3d(array).astype(np.float64)
    values[~np.isfinite(values)] = 0.0
    peak = float(np.abs(values).max())
    if peak > 1e15:
        values /= peak
    return values.astype(np.float32)


def _bytes(values: Array, truncate: bool) -> NDArray[np.uint8]:
    scaled = np.clip(values, 0.0, 1.0) * np.float32(255)
    return (scaled if truncate else np.rint(scaled)).astype(np.uint8)


@lru_cache(maxsize=32)
def _table(colours: Colours) -> NDArray[np.uint8]:
    """uint8 [511, 3]: an odd length, so that the neutral 0.5 has an entry of its own."""
    import cmap

    logging.getLogger("cmap").addHandler(logging.NullHandler())  # it remarks on names that two catalogues share
    try:
        found = cmap.Colormap(list(colours) if isinstance(colours, tuple) else colours)
    except Exception as error:  # ValueError, TypeError, ...: whatever the name leads its parser to
        known = dict.fromkeys(name.split(":")[-1] for name in cmap.Catalog())
        raise _unknown_colormap(colours, known) from error
    table: NDArray[np.uint8] = np.rint(np.asarray(found.lut(511))[:, :3] * 255).astype(np.uint8)
    return table


def _unknown_colormap(colours: Colours, known: dict[str, None]) -> InputError:
    error = unknown("GBP410", "colour map", colours, known, "colormap")
    fix = "for instance viridis, inferno, turbo, coolwarm, seismic, RdBu_r; `cmap` lists all its names"
    return InputError(error.code, error.what, error.where, fix)


def _ratio(values: NDArray[Any], scale: float) -> Array:
    """values / scale; zeros where the scale is zero."""
    ratio: Array = (values / scale if scale > 0 else np.zeros_like(values)).astype(np.float32)
    return ratio


def _unit(values: NDArray[Any]) -> Array:
    clipped: Array = np.clip(values, 0.0, 1.0).astype(np.float32)
    return clipped


def _quantile(values: Array, percentile: float) -> float:
    """P_p, linear between two neighbours in order, as NumPy's: which looks for both at once, ten times as slowly."""
    place = (values.size - 1) * (percentile / 100)
    below = min(int(place), values.size - 1)
    parted = np.partition(values, below, axis=None)
    low, above = float(parted[below]), parted[below + 1 :]
    return low + (place - below) * (float(above.min()) - low) if above.size else low


def _peak(values: Array, percentile: float) -> float:
    """P_p of non-negative values, or their maximum where so few are above zero that P_p is none."""
    return _quantile(values, percentile) or float(values.max())


def _unsigned(values: Array, percentile: float) -> Array:
    return _unit(_ratio(values, _peak(values, percentile)))


def _symmetric(values: Array, percentile: float) -> Array:
    """-P_p(|v|) .. 0 .. P_p(|v|) onto 0 .. 0.5 .. 1."""
    return _unit(0.5 + 0.5 * _ratio(values, _peak(np.abs(values), percentile)))


def _min_max(values: Array, epsilon: float = 0.0) -> Array:
    low, high = float(values.min()), float(values.max())
    return _ratio(values - low, high - low + epsilon)


@_style("color", percentile=99.0, coloured=True)
def _color(a: Array, p: float) -> Array:
    """1/2 + a / (2 P_p(|a|)) for each channel: zero is mid grey, as in the figures of Springenberg et al. 2014."""
    return _symmetric(a, p)


@_style("gray", percentile=99.0)
def _gray(a: Array, p: float) -> Array:
    """m / P_p(m) with m = max over c of |a| (Simonyan et al. 2013)."""
    return _unsigned(np.abs(a).max(axis=2), p)


@_style("signed", percentile=99.0, colormap="colorbrewer:RdBu_r")
def _signed(a: Array, p: float) -> Array:
    """1/2 + s / (2 P_p(|s|)) with s = sum over c of a; red is for the class, blue against it."""
    return _symmetric(a.sum(axis=2), p)


@_style("positive", percentile=99.0, coloured=True)
def _positive(a: Array, p: float) -> Array:
    """max(a, 0) / P_p(max(a, 0)) for each channel, over black."""
    return _unsigned(np.maximum(a, 0), p)


@_style("negative", percentile=99.0, coloured=True)
def _negative(a: Array, p: float) -> Array:
    """max(-a, 0) / P_p(max(-a, 0)) for each channel, over black."""
    return _unsigned(np.maximum(-a, 0), p)


@_style("pair-gray", percentile=99.0)
def _pair_gray(a: Array, p: float) -> Array:
    """(v - min v) / (P_p(v) - min v), clipped, v = sum over c of |a| (PAIR saliency, core/visualization.py)."""
    v = np.abs(a).sum(axis=2)
    low = float(v.min())
    return _unit(_ratio(v - low, _quantile(v, p) - low))


@_style("pair-diverging", percentile=99.0, colormap="matplotlib:coolwarm")
def _pair_diverging(a: Array, p: float) -> Array:
    """(v + s) / 2s, clipped, v = sum over c of a and s = |P_p(v)| (PAIR saliency, core/visualization.py)."""
    v = a.sum(axis=2)
    return _unit(0.5 + 0.5 * _ratio(v, abs(_quantile(v, p))))


def _mass_threshold(values: Array, percentile: float) -> float:
    """The smallest value at which the ascending cumulative sum of non-negative values reaches p % of the total."""
    ascending = np.sort(values, axis=None)
    mass = np.cumsum(ascending, dtype=np.float64)
    share = min(mass[-1] * percentile / 100, mass[-1])  # rounding may lift 100 % above the whole
    return float(ascending[np.searchsorted(mass, share)])


def _captum(v: Array, p: float) -> Array:
    """v / t in -1..1, t the |v| at which the mass of the smaller ones reaches p %."""
    return np.clip(_ratio(v, _mass_threshold(np.abs(v), p)), -1.0, 1.0)


@_style("captum-signed", percentile=98.0, colormap=("red", "white", "green"))
def _captum_signed(a: Array, p: float) -> Array:
    """v / t clipped to -1..1, v = sum over c of a, cumsum(sort |v|) reaches p % at t (Captum, sign="all")."""
    return 0.5 + 0.5 * _captum(a.sum(axis=2), p)


@_style("captum-abs", percentile=98.0, colormap="colorbrewer:Blues")
def _captum_abs(a: Array, p: float) -> Array:
    """|v| / t clipped, v and t as in captum-signed (Captum, sign="absolute_value")."""
    return _captum(np.abs(a.sum(axis=2)), p)


@_style("captum-positive", percentile=98.0, colormap="colorbrewer:Greens")
def _captum_positive(a: Array, p: float) -> Array:
    """max(v, 0) / t clipped, v = sum over c of a, t over max(v, 0) (Captum, sign="positive")."""
    return _captum(np.maximum(a.sum(axis=2), 0), p)


@_style("captum-negative", percentile=98.0, colormap="colorbrewer:Reds")
def _captum_negative(a: Array, p: float) -> Array:
    """max(-v, 0) / t clipped, v = sum over c of a, t over max(-v, 0) (Captum, sign="negative")."""
    return _captum(np.maximum(-a.sum(axis=2), 0), p)


@_style("gradcam-deprocess", coloured=True, truncate=True)
def _gradcam_deprocess(a: Array, p: float) -> Array:
    """1/2 + 0.1 (a - mean a) / (std a + 1e-5), clipped (pytorch-grad-cam, utils/image.py deprocess_image)."""
    std = float(a.std(dtype=np.float64)) + 1e-5
    return _unit(0.5 + 0.1 * _ratio(a - a.mean(dtype=np.float64), std))


@_style("utku-gray", percentile=99.0, truncate=True)
def _utku_gray(a: Array, p: float) -> Array:
    """As pair-gray, rounded down (pytorch-cnn-visualizations, convert_to_grayscale)."""
    return _pair_gray(a, p)


@_style("utku-color", coloured=True, truncate=True)
def _utku_color(a: Array, p: float) -> Array:
    """(a - min a) / (max a - min a) (pytorch-cnn-visualizations, save_gradient_images)."""
    return _min_max(a)


@_style("utku-positive", coloured=True, truncate=True)
def _utku_positive(a: Array, p: float) -> Array:
    """max(a, 0) / max a, then min-max (pytorch-cnn-visualizations, get_positive_negative_saliency)."""
    return _min_max(np.maximum(a, 0))


@_style("utku-negative", coloured=True, truncate=True)
def _utku_negative(a: Array, p: float) -> Array:
    """max(-a, 0) / -min a, then min-max (pytorch-cnn-visualizations, get_positive_negative_saliency)."""
    return _min_max(np.maximum(-a, 0))


@_style("kazuto", coloured=True, truncate=True)
def _kazuto(a: Array, p: float) -> Array:
    """(a - min a) / (max a - min a) (grad-cam-pytorch, main.py save_gradient)."""
    return _min_max(a)


@_style("flashtorch", coloured=True)
def _flashtorch(a: Array, p: float) -> Array:
    """1/2 + 0.1 (a - mean a) / std a with n - 1 under the root, clipped (flashtorch, utils standardize_and_clip)."""
    std = float(a.std(dtype=np.float64, ddof=1)) if a.size > 1 else 0.0
    return _unit(0.5 + 0.1 * _ratio(a - a.mean(dtype=np.float64), std))


@_style("flashtorch-max", colormap="bids:viridis")
def _flashtorch_max(a: Array, p: float) -> Array:
    """As flashtorch, of the signed maximum over c (flashtorch, saliency/backprop.py, "max gradients")."""
    return _flashtorch(a.max(axis=2), p)


@_style("torchray-max")
def _torchray_max(a: Array, p: float) -> Array:
    """Min-max of max over c of |a| (TorchRay, attribution/common.py saliency; utils.py imsc)."""
    return _min_max(np.abs(a).max(axis=2))


@_style("tf-keras-vis", colormap="matlab:jet")
def _tf_keras_vis(a: Array, p: float) -> Array:
    """(v - min v) / (max v - min v + 1e-7), v = max over c of |a| (tf-keras-vis, saliency.py)."""
    return _min_max(np.abs(a).max(axis=2), 1e-7)


@_style("innvestigate-heatmap", colormap="matplotlib:seismic")
def _innvestigate_heatmap(a: Array, p: float) -> Array:
    """1/2 + s / (2 max |s|), s = sum over c of a (iNNvestigate, utils/visualizations.py heatmap)."""
    return _symmetric(a.sum(axis=2), 100.0)


@_style("innvestigate-project", coloured=True)
def _innvestigate_project(a: Array, p: float) -> Array:
    """1/2 + a / (2 max |a|) for each channel (iNNvestigate, utils/visualizations.py project)."""
    return _symmetric(a, 100.0)


@_style("zennit", colormap=("blue", "white", "red"))
def _zennit(a: Array, p: float) -> Array:
    """1/2 + s / (2 max |s|), s = sum over c of a, blue-white-red (Zennit, image.py imgify, symmetric=True)."""
    return _symmetric(a.sum(axis=2), 100.0)


@_style("xplique", percentile=99.9, colormap="matlab:jet")
def _xplique(a: Array, p: float) -> Array:
    """Min-max of v clipped to P_(100-p)..P_p, v = mean over c of a (Xplique, plots/image.py plot_attribution)."""
    v = a.mean(axis=2)
    return _min_max(np.clip(v, _quantile(v, 100 - p), _quantile(v, p)))


@_style("omnixai", percentile=99.0, colormap=("black", "lime"))
def _omnixai(a: Array, p: float) -> Array:
    """(v - min v) / (t - min v), clipped, v = mean over c of max(a, 0); those above t hold 100-p % of the mass.

    From OmniXAI, explanations/image/pixel_importance.py (after Integrated Gradients), polarity "positive"; there a
    is first clipped at 1, which is left out so that the picture does not depend on the unit of the gradient.
    """
    v = np.maximum(a, 0).mean(axis=2)
    descending = np.sort(v, axis=None)[::-1]
    mass = np.cumsum(descending, dtype=np.float64)
    top = float(descending[np.searchsorted(mass, mass[-1] * (100 - p) / 100)])
    low = float(v.min())
    return _unit(_ratio(v - low, top - low))


@_style("simonyan")
def _simonyan(a: Array, p: float) -> Array:
    """m / max m, m = max over c of |a|, without clipping (Simonyan et al. 2013, section 3.1)."""
    return _unsigned(np.abs(a).max(axis=2), 100.0)
