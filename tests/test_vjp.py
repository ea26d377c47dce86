"""Every derivative of the table, in every form of its operator, against differences of the forward."""

from __future__ import annotations

import itertools
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import gbp_onnx
import tests.vjp_cases_classical
import tests.vjp_cases_control
import tests.vjp_cases_fourier
import tests.vjp_cases_recurrent
import tests.vjp_cases_scalar
import tests.vjp_cases_spatial  # noqa: F401 - adds its cases to the table
from gbp_onnx.canonical.passes import canonical_model
from gbp_onnx.canonical.view import View
from gbp_onnx.errors import OperatorError
from gbp_onnx.graph.reader import Graph
from gbp_onnx.vjp import GBP_DOMAIN, Derivative, entries
from tests.test_fused import FUSED
from tests.vjp_cases import CASES, fed, fixed, ints, t
from tests.vjp_check import Case, In, check, session


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_derivative(case: Case) -> None:
    check(case)


def test_names_are_unique() -> None:
    assert len({c.name for c in CASES}) == len(CASES)


def test_every_operator_of_the_table_has_a_case() -> None:
    nodes = {(n.domain, n.op_type) for c in CASES for n in c.model().graph.node}
    stand_ins = {(n.domain, n.op) for c in CASES for n in View(Graph(canonical_model(c.model()))).nodes}
    elsewhere = ("integer", "qlinear", "quantized")  # test_quantised has those that round
    table = {
        (e.domain, e.op)
        for e in entries()
        if isinstance(e, Derivative) and e.rule.__module__.rpartition(".")[2] not in elsewhere
    }
    # The head's is a plain pass-through, which test_api checks.
    assert table - nodes - stand_ins - FUSED == {(GBP_DOMAIN, "Head")}


# --- ties and places that no difference can measure ---------------------------------------------------------------


def gradient(
    op: str, *inputs: np.ndarray | In | None, seed: Any = None, opset: int = 17, outputs: int = 1, **attrs: Any
) -> list[np.ndarray]:
    """The gradients of every float input for a given seed (ones by default)."""
    given = tuple(In(value=np.asarray(i, np.float32)) if isinstance(i, list | np.ndarray) else i for i in inputs)
    case = Case(op, op, given, attrs, opset, outputs)
    model = case.model()
    built = gbp_onnx.differentiate(model, wrt=case.wrt, outputs=["y"])
    y = session(model).run(["y"], case.feeds)[0]
    given_seed = np.ones_like(y) if seed is None else np.asarray(seed, y.dtype)
    return session(built).run([f"{n}_grad" for n in case.wrt], {**case.feeds, "y_seed": given_seed})


@pytest.mark.parametrize("op", ["Max", "Min"])
def test_ties_of_several_inputs_are_split_equally(op: str) -> None:
    a, b, c = gradient(op, [1, 2, 5], [1, 2, 5], [1, 2, 5])
    np.testing.assert_allclose([a, b, c], np.full((3, 3), 1 / 3), rtol=1e-7)
    a, b = gradient(op, [[1, 1]], [1])
    np.testing.assert_array_equal(a, [[0.5, 0.5]])
    np.testing.assert_array_equal(b, [1])


@pytest.mark.parametrize(
    ("op", "attrs"),
    [
        ("GlobalMaxPool", {}),
        ("MaxPool", {"kernel_shape": [2, 2]}),
        ("ReduceMax", {"axes": [2, 3]}),
        ("ReduceMin", {"axes": [2, 3]}),
    ],
)
def test_ties_of_a_window_go_to_the_first(op: str, attrs: dict[str, Any]) -> None:
    (got,) = gradient(op, np.full((1, 2, 2, 2), 3.0), **attrs)
    np.testing.assert_array_equal(got, np.broadcast_to([[1, 0], [0, 0]], (1, 2, 2, 2)))


