"""The form for ONNX Runtime's CUDA provider: few kernels. Every node is a launch, and cuDNN takes Add and Relu in.

    ConvTranspose, stride 1                 ->  Conv with the weight turned: Conv + Add + Relu are one kernel
    Greater(y, 0) of a rectifier's output   ->  Cast(y, bool), one kernel that reads y alone, without a broadcast

Strided windows stay ConvTranspose (cuDNN's own gradient of a convolution), pools stay a scatter through Indices.
Written for what the provider's kernels and fusions are known to be; not measured on a GPU yet.
"""

from __future__ import annotations

import onnx

from gbp_onnx.lowering.draft import Draft
from gbp_onnx.lowering.growing import nest_concats
from gbp_onnx.lowering.heads import look_up_conv, look_up_row
from gbp_onnx.lowering.patterns import never_negative, transposed_of
from gbp_onnx.lowering.rewriting import Rewrite
from gbp_onnx.lowering.sizes import know_size, reshape_to_constant
from gbp_onnx.lowering.turned import as_conv

__all__ = ["CUDA"]


def turn_weight(g: Draft, node: onnx.NodeProto) -> bool:
    """ConvTranspose(ct, W), stride 1  ->  Conv(ct, W turned)."""
    window = transposed_of(g, node.output[0])
    made = None if window is None else as_conv(g, window)
    if made is None:
        return False
    g.replace(node.output[0], made)
    return True


def cast_mask(g: Draft, node: onnx.NodeProto) -> bool:
    """Greater(y, 0)  ->  Cast(y, bool), where y follows a rectifier: it is 0 or positive."""
    y = node.input[0]
    if g.number(node.input[1]) != 0 or not g.is_forward(y) or not never_negative(g, y):
        return False
    kind = onnx.TensorProto.BOOL
    g.replace(node.output[0], g.emit("Cast", [y], g.shape(node.output[0]), kind, to=kind))
    return True


CUDA = (
    Rewrite("sizes", ("Gather", "Slice"), know_size),
    Rewrite("shapes", ("Reshape",), reshape_to_constant),
    Rewrite("rows", ("Gemm",), look_up_row),
    Rewrite("classifiers", ("ConvTranspose",), look_up_conv),
    Rewrite("growing", ("Split",), nest_concats),
    Rewrite("turned", ("ConvTranspose",), turn_weight),
    Rewrite("masks", ("Greater",), cast_mask),
)
