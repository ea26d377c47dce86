"""ONNX Runtime's own operators (com.microsoft) on images: GridSample."""

from __future__ import annotations

from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.reader import Node, Tensor
from gbp_onnx.vjp import sampling
from gbp_onnx.vjp.registry import Cotangents, vjp


@vjp("GridSample", domain="com.microsoft")
def grid_sample(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """as for GridSample of ai.onnx"""
    return sampling.grid_sample(op, node, ct)
