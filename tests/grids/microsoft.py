"""Operators of com.microsoft that ONNX Runtime's CPU provider computes."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.grids.draw import Draw, Given, Random, spread

__all__ = ["attention", "matrices", "moves", "multi_head_attention"]

MICROSOFT = "com.microsoft"


def attention(random: Random) -> Draw:
    batch, length, width, heads = (int(random.randint(1, 4)) for _ in range(4))
    size = int(random.randint(1, 4))
    hidden = heads * size
    attrs: dict[str, Any] = {"num_heads": heads}
    sizes = [hidden] * 3
    if random.rand() < 0.3:
        sizes[2] = heads * int(random.randint(1, 4))
        attrs["qkv_hidden_sizes"] = sizes
    if random.rand() < 0.3:
        attrs["unidirectional"] = 1
    if random.rand() < 0.3:
        attrs["scale"] = 0.7
    stored = bool(random.rand() < 0.5)
    weight = Given(spread(random, (width, sum(sizes))), wrt=not stored, stored=stored)
    bias = Given(spread(random, (sum(sizes),)), wrt=not stored, stored=stored)
    inputs: list[Given | None] = [Given(spread(random, (batch, length, width)), wrt=True), weight, bias]
    if random.rand() < 0.3:
        inputs += [None, None, Given(spread(random, (batch, heads, length, length)), wrt=True)]
    return Draw("Attention", inputs, attrs, domain=MICROSOFT, coarse=True)


def multi_head_attention(random: Random) -> Draw:
    batch, length, others, heads, size = (int(random.randint(1, 4)) for _ in range(5))
    hidden, wide = heads * size, heads * int(random.randint(1, 4))
    attrs: dict[str, Any] = {"num_heads": heads}
    if random.rand() < 0.3:
        attrs["scale"] = 0.7
    shapes = [(batch, length, hidden), (batch, others, hidden), (batch, others, wide)]
    inputs: list[Given | None] = [Given(spread(random, s), wrt=True) for s in shapes]
    bias = random.rand() < 0.5
    if bias:
        inputs.append(Given(spread(random, (2 * hidden + wide,)), wrt=True))
    if random.rand() < 0.4:
        inputs += [None] * (5 - len(inputs)) + [Given(spread(random, (batch, heads, length, others)), wrt=True)]
    return Draw("MultiHeadAttention", inputs, attrs, domain=MICROSOFT, coarse=True)


def moves(random: Random) -> Draw:
    op = str(random.choice(["ExpandDims", "GatherND", "Trilu", "Pad", "UnfoldTensor", "SampleOp", "Unique"]))
    shape = tuple(random.randint(2, 5, random.randint(2, 4)).tolist())
    rank = len(shape)
    inputs: list[Given | None] = [Given(spread(random, shape), wrt=True)]
    attrs: dict[str, Any] = {}
    outputs = 1
    stored = bool(random.rand() < 0.5)
    if op == "ExpandDims":
        inputs.append(Given(np.asarray(random.randint(-rank - 1, rank + 1), np.int32), stored=stored))
    elif op == "GatherND":
        count = int(random.randint(1, rank + 1))
        index = np.stack([random.randint(0, shape[k], (3,)) for k in range(count)], -1)
        inputs.append(Given(index.astype(random.choice([np.int32, np.int64])), stored=stored))
    elif op == "Trilu":
        if random.rand() < 0.5:
            inputs.append(Given(np.asarray(random.randint(-2, 3), np.int64), stored=stored))
        if random.rand() < 0.5:
            attrs["upper"] = int(random.randint(0, 2))
    elif op == "Pad":
        attrs["mode"] = str(random.choice(["constant", "reflect", "edge"]))
        inputs.append(Given(random.randint(0, 2, 2 * rank).astype(np.int64), stored=stored))
    elif op == "UnfoldTensor":
        axis = int(random.randint(-rank, rank))
        attrs = {"dim": axis, "size": int(random.randint(1, shape[axis] + 1)), "step": int(random.randint(1, 3))}
    elif op == "Unique":
        inputs, outputs = [Given(spread(random, (5,)), wrt=True)], 3
    return Draw(op, inputs, attrs, outputs=outputs, domain=MICROSOFT, linear=op != "Unique", coarse=op == "Unique")


def matrices(random: Random) -> Draw:
    op = str(random.choice(["TransposeMatMul", "CDist", "ConvTransposeWithDynamicPads"]))
    if op == "CDist":
        width = int(random.randint(1, 5))
        pair: list[Given | None] = [
            Given(spread(random, (int(random.randint(1, 5)), width)), wrt=True) for _ in range(2)
        ]
        return Draw(op, pair, {"metric": str(random.choice(["euclidean", "sqeuclidean"]))}, domain=MICROSOFT)
    if op == "TransposeMatMul":
        rows, shared, columns = random.randint(1, 4, 3).tolist()
        lead = tuple(random.randint(1, 3, random.randint(0, 3)).tolist())
        turn = random.randint(0, 2, 2).tolist()
        shapes = [(shared, rows) if turn[0] else (rows, shared), (columns, shared) if turn[1] else (shared, columns)]
        pair = [Given(spread(random, (*lead, *s)), wrt=True) for s in shapes]
        return Draw(op, pair, {"transA": turn[0], "transB": turn[1], "alpha": 0.5}, domain=MICROSOFT, linear=True)
    stride = int(random.randint(1, 3))
    pads = random.randint(0, 2, 4).astype(np.int64)
    x = spread(random, (1, 2, *random.randint(2, 5, 2).tolist()))
    weight = Given(spread(random, (2, 2, 3, 3)), wrt=True)
    inputs: list[Given | None] = [Given(x, wrt=True), weight, Given(pads, stored=bool(random.rand() < 0.5))]
    if random.rand() < 0.5:
        inputs.append(Given(spread(random, (2,)), wrt=True))
    return Draw(op, inputs, {"strides": [stride] * 2, "kernel_shape": [3, 3]}, domain=MICROSOFT, linear=True)
