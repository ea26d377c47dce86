"""Derivatives taken through an equivalent graph of plain operators."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

import gbp_onnx
from gbp_onnx.errors import OperatorError
from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.reader import Node, Tensor
from gbp_onnx.vjp import registry
from gbp_onnx.vjp.recompute import by_equivalent
from tests.vjp_cases import fixed, t
from tests.vjp_check import Case, check

RUNNING_SUM = """e (x, axis) => (y) {
    k = Constant<value = int64[1] {0}>()
    first = Gather<axis = 0>(x, k)
    flat = Squeeze(first, k)
    zeros = Sub(flat, flat)
    last, y = Scan <num_scan_inputs = 1, body = b (h, p) => (h_out, taken) {
        h_out = Add(h, p)  taken = Identity(h_out) }> (zeros, x)
}"""


def replaced(monkeypatch: pytest.MonkeyPatch, op_type: str, graph: str) -> None:
    """Let the derivative of an operator go through `graph`."""
    equivalent = onnx.parser.parse_graph(graph)

    def rule(op: Emitter, node: Node, cts: tuple[Tensor | None, ...]) -> Any:
        return by_equivalent(op, node, cts, equivalent)

    entry = registry.Derivative(op_type, "", 1, rule, all_outputs=True)
    monkeypatch.setitem(registry._TABLE, ("", op_type), [entry])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_operator_that_is_a_scan(monkeypatch: pytest.MonkeyPatch, dtype: Any) -> None:
    replaced(monkeypatch, "CumSum", RUNNING_SUM)
    check(Case("through a Scan", "CumSum", (t(4, 3, dtype=dtype), fixed(0, np.int64))))


def test_several_inputs_and_outputs_some_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = "e (x, s, b) => (y) { m = Mul(x, s)  y = Add(m, b) }"
    replaced(monkeypatch, "Gemm", "e (a, b) => (y) { y = MatMul(a, b) }")
    check(Case("without its third input", "Gemm", (t(2, 3), t(3, 4))))
    replaced(monkeypatch, "Sum", graph)
    check(Case("three", "Sum", (t(2, 3), fixed(np.ones((2, 3))), t(3))))
    replaced(monkeypatch, "TopK", "e (x, k) => (y, i) { y, i = TopK(x, k) }")


def test_what_is_not_wanted_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    replaced(monkeypatch, "Mul", "e (a, b) => (y) { i = Reciprocal(b)  y = Div(a, i) }")
    case = Case("one wanted", "Mul", (t(2, 3), fixed(np.full(3, 2.0))))
    check(case)
    built = gbp_onnx.differentiate(case.model())
    assert not {n.op_type for n in built.graph.node} & {"Neg", "ReduceSum"}


def test_random_numbers_would_be_others(monkeypatch: pytest.MonkeyPatch) -> None:
    replaced(monkeypatch, "Sub", "e (a, b) => (y) { r = RandomNormal<shape = [2, 3]>()  n = Mul(a, r)  y = Add(n, b) }")
    with pytest.raises(OperatorError, match=r"Sub.*RandomNormal, whose values would be others"):
        gbp_onnx.differentiate(Case("random", "Sub", (t(2, 3), t(2, 3))).model())


def test_the_rule_holds_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    replaced(monkeypatch, "Softplus", "e (x) => (y) { y = Relu(x) }")
    model = Case("relu", "Softplus", (t(3),)).model()
    ops = {
        rule: [n.op_type for n in gbp_onnx.differentiate(model, rule=rule).graph.node]
        for rule in ("saliency", "guided", "deconvnet")
    }
    assert ops["saliency"].count("Relu") == 1
    assert ops["guided"].count("Relu") == 2
    assert "Where" not in ops["deconvnet"]
