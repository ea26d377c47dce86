"""Shape inference that sees further than onnx's own: plainer nodes of the same shapes stand in for some.

ONNX Runtime's operators, which onnx does not know; operators that have only a function body; and small constants behind
Identity (axes and sizes, as exporters share them), which become initializers.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from gbp_onnx.graph.quantised_stand_ins import quantised_stand_ins

__all__ = ["infer_shapes"]

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
    """`model` with the shapes that onnx infers; raises what onnx raises."""
    if not any(_stands_in(node) or node.op_type == "Identity" for node in model.graph.node):
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
    constants = {t.name: t for t in model.graph.initializer if np.prod(t.dims, dtype=np.int64) <= _SMALL}
    for index, node in enumerate(model.graph.node):
        if _key(node) == ("", "Identity") and node.input[0] in constants:
            shared = onnx.TensorProto()
            shared.CopyFrom(constants[node.input[0]])
            shared.name = node.output[0]
            constants[shared.name] = shared
            copy.graph.initializer.append(shared)
            copy.graph.value_info.append(helper.make_tensor_value_info(shared.name, shared.data_type, shared.dims))
        else:
            copy.graph.node.extend(_stand_ins(node, index) if _stands_in(node) else [node])
    return copy


def _key(node: onnx.NodeProto) -> tuple[str, str]:
    return ("" if node.domain == "ai.onnx" else node.domain), node.op_type


def _stands_in(node: onnx.NodeProto) -> bool:
    return (
        quantised_stand_ins(node) is not None
        or _key(node) in _LIKE_FIRST_INPUT
        or _key(node) == (MICROSOFT, "FusedMatMul")
    )


def _stand_ins(node: onnx.NodeProto, index: int) -> list[onnx.NodeProto]:
    quantised = quantised_stand_ins(node)
    if quantised is not None:
        return quantised
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
