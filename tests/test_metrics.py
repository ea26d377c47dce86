"""Metrics of two maps: against their formulas, and for maps of which there is nothing to say."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from gbp_onnx.errors import GbpError
from gbp_onnx.metrics import METRICS, cosine, measure, spearman, ssim, strength, top_overlap

pytest.importorskip("scipy", reason="gbp-onnx[compare] is not installed")
pytest.importorskip("skimage", reason="gbp-onnx[compare] is not installed")


def noise(seed: int, *shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal(shape or (20, 30, 3)).astype(np.float32)


def test_a_map_equals_itself_at_any_scale() -> None:
    a = noise(0)
    for scale in (1.0, 1e-30, 1e20):
        values = measure(a, (a * np.float32(scale)).astype(np.float32))
        assert values == pytest.approx(dict.fromkeys(METRICS, 1.0), abs=1e-6)


def test_cosine_is_signed() -> None:
    a, b = noise(0), noise(1)
    x, y = a.astype(float).ravel(), b.astype(float).ravel()
    assert cosine(a, b) == pytest.approx(x @ y / np.linalg.norm(x) / np.linalg.norm(y), abs=1e-12)
    assert cosine(a, -a) == pytest.approx(-1)
    assert all(METRICS[name].value(a, -a) == pytest.approx(1) for name in ("spearman", "ssim", "top_overlap"))


def test_spearman_is_the_correlation_of_ranks() -> None:
    a, b = noise(0), noise(0) + noise(1)
    ranks = [strength(m).ravel().argsort().argsort() for m in (a, b)]  # no ties in noise
    assert spearman(a, b) == pytest.approx(np.corrcoef(*ranks)[0, 1], abs=1e-12)
    ties = np.array([[[0.0], [1], [1], [2]]])
    other = np.array([[[0.0], [1], [2], [3]]])
    assert spearman(ties, other) == pytest.approx(np.corrcoef([1, 2.5, 2.5, 4], [1, 2, 3, 4])[0, 1])


def test_ssim_is_that_of_wang() -> None:
    """In the middle pixel of an 11 x 11 map, all weights are in the window."""
    a, b = noise(2, 11, 11, 1), noise(3, 11, 11, 1)
    x, y = (strength(m) / strength(m).max() for m in (a, b))
    t = np.arange(-5, 6)
    w = np.exp(-(t[:, None] ** 2 + t[None, :] ** 2) / (2 * 1.5**2))
    w /= w.sum()
    mx, my = (w * x).sum(), (w * y).sum()
    vx, vy, vxy = (w * x * x).sum() - mx**2, (w * y * y).sum() - my**2, (w * x * y).sum() - mx * my
    c1, c2 = 0.01**2, 0.03**2
    formula = (2 * mx * my + c1) * (2 * vxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    assert ssim(a, b) == pytest.approx(formula, abs=1e-9)  # the mean leaves out the border of 5 pixels: one is left


def test_top_overlap_counts_pixels() -> None:
    a, b = np.zeros((20, 20, 1)), np.zeros((20, 20, 1))
    a.flat[:4], b.flat[2:6] = 5, 5  # 1 % of 400 pixels are four
    a.flat[10:], b.flat[10:] = 1, 1
    assert top_overlap(a, b) == 0.5
    assert top_overlap(a, -b) == 0.5
    lonely = np.zeros((20, 20, 1))
    lonely.flat[3] = -1
    assert top_overlap(a, lonely) == 0.0  # one pixel each: the first of a's four
    lonely.flat[0] = -2
    lonely.flat[3] = 0
    assert top_overlap(a, lonely) == 1.0


@pytest.mark.filterwarnings("error")
def test_degenerate_maps_have_no_value_and_no_nan() -> None:
    a, zero, flat = noise(0), np.zeros((20, 30, 3)), np.full((20, 30, 3), 2.0)
    broken = [a.copy() for _ in range(2)]
    broken[0][0, 0, 0], broken[1][0, 0, 0] = np.nan, np.inf
    for other in (zero, *broken):
        for pair in ((a, other), (other, a), (other, other)):
            assert measure(*pair) == dict.fromkeys(METRICS)
    assert measure(a, flat)["spearman"] is None
    assert all(isinstance(measure(a, flat)[name], float) for name in ("cosine", "ssim", "top_overlap"))
    assert measure(a[:10], a[:10])["ssim"] is None
    assert measure(a[:1, :1], a[:1, :1]) == {
        "cosine": pytest.approx(1),
        "spearman": None,
        "ssim": None,
        "top_overlap": 1,
    }


def test_maps_of_different_shapes_are_refused() -> None:
    for other in (noise(0)[:-1], noise(0)[:, :, :1], noise(0)[0]):
        with pytest.raises(GbpError) as error:
            measure(noise(0), other)
        assert error.value.code == "GBP405"


@pytest.mark.parametrize(("package", "name"), [("scipy.stats", "SciPy"), ("skimage.metrics", "scikit-image")])
def test_a_missing_package_is_named(package: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(GbpError) as error:
        measure(noise(0), noise(1))
    assert error.value.code == "GBP412"
    assert name in error.value.what and "pip install 'gbp-onnx[compare]'" in error.value.fix
