"""The derivative table. One operator is one small function in its family's file:

    activation      Relu, Clip, LeakyRelu, Sigmoid, HardSwish, Softmax...
    elementwise     Add, Mul, Exp, Where, Max...
    conv            Conv, ConvTranspose
    pool            MaxPool, AveragePool, LRN...
    linear          MatMul, Gemm
    normalization   BatchNormalization, InstanceNormalization...
    reduction       ReduceSum, ReduceMean, ReduceMax...
    layout          Reshape, Transpose, Concat, Slice, Pad...
    resize          Resize
    indexing        Gather...
    stops           what stops the gradient on purpose, and why

`registry` holds the table and explains the names in scope; `common` the arithmetic that several families share.
"""

from gbp_onnx.vjp import (
    activation,
    conv,
    elementwise,
    indexing,
    layout,
    linear,
    normalization,
    pool,
    reduction,
    resize,
    stops,
)
from gbp_onnx.vjp.registry import GBP_DOMAIN, Derivative, Refusal, Stop, UnknownShape, derivative_of, entries, is_known

__all__ = [
    "GBP_DOMAIN",
    "Derivative",
    "Refusal",
    "Stop",
    "UnknownShape",
    "activation",
    "conv",
    "derivative_of",
    "elementwise",
    "entries",
    "indexing",
    "is_known",
    "layout",
    "linear",
    "normalization",
    "pool",
    "reduction",
    "resize",
    "stops",
]
