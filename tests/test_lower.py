"""Opsets that ONNX Runtime does not load yet are marked with one that it does, where nothing changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import gbp_onnx
from tests.vjp_check import session


def model(
    op: str, inputs: list[tuple[str, int, list[int]]], made: int, opset: int = 28, **attrs: Any
) -> onnx.ModelProto:
    node = helper.make_node(op, [n for n, _, _ in inputs], ["y"], **attrs)
    given = [helper.make_tensor_value_info(*i) for i in inputs]
    graph = helper.make_graph([node], "g", given, [helper.make_tensor_value_info("y", made, None)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def opset_of(found: onnx.ModelProto) -> int:
    return int(found.opset_import[0].version)


def test_an_operator_that_only_got_more_types_is_the_same() -> None:
    built = gbp_onnx.differentiate(model("Einsum", [("x", 1, [2, 3])], 1, equation="ij->ji"))
    assert opset_of(built) == 26
    y, g = session(built).run(
        ["y", "x_grad"], {"x": np.ones((2, 3), "f4"), "y_seed": np.arange(6, dtype="f4").reshape(3, 2)}
    )
    assert y.shape == (3, 2)
    assert g.tolist() == [[0, 2, 4], [1, 3, 5]]


def test_a_model_of_an_opset_that_runs_keeps_it() -> None:
    assert opset_of(gbp_onnx.differentiate(model("Relu", [("x", 1, [2])], 1, opset=25))) == 25


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.DOUBLE])
def test_mod_of_floats_rounds_down(kind: int) -> None:
    built = gbp_onnx.differentiate(model("Mod", [("x", kind, [4]), ("b", kind, [4])], kind), wrt=["x", "b"])
    assert opset_of(built) == 26
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    x, b = np.array([-5.3, 5.3, -5.3, 5.3], dtype), np.array([2, 2, -2, -2], dtype)
    y, to_x, to_b = session(built).run(["y", "x_grad", "b_grad"], {"x": x, "b": b, "y_seed": np.ones(4, dtype)})
    np.testing.assert_allclose(y, x - np.floor(x / b) * b, rtol=1e-6)
    assert to_x.tolist() == [1] * 4
    assert to_b.tolist() == (-np.floor(x / b)).tolist()


def test_a_range_of_half_floats_is_counted_in_float32() -> None:
    half = TensorProto.FLOAT16
    inputs = [(n, half, []) for n in ("start", "limit", "delta")]
    built = gbp_onnx.differentiate(model("Range", inputs, half), wrt=["start", "delta"])
    feeds = {n: np.array(v, "f2") for n, v in (("start", 1), ("limit", 2.75), ("delta", 0.5))}
    names = ["y", "start_grad", "delta_grad"]
    y, start, delta = session(built).run(names, {**feeds, "y_seed": np.array([1, 2, 4, 8], "f2")})
    assert y.tolist() == [1, 1.5, 2, 2.5]
    assert (start.item(), delta.item()) == (15, 34)


def test_space_to_depth_in_either_order() -> None:
    x = np.arange(32, dtype=np.float32).reshape(1, 2, 4, 4)
    blocks = x.reshape(1, 2, 2, 2, 2, 2)  # [n, c, h, block, w, block]
    orders = {"DCR": (0, 3, 5, 1, 2, 4), "CRD": (0, 1, 3, 5, 2, 4)}
    for mode, order in orders.items():
        source = model("SpaceToDepth", [("x", 1, [1, 2, 4, 4])], 1, blocksize=2, mode=mode)
        built = gbp_onnx.differentiate(source)
        assert opset_of(built) == 26
        want = blocks.transpose(order).reshape(1, 8, 2, 2)
        y, g = session(built).run(["y", "x_grad"], {"x": x, "y_seed": want})
        np.testing.assert_array_equal(y, want)
        np.testing.assert_array_equal(g, x)


def test_what_has_no_counterpart_stays() -> None:
    source = model("SpaceToDepth", [("x", 1, ["n", "c", "h", "w"])], 1, blocksize=2, mode="CRD")
    assert opset_of(_canonical(source)) == 28


def _canonical(source: onnx.ModelProto) -> onnx.ModelProto:
    from gbp_onnx.canonical.passes import canonical_model

    return canonical_model(source)


@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_swish_is_written_out(alpha: float) -> None:
    built = gbp_onnx.differentiate(model("Swish", [("x", 1, [3])], 1, alpha=alpha))
    x = np.array([-1, 0.5, 2], np.float32)
    y, g = session(built).run(["y", "x_grad"], {"x": x, "y_seed": np.ones(3, "f4")})
    s = 1 / (1 + np.exp(-alpha * x))
    np.testing.assert_allclose(y, x * s, rtol=1e-6)
    np.testing.assert_allclose(g, s + alpha * x * s * (1 - s), rtol=1e-5)


def test_half_floats_of_a_new_type_go_through_float32() -> None:
    source = model("Compress", [("x", TensorProto.BFLOAT16, [4]), ("k", TensorProto.BOOL, [4])], TensorProto.BFLOAT16)
    head = helper.make_node("Cast", ["y"], ["z"], to=1)
    tail = helper.make_node("Cast", ["w"], ["x"], to=TensorProto.BFLOAT16)
    nodes = [tail, *source.graph.node, head]
    given = [helper.make_tensor_value_info("w", 1, [4]), source.graph.input[1]]
    graph = helper.make_graph(nodes, "g", given, [helper.make_tensor_value_info("z", 1, None)])
    whole = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 28)], ir_version=10)
    feeds = {"w": np.arange(4, dtype="f4"), "k": np.array([True, False, True, True]), "z_seed": np.ones(3, "f4")}
    z, g = session(gbp_onnx.differentiate(whole)).run(["z", "w_grad"], feeds)
    assert z.tolist() == [0, 2, 3]
    assert g.tolist() == [1, 0, 1, 1]
