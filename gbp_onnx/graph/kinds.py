"""Types of tensors, of sequences of them and of optionals, as ONNX writes them."""

from __future__ import annotations

import onnx
from onnx import helper

__all__ = [
    "FLOAT_TYPES",
    "cotangent_number",
    "cotangent_type",
    "element_type",
    "innermost",
    "is_scalar",
    "scalar_type",
    "sequence_type",
    "tensor_type",
    "with_ranks",
    "without_sizes",
]

FLOAT_TYPES = frozenset(
    {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE, onnx.TensorProto.BFLOAT16}
)


def tensor_type(number: int) -> onnx.TypeProto:
    """A tensor of these numbers, of any size."""
    made: onnx.TypeProto = helper.make_tensor_type_proto(number, None)
    return made


def scalar_type(number: int) -> onnx.TypeProto:
    """A single number, of rank 0."""
    made: onnx.TypeProto = helper.make_tensor_type_proto(number, [])
    return made


def is_scalar(kind: onnx.TypeProto) -> bool:
    """Whether a type is known to be of rank 0."""
    return kind.tensor_type.HasField("shape") and not kind.tensor_type.shape.dim


def sequence_type(number: int) -> onnx.TypeProto:
    """A sequence of such tensors."""
    made: onnx.TypeProto = helper.make_sequence_type_proto(tensor_type(number))
    return made


def innermost(kind: onnx.TypeProto) -> onnx.TypeProto.Tensor | None:
    """The tensor type inside; of sequences and optionals their elements'. None where it is none or unknown."""
    while (form := kind.WhichOneof("value")) in ("optional_type", "sequence_type"):
        kind = kind.optional_type.elem_type if form == "optional_type" else kind.sequence_type.elem_type
    return kind.tensor_type if form == "tensor_type" else None


def element_type(kind: onnx.TypeProto) -> tuple[int, bool]:
    """The type of the numbers (0: unknown), and whether it is a sequence of tensors; optionals are looked through."""
    inside = kind.optional_type.elem_type if kind.HasField("optional_type") else kind
    numbers = innermost(kind)
    return (0 if numbers is None else numbers.elem_type), inside.HasField("sequence_type")


def cotangent_type(kind: onnx.TypeProto) -> onnx.TypeProto:
    """The type of a cotangent, without sizes: float32, or float64 where that is; no longer optional."""
    number, sequence = element_type(kind)
    number = cotangent_number(number)
    return sequence_type(number) if sequence else tensor_type(number)


def cotangent_number(number: int) -> int:
    """The element type of a cotangent: float32 for half precision, where it would underflow, and for integers."""
    return number if number == onnx.TensorProto.DOUBLE else int(onnx.TensorProto.FLOAT)


def with_ranks(kind: onnx.TypeProto, cotangent: bool = False) -> onnx.TypeProto:
    """A tensor type, or that of its cotangent, of the same rank and the sizes that are numbers."""
    made = cotangent_type(kind) if cotangent else without_sizes(kind)
    if kind.tensor_type.HasField("shape"):
        made.tensor_type.shape.CopyFrom(kind.tensor_type.shape)
        for dim in made.tensor_type.shape.dim:
            if not dim.HasField("dim_value"):
                dim.Clear()
    return made


def without_sizes(kind: onnx.TypeProto) -> onnx.TypeProto:
    """The type, of any size."""
    made = onnx.TypeProto()
    made.CopyFrom(kind)
    numbers = innermost(made)
    if numbers is not None:
        numbers.ClearField("shape")
    return made
