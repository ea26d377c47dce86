"""Pools and local response normalization."""

from __future__ import annotations

from functools import reduce

import numpy as np
import onnx

from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.reader import FLOAT_TYPES, Node, Tensor
from gbp_onnx.graph.shapes import Axis, inferred_window_count, window_can_be_empty, window_count
from gbp_onnx.vjp.common import as_real, masked, rank_of, reshape_like, scatter_add, zeros
from gbp_onnx.vjp.registry import Cotangents, Refusal, vjp
from gbp_onnx.vjp.windows import Windows, transpose_windows, window_positions, windows_of

_WINDOW_ATTRS = ("kernel_shape", "strides", "dilations", "pads", "auto_pad", "ceil_mode")


@vjp("MaxPool", since=8)
def max_pool(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct added to the first maximum of each window (row-major), found through the Indices output"""
    x = node.inputs[0]
    if node.attrs.get("storage_order", 0) == 0 and node.index >= 0 and not _is_quantised(op, node):
        indices = op.forward_output(node, 1, onnx.TensorProto.INT64)
    else:  # column-major indices, or a pool that ONNX Runtime would no longer compute on integers: ask again
        _, indices = op.MaxPool(
            as_real(op, x, ct), outputs=2, **{k: node.attrs[k] for k in _WINDOW_ATTRS if k in node.attrs}
        )
    windows = _pool_windows(op, node)
    same_and_dilated = windows.same is not None and any(d > 1 for d in windows.dilations)
    if same_and_dilated or any(window_can_be_empty(a) for a in windows.axes):
        # ONNX Runtime's index of a window that lies wholly in the padding points before its plane: into another one.
        inside = op.Greater(_taps_inside(op, ct, windows, x), 0.0)
        indices = op.Reshape(indices, op.Shape(ct))  # whose inferred shape may be untrue
        indices, ct = op.Where(inside, indices, 0), masked(op, inside, ct)
    total = scatter_add(op, op.size(x), op.Reshape(indices, [-1]), op.Reshape(ct, [-1]), axis=0)
    return (reshape_like(op, total, x),)


def _is_quantised(op: Emitter, node: Node) -> bool:
    """Whether a pool works on integers, or ONNX Runtime may make it do so: between quantising operators."""
    x, y = node.inputs[0], node.outputs[0]
    maker, readers = op.graph.producer(x), op.graph.readers(y)
    return (
        op.elem_type(x) not in FLOAT_TYPES
        or (maker is not None and maker.op == "DequantizeLinear")
        or (bool(readers) and all(reader.op == "QuantizeLinear" for reader in readers))
    )


@vjp("AveragePool", since=7)
def average_pool(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct / count, added back to every position of its window"""
    x, y = node.inputs[0], node.outputs[0]
    windows = _pool_windows(op, node)
    if windows.reaches and any(a.stride > a.kernel > 1 and a.dilation > 1 for a in windows.axes):
        raise Refusal("auto_pad=SAME with dilated windows further apart than they are long; write the pads out")
    share = _per_position(op, node, ct, windows)
    space = op.Slice(op.Shape(y) if op.known_shape(y) is None else op.shape(y), [2], [2 + len(windows.axes)], [0])
    planes = op.Reshape(share, op.Concat([-1, 1], space, axis=0))  # every channel is a plane of its own
    taps = op.constant(np.ones([1, 1, *windows.kernel]), op.elem_type(ct))
    return (reshape_like(op, transpose_windows(op, planes, taps, windows, like=x), x),)


def _pool_windows(op: Emitter, node: Node) -> Windows:
    """The pool's windows. Refused where onnx counts them otherwise than ONNX Runtime, and more nodes follow.

    ONNX Runtime infers the shapes of these as onnx does, and would not load a cotangent beside them that has the true
    shape.
    """
    windows = windows_of(op, node, node.attrs["kernel_shape"])
    if any(a.size is not None and window_count(a, windows.ceil) < 1 for a in windows.axes):
        raise Refusal("its window is larger than its padded input, for which ONNX has no result")
    same = str(node.attrs.get("auto_pad", "")).startswith("SAME")
    untrue = any(
        a.size is not None
        and window_count(a, windows.ceil) != inferred_window_count(a, windows.ceil, same, node.version)
        for a in windows.axes
    )
    if untrue and any(op.graph.readers(y) for y in node.outputs if y is not None):
        raise Refusal(
            "onnx infers another number of windows than ONNX Runtime takes (ceil_mode before opset 22, auto_pad=SAME "
            "with dilations, or a window larger than its input); export with opset 22, without ceil_mode, or with pads"
        )
    return windows


def _per_position(op: Emitter, node: Node, ct: Tensor, windows: Windows) -> Tensor:
    """ct divided by what the forward divides by: the taps of the window, or those that lie in the input."""
    if not windows.ceil and windows.same is None and all(map(_always_whole, windows.axes)):
        made: Tensor = op.Mul(ct, 1 / int(np.prod(windows.kernel)))
        return made
    # The forward itself, run on ones, tells what it divides by (conventions differ between opsets under ceil_mode).
    x, count = node.inputs[0], len(windows.axes)
    kind = op.elem_type(ct)
    kept = (*_WINDOW_ATTRS, "count_include_pad")
    space = op.Slice(op.shape(x), [2], [2 + count], [0])
    ones = op.Add(zeros(op, op.Concat([1, 1], space, axis=0), kind), 1.0)
    mean = op.AveragePool(ones, **{k: node.attrs[k] for k in kept if k in node.attrs})
    mean = op.Reshape(mean, op.Concat([1, 1], op.Slice(op.Shape(ct), [2], [2 + count], [0]), axis=0))
    weight = op.Div(mean, op.Max(_taps_inside(op, ct, windows, x), op.constant(1, kind)))
    product: Tensor = op.Mul(ct, weight)
    return product


def _always_whole(axis: Axis) -> bool:
    """Whether every window lies in the input. ONNX Runtime takes one that is a little larger than its input, too."""
    return axis.begin == axis.end == 0 and (axis.stride == 1 or (axis.size is not None and axis.size >= axis.extent))


def _taps_inside(op: Emitter, ct: Tensor, windows: Windows, x: Tensor) -> Tensor:
    """How many taps of each window lie in the input and not in the padding: [*windows], in the type of `ct`."""
    count, inside = len(windows.axes), []
    for k in range(count):
        positions = window_positions(op, ct, windows, x, k)
        valid = op.And(op.GreaterOrEqual(positions, 0), op.Less(positions, op.dim(x, 2 + k)))
        taken = op.ReduceSum(op.Cast(valid, to=op.elem_type(ct)), axes=[1], keepdims=0)
        inside.append(op.Reshape(taken, [-1 if axis == k else 1 for axis in range(count)]))
    made: Tensor = reduce(op.Mul, inside)
    return made


@vjp("GlobalAveragePool")
def global_average_pool(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct / (number of positions), at every position"""
    x = node.inputs[0]
    rank = rank_of(op, x)
    positions = op.ReduceProd(op.Slice(op.shape(x), [2], [rank], [0]), axes=[0], keepdims=0)
    return (op.Expand(op.Div(ct, op.Cast(positions, to=op.elem_type(ct))), op.shape(x)),)


@vjp("GlobalMaxPool")
def global_max_pool(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct at the first maximum of each channel"""
    x = node.inputs[0]
    planes = op.Reshape(x, [0, 0, -1])
    first = op.ArgMax(planes, axis=2, keepdims=1)
    spread = scatter_add(op, op.Shape(planes), first, op.Reshape(ct, [0, 0, 1]), axis=2)
    return (reshape_like(op, spread, x),)


@vjp("GlobalLpPool", since=2)
def global_lp_pool(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct * (|x| / y)^(p-1) * sign(x), 0 where y = 0"""
    return (_lp_share(op, node, _over_norm(op, node, ct)),)


@vjp("LpPool", since=2)
def lp_pool(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """|x|^(p-1) * sign(x), times the sum of ct / y^(p-1) over the windows; 0 where y = 0"""
    x, y = node.inputs[0], node.outputs[0]
    windows = _pool_windows(op, node)
    space = op.Slice(op.Shape(y), [2], [2 + len(windows.axes)], [0])
    planes = op.Reshape(_over_norm(op, node, ct), op.Concat([-1, 1], space, axis=0))
    taps = op.constant(np.ones([1, 1, *windows.kernel]), op.elem_type(ct))
    return (_lp_share(op, node, reshape_like(op, transpose_windows(op, planes, taps, windows, like=x), x)),)


def _over_norm(op: Emitter, node: Node, ct: Tensor) -> Tensor:
    """ct / y^(p-1), 0 where y = 0."""
    y, p = node.outputs[0], node.attrs["p"]
    positive = op.Greater(y, 0.0)
    safe = op.Where(positive, y, 1.0)
    return masked(op, positive, ct if p == 1 else op.Div(ct, safe if p == 2 else op.Pow(safe, float(p - 1))))


def _lp_share(op: Emitter, node: Node, ct: Tensor) -> Tensor:
    """ct * |x|^(p-1) * sign(x)."""
    x, p = node.inputs[0], node.attrs["p"]
    if p == 2:
        factor = x
    elif p == 1:
        factor = op.Sign(x)
    else:
        factor = op.Mul(op.Sign(x), op.Pow(op.Abs(x), float(p - 1)))
    made: Tensor = op.Mul(ct, factor)
    return made


@vjp("MaxUnpool", since=9)
def max_unpool(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct at the positions written; of values for one position, only the last is in the result"""
    x, indices = node.inputs[:2]
    places = op.Reshape(indices, [-1])
    count = op.Squeeze(op.size(x), axes=[0])
    tickets = op.Range(op.constant(np.int64(0)), count, op.constant(np.int64(1)))
    empty = op.ConstantOfShape(op.Reshape(op.Size(ct), [1]), value=-np.ones(1, np.int64))
    stays = op.Equal(op.Gather(op.ScatterElements(empty, places, tickets, axis=0), places, axis=0), tickets)
    return (reshape_like(op, masked(op, stays, op.Gather(op.Reshape(ct, [-1]), places, axis=0)), x),)


@vjp("LRN")
def lrn(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct * S^-beta - 2*alpha*beta * x * mean(ct * y / S) over the mirrored window, S = bias + alpha * mean(x^2)"""
    x, y, attrs = node.inputs[0], node.outputs[0], node.attrs
    size, alpha, beta, rank = attrs["size"], attrs["alpha"], attrs["beta"], rank_of(op, x)
    before, after = (size - 1) // 2, size // 2  # the window of channel c: c - before .. c + after

    def channel_mean(tensor: Tensor, begin: int, end: int) -> Tensor:
        flat = [0] * (rank - 2)
        pooled = op.AveragePool(
            op.Unsqueeze(tensor, axes=[1]),
            kernel_shape=[size, *[1] * (rank - 2)],
            pads=[begin, *flat, end, *flat],
            count_include_pad=1,
        )
        made: Tensor = op.Squeeze(pooled, axes=[1])
        return made

    scale = op.Add(op.Mul(channel_mean(op.Mul(x, x), before, after), alpha), attrs["bias"])
    through = channel_mean(op.Div(op.Mul(ct, y), scale), after, before)
    return (op.Sub(op.Mul(ct, op.Pow(scale, -beta)), op.Mul(op.Mul(x, 2 * alpha * beta), through)),)
