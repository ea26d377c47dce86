"""Operators of ONNX Runtime's own domain that stop the gradient or are refused, each with its reason.

Those with a body in `canonical.microsoft_bodies` are listed for the forms that the body does not cover.
"""

from __future__ import annotations

from gbp_onnx.vjp.registry import refuses, stops_gradient

__all__ = ["FORMS"]

MICROSOFT = "com.microsoft"

# --- forms that no body covers ------------------------------------------------------------------------------------

_PLAIN = "only attention without mask, past and rotary embedding is differentiated, as image models use it"
_EVALUATED = "it runs in training mode, or its mask is read; export the model with eval()"
FORMS = {
    "Attention": _PLAIN,
    "MultiHeadAttention": f"{_PLAIN}, with query, key and value apart and of known width",
    "BiasDropout": _EVALUATED,
    "BitmaskBiasDropout": _EVALUATED,
    "BitmaskDropout": _EVALUATED,
    "NhwcConv": "only images are convolved with channels last, by a weight of known rank",
    "GroupNorm": "its number of groups is missing",
    "SkipGroupNorm": "its number of groups is missing, or the rank of its skip is not known",
    "ConvTransposeWithDynamicPads": "without pads, with auto_pad, or with a weight of unknown rank",
    "UnfoldTensor": "the rank of its input is not known",
}
for _op, _why in FORMS.items():
    refuses(_op, why=_why, domain=MICROSOFT)

# --- whatever the form --------------------------------------------------------------------------------------------

LANGUAGE = "an operator of language models, which image models do not use; no derivative is written for it"
PACKED = "its weights are packed in few bits; explain the float model that it was made from"
CUDA_ONLY = (
    "ONNX Runtime's CPU has no kernel for it to check a derivative against; explain the model before optimisation"
)
TOKENS = "it chooses or counts tokens, which are integers"

stops_gradient("BeamSearch", "GreedySearch", "Sampling", "WhisperBeamSearch", why=TOKENS, domain=MICROSOFT)
stops_gradient(
    "BifurcationDetector", "MurmurHash3", "NGramHashMapping", "VarlenNGramHashMapping", why=TOKENS, domain=MICROSOFT
)
stops_gradient("ReduceSumInteger", why="it works on integers", domain=MICROSOFT)
stops_gradient("DynamicTimeWarping", why="its result is a path of positions, not a value", domain=MICROSOFT)
stops_gradient("IsAllFinite", why="its result is true or false", domain=MICROSOFT)
stops_gradient("Tokenizer", why="it works on text, which has no derivative", domain=MICROSOFT)

refuses(
    "AttnLSTM",
    "BranchwiseRMSNorm",
    "CausalConvWithState",
    "DecoderAttention",
    "DecoderMaskedMultiHeadAttention",
    "DecoderMaskedSelfAttention",
    "DynamicSparseAttention",
    "EmbedLayerNormalization",
    "EngramGate",
    "GatedAdd",
    "GatedDeltaNet",
    "GatedRMSNorm",
    "GatedRelativePositionBias",
    "GemmaRotaryEmbedding",
    "GroupQueryAttention",
    "HyperConnectionPostMix",
    "HyperConnectionPreMix",
    "LinearAttention",
    "LinearAttentionGate",
    "LongformerAttention",
    "MRotaryEmbedding",
    "MoE",
    "NGramRepeatBlock",
    "PackedAttention",
    "PackedMultiHeadAttention",
    "PackedSparseAttentionIndexer",
    "PagedAttention",
    "RelativePositionBias",
    "RemovePadding",
    "RestorePadding",
    "RotaryEmbedding",
    "ScaledSiLU",
    "SparseAttention",
    "SparseAttentionIndexer",
    "SparsePagedAttention",
    "TorchEmbedding",
    "VarlenCausalConvWithState",
    "WordConvEmbedding",
    why=LANGUAGE,
    domain=MICROSOFT,
)
refuses(
    "DequantizeBFP",
    "GatherBlockQuantized",
    "GemmFloat8",
    "MatMulBlockQuantizedFp4Weight",
    "MatMulBlockQuantizedFp8Weight",
    "MatMulBnb4",
    "MatMulFpQ4",
    "MatMulNBits",
    "MatMulNBitsMlp",
    "MatMulNBitsQkv",
    "QuantizeBFP",
    why=PACKED,
    domain=MICROSOFT,
)
refuses(
    "ComplexMul",
    "ComplexMulConj",
    "FusedMatMulActivation",
    "GemmFastGelu",
    "Irfft",
    "Rfft",
    why=CUDA_ONLY,
    domain=MICROSOFT,
)
refuses(
    "MaxpoolWithMask", why="ONNX Runtime calls it internal and does not define what its mask does", domain=MICROSOFT
)
refuses("SparseToDenseMatMul", why="one of its matrices is sparse, and what is emitted is dense", domain=MICROSOFT)
refuses(
    "EPContext",
    "Snpe",
    why="a device's compiled program stands in it, not a graph; explain the model before compilation",
    domain=MICROSOFT,
)
