"""Random parameters for a network whose own are all equal or missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

PASSES_ON = {"Identity", "Unsqueeze", "Squeeze", "Reshape", "Transpose", "Flatten", "Cast"}
FLOAT_TYPES = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)
Role = str


def randomise_weights(model: onnx.ModelProto | str | Path, seed: int = 0) -> onnx.ModelProto:
    """A copy of `model` whose float parameters are drawn at random, with their shapes kept.

    Parameters are float initializers and float ConstantOfShape nodes of constant shape (these become initializers).
    Weights are He-scaled (normal, variance 2 / fan-in), BatchNormalization's variance lies in 0.5..1.5, scales around
    1, biases and means around 0, PRelu slopes in 0.05..0.3. Bounds, exponents, Resize scales and other single numbers
    in arithmetic stay. The same seed gives the same model.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model if isinstance(model, onnx.ModelProto) else onnx.load(str(model)))
    graph = copy.graph
    rng = np.random.default_rng(seed)
    known = {t.name: t for t in graph.initializer}
    readers: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
    for node in graph.node:
        for i, name in enumerate(node.input):
            readers.setdefault(name, []).append((node, i))

    kept: list[onnx.NodeProto] = []
    for node in graph.node:
        shape = filled_shape(node, known)
        role = role_of(node.output[0], readers) if shape is not None else None
        role = None if role is not None and lone_number(shape, role) else role
        if shape is None or role is None:
            kept.append(node)
            continue
        values = draw(rng, shape, *role)
        graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
    del graph.node[:]
    graph.node.extend(kept)
    for tensor in graph.initializer:
        if tensor.name in known and tensor.data_type in FLOAT_TYPES:
            role = role_of(tensor.name, readers)
            if role is not None and not lone_number(tuple(tensor.dims), role):
                values = draw(rng, tuple(tensor.dims), *role)
                dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
                tensor.CopyFrom(numpy_helper.from_array(values.astype(dtype), tensor.name))
    copy.ir_version = max(copy.ir_version, 4)  # below, initializers must be inputs
    return copy


def filled_shape(node: onnx.NodeProto, known: dict[str, onnx.TensorProto]) -> tuple[int, ...] | None:
    """The shape of a float ConstantOfShape whose shape is an initializer."""
    if node.op_type != "ConstantOfShape" or node.input[0] not in known:
        return None
    for a in node.attribute:
        if a.name == "value" and a.t.data_type not in FLOAT_TYPES:
            return None
    return tuple(int(d) for d in numpy_helper.to_array(known[node.input[0]]))


def role_of(name: str, readers: dict[str, list[tuple[onnx.NodeProto, int]]]) -> tuple[Role, onnx.NodeProto] | None:
    """(role, reading node) of a parameter by the first reader that says what it is; None: leave it alone."""
    for node, i in readers.get(name, []):
        kind = node.op_type
        if kind in PASSES_ON and i == 0:
            found = role_of(node.output[0], readers)
            if found is not None:
                return found
        elif kind == "MatMul" or (kind in ("Conv", "ConvTranspose", "Gemm") and i == 1):
            return "weight", node
        elif kind in ("Conv", "ConvTranspose", "Gemm") and i == 2:
            return "shift", node
        elif kind in ("BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization"):
            if i in (1, 2, 3, 4):
                return ("", "scale", "shift", "shift", "variance")[i], node
        elif kind == "PRelu" and i == 1:
            return "slope", node
        elif kind in ("Add", "Sub", "Sum"):
            return "shift", node
        elif kind in ("Mul", "Div"):
            return "scale", node
    return None


def lone_number(shape: tuple[int, ...] | None, role: tuple[Role, onnx.NodeProto]) -> bool:
    """A single number in arithmetic, such as the 6 of x * relu6(x + 3) / 6: part of the function, no parameter."""
    return shape is not None and int(np.prod(shape)) == 1 and role[1].op_type in ("Add", "Sub", "Sum", "Mul", "Div")


def draw(rng: np.random.Generator, shape: tuple[int, ...], role: Role, node: onnx.NodeProto) -> np.ndarray:
    if role == "weight":
        return (rng.standard_normal(shape) * np.sqrt(2 / fan_in(shape, node))).astype(np.float32)
    if role == "variance":
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if role == "slope":
        return rng.uniform(0.05, 0.3, shape).astype(np.float32)
    noise = 0.1 * rng.standard_normal(shape)
    return ((1 if role == "scale" else 0) + noise).astype(np.float32)


def fan_in(shape: tuple[int, ...], node: onnx.NodeProto) -> int:
    attributes = {a.name: a.i for a in node.attribute}
    if node.op_type == "Conv":
        return max(int(np.prod(shape[1:])), 1)
    if node.op_type == "ConvTranspose":
        return max(int(shape[0] * np.prod(shape[2:])) // max(attributes.get("group", 1), 1), 1)
    if node.op_type == "Gemm":
        return max(shape[1] if attributes.get("transB") else shape[0], 1)
    return max(shape[-2] if len(shape) > 1 else shape[0] if shape else 1, 1)
