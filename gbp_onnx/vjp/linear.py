"""Matrix products."""

from __future__ import annotations

from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.reader import Node, Tensor
from gbp_onnx.vjp.common import as_real, rank_of, scaled, unbroadcast
from gbp_onnx.vjp.registry import Cotangents, vjp


@vjp("MatMul")
def matmul(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """A: ct @ B^T;  B: A^T @ ct (vectors as one-row and one-column matrices, batch axes un-broadcast)"""
    a, b = node.inputs
    rank_a, rank_b = rank_of(op, a), rank_of(op, b)
    if rank_a == rank_b == 2:  # Gemm reads the forward's weight transposed, without a copy
        return lambda: op.Gemm(ct, as_real(op, b, ct), transB=1), lambda: op.Gemm(as_real(op, a, ct), ct, transA=1)
    columns = op.Unsqueeze(ct, axes=[-1]) if rank_b == 1 else ct
    full = op.Unsqueeze(columns, axes=[-2]) if rank_a == 1 else columns

    def to_a() -> Tensor:
        product = op.MatMul(full, _transposed(op, as_real(op, b, ct), rank_b, vector_axis=1))
        return _batch_summed(op, op.Squeeze(product, axes=[-2]) if rank_a == 1 else product, a, b)

    def to_b() -> Tensor:
        product = op.MatMul(_transposed(op, as_real(op, a, ct), rank_a, vector_axis=0), full)
        return _batch_summed(op, op.Squeeze(product, axes=[-1]) if rank_b == 1 else product, b, a)

    return to_a, to_b


@vjp("Gemm", since=7)
def gemm(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """A: alpha * ct @ B'^T;  B: alpha * A'^T @ ct (turned back where transA, transB);  C: beta * ct, un-broadcast"""
    a, b = (as_real(op, t, ct) for t in node.inputs[:2])
    alpha, beta, trans_a, trans_b = (node.attrs[k] for k in ("alpha", "beta", "transA", "transB"))

    def to_a() -> Tensor:
        made: Tensor = (
            op.Gemm(b, ct, transA=trans_b, transB=1, alpha=alpha)
            if trans_a
            else op.Gemm(ct, b, transA=0, transB=1 - trans_b, alpha=alpha)
        )
        return made

    def to_b() -> Tensor:
        made: Tensor = (
            op.Gemm(ct, a, transA=1, transB=trans_a, alpha=alpha)
            if trans_b
            else op.Gemm(a, ct, transA=1 - trans_a, transB=0, alpha=alpha)
        )
        return made

    c = node.input(2)
    to_c = None if c is None else unbroadcast(op, scaled(op, ct, beta), c, node.outputs[0])
    return to_a, to_b, to_c


def _transposed(op: Emitter, matrix: Tensor, rank: int, vector_axis: int) -> Tensor:
    if rank == 1:
        matrix, rank = op.Unsqueeze(matrix, axes=[vector_axis]), 2
    made: Tensor = op.Transpose(matrix, perm=[*range(rank - 2), rank - 1, rank - 2])
    return made


def _batch_summed(op: Emitter, product: Tensor, like: Tensor, other: Tensor) -> Tensor:
    """Sum over the batch axes that `other` has and `like` lacks, or holds once."""
    lead, other_lead = (list(op.known_shape(t) or ())[:-2] for t in (like, other))
    if not other_lead or (lead == other_lead and None not in lead):
        return product
    if not lead:
        made: Tensor = op.ReduceSum(product, axes=list(range(len(other_lead))), keepdims=0)
        return made
    return unbroadcast(op, product, like, product)
