"""Put a backward graph behind a forward one: nodes, initializers, inputs, outputs are appended; nothing is changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.reader import Graph, Shape, Tensor

__all__ = ["append", "correct_shape", "set_metadata", "value_info"]


def append(
    graph: Graph,
    op: Emitter,
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[tuple[Tensor, onnx.ValueInfoProto]],
    kept: Sequence[Tensor] = (),
) -> onnx.ModelProto:
    """The model of `graph`, extended in place by the emitted nodes that `outputs` need, and `kept`, which are no
    outputs.

    Each output's ValueInfo gets its tensor's name. The forward part stays as it is, but for optional outputs that a
    derivative asked for (MaxPool's Indices).
    """
    model = graph.model  # a copy of its own since it was loaded; another one would double the peak of a large model
    nodes, initializers = op.export([*(tensor for tensor, _ in outputs), *kept])
    for (index, position), tensor in op.added_outputs.items():
        names = model.graph.node[index].output
        names.extend([""] * (position + 1 - len(names)))
        names[position] = tensor.name
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(initializers)
    model.graph.input.extend(inputs)
    for output, tensor in zip(model.graph.output, graph.outputs, strict=True):
        correct_shape(output, graph.shape(tensor))
    for tensor, info in outputs:
        info.name = tensor.name
        model.graph.output.append(info)
    return model


def correct_shape(info: onnx.ValueInfoProto, inferred: Shape) -> None:
    """Take back, in place, what an output's declaration says against the inferred shape: ONNX Runtime folds by it.

    A batch axis that was made dynamic at the input only leaves such declarations behind; some exporters write a wrong
    rank.
    """
    declared = info.type.tensor_type.shape
    if inferred is None or not info.type.tensor_type.HasField("shape"):
        return
    if len(declared.dim) != len(inferred):
        info.CopyFrom(onnx.helper.make_tensor_value_info(info.name, info.type.tensor_type.elem_type, inferred))
        return
    for dim, size in zip(declared.dim, inferred, strict=True):
        if dim.HasField("dim_value") and (isinstance(size, str) or (size is not None and size != dim.dim_value)):
            dim.Clear()


def value_info(like: onnx.ValueInfoProto, name: str, elem_type: int = 0) -> onnx.ValueInfoProto:
    """A ValueInfo of the type and shape of another, under a name and perhaps another element type."""
    info = onnx.ValueInfoProto()
    info.CopyFrom(like)
    info.name = name
    info.ClearField("doc_string")
    if elem_type:
        info.type.tensor_type.elem_type = elem_type
    return info


def set_metadata(model: onnx.ModelProto, values: Mapping[str, str]) -> None:
    """Set entries of metadata_props, in place; others stay."""
    for entry in model.metadata_props:
        if entry.key in values:
            entry.value = values[entry.key]
    present = {entry.key for entry in model.metadata_props}
    for key, value in values.items():
        if key not in present:
            model.metadata_props.add(key=key, value=value)
