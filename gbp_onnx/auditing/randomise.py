"""A model's own weights, put out of order layer by layer, from the output down."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

__all__ = ["Layer", "layers_from_top", "shuffled"]

_WEIGHTS = {
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.BFLOAT16,
    onnx.TensorProto.INT8,
    onnx.TensorProto.UINT8,
}


@dataclass(frozen=True, slots=True)
class Layer:
    """A node with weights: its name, and the tensors (initializers or outputs of Constant) that hold them."""

    name: str
    tensors: tuple[str, ...]


def layers_from_top(model: onnx.ModelProto) -> tuple[Layer, ...]:
    """The layers of a model, the last node first. Weights are stored tensors of two axes or more; those behind
    DequantizeLinear and the like belong to the node that reads it. Scales, biases and shapes stay as they are.
    """
    stored = {t.name for t in _tensors(model) if t.data_type in _WEIGHTS and len(t.dims) >= 2 and _size(t) > 1}
    behind: dict[str, tuple[str, ...]] = {name: (name,) for name in stored}
    found, taken = [], set[str]()
    for node in model.graph.node:
        read = [t for name in node.input for t in behind.get(name, ())]
        sources = [name for name in node.input if name and name not in behind and not _is_small(model, name)]
        if read and not sources and len(node.output) == 1:  # a weight on its way: dequantised, transposed, cast
            behind[node.output[0]] = tuple(dict.fromkeys(read))
            continue
        fresh = tuple(dict.fromkeys(t for t in read if t not in taken))
        if fresh:
            taken.update(fresh)
            found.append(Layer(node.name or node.output[0], fresh))
    return tuple(reversed(found))


def shuffled(model: onnx.ModelProto, layers: Sequence[Layer], generator: np.random.Generator) -> onnx.ModelProto:
    """The model with the values of these layers in random order within each tensor: their distribution stays."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    wanted = {name for layer in layers for name in layer.tensors}
    for tensor in _tensors(changed):
        if tensor.name in wanted:
            array = onnx.numpy_helper.to_array(tensor)
            mixed = generator.permutation(array.reshape(-1)).reshape(array.shape)
            tensor.CopyFrom(onnx.numpy_helper.from_array(mixed, tensor.name))
    return changed


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Initializers, and the values of Constant nodes under the name of their output."""
    yield from model.graph.initializer
    for node in model.graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    attribute.t.name = node.output[0]
                    yield attribute.t


def _is_small(model: onnx.ModelProto, name: str) -> bool:
    """Whether a name is a stored tensor (a scale, a zero point, a shape)."""
    return any(t.name == name for t in _tensors(model))


def _size(tensor: onnx.TensorProto) -> int:
    return int(np.prod(tensor.dims))
