"""Normalizations. Those that compute their own statistics share one formula: `_centred`."""

from __future__ import annotations

from collections.abc import Sequence

from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.reader import Node, Tensor
from gbp_onnx.vjp.common import masked, rank_of, reshape_like, unbroadcast
from gbp_onnx.vjp.registry import Cotangents, Refusal, vjp


@vjp("BatchNormalization", since=9)
def batch_normalization(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """x: ct * scale / sqrt(var + epsilon);  scale: sum of ct * (x - mean) / sqrt(var + epsilon);  bias: sum of ct"""
    if node.attrs.get("training_mode", 0) or len([t for t in node.outputs if t is not None]) > 1:
        raise Refusal("it runs in training mode (its statistics depend on the batch); export the model with eval()")
    x, scale, _, mean, var = node.inputs
    rank = rank_of(op, x)
    deviation = op.Sqrt(op.Add(var, node.attrs["epsilon"]))
    factor = _per_channel(op, op.Div(scale, deviation), rank)
    if op.elem_type(factor) != op.elem_type(ct):  # float32 statistics beside half precision data
        factor = op.Cast(factor, to=op.elem_type(ct))
    others = [0, *range(2, rank)]

    def to_scale() -> Tensor:
        normal = op.Div(op.Sub(x, _per_channel(op, mean, rank)), _per_channel(op, deviation, rank))
        made: Tensor = op.ReduceSum(op.Mul(ct, normal), axes=others, keepdims=0)
        return made

    def refuse() -> Tensor:
        raise Refusal("its mean or variance depends on the input")

    return op.Mul(ct, factor), to_scale, lambda: op.ReduceSum(ct, axes=others, keepdims=0), refuse, refuse


@vjp("InstanceNormalization", since=6)
def instance_normalization(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """x: (g - mean(g) - n * mean(g * n)) / deviation over space, g = ct * scale, n = (x - mean) / deviation"""
    x, scale, _ = node.inputs
    rank = rank_of(op, x)
    g = op.Mul(ct, _per_channel(op, scale, rank))
    space, others = list(range(2, rank)), [0, *range(2, rank)]
    to_x, normal = _centred(op, x, g, space, node.attrs["epsilon"])
    return (
        to_x,
        lambda: op.ReduceSum(op.Mul(ct, normal), axes=others, keepdims=0),
        lambda: op.ReduceSum(ct, axes=others, keepdims=0),
    )


@vjp("LayerNormalization", since=17)
def layer_normalization(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """x: (g - mean(g) - n * mean(g * n)) / deviation over the axes from `axis`, g = ct * scale"""
    x, scale = node.inputs[:2]
    rank = rank_of(op, x)
    start = node.attrs["axis"] % rank
    to_x, normal = _centred(op, x, op.Mul(ct, scale), list(range(start, rank)), node.attrs["epsilon"])
    bias = node.input(2)
    return (
        to_x,
        lambda: unbroadcast(op, op.Mul(ct, normal), scale, x),
        None if bias is None else lambda: unbroadcast(op, ct, bias, x),
    )


@vjp("GroupNormalization", since=18)
def group_normalization(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """x: (g - mean(g) - n * mean(g * n)) / deviation over each group of channels and space, g = ct * scale"""
    x, scale, _ = node.inputs
    rank, groups = rank_of(op, x), node.attrs["num_groups"]

    def grouped(tensor: Tensor) -> Tensor:
        made: Tensor = op.Reshape(tensor, [0, groups, -1])
        return made

    if node.version >= 21:  # one scale a channel; before, one a group
        g = grouped(op.Mul(ct, _per_channel(op, scale, rank)))
    else:
        g = op.Mul(grouped(ct), op.Unsqueeze(scale, axes=[1]))

    def refuse() -> Tensor:
        raise Refusal("its scale or bias depends on the input")

    to_x, _ = _centred(op, grouped(x), g, [2], node.attrs["epsilon"])
    return reshape_like(op, to_x, x), refuse, refuse


@vjp("MeanVarianceNormalization", since=9)
def mean_variance_normalization(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """(ct - mean(ct) - y * mean(ct * y)) / deviation over the axes"""
    x = node.inputs[0]
    axes = node.attrs.get("axes") or [0, 2, 3]
    to_x, _ = _centred(op, x, ct, [a % rank_of(op, x) for a in axes], 1e-9)
    return (to_x,)


@vjp("LpNormalization")
def lp_normalization(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """(ct - d * sum(ct * y)) / norm along the axis, d = sign(x) for p = 1 and y for p = 2"""
    x, y, axis = node.inputs[0], node.outputs[0], [node.attrs["axis"]]
    reduce = op.ReduceL1 if node.attrs["p"] == 1 else op.ReduceL2
    norm = reduce(x, axes=axis, keepdims=1)
    direction = op.Sign(x) if node.attrs["p"] == 1 else y
    through = op.ReduceSum(op.Mul(ct, y), axes=axis, keepdims=1)
    positive = op.Greater(norm, 0.0)
    return (masked(op, positive, op.Div(op.Sub(ct, op.Mul(direction, through)), op.Where(positive, norm, 1.0))),)


def _per_channel(op: Emitter, vector: Tensor, rank: int) -> Tensor:
    """[C] as [C, 1, 1...], to meet axis 1 of a tensor of this rank."""
    made: Tensor = op.Unsqueeze(vector, axes=list(range(1, rank - 1))) if rank > 2 else vector
    return made


def _centred(op: Emitter, x: Tensor, g: Tensor, axes: Sequence[int], epsilon: float) -> tuple[Tensor, Tensor]:
    """The cotangent of x through n = (x - mean) / deviation, given that of n; and n (Ioffe & Szegedy 2015)."""

    def mean(tensor: Tensor) -> Tensor:
        made: Tensor = op.ReduceMean(tensor, axes=list(axes), keepdims=1)
        return made

    centred = op.Sub(x, mean(x))
    deviation = op.Sqrt(op.Add(mean(op.Mul(centred, centred)), epsilon))
    normal = op.Div(centred, deviation)
    flat = op.Sub(op.Sub(g, mean(g)), op.Mul(normal, mean(op.Mul(g, normal))))
    return op.Div(flat, deviation), normal
