"""An emitter that leaves ONNX Runtime's integer fusion alone.

    Dequantize -> Sigmoid -> y -> Quantize            one QLinearSigmoid, as long as nothing else reads y
    Dequantize(weights) -> w -> MatMul                one MatMulNBits, as long as nothing else reads w
    DynamicQuantize(x) -> q, s; MatMulInteger(q)...   one DynamicQuantizeMatMul, as long as nothing else reads s

A derivative that wants such a tensor gets it computed again, from the quantised operands or from x. The copy does not
read the runtime's own DequantizeLinear: it would be merged with the forward node, and y would have a second reader.
"""

from __future__ import annotations

from gbp_onnx.canonical.quantizers import is_dequantizer
from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.reader import FLOAT_TYPES, Graph, Node, Tensor
from gbp_onnx.vjp.common import as_real, need
from gbp_onnx.vjp.quantized import scales_of

__all__ = ["careful_emitter"]

DYNAMIC = "DynamicQuantizeLinear"


def careful_emitter(graph: Graph) -> Emitter:
    """An emitter whose nodes read no float tensor that only quantisers read, and no scale that is found while running,
    in a graph that has any.
    """
    op = Emitter(graph)
    if any(is_dequantizer(node) or node.op == DYNAMIC for node in graph.nodes):
        op.instead = lambda tensor, op_type: _again(op, tensor, op_type)
    return op


def _again(op: Emitter, tensor: Tensor, op_type: str) -> Tensor | None:
    return _scale_found_again(op, tensor) or _weight_again(op, tensor) or _value_again(op, tensor, op_type)


def _weight_again(op: Emitter, w: Tensor) -> Tensor | None:
    """Dequantised weights of a matrix product, by other nodes."""
    maker, readers = _dequantizer(op.graph, w), op.graph.readers(w)
    if maker is None or op.graph.producer(maker.inputs[0]) is not None or op.graph.is_output(w):
        return None
    return _real(op, w) if [r.op for r in readers] in (["MatMul"], ["Gemm"]) else None


def _scale_found_again(op: Emitter, tensor: Tensor) -> Tensor | None:
    """DynamicQuantizeLinear's scale, or its product with another scale: (max(x, 0) - min(x, 0)) / 255, over all x."""
    maker = op.graph.producer(tensor)
    if maker is None or maker.domain:
        return None
    if maker.op == DYNAMIC and tensor.name == need(maker.outputs[1], "scale").name:
        x = maker.inputs[0]
        high, low = op.Max(op.ReduceMax(x, keepdims=0), 0.0), op.Min(op.ReduceMin(x, keepdims=0), 0.0)
        made: Tensor = op.Div(op.Sub(high, low), 255.0)
        return op.shaped_like(made, tensor)
    if maker.op == "Mul" and any(_is_found(op, t) for t in maker.inputs):
        made = op.Mul(*maker.inputs)
        return op.shaped_like(made, tensor)
    return None


def _is_found(op: Emitter, tensor: Tensor | None) -> bool:
    maker = op.graph.producer(tensor)
    return maker is not None and tensor is not None and maker.op == DYNAMIC and maker.outputs[1] is tensor


def _value_again(op: Emitter, y: Tensor, op_type: str) -> Tensor | None:
    graph = op.graph
    maker, readers = graph.producer(y), graph.readers(y)
    if maker is None or maker.domain or len(maker.outputs) != 1 or maker.captures or graph.is_output(y):
        return None
    if graph.elem_type(y) not in FLOAT_TYPES or not readers or not all(_quantises(graph, r) for r in readers):
        return None
    if op_type in ("Shape", "Size") and readers[0].op == "QuantizeLinear":
        return readers[0].outputs[0]
    if is_dequantizer(maker) or not any(_dequantizer(graph, t) for t in maker.inputs):
        return None
    again: Tensor = op.emit(maker.op, [_real(op, t) for t in maker.inputs], dict(maker.attrs))[0]
    return op.shaped_like(again, y)


def _quantises(graph: Graph, reader: Node) -> bool:
    """Whether a reader is a quantiser, or a pool in front of quantisers (they change places)."""
    if reader.op != "MaxPool":
        return reader.op == "QuantizeLinear"
    behind = graph.readers(need(reader.outputs[0], "output"))
    return bool(behind) and all(r.op == "QuantizeLinear" for r in behind)


def _dequantizer(graph: Graph, tensor: Tensor | None) -> Node | None:
    maker = graph.producer(tensor)
    return maker if maker is not None and is_dequantizer(maker) else None


def _real(op: Emitter, tensor: Tensor | None) -> Tensor | None:
    """The value of a DequantizeLinear's output, by other nodes: the same float numbers."""
    maker = _dequantizer(op.graph, tensor)
    if maker is None or maker.inputs[0] is None or op.value(tensor) is not None:
        return tensor
    q, scale, zero = maker.inputs[0], maker.inputs[1], maker.input(2)
    stored = op.graph.producer(q) is None  # behind an Identity, weights are shared, not evaluated into a copy
    steps = op.Cast(op.Identity(q) if stored else q, to=op.elem_type(need(scale, "scale")))
    if zero is not None:
        steps = op.Sub(steps, as_real(op, scales_of(op, maker, zero, q), steps))
    made: Tensor = op.Mul(steps, scales_of(op, maker, need(scale, "scale"), q))
    return op.shaped_like(made, q)
