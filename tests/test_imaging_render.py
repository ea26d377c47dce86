"""Pictures out: each style against its published formula, re-stated here pixel by pixel."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gbp_onnx.errors import InputError
from gbp_onnx.imaging.render import STYLES, _quantile, overlay, render

RNG = np.random.default_rng(7)
MAP = (RNG.standard_normal((12, 17, 3)) ** 3 * 0.02).astype(np.float32)  # heavy tails, like a real one
GREY_MAP = MAP[:, :, :1]

Values = list[list[float]]


def percentile(values: list[float], p: float) -> float:
    """NumPy's default: linear between the two nearest ranks."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * p / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def per_pixel(a: np.ndarray, reduce: Callable[[list[float]], float]) -> Values:
    return [[reduce([float(v) for v in pixel]) for pixel in row] for row in a]


def flat(values: Values) -> list[float]:
    return [value for row in values for value in row]


def clip(value: float, low: float = 0.0, high: float = 1.0) -> float:
    return min(max(value, low), high)


def each(values: Values, function: Callable[[float], float]) -> np.ndarray:
    return np.array([[function(value) for value in row] for row in values])


def every(a: np.ndarray, function: Callable[[float], float]) -> np.ndarray:
    return np.vectorize(function)(a.astype(np.float64))


def mass_below(values: list[float], share: float) -> float:
    """The first value, ascending, at which the running sum reaches the share of the whole."""
    total, running = sum(values), 0.0
    for value in sorted(values):
        running += value
        if running >= total * share:
            return value
    raise AssertionError


def mass_above(values: list[float], share: float) -> float:
    total, running = sum(values), 0.0
    for value in sorted(values, reverse=True):
        running += value
        if running >= total * share:
            return value
    raise AssertionError


def abs_sum(pixel: list[float]) -> float:
    return sum(abs(v) for v in pixel)


def abs_max(pixel: list[float]) -> float:
    return max(abs(v) for v in pixel)


def mean(pixel: list[float]) -> float:
    return sum(pixel) / len(pixel)


def pair_gray(a: np.ndarray) -> np.ndarray:
    v = per_pixel(a, abs_sum)
    low, high = min(flat(v)), percentile(flat(v), 99)
    return each(v, lambda x: clip((x - low) / (high - low)))


def pair_diverging(a: np.ndarray) -> np.ndarray:
    v = per_pixel(a, sum)
    span = abs(percentile(flat(v), 99))
    return each(v, lambda x: clip((x + span) / (2 * span)))


def captum(sign: str) -> Callable[[np.ndarray], np.ndarray]:
    def formula(a: np.ndarray) -> np.ndarray:
        keep: dict[str, Callable[[float], float]] = {
            "all": lambda x: x,
            "absolute": abs,
            "positive": lambda x: max(x, 0.0),
            "negative": lambda x: max(-x, 0.0),
        }
        v = each(per_pixel(a, sum), keep[sign]).tolist()
        threshold = mass_below([abs(x) for x in flat(v)], 0.98)
        scaled = each(v, lambda x: clip(x / threshold, -1.0))
        return (scaled + 1) / 2 if sign == "all" else scaled

    return formula


def standardised(a: np.ndarray, std: float) -> np.ndarray:
    middle = float(a.astype(np.float64).mean())
    return every(a, lambda x: clip((x - middle) / std * 0.1 + 0.5))


def deviation(a: np.ndarray, less: int) -> float:
    values = a.astype(np.float64).ravel()
    return math.sqrt(((values - values.mean()) ** 2).sum() / (values.size - less))


def min_max(a: np.ndarray, epsilon: float = 0.0) -> np.ndarray:
    low, high = float(a.min()), float(a.max())
    return every(a, lambda x: (x - low) / (high - low + epsilon))


def symmetric(a: np.ndarray, p: float) -> np.ndarray:
    top = percentile(np.abs(a).ravel().tolist(), p)
    return every(a, lambda x: clip(0.5 + x / top / 2))


def one_sided(a: np.ndarray, p: float) -> np.ndarray:
    top = percentile(a.ravel().tolist(), p)
    return every(a, lambda x: clip(x / top))


