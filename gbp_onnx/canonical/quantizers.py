"""Where a graph quantises: every node that ends in rounding to a small type, its scale, its zero point, its range.

A quantised tensor q stands for the real numbers scale * (q - zero point). Operators on quantised tensors (QLinearConv,
QLinearAdd...) are taken apart by the view: the operator in real numbers, and the quantiser that ends it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from gbp_onnx.graph.folding import Array
from gbp_onnx.graph.reader import Graph, Node, Tensor

__all__ = ["Quantizer", "find_quantizers", "is_dequantizer", "range_of"]

MICROSOFT = "com.microsoft"
FLOAT = onnx.TensorProto.FLOAT

_ENDS: dict[tuple[str, str], tuple[int, int]] = {
    ("", "QuantizeLinear"): (1, 2),
    (MICROSOFT, "QuantizeLinear"): (1, 2),
    ("", "QLinearConv"): (6, 7),
    (MICROSOFT, "QLinearConv"): (6, 7),
    ("", "QLinearMatMul"): (6, 7),
    (MICROSOFT, "QLinearAdd"): (6, 7),
    (MICROSOFT, "QLinearMul"): (6, 7),
    (MICROSOFT, "QLinearConcat"): (0, 1),
    (MICROSOFT, "QLinearWhere"): (7, 8),
    (MICROSOFT, "QGemm"): (7, 8),
    **{
        (MICROSOFT, f"QLinear{op}"): (3, 4)
        for op in ("AveragePool", "GlobalAveragePool", "LeakyRelu", "Sigmoid", "Softmax")
    },
}
"""Operators that end in a quantiser, and which inputs are its scale and zero point. QGemm's are optional."""

_LARGEST = {"FLOAT8E4M3FN": 448, "FLOAT8E4M3FNUZ": 240, "FLOAT8E5M2": 57344, "FLOAT8E5M2FNUZ": 57344, "FLOAT4E2M1": 6}
_BITS = {"INT2": 2, "INT4": 4, "INT8": 8, "INT16": 16, "INT32": 32}
_RANGES: dict[int, tuple[float, float]] = {
    **{getattr(onnx.TensorProto, k): (-v, v) for k, v in _LARGEST.items() if hasattr(onnx.TensorProto, k)},
    **{getattr(onnx.TensorProto, k): (-(2 ** (b - 1)), 2 ** (b - 1) - 1) for k, b in _BITS.items()},
    **{getattr(onnx.TensorProto, f"U{k}"): (0, 2**b - 1) for k, b in _BITS.items()},
}


@dataclass(frozen=True, slots=True)
class Quantizer:
    """A quantiser: `node` makes `q`. `plain`: it is a QuantizeLinear and nothing else.

    `paired`: nothing but DequantizeLinear nodes of its own scale and zero point read it, so that the factors 1 / scale
    and scale of the two cancel on the way back.
    """

    node: Node
    q: Tensor
    scale: Tensor
    zero: Tensor | None
    low: float
    high: float
    plain: bool
    paired: bool

    def zero_value(self, graph: Graph) -> Array | None:
        """The zero point where the file determines it: one number, or one for each channel or block."""
        if self.zero is None:
            return np.zeros(())
        value = graph.constant(self.zero)
        return None if value is None else value.astype(np.float64)

    def begins_at_zero(self, graph: Graph) -> bool:
        """Whether the lower end of its range stands for real 0, in every channel."""
        zero = self.zero_value(graph)
        return zero is not None and bool((zero == self.low).all())


def find_quantizers(graph: Graph) -> dict[str, Quantizer]:
    """Every quantiser of the graph, by the name of the tensor that it makes."""
    found = {}
    for node in graph.nodes:
        place = _ENDS.get((node.domain, node.op))
        q = node.output(0)
        if place is None or q is None or (scale := node.input(place[0])) is None:
            continue
        zero = node.input(place[1])
        low, high = range_of(graph, q if graph.elem_type(q) or zero is None else zero)
        plain = node.op == "QuantizeLinear"
        paired = plain and _is_paired(graph, node, q)
        found[q.name] = Quantizer(node, q, scale, zero, low, high, plain, paired)
    return found


def range_of(graph: Graph, tensor: Tensor) -> tuple[float, float]:
    """The smallest and largest number of a quantised tensor's type; uint8 where the type is not known."""
    return _RANGES.get(graph.elem_type(tensor), (0, 255))


def is_dequantizer(node: Node) -> bool:
    """Whether a node is a DequantizeLinear, of the standard or of ONNX Runtime."""
    return node.op == "DequantizeLinear" and node.domain in ("", MICROSOFT)


def _is_paired(graph: Graph, node: Node, q: Tensor) -> bool:
    readers = graph.readers(q)
    return (
        bool(readers)
        and not graph.is_output(q)
        and all(is_dequantizer(r) and _same_terms(graph, node, r) for r in readers)
    )


def _same_terms(graph: Graph, quantizer: Node, reader: Node) -> bool:
    """Whether a DequantizeLinear undoes what the quantiser did: the same scale, zero point, axis and blocks."""
    scales = [n.inputs[1] for n in (quantizer, reader)]
    x, y = quantizer.inputs[0], reader.outputs[0]
    if x is None or y is None or (graph.elem_type(x) or FLOAT) != (graph.elem_type(y) or FLOAT):
        return False  # the cotangent changes its type on the way
    one = all(t is not None and (s := graph.shape(t)) is not None and int(np.prod(_sizes(s))) == 1 for t in scales)
    attrs = ("block_size",) if one else ("axis", "block_size")
    return all(_equal(graph, quantizer.input(k), reader.input(k)) for k in (1, 2)) and all(
        quantizer.attrs.get(a) == reader.attrs.get(a) for a in attrs
    )


def _sizes(shape: tuple[int | str | None, ...]) -> list[int]:
    return [d if isinstance(d, int) else 2 for d in shape]  # an unknown size may be more than 1


def _equal(graph: Graph, one: Tensor | None, other: Tensor | None) -> bool:
    if one is None and other is None:
        return True
    if one is not None and other is not None and one.name == other.name:
        return True
    values = [np.zeros(1) if t is None else graph.constant(t) for t in (one, other)]
    a, b = values
    return a is not None and b is not None and a.size == b.size and bool((a.reshape(-1) == b.reshape(-1)).all())
