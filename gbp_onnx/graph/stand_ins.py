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

from gbp_onnx.graph.quantised_stand_ins import quantised_stand_ins
from gbp_onnx.graph.true_shapes import corrections

__all__ = ["infer_shapes"]

Corrected = Mapping[str, list[int] | None]

MICROSOFT = "com.microsoft"
BOUNDS = "gbp/unknown bounds"
_SMALL = 256  # elements: more are no axes and no sizes
_LIKE_FIRST_INPUT = frozenset(
    {(MICROSOFT, op) for op in ("Gelu", "BiasGelu", "FastGelu", "QuickGelu", "Inverse")}
    | {(MICROSOFT, op) for op in ("SkipLayerNormalization", "SkipSimplifiedLayerNormalization")}
    | {("", op) for op in ("SimplifiedLayerNormalization", "GroupNormalization", "MeanVarianceNormalization")}
)
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
    return copy


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
        or _key(node) in ((MICROSOFT, "FusedMatMul"), (MICROSOFT, "TransposeMatMul"))
    )


def _stand_ins(node: onnx.NodeProto, index: int) -> list[onnx.NodeProto]:
    quantised = quantised_stand_ins(node)
    if quantised is not None:
        return quantised
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
