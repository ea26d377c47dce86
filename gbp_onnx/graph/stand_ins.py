"""Shape inference that sees further than onnx's own: plainer nodes of the same shapes stand in for some.

ONNX Runtime's operators, which onnx does not know; operators that have only a function body; small constants behind
Identity (axes and sizes, as exporters share them), which become initializers; and what `true_shapes` corrects.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx.numpy_helper
from onnx import helper

from gbp_onnx.graph.blocks import BLOCKED
from gbp_onnx.graph.nodes import attributes
from gbp_onnx.graph.quantised_stand_ins import quantised_stand_ins
from gbp_onnx.graph.true_shapes import corrections

__all__ = ["infer_shapes"]

Corrected = Mapping[str, list[int] | None]

MICROSOFT = "com.microsoft"
BOUNDS = "gbp/unknown bounds"
CHANNELS = "gbp/channels"
_SMALL = 256  # elements: more are no axes and no sizes
_LIKE_FIRST_INPUT = frozenset(
    {(MICROSOFT, op) for op in ("Gelu", "BiasGelu", "FastGelu", "QuickGelu", "Inverse")}
    | {(MICROSOFT, op) for op in ("SkipLayerNormalization", "SkipSimplifiedLayerNormalization")}
    | {("", op) for op in ("SimplifiedLayerNormalization", "GroupNormalization", "MeanVarianceNormalization")}
)
_UNFUSED = {(MICROSOFT, "FusedConv"): ("Conv", 2), (MICROSOFT, "FusedGemm"): ("Gemm", 3)} | {
    (BLOCKED, op): (op, inputs)
    for op, inputs in {"Conv": 2, "MaxPool": 1, "AveragePool": 1, "GlobalMaxPool": 1, "GlobalAveragePool": 1}.items()
}
"""Fused and blocked operators -> the standard one of the same shapes, and how many inputs say its shape."""
_SUMS = (0, 3)  # the outputs of the skip normalizations that have the input's shape


def infer_shapes(model: onnx.ModelProto, data_prop: bool) -> onnx.ModelProto:
    """`model` with the shapes that onnx infers, where they are what ONNX Runtime computes; raises what onnx raises."""
    corrected: dict[str, list[int] | None] = {}
    while True:
        inferred = _inferred(model, data_prop, corrected)
        further = {k: v for k, v in corrections(model, inferred.graph).items() if k not in corrected}
        if not further:
            return inferred
        corrected.update(further)  # and again: what follows them depends on their sizes


def _inferred(model: onnx.ModelProto, data_prop: bool, corrected: Corrected) -> onnx.ModelProto:
    if not corrected and not any(_stands_in(node) or node.op_type == "Identity" for node in model.graph.node):
        return onnx.shape_inference.infer_shapes(model, data_prop=data_prop)
    inferred = onnx.shape_inference.infer_shapes(_with_stand_ins(model, corrected), data_prop=data_prop)
    shaped = onnx.ModelProto()
    shaped.CopyFrom(model)
    made = {name for node in model.graph.node for name in node.output}
    del shaped.graph.value_info[:], shaped.graph.output[:]
    shaped.graph.value_info.extend(v for v in inferred.graph.value_info if v.name in made)
    shaped.graph.output.extend(inferred.graph.output)
    return shaped


def _with_stand_ins(model: onnx.ModelProto, corrected: Corrected) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.input.append(helper.make_tensor_value_info(BOUNDS, onnx.TensorProto.INT64, [None]))
    del copy.graph.node[:]
    constants = {t.name: t for t in model.graph.initializer if np.prod(t.dims, dtype=np.int64) <= _SMALL}
    channels = _blocked_channels(model)
    for index, node in enumerate(model.graph.node):
        if _key(node) == ("", "Identity") and node.input[0] in constants:
            shared = onnx.TensorProto()
            shared.CopyFrom(constants[node.input[0]])
            shared.name = node.output[0]
            constants[shared.name] = shared
            copy.graph.initializer.append(shared)
            copy.graph.value_info.append(helper.make_tensor_value_info(shared.name, shared.data_type, shared.dims))
        elif _stands_in(node):
            copy.graph.node.extend(_stand_ins(node, index))
        elif any(name in corrected for name in node.output):
            copy.graph.node.extend(_corrected(copy.graph, node, corrected))
        else:
            copy.graph.node.append(node)
        if _key(node)[0] == BLOCKED and node.op_type.startswith("Reorder") and node.output[0] in channels:
            copy.graph.initializer.add(
                name=f"{CHANNELS}/{index}", dims=[channels[node.output[0]], 1, 1, 1], data_type=1
            )
    return copy


def _blocked_channels(model: onnx.ModelProto) -> dict[str, int]:
    """The channels that ReorderOutput and, as far as the block size or a reader's weight tells, ReorderInput make."""
    nodes = model.graph.node
    if not any(node.domain == BLOCKED for node in nodes):
        return {}
    dims = {t.name: list(t.dims) for t in model.graph.initializer}
    found = {}
    for node in nodes:
        if node.domain == BLOCKED and node.op_type == "ReorderOutput":
            found[node.output[0]] = next((a.i for a in node.attribute if a.name == "channels"), 0)
        elif node.domain == BLOCKED and node.op_type == "Conv" and node.input[1] in dims:
            made, read = dims[node.input[1]][:2]
            found[node.input[0]] = made if read == 1 else read
    return {name: count for name, count in found.items() if count}