def xplique(a: np.ndarray) -> np.ndarray:
    v = per_pixel(a, mean)
    low, high = percentile(flat(v), 0.1), percentile(flat(v), 99.9)
    return min_max(each(v, lambda x: clip(x, low, high)))


def omnixai(a: np.ndarray) -> np.ndarray:
    v = per_pixel(np.maximum(a, 0), mean)
    top, low = mass_above(flat(v), 0.01), min(flat(v))
    return each(v, lambda x: clip((x - low) / (top - low)))


FORMULAS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "color": lambda a: symmetric(a, 99),
    "gray": lambda a: one_sided(np.array(per_pixel(a, abs_max)), 99),
    "signed": lambda a: symmetric(np.array(per_pixel(a, sum)), 99),
    "positive": lambda a: one_sided(np.maximum(a, 0), 99),
    "negative": lambda a: one_sided(np.maximum(-a, 0), 99),
    "pair-gray": pair_gray,
    "pair-diverging": pair_diverging,
    "captum-signed": captum("all"),
    "captum-abs": captum("absolute"),
    "captum-positive": captum("positive"),
    "captum-negative": captum("negative"),
    "gradcam-deprocess": lambda a: standardised(a, deviation(a, 0) + 1e-5),
    "utku-gray": pair_gray,
    "utku-color": min_max,
    "utku-positive": lambda a: np.maximum(a, 0) / float(a.max()),
    "utku-negative": lambda a: np.maximum(-a, 0) / -float(a.min()),
    "kazuto": min_max,
    "flashtorch": lambda a: standardised(a, deviation(a, 1)),
    "flashtorch-max": lambda a: standardised(a.max(axis=2), deviation(a.max(axis=2), 1)),
    "torchray-max": lambda a: min_max(np.array(per_pixel(a, abs_max))),
    "tf-keras-vis": lambda a: min_max(np.array(per_pixel(a, abs_max)), 1e-7),
    "innvestigate-heatmap": lambda a: symmetric(np.array(per_pixel(a, sum)), 100),
    "innvestigate-project": lambda a: symmetric(a, 100),
    "zennit": lambda a: symmetric(np.array(per_pixel(a, sum)), 100),
    "xplique": xplique,
    "omnixai": omnixai,
    "simonyan": lambda a: np.array(per_pixel(a, abs_max)) / float(np.abs(a).max()),
}


def test_every_style_has_its_formula_here() -> None:
    assert set(FORMULAS) == set(STYLES)
    for name, style in STYLES.items():
        assert style.name == name
        assert len(style.about) > 20


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e4])
def test_brightness_is_the_formula(name: str, scale: float) -> None:
    a = (MAP * np.float32(scale)).astype(np.float32)
    style = STYLES[name]
    found = style.brightness(a, style.percentile or 100.0)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, FORMULAS[name](a), atol=2e-6)


def test_captum_divides_by_the_value_at_98_percent_of_the_mass() -> None:
    """1 + 2 + ... + n reaches 98 % of 1 + ... + 1000 at n = 990."""
    ramp = np.arange(1, 1001, dtype=np.float32).reshape(20, 50, 1)
    found = STYLES["captum-abs"].brightness(ramp, 98.0).ravel()
    assert found[494] == pytest.approx(495 / 990)
    assert found[988] == pytest.approx(989 / 990)
    assert (found[989:] == 1).all()


def test_omnixai_saturates_at_one_percent_of_the_mass() -> None:
    """1000 + 999 + ... reaches 1 % of 1 + ... + 1000 at the sixth, 995."""
    ramp = np.arange(1, 1001, dtype=np.float32).reshape(20, 50, 1)
    found = STYLES["omnixai"].brightness(ramp, 99.0).ravel()
    assert found[0] == 0
    assert found[499] == pytest.approx(499 / 994)
    assert (found[994:] == 1).all()
    assert found[993] < 1


