"""Sizes that a file leaves open and a run makes known, written into its inputs: runtimes plan for them in advance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

__all__ = ["Dims", "input_dims", "output_dims", "with_sizes"]

Dims = list[int | str | None]
"""A declared shape: sizes, symbols, and None for what has neither."""


def input_dims(model: onnx.ModelProto) -> dict[str, Dims]:
    """The declared shapes of the inputs that are no initializers; empty for one without a declared rank."""
    weights = {t.name for t in model.graph.initializer}
    return {i.name: _dims(i) or [] for i in model.graph.input if i.name not in weights}


def output_dims(model: onnx.ModelProto) -> dict[str, Dims]:
    """The declared shapes of the outputs; an output without a declared rank has none."""
    return {o.name: dims for o in model.graph.output if (dims := _dims(o)) is not None}


def with_sizes(model: onnx.ModelProto, sizes: Mapping[str, Sequence[int | None]]) -> None:
    """Write sizes over open ones of the inputs, in place: `sizes` by input, None for an axis that stays as it is.

    What the file declares of outputs and inner tensors was true of open sizes, or of those of the export: it is taken
    back as far as sizes other than the first may now say otherwise.
    """
    inner, batch = False, False
    for info in model.graph.input:
        if info.name not in sizes:
            continue
        for axis, (dim, size) in enumerate(zip(info.type.tensor_type.shape.dim, sizes[info.name], strict=True)):
            if size is not None and dim.dim_value < 1:
                dim.dim_value = size
                inner, batch = inner or axis > 0, True
    if not batch:
        return
    for info in (*model.graph.output, *model.graph.value_info):
        tensor = info.type.tensor_type
        for axis, dim in enumerate(tensor.shape.dim if tensor.HasField("shape") else ()):
            if dim.HasField("dim_param") or (inner and axis > 0):
                dim.Clear()


def _dims(info: onnx.ValueInfoProto) -> Dims | None:
    tensor = info.type.tensor_type
    if not info.type.HasField("tensor_type") or not tensor.HasField("shape"):
        return None
    return [d.dim_value if d.dim_value > 0 else d.dim_param or None for d in tensor.shape.dim]
