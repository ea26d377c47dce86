"""Which tensors cannot be negative: what follows a rectifier, a Sigmoid, a square, or a quantiser that begins at 0.

Of a quantised tensor it is the real number that counts, scale * (q - zero point).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import onnx

from gbp_onnx.canonical.quantizers import MICROSOFT, Quantizer, is_dequantizer, range_of
from gbp_onnx.graph.reader import Graph, Node, Tensor

__all__ = ["never_negative"]

_UNSIGNED = frozenset(
    getattr(onnx.TensorProto, name) for name in ("BOOL", "UINT4", "UINT8", "UINT16", "UINT32", "UINT64")
)
_ALWAYS = """
    Abs Exp HardSigmoid Hardmax LpPool GlobalLpPool ReduceL1 ReduceL2 ReduceSumSquare Relu Shape Sigmoid Size Softmax
    Softplus Sqrt
"""
_IF_FIRST = """
    AveragePool Ceil Celu CenterCropPad DepthToSpace Dropout Elu Erf Expand Flatten Floor Gather GatherElements GatherND
    Gelu GlobalAveragePool GlobalMaxPool HardSwish Identity LRN LeakyRelu MaxPool Mish PRelu ReduceMax ReduceMean
    ReduceMin ReduceProd ReduceSum Reshape Round Selu Sign Slice SpaceToDepth Split Squeeze Swish Tanh ThresholdedRelu
    Tile TopK Transpose Unsqueeze
"""
"""Not negative where the first input is not; of activations because they keep the sign of what is positive."""
_IF_ALL = "Add Concat Div Mean Min Sum"
_RULES = {
    **dict.fromkeys(_ALWAYS.split(), "always"),
    **dict.fromkeys(_IF_FIRST.split(), "first"),
    **dict.fromkeys(_IF_ALL.split(), "all"),
    "Max": "any",
}


def never_negative(graph: Graph, quantizers: Mapping[str, Quantizer]) -> tuple[set[str], set[str]]:
    """Names of the tensors whose real values cannot be negative, and of the quantised tensors whose values before
    their quantiser cannot.
    """
    known, before = set[str](), set[str]()

    def holds(tensor: Tensor | None) -> bool:
        if tensor is None:
            return False
        if tensor.name in known:
            return True
        value = graph.constant(tensor)
        return value is not None and value.dtype.kind in "fiub" and bool((value >= 0).all())

    for node in graph.nodes:
        fits = _after(graph, node, holds)
        for tensor in node.outputs:
            if tensor is None:
                continue
            quantizer = quantizers.get(tensor.name)
            if fits and quantizer is not None:
                before.add(tensor.name)
            if fits or (quantizer is not None and quantizer.begins_at_zero(graph)):
                known.add(tensor.name)
    return known, before


_Holds = Callable[[Tensor | None], bool]


def _after(graph: Graph, node: Node, holds: _Holds) -> bool:
    """Whether what a node makes (of a quantised operator: before its quantiser) cannot be negative."""
    form = _FORMS.get((node.domain, node.op))
    if form is not None:
        return form(graph, node, holds)
    if is_dequantizer(node):
        return holds(node.inputs[0]) if _is_tracked(graph, node) else _begins_at_zero(graph, node.inputs[0], node)
    match _RULES.get(node.op) if node.domain == "" else None:
        case "always":
            return True
        case "first":
            return holds(node.input(0))
        case "all":
            return all(map(holds, node.inputs))
        case "any":
            return any(map(holds, node.inputs))
    return False


def _is_tracked(graph: Graph, node: Node) -> bool:
    """Whether the real numbers behind a quantised tensor were looked at where it was made."""
    return graph.producer(node.inputs[0]) is not None


def _begins_at_zero(graph: Graph, q: Tensor | None, node: Node) -> bool:
    if q is None:
        return False
    zero = node.input(2)
    low = range_of(graph, q)[0]
    value = graph.constant(zero)
    return low == 0 if zero is None else value is not None and bool((value.astype(float) == low).all())


def _cast(graph: Graph, node: Node, holds: _Holds) -> bool:
    source = node.inputs[0]
    return holds(source) or (source is not None and graph.elem_type(source) in _UNSIGNED)


def _clip(graph: Graph, node: Node, holds: _Holds) -> bool:
    low, high = node.input(1), node.input(2)
    return (low is not None and holds(low)) or (holds(node.inputs[0]) and (high is None or holds(high)))


def _mul(graph: Graph, node: Node, holds: _Holds) -> bool:
    a, b = node.inputs
    return (holds(a) and holds(b)) or (a is not None and b is not None and a.name == b.name)


def _pad(graph: Graph, node: Node, holds: _Holds) -> bool:
    fill = node.input(2)
    return holds(node.inputs[0]) and (fill is None or node.attrs.get("mode") != "constant" or holds(fill))


def _pow(graph: Graph, node: Node, holds: _Holds) -> bool:
    power = graph.constant(node.inputs[1])
    return holds(node.inputs[0]) or (power is not None and power.size == 1 and float(power.reshape(-1)[0]) % 2 == 0)


def _resize(graph: Graph, node: Node, holds: _Holds) -> bool:
    return holds(node.inputs[0]) and node.attrs.get("mode") != "cubic"


def _where(graph: Graph, node: Node, holds: _Holds) -> bool:
    return all(map(holds, node.inputs[1:3]))


def _at(*places: int) -> Callable[[Graph, Node, _Holds], bool]:
    """Not negative where the inputs at `places` are not."""
    return lambda _, node, holds: all(holds(node.input(k)) for k in places)


def _always(graph: Graph, node: Node, holds: _Holds) -> bool:
    return True


def _concat(graph: Graph, node: Node, holds: _Holds) -> bool:
    parts: Sequence[Tensor | None] = node.inputs[2::3]
    return all(map(holds, parts))


_FORMS: dict[tuple[str, str], Callable[[Graph, Node, _Holds], bool]] = {
    ("", "Cast"): _cast,
    ("", "Clip"): _clip,
    ("", "Mul"): _mul,
    ("", "Pad"): _pad,
    ("", "Pow"): _pow,
    ("", "Resize"): _resize,
    ("", "Where"): _where,
    ("", "QuantizeLinear"): _at(0),
    (MICROSOFT, "QuantizeLinear"): _at(0),
    (MICROSOFT, "QLinearAdd"): _at(0, 3),
    (MICROSOFT, "QLinearMul"): _at(0, 3),
    (MICROSOFT, "QLinearConcat"): _concat,
    (MICROSOFT, "QLinearWhere"): _at(1, 4),
    (MICROSOFT, "QLinearSigmoid"): _always,
    (MICROSOFT, "QLinearSoftmax"): _always,
    (MICROSOFT, "NhwcMaxPool"): _at(0),
    **{(MICROSOFT, f"QLinear{op}"): _at(0) for op in ("AveragePool", "GlobalAveragePool", "LeakyRelu")},
}