@pytest.mark.parametrize("name", FORMULAS)
def test_the_picture_shows_the_brightness(name: str) -> None:
    style = STYLES[name]
    wanted = FORMULAS[name](MAP)
    picture = render(MAP, name)
    assert picture.dtype == np.uint8
    assert picture.shape == (12, 17, 3)
    if style.colormap is None:
        levels = np.atleast_3d(wanted) * 255
        levels = np.broadcast_to(np.floor(levels + 1e-4) if style.truncate else levels, picture.shape)
        assert np.abs(picture - levels).max() <= 0.51
    else:
        grey = render(MAP, name, colormap="gray")
        assert np.abs(grey - wanted[:, :, None] * 255).max() <= 1.01


@pytest.mark.parametrize(
    ("name", "low", "middle", "high"),
    [
        ("signed", (5, 48, 97), (247, 247, 247), (103, 0, 31)),
        ("pair-diverging", (59, 76, 192), (221, 221, 221), (180, 4, 38)),
        ("captum-signed", (255, 0, 0), (255, 255, 255), (0, 128, 0)),
        ("innvestigate-heatmap", (0, 0, 77), (255, 255, 255), (128, 0, 0)),
        ("zennit", (0, 0, 255), (255, 255, 255), (255, 0, 0)),
    ],
)
def test_signed_colour_maps_are_neutral_at_zero(
    name: str, low: tuple[int, ...], middle: tuple[int, ...], high: tuple[int, ...]
) -> None:
    picture = render(np.array([[-1.0, 0.0, 1.0]], np.float32), name).astype(int)
    for pixel, wanted in zip(picture[0], (low, middle, high), strict=True):
        assert np.abs(pixel - wanted).max() <= 2


def test_positive_colours() -> None:
    assert render(np.array([[0.0, 1.0]], np.float32), "omnixai")[0].tolist() == [[0, 0, 0], [0, 255, 0]]
    assert (render(np.array([[0.0, 1.0]], np.float32), "captum-abs")[0, 0] > (240, 245, 250)).all()
    assert render(np.array([[0.0, 1.0]], np.float32), "gray")[0].tolist() == [[0] * 3, [255] * 3]


@pytest.mark.parametrize("name", FORMULAS)
def test_no_map_is_too_strange(name: str) -> None:
    """All zero, constant, one pixel, sparse, huge, tiny, NaN and infinite: a picture, and never a warning."""
    zero = render(np.zeros((4, 5, 3), np.float32), name)
    assert len(np.unique(zero.reshape(-1, 3), axis=0)) == 1
    sparse = np.zeros((40, 50, 3), np.float32)
    sparse[3, 4], sparse[5, 6] = 1.0, -1.0
    drawn = render(sparse, name).astype(int)
    seen = np.abs(drawn[[3, 5], [4, 6]] - drawn[20, 20]).max()
    clipped_away = ("pair-gray", "utku-gray", "pair-diverging", "xplique")  # P99 or P99.9 of it is 0
    assert (seen == 0) if name in clipped_away else (seen > 90)
    for value in (3e38, 1e-42, -2.5):
        assert render(np.full((3, 4, 3), value, np.float32), name).shape == (3, 4, 3)
    assert render(np.ones((1, 1, 3), np.float32), name).shape == (1, 1, 3)
    extreme = np.array([[[3e38, -3e38, 3e38], [1.0, 2.0, 3.0]]], np.float32)
    assert render(extreme, name).shape == (1, 2, 3)
    broken = MAP.copy()
    broken[0, 0] = np.nan
    broken[1, 1] = np.inf
    broken[2, 2, 0] = -np.inf
    calm = np.where(np.isfinite(broken), broken, 0).astype(np.float32)
    assert (render(broken, name) == render(calm, name)).all()
    assert (render(np.full((3, 3, 3), np.nan, np.float32), name) == render(np.zeros((3, 3, 3)), name)).all()


def test_zero_maps_are_neutral() -> None:
    zero = np.zeros((2, 2, 3), np.float32)
    assert set(render(zero, "color").ravel().tolist()) == {128}
    assert render(zero, "gray").max() == 0
    assert (render(zero, "captum-signed") == 255).all()


