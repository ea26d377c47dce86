"""Plainer nodes with the shapes of ONNX Runtime's operators on integers, for shape inference (see `stand_ins`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx
from onnx import NodeProto, helper

__all__ = ["quantised_stand_ins"]

FLOAT = onnx.TensorProto.FLOAT


def quantised_stand_ins(node: NodeProto) -> list[NodeProto] | None:
    """Nodes that have the shape and type of a com.microsoft node on integers; None for any other."""
    form = _FORMS.get(node.op_type) if node.domain == "com.microsoft" else None
    return None if form is None else form(node)


def _same(node: NodeProto) -> list[NodeProto]:
    return [helper.make_node("Identity", [node.input[0]], [node.output[0]])]


def _as(op: str, *places: int, kept: Sequence[str] = ()) -> Callable[[NodeProto], list[NodeProto]]:
    """The standard's operator on the inputs at `places`, with the attributes named in `kept`."""

    def form(node: NodeProto) -> list[NodeProto]:
        made = helper.make_node(op, [node.input[k] for k in places if k < len(node.input)], [node.output[0]])
        made.attribute.extend(a for a in node.attribute if a.name in kept)
        return [made]

    return form


def _concat(node: NodeProto) -> list[NodeProto]:
    made = helper.make_node("Concat", list(node.input[2::3]), [node.output[0]])
    made.attribute.extend(a for a in node.attribute if a.name == "axis")
    return [made]


def _float_product(node: NodeProto) -> list[NodeProto]:
    name = f"{node.output[0]}/product"
    return [
        helper.make_node("MatMul", list(node.input[:2]), [name]),
        helper.make_node("Cast", [name], [node.output[0]], to=FLOAT),
    ]


def _gemm(node: NodeProto) -> list[NodeProto]:
    is_float = len(node.input) < 8 or not node.input[7]
    name = f"{node.output[0]}/product" if is_float else node.output[0]
    made = helper.make_node("Gemm", [node.input[0], node.input[3]], [name])
    made.attribute.extend(a for a in node.attribute if a.name in ("transA", "transB"))
    return [made, helper.make_node("Cast", [name], [node.output[0]], to=FLOAT)] if is_float else [made]


def _windows(op: str, *places: int) -> Callable[[NodeProto], list[NodeProto]]:
    """A window operator, between two Transposes where its channels come last."""
    names = ("auto_pad", "ceil_mode", "dilations", "group", "kernel_shape", "pads", "strides")

    def form(node: NodeProto) -> list[NodeProto]:
        last = any(a.name == "channels_last" and a.i for a in node.attribute) or op == "MaxPool"
        x, y = node.input[places[0]], node.output[0]
        turned = (f"{y}/channels_first", f"{y}/result") if last else (x, y)
        made = helper.make_node(op, [turned[0], *(node.input[k] for k in places[1:])], [turned[1]])
        made.attribute.extend(a for a in node.attribute if a.name in names)
        if not last:
            return [made]
        before = helper.make_node("Transpose", [x], [turned[0]], perm=[0, 3, 1, 2])
        return [before, made, helper.make_node("Transpose", [turned[1]], [y], perm=[0, 2, 3, 1])]

    return form


_FORMS: dict[str, Callable[[NodeProto], list[NodeProto]]] = {
    "QuantizeLinear": _as("QuantizeLinear", 0, 1, 2, kept=("axis",)),
    "DequantizeLinear": _as("DequantizeLinear", 0, 1, 2, kept=("axis",)),
    "QLinearAdd": _as("Add", 0, 3),
    "QLinearMul": _as("Mul", 0, 3),
    "QLinearWhere": _as("Where", 0, 1, 4),
    "QLinearConcat": _concat,
    "QLinearLeakyRelu": _same,
    "QLinearSigmoid": _same,
    "QLinearSoftmax": _same,
    "QLinearConv": _windows("Conv", 0, 3),
    "QLinearAveragePool": _windows("AveragePool", 0),
    "QLinearGlobalAveragePool": _windows("GlobalAveragePool", 0),
    "NhwcMaxPool": _windows("MaxPool", 0),
    "MatMulIntegerToFloat": _float_product,
    "DynamicQuantizeMatMul": _float_product,
    "QGemm": _gemm,
}
