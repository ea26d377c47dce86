"""Operators of com.microsoft that ONNX Runtime's optimiser writes into float models; what is emitted is standard."""

from __future__ import annotations

from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.reader import Node, Tensor
from gbp_onnx.vjp.activation import gelu_slope
from gbp_onnx.vjp.common import need, rank_of, scaled, unbroadcast
from gbp_onnx.vjp.normalization import normalized_cotangent, scaled_by_root_mean_square
from gbp_onnx.vjp.registry import Cotangents, Refusal, vjp

MICROSOFT = "com.microsoft"

# --- activations --------------------------------------------------------------------------------------------------


@vjp("Gelu", domain=MICROSOFT)
def gelu(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct * (Phi(x) + x * phi(x))"""
    return (op.Mul(ct, gelu_slope(op, node.inputs[0], by_tanh=False)),)


@vjp("BiasGelu", domain=MICROSOFT)
def bias_gelu(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """x: ct * (Phi(x + b) + (x + b) * phi(x + b));  b: the same, summed"""
    return _biased_gelu(op, node, ct, by_tanh=False)


@vjp("FastGelu", domain=MICROSOFT)
def fast_gelu(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """x: ct times the derivative of the tanh approximation of Gelu at x + b;  b: the same, summed"""
    return _biased_gelu(op, node, ct, by_tanh=True)


def _biased_gelu(op: Emitter, node: Node, ct: Tensor, by_tanh: bool) -> Cotangents:
    x, bias = node.inputs[0], node.input(1)
    slope = gelu_slope(op, x if bias is None else op.Add(x, bias), by_tanh)
    to_x = op.Mul(ct, slope)
    return to_x, None if bias is None else lambda: unbroadcast(op, to_x, bias, x)


@vjp("QuickGelu", domain=MICROSOFT)
def quick_gelu(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct * s * (1 + alpha * x * (1 - s)) with s = sigmoid(alpha * x)"""
    x, alpha = node.inputs[0], float(node.attrs.get("alpha", 1.702))
    s = op.Sigmoid(scaled(op, x, alpha))
    inner = op.Mul(scaled(op, x, alpha), op.Sub(1.0, s))
    return (op.Mul(ct, op.Mul(s, op.Add(inner, 1.0))),)


# --- matrices -----------------------------------------------------------------------------------------------------


@vjp("FusedMatMul", "TransposeMatMul", domain=MICROSOFT)
def fused_matmul(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """A': alpha * ct @ B'^T;  B': alpha * A'^T @ ct, for A' and B' as they are multiplied, then turned back"""
    a, b = node.inputs
    rank_a, rank_b = rank_of(op, a), rank_of(op, b)
    if min(rank_a, rank_b) < 2:
        raise Refusal("it multiplies vectors")
    perm_a, perm_b = _multiplied(node, "A", rank_a), _multiplied(node, "B", rank_b)
    grown = scaled(op, ct, float(node.attrs.get("alpha", 1.0)))

    def turned(x: Tensor, perm: list[int]) -> Tensor:
        """x' with its last two axes exchanged."""
        last = [*perm[:-2], perm[-1], perm[-2]]
        made: Tensor = op.Transpose(x, perm=last) if last != sorted(last) else x
        return made

    def back(product: Tensor, x: Tensor, perm: list[int], other: int) -> Tensor:
        lead = max(other - len(perm), 0)
        if lead:
            product = op.ReduceSum(product, axes=list(range(lead)), keepdims=0)
        inverse = [perm.index(i) for i in range(len(perm))]
        if inverse != sorted(inverse):
            product = op.Transpose(product, perm=inverse)
        known = [op.known_shape(t) for t in (a, b)]
        sizes = [() if s is None else s[:-2] for s in known]
        plain = perm[:-2] == list(range(len(perm) - 2)) and sizes[0] == sizes[1] and None not in sizes[0]
        return product if plain or len(perm) == 2 else unbroadcast(op, product, x, product)

    return (
        lambda: back(op.MatMul(grown, turned(b, perm_b)), a, perm_a, rank_b),
        lambda: back(op.MatMul(turned(a, perm_a), grown), b, perm_b, rank_a),
    )


def _multiplied(node: Node, which: str, rank: int) -> list[int]:
    """The permutation that turns A or B as it is stored into the matrices that are multiplied."""
    perm = list(range(rank))
    if node.attrs.get(f"transBatch{which}", 0) and rank > 2:  # the first axis stands before the last one
        perm = [*perm[1:-1], 0, rank - 1]
    if node.attrs.get(f"trans{which}", 0):
        perm[-2:] = perm[-1], perm[-2]
    return perm


@vjp("Inverse", domain=MICROSOFT)
def inverse(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """-y^T @ ct @ y^T"""
    rank = rank_of(op, node.inputs[0])
    turned = op.Transpose(node.outputs[0], perm=[*range(rank - 2), rank - 1, rank - 2])
    return (op.Neg(op.MatMul(op.MatMul(turned, ct), turned)),)


# --- normalizations of a sum --------------------------------------------------------------------------------------


@vjp("SkipLayerNormalization", domain=MICROSOFT, outputs="all")
def skip_layer_normalization(op: Emitter, node: Node, cts: tuple[Tensor | None, ...]) -> Cotangents:
    """LayerNormalization's, at x + skip + bias, plus the sum's own cotangent;  skip, bias: the same, summed"""
    beta = node.input(3)
    to_x, to_skip, to_gamma, to_bias = _skip(op, node, cts, node.input(4), centred=True)
    x, ct = node.inputs[0], cts[0]
    to_beta = None if beta is None or ct is None else (lambda: unbroadcast(op, ct, beta, x))
    return to_x, to_skip, to_gamma, to_beta, to_bias


@vjp("SkipSimplifiedLayerNormalization", domain=MICROSOFT, outputs="all")
def skip_simplified_layer_normalization(op: Emitter, node: Node, cts: tuple[Tensor | None, ...]) -> Cotangents:
    """RMSNormalization's, at x + skip + bias, plus the sum's own cotangent;  skip, bias: the same, summed"""
    return _skip(op, node, cts, node.input(3), centred=False)


def _skip(op: Emitter, node: Node, cts: tuple[Tensor | None, ...], bias: Tensor | None, centred: bool) -> Cotangents:
    """The cotangents of x, skip, gamma and the bias."""
    x, skip, gamma = node.inputs[:3]
    if any(ct is not None for ct in cts[1:3]):
        raise Refusal("its mean or inverse deviation is differentiated, which ONNX Runtime does not compute")
    ct, through = cts[0], cts[3] if len(cts) > 3 else None
    total = op.Add(x, skip) if bias is None else op.Add(op.Add(x, skip), bias)
    axes, to_gamma = [rank_of(op, x) - 1], None
    if ct is None:
        to_sum = need(through, "cotangent")
    else:
        form = normalized_cotangent if centred else scaled_by_root_mean_square
        to_sum, normal = form(op, total, op.Mul(ct, gamma), axes, node.attrs.get("epsilon", 1e-12))
        if through is not None:
            to_sum = op.Add(to_sum, through)

        def to_gamma() -> Tensor:
            return unbroadcast(op, op.Mul(ct, normal), gamma, x)

    return (
        to_sum,
        lambda: unbroadcast(op, to_sum, skip, x),
        to_gamma,
        None if bias is None else lambda: unbroadcast(op, to_sum, bias, x),
    )