@pytest.mark.parametrize("name", FORMULAS)
def test_grey_models(name: str) -> None:
    picture = render(GREY_MAP, name)
    assert picture.shape == (12, 17, 3)
    assert (picture == render(GREY_MAP[:, :, 0], name)).all()
    if STYLES[name].coloured:
        assert np.ptp(picture, axis=2).max() == 0


def test_options() -> None:
    assert (render(MAP, "gray", percentile=50) >= render(MAP, "gray", percentile=99)).all()
    assert (render(MAP, "gray", percentile=50) != render(MAP, "gray")).any()
    assert (render(MAP, "gray", colormap="viridis") != render(MAP, "gray")).any()
    assert render(np.array([[0.0, 1.0]]), "gray", colormap="viridis")[0].tolist() == [[68, 1, 84], [253, 231, 37]]
    for seed in range(50):
        noise = np.random.default_rng(seed).random((9, 7, 1), np.float32)
        assert render(noise, "captum-abs", percentile=100).shape == (9, 7, 3)
    before = MAP.copy()
    for name in STYLES:
        render(MAP, name)
    assert (before == MAP).all()


@pytest.mark.parametrize(
    ("options", "code", "word"),
    [
        ({"style": "colour"}, "GBP410", "did you mean 'color'"),
        ({"style": "captum"}, "GBP410", "captum-abs"),
        ({"style": "gray", "colormap": "viridiss"}, "GBP410", "did you mean 'viridis'"),
        ({"style": "gray", "colormap": "no such"}, "GBP410", "coolwarm"),
        ({"style": "color", "colormap": "viridis"}, "GBP410", "colours of its own"),
        ({"percentile": 0}, "GBP410", "percentile"),
        ({"percentile": 101}, "GBP410", "percentile"),
        ({"percentile": float("nan")}, "GBP410", "percentile"),
        ({"style": "kazuto", "percentile": 99}, "GBP410", "percentile"),
    ],
)
def test_options_that_do_not_exist(options: dict[str, Any], code: str, word: str) -> None:
    with pytest.raises(InputError) as caught:
        render(MAP, **options)
    assert caught.value.code == code
    assert word in str(caught.value)


@pytest.mark.parametrize(
    "array", [np.zeros((2, 2, 2)), np.zeros(3), np.zeros((1, 2, 2, 3)), np.zeros((0, 2, 3)), np.array([["a"]])]
)
def test_arrays_that_are_no_attributions(array: np.ndarray) -> None:
    with pytest.raises(InputError) as caught:
        render(array)
    assert caught.value.code == "GBP405"


def test_overlay() -> None:
    image = RNG.integers(0, 256, (12, 17, 3), np.uint8)
    zero = np.zeros((12, 17, 3), np.float32)
    assert (overlay(image, zero) == image).all()
    assert (overlay(image, MAP, alpha=0.0) == image).all()
    point = zero.copy()
    point[3, 4, 0] = 1.0
    laid = overlay(image, point, "gray", alpha=1.0)
    assert laid[3, 4].tolist() == [255, 255, 255]
    laid[3, 4] = image[3, 4]
    assert (laid == image).all()
    half = overlay(image, point, "gray", alpha=0.5)[3, 4].astype(float)
    assert np.abs(half - (image[3, 4] / 2 + 127.5)).max() <= 0.5
    for bad, code in (((image[1:], MAP), "GBP405"), ((image.astype(float), MAP), "GBP405")):
        with pytest.raises(InputError) as caught:
            overlay(*bad)
        assert caught.value.code == code
    with pytest.raises(InputError) as caught:
        overlay(image, MAP, alpha=2)
    assert caught.value.code == "GBP410"


@pytest.mark.parametrize("size", [1, 2, 3, 100, 101, 50_000])
def test_percentiles_are_numpys(size: int) -> None:
    for values in (RNG.standard_normal(size), RNG.integers(-2, 3, size), np.full(size, -1.5)):
        for p in (0.0, 1e-3, 0.1, 37.0, 50.0, 98.0, 99.0, 99.9, 100.0):
            exact = np.percentile(values.astype(np.float32).astype(np.float64), p)
            assert _quantile(values.astype(np.float32), p) == pytest.approx(exact, rel=1e-9, abs=1e-12)
