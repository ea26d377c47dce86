"""Operators that stop the gradient on purpose or are refused, each with its reason."""

from __future__ import annotations

from gbp_onnx.vjp.registry import GBP_DOMAIN, refuses, stops_gradient

PIECEWISE_CONSTANT = "piecewise constant: its derivative is zero wherever it exists"
BOOLEAN = "its result is true or false"
INDEX = "its result is a position or a count, not a value"
SHAPE = "its result depends on the shape alone"
NO_INPUT = "it has no differentiable input"

RANDOM = "its output is random: there is no value to explain; export the model without it (model.eval())"
TEXT = "it works on text, which has no derivative"

stops_gradient("Floor", "Ceil", "Round", "Sign", "Hardmax", why=PIECEWISE_CONSTANT)
stops_gradient(
    "Cast",
    domain=GBP_DOMAIN,
    why="it rounds to whole numbers wider than pixels (uint8, int8, uint16), which are positions and counts",
)
stops_gradient("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "IsNaN", "IsInf", why=BOOLEAN)
stops_gradient("And", "Or", "Xor", "Not", why=BOOLEAN)
stops_gradient("BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot", why="it works on integers")
stops_gradient("ArgMax", "ArgMin", "NonZero", "NonMaxSuppression", why=INDEX)
stops_gradient("Shape", "Size", "ConstantOfShape", "EyeLike", why=SHAPE)
stops_gradient("Constant", why=NO_INPUT)
stops_gradient("HannWindow", "HammingWindow", "BlackmanWindow", "MelWeightMatrix", why="it is made of counts alone")
stops_gradient("BitCast", why="it reads the bits of a number as another type")
stops_gradient("TfIdfVectorizer", why="it counts integers or words")
stops_gradient("ImageDecoder", why="it reads the bytes of an image file")
stops_gradient("StringConcat", "StringNormalizer", "StringSplit", "RegexFullMatch", why=TEXT)

refuses("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", why=RANDOM)
refuses("Bernoulli", "Multinomial", why=RANDOM)