def test_the_first_maximum_of_reordered_axes_is_the_first_in_the_input() -> None:
    x = np.zeros((2, 2, 2))
    x[0, 1, 1] = x[1, 0, 0] = x[1, 0, 1] = 7
    (got,) = gradient("ReduceMax", x, axes=[2, 0], keepdims=0)
    want = np.zeros((2, 2, 2))
    want[0, 1, 1] = want[1, 0, 0] = 1
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("storage_order", [0, 1])
@pytest.mark.parametrize("dynamic", [False, True])
def test_a_window_wholly_in_the_padding_sends_nothing(storage_order: int, dynamic: bool) -> None:
    """ONNX Runtime gives such windows negative indices, which ScatterElements would wrap around."""
    attrs = {"kernel_shape": [2, 1], "dilations": [2, 1], "pads": [1, 0, 1, 0], "storage_order": storage_order}
    case = Case("empty", "MaxPool", (In(value=np.asarray([[[[5.0, 6.0]]]], np.float32)),), attrs)
    built = gbp_onnx.differentiate(case.model(dynamic))
    forward, got = session(built).run(["y", "a_grad"], {**case.feeds, "y_seed": np.ones((1, 1, 1, 2), np.float32)})
    assert forward.max() < -1e38  # the window misses the one row: it sees rows -1 and 1
    np.testing.assert_array_equal(got, np.zeros((1, 1, 1, 2)))


def test_kinks() -> None:
    zero = [-1.0, 0.0, 2.0]
    np.testing.assert_array_equal(gradient("Relu", zero)[0], [0, 0, 1])
    np.testing.assert_array_equal(gradient("Abs", zero)[0], [-1, 0, 1])
    np.testing.assert_array_equal(gradient("Clip", zero, fixed(-1.0), fixed(0.0))[0], [1, 1, 0])  # ends included
    np.testing.assert_array_equal(gradient("Clip", zero, fixed(0.0), fixed(2.0))[0], [0, 0, 0])  # a rectifier
    np.testing.assert_array_equal(gradient("LeakyRelu", zero, alpha=0.5)[0], [0.5, 0.5, 1])
    np.testing.assert_array_equal(gradient("ReduceL2", [0.0, 0.0], keepdims=0)[0], [0, 0])
    np.testing.assert_array_equal(gradient("LpNormalization", [[0.0, 0.0]])[0], [[0, 0]])


def test_masks_keep_infinite_cotangents_out() -> None:
    for op, x in (
        ("Relu", [-1.0, 1.0]),
        ("Clip", [-1.0, 1.0]),
        ("HardSigmoid", [-9.0, 0.0]),
        ("HardSwish", [-9.0, 9.0]),
    ):
        more = [fixed(0.0)] if op == "Clip" else []
        got = gradient(op, x, *more, seed=[np.inf, 1.0], opset=14)[0]
        assert got[0] == 0 and got[1] > 0, op
    got = gradient("Where", fed([True, False], np.bool_), [1.0, 1.0], [1.0, 1.0], seed=[np.nan, 1.0])
    np.testing.assert_array_equal(got, [[np.nan, 0], [0, 1]])
    got = gradient("Max", [0.0, 1.0], [1.0, 0.0], seed=[np.inf, 2.0])
    np.testing.assert_array_equal(got, [[0, 2], [np.inf, 0]])


# --- what is refused ----------------------------------------------------------------------------------------------

