"""Fused nodes of ONNX Runtime's optimiser, without their activations: those are nodes of their own in the view.

See `canonical.fused`. The pre-activation value exists nowhere, so that the activations here read the output alone.
"""

from __future__ import annotations

from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.reader import Node, Tensor
from gbp_onnx.vjp.common import masked
from gbp_onnx.vjp.conv import conv
from gbp_onnx.vjp.linear import gemm
from gbp_onnx.vjp.registry import GBP_DOMAIN, Cotangents, Refusal, vjp

__all__ = ["linear_part"]

MICROSOFT = "com.microsoft"


@vjp("FusedConv", domain=MICROSOFT)
def fused_conv(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """x, W, b: Conv's, at activation'(y) * ct;  z (the sum inside): activation'(y) * ct"""
    return (*conv(op, linear_part(node, "Conv", {"group": 1}), ct), ct)


@vjp("FusedGemm", domain=MICROSOFT)
def fused_gemm(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """A, B, C: Gemm's, at activation'(y) * ct"""
    return gemm(op, linear_part(node, "Gemm", {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}), ct)


def linear_part(node: Node, op_type: str, defaults: dict[str, object]) -> Node:
    """The standard operator that a fused node computes before its activation, with its attributes' defaults."""
    if node.attrs.get("activation"):  # one that the view could not take out
        raise Refusal(f"its activation {node.attrs['activation']} has a derivative that the output does not tell")
    return Node(op_type, node.name, node.inputs[:3], node.outputs, {**defaults, **node.attrs}, index=node.index)


@vjp("Clip", domain=GBP_DOMAIN)
def clip_by_output(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct * [min < y < max]"""
    y, low, high = node.outputs[0], node.attrs["min"], node.attrs["max"]
    return (masked(op, op.And(op.Greater(y, low), op.Less(y, high)), ct),)


@vjp("Softplus", domain=GBP_DOMAIN)
def softplus_by_output(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct * (1 - exp(-y))"""
    return (op.Mul(ct, op.Sub(1.0, op.Exp(op.Neg(node.outputs[0])))),)


@vjp("Softsign", domain=GBP_DOMAIN)
def softsign_by_output(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct * (1 - |y|)^2"""
    rest = op.Sub(1.0, op.Abs(node.outputs[0]))
    return (op.Mul(ct, op.Mul(rest, rest)),)
