"""The runtime tower: models run. The only folder that imports onnxruntime; it sees models and arrays, never nodes."""
