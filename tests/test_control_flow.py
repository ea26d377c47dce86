"""Branches and loops as models have them: the rules inside bodies, what inspect lists of them, random nests."""

from __future__ import annotations

import random
import warnings
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gbp_onnx
import tests.vjp_cases_control
from gbp_onnx.errors import OperatorError
from tests.vjp_cases import fed, t
from tests.vjp_cases_control import Written
from tests.vjp_check import check, session

Array = np.ndarray


def parsed(text: str, opset: int = 17) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}]> {text}')


def ran(model: onnx.ModelProto, feeds: dict[str, Array]) -> dict[str, Array]:
    made = session(model)
    return dict(zip([o.name for o in made.get_outputs()], made.run(None, feeds), strict=True))


def masked(rule: str, g: Array, x: Array) -> Array:
    """The papers' formulas at one rectifier."""
    return {"saliency": g * (x > 0), "deconvnet": np.maximum(g, 0), "guided": np.maximum(g, 0) * (x > 0)}[rule]


# --- the rules inside bodies --------------------------------------------------------------------------------------

RULES = ("saliency", "deconvnet", "guided")
NET = """g (float[4] x, float[4, 4] w, int64 n) => (float[4] y) {
    k = Constant<value = bool {1}>()
    y = Loop (n, k, x) <body = l (int64 i, bool go, float[4] s) => (go_on, s_out) {
        go_on = Identity(go)  p = MatMul(w, s)  r = Relu(p)  s_out = Sub(r, x)
    }>
}"""


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("steps", [0, 1, 3])
def test_a_rule_masks_in_every_iteration(rule: str, steps: int) -> None:
    values = np.random.RandomState(steps)
    x, w, seed = (values.randn(*s).astype(np.float32) for s in ((4,), (4, 4), (4,)))
    built = gbp_onnx.differentiate(parsed(NET), wrt="x", rule=rule)
    got = ran(built, {"x": x, "w": w, "n": np.asarray(steps), "y_seed": seed})["x_grad"]

    states, before = [x.astype(np.float64)], []
    for _ in range(steps):
        before.append(w @ states[-1])
        states.append(np.maximum(before[-1], 0) - x)
    g, total = seed.astype(np.float64), np.zeros(4)
    for p in reversed(before):
        total -= g
        g = w.T @ masked(rule, g, p)
    np.testing.assert_allclose(got, g + total, rtol=1e-4, atol=1e-5)


BRANCHED = """g (float[2, 6] x, float[6] w, bool c) => (float[2, 6] y) {
    h = Mul(x, w)
    y = If (c) <then_branch = t () => (u) { z = Constant<value = float {0}>()  r = Max(h, z)  u = Mul(r, w) },
                else_branch = e () => (v) { v = Clip(h, zero, six) }>
}"""


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("taken", [True, False])
def test_a_rule_masks_in_the_branch_that_is_taken(rule: str, taken: bool) -> None:
    values = np.random.RandomState(5)
    x, seed = (4 * values.randn(2, 6).astype(np.float32) for _ in range(2))
    w = (3 * values.randn(6)).astype(np.float32)
    model = parsed(BRANCHED)
    for name, value in (("zero", 0.0), ("six", 6.0)):  # bounds from around the branch
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(value), name))
    built = gbp_onnx.differentiate(model, wrt="x", rule=rule)
    got = ran(built, {"x": x, "w": w, "c": np.asarray(taken), "y_seed": seed})["x_grad"]
    h = x * w
    if taken:
        want = masked(rule, seed * w, h) * w
    else:
        inside = (h > 0) & (h < 6)
        want = (np.maximum(seed, 0) if rule != "saliency" else seed) * (1 if rule == "deconvnet" else inside) * w
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_rules_share_the_forward_that_is_run_again() -> None:
    text = NET.replace("float[4] x, float[4, 4] w", "float[1, 2, 4] x, float[4, 4] w").replace(
        "float[4] s", "float[1, 2, 4] s"
    )
    model = parsed(text.replace("(float[4] y)", "(float[1, 2, 4] y)").replace("MatMul(w, s)", "MatMul(s, w)"))
    built = gbp_onnx.build(model, rules=RULES)
    assert [n.op_type for n in built.graph.node].count("Loop") == 1 + 1 + 3  # the model's, the one that keeps states
    alone = gbp_onnx.build(model, rules=["guided"])
    feeds = {
        "x": np.random.RandomState(0).randn(1, 2, 4).astype(np.float32),
        "w": np.random.RandomState(1).randn(4, 4).astype(np.float32),
        "n": np.asarray(3),
        "target": np.asarray([-1]),
    }
    np.testing.assert_array_equal(ran(built, feeds)["attribution_guided"], ran(alone, feeds)["attribution_guided"])


