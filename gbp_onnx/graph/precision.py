"""bfloat16 models as float32 ones, for providers without bfloat16 kernels. Every bfloat16 is a float32: exact."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import numpy_helper

__all__ = ["has_bfloat16", "without_bfloat16"]

_BF16, _FLOAT = onnx.TensorProto.BFLOAT16, onnx.TensorProto.FLOAT
_TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype", "stash_type")


def has_bfloat16(model: onnx.ModelProto) -> bool:
    """Whether an initializer, an input or an output is bfloat16, or a node converts to it."""
    graph = model.graph
    return (
        any(t.data_type == _BF16 for t in graph.initializer)
        or any(v.type.tensor_type.elem_type == _BF16 for v in (*graph.input, *graph.output))
        or any(a.name in _TYPE_ATTRIBUTES and a.i == _BF16 for n in graph.node for a in n.attribute)
    )


def without_bfloat16(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every bfloat16 tensor, constant and conversion is float32. Values inside are no longer rounded
    to 8 bits on the way.
    """
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    for graph in _graphs(wide.graph):
        for tensor in graph.initializer:
            _widen(tensor)
        for value in (*graph.input, *graph.output, *graph.value_info):
            if value.type.tensor_type.elem_type == _BF16:
                value.type.tensor_type.elem_type = _FLOAT
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.name in _TYPE_ATTRIBUTES and attribute.i == _BF16:
                    attribute.i = _FLOAT
                for tensor in (*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors):
                    _widen(tensor)
    return wide


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _graphs(inner)


def _widen(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == _BF16:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