def _corrected(graph: onnx.GraphProto, node: onnx.NodeProto, corrected: Corrected) -> list[onnx.NodeProto]:
    """The node, and behind it a Reshape to the sizes that it has in truth (or what forgets them)."""
    made = onnx.NodeProto()
    made.CopyFrom(node)
    if node.op_type == "ConvTranspose":
        kept = [a for a in node.attribute if a.name not in ("output_shape", "auto_pad")]
        del made.attribute[:]
        made.attribute.extend(kept)
    nodes = [made]
    for place, name in enumerate(node.output):
        if name not in corrected:
            continue
        sizes, made.output[place] = corrected[name], f"{name}/untrue"
        if sizes is None:
            nodes.append(helper.make_node("Slice", [made.output[place], BOUNDS, BOUNDS], [name]))
            continue
        given = onnx.numpy_helper.from_array(np.array(sizes, np.int64), f"{name}/sizes")
        graph.initializer.append(given)
        nodes.append(helper.make_node("Reshape", [made.output[place], given.name], [name]))
    return nodes


def _key(node: onnx.NodeProto) -> tuple[str, str]:
    return ("" if node.domain == "ai.onnx" else node.domain), node.op_type


def _stands_in(node: onnx.NodeProto) -> bool:
    return (
        quantised_stand_ins(node) is not None
        or _key(node) in _LIKE_FIRST_INPUT
        or _key(node) in _UNFUSED
        or _key(node) in ((MICROSOFT, "FusedMatMul"), (MICROSOFT, "TransposeMatMul"))
        or node.domain == BLOCKED
    )


def _stand_ins(node: onnx.NodeProto, index: int) -> list[onnx.NodeProto]:
    quantised = quantised_stand_ins(node)
    if quantised is not None:
        return quantised
    if _key(node) in _UNFUSED:
        plain, inputs = _UNFUSED[_key(node)]
        made = helper.make_node(plain, node.input[:inputs], node.output)
        made.attribute.extend(a for a in node.attribute if not a.name.startswith("activation"))
        return [made]
    if node.domain == BLOCKED:
        return _blocked_stand_ins(node, index)
    if node.op_type not in ("FusedMatMul", "TransposeMatMul"):
        return [
            helper.make_node("Identity", [node.input[0]], [name])
            for place, name in enumerate(node.output)
            if name and place in _SUMS
        ]
    if not any(a.name.startswith("trans") and a.i for a in node.attribute):
        return [helper.make_node("MatMul", list(node.input), list(node.output))]
    # Transposed, only the rank is told: a Slice with unknown bounds forgets the sizes.
    forgetful = [f"{name}/rank/{index}/{k}" for k, name in enumerate(node.input)]
    return [
        *(
            helper.make_node("Slice", [name, BOUNDS, BOUNDS], [rank])
            for name, rank in zip(node.input, forgetful, strict=True)
        ),
        helper.make_node("MatMul", forgetful, list(node.output)),
    ]


def _blocked_stand_ins(node: onnx.NodeProto, index: int) -> list[onnx.NodeProto]:
    """Upsample: Resize. ReorderInput, ReorderOutput: a 1x1 Conv that makes as many channels, beside a Transpose."""
    attrs = attributes(node)
    x, y, weight = node.input[0], node.output[0], f"{CHANNELS}/{index}"
    if node.op_type == "Upsample":
        scales = helper.make_node(
            "Constant", [], [f"{weight}/scales"], value_floats=[float(s) for s in attrs["scales"]]
        )
        return [scales, helper.make_node("Resize", [x, "", f"{weight}/scales"], [y], mode="nearest")]
    if not attrs.get("channels_last"):
        return [helper.make_node("Conv", [x, weight], [y], kernel_shape=[1, 1])]
    if node.op_type == "ReorderInput":
        turn = helper.make_node("Transpose", [x], [f"{weight}/first"], perm=[0, 3, 1, 2])
        return [turn, helper.make_node("Conv", [f"{weight}/first", weight], [y], kernel_shape=[1, 1])]
    turn = helper.make_node("Transpose", [f"{weight}/first"], [y], perm=[0, 2, 3, 1])
    return [helper.make_node("Conv", [x, weight], [f"{weight}/first"], kernel_shape=[1, 1]), turn]
