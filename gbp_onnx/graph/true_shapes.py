"""Sizes that onnx infers otherwise than ONNX Runtime computes them: pools, ConvTranspose, Resize."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
from onnx import helper

from gbp_onnx.graph.shapes import Axis, same_pads, window_count

__all__ = ["corrections"]

_POOLS = frozenset({"AveragePool", "LpPool", "MaxPool"})


def corrections(model: onnx.ModelProto, inferred: onnx.GraphProto) -> dict[str, list[int] | None]:
    """By output, the shape in the form of a Reshape (0 = as inferred); None where only the rank is right."""
    shapes: Mapping[str, onnx.TensorShapeProto] | None = None
    found: dict[str, list[int] | None] = {}
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            continue
        attrs = {a.name: a for a in node.attribute}
        if node.op_type in _POOLS and "kernel_shape" in attrs:
            if shapes is None:
                infos = (*inferred.input, *inferred.value_info, *inferred.output)
                shapes = {v.name: v.type.tensor_type.shape for v in infos}
            found.update(_pool(node, attrs, shapes))
        elif node.op_type == "ConvTranspose" and "output_shape" in attrs:
            # onnx gives up half-way where it is smaller than the input, and leaves a wrong rank.
            spatial = list(attrs["output_shape"].ints)
            count = len(attrs["kernel_shape"].ints) if "kernel_shape" in attrs else len(spatial)
            found[node.output[0]] = [0, 0, *spatial[-count:]]
        elif (
            node.op_type == "Resize"
            and "keep_aspect_ratio_policy" in attrs
            and any(a < 0 for a in (attrs["axes"].ints if "axes" in attrs else ()))
        ):
            found[node.output[0]] = None  # ONNX Runtime leaves these axes as they are
    return found


def _pool(
    node: onnx.NodeProto,
    attrs: Mapping[str, onnx.AttributeProto],
    shapes: Mapping[str, onnx.TensorShapeProto],
) -> dict[str, list[int] | None]:
    """Where the last window begins in the padding, is larger than the input, or is dilated under auto_pad=SAME."""
    x, y = shapes.get(node.input[0]), shapes.get(node.output[0])
    kernel = list(attrs["kernel_shape"].ints)
    count = len(kernel)
    if x is None or y is None or len(x.dim) != count + 2 or len(y.dim) != count + 2:
        return {}

    def ints(name: str, default: int, length: int) -> Sequence[int]:
        return list(attrs[name].ints) if name in attrs else [default] * length

    strides, dilations, pads = ints("strides", 1, count), ints("dilations", 1, count), ints("pads", 0, 2 * count)
    auto_pad = helper.get_attribute_value(attrs["auto_pad"]).decode() if "auto_pad" in attrs else "NOTSET"
    ceil = "ceil_mode" in attrs and attrs["ceil_mode"].i == 1
    sizes = [0, 0]
    for k in range(count):
        size = x.dim[2 + k].dim_value
        if size <= 0:
            sizes.append(0)
            continue
        begin, end = (0, 0) if auto_pad == "VALID" else (pads[k], pads[count + k])
        if auto_pad.startswith("SAME"):
            begin, end = same_pads(size, kernel[k], strides[k], auto_pad == "SAME_UPPER", gaps=True)
        made = window_count(Axis(size, kernel[k], strides[k], dilations[k], begin, end), ceil)
        sizes.append(0 if made == y.dim[2 + k].dim_value or made <= 0 else made)
    return {name: sizes for name in node.output if name} if any(sizes) else {}
