"""Put a backward graph behind a forward one: nodes, initializers, inputs, outputs are appended; nothing is changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.reader import STANDARD_DOMAINS, Graph, Tensor

__all__ = ["append", "set_metadata", "value_info"]


def append(
    graph: Graph,
    op: Emitter,
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[tuple[Tensor, onnx.ValueInfoProto]],
) -> onnx.ModelProto:
    """The model of `graph`, extended in place by the emitted nodes that `outputs` need.

    Each output's ValueInfo gets its tensor's name. The forward part stays as it is, but for optional outputs that a
    derivative asked for (MaxPool's Indices).
    """
    model = graph.model  # a copy of its own since it was loaded; another one would double the peak of a large model
    nodes, initializers = op.export([tensor for tensor, _ in outputs])
    for (index, position), tensor in op.added_outputs.items():
        names = model.graph.node[index].output
        names.extend([""] * (position + 1 - len(names)))
        names[position] = tensor.name
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(initializers)
    model.graph.input.extend(inputs)
    for tensor, info in outputs:
        info.name = tensor.name
        model.graph.output.append(info)
    if not any(o.domain in STANDARD_DOMAINS for o in model.opset_import):
        model.opset_import.add(domain="", version=graph.opset)
    return model


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
