"""A seed that picks one class needs no product with all classes' weights: the row of its class is looked up.

Gemm(one-hot(target), W [classes, K])                                    ->  Gather(W, target)
ConvTranspose(gate(y, spread evenly(one-hot(target))), W [classes, C])   ->  Gather(W, target) * [y_target > 0] / n
"""

from __future__ import annotations

import numpy as np
import onnx

from gbp_onnx.graph.nodes import attributes
from gbp_onnx.lowering.draft import Draft, is_backward
from gbp_onnx.lowering.patterns import emit_mask, gate_of, transposed_of

__all__ = ["look_up_conv", "look_up_row"]


def look_up_row(g: Draft, node: onnx.NodeProto) -> bool:
    """Gemm(seed [N, classes], W)  ->  Gather(W, target) [N, K], where the seed is one-hot and W an initializer."""
    attrs = attributes(node)
    weight = g.weight_shape(node.input[1])
    if weight is None or len(node.input) > 2 or attrs.get("transA", 0) or attrs.get("alpha", 1.0) != 1:
        return False
    index, shape = _one_hot(g, node.input[0], weight[1 if attrs.get("transB", 0) else 0]), g.shape(node.output[0])
    if index is None:
        return False
    if attrs.get("transB", 0):
        columns = g.emit("Gather", [node.input[1], index], None if shape is None else shape[::-1], axis=1)
        g.replace(node.output[0], g.emit("Transpose", [columns], shape, perm=[1, 0]))
    else:
        g.replace(node.output[0], g.emit("Gather", [node.input[1], index], shape, axis=0))
    return True


def look_up_conv(g: Draft, node: onnx.NodeProto) -> bool:
    """ConvTranspose of 1 x 1 over Where(y > 0, Expand(seed / n), 0)  ->  Gather(W, target) * [y_target > 0] / n.

    What a classifier of a convolution, a rectifier (or none) and a global mean leaves: only the target's channel is not
    zero.
    """
    window = transposed_of(g, node.output[0])
    if window is None or window.kernel != (1, 1) or window.strides != (1, 1) or window.begins != (0, 0):
        return False
    end = g.maker.get(window.ct)
    gate = None if end is None or window.group != 1 else gate_of(g, end)
    index, space = _spread_index(g, window.ct if gate is None else gate.ct), g.space(window.ct)
    if index is None or space is None:
        return False
    if gate is not None and gate.y is not None and not (g.space(gate.y) and g.alike(gate.y, window.ct)):
        return False
    batch, (_, height, width) = (g.shape(window.ct) or (None,))[0], space
    row = g.emit("Gather", [window.weight, index], (batch, window.size[0], 1, 1), axis=0)
    share = g.constant(np.float32(1) / np.float32(height * width))
    if gate is None or gate.y is None:
        plane = g.emit("Expand", [share, g.constant([1, 1, height, width], np.int64)], (1, 1, height, width))
    else:
        y = _computed_column(g, gate.y, window.weight, index) or _column(g, gate.y, index)
        plane = g.emit("Where", [emit_mask(g, y, gate.cap), share, g.constant(np.float32(0))], g.shape(y))
    g.replace(node.output[0], g.emit("Mul", [row, plane], g.shape(node.output[0])))
    return True


def _column(g: Draft, y: str, index: str) -> str:
    """The target's channel of y, [N, 1, H, W]."""
    batch, one = (g.shape(y) or (None,))[0], g.constant([1], np.int64)
    _, height, width = g.space(y) or (0, 0, 0)
    column = g.emit("Unsqueeze", [index, one], (batch, 1), onnx.TensorProto.INT64)
    plane = g.emit("GatherND", [y, column], (batch, height, width), batch_dims=1)
    return g.emit("Unsqueeze", [plane, one], (batch, 1, height, width))


