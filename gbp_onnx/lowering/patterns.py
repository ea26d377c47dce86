"""What the portable backward part is made of, recognised: gates, sums, transposed windows, pools, pieces of a Concat.

Each reader takes a node and returns what it stands for, or None: then the node stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from gbp_onnx.graph.nodes import attributes
from gbp_onnx.lowering.draft import Draft

__all__ = [
    "Gate",
    "Pool",
    "Transposed",
    "emit_mask",
    "gate_of",
    "never_negative",
    "pool_of",
    "terms_of",
    "transposed_of",
]


@dataclass(frozen=True, slots=True)
class Gate:
    """ct where 0 < y (and y < cap), clamped at 0 first where `clamps`. `y` is None under deconvnet: no mask.

    Portable: Where(Greater(y, 0), ct, 0), Where(And(Greater(y, 0), Less(y, cap)), Relu(ct), 0), Relu(ct).
    """

    ct: str
    y: str | None
    cap: float | None
    clamps: bool


@dataclass(frozen=True, slots=True)
class Transposed:
    """The transpose of a convolution in two spatial axes: ConvTranspose(ct, weight) [O, I/group, kh, kw].

    `begins`: pads at the begin of each axis; `size`: what comes out, [I, H, W].
    """

    ct: str
    weight: str
    group: int
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    begins: tuple[int, int]
    size: tuple[int, int, int]

    @property
    def is_depthwise(self) -> bool:
        """Whether every channel is convolved by itself."""
        return self.group > 1 and self.group == self.size[0]


@dataclass(frozen=True, slots=True)
class Pool:
    """The derivative of a MaxPool: `ct` added to the first maximum of each of its windows of `y`; `p` is its output."""

    ct: str
    y: str
    p: str
    kernel: tuple[int, int]
    strides: tuple[int, int]
    begins: tuple[int, int]


def gate_of(g: Draft, node: onnx.NodeProto) -> Gate | None:
    """The gate that a node ends, if any."""
    if node.op_type == "Relu":
        return Gate(g.now(node.input[0]), None, None, True)
    if node.op_type != "Where" or g.number(node.input[2]) != 0:
        return None
    mask = _mask(g, node.input[0])
    if mask is None:
        return None
    clamp = g.node(node.input[1], "Relu")
    # A Relu of the backward part: it may be the end of another gate that was merged with this one.
    if clamp is None or g.is_forward(g.now(node.input[1])):
        return Gate(g.now(node.input[1]), *mask, False)
    return Gate(g.now(clamp.input[0]), *mask, True)


def _mask(g: Draft, name: str) -> tuple[str, float | None] | None:
    """y and cap of [0 < y] or [0 < y < cap]."""
    both = g.node(name, "And")
    low = g.node(name if both is None else both.input[0], "Greater")
    if low is None or g.number(low.input[1]) != 0:
        return None
    y = g.now(low.input[0])
    if both is None:
        return y, None
    high = g.node(both.input[1], "Less")
    if high is None or g.now(high.input[0]) != y:
        return None
    cap = g.number(high.input[1])
    return None if cap is None or cap <= 0 else (y, cap)


def emit_mask(g: Draft, y: str, cap: float | None) -> str:
    """[0 < y], or [0 < y < cap], as the portable form has it."""
    shape, kind = g.shape(y), onnx.TensorProto.BOOL
    above = g.emit("Greater", [y, g.constant(np.float32(0))], shape, kind)
    if cap is None:
        return above
    below = g.emit("Less", [y, g.constant(np.float32(cap))], shape, kind)
    return g.emit("And", [above, below], shape, kind)


def terms_of(g: Draft, name: str) -> list[str]:
    """The terms of a sum, in order; sums that something else reads too are terms themselves."""
    found: list[str] = []
    waiting = [g.now(name)]
    while waiting:
        current = waiting.pop()
        node = g.node(current, "Add")
        inside = (
            node is not None and not g.is_forward(current) and (current == g.now(name) or g.only_read_by_one(current))
        )
        same = inside and node is not None and all(g.alike(t, current) for t in g.inputs(node))
        if node is None or not same:
            found.append(current)
        else:
            waiting += reversed(g.inputs(node))
    return found


def transposed_of(g: Draft, name: str) -> Transposed | None:
    """The transposed convolution that makes a tensor [N, C, H, W] from one with fixed C, H, W.

    Cut to a box behind it (pads that differ at the ends, Pad in front of the convolution), it counts as one.
    """
    node, box = g.node(name, "ConvTranspose", "Slice", "Pad"), (0, 0)
    whole = True
    while node is not None and node.op_type != "ConvTranspose":
        cut = None if g.is_forward(node.output[0]) else _cut(g, node)
        if cut is None or not g.only_read_by_one(node.input[0]):
            return None
        box, whole = (box[0] + cut[0], box[1] + cut[1]), False
        node = g.node(node.input[0], "ConvTranspose", "Slice", "Pad")
    if node is None or g.is_forward(node.output[0]) or len(node.input) != 2:
        return None
    weight = g.weight_shape(node.input[1])
    size, source = g.space(name) or _boxed(g, name), g.space(node.input[0])
    if weight is None or len(weight) != 4 or size is None or source is None:
        return None
    attrs = attributes(node)
    if attrs.get("auto_pad", b"NOTSET") != b"NOTSET" or attrs.get("output_shape"):
        return None
    pads = attrs.get("pads") or [0] * 4
    strides, dilations = attrs.get("strides") or [1, 1], attrs.get("dilations") or [1, 1]
    if not whole and any(pads):
        return None  # what the pads cut off would be missing from the box
    return Transposed(
        g.now(node.input[0]),
        g.now(node.input[1]),
        attrs.get("group", 1),
        (weight[2], weight[3]),
        (strides[0], strides[1]),
        (dilations[0], dilations[1]),
        (pads[0] + box[0], pads[1] + box[1]),
        size,
    )


def _boxed(g: Draft, name: str) -> tuple[int, int, int] | None:
    """The size of a Slice that cuts out the space of another tensor: to starts + Shape(that)[2:4]."""
    end = g.node(name, "Slice")
    total = None if end is None else g.node(end.input[2], "Add")
    for part in () if total is None else total.input:
        space = g.node(part, "Slice")
        shape = None if space is None else g.node(space.input[0], "Shape")
        if space is not None and shape is not None and g.value(space.input[1]) == 2:
            return g.space(shape.input[0])
    return None


def _cut(g: Draft, node: onnx.NodeProto) -> tuple[int, int] | None:
    """The rows and columns that a Slice, or a Pad with negative pads, cuts off at the begin of [N, C, H, W]."""
    if node.op_type == "Pad":
        pads = g.value(node.input[1])
        plain = attributes(node).get("mode", b"constant") == b"constant"
        if (
            pads is None
            or not plain
            or len(node.input) > 3
            or pads.size != 8
            or (pads > 0).any()
            or pads[[0, 1, 4, 5]].any()
        ):
            return None
        return int(-pads[2]), int(-pads[3])
    starts, axes = g.value(node.input[1]), g.value(node.input[3]) if len(node.input) > 3 else None
    steps = g.value(node.input[4]) if len(node.input) > 4 else None
    fits = starts is not None and axes is not None and axes.tolist() == [2, 3] and (starts >= 0).all()
    if starts is None or not fits or (steps is not None and (steps != 1).any()):
        return None
    return int(starts[0]), int(starts[1])


def pool_of(g: Draft, name: str) -> Pool | None:
    """The MaxPool whose derivative makes a tensor, where its input cannot be negative and its sizes are fixed.

    Portable: Reshape(ScatterElements(zeros, Reshape(Indices), Reshape(ct), reduction=add)).
    """
    end = g.node(name, "Reshape")
    scatter = None if end is None else g.node(end.input[0], "ScatterElements")
    if scatter is None or attributes(scatter).get("reduction") != b"add":
        return None
    indices, updates = (g.node(n, "Reshape") for n in scatter.input[1:3])
    if indices is None or updates is None or g.node(scatter.input[0], "ConstantOfShape") is None:
        return None
    pool = g.node(indices.input[0], "MaxPool")
    if pool is None or len(pool.output) < 2 or g.now(pool.output[1]) != g.now(indices.input[0]):
        return None
    attrs = attributes(pool)
    y, p, ct = g.now(pool.input[0]), g.now(pool.output[0]), g.now(updates.input[0])
    kernel, strides = attrs["kernel_shape"], attrs.get("strides") or [1, 1]
    pads, dilations = attrs.get("pads") or [0] * 4, attrs.get("dilations") or [1, 1]
    size, small = g.space(y), g.space(p)
    if size is None or small is None or len(kernel) != 2 or dilations != [1, 1] or g.space(ct) != small:
        return None
    if attrs.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID") or attrs.get("storage_order", 0):
        return None
    if g.space(name) != size or not never_negative(g, y):
        return None
    return Pool(ct, y, p, (kernel[0], kernel[1]), (strides[0], strides[1]), (pads[0], pads[1]))


_SIGN_OF_FIRST = frozenset(
    ("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Dropout", "Identity", "Reshape", "Transpose")
)


def never_negative(g: Draft, name: str) -> bool:
    """Whether a forward tensor follows a rectifier, through nothing that could make it negative."""
    waiting, seen = [name], set[str]()
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        node = g.maker.get(current)
        if node is None or node.domain not in ("", "ai.onnx"):
            return False
        if node.op_type in ("Concat", "Add", "Max"):
            waiting += node.input
        elif node.op_type in _SIGN_OF_FIRST:
            waiting.append(node.input[0])
        elif node.op_type == "Clip":
            low = g.number(node.input[1]) if len(node.input) > 1 and node.input[1] else None
            if low is None or low < 0:
                return False
        elif node.op_type not in ("Relu", "Sigmoid", "Abs", "Exp", "Softmax"):
            return False
    return True
