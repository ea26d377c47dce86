"""Nodes that ONNX Runtime's CPU provider runs in its blocked layout [N, C/16, H, W, 16], and what brings tensors there.

It keeps Conv (with a sum and a Relu fused), depthwise Conv, MaxPool, Add, Mul of equal shapes, Relu and Concat of
channels in that layout; anything else costs a pass over the tensor that changes it. So masks, shifts and copies are
depthwise convolutions of one tap here. Source: the runtime's NchwcTransformer, measured (docs/design).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gbp_onnx.graph.nodes import attributes
from gbp_onnx.lowering.draft import Draft

__all__ = [
    "BLOCK",
    "clip",
    "fits",
    "interleave",
    "is_blocked",
    "pick",
    "pointwise",
    "relu",
    "sized",
    "spread",
    "taps",
    "total",
]

BLOCK = 16
"""Channels of a block on the widest CPUs; others have 8."""

_STAY = frozenset(("Add", "Sum", "Mul", "Relu", "Clip", "LeakyRelu", "HardSigmoid", "Sigmoid", "Tanh"))
_POOLS = frozenset(("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"))


def fits(g: Draft, name: str) -> bool:
    """Whether a tensor [N, C, H, W] is whole blocks, of sizes that are fixed."""
    space = g.space(name)
    return space is not None and space[0] % BLOCK == 0


def is_blocked(g: Draft, name: str) -> bool:
    """Whether the runtime will hold a tensor in the blocked layout."""
    waiting, seen = [g.now(name)], set[str]()
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        node = g.node(current)
        if node is None or not fits(g, current):
            return False
        if node.op_type in _POOLS and len(node.output) == 1:
            waiting.append(g.now(node.input[0]))
        elif node.op_type == "Concat" and attributes(node)["axis"] == 1:
            waiting += g.inputs(node)
        elif node.op_type in _STAY:
            read = [t for t in g.inputs(node) if g.shape(t) not in ((), (1,))]
            if not all(g.alike(t, current) for t in read):
                return False
            waiting += read
        elif node.op_type not in ("Conv", "BatchNormalization"):
            return False
    return True


def sized(g: Draft, like: str, channels: int, height: int, width: int) -> tuple[object, ...]:
    """The shape [N, C, H, W] with the batch axis of another tensor."""
    shape = g.shape(like)
    return ((shape or (None,))[0], channels, height, width)


def pointwise(g: Draft, x: str, factor: float, bias: float = 0.0) -> str:
    """factor * x + bias, as a depthwise convolution of 1 x 1."""
    channels = (g.space(x) or (0, 0, 0))[0]
    read = [x, g.constant(np.full((channels, 1, 1, 1), factor))]
    if bias:
        read.append(g.constant(np.full(channels, bias)))
    return g.emit("Conv", read, g.shape(x), group=channels, kernel_shape=[1, 1])


def clip(g: Draft, x: str, low: float, high: float) -> str:
    """x between two bounds."""
    return g.emit("Clip", [x, g.constant(np.float32(low)), g.constant(np.float32(high))], g.shape(x))


def relu(g: Draft, x: str) -> str:
    """max(x, 0)."""
    return g.emit("Relu", [x], g.shape(x))


def total(g: Draft, *terms: str) -> str:
    """The sum of tensors of one shape, from the left; a convolution on the right takes the sum before it in."""
    first, *rest = terms
    for term in rest:
        first = g.emit("Add", [term, first], g.shape(term))
    return first


def pick(
    g: Draft,
    x: str,
    offset: tuple[int, int],
    strides: tuple[int, int],
    size: tuple[int, int],
    factor: float = 1.0,
    bias: float = 0.0,
) -> str:
    """factor * x[strides * r + offset] + bias for every place r of `size`; x is 0 where it ends."""
    return taps(g, x, {offset: factor}, strides, size, bias)


def taps(
    g: Draft,
    x: str,
    factors: dict[tuple[int, int], float],
    strides: tuple[int, int],
    size: tuple[int, int],
    bias: float = 0.0,
) -> str:
    """The sum of factor * x[strides * r + offset] over {offset: factor}, + bias; x is 0 where it ends."""
    channels, *space = g.space(x) or (0, 0, 0)
    if set(factors) == {(0, 0)} and strides == (1, 1) and tuple(space) == size:
        factor = factors[0, 0]
        return x if factor == 1.0 and not bias else pointwise(g, x, factor, bias)
    begins, ends, kernel = [], [], []
    for axis, (have, step, wanted) in enumerate(zip(space, strides, size, strict=True)):
        begin = max(0, *(-offset[axis] for offset in factors))
        reach = begin + 1 + max(offset[axis] for offset in factors)
        room = have + begin - (wanted - 1) * step  # what a kernel that makes `wanted` windows may span
        begins.append(begin)
        kernel.append(max(reach, room - step + 1))
        ends.append(max(kernel[-1] - room, 0))
    weight = np.zeros((channels, 1, *kernel), np.float32)
    for (row, column), factor in factors.items():
        weight[:, :, row + begins[0], column + begins[1]] = factor
    read = [x, g.constant(weight)] + ([g.constant(np.full(channels, bias))] if bias else [])
    attrs: dict[str, Any] = {"group": channels, "kernel_shape": kernel, "strides": list(strides)}
    return g.emit("Conv", read, sized(g, x, channels, *size), pads=[*begins, *ends], **attrs)


def interleave(
    g: Draft, phases: dict[tuple[int, int], str], size: tuple[int, int], pieces: list[int] | None = None
) -> list[str]:
    """The tensor [N, C, *size] whose rows a, a + s, ... and columns b, b + s, ... are phase (a, b).

    Pixels change places in NHWC, where each is one run of memory: the transpositions become the passes between the
    layouts that the runtime makes anyway. `pieces`: channels of the tensors that the result is cut into (one).
    """
    steps = 1 + max(a for a, _ in phases), 1 + max(b for _, b in phases)
    some = phases[0, 0]
    channels, height, width = g.space(some) or (0, 0, 0)
    batch = (g.shape(some) or (None,))[0]
    rows = []
    for a in range(steps[0]):
        row = [phases[a, b] for b in range(steps[1])]
        joined = g.emit("Concat", row, sized(g, some, channels * len(row), height, width), axis=1)
        last = g.emit("Transpose", [joined], (batch, height, width, channels * len(row)), perm=[0, 2, 3, 1])
        run = width * steps[1] * channels
        rows.append(_reshape(g, last, (batch, height, 1, run)))
    run = width * steps[1] * channels
    whole = rows[0] if len(rows) == 1 else g.emit("Concat", rows, (batch, height, steps[0], run), axis=2)
    whole = _reshape(g, whole, (batch, height * steps[0], width * steps[1], channels))
    return _out_of_nhwc(g, whole, size, pieces)


def spread(g: Draft, x: str, steps: tuple[int, int], size: tuple[int, int]) -> str:
    """x at every step-th row and column of a tensor [N, C, *size], zeros elsewhere."""
    channels, height, width = g.space(x) or (0, 0, 0)
    batch = (g.shape(x) or (None,))[0]
    last = g.emit("Transpose", [x], (batch, height, width, channels), perm=[0, 2, 3, 1])
    if steps[1] > 1:
        last = _pad_end(g, last, 3, (steps[1] - 1) * channels, (batch, height, width, steps[1] * channels))
    run = width * steps[1] * channels
    lines = _reshape(g, last, (batch, height, run))
    if steps[0] > 1:
        lines = _pad_end(g, lines, 2, (steps[0] - 1) * run, (batch, height, steps[0] * run))
    whole = _reshape(g, lines, (batch, height * steps[0], width * steps[1], channels))
    return _out_of_nhwc(g, whole, size, None)[0]


def _out_of_nhwc(g: Draft, whole: str, size: tuple[int, int], pieces: list[int] | None) -> list[str]:
    """Cut to `size` and into pieces, and back to [N, C, H, W]."""
    batch, height, width, channels = g.shape(whole) or (None, 0, 0, 0)
    if (height, width) != size:
        bounds = [g.constant(v, np.int64) for v in ([0, 0], list(size), [1, 2])]
        whole = g.emit("Slice", [whole, *bounds], (batch, *size, channels))
    parts = [whole]
    if pieces is not None and len(pieces) > 1:
        shapes = [(batch, *size, c) for c in pieces]
        parts = g.emit_many("Split", [whole, g.constant(pieces, np.int64)], shapes, axis=3)
    return [
        g.emit("Transpose", [part], (batch, (g.shape(part) or (0,))[-1], *size), perm=[0, 3, 1, 2]) for part in parts
    ]


def _reshape(g: Draft, x: str, shape: tuple[object, ...]) -> str:
    return g.emit("Reshape", [x, g.constant([0, *shape[1:]], np.int64)], shape)


def _pad_end(g: Draft, x: str, axis: int, amount: int, shape: tuple[object, ...]) -> str:
    pads = [0] * (2 * len(shape))
    pads[len(shape) + axis] = amount
    return g.emit("Pad", [x, g.constant(pads, np.int64)], shape)
