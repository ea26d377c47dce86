"""The form for ONNX Runtime's CPU provider: everything in its blocked layout, masks inside convolutions."""

from __future__ import annotations

from gbp_onnx.lowering.gates import fuse_gate, lower_sum
from gbp_onnx.lowering.growing import nest_concats
from gbp_onnx.lowering.heads import look_up_conv, look_up_row
from gbp_onnx.lowering.pieces import cut_split
from gbp_onnx.lowering.rewriting import Rewrite
from gbp_onnx.lowering.scales import scale_by_conv, scale_weight
from gbp_onnx.lowering.sizes import know_size, reshape_to_constant

__all__ = ["CPU"]

CPU = (
    Rewrite("sizes", ("Gather", "Slice"), know_size),
    Rewrite("shapes", ("Reshape",), reshape_to_constant),
    Rewrite("rows", ("Gemm",), look_up_row),
    Rewrite("classifiers", ("ConvTranspose",), look_up_conv),
    Rewrite("factors", ("Mul",), scale_weight),
    Rewrite("scales", ("Mul",), scale_by_conv),  # what is left of them
    Rewrite("growing", ("Split",), nest_concats),
    Rewrite("pieces", ("Split",), cut_split),  # before the gates, which read what it cuts
    Rewrite("gates", ("Where", "Relu"), fuse_gate),
    Rewrite("sums", ("ConvTranspose", "Add", "Reshape"), lower_sum),
)
