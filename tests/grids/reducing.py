"""Reductions, products, the Softmax family, normalizations and elementwise operators with broadcasting."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.grids.draw import Draw, Given, Random, spread

__all__ = ["broadcasting", "einsum", "normalizing", "products", "reductions"]

_REDUCTIONS = [
    f"Reduce{kind}" for kind in ("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp")
]
_EINSUMS = (
    "ij->ji",
    "ii->i",
    "ii->",
    "ij,jk->ik",
    "bij,bjk->bik",
    "ij,j->i",
    "i,j->ij",
    "ij->",
    "...ij,...jk->...ik",
    "...i->...",
    "iji,j->i",
    "ij,ij->j",
    "a b,b->a",
    "ij,jk,kl->il",
    "bhid,bhjd->bhij",
    "iij->j",
)


def reductions(random: Random) -> Draw:
    op = str(random.choice(_REDUCTIONS))
    opset = int(random.choice([7, 11, 13, 18, 20]))
    shape = tuple(random.randint(1, 5, random.randint(0, 5)).tolist())
    rank = len(shape)
    x = spread(random, shape, low=0.2 if op == "ReduceLogSum" else -1)
    if op == "ReduceProd" and random.rand() < 0.3 and x.size:
        x.reshape(-1)[random.randint(0, x.size, 2)] = 0
    attrs: dict[str, Any] = {"keepdims": int(random.randint(0, 2))} if random.rand() < 0.7 else {}
    inputs: list[Given | None] = [Given(x, wrt=True)]
    axes = random.permutation(rank)[: random.randint(0, rank + 1)].tolist()
    if opset >= 11:
        axes = [a - rank if random.rand() < 0.3 else a for a in axes]
    as_input = opset >= (13 if op == "ReduceSum" else 18)
    if as_input:
        if random.rand() < 0.3:
            attrs["noop_with_empty_axes"] = int(random.randint(0, 2))
        if random.rand() < 0.8:
            inputs.append(Given(np.asarray(axes, np.int64), stored=bool(random.rand() < 0.5)))
    elif axes:
        attrs["axes"] = axes
    return Draw(op, inputs, attrs, opset, linear=op in ("ReduceSum", "ReduceMean"), free=bool(random.rand() < 0.3))


def products(random: Random) -> Draw:
    if random.rand() < 0.4:
        rows, shared, columns = random.randint(1, 4, 3).tolist()
        turn = random.randint(0, 2, 2).tolist()
        shapes = [(shared, rows) if turn[0] else (rows, shared), (columns, shared) if turn[1] else (shared, columns)]
        given: list[Given | None] = [Given(spread(random, s), wrt=True) for s in shapes]
        third = [(rows, columns), (1, columns), (columns,), (), (rows, 1), None][random.randint(0, 6)]
        if third is not None:
            given.append(Given(spread(random, third), wrt=True))
        attrs = {"transA": turn[0], "transB": turn[1], "alpha": 0.5, "beta": 2.0}
        return Draw("Gemm", given, attrs, int(random.choice([7, 11, 13])), linear=True, free=bool(random.rand() < 0.3))
    rows, shared, columns = random.randint(1, 4, 3).tolist()
    lead = random.randint(1, 4, random.randint(0, 3)).tolist()
    one = [d if random.rand() < 0.7 else 1 for d in lead[random.randint(0, len(lead) + 1) :]]
    shapes = [(*lead, rows, shared), (*one, shared, columns)]
    kind = random.rand()
    if kind < 0.15:
        shapes[0] = (shared,)
    elif kind < 0.3:
        shapes[1] = (shared,)
    if random.rand() < 0.3 and kind > 0.3:
        shapes = [(*one, rows, shared), (*lead, shared, columns)]
    inputs: list[Given | None] = [Given(spread(random, s), wrt=True) for s in shapes]
    return Draw("MatMul", inputs, {}, 13, linear=True, free=bool(random.rand() < 0.3))


def einsum(random: Random) -> Draw:
    equation = str(random.choice(_EINSUMS))
    sizes = {c: int(random.randint(1, 4)) for c in "abdhijklm"}
    lead = random.randint(1, 4, random.randint(0, 3)).tolist()
    shapes = []
    for term in equation.split("->")[0].replace(" ", "").split(","):
        inner = term.replace("...", "")
        shapes.append((*(lead if "..." in term else ()), *(sizes[c] for c in inner)))
    text = equation if random.rand() < 0.8 or "..." in equation else equation.split("->")[0]
    inputs: list[Given | None] = [Given(spread(random, s), wrt=True) for s in shapes]
    return Draw("Einsum", inputs, {"equation": text}, 12, linear=True, free=bool(random.rand() < 0.3))


def broadcasting(random: Random) -> Draw:
    op = str(random.choice(["Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Where", "PRelu", "Mean", "Sum", "Mod"]))
    shape = tuple(random.randint(1, 5, random.randint(0, 5)).tolist())
    smaller = tuple(d if random.rand() < 0.6 else 1 for d in shape[random.randint(0, len(shape) + 1) :])
    pair = [shape, smaller] if op == "PRelu" or random.rand() < 0.5 else [smaller, shape]
    low = 0.3 if op in ("Pow", "Div", "Mod") else -1
    total = sum(int(np.prod(s)) for s in pair)
    values = spread(random, (total,), low=low)
    cut = int(np.prod(pair[0]))
    inputs: list[Given | None] = [
        Given(values[:cut].reshape(pair[0]), wrt=True),
        Given(values[cut:].reshape(pair[1]), wrt=True),
    ]
    attrs = {"fmod": 1} if op == "Mod" else {}
    if op == "Where":
        inputs.insert(0, Given(random.rand(*shape[-1:]) < 0.5))
    alike = [1] if op in ("Add", "Sub", "Mul", "Div", "Max", "Min") and random.rand() < 0.1 else []
    if alike:
        inputs[1] = inputs[0]
    return Draw(op, inputs, attrs, int(random.choice([13, 16])), free=bool(random.rand() < 0.3), alike=alike)


def normalizing(random: Random) -> Draw:
    ops = ["Softmax", "LogSoftmax", "LayerNormalization", "InstanceNormalization", "LpNormalization", "LRN"]
    op = str(random.choice([*ops, "BatchNormalization", "MeanVarianceNormalization", "RMSNormalization"]))
    shape = tuple(random.randint(1, 5, random.randint(3, 5)).tolist())
    rank, free = len(shape), bool(random.rand() < 0.3)
    x = Given(spread(random, shape), wrt=True)
    axis = int(random.randint(-rank, rank))
    if op in ("Softmax", "LogSoftmax"):
        opset = int(random.choice([7, 11, 13, 17]))
        return Draw(op, [x], {"axis": abs(axis) % rank if opset < 11 else axis}, opset, free=free)
    if op == "LpNormalization":
        return Draw(op, [x], {"axis": axis, "p": int(random.randint(1, 3))}, 17, free=free)
    if op == "LRN":
        return Draw(op, [x], {"size": int(random.randint(1, 5)), "alpha": 0.3, "bias": 1.5}, 13, free=free)
    if op == "MeanVarianceNormalization":
        axes = sorted(random.permutation(rank)[: random.randint(1, rank + 1)].tolist())
        return Draw(op, [x], {"axes": axes}, 13, free=free)
    if op in ("LayerNormalization", "RMSNormalization"):
        tail = shape[axis:]
        given: list[Given | None] = [x, Given(spread(random, tail), wrt=True)]
        if op == "LayerNormalization" and random.rand() < 0.6:
            given.append(Given(spread(random, tail), wrt=True))
        return Draw(op, given, {"axis": axis, "epsilon": 0.1}, 17 if op[0] == "L" else 23, free=free)
    channel = (shape[1],)
    given = [x, Given(spread(random, channel), wrt=True), Given(spread(random, channel), wrt=True)]
    if op == "BatchNormalization":
        given += [Given(spread(random, channel), wrt=True), Given(spread(random, channel, low=0.5, high=2), wrt=True)]
    return Draw(op, given, {"epsilon": 0.1}, int(random.choice([9, 14, 15])), free=free)