_CROP = {"coordinate_transformation_mode": "tf_crop_and_resize"}
REFUSED: list[Any] = [
    ("Resize", [t(1, 1, 4, 4), t(8), None, ints(1, 1, 3, 3)], _CROP, 17, 1, "roi depends"),
    ("RoiAlign", [t(1, 1, 4, 4), t(2, 4, low=0, high=3), ints(0, 0)], {}, 17, 1, "boxes depend"),
    (
        "BatchNormalization",
        [t(2, 3, 2), *(fixed([1, 1, 1]) for _ in range(4))],
        {"training_mode": 1},
        17,
        3,
        "training mode",
    ),
    ("Dropout", [t(2, 3), fixed(0.5), fixed(True, np.bool_)], {}, 17, 1, "training mode"),
    (
        "AveragePool",
        [t(1, 1, 7)],
        {"kernel_shape": [2], "dilations": [2], "strides": [3], "auto_pad": "SAME_UPPER"},
        19,
        1,
        "further apart",
    ),
    ("RandomNormalLike", [t(2, 3)], {}, 17, 1, "random"),
    ("RandomUniformLike", [t(2, 3)], {}, 17, 1, "random"),
    ("Bernoulli", [t(2, 3, low=0, high=1)], {}, 17, 1, "random"),
    ("Einsum", [t(2, 3), t(3, 2)], {"equation": "iJ,JK"}, 17, 1, "upper and lower case"),
    ("DFT", [t(1, 5, 2), fixed(4, np.int64)], {"inverse": 1, "onesided": 1}, 17, 1, "4 values of 5 bins"),
    ("DFT", [t(1, 5, 2), fed(8)], {"inverse": 1, "onesided": 1}, 17, 1, "its inverse is one-sided"),
]


@pytest.mark.parametrize(
    ("op", "inputs", "attrs", "opset", "outputs", "why"), REFUSED, ids=lambda v: v if isinstance(v, str) else ""
)
def test_refused(op: str, inputs: list[In | None], attrs: dict[str, Any], opset: int, outputs: int, why: str) -> None:
    model = Case(op, op, tuple(inputs), attrs, opset, outputs).model()
    with pytest.raises(OperatorError, match=why) as error:
        gbp_onnx.differentiate(model, outputs=["y"])
    assert error.value.code == ("GBP201" if "known" in why else "GBP202")
    assert [r.op for r in error.value.reasons] == [op]


@pytest.mark.parametrize(
    ("op", "attrs"), [("ReduceMean", {}), ("ReduceL2", {}), ("ReduceLogSumExp", {}), ("Pow", {})], ids=lambda v: str(v)
)
def test_integers_that_are_rounded_are_refused(op: str, attrs: dict[str, Any]) -> None:
    reads = "a b" if op == "Pow" else "a"
    nodes = ((op, reads, "u", attrs), ("Cast", "u", "y", {"to": 1}))
    model = Case("whole", op, (In(value=np.asarray([4, 9], np.int32)), fixed(0.5)), nodes=nodes).model()
    with pytest.raises(OperatorError, match="round"):
        gbp_onnx.differentiate(model, wrt=["a"])


@pytest.mark.parametrize("op", ["Hardmax", "BitCast"])
def test_an_operator_that_stops_the_gradient_gives_zeros(op: str) -> None:
    nodes = (
        (("Hardmax", "a", "u", {}),)
        if op == "Hardmax"
        else (("BitCast", "a", "b", {"to": 6}), ("Cast", "b", "u", {"to": 1}))
    )
    case = Case("stop", op, (t(2, 3),), nodes=(*nodes, ("Mul", "u u", "y", {})), opset=26)
    built = gbp_onnx.differentiate(case.model())
    y, got = session(built).run(["y", "a_grad"], {**case.feeds, "y_seed": np.ones((2, 3), np.float32)})
    assert np.any(y)
    np.testing.assert_array_equal(got, np.zeros((2, 3)))


