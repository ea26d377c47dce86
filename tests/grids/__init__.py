"""Random configurations of single operators, judged by differences of ONNX Runtime's own forward."""
