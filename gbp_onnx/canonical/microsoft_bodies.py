"""Operators of com.microsoft as the standard operators that they stand for, in ONNX's text form, opset 16.

ONNX Runtime's optimiser and its exporters write them. Some have a kernel on CUDA only: by its body such a model runs on
the CPU too. An operator is one function here, from its call to the text; None where a form is not covered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import onnx
import onnx.parser

from gbp_onnx.graph.nodes import attributes

__all__ = ["MICROSOFT", "MICROSOFT_BODIES", "microsoft_body"]

MICROSOFT = "com.microsoft"


@dataclass(frozen=True, slots=True)
class _Call:
    """One node. `has(i)`: whether input i is given; `shape(i)`: its sizes, 0 = unknown, None without a rank."""

    node: onnx.NodeProto
    types: Mapping[str, onnx.TypeProto]
    attrs: Mapping[str, Any]

    def has(self, index: int) -> bool:
        return index < len(self.node.input) and self.node.input[index] != ""

    def makes(self, index: int) -> bool:
        return index < len(self.node.output) and self.node.output[index] != ""

    def shape(self, index: int) -> list[int] | None:
        kind = self.types.get(self.node.input[index])
        if kind is None or not kind.tensor_type.HasField("shape"):
            return None
        return [d.dim_value for d in kind.tensor_type.shape.dim]

    def kept(self, *names: str) -> str:
        """Those attributes, as text, as the node has them."""
        given = {k: self.attrs[k] for k in names if k in self.attrs}
        quoted = {k: f'"{v}"' if isinstance(v, str) else str(v) for k, v in given.items()}
        return "<" + ", ".join(f"{k} = {v}" for k, v in quoted.items()) + ">" if quoted else ""


_Text = tuple[str, str] | None
"""The signature, "(inputs) => (outputs)", and the statements."""
MICROSOFT_BODIES: dict[str, Callable[[_Call], _Text]] = {}


def _body(op: str) -> Callable[[Callable[[_Call], _Text]], Callable[[_Call], _Text]]:
    def register(write: Callable[[_Call], _Text]) -> Callable[[_Call], _Text]:
        MICROSOFT_BODIES[op] = write
        return write

    return register


def microsoft_body(node: onnx.NodeProto, types: Mapping[str, onnx.TypeProto]) -> onnx.FunctionProto | None:
    """The body of one node; None where there is none."""
    write = MICROSOFT_BODIES.get(node.op_type) if node.domain == MICROSOFT else None
    if write is None:
        return None
    attrs = attributes(node)
    call = _Call(node, types, {k: v.decode() if isinstance(v, bytes) else v for k, v in attrs.items()})
    made = write(call)
    if made is None:
        return None
    signature, statements = made
    return onnx.parser.parse_function(
        f'<domain: "{MICROSOFT}", opset_import: ["" : 16]> {node.op_type} {signature} {{ {statements} }}'
    )


# --- sums and activations -----------------------------------------------------------------------------------------


@_body("BiasAdd")
def bias_add(call: _Call) -> _Text:
    """x + bias + skip"""
    return "(x, bias, skip) => (y)", "s = Add(x, bias) y = Add(s, skip)"


@_body("BiasSplitGelu")
def bias_split_gelu(call: _Call) -> _Text:
    """left * Gelu(right) for the halves of x + bias along the last axis"""
    return "(x, bias) => (y)", (
        "s = Add(x, bias) left, right = Split<axis = -1>(s)"
        "half = Constant<value = float {0.5}>() h = CastLike(half, s) one = Constant<value = float {1}>()"
        "root = Constant<value = float {0.7071067811865476}>() r = CastLike(root, s)"
        "o = CastLike(one, s) z = Mul(right, r) e = Erf(z) p = Add(e, o) q = Mul(p, right) g = Mul(q, h)"
        "y = Mul(left, g)"
    )


@_body("BiasSoftmax")
def bias_softmax(call: _Call) -> _Text:
    """Softmax(x + bias) over all axes from `axis` on, as one"""
    axis = call.attrs.get("axis", 1)
    return "(x, bias) => (y)", (
        f"s = Add(x, bias) size = Shape(s) f = Flatten<axis = {axis}>(s) p = Softmax<axis = -1>(f) y = Reshape(p, size)"
    )


@_body("BiasDropout")
@_body("BitmaskBiasDropout")
def bias_dropout(call: _Call) -> _Text:
    """x + bias + residual: dropout passes its input on outside training"""
    if call.has(4) or call.makes(1):
        return None
    if not call.has(2):
        return "(x, bias) => (y)", "y = Add(x, bias)"
    return "(x, bias, residual) => (y)", "s = Add(x, bias) y = Add(s, residual)"


@_body("BitmaskDropout")
def bitmask_dropout(call: _Call) -> _Text:
    """x: dropout passes its input on outside training"""
    return None if call.has(2) or call.makes(1) else ("(x) => (y)", "y = Identity(x)")


@_body("SampleOp")
def sample_op(call: _Call) -> _Text:
    """x"""
    return "(x) => (y)", "y = Identity(x)"


# --- convolutions and normalizations of images with the channels last ----------------------------------------------


@_body("NhwcConv")
def nhwc_conv(call: _Call) -> _Text:
    """Conv between two transpositions; the weight has its channels last too, as the optimiser writes it"""
    weight, x = call.shape(1), call.shape(0)
    if weight is None or len(weight) != 4:
        return None
    group = call.attrs.get("group", 1)
    plain = x is not None and x[3] == weight[1] * group and x[3] != weight[3] * group
    turned = "w = Identity(weight)" if plain else "w = Transpose<perm = [0, 3, 1, 2]>(weight)"
    kept = call.kept("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
    third, bias = (", bias", ", bias") if call.has(2) else ("", "")
    return f"(x, weight{third}) => (y)", (
        f"t = Transpose<perm = [0, 3, 1, 2]>(x) {turned} c = Conv{kept}(t, w{bias})"
        "y = Transpose<perm = [0, 2, 3, 1]>(c)"
    )


@_body("GroupNorm")
def group_norm(call: _Call) -> _Text:
    """(x - mean) / sqrt(var + epsilon) over each group of channels, * gamma + beta, through SiLU if activation = 1"""
    made = _group_norm(call, "x", "y")
    return None if made is None else ("(x, gamma, beta) => (y)", made)


@_body("SkipGroupNorm")
def skip_group_norm(call: _Call) -> _Text:
    """GroupNorm of x + skip + bias, and that sum"""
    skip = call.shape(3)
    made = _group_norm(call, "sum", "y")
    if made is None or skip is None:
        return None
    per_image = "at = Constant<value = int64[2] {1, 2}>() k = Unsqueeze(skip, at)" if len(skip) == 2 else ""
    biased, given = ("sum = Add(s, bias)", ", bias") if call.has(4) else ("sum = Identity(s)", "")
    outputs = "(y, sum)" if call.makes(1) else "(y)"
    added = f"s = Add(x, {'k' if per_image else 'skip'})"
    return f"(x, gamma, beta, skip{given}) => {outputs}", f"{per_image} {added} {biased} {made}"


def _group_norm(call: _Call, x: str, y: str) -> str | None:
    """`y` from `x`: each group of channels is one instance of an InstanceNormalization."""
    groups, epsilon = call.attrs.get("groups"), call.attrs.get("epsilon", 1e-5)
    if not groups:
        return None
    last = call.attrs.get("channels_last", 1)
    before = f"n = Transpose<perm = [0, 3, 1, 2]>({x})" if last else f"n = Identity({x})"
    after = "t = Transpose<perm = [0, 2, 3, 1]>(a)" if last else "t = Identity(a)"
    silu = f"g = Sigmoid(t) {y} = Mul(t, g)" if call.attrs.get("activation", 0) == 1 else f"{y} = Identity(t)"
    ones, zeros = ", ".join(["1"] * groups), ", ".join(["0"] * groups)
    return (
        f"{before} size = Shape(n) flat = Constant<value = int64[3] {{0, {groups}, -1}}>() r = Reshape(n, flat)"
        f"one = Constant<value = float[{groups}] {{{ones}}}>() zero = Constant<value = float[{groups}] {{{zeros}}}>()"
        f"scale = CastLike(one, n) shift = CastLike(zero, n) i = InstanceNormalization<epsilon = {epsilon}>(r, scale,"
        "shift) b = Reshape(i, size) column = Constant<value = int64[3] {-1, 1, 1}>() weight = Reshape(gamma, column)"
        "offset = Reshape(beta, column) w = CastLike(weight, n) o = CastLike(offset, n) m = Mul(b, w) a = Add(m, o)"
        f"{after} {silu}"
    )


@_body("ConvTransposeWithDynamicPads")
def conv_transpose_with_dynamic_pads(call: _Call) -> _Text:
    """ConvTranspose without pads, cropped"""
    weight = call.shape(1)
    if weight is None or call.attrs.get("auto_pad", "NOTSET") != "NOTSET":
        return None
    axes = len(weight) - 2
    kept = call.kept("dilations", "group", "kernel_shape", "output_padding", "strides")
    given, bias = ("(x, weight, pads, bias)", ", bias") if call.has(3) else ("(x, weight, pads)", "")
    if not call.has(2):
        return None
    listed = ", ".join(str(2 + k) for k in range(axes))
    return f"{given} => (y)", (
        f"full = ConvTranspose{kept}(x, weight{bias}) size = Shape<start = 2>(full)"
        f"zero = Constant<value = int64[1] {{0}}>() half = Constant<value = int64[1] {{{axes}}}>()"
        f"whole = Constant<value = int64[1] {{{2 * axes}}}>() begin = Slice(pads, zero, half)"
        f"cut = Slice(pads, half, whole) end = Sub(size, cut) axes = Constant<value = int64[{axes}] {{{listed}}}>()"
        "y = Slice(full, begin, end, axes)"
    )


# --- attention ----------------------------------------------------------------------------------------------------


@_body("Attention")
def attention(call: _Call) -> _Text:
    """softmax(q @ k^T * scale + bias) @ v in each head, with q, k, v the columns of x @ weight + bias"""
    heads, weight = call.attrs.get("num_heads", 0), call.shape(1)
    if any(call.has(k) for k in (3, 4, 6)) or call.makes(1) or call.attrs.get("do_rotary") or not weight or not heads:
        return None
    sizes = list(call.attrs.get("qkv_hidden_sizes") or [weight[1] // 3] * 3)
    if not all(sizes):
        return None
    given = ["x", "weight", "bias" if call.has(2) else "", "", "", "extra"][: 6 if call.has(5) else 3]
    names = [name or f"unused{k}" for k, name in enumerate(given)]
    biased = "qkv = Add(m, bias)" if call.has(2) else "qkv = Identity(m)"
    return f"({', '.join(names)}) => (y)", (
        f"m = MatMul(x, weight) {biased} sizes = Constant<value = int64[3] {{{', '.join(map(str, sizes))}}}>()"
        f"q, k, v = Split<axis = -1>(qkv, sizes) {_heads(call, heads, sizes[0], call.has(5))}"
    )


@_body("MultiHeadAttention")
def multi_head_attention(call: _Call) -> _Text:
    """softmax(q @ k^T * scale + bias) @ v in each head"""
    heads, query, value = call.attrs.get("num_heads", 0), call.shape(0), call.shape(2) if call.has(2) else None
    further = any(call.has(k) for k in (4, 6, 7, 8, 9)) or call.makes(1) or call.makes(2)
    if further or not heads or query is None or value is None or (len(query), len(value)) != (3, 3):
        return None
    if not query[2] or not value[2]:
        return None
    names = ["query", "key", "value", "bias" if call.has(3) else "unused3", "unused4", "extra"]
    split = "q = Identity(query) k = Identity(key) v = Identity(value)"
    if call.has(3):
        split = (
            f"sizes = Constant<value = int64[3] {{{query[2]}, {query[2]}, {value[2]}}}>()"
            "a, b, c = Split<axis = 0>(bias, sizes) q = Add(query, a) k = Add(key, b) v = Add(value, c)"
        )
    signature = f"({', '.join(names[: 6 if call.has(5) else 4 if call.has(3) else 3])}) => (y)"
    return signature, f"{split} {_heads(call, heads, query[2], call.has(5))}"


def _heads(call: _Call, heads: int, width: int, biased: bool) -> str:
    """`y` from `q`, `k`, `v` of [batch, sequence, heads * size]."""
    scale = float(call.attrs.get("scale") or 0) or (width // heads) ** -0.5
    masked = "scores = Identity(t)"
    if call.attrs.get("unidirectional", 0):  # a token reads those before it, and itself
        masked = (
            "one = Constant<value = float {1}>() ones = CastLike(one, t) axes = Shape<start = -2>(t)"
            "square = Expand(ones, axes) lower = Trilu<upper = 0>(square) zero = Constant<value = float {0}>()"
            "nil = CastLike(zero, t) seen = Greater(lower, nil) far = Constant<value = float {-10000}>()"
            "low = CastLike(far, t) scores = Where(seen, t, low)"
        )
    return (
        f"apart = Constant<value = int64[4] {{0, 0, {heads}, -1}}>() joined = Constant<value = int64[3] {{0, 0, -1}}>()"
        "q4 = Reshape(q, apart) k4 = Reshape(k, apart) v4 = Reshape(v, apart)"
        "qh = Transpose<perm = [0, 2, 1, 3]>(q4) kh = Transpose<perm = [0, 2, 3, 1]>(k4)"
        "vh = Transpose<perm = [0, 2, 1, 3]>(v4) product = MatMul(qh, kh)"
        f"factor = Constant<value = float {{{scale!r}}}>() f = CastLike(factor, q) scaled = Mul(product, f)"
        f"t = {'Add(scaled, extra)' if biased else 'Identity(scaled)'} {masked} p = Softmax<axis = -1>(scores)"
        "o = MatMul(p, vh) back = Transpose<perm = [0, 2, 1, 3]>(o) y = Reshape(back, joined)"
    )


# --- what moves and picks values ----------------------------------------------------------------------------------


@_body("ExpandDims")
def expand_dims(call: _Call) -> _Text:
    """Unsqueeze"""
    return "(x, axis) => (y)", (
        "zero = Constant<value = int64[1] {0}>() a = Cast<to = 7>(axis) axes = Unsqueeze(a, zero)y = Unsqueeze(x, axes)"
    )


@_body("GatherND")
def gather_nd(call: _Call) -> _Text:
    """GatherND"""
    return "(x, indices) => (y)", "i = Cast<to = 7>(indices) y = GatherND(x, i)"


@_body("Trilu")
def trilu(call: _Call) -> _Text:
    """Trilu"""
    given = "x, k" if call.has(1) else "x"
    return f"({given}) => (y)", f"y = Trilu{call.kept('upper')}({given})"


@_body("Pad")
def pad(call: _Call) -> _Text:
    """Pad"""
    fill = ", value" if call.has(2) else ""
    return f"(x, pads{fill}) => (y)", (
        "flat = Constant<value = int64[1] {-1}>() p = Reshape(pads, flat)"
        + (" one = Constant<value = int64[0] {}>() v = Reshape(value, one)" if fill else "")
        + f" y = Pad{call.kept('mode')}(x, p{', v' if fill else ''})"
    )


@_body("Range")
def range_(call: _Call) -> _Text:
    """Range"""
    if call.has(2):
        return "(start, limit, delta) => (y)", "y = Range(start, limit, delta)"
    return "(start, limit) => (y)", (
        "one = Constant<value = float {1}>() delta = CastLike(one, start) y = Range(start, limit, delta)"
    )


@_body("Unique")
def unique(call: _Call) -> _Text:
    """Unique, in the order of first appearance"""
    return "(x) => (y, index, counts)", "y, first, index, counts = Unique<sorted = 0>(x)"


@_body("UnfoldTensor")
def unfold_tensor(call: _Call) -> _Text:
    """the windows of `size` positions along `dim`, every `step`, as a further last axis"""
    shape, size, step = call.shape(0), call.attrs.get("size", 0), call.attrs.get("step", 1)
    if shape is None or not size:
        return None
    axis = call.attrs.get("dim", -1) % len(shape)
    perm = [*range(axis + 1), *range(axis + 2, len(shape) + 1), axis + 1]
    taps = ", ".join(map(str, range(size)))
    return "(x) => (y)", (
        f"all = Shape<start = {axis}, end = {axis + 1}>(x) reach = Constant<value = int64[1] {{{size - 1}}}>()"
        "one = Constant<value = int64[1] {0}>() zero = Constant<value = int64 {0}>()"
        f"step = Constant<value = int64 {{{step}}}>() room = Sub(all, reach) limit = Squeeze(room, one)"
        f"starts = Range(zero, limit, step) last = Constant<value = int64[1] {{1}}>() column = Unsqueeze(starts, last)"
        f"taps = Constant<value = int64[{size}] {{{taps}}}>() index = Add(column, taps)"
        f"picked = Gather<axis = {axis}>(x, index) y = Transpose<perm = {perm}>(picked)"
    )


# --- distances ----------------------------------------------------------------------------------------------------


@_body("CDist")
def c_dist(call: _Call) -> _Text:
    """the (squared) distances between the rows of two matrices"""
    root = "y = Identity(s)" if call.attrs.get("metric", "sqeuclidean") == "sqeuclidean" else "y = Sqrt(s)"
    return "(a, b) => (y)", (
        "zero = Constant<value = int64[1] {0}>() one = Constant<value = int64[1] {1}>()"
        "two = Constant<value = int64[1] {2}>() p = Unsqueeze(a, one) q = Unsqueeze(b, zero) d = Sub(p, q)"
        f"e = Mul(d, d) s = ReduceSum<keepdims = 0>(e, two) {root}"
    )
