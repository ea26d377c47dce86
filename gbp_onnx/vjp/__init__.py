"""The derivative table. One operator is one small function in its family's file:

    activation      Relu, Clip, LeakyRelu, Sigmoid, HardSwish, Softmax...
    elementwise     Add, Mul, Exp, Where, Max...
    trigonometry    Tan, Asin, Sinh, Atanh...
    conv            Conv, ConvTranspose
    pool            MaxPool, AveragePool, LRN...
    linear          MatMul, Gemm
    einsum          Einsum
    cumulative      CumSum, CumProd, Trilu, Det
    loss            NegativeLogLikelihoodLoss, SoftmaxCrossEntropyLoss
    microsoft       what ONNX Runtime's optimiser writes: FusedMatMul, BiasGelu, SkipLayerNormalization...
    normalization   BatchNormalization, InstanceNormalization...
    reduction       ReduceSum, ReduceMean, ReduceMax...
    layout          Reshape, Transpose, Concat, Slice, Pad...
    resize          Resize
    indexing        Gather...
    scatter         ScatterElements, ScatterND, Compress, OneHot...
    sampling        GridSample, AffineGrid
    roi             RoiAlign, MaxRoiPool
    patches         Col2Im, DeformConv
    control         If, and what loops share
    loop            Loop
    scan            Scan
    fourier         DFT, STFT
    classical       ai.onnx.ml: Scaler, Normalizer, LinearClassifier...
    recurrent       LSTM, GRU, RNN
    sequence        SequenceAt, SplitToSequence, Optional...
    microsoft_*     operators of ONNX Runtime's own domain, com.microsoft (others: canonical/microsoft_bodies)
    quantized       QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear
    integer         ConvInteger, MatMulInteger, DynamicQuantizeMatMul...
    qlinear         QLinearConv, QLinearAdd, QGemm...
    fused           FusedConv, FusedGemm
    blocked         ONNX Runtime's blocked layout: com.microsoft.nchwc
    stops           what stops the gradient on purpose or is refused, and why

`registry` holds the table and explains the names in scope; `common` the arithmetic that several families share;
`recompute` the derivative of a piece of a graph: of a body, or of what an operator is in terms of others;
`careful` an emitter that leaves the runtime's integer fusion alone.
"""

from gbp_onnx.vjp import (
    activation,
    blocked,
    classical,
    control,
    conv,
    cumulative,
    einsum,
    elementwise,
    fourier,
    fused,
    indexing,
    integer,
    layout,
    linear,
    loop,
    loss,
    microsoft,
    microsoft_refused,
    microsoft_spatial,
    normalization,
    patches,
    pool,
    qlinear,
    quantized,
    recurrent,
    reduction,
    resize,
    roi,
    sampling,
    scan,
    scatter,
    sequence,
    stops,
    trigonometry,
)
from gbp_onnx.vjp.registry import (
    GBP_DOMAIN,
    Derivative,
    Refusal,
    Refused,
    Stop,
    UnknownShape,
    derivative_of,
    entries,
    is_known,
)

__all__ = [
    "GBP_DOMAIN",
    "Derivative",
    "Refusal",
    "Refused",
    "Stop",
    "UnknownShape",
    "activation",
    "blocked",
    "classical",
    "control",
    "conv",
    "cumulative",
    "derivative_of",
    "einsum",
    "elementwise",
    "entries",
    "fourier",
    "fused",
    "indexing",
    "integer",
    "is_known",
    "layout",
    "linear",
    "loop",
    "loss",
    "microsoft",
    "microsoft_refused",
    "microsoft_spatial",
    "normalization",
    "patches",
    "pool",
    "qlinear",
    "quantized",
    "recurrent",
    "reduction",
    "resize",
    "roi",
    "sampling",
    "scan",
    "scatter",
    "sequence",
    "stops",
    "trigonometry",
]
