"""The graph tower: ONNX models as text. The only folder that knows onnx-graphsurgeon.

`files` reads and writes model files, `reader` indexes a model (producers, readers, shapes, constants),
`emitter` writes new nodes (``op.Mul(a, b)``), `folding` evaluates constants, `shapes` is window arithmetic on plain
integers.
"""