# --- what is said of them -----------------------------------------------------------------------------------------

LISTED = """g (float[1, 3, 8, 8] image, bool c, int64 n) => (float[1, 3] y) {
    k = Constant<value = bool {1}>()
    a = Loop (n, k, image) <body = l (int64 i, bool go, float[1, 3, 8, 8] s) => (go_on, s_out, debris) {
        go_on = Identity(go)
        s_out = If (c) <then_branch = t () => (u) { u = Relu(s) }, else_branch = e () => (v) { v = Sigmoid(s) }>
        idle = Relu(debris_in)  debris = Neg(idle)
        debris_in = Abs(s)
    }>
    p = GlobalAveragePool(a)
    y = Flatten(p)
}"""


def listed() -> onnx.ModelProto:
    model = parsed(LISTED.replace("a = Loop", "a, dropped = Loop"))
    body = model.graph.node[1].attribute[0].g
    nodes = [body.node[k] for k in (0, 1, 4, 2, 3)]
    kept = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del body.node[:]
    body.node.extend(kept)
    kept[1].attribute[0].g.node[0].name = "the_relu"
    body.node[1].attribute[0].g.node[0].name = "the_relu"
    model.graph.node[1].name = "the_loop"
    return model


def test_inspect_lists_what_lies_in_bodies() -> None:
    found = gbp_onnx.inspect(listed())
    assert found.rectifiers == ({"name": "the_relu", "kind": "Relu"},)  # and not the one that nothing depends on
    assert found.ungated == ({"name": "the_loop/If_1/else_branch/Sigmoid_0", "kind": "Sigmoid"},)
    assert not found.unsupported


def test_what_cannot_be_differentiated_in_a_body_is_named_once() -> None:
    model = listed()
    branch = model.graph.node[1].attribute[0].g.node[1].attribute[1].g
    branch.node[0].op_type, branch.node[0].name = "RandomNormalLike", "noise"
    found = gbp_onnx.inspect(model)
    assert [(r["op"], r["node"]) for r in found.unsupported] == [("RandomNormalLike", "noise")]
    with pytest.raises(OperatorError, match=r"'noise'.*random"):
        gbp_onnx.build(model)


def test_random_numbers_in_a_loop_would_be_others() -> None:
    text = NET.replace("r = Relu(p)", "q = RandomNormalLike(w)  m = ReduceMax<keepdims = 0>(q)  r = Mul(p, m)")
    with pytest.raises(OperatorError, match="RandomNormalLike, whose values would be others"):
        gbp_onnx.differentiate(parsed(text), wrt="x")


@pytest.mark.parametrize(
    ("inside", "told"), [("v = Add(s, s)", True), ("v = MaxPool<kernel_shape = [1, 1]>(s)", False)]
)
def test_deconvnet_that_reads_nothing_is_told_through_bodies(inside: str, told: bool) -> None:
    text = LISTED[: LISTED.index("a = Loop")] + """
        a = Loop (n, k, image) <body = l (int64 i, bool go, float[1, 3, 8, 8] s) => (go_on, s_out) {
            go_on = Identity(go)
            s_out = If (c) <then_branch = t () => (u) { u = Relu(s) }, else_branch = e () => (v) { INSIDE }>
        }>
        p = GlobalAveragePool(a)  y = Flatten(p) }"""  # fmt: skip
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gbp_onnx.build(parsed(text.replace("INSIDE", inside)), rules=["deconvnet"])
    assert any("same for every image" in str(w.message) for w in caught) == told


# --- bodies are read like graphs ----------------------------------------------------------------------------------


def test_old_operators_and_function_bodies_inside() -> None:
    old = """g (float[2, 4] a, float[4] b, bool c) => (float[2, 4] y) {
        y = If (c) <then_branch = t () => (u) { q = Softmax<axis = 1>(a)  u = Mul(q, b) },
                    else_branch = e () => (v) { s = Clip<min = 0.0>(a)  v = Mul(s, b) }>
    }"""
    model = parsed(old, opset=9)
    built = gbp_onnx.differentiate(model, wrt=["a", "b"])
    a = np.random.RandomState(0).randn(2, 4).astype(np.float32)
    b = np.arange(4, dtype=np.float32)
    ones = np.ones((2, 4), np.float32)
    got = ran(built, {"a": a, "b": b, "c": np.asarray(True), "y_seed": ones})
    p = np.exp(a) / np.exp(a).sum(1, keepdims=True)
    np.testing.assert_allclose(got["a_grad"], p * (b - (p * b).sum(1, keepdims=True)), atol=1e-6)
    got = ran(built, {"a": a, "b": b, "c": np.asarray(False), "y_seed": ones})
    np.testing.assert_allclose(got["a_grad"], (a > 0) * b, atol=1e-6)


