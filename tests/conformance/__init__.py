"""The operator tests that the onnx package ships, as tests of derivatives: ``python -m tests.conformance``."""
