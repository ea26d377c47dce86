"""Shape inference that knows ONNX Runtime's own operators: standard nodes of the same shapes stand in for them."""

from __future__ import annotations

import onnx
from onnx import helper

__all__ = ["infer_shapes"]

MICROSOFT = "com.microsoft"
BOUNDS = "gbp/unknown bounds"
_LIKE_FIRST_INPUT = frozenset(
    {(MICROSOFT, op) for op in ("Gelu", "BiasGelu", "FastGelu", "QuickGelu", "Inverse")}
    | {(MICROSOFT, op) for op in ("SkipLayerNormalization", "SkipSimplifiedLayerNormalization")}
    | {("", "SimplifiedLayerNormalization")}
)
_SUMS = (0, 3)  # the outputs of the skip normalizations that have the input's shape


def infer_shapes(model: onnx.ModelProto, data_prop: bool) -> onnx.ModelProto:
    """`model` with the shapes that onnx infers; raises what onnx raises."""
    if not any(_stands_in(node) for node in model.graph.node):
        return onnx.shape_inference.infer_shapes(model, data_prop=data_prop)
    inferred = onnx.shape_inference.infer_shapes(_with_stand_ins(model), data_prop=data_prop)
    shaped = onnx.ModelProto()
    shaped.CopyFrom(model)
    made = {name for node in model.graph.node for name in node.output}
    del shaped.graph.value_info[:], shaped.graph.output[:]
    shaped.graph.value_info.extend(v for v in inferred.graph.value_info if v.name in made)
    shaped.graph.output.extend(inferred.graph.output)
    return shaped


def _with_stand_ins(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.input.append(helper.make_tensor_value_info(BOUNDS, onnx.TensorProto.INT64, [None]))
    del copy.graph.node[:]
    for index, node in enumerate(model.graph.node):
        copy.graph.node.extend(_stand_ins(node, index) if _stands_in(node) else [node])
    return copy


def _stands_in(node: onnx.NodeProto) -> bool:
    return (node.domain, node.op_type) in _LIKE_FIRST_INPUT or (node.domain, node.op_type) == (MICROSOFT, "FusedMatMul")


def _stand_ins(node: onnx.NodeProto, index: int) -> list[onnx.NodeProto]:
    if node.op_type != "FusedMatMul":
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