def test_local_functions_are_inlined_inside() -> None:
    text = """<ir_version: 8, opset_import: ["": 17, "my": 1]>
    g (float[3] x, bool c) => (float[3] y) {
        y = If (c) <then_branch = t () => (u) { u = my.twice_sine(x) }, else_branch = e () => (v) { v = Neg(x) }>
    }
    <domain: "my", opset_import: ["": 17]> twice_sine (p) => (q) { s = Sin(p)  q = Add(s, s) }"""
    built = gbp_onnx.differentiate(onnx.parser.parse_model(text))
    x = np.asarray([0.1, 0.2, 0.3], np.float32)
    got = ran(built, {"x": x, "c": np.asarray(True), "y_seed": np.ones(3, np.float32)})["x_grad"]
    np.testing.assert_allclose(got, 2 * np.cos(x), rtol=1e-6)


def test_names_of_bodies_stay_apart() -> None:
    """Two loops whose bodies use the same names, in a model that has the names of emitted bodies already."""
    text = """g (float[3] x) => (float[3] y) {
        n = Constant<value = int64 {2}>()  k = Constant<value = bool {1}>()
        at = Loop (n, k, x) <body = l (int64 i, bool go, float[3] s) => (go_on, t) {
            go_on = Identity(go)  t = Mul(s, s) }>
        y = Loop (n, k, at) <body = l (int64 i, bool go, float[3] s) => (go_on, t) {
            go_on = Identity(go)  t = Mul(s, x) }>
    }"""
    built = gbp_onnx.differentiate(parsed(text))
    onnx.checker.check_model(built, full_check=True)
    x = np.asarray([0.5, 1.5, -1.0], np.float32)
    got = ran(built, {"x": x, "y_seed": np.ones(3, np.float32)})["x_grad"]
    np.testing.assert_allclose(got, 6 * x**5, rtol=1e-5)


def test_a_stacked_output_has_the_rank_that_the_body_tells() -> None:
    """onnx's inference knows no shape behind a Loop; MatMul's derivative needs the rank."""
    text = """g (float[2, 3] a, float[3, 4] b, int64 c) => (float[n, 2, 4] y) {
        k = Constant<value = bool {1}>()
        last, all = Loop (c, k, a) <body = l (int64 i, bool go, float[p, q] s) => (go_on, t, u) {
            go_on = Identity(go)  t = Sin(s)  u = Mul(s, t) }>
        z = MatMul(last, b)  v = MatMul(all, b)  y = Add(z, v)
    }"""
    gbp_onnx.differentiate(parsed(text))


# --- random nests -------------------------------------------------------------------------------------------------


