"""Random forms of the operators that read or write at computed places."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import gbp_onnx
from tests.test_vjp import FUZZ, axes, check_if_it_runs, gradient
from tests.vjp_cases import fed, fixed, t
from tests.vjp_check import Case, In, session

SPACE_OF_BINS = st.integers(1, 3)


@FUZZ
@given(st.data())
def test_grid_sample_fuzz(data: st.DataObject) -> None:
    n = data.draw(st.integers(2, 3))
    mode = data.draw(st.sampled_from(["nearest", "linear"] + ["cubic"] * (n == 2)))
    batch, channels = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 2))
    attrs = {
        "mode": mode,
        "padding_mode": data.draw(st.sampled_from(["zeros", "border", "reflection"])),
        "align_corners": data.draw(st.integers(0, 1)),
    }
    # Of one pixel the cubic gradient is 0 by cancellation: nothing to be exact to.
    x = t(batch, channels, *axes(data.draw, n, 2 if mode == "cubic" else 1, 4))
    reach = data.draw(st.sampled_from([0.9, 1.7, 4.3]))
    grid = t(batch, *axes(data.draw, n, 1, 2), n, low=-reach, high=1.03 * reach, wrt=mode != "nearest")
    check_if_it_runs(Case("fuzz", "GridSample", (x, grid), attrs, opset=20, step=2e-6, tolerance=1e-5))


@FUZZ
@given(st.data())
def test_roi_align_fuzz(data: st.DataObject) -> None:
    n, boxes = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 3))
    size = axes(data.draw, 2, 1, 6)
    # Odd fractions, so that no sample lies on a pixel or an edge.
    corner = st.integers(-3, 8).map(lambda v: v + 0.0137 * (v % 5) + 0.0311)
    rois = data.draw(st.lists(st.lists(corner, min_size=4, max_size=4), min_size=boxes, max_size=boxes))
    batch = axes(data.draw, boxes, 0, n - 1)
    attrs = {
        "mode": data.draw(st.sampled_from(["avg", "max"])),
        "sampling_ratio": data.draw(st.integers(0, 3)),
        "spatial_scale": data.draw(st.sampled_from([1.0, 0.53, 1.7])),
        "output_height": data.draw(SPACE_OF_BINS),
        "output_width": data.draw(SPACE_OF_BINS),
        "coordinate_transformation_mode": data.draw(st.sampled_from(["half_pixel", "output_half_pixel"])),
    }
    inputs = (t(n, 2, *size), fed(rois, np.float32), fed(batch))
    try:
        check_if_it_runs(Case("fuzz", "RoiAlign", inputs, attrs, step=2e-6, tolerance=1e-5))
    except AssertionError as error:
        assume("oracle" not in str(error))  # a sample on an edge, which float32 and double see on different sides
        raise


@FUZZ
@given(st.data())
def test_scatter_elements_fuzz(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 3))
    size = axes(data.draw, n, 1, 4)
    axis = data.draw(st.integers(-n, n - 1))
    shape = tuple(data.draw(st.integers(1, 4 if k == axis % n else size[k])) for k in range(n))
    count = int(np.prod(shape))
    flat = data.draw(st.lists(st.integers(-size[axis], size[axis] - 1), min_size=count, max_size=count))
    indices = np.asarray(flat, np.int64).reshape(shape)
    given_indices = fed(indices) if data.draw(st.booleans()) else fixed(indices, np.int64)
    reduction = data.draw(st.sampled_from(["none", "add", "mul", "max", "min"]))
    updates = t(*shape, low=-1.37, high=1.59)
    check_if_it_runs(
        Case("fuzz", "ScatterElements", (t(*size), given_indices, updates), {"axis": axis, "reduction": reduction}, 18)
    )


@pytest.mark.parametrize("op", ["ScatterElements", "ScatterND"])
def test_ties_of_written_values_share_equally(op: str) -> None:
    indices = [0, 0, 1] if op == "ScatterElements" else [[0], [0], [1]]
    data, updates = gradient(op, [2, 3, 5], fixed(indices, np.int64), [2, 2, 1], opset=18, reduction="max")
    np.testing.assert_allclose(data, [1 / 3, 1, 1], rtol=1e-6)
    np.testing.assert_allclose(updates, [1 / 3, 1 / 3, 0], rtol=1e-6)


def test_a_grid_has_no_gradient_through_nearest_values() -> None:
    case = Case("n", "GridSample", (t(1, 1, 3, 3), t(1, 2, 2, 2)), {"mode": "nearest"})
    built = gbp_onnx.differentiate(case.model(), wrt=["b"])
    seed = np.ones((1, 1, 2, 2), np.float32)
    (got,) = session(built).run(["b_grad"], {**case.feeds, "y_seed": seed})
    np.testing.assert_array_equal(got, np.zeros((1, 2, 2, 2)))


@pytest.mark.parametrize("reduction", ["none", "max"])  # the CPU adds and multiplies no halves
def test_scattered_half_precision(reduction: str) -> None:
    half: Any = np.float16
    given_inputs = (t(4, dtype=half), fixed([1, 3, 1], np.int64), t(3, dtype=half, low=0.5))
    case = Case(reduction, "ScatterElements", given_inputs, {"reduction": reduction}, 18)
    built = gbp_onnx.differentiate(case.model())
    y = session(case.model()).run(None, case.feeds)[0]
    got = session(built).run(["a_grad", "c_grad"], {**case.feeds, "y_seed": np.ones_like(y)})
    wide = [In(value=v.astype(np.float32)) for v in (case.values[0], case.values[2]) if v is not None]
    want = gradient("ScatterElements", wide[0], given_inputs[1], wide[1], opset=18, reduction=reduction)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=4e-3, atol=4e-3)


def test_many_repeated_indices_are_all_counted() -> None:
    """ONNX Runtime's ScatterND loses additions there: its threads write without locks."""
    count = 300_000
    places = np.random.RandomState(0).randint(0, 4, (count, 1))
    case = Case("many", "GatherND", (t(4, 2), fixed(places, np.int64)))
    built = gbp_onnx.differentiate(case.model())
    parallel = ort.InferenceSession(built.SerializeToString(), providers=["CPUExecutionProvider"])
    want = np.bincount(places[:, 0])[:, None] * np.ones(2)
    for _ in range(5):
        (got,) = parallel.run(["a_grad"], {**case.feeds, "y_seed": np.ones((count, 2), np.float32)})
        np.testing.assert_array_equal(got, want)
