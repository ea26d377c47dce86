"""int8 activations as uint8, where ONNX Runtime would do it itself.

    Quantize(x, s, z: int8) -> q -> Dequantize     =>     Quantize(x, s, z + 128: uint8) -> q -> Dequantize

The real numbers stay the same to the last bit. On x86, ONNX Runtime makes this change before it fuses integer
operators, but only where a quantised tensor has one reader; the gates of a backward graph are further readers, and
without the change the forward would no longer run on integers. So it is made beforehand, in the same places.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
from onnx import numpy_helper

from gbp_onnx.graph.names import unique_name
from gbp_onnx.graph.reader import captured_names

__all__ = ["unsigned_activations"]

_DOMAINS = ("", "ai.onnx", "com.microsoft")


def unsigned_activations(model: onnx.ModelProto) -> onnx.ModelProto:
    """int8 pairs of QuantizeLinear and DequantizeLinear with one reader each  =>  uint8, in place."""
    graph = model.graph
    zeros = {
        t.name: t
        for t in graph.initializer
        if t.data_type == onnx.TensorProto.INT8 and np.prod(t.dims) == 1 and not t.external_data
    }
    if not zeros:
        return model
    edges = Counter(name for node in graph.node for name in (*node.input, *captured_names(node)))
    outputs = Counter(o.name for o in graph.output)
    readers = {name: node for node in graph.node for name in node.input if edges[name] == 1}
    taken = {t.name for t in graph.initializer} | {n for node in graph.node for n in (*node.input, *node.output)}
    shifted: dict[str, str] = {}
    changed = set[str]()
    for node in graph.node:
        if not _is(node, "QuantizeLinear") or node.input[2] not in zeros or outputs[node.output[0]]:
            continue
        reader = readers.get(node.output[0])
        if reader is None or not _is(reader, "DequantizeLinear"):
            continue
        if edges[reader.output[0]] + outputs[reader.output[0]] > 1 or reader.input[2] not in zeros:
            continue
        values = [numpy_helper.to_array(zeros[n.input[2]]).reshape(-1)[0] for n in (node, reader)]
        if values[0] != values[1]:
            continue
        for one in (node, reader):
            name = one.input[2]
            if name not in shifted:
                shifted[name] = unique_name(f"{name}/unsigned", taken)
                value = numpy_helper.to_array(zeros[name]).astype(np.int16) + 128
                graph.initializer.append(numpy_helper.from_array(value.astype(np.uint8), shifted[name]))
            one.input[2] = shifted[name]
        changed.add(node.output[0])
    for value_info in graph.value_info:
        if value_info.name in changed:
            value_info.type.tensor_type.elem_type = onnx.TensorProto.UINT8
    read = {name for node in graph.node for name in (*node.input, *captured_names(node))} | outputs.keys()
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name in shifted and graph.initializer[index].name not in read:
            del graph.initializer[index]  # ONNX Runtime warns of each that nothing reads
    return model


def _is(node: onnx.NodeProto, op: str) -> bool:
    """Whether a node is this quantising operator, with a zero point and for 8 bits in all."""
    plain = not any(a.name in ("output_dtype", "block_size") and a.i for a in node.attribute)
    return node.op_type == op and node.domain in _DOMAINS and len(node.input) == 3 and plain