class Nest:
    """Random text of nested control flow over vectors of three; every value stays within (-1, 1) or near."""

    def __init__(self, seed: int) -> None:
        self.random, self.count = random.Random(seed), 0

    def name(self) -> str:
        self.count += 1
        return f"n{self.count}"

    def plain(self, names: list[str]) -> tuple[str, str]:
        a, b, made, other = self.random.choice(names), self.random.choice(names), self.name(), self.name()
        match self.random.randrange(5):
            case 0:
                return f"{made} = Sin({a})", made
            case 1:
                return f"{made} = Mul({a}, {b})", made
            case 2:
                return f"{other} = Sub({a}, {b})  {made} = Tanh({other})", made
            case 3:
                return f"{other} = Add({a}, {b})  {made} = Sin({other})", made
            case _:
                return f"{other} = Concat<axis = 0>({a}, {b})  {made} = Slice({other}, two, five)", made

    def block(self, names: list[str], depth: int, length: int) -> tuple[str, list[str]]:
        """A few lines, and the names that they and `names` leave in scope."""
        lines, seen = [], list(names)
        for _ in range(length):
            form = self.random.choice(["plain", "plain", "if", "loop", "scan"]) if depth else "plain"
            line, made = getattr(self, form)(seen) if form == "plain" else getattr(self, form)(seen, depth - 1)
            lines.append(line)
            seen += [made] if isinstance(made, str) else made
        return "\n".join(lines), seen

    def if_(self, names: list[str], depth: int) -> tuple[str, list[str]]:
        made = [self.name(), self.name()]
        branches = []
        for attribute in ("then_branch", "else_branch"):
            text, seen = self.block(names, depth, 2)
            results = [self.name(), self.name()]
            text += "".join(f"\n{r} = Identity({self.random.choice(seen)})" for r in results)
            branches.append(f"{attribute} = {self.name()} () => ({', '.join(results)}) {{ {text} }}")
        condition = self.random.choice(["flag", "no_flag"])
        return f"{', '.join(made)} = If ({condition}) <{', '.join(branches)}>", made

    def loop(self, names: list[str], depth: int) -> tuple[str, list[str]]:
        state, other, i, go, go_on = (self.name() for _ in range(5))
        text, seen = self.block([*names, state, other], depth, 2)
        results = [self.name() for _ in range(3)]
        text += "".join(f"\n{r} = Identity({self.random.choice(seen[-4:])})" for r in results)
        made = [self.name(), self.name()]
        stacked, summed = self.name(), self.name()
        inits = [self.random.choice(names) for _ in range(2)]
        trips = self.random.choice(["count", "three"])
        line = (
            f"{', '.join(made)}, {stacked} = Loop ({trips}, yes, {', '.join(inits)}) <body = {self.name()} "
            f"(int64 {i}, bool {go}, float[3] {state}, float[3] {other}) => ({go_on}, {', '.join(results)}) "
            f"{{ {go_on} = Identity({go})\n{text} }}>"
        )
        if trips == "count":  # it may be 0, and ONNX Runtime then gives the stack sizes of 0
            return line, made
        return f"{line}\n{summed} = ReduceMean<keepdims = 0, axes = [0]>({stacked})", [*made, summed]

    def scan(self, names: list[str], depth: int) -> tuple[str, list[str]]:
        state, item, rows, parts = (self.name() for _ in range(4))
        text, seen = self.block([*names, state, item], depth, 2)
        results = [self.name() for _ in range(2)]
        text += "".join(f"\n{r} = Identity({self.random.choice(seen[-4:])})" for r in results)
        made, stacked, summed = self.name(), self.name(), self.name()
        ways = [self.random.randrange(2) for _ in range(2)]
        axis = self.random.randrange(2)
        first, second = self.name(), self.name()
        line = (
            f"{first} = Unsqueeze({self.random.choice(names)}, axis{axis})\n"
            f"{second} = Unsqueeze({self.random.choice(names)}, axis{axis})\n"
            f"{rows} = Concat<axis = {axis}>({first}, {second}, {first})  {parts} = Sin({rows})\n"
            f"{made}, {stacked} = Scan <num_scan_inputs = 1, scan_input_directions = [{ways[0]}], "
            f"scan_output_directions = [{ways[1]}], scan_input_axes = [{axis}], scan_output_axes = [{axis - 2}], "
            f"body = {self.name()} (float[3] {state}, float[3] {item}) => "
            f"({', '.join(f'float[3] {r}' for r in results)}) {{ {text} }}> "
            f"({self.random.choice(names)}, {parts})\n"
            f"{summed} = ReduceMean<keepdims = 0, axes = [{axis}]>({stacked})"
        )
        return line, [made, summed]


setattr(Nest, "if", Nest.if_)


def nest(seed: int, trips: int, flag: bool) -> Written:
    made = Nest(seed)
    text, seen = made.block(["a", "b"], 2, 3)
    head = """yes = Constant<value = bool {1}>()  three = Constant<value = int64 {3}>()
        two = Constant<value = int64[1] {2}>()  five = Constant<value = int64[1] {5}>()
        axis0 = Constant<value = int64[1] {0}>()  axis1 = Constant<value = int64[1] {1}>()
        count = Identity(c)  flag = Identity(d)  no_flag = Not(d)"""
    total = f"y = Sum({', '.join(seen[2:])})"
    given = (t(3), t(3), fed(trips), fed(flag, np.bool_))
    return Written(f"nest/{seed}", "Loop", given, text=f"{head}\n{text}\n{total}", tolerance=2e-5)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 10**6), st.integers(0, 3), st.booleans())
def test_random_nests(seed: int, trips: int, flag: bool) -> None:
    check(nest(seed, trips, flag))


def test_the_cases_are_in_the_table() -> None:
    names: Any = {c.name for c in tests.vjp_cases_control.CASES}
    assert {"Loop/a state that grows", "SequenceMap/of two sequences and a tensor"} <= names
