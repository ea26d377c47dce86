"""Cases of branches, loops, sequences and optionals, written in ONNX's text form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx.parser

from tests.vjp_cases import CASES, fed, fixed, t
from tests.vjp_check import Case, In, session


@dataclass(frozen=True)
class Written(Case):
    """A model in text: `text` holds its nodes, `results` its outputs; inputs a, b, c... as in the other cases."""

    text: str = ""
    results: tuple[str, ...] = ("y",)

    def model(self, dynamic: bool = False) -> onnx.ModelProto:
        given = [(n, i, v) for n, i, v in zip("abcdefgh", self.inputs, self.values, strict=False) if i is not None]
        model = onnx.parser.parse_model(
            f'<ir_version: 8, opset_import: ["": {self.opset}]> g () => () {{ {self.text} }}'
        )
        for name, spec, value in given:
            assert value is not None
            if spec.stored:
                model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
                continue
            kind = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
            free = dynamic and spec.wrt and name in self.free
            shape = [f"{name}{k}" if free else d for k, d in enumerate(value.shape)]
            model.graph.input.append(onnx.helper.make_tensor_value_info(name, kind, shape))
        model.graph.output.extend(onnx.ValueInfoProto(name=n) for n in self.results)
        for output in model.graph.output:
            value = session(model).run([output.name], self.feeds)[0]
            kind = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
            output.CopyFrom(onnx.helper.make_tensor_value_info(output.name, kind, [None] * value.ndim))
        return model


def written(name: str, text: str, *inputs: In, results: tuple[str, ...] = ("y",), **more: Any) -> None:
    CASES.append(Written(name, name.split("/")[0], inputs, text=text, results=results, **more))


def flag(value: bool) -> In:
    return fed(value, np.bool_)


# --- If -----------------------------------------------------------------------------------------------------------

BRANCHES = """y = If (c) <
    then_branch = t () => (u) { r = Relu(a)  u = Mul(r, b) },
    else_branch = e () => (v) { v = Sin(a) }>"""
for _taken in (True, False):
    written(f"If/branches that read different tensors, {_taken}", BRANCHES, t(2, 3), t(3), flag(_taken))
    written(f"If/stored condition {_taken}", BRANCHES, t(2, 3), t(3), fixed(_taken, np.bool_))
    written(
        f"If/two outputs, one unused in a branch, {_taken}",
        """y, y1 = If (c) <
            then_branch = t () => (u, w) { u = Mul(a, b)  w = Identity(b) },
            else_branch = e () => (v, z) {
                v = Mul(a, a)  k = Constant<value = float[3] {1, 2, 3}>()  z = Mul(k, b) }>""",
        t(2, 3), t(3), flag(_taken), results=("y", "y1"),
    )  # fmt: skip
    written(
        f"If/nested, read inside and outside, {_taken}",
        """n = Not(c)
        m = If (c) <
            then_branch = t () => (u) {
                u = If (n) <then_branch = tt () => (p) { p = Exp(a) },
                            else_branch = te () => (q) { s = Sin(b)  q = Mul(s, a) }>
            },
            else_branch = e () => (v) { w = Mul(a, b) v = Tanh(w) }>
        y = Mul(m, a)""",
        t(2, 3), t(3), flag(_taken),
    )  # fmt: skip
    written(
        f"If/branches of different sizes, {_taken}",
        """y = If (c) <
            then_branch = t () => (u) { u = Mul(a, a) },
            else_branch = e () => (v) { ax = Constant<value = int64[1] {0}>() v = ReduceMax<keepdims = 0>(a, ax) }>""",
        t(2, 3, low=-3), fed(0), flag(_taken), opset=18,
    )  # fmt: skip
    written(
        f"If/half precision, {_taken}", BRANCHES, t(2, 3, dtype=np.float16), t(3, dtype=np.float16), flag(_taken),
        tolerance=4e-3,
    )  # fmt: skip
    written(f"If/double, {_taken}", BRANCHES, t(2, 3, dtype=np.float64), t(3, dtype=np.float64), flag(_taken))

# --- Loop ---------------------------------------------------------------------------------------------------------

POWERS = """k = Constant<value = bool {1}>()
    y, y1 = Loop (c, k, a) <body = l (int64 i, bool go, float[2, 3] s) => (go_on, s_out, taken) {
        go_on = Identity(go)  m = Mul(s, b)  s_out = Sin(m)  taken = Mul(s_out, a)
    }>"""
for _trips in (0, 1, 4):
    written(f"Loop/{_trips} iterations", POWERS, t(2, 3), t(3), fed(_trips), results=("y", "y1"))
    written(
        f"Loop/{_trips} iterations, half precision", POWERS.replace("float[", "float16["),
        t(2, 3, dtype=np.float16), t(3, dtype=np.float16), fed(_trips), results=("y", "y1"), tolerance=5e-3,
    )  # fmt: skip
written("Loop/stored trip count", POWERS, t(2, 3), t(3), fixed(3, np.int64), results=("y", "y1"))
written("Loop/only the last state", POWERS, t(2, 3), t(3), fed(3))
written("Loop/only what is scanned", POWERS, t(2, 3), t(3), fed(3), results=("y1",))
for _limit in (0.2, 2.0, 100.0):
    written(
        f"Loop/until the sum exceeds {_limit}",
        """k = Constant<value = bool {1}>()
        y = Loop (, k, a) <body = l (int64 i, bool go, float[2, 3] s) => (go_on, s_out) {
            w = Mul(s, b)  s_out = Add(w, a)  sum = ReduceSum<keepdims = 0>(s_out)
            less = Less(sum, c)  few = Constant<value = int64 {6}>()  soon = Less(i, few)  go_on = And(less, soon)
        }>""",
        t(2, 3, low=0.1), t(3, low=0.5, high=1.5), fed(_limit, np.float32),
    )  # fmt: skip
written(
    "Loop/stops before its limit",
    """k = Constant<value = bool {1}>()  two = Constant<value = int64 {2}>()
    y = Loop (c, k, a) <body = l (int64 i, bool go, float[2, 3] s) => (go_on, s_out) {
        go_on = Less(i, two)  s_out = Mul(s, b)
    }>""",
    t(2, 3), fed([0.5, 2, 3], np.float32), fed(9),
)  # fmt: skip
written(
    "Loop/what is explained comes from another state",
    """k = Constant<value = bool {1}>()
    u, y = Loop (c, k, a, b) <body = l (int64 i, bool go, float[3] p, float[3] q) => (go_on, p2, q2) {
        go_on = Identity(go)  p2 = Sin(p)  q2 = Add(q, p)
    }>""",
    t(3), t(3), fed(3),
)  # fmt: skip
written(
    "Loop/reads the iteration number and rows of what it captures",
    """k = Constant<value = bool {1}>()  z = Constant<value = float[3] {0, 0, 0}>()
    y = Loop (c, k, z) <body = l (int64 i, bool go, float[3] s) => (go_on, s_out) {
        go_on = Identity(go)  row = Gather<axis = 0>(a, i)  f = Cast<to = 1>(i)  w = Mul(row, f)  v = Mul(s, b)
        u = Add(v, w)  s_out = Tanh(u)
    }>""",
    t(4, 3), t(3), fed(4),
)  # fmt: skip
written(
    "Loop/a state that grows",
    """k = Constant<value = bool {1}>()
    y = Loop (c, k, a) <body = l (int64 i, bool go, float[n] s) => (go_on, s_out) {
        go_on = Identity(go)  w = Mul(s, s)  s_out = Concat<axis = 0>(w, b)
    }>""",
    t(2), t(3), fed(3),
)  # fmt: skip
written(
    "Loop/states that change places, one of integers",
    """k = Constant<value = bool {1}>()  n0 = Constant<value = int64 {2}>()
    y, y1, n = Loop (c, k, a, b, n0) <
        body = l (int64 i, bool go, float[2, 3] p, float[2, 3] q, int64 n) => (go_on, q2, p2, n2) {
        go_on = Identity(go)  f = Cast<to = 1>(n)  q2 = Mul(q, f)  p2 = Mul(p, q)  n2 = Add(n, i)
    }>""",
    t(2, 3), t(2, 3), fed(3), results=("y", "y1"),
)  # fmt: skip
written(
    "Loop/in a Loop, the inner count is the outer's iteration",
    """k = Constant<value = bool {1}>()
    y, y1 = Loop (c, k, a) <body = l (int64 i, bool go, float[3] s) => (go_on, s_out, kept) {
        go_on = Identity(go)
        m = Loop (i, go, s) <body = j (int64 ii, bool g, float[3] r) => (g2, r_out) {
            g2 = Identity(g)  p = Mul(r, b)  q = Add(p, s)  r_out = Sin(q)
        }>
        s_out = Add(m, a)  kept = Mul(m, b)
    }>""",
    t(3), t(3), fed(3), results=("y", "y1"),
)  # fmt: skip
written(
    "Loop/an If in each iteration",
    """k = Constant<value = bool {1}>()
    y = Loop (c, k, a) <body = l (int64 i, bool go, float[3] s) => (go_on, s_out) {
        go_on = Identity(go)  two = Constant<value = int64 {2}>()  r = Mod(i, two)  odd = Cast<to = 9>(r)
        s_out = If (odd) <then_branch = t () => (u) { e = Mul(s, b)  u = Tanh(e) },
                          else_branch = e () => (v) { d = Add(s, a)  v = Mul(d, d) }>
    }>""",
    t(3), t(3), fed(3),
)  # fmt: skip

# --- Scan ---------------------------------------------------------------------------------------------------------

for _in, _out in ((0, 0), (1, 0), (0, 1), (1, 1)):
    written(
        f"Scan/directions {_in} and {_out}",
        f"""y, y1 = Scan <num_scan_inputs = 2, scan_input_directions = [{_in}, 0], scan_output_directions = [{_out}],
            body = s (float[2] h, float[2] p, float[2] q) => (h_out, taken) {{
                m = Mul(h, d)  n = Add(m, p)  h_out = Sin(n)  taken = Mul(h_out, q)
            }}> (a, b, c)""",
        t(2), t(4, 2), t(4, 2), t(2), results=("y", "y1"),
    )  # fmt: skip
written(
    "Scan/along other axes",
    """y, y1 = Scan <num_scan_inputs = 2, scan_input_axes = [1, -1], scan_output_axes = [1],
        scan_input_directions = [1, 0], scan_output_directions = [1],
        body = s (float[2] h, float[2] p, float[2] q) => (h_out, taken) {
            m = Mul(h, p)  h_out = Add(m, q)  taken = Mul(h_out, h)
        }> (a, b, c)""",
    t(2), t(2, 4), t(2, 4), results=("y", "y1"),
)  # fmt: skip
written(
    "Scan/without state",
    """y = Scan <num_scan_inputs = 1, body = s (float[2] p) => (taken) { m = Mul(p, b)  taken = Mul(m, p) }> (a)""",
    t(3, 2), t(2),
)  # fmt: skip
written(
    "Scan/a linear one, whose states nothing reads in reverse",
    """y = Scan <num_scan_inputs = 1, body = s (float[2] h, float[2] p) => (h_out) { h_out = Add(h, p) }> (a, b)""",
    t(2), t(3, 2), linear=True,
)  # fmt: skip
written(
    "Scan/only the state is differentiated",
    """y = Scan <num_scan_inputs = 1, body = s (float[2] h, float[2] p) => (h_out) { h_out = Mul(h, d) }> (a, b)""",
    t(2), fed(np.zeros((3, 2)), np.float32), fed(0), fixed([2.0, 3.0]),
)  # fmt: skip
written(
    "Scan/in a Scan",
    """y = Scan <num_scan_inputs = 1, body = s (float[2] h, float[3, 2] p) => (h_out) {
        g = Mul(h, c)
        h_out = Scan <num_scan_inputs = 1, scan_input_directions = [1], body = r (float[2] j, float[2] q) => (j_out) {
            u = Mul(j, c)  v = Add(u, q)  w = Mul(v, h)  j_out = Sin(w) }> (g, p)
    }> (a, b)""",
    t(2), t(2, 3, 2), t(2),
)  # fmt: skip

# --- sequences ----------------------------------------------------------------------------------------------------

for _at in (0, 2, -1):
    written(
        f"SequenceAt/position {_at}, tensors of different sizes",
        "s = SequenceConstruct(a, b, a)  p = SequenceAt(s, c)  y = Mul(p, p)",
        t(2, 3), t(2, 3), fed(_at),
    )  # fmt: skip
    written(
        f"SequenceInsert/at {_at}, all positions read",
        """s = SequenceConstruct(a, b)  u = SequenceInsert(s, a, c)
        y = ConcatFromSequence<axis = 0>(u)  y1 = ConcatFromSequence<axis = -1, new_axis = 1>(u)""",
        t(2, 3), t(2, 3), fed(_at), results=("y", "y1"),
    )  # fmt: skip
    written(
        f"SequenceErase/{_at}",
        "s = SequenceConstruct(a, b, a)  u = SequenceErase(s, c)  y = ConcatFromSequence<axis = 1>(u)",
        t(2, 3), t(2, 3), fed(_at),
    )  # fmt: skip
written(
    "SequenceErase/the last",
    """s = SequenceConstruct(a, b, a)  u = SequenceErase(s)  v = SequenceInsert(u, b)
    y = ConcatFromSequence<axis = 1>(v)""",
    t(2, 3), t(2, 1),
)  # fmt: skip
written(
    "SequenceAt/positions of int32",
    """s = SequenceConstruct(a, b)  p = SequenceAt(s, c)  i = SequenceInsert(s, p, c)
    y = ConcatFromSequence<axis = 0>(i)""",
    t(2, 3), t(1, 3), fed(1, np.int32),
)  # fmt: skip
written(
    "SequenceInsert/half precision, into an empty sequence",
    """e = SequenceEmpty<dtype = 10>()  s = SequenceInsert(e, a)  u = SequenceInsert(s, b)
    y = ConcatFromSequence<axis = 0>(u)""",
    t(2, 3, dtype=np.float16), t(1, 3, dtype=np.float16), tolerance=2e-3, linear=True, oracle="reference",
)  # fmt: skip
for _name, _form, _sizes in (
    ("one by one", "SplitToSequence<axis = 1>(a)", ()),
    ("one by one, the axis dropped", "SplitToSequence<axis = 1, keepdims = 0>(a)", ()),
    ("sizes", "SplitToSequence<axis = 1>(a, c)", (fed([1, 3, 1]),)),
    ("chunks of a size", "SplitToSequence<axis = -1>(a, c)", (fed(2),)),
    ("sizes, keepdims means nothing", "SplitToSequence<axis = 1, keepdims = 0>(a, c)", (fed([2, 3]),)),
):
    written(
        f"SplitToSequence/{_name}",
        f"s = {_form}  k = Constant<value = int64 {{1}}>()  p = SequenceAt(s, k)  y = Mul(p, b)",
        t(2, 5), t(), *_sizes,
    )  # fmt: skip
written(
    "SequenceMap/of two sequences and a tensor",
    """s = SplitToSequence<axis = 0>(a)  u = SplitToSequence<axis = 0>(b)
    m, n = SequenceMap <body = f (float[1, 3] p, float[1, 3] q, float[3] w) => (float[1, 3] v, float[1, 3] z) {
        v = Mul(p, q)  z = Mul(v, w) }> (s, u, c)
    y = ConcatFromSequence<axis = 0>(m)  y1 = ConcatFromSequence<axis = 0>(n)""",
    t(4, 3), t(4, 3), t(3), results=("y", "y1"),
)  # fmt: skip
written(
    "Loop/over a sequence, into a sequence",
    """k = Constant<value = bool {1}>()  s = SplitToSequence<axis = 0>(a)  n = SequenceLength(s)
    e = SequenceEmpty<dtype = 1>()
    u = Loop (n, k, e) <body = l (int64 i, bool go, seq(float[1, 3]) so_far) => (go_on, longer) {
        go_on = Identity(go)  p = SequenceAt(s, i)  q = Mul(p, b)  r = Sin(q)  longer = SequenceInsert(so_far, r)
    }>
    y = ConcatFromSequence<axis = 0>(u)""",
    t(4, 3), t(3),
)  # fmt: skip
written(
    "Loop/a state that is a sequence, read at run time",
    """k = Constant<value = bool {1}>()  s = SequenceConstruct(a, b)
    u = Loop (c, k, s) <body = l (int64 i, bool go, seq(float[2]) so_far) => (go_on, longer) {
        go_on = Identity(go)  p = SequenceAt(so_far, i)  m = Constant<value = int64 {-1}>()
        q = SequenceAt(so_far, m)  r = Mul(p, q)  longer = SequenceInsert(so_far, r, i)
    }>
    y = ConcatFromSequence<axis = 0>(u)""",
    t(2), t(2), fed(3),
)  # fmt: skip
for _taken in (True, False):
    written(
        f"If/sequences from the branches, {_taken}",
        """s = If (c) <then_branch = t () => (u) { d = Mul(a, b)  u = SequenceConstruct(a, d) },
                    else_branch = e () => (v) { v = SequenceConstruct(b, b) }>
        y = ConcatFromSequence<axis = 0>(s)""",
        t(2), t(2), flag(_taken),
    )  # fmt: skip

# --- optionals ----------------------------------------------------------------------------------------------------

written("OptionalGetElement/of a tensor", "o = Optional(a)  p = OptionalGetElement(o)  y = Mul(p, p)", t(2, 3))
written(
    "OptionalGetElement/of a sequence",
    """s = SequenceConstruct(a, b)  o = Optional(s)  p = OptionalGetElement(o)  h = OptionalHasElement(o)
    q = ConcatFromSequence<axis = 0>(p)  f = Cast<to = 1>(h)  y = Mul(q, f)""",
    t(2, 3), t(1, 3),
)  # fmt: skip
