"""Losses over classes on axis 1. Targets are compared, never gathered: an ignored one may be no class at all."""

from __future__ import annotations

from collections.abc import Callable

import onnx

from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.reader import Node, Tensor
from gbp_onnx.vjp.common import masked, need, rank_of
from gbp_onnx.vjp.registry import Cotangents, vjp


@vjp("NegativeLogLikelihoodLoss", since=12)
def negative_log_likelihood(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """x: -ct * w[t] at the target's class, over the sum of w[t] for a mean;  w: -ct * (x + y for a mean) / that sum"""
    to_x, to_weight = _likelihood(op, node, node.inputs[0], ct, node.outputs[0])
    return to_x, None, to_weight


@vjp("SoftmaxCrossEntropyLoss", since=12, outputs="all")
def softmax_cross_entropy(op: Emitter, node: Node, cts: tuple[Tensor | None, ...]) -> Cotangents:
    """x: g - softmax(x) * sum(g) over the classes, g = the likelihood's cotangent + that of log_prob"""
    logs: Tensor = op.LogSoftmax(node.inputs[0], axis=1)
    to_logs: list[Tensor] = []
    to_weight = None
    if cts[0] is not None:
        through, to_weight = _likelihood(op, node, logs, cts[0], node.outputs[0])
        to_logs.append(through)
    if len(cts) > 1 and cts[1] is not None:
        to_logs.append(cts[1])
    g = to_logs[0] if len(to_logs) == 1 else op.Add(*to_logs)
    total = op.ReduceSum(g, axes=[1], keepdims=1)
    return op.Sub(g, op.Mul(op.Exp(logs), total)), None, to_weight


def _likelihood(
    op: Emitter, node: Node, logs: Tensor, ct: Tensor, y: Tensor | None
) -> tuple[Tensor, Callable[[], Tensor] | None]:
    """The cotangents of the log-probabilities and of the weights through the negative log-likelihood of the targets."""
    x, target, weight = node.inputs[0], need(node.input(1), "target"), node.input(2)
    rank, reduction = rank_of(op, x), node.attrs.get("reduction", "mean")
    others = [0, *range(2, rank)]
    classes = op.Range(0, op.Squeeze(op.dim(x, 1), axes=[0]), 1)
    wanted = op.Unsqueeze(op.Cast(target, to=onnx.TensorProto.INT64), axes=[1])
    hit = op.Equal(_per_class(op, classes, rank), wanted)
    ignored = node.attrs.get("ignore_index")
    if ignored is not None:
        hit = op.And(hit, op.Not(op.Equal(wanted, int(ignored))))
    of_class = op.constant(1.0, op.elem_type(ct)) if weight is None else _per_class(op, weight, rank)
    share = op.Unsqueeze(ct, axes=[1]) if reduction == "none" else ct
    if reduction == "mean":
        share = op.Div(share, op.ReduceSum(masked(op, hit, of_class), keepdims=0))

    def to_weight() -> Tensor:
        each = op.Add(logs, need(y, "result")) if reduction == "mean" else logs
        made: Tensor = op.ReduceSum(masked(op, hit, op.Neg(op.Mul(share, each))), axes=others, keepdims=0)
        return made

    to_logs = masked(op, hit, op.Neg(op.Mul(share, of_class)))
    return to_logs, None if weight is None else to_weight


def _per_class(op: Emitter, vector: Tensor, rank: int) -> Tensor:
    made: Tensor = op.Reshape(vector, [1, -1, *[1] * (rank - 2)])
    return made
