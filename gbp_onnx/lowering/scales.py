"""Factors of channels, as BatchNormalization leaves them: in the weight in front of the gate, or as a convolution.

    Mul(Where(y > 0, Relu(ConvTranspose(c, W)), 0), s)  ->  Where(y > 0, Relu(ConvTranspose(c, s W)), 0)
    Mul(ct, s [C, 1, 1])                                ->  Conv(ct, s [C, 1, 1, 1]), depthwise: it takes a sum in

A clamp and a factor change places where the factor is positive; a mask and a factor always do.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray

from gbp_onnx.graph.nodes import attributes
from gbp_onnx.lowering.blocked import fits
from gbp_onnx.lowering.draft import Draft
from gbp_onnx.lowering.patterns import gate_of, transposed_of

__all__ = ["scale_by_conv", "scale_weight"]


def scale_weight(g: Draft, node: onnx.NodeProto) -> bool:
    """Mul(gate(ConvTranspose(c, W)), s)  ->  gate(ConvTranspose(c, s W)), where s is positive or nothing is clamped."""
    found = _factor(g, node)
    end = None if found is None or g.is_forward(found[0]) else g.node(found[0], "Where", "Relu")
    gate = None if end is None else gate_of(g, end)
    if found is None or end is None or gate is None or not g.only_read_by_one(found[0]):
        return False
    window, source = transposed_of(g, gate.ct), g.node(gate.ct, "ConvTranspose")
    values, shape = found[1], g.shape(node.output[0])
    alone = g.only_read_by_one(gate.ct) and (gate.y is None or not gate.clamps or g.only_read_by_one(end.input[1]))
    if window is None or source is None or window.group != 1 or not alone or (gate.clamps and (values <= 0).any()):
        return False
    weight = g.emit("Mul", [window.weight, g.constant(values.reshape(1, -1, 1, 1))], g.shape(window.weight))
    g.cut_weights.add(weight)
    ct = g.emit("ConvTranspose", [window.ct, weight], g.shape(gate.ct), **attributes(source))
    if gate.clamps:
        ct = g.emit("Relu", [ct], shape)
    g.replace(node.output[0], ct if gate.y is None else g.emit("Where", [end.input[0], ct, end.input[2]], shape))
    return True


def scale_by_conv(g: Draft, node: onnx.NodeProto) -> bool:
    """Mul(ct, s [C, 1, 1])  ->  Conv(ct, s [C, 1, 1, 1]), depthwise."""
    found = _factor(g, node)
    if found is None:
        return False
    weight = g.constant(found[1].reshape(-1, 1, 1, 1))
    attrs = {"group": found[1].size, "kernel_shape": [1, 1]}
    g.replace(node.output[0], g.emit("Conv", [found[0], weight], g.shape(found[0]), 1, **attrs))
    return True


def _factor(g: Draft, node: onnx.NodeProto) -> tuple[str, NDArray[np.float32]] | None:
    """A tensor of whole blocks of channels, and the constant factor of each channel that it is multiplied with."""
    for x, s in (node.input, node.input[::-1]):
        space, value = g.space(x), g.value(s)
        if space is None or value is None or not fits(g, x) or g.space(node.output[0]) != space:
            continue
        if g.weight_shape(x) is not None:
            continue  # a weight that was multiplied before
        if value.size == space[0] > 1 and value.shape[-3:] == (space[0], 1, 1):
            return g.now(x), np.asarray(value, np.float32)
    return None
