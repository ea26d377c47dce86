"""A float64 evaluation of ONNX networks in torch, written from the ONNX text alone: it shares no code with gbp_onnx."""
