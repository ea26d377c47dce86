"""Normalizations. Those that compute their own statistics share one formula: `normalized_cotangent`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.reader import Node, Tensor
from gbp_onnx.vjp.common import as_real, masked, need, rank_of, reshape_like, unbroadcast
from gbp_onnx.vjp.registry import Cotangents, Refusal, vjp


@vjp("BatchNormalization", since=9, outputs="all")
def batch_normalization(op: Emitter, node: Node, cts: tuple[Tensor | None, ...]) -> Cotangents:
    """x: ct * scale / d, d = sqrt(var + epsilon);  scale: sum of ct * (x - mean) / d;  bias: sum of ct;
    mean: -scale / d * sum of ct;  var: -scale / (2 * d^3) * sum of ct * (x - mean)
    """
    ct = cts[0]
    if ct is None or node.attrs.get("training_mode", 0) or len([t for t in node.outputs if t is not None]) > 1:
        raise Refusal("it runs in training mode (its statistics depend on the batch); export the model with eval()")
    ct = need(cts[0], "cotangent")
    x, scale, bias, mean, var = node.inputs
    rank = rank_of(op, x)
    deviation = op.Sqrt(op.Add(var, node.attrs["epsilon"]))
    factor = _per_channel(op, op.Div(as_real(op, scale, deviation), deviation), rank)
    if op.elem_type(factor) != op.elem_type(ct):  # float32 statistics beside half precision data
        factor = op.Cast(factor, to=op.elem_type(ct))
    others = [0, *range(2, rank)]

    def total(tensor: Tensor, like: Tensor) -> Tensor:
        """The sum over all but the channels, in the type of the parameter `like`."""
        return as_real(op, op.ReduceSum(tensor, axes=others, keepdims=0), like)

    def of_centred(like: Tensor) -> Tensor:
        centre = as_real(op, _per_channel(op, mean, rank), ct)
        return total(op.Mul(ct, op.Sub(x, centre)), like)

    def to_scale() -> Tensor:
        made: Tensor = op.Div(of_centred(scale), as_real(op, deviation, scale))
        return made

    def to_mean() -> Tensor:
        made: Tensor = op.Neg(op.Mul(total(ct, mean), op.Div(as_real(op, scale, mean), deviation)))
        return made

    def to_var() -> Tensor:
        cube = op.Mul(op.Mul(deviation, op.Add(var, node.attrs["epsilon"])), -2.0)
        made: Tensor = op.Mul(of_centred(var), op.Div(as_real(op, scale, var), cube))
        return made

    return op.Mul(ct, factor), to_scale, lambda: total(ct, bias), to_mean, to_var


@vjp("InstanceNormalization", since=6)
def instance_normalization(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """x: (g - mean(g) - n * mean(g * n)) / deviation over space, g = ct * scale, n = (x - mean) / deviation"""
    x, scale, _ = node.inputs
    rank = rank_of(op, x)
    g = op.Mul(ct, _per_channel(op, scale, rank))
    space, others = list(range(2, rank)), [0, *range(2, rank)]
    to_x, normal = normalized_cotangent(op, x, g, space, node.attrs["epsilon"])
    return (
        to_x,
        lambda: op.ReduceSum(op.Mul(ct, normal), axes=others, keepdims=0),
        lambda: op.ReduceSum(ct, axes=others, keepdims=0),
    )


@vjp("LayerNormalization", outputs="all")  # ONNX Runtime's fusions write it below opset 17 too
def layer_normalization(op: Emitter, node: Node, cts: tuple[Tensor | None, ...]) -> Cotangents:
    """x: (g - mean(g) - n * mean(g * n)) / deviation over the axes from `axis`, g = ct * scale; with the further
    outputs + ct_mean / count - ct_inverse_deviation * n / (deviation^2 * count)
    """
    x, scale = node.inputs[:2]
    ct, to_mean, to_inverse = (*cts, None, None)[:3]
    bias, rank = node.input(2), rank_of(op, x)
    axes = list(range(node.attrs.get("axis", -1) % rank, rank))
    parts: list[Tensor] = []
    normal, deviation = normalized(op, x, axes, node.attrs.get("epsilon", 1e-5))
    if ct is not None:
        parts.append(_through_normal(op, op.Mul(ct, scale), normal, deviation, axes))
    count = op.Cast(op.ReduceProd(op.Gather(op.shape(x), axes, axis=0), axes=[0], keepdims=0), to=op.elem_type(x))
    if to_mean is not None:
        parts.append(op.Expand(op.Div(as_real(op, to_mean, x), count), op.shape(x)))
    if to_inverse is not None:
        part = op.Div(as_real(op, to_inverse, x), op.Mul(op.Mul(deviation, deviation), count))
        parts.append(op.Neg(op.Mul(part, normal)))
    return (
        reduce(op.Add, parts),
        None if ct is None else lambda: unbroadcast(op, op.Mul(ct, normal), scale, x),
        None if ct is None or bias is None else lambda: unbroadcast(op, ct, bias, x),
    )


@vjp("RMSNormalization", since=23, outputs="all")
@vjp("SimplifiedLayerNormalization", outputs="all")  # ONNX Runtime's name for it, in the standard domain
def rms_normalization(op: Emitter, node: Node, cts: tuple[Tensor | None, ...]) -> Cotangents:
    """x: (g - n * mean(g * n)) / r over the axes from `axis`, r = sqrt(mean(x^2) + epsilon), n = x / r, g = ct * scale;
    scale: sum of ct * n
    """
    x, scale = node.inputs[:2]
    ct = cts[0]
    if ct is None or any(t is not None for t in cts[1:]):
        raise Refusal("its inverse deviation is differentiated")
    rank = rank_of(op, x)
    axes = list(range(node.attrs.get("axis", -1) % rank, rank))
    to_x, normal = scaled_by_root_mean_square(op, x, op.Mul(ct, scale), axes, node.attrs.get("epsilon", 1e-5))
    return to_x, lambda: unbroadcast(op, op.Mul(ct, normal), scale, x)


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

    to_x, normal = normalized_cotangent(op, grouped(x), g, [2], node.attrs["epsilon"])

    def to_scale() -> Tensor:
        return total(op.Mul(grouped(ct), normal))

    def total(tensor: Tensor) -> Tensor:
        """The sum of what one entry of the scale or bias meets."""
        if node.version >= 21:
            made: Tensor = op.ReduceSum(reshape_like(op, tensor, x), axes=[0, *range(2, rank)], keepdims=0)
        else:
            made = op.ReduceSum(tensor, axes=[0, 2], keepdims=0)
        return made

    return reshape_like(op, to_x, x), to_scale, lambda: total(grouped(ct))


@vjp("MeanVarianceNormalization", since=9)
def mean_variance_normalization(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """(ct - mean(ct) - y * mean(ct * y)) / deviation over the axes"""
    x = node.inputs[0]
    axes = node.attrs.get("axes") or [0, 2, 3]
    to_x, _ = normalized_cotangent(op, x, ct, [a % rank_of(op, x) for a in axes], 1e-9)
    return (to_x,)


@vjp("LpNormalization")
def lp_normalization(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """(ct - d * sum(ct * y)) / norm along the axis, d = sign(x) for p = 1 and y for p = 2"""
    x, y, axis = node.inputs[0], node.outputs[0], [node.attrs["axis"]]
    length = op.ReduceL1 if node.attrs["p"] == 1 else op.ReduceL2
    norm = length(x, axes=axis, keepdims=1)
    direction = op.Sign(x) if node.attrs["p"] == 1 else y
    through = op.ReduceSum(op.Mul(ct, y), axes=axis, keepdims=1)
    positive = op.Greater(norm, 0.0)
    return (masked(op, positive, op.Div(op.Sub(ct, op.Mul(direction, through)), op.Where(positive, norm, 1.0))),)


def _per_channel(op: Emitter, vector: Tensor, rank: int) -> Tensor:
    """[C] as [C, 1, 1...], to meet axis 1 of a tensor of this rank."""
    made: Tensor = op.Unsqueeze(vector, axes=list(range(1, rank - 1))) if rank > 2 else vector
    return made


def normalized_cotangent(
    op: Emitter, x: Tensor, g: Tensor, axes: Sequence[int], epsilon: float
) -> tuple[Tensor, Tensor]:
    """The cotangent of x through n = (x - mean) / deviation, given that of n; and n (Ioffe & Szegedy 2015)."""
    normal, deviation = normalized(op, x, axes, epsilon)
    return _through_normal(op, g, normal, deviation, axes), normal


def normalized(op: Emitter, x: Tensor, axes: Sequence[int], epsilon: float) -> tuple[Tensor, Tensor]:
    """n = (x - mean) / deviation, and the deviation."""
    centred = op.Sub(x, _mean(op, x, axes))
    deviation = op.Sqrt(op.Add(_mean(op, op.Mul(centred, centred), axes), epsilon))
    return op.Div(centred, deviation), deviation


def scaled_by_root_mean_square(
    op: Emitter, x: Tensor, g: Tensor, axes: Sequence[int], epsilon: float
) -> tuple[Tensor, Tensor]:
    """The cotangent of x through n = x / sqrt(mean(x^2) + epsilon), given that of n; and n (Zhang & Sennrich 2019)."""
    root = op.Sqrt(op.Add(_mean(op, op.Mul(x, x), axes), epsilon))
    normal = op.Div(x, root)
    return op.Div(op.Sub(g, op.Mul(normal, _mean(op, op.Mul(g, normal), axes))), root), normal


def _through_normal(op: Emitter, g: Tensor, normal: Tensor, deviation: Tensor, axes: Sequence[int]) -> Tensor:
    flat = op.Sub(op.Sub(g, _mean(op, g, axes)), op.Mul(normal, _mean(op, op.Mul(g, normal), axes)))
    made: Tensor = op.Div(flat, deviation)
    return made


def _mean(op: Emitter, tensor: Tensor, axes: Sequence[int]) -> Tensor:
    made: Tensor = op.ReduceMean(tensor, axes=list(axes), keepdims=1)
    return made
