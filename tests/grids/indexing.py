"""Operators that pick, put, repeat and cut: with constants and with the same values given at run time."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.grids.draw import Draw, Given, Random, spread

__all__ = ["cutting", "gathering", "repeating", "scattering"]


def _ints(random: Random, values: Any, dtype: Any = np.int64) -> Given:
    return Given(np.asarray(values, dtype), stored=bool(random.rand() < 0.5))


def _shape(random: Random, low: int = 1, ranks: tuple[int, int] = (1, 5)) -> tuple[int, ...]:
    return tuple(random.randint(low, 6, random.randint(*ranks)).tolist())


def _index(random: Random, size: int, shape: Any, dtype: Any) -> Any:
    """Repeated and negative ones among them."""
    return random.randint(-size, size, shape).astype(dtype)


def cutting(random: Random) -> Draw:
    op = str(random.choice(["Slice", "Split", "Concat", "TopK", "Compress", "CenterCropPad", "Trilu"]))
    shape = _shape(random, ranks=(2, 5) if op == "Trilu" else (1, 5))
    rank, free = len(shape), bool(random.rand() < 0.3)
    x = Given(spread(random, shape), wrt=True)
    axis = int(random.randint(-rank, rank))
    if op == "Slice":
        axes = random.permutation(rank)[: random.randint(1, rank + 1)]
        bounds = np.stack([random.choice([-9, -2, -1, 0, 1, 2, 3, 9], 2) for _ in axes], 1)
        kind = np.int64 if random.rand() < 0.6 else np.int32
        inputs: list[Given | None] = [x, _ints(random, bounds[0], kind), _ints(random, bounds[1], kind)]
        whole = len(axes) == rank and random.rand() < 0.3
        inputs.append(None if whole else _ints(random, [a - rank * (random.rand() < 0.3) for a in axes], kind))
        if random.rand() < 0.6:
            inputs.append(_ints(random, random.choice([-2, -1, 1, 1, 2, 3], len(axes)), kind))
        return Draw(op, inputs, {}, int(random.choice([10, 11, 13, 20])), linear=True, free=free)
    if op == "Split":
        size = shape[axis]
        if random.rand() < 0.5 and size > 1:
            first = int(random.randint(0, size))
            return Draw(
                op, [x, _ints(random, [first, size - first])], {"axis": axis}, 13, outputs=2, linear=True, free=free
            )
        count = int(random.randint(1, 4))
        attrs = {"axis": axis, "num_outputs": count}
        return Draw(op, [x], attrs, 18, outputs=-(-size // -(-size // count)) or 1, linear=True, free=free)
    if op == "Concat":
        given: list[Given | None] = [x]
        for _ in range(random.randint(0, 3)):
            other = list(shape)
            other[axis] = int(random.randint(0, 4))
            given.append(Given(spread(random, tuple(other)), wrt=bool(random.rand() < 0.7)))
        return Draw(op, given, {"axis": axis}, 13, linear=True, free=free)
    if op == "TopK":
        k = int(random.randint(0, shape[axis] + 1))
        attrs = {"axis": axis, "largest": int(random.randint(0, 2)), "sorted": int(random.randint(0, 2))}
        return Draw(op, [x, _ints(random, [k])], attrs, 11, outputs=2, free=free)
    if op == "Compress":
        flat = random.rand() < 0.3
        size = int(np.prod(shape)) if flat else shape[axis]
        keep = random.rand(random.randint(1, size + 1)) < 0.6
        return Draw(op, [x, _ints(random, keep, np.bool_)], {} if flat else {"axis": axis}, 11, linear=True, free=free)
    if op == "CenterCropPad":
        axes = random.permutation(rank)[: random.randint(1, rank + 1)].tolist()
        target = _ints(random, random.randint(1, 8, len(axes)))
        return Draw(op, [x, target], {"axes": axes}, 18, linear=True, free=free)
    inputs = [x, _ints(random, int(random.randint(-3, 4)))] if random.rand() < 0.7 else [x]
    return Draw(op, inputs, {"upper": int(random.randint(0, 2))}, 14, linear=True, free=free)


def gathering(random: Random) -> Draw:
    op = str(random.choice(["Gather", "GatherElements", "GatherND"]))
    shape, free = _shape(random), bool(random.rand() < 0.3)
    rank = len(shape)
    x, axis = Given(spread(random, shape), wrt=True), int(random.randint(-rank, rank))
    kind = np.int64 if random.rand() < 0.6 else np.int32
    if op == "Gather":
        index = _index(random, shape[axis], random.randint(0, 4, random.randint(0, 3)), kind)
        return Draw(op, [x, _ints(random, index, kind)], {"axis": axis}, 13, linear=True, free=free)
    if op == "GatherElements":
        taken = [int(random.randint(1, d + 1)) for d in shape]
        taken[axis] = int(random.randint(1, 7))
        index = _index(random, shape[axis], taken, kind)
        return Draw(op, [x, _ints(random, index, kind)], {"axis": axis}, 13, linear=True, free=free)
    batch = int(random.randint(0, rank)) if random.rand() < 0.4 else 0
    count = int(random.randint(1, rank - batch + 1))
    lead = (*shape[:batch], *random.randint(1, 4, random.randint(0, 2)).tolist())
    index = np.stack([_index(random, shape[batch + k], lead, np.int64) for k in range(count)], -1)
    return Draw(op, [x, _ints(random, index)], {"batch_dims": batch}, 13, linear=True, free=free)


def scattering(random: Random) -> Draw:
    op = str(random.choice(["ScatterElements", "ScatterND"]))
    opset = int(random.choice([11, 13, 16, 18]))
    choices = ["none"] + (["add", "mul"] if opset >= 16 else []) + (["max", "min"] if opset >= 18 else [])
    reduction, free = str(random.choice(choices)), bool(random.rand() < 0.3)
    attrs: dict[str, Any] = {} if reduction == "none" else {"reduction": reduction}
    shape = _shape(random)
    rank = len(shape)
    axis = int(random.randint(-rank, rank))
    if op == "ScatterElements":
        taken = [int(random.randint(1, d + 1)) for d in shape]
        if reduction == "none":  # which of two values stays is not defined
            order = np.argsort(random.rand(*taken[:axis], shape[axis], *taken[axis:][1:]), axis=axis)
            index = np.take(order, range(taken[axis]), axis=axis) - shape[axis] * (random.rand(*taken) < 0.3)
        else:
            index = _index(random, shape[axis], taken, np.int64)
        attrs["axis"] = axis
    else:
        count = int(random.randint(1, rank + 1))
        rows = int(random.randint(1, 5))
        flat = int(np.prod(shape[:count]))
        picks = random.permutation(flat)[:rows] if reduction == "none" else random.randint(0, flat, rows)
        index = np.stack(np.unravel_index(picks, shape[:count]), -1)
        index = index - np.asarray(shape[:count]) * (random.rand(*index.shape) < 0.3)
        taken = [len(picks), *shape[count:]]
    whole = spread(random, (int(np.prod(shape) + np.prod(taken)),), low=0.5, high=2)
    cut = int(np.prod(shape))
    x, updates = whole[:cut].reshape(shape), whole[cut:].reshape(taken)
    inputs: list[Given | None] = [Given(x, wrt=True), _ints(random, index), Given(updates, wrt=True)]
    return Draw(op, inputs, attrs, opset, linear=reduction in ("none", "add"), free=free)


def repeating(random: Random) -> Draw:
    op = str(random.choice(["Tile", "Expand", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Flatten", "CumSum"]))
    shape, free = _shape(random), bool(random.rand() < 0.3)
    rank = len(shape)
    x, axis = Given(spread(random, shape), wrt=True), int(random.randint(-rank, rank))
    inputs: list[Given | None] = [x]
    attrs: dict[str, Any] = {}
    if op == "Tile":
        inputs.append(_ints(random, random.randint(0, 4, rank)))
    elif op == "Expand":
        x.value = spread(random, tuple(d if random.rand() < 0.6 else 1 for d in shape))
        lead = random.randint(1, 3, random.randint(0, 2)).tolist()
        target = [d if random.rand() < 0.8 else 1 for d in shape]
        inputs.append(_ints(random, [*lead, *(t if s == 1 else s for s, t in zip(x.value.shape, target, strict=True))]))
    elif op == "Reshape":
        inputs.append(_ints(random, [[-1], [1, -1], [0, -1], [shape[0], -1, 1]][random.randint(0, 4)]))
    elif op == "Squeeze":
        x.value = x.value.reshape(*shape[:1], 1, *shape[1:], 1)
        inputs += [_ints(random, [random.choice([1, -1])])] if random.rand() < 0.7 else []
    elif op == "Unsqueeze":
        inputs.append(_ints(random, [int(random.randint(-rank - 1, rank + 1))]))
    elif op == "Transpose":
        attrs = {"perm": random.permutation(rank).tolist()} if random.rand() < 0.8 else {}
    elif op == "Flatten":
        attrs = {"axis": int(random.randint(-rank, rank + 1))}
    else:
        inputs.append(_ints(random, axis))
        attrs = {"exclusive": int(random.randint(0, 2)), "reverse": int(random.randint(0, 2))}
    return Draw(op, inputs, attrs, 13, linear=True, free=free)