def test_an_inverse_deviation_that_nothing_differentiates_changes_nothing() -> None:
    given, attrs = (t(2, 4), t(4)), {"axis": -1, "epsilon": 1e-5}
    one, two = (Case("n", "SimplifiedLayerNormalization", given, attrs, outputs=k) for k in (1, 2))
    feeds = {**one.feeds, "y_seed": np.asarray(np.arange(8).reshape(2, 4), np.float32)}
    got, want = (
        session(gbp_onnx.differentiate(case.model(), outputs=["y"])).run(["a_grad", "b_grad"], feeds)
        for case in (two, one)
    )
    for mine, theirs in zip(got, want, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    with pytest.raises(OperatorError, match="inverse deviation"):
        gbp_onnx.differentiate(two.model(), outputs=["y1"])


def test_all_obstacles_are_reported_at_once() -> None:
    nodes = (("Bernoulli", "a", "u", {}), ("Einsum", "u u", "v", {"equation": "iJ,jK"}), ("Bernoulli", "v", "y", {}))
    with pytest.raises(OperatorError) as error:
        gbp_onnx.differentiate(Case("all", "Bernoulli", (t(2, 3),), nodes=nodes).model())
    assert [r.op for r in error.value.reasons] == ["Bernoulli", "Einsum", "Bernoulli"]


# --- random forms -------------------------------------------------------------------------------------------------

FUZZ = settings(
    max_examples=80, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
SPACE = st.integers(1, 3)


def axes(draw: Any, count: int, low: int, high: int) -> list[int]:
    return draw(st.lists(st.integers(low, high), min_size=count, max_size=count))


def forward(case: Case) -> np.ndarray:
    """The result; no example where ONNX Runtime refuses the model, or onnx infers another shape than it computes."""
    model = case.model()
    try:
        y = session(model).run(None, case.feeds)[0]
    except Exception as error:
        assert type(error).__module__.startswith("onnx"), error
        assume(False)
    dims = model.graph.output[0].type.tensor_type.shape.dim
    assume(
        y.size > 0 and all(not d.HasField("dim_value") or d.dim_value == s for d, s in zip(dims, y.shape, strict=True))
    )
    return y


def check_if_it_runs(case: Case) -> None:
    assume(np.abs(forward(case)).max() < 1e30)
    # Differences of a linear operator are taken in float32 themselves: wider than for the fixed cases.
    check(replace(case, tolerance=5e-6 if case.linear else case.tolerance))


@FUZZ
@given(st.data())
def test_conv_fuzz(data: st.DataObject) -> None:
    n = data.draw(SPACE)
    group = data.draw(st.integers(1, 2))
    kernel, strides, dilations = axes(data.draw, n, 1, 3), axes(data.draw, n, 1, 3), axes(data.draw, n, 1, 3)
    size = [
        data.draw(st.integers(max(1, (k - 1) * d), (k - 1) * d + 4)) for k, d in zip(kernel, dilations, strict=True)
    ]
    attrs: dict[str, Any] = {"strides": strides, "dilations": dilations, "group": group}
    auto_pad = data.draw(st.sampled_from(["NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    attrs |= {"pads": axes(data.draw, 2 * n, 0, 3)} if auto_pad == "NOTSET" else {"auto_pad": auto_pad}
    w = t(2 * group, 2, *kernel)
    stored = data.draw(st.booleans()) or auto_pad.startswith("SAME")
    weight = fixed(w.make(np.random.RandomState(0))) if stored else w
    gaps = any(s - (k - 1) * d > 2 for k, d, s in zip(kernel, dilations, strides, strict=True))
    assume(not auto_pad.startswith("SAME") or (max(dilations) == 1 and not gaps))  # refused
    check_if_it_runs(Case("fuzz", "Conv", (t(1, 2 * group, *size), weight), attrs, linear=True, free="a"))


@FUZZ
@given(st.data())
def test_conv_transpose_fuzz(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 2))
    group = data.draw(st.integers(1, 2))
    kernel, strides, dilations = axes(data.draw, n, 1, 3), axes(data.draw, n, 1, 3), axes(data.draw, n, 1, 2)
    attrs: dict[str, Any] = {"strides": strides, "dilations": dilations, "group": group}
    attrs["output_padding"] = [
        data.draw(st.integers(0, max(s, d) - 1)) for s, d in zip(strides, dilations, strict=True)
    ]
    auto_pad = data.draw(st.sampled_from(["NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    attrs |= {"pads": axes(data.draw, 2 * n, 0, 2)} if auto_pad == "NOTSET" else {"auto_pad": auto_pad}
    case = Case(
        "fuzz",
        "ConvTranspose",
        (t(1, group, *axes(data.draw, n, 1, 4)), t(group, 2, *kernel)),
        attrs,
        linear=True,
        free="a",
    )
    try:
        check_if_it_runs(case)
    except OperatorError as error:
        assert "asks for more than the windows reach" in str(error)
        assume(False)


@FUZZ
@given(st.data())
def test_average_pool_fuzz(data: st.DataObject) -> None:
    n = data.draw(SPACE)
    kernel, strides = axes(data.draw, n, 1, 3), axes(data.draw, n, 1, 3)
    opset = data.draw(st.sampled_from([11, 17, 19, 22]))
    dilations = axes(data.draw, n, 1, 2) if opset >= 19 else [1] * n
    size = [data.draw(st.integers((k - 1) * d + 1, (k - 1) * d + 4)) for k, d in zip(kernel, dilations, strict=True)]
    attrs: dict[str, Any] = {
        "kernel_shape": kernel,
        "strides": strides,
        "count_include_pad": data.draw(st.integers(0, 1)),
    }
    attrs |= {"dilations": dilations} if opset >= 19 else {}
    auto_pad = data.draw(st.sampled_from(["NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    if auto_pad == "NOTSET":
        attrs |= {
            "pads": [data.draw(st.integers(0, k - 1)) for k in kernel * 2],
            "ceil_mode": data.draw(st.integers(0, 1)),
        }
    else:
        attrs["auto_pad"] = auto_pad
        gaps = any(s - k > 1 for k, s in zip(kernel, strides, strict=True))
        assume(
            auto_pad == "VALID" or (max(dilations) == 1 and not gaps)
        )  # refused: ONNX Runtime's windows are odd there
    check_if_it_runs(Case("fuzz", "AveragePool", (t(1, 2, *size),), attrs, opset=opset, linear=True))


def max_pool_by_hand(x: np.ndarray, y: np.ndarray, seed: np.ndarray, attrs: dict[str, Any]) -> np.ndarray:
    """The seed of each window at the window's first maximum in row-major order; nothing for a window without input."""
    got = np.zeros_like(x)
    space = x.shape[2:]
    for place in np.ndindex(*y.shape):
        taps = itertools.product(
            *(
                [p * s - b + k * d for k in range(size)]
                for p, s, b, size, d in zip(
                    place[2:], attrs["strides"], attrs["pads"], attrs["kernel_shape"], attrs["dilations"], strict=False
                )
            )
        )
        inside = [tap for tap in taps if all(0 <= v < m for v, m in zip(tap, space, strict=True))]
        if inside:
            best = max(inside, key=lambda tap, at=place[:2]: x[(*at, *tap)])  # the first of equals
            assert y[place] == x[(*place[:2], *best)]
            got[(*place[:2], *best)] += seed[place]
    return got


@FUZZ
@given(st.data())
def test_max_pool_fuzz(data: st.DataObject) -> None:
    n = data.draw(SPACE)
    kernel, strides, dilations = axes(data.draw, n, 1, 3), axes(data.draw, n, 1, 3), axes(data.draw, n, 1, 2)
    size = axes(data.draw, n, 1, 6)
    attrs: dict[str, Any] = {
        "kernel_shape": kernel,
        "strides": strides,
        "dilations": dilations,
        "pads": [data.draw(st.integers(0, k - 1)) for k in kernel * 2],
        "ceil_mode": data.draw(st.integers(0, 1)),
        "storage_order": data.draw(st.integers(0, 1)),
    }
    levels = data.draw(st.sampled_from([2, 4, 1000]))  # few levels: many ties
    random = np.random.RandomState(zlib.crc32(repr((attrs, size)).encode()))
    x = random.randint(-levels, levels, (2, 2, *size)).astype(np.float32)
    case = Case("fuzz", "MaxPool", (In(value=x),), attrs)
    y = forward(case)
    seed = random.randint(-9, 9, y.shape).astype(np.float32)
    for dynamic in (False, True):
        built = gbp_onnx.differentiate(case.model(dynamic))
        again, got = session(built).run(["y", "a_grad"], {"a": x, "y_seed": seed})
        np.testing.assert_array_equal(again, y)
        np.testing.assert_array_equal(got, max_pool_by_hand(x, y, seed, attrs))


@FUZZ
@given(st.data())
def test_pad_fuzz(data: st.DataObject) -> None:
    n = data.draw(SPACE)
    size = axes(data.draw, n, 2, 5)
    mode = data.draw(st.sampled_from(["constant", "reflect", "edge", "wrap"]))
    chosen = sorted(data.draw(st.sets(st.integers(0, n - 1), min_size=1)))
    low = -1 if mode != "wrap" else 0
    pads = [data.draw(st.integers(low, size[a] - 1)) for a in chosen * 2]
    given_axes = [a - n * data.draw(st.integers(0, 1)) for a in chosen]
    as_input = fed if data.draw(st.booleans()) else (lambda v: ints(*v))
    check_if_it_runs(
        Case("fuzz", "Pad", (t(*size), as_input(pads), None, ints(*given_axes)), {"mode": mode}, opset=19, linear=True)
    )


@FUZZ
@given(st.data())
def test_slice_fuzz(data: st.DataObject) -> None:
    n = data.draw(SPACE)
    size = axes(data.draw, n, 1, 6)
    chosen = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=n, unique=True))
    count = len(chosen)
    far = st.one_of(st.integers(-8, 8), st.sampled_from([-(2**63), 2**63 - 1, -1000, 1000]))
    starts, ends = (data.draw(st.lists(far, min_size=count, max_size=count)) for _ in range(2))
    steps = data.draw(st.lists(st.sampled_from([1, 1, 2, 3, -1, -2]), min_size=count, max_size=count))
    given_axes = [a - n * data.draw(st.integers(0, 1)) for a in chosen]
    as_input = fed if data.draw(st.booleans()) else (lambda v: ints(*v))
    tail = [ints(*given_axes)] + ([as_input(steps)] if any(s != 1 for s in steps) else [])
    check_if_it_runs(Case("fuzz", "Slice", (t(*size), as_input(starts), as_input(ends), *tail), linear=True))


@FUZZ
@given(st.data())
def test_gather_fuzz(data: st.DataObject) -> None:
    n = data.draw(SPACE)
    size = axes(data.draw, n, 1, 4)
    axis = data.draw(st.integers(-n, n - 1))
    op = data.draw(st.sampled_from(["Gather", "GatherElements"]))
    if op == "Gather":
        shape = data.draw(st.sampled_from([(), (1,), (3,), (2, 2), (1, 3, 1), (0,)]))
    else:
        shape = tuple(data.draw(st.integers(1, 4 if k == axis % n else size[k])) for k in range(n))
    count = int(np.prod(shape))
    flat = data.draw(st.lists(st.integers(-size[axis], size[axis] - 1), min_size=count, max_size=count))
    indices = np.asarray(flat, data.draw(st.sampled_from([np.int32, np.int64]))).reshape(shape)
    given_indices = fed(indices, indices.dtype) if data.draw(st.booleans()) else fixed(indices, indices.dtype)
    check_if_it_runs(Case("fuzz", op, (t(*size), given_indices), {"axis": axis}, linear=True))


def test_the_forward_part_is_the_canonical_graph() -> None:
    """Nodes are appended; of the forward's own only MaxPool gains an output."""
    case = next(c for c in CASES if c.name == "MaxPool/padded")
    model = case.model()
    built = gbp_onnx.differentiate(model)
    own = list(built.graph.node)[: len(model.graph.node)]
    for mine, theirs in zip(own, canonical_model(case.model()).graph.node, strict=True):
        assert list(mine.output)[: len(theirs.output)] == list(theirs.output)
        assert list(mine.input) == list(theirs.input) and mine.attribute == theirs.attribute
    assert all(p.key == "gbp.vjp_of" for n in list(built.graph.node)[len(own) :] for p in n.metadata_props)
