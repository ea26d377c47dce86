"""Operators that stop the gradient on purpose, each with its reason. What is in neither table is an error."""

from __future__ import annotations

from gbp_onnx.vjp.registry import stops_gradient

PIECEWISE_CONSTANT = "piecewise constant: its derivative is zero wherever it exists"
BOOLEAN = "its result is true or false"
INDEX = "its result is a position or a count, not a value"
SHAPE = "its result depends on the shape alone"
NO_INPUT = "it has no differentiable input"

stops_gradient("Floor", "Ceil", "Round", "Sign", why=PIECEWISE_CONSTANT)
stops_gradient("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "IsNaN", "IsInf", why=BOOLEAN)
stops_gradient("And", "Or", "Xor", "Not", why=BOOLEAN)
stops_gradient("BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot", why="it works on integers")
stops_gradient("ArgMax", "ArgMin", "NonZero", "NonMaxSuppression", why=INDEX)
stops_gradient("Shape", "Size", "ConstantOfShape", "EyeLike", why=SHAPE)
stops_gradient("Constant", "Range", why=NO_INPUT)
