"""Operators of com.microsoft that have a kernel on CUDA only, against their definitions in NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import gbp_onnx
from gbp_onnx.errors import OperatorError
from tests.vjp_check import session

Array = np.ndarray[Any, Any]
RANDOM = np.random.RandomState(3)


def some(*shape: int) -> Array:
    return RANDOM.uniform(-1, 1, shape)


def gelu(x: Array) -> Array:
    return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2


def softmax_from(z: Array, axis: int) -> Array:
    flat = z.reshape(*z.shape[:axis], -1)
    e = np.exp(flat - flat.max(-1, keepdims=True))
    return (e / e.sum(-1, keepdims=True)).reshape(z.shape)


def group_norm(x: Array, gamma: Array, beta: Array, groups: int, silu: bool) -> Array:
    n, h, w, c = x.shape
    g = x.reshape(n, h, w, groups, c // groups)
    mean, var = g.mean((1, 2, 4), keepdims=True), g.var((1, 2, 4), keepdims=True)
    y = ((g - mean) / np.sqrt(var + 1e-5)).reshape(x.shape) * gamma + beta
    return y / (1 + np.exp(-y)) if silu else y


def nhwc_conv(x: Array, w: Array, b: Array) -> Array:
    """Stride 1, no pads, weight [out, kh, kw, in]."""
    o, kh, kw, _ = w.shape
    n, h, wide, _ = x.shape
    y = np.zeros((n, h - kh + 1, wide - kw + 1, o)) + b
    for i in range(kh):
        for j in range(kw):
            y += x[:, i : i + h - kh + 1, j : j + wide - kw + 1] @ w[:, i, j].T
    return y


CASES: dict[str, tuple[str, dict[str, Any], list[Array], Callable[..., Any]]] = {
    "BiasAdd": ("BiasAdd", {}, [some(2, 3, 4), some(4), some(2, 3, 4)], lambda x, b, s: x + b + s),
    "BiasSplitGelu": (
        "BiasSplitGelu",
        {},
        [some(2, 3, 8), some(8)],
        lambda x, b: (x + b)[..., :4] * gelu((x + b)[..., 4:]),
    ),
    "BiasSoftmax": (
        "BiasSoftmax",
        {"axis": 2, "is_inner_broadcast": 1},
        [some(2, 3, 2, 2), some(2, 1, 2, 2)],
        lambda x, b: softmax_from(x + b, 2),
    ),
    "BiasDropout": ("BiasDropout", {}, [some(2, 4), some(4), some(2, 4)], lambda x, b, r: x + b + r),
    "BitmaskDropout": ("BitmaskDropout", {}, [some(2, 4)], lambda x: x),
    "NhwcConv": ("NhwcConv", {"kernel_shape": [2, 3]}, [some(1, 4, 5, 3), some(2, 2, 3, 3), some(2)], nhwc_conv),
    "GroupNorm": (
        "GroupNorm",
        {"groups": 2, "activation": 1},
        [some(2, 3, 2, 4), some(4), some(4)],
        lambda x, g, b: group_norm(x, g, b, 2, silu=True),
    ),
    "SkipGroupNorm": (
        "SkipGroupNorm",
        {"groups": 2, "activation": 0},
        [some(2, 3, 2, 4), some(4), some(4), some(2, 4), some(4)],
        lambda x, g, b, k, c: (
            group_norm(x + k[:, None, None] + c, g, b, 2, silu=False),
            x + k[:, None, None] + c,
        ),
    ),
}


def call(op: str, attrs: dict[str, Any], given: list[Array], results: list[Array]) -> onnx.ModelProto:
    names, made = "abcdef"[: len(given)], [f"y{k}" for k in range(len(results))]
    node = helper.make_node(op, list(names), made, domain="com.microsoft", **attrs)
    inputs = [helper.make_tensor_value_info(n, 1, v.shape) for n, v in zip(names, given, strict=True)]
    outputs = [helper.make_tensor_value_info(n, 1, v.shape) for n, v in zip(made, results, strict=True)]
    graph = helper.make_graph([node], "call", inputs, outputs)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


@pytest.mark.parametrize("name", CASES)
def test_definition_and_derivative(name: str) -> None:
    op, attrs, given, function = CASES[name]

    def results(*values: Array) -> list[Array]:
        made = function(*values)
        return list(made) if isinstance(made, tuple) else [made]

    want = results(*given)
    model = call(op, attrs, given, want)
    built = session(gbp_onnx.differentiate(model))
    seeds = [RANDOM.uniform(-1, 1, y.shape) for y in want]
    feeds = {n: v.astype(np.float32) for n, v in zip("abcdef", given, strict=False)}
    feeds |= {f"y{k}_seed": s.astype(np.float32) for k, s in enumerate(seeds)}
    got = dict(zip([o.name for o in built.get_outputs()], built.run(None, feeds), strict=True))
    for k, y in enumerate(want):
        np.testing.assert_allclose(got[f"y{k}"], y, atol=1e-5)
    for place, x in enumerate(given):
        gradient = np.zeros(x.size)
        for k in range(x.size):
            ends = []
            for by in (1e-5, -1e-5):
                moved = [v.copy() for v in given]
                moved[place].reshape(-1)[k] += by
                ends.append(sum(float((y * s).sum()) for y, s in zip(results(*moved), seeds, strict=True)))
            gradient[k] = (ends[0] - ends[1]) / 2e-5
        np.testing.assert_allclose(got[f"{'abcdef'[place]}_grad"].reshape(-1), gradient, atol=2e-5, err_msg=str(place))


def test_a_mask_of_attention_is_refused_by_name() -> None:
    given = [some(1, 2, 4), some(4, 12), some(12), np.ones((1, 2))]
    model = call("Attention", {"num_heads": 2}, given, [some(1, 2, 4)])
    model.graph.input[3].type.tensor_type.elem_type = onnx.TensorProto.INT32
    with pytest.raises(OperatorError, match="mask"):
        gbp_onnx.differentiate(model, wrt=["a"])
