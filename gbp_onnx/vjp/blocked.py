"""ONNX Runtime's operators on blocked tensors (com.microsoft.nchwc), as its optimiser writes them for one CPU.

The cotangent of a blocked tensor is blocked too, so that Add, Concat and the activations between blocked operators are
ordinary. Here it is un-blocked, goes through the standard operator's derivative, and is blocked again:

    [N, C, H, W]  =  [N, C/b, b, H, W]   <->   [N, C/b, H, W, b]
"""

from __future__ import annotations

import numpy as np

from gbp_onnx.graph.blocks import BLOCKED
from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.reader import Node, Tensor
from gbp_onnx.vjp.common import need
from gbp_onnx.vjp.fused import linear_part
from gbp_onnx.vjp.pool import average_pool, global_average_pool, global_max_pool, max_pool
from gbp_onnx.vjp.registry import Cotangents, Refusal, vjp
from gbp_onnx.vjp.resize import resize
from gbp_onnx.vjp.windows import transpose_windows, windows_of


@vjp("Conv", domain=BLOCKED)
def blocked_conv(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """x: ConvTranspose(ct, W), both un-blocked;  z (the sum inside): ct"""
    x, weight, y = need(node.input(0), "input"), need(node.input(1), "weight"), need(node.output(0), "output")
    plain = linear_part(node, "Conv", {"group": 1})
    shape = op.graph.static_shape(weight)
    if shape is None:
        raise Refusal("its blocked weight has a shape that is known only at run time")
    windows = windows_of(op, plain, list(shape[2:]))

    def to_x() -> Tensor:
        standard = _standard_weight(op, weight, shape, pairs=_is_blocked(op, x) and shape[1] > 1)
        made = transpose_windows(op, unblocked(op, ct, y), standard, windows, x, plain.attrs["group"])
        return blocked(op, made, x) if _is_blocked(op, x) else made

    return to_x, _refused_weight, _refused_weight, ct


@vjp("MaxPool", domain=BLOCKED)
def blocked_max_pool(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """MaxPool's, un-blocked; the pool is run once more in standard form, because the blocked one has no Indices"""
    attrs = {**node.attrs, "storage_order": 1}  # makes max_pool ask again
    x, y = need(node.input(0), "input"), node.outputs[0]
    plain = Node("MaxPool", node.name, [unblocked(op, x, x)], [y], attrs, index=node.index)
    return (blocked(op, _one(max_pool(op, plain, unblocked(op, ct, y))), x),)


@vjp("AveragePool", domain=BLOCKED)
def blocked_average_pool(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """AveragePool's, un-blocked"""
    x, y = need(node.input(0), "input"), node.outputs[0]
    plain = Node("AveragePool", node.name, [x], [y], node.attrs, index=node.index)  # reads x and y for their shapes
    return (blocked(op, _one(average_pool(op, plain, unblocked(op, ct, y))), x),)


@vjp("GlobalAveragePool", domain=BLOCKED)
def blocked_global_average_pool(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """GlobalAveragePool's, un-blocked (one position: blocked is standard)"""
    x = need(node.input(0), "input")
    return (blocked(op, _one(global_average_pool(op, node, ct)), x),)


@vjp("GlobalMaxPool", domain=BLOCKED)
def blocked_global_max_pool(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """GlobalMaxPool's, un-blocked (one position: blocked is standard)"""
    x = need(node.input(0), "input")
    plain = Node("GlobalMaxPool", node.name, [unblocked(op, x, x)], node.outputs, index=node.index)
    return (blocked(op, _one(global_max_pool(op, plain, ct)), x),)


@vjp("Upsample", domain=BLOCKED)
def blocked_upsample(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """Resize's, un-blocked, with the forward's scales"""
    x, y = need(node.input(0), "input"), node.outputs[0]
    mode = node.attrs.get("mode", "nearest")
    attrs = {
        "mode": mode,
        "coordinate_transformation_mode": node.attrs.get("coordinate_transformation_mode", "half_pixel"),
        "nearest_mode": "floor" if mode == "nearest" else None,
    }
    if mode == "nearest":  # each position is repeated
        attrs["coordinate_transformation_mode"] = "asymmetric"
    scales = op.constant(np.asarray(node.attrs["scales"], np.float32))
    given = {k: v for k, v in attrs.items() if v is not None}
    plain = Node("Resize", node.name, [x, None, scales], [y], given, index=node.index)
    return (blocked(op, _one(resize(op, plain, unblocked(op, ct, y))), x),)


@vjp("ReorderInput", domain=BLOCKED)
def reorder_input(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct un-blocked, without the channels that fill the last block"""
    x, y = need(node.input(0), "input"), node.outputs[0]
    last = bool(node.attrs.get("channels_last", 0))
    whole = op.Slice(unblocked(op, ct, y), [0], op.dim(x, 3 if last else 1), [1])
    return (op.Transpose(whole, perm=[0, 2, 3, 1]) if last else whole,)


@vjp("ReorderOutput", domain=BLOCKED)
def reorder_output(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct blocked, with zeros for the channels that fill the last block"""
    x = need(node.input(0), "input")
    plain = op.Transpose(ct, perm=[0, 3, 1, 2]) if node.attrs.get("channels_last", 0) else ct
    more = op.Sub(op.dim(x, 1), int(node.attrs["channels"]))
    filled = plain if op.value(more) == 0 else op.Pad(plain, op.Concat([0] * 5, more, [0, 0], axis=0))
    return (blocked(op, filled, x),)


# --- the layout ---------------------------------------------------------------------------------------------------


def unblocked(op: Emitter, tensor: Tensor, like: Tensor) -> Tensor:
    """A blocked tensor of the shape of `like` in standard order."""
    b = _block(op)
    n, c, h, w = _sizes(op, tensor, like)
    pieces = op.Reshape(tensor, op.Concat(n, op.Div(c, b), h, w, b, axis=0))
    made: Tensor = op.Reshape(op.Transpose(pieces, perm=[0, 1, 4, 2, 3]), op.Concat(n, c, h, w, axis=0))
    return made


def blocked(op: Emitter, tensor: Tensor, like: Tensor) -> Tensor:
    """A tensor in standard order and of the shape of `like`, blocked."""
    b = _block(op)
    n, c, h, w = _sizes(op, tensor, like)
    pieces = op.Reshape(tensor, op.Concat(n, op.Div(c, b), b, h, w, axis=0))
    made: Tensor = op.Reshape(op.Transpose(pieces, perm=[0, 1, 3, 4, 2]), op.Concat(n, c, h, w, axis=0))
    return made


def _sizes(op: Emitter, tensor: Tensor, like: Tensor) -> list[Tensor]:
    """The sizes of `tensor`: those of `like` where they are known (what lies before an activation is never made)."""
    known = op.known_shape(like) or (None,) * 4
    return [op.dim(like if isinstance(size, int) else tensor, axis) for axis, size in enumerate(known)]


def _standard_weight(op: Emitter, weight: Tensor, shape: tuple[int, ...], pairs: bool) -> Tensor:
    """A weight [O, I, kh, kw] from its blocked order: O/b, I/b, kh, kw, bi, bo (`pairs`) or O/b, I, kh, kw, bo."""
    b = _block(op)
    o, i, *taps = shape
    whole = op.Div(op.constant([o]), b)
    if pairs:
        pieces = op.Reshape(weight, op.Concat(whole, op.Div(op.constant([i]), b), taps, b, b, axis=0))
        turned = op.Transpose(pieces, perm=[0, 5, 1, 4, 2, 3])
    else:
        pieces = op.Reshape(weight, op.Concat(whole, [i], taps, b, axis=0))
        turned = op.Transpose(pieces, perm=[0, 4, 1, 2, 3])
    made: Tensor = op.Reshape(turned, list(shape))
    return made


def _block(op: Emitter) -> Tensor:
    """The block size as an int64 vector of one element; the runtime is asked where the weights' shapes do not tell.

    ReorderInput of two positions with 16 channels, numbered in standard order from 0 by twos: the value 1 is the first
    channel's at the second position, which comes right after the first block.
    """
    if op.graph.block_size is not None:
        return op.constant([op.graph.block_size])
    numbers = op.constant(np.arange(32, dtype=np.float32).reshape(1, 16, 1, 2))
    (order,) = op.emit("ReorderInput", (numbers,), {}, domain=BLOCKED)
    hits = op.Cast(op.Equal(op.Reshape(order, [-1]), op.constant(np.float32(1))), to=1)
    made: Tensor = op.ArgMax(hits, axis=0, keepdims=1)
    return made


def _is_blocked(op: Emitter, tensor: Tensor) -> bool:
    return tensor.name in op.graph.blocked


def _one(cts: Cotangents) -> Tensor:
    first = cts[0]
    if first is None:
        raise Refusal("its input has no gradient")
    return first() if callable(first) else first


def _refused_weight() -> Tensor:
    raise Refusal("its blocked weight depends on the input")
