"""Factors of channels, as BatchNormalization leaves them, as depthwise convolutions that take in a sum."""

from __future__ import annotations

import onnx

from gbp_onnx.lowering.blocked import fits
from gbp_onnx.lowering.draft import Draft

__all__ = ["scale_by_conv"]


def scale_by_conv(g: Draft, node: onnx.NodeProto) -> bool:
    """Mul(ct, s [C, 1, 1])  ->  Conv(ct, s [C, 1, 1, 1]), depthwise."""
    for x, s in (node.input, node.input[::-1]):
        space, value = g.space(x), g.value(s)
        if space is None or value is None or not fits(g, x) or g.space(node.output[0]) != space:
            continue
        if value.size == space[0] > 1 and value.shape[-3:] == (space[0], 1, 1):
            weight = g.constant(value.reshape(space[0], 1, 1, 1))
            made = g.emit("Conv", [x, weight], g.shape(x), group=space[0], kernel_shape=[1, 1])
            g.replace(node.output[0], made)
            return True
    return False