def _computed_column(g: Draft, y: str, weight: str, index: str) -> str | None:
    """The target's channel of y = Relu(Conv(x, W) + b) before its Relu, [N, 1, H, W]: Gather(W, target) @ x + its bias.

    Where nothing asks for the other channels.
    """
    rectifier = g.node(y, "Relu", "Clip")
    conv = None if rectifier is None else g.node(rectifier.input[0], "Conv")
    if rectifier is None or conv is None or g.is_kept(y) or g.is_kept(conv.output[0]):
        return None
    needed = g.needed()
    if any(not is_backward(reader) and id(reader) in needed for reader in g.readers(y)):
        return None
    x, attrs = g.now(conv.input[0]), attributes(conv)
    space, shape = g.space(x), g.shape(weight) or ()
    plain = all(v in (None, 0, 1, [1, 1], [0] * 4, b"NOTSET", b"VALID") for v in attrs.values())
    if g.now(conv.input[1]) != g.now(weight) or not plain or space is None or space[0] != shape[1]:
        return None
    if len(g.readers(conv.output[0])) != 1:
        return None
    channels, height, width = space
    batch = (g.shape(x) or (None,))[0]
    row = g.emit("Gather", [weight, index], (batch, channels, 1, 1), axis=0)
    row = g.emit("Reshape", [row, g.constant([-1, 1, channels], np.int64)], (batch, 1, channels))
    places = g.emit("Reshape", [x, g.constant([0, channels, -1], np.int64)], (batch, channels, height * width))
    found = g.emit("MatMul", [row, places], (batch, 1, height * width))
    if len(conv.input) > 2:
        bias = g.emit("Gather", [conv.input[2], index], (batch,), axis=0)
        found = g.emit("Add", [found, g.emit("Reshape", [bias, g.constant([-1, 1, 1], np.int64)], (batch, 1, 1))], None)
    return g.emit("Reshape", [found, g.constant([0, 1, height, width], np.int64)], (batch, 1, height, width))


def _spread_index(g: Draft, name: str) -> str | None:
    """The index of Expand(one-hot(index) / n), the derivative of a global mean."""
    expand = g.node(name, "Expand")
    share = None if expand is None else g.node(expand.input[0], "Div")
    space = g.space(name)
    if share is None or space is None:
        return None
    index = _one_hot(g, share.input[0], space[0])
    if index is None or not _counts(g, share.input[1], space[1] * space[2]):
        return None
    shape = g.shape(share.output[0])
    return None if shape is None or shape[1:] != (space[0], 1, 1) else index


def _counts(g: Draft, name: str, places: int) -> bool:
    """Whether a tensor is the number of places: Cast(ReduceProd(sizes)), or a constant of the same."""
    if g.number(name) == places:
        return True
    cast = g.node(name, "Cast")
    return cast is not None and g.node(cast.input[0], "ReduceProd") is not None


def _one_hot(g: Draft, name: str, classes: int) -> str | None:
    """The indices of a seed that is 1 at one of the classes of each image: OneHot(index, classes, [0, 1]), reshaped.

    An output of several places for each image, [N, places, classes], has more values than classes.
    """
    node = g.node(name, "Reshape", "OneHot")
    while node is not None and node.op_type == "Reshape":
        node = g.node(node.input[0], "Reshape", "OneHot")
    if node is None or attributes(node).get("axis", -1) != -1 or _depth(g, node.input[1]) != classes:
        return None
    values = g.value(node.input[2])
    fits = values is not None and values.tolist() == [0, 1] and len(g.shape(node.input[0]) or ()) == 1
    return g.now(node.input[0]) if fits else None


def _depth(g: Draft, name: str) -> float | None:
    """The number of values of a seed: a constant, or Gather(Shape(rows [N, values]), 1)."""
    gather = g.node(name, "Gather")
    rows = None if gather is None or g.number(gather.input[1]) != 1 else g.node(gather.input[0], "Shape")
    if rows is None:
        return g.number(name)
    shape = g.shape(rows.input[0])
    size = None if attributes(rows) or shape is None or len(shape) != 2 else shape[1]
    return size if isinstance(size, int) else None
