"""Conv, ConvTranspose, MaxPool, AveragePool, LpPool: every attribute, in one to three dimensions."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.grids.draw import Draw, Given, Random, spread

__all__ = ["average_pool", "conv", "conv_transpose", "lp_pool", "max_pool"]


def _common(random: Random, pads: int) -> tuple[int, dict[str, Any], list[int]]:
    """Axes, attributes and kernel, each attribute now and then left out."""
    count = int(random.choice([1, 2, 3], p=[0.3, 0.5, 0.2]))
    kernel = random.randint(1, 5 if count < 3 else 4, count).tolist()
    attrs: dict[str, Any] = {}
    if random.rand() < 0.7:
        attrs["strides"] = random.randint(1, 4, count).tolist()
    if random.rand() < 0.5:
        attrs["dilations"] = random.randint(1, 4, count).tolist()
    auto_pad = random.choice(["", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"], p=[0.4, 0.15, 0.1, 0.2, 0.15])
    if auto_pad:
        attrs["auto_pad"] = str(auto_pad)
    if auto_pad in ("", "NOTSET") and random.rand() < 0.7:
        attrs["pads"] = random.randint(0, pads, 2 * count).tolist()
    return count, attrs, kernel


def _space(random: Random, count: int) -> tuple[int, ...]:
    return tuple(random.randint(1, {1: 12, 2: 9, 3: 6}[count], count).tolist())


def conv(random: Random) -> Draw:
    count, attrs, kernel = _common(random, 5)
    group = int(random.choice([1, 1, 2, 3]))
    per_group, out = int(random.randint(1, 3)), group * int(random.randint(1, 3))
    if group > 1 or random.rand() < 0.3:
        attrs["group"] = group
    if random.rand() < 0.5:
        attrs["kernel_shape"] = kernel
    x = spread(random, (int(random.randint(1, 3)), group * per_group, *_space(random, count)))
    kind = random.choice(["constant", "run time"])
    weight = Given(spread(random, (out, per_group, *kernel)), wrt=kind != "constant", stored=kind == "constant")
    bias = Given(spread(random, (out,)), wrt=kind != "constant", stored=kind == "constant")
    inputs: list[Given | None] = [Given(x, wrt=True), weight, bias if random.rand() < 0.5 else None]
    free = random.rand() < 0.3 and (kind == "constant" or "kernel_shape" in attrs)
    return Draw("Conv", inputs, attrs, int(random.choice([7, 11, 17, 22, 25])), linear=True, free=bool(free))


def conv_transpose(random: Random) -> Draw:
    count, attrs, kernel = _common(random, 3)
    group = int(random.choice([1, 1, 2, 3]))
    per_group, outs = int(random.randint(1, 3)), int(random.randint(1, 3))
    if group > 1 or random.rand() < 0.3:
        attrs["group"] = group
    if random.rand() < 0.5:
        attrs["kernel_shape"] = kernel
    strides = attrs.get("strides", [1] * count)
    dilations = attrs.get("dilations", [1] * count)
    if random.rand() < 0.4:
        attrs["output_padding"] = [int(random.randint(0, max(s, d))) for s, d in zip(strides, dilations, strict=True)]
    space = _space(random, count)
    if random.rand() < 0.3:
        full = [s * (n - 1) + (k - 1) * d + 1 for s, n, k, d in zip(strides, space, kernel, dilations, strict=True)]
        attrs["output_shape"] = [max(1, f + int(random.randint(-3, 3))) for f in full]
    x = spread(random, (int(random.randint(1, 3)), group * per_group, *space))
    kind = random.choice(["constant", "run time"])
    weight = Given(
        spread(random, (group * per_group, outs, *kernel)), wrt=kind != "constant", stored=kind == "constant"
    )
    bias = Given(spread(random, (group * outs,)), wrt=kind != "constant", stored=kind == "constant")
    inputs: list[Given | None] = [Given(x, wrt=True), weight, bias if random.rand() < 0.5 else None]
    free = random.rand() < 0.3 and (kind == "constant" or "kernel_shape" in attrs)
    return Draw("ConvTranspose", inputs, attrs, int(random.choice([7, 11, 17, 22, 25])), linear=True, free=bool(free))


def _pool(random: Random, op: str, opsets: list[int], dilation: bool) -> Draw:
    opset = int(random.choice(opsets))
    count, attrs, kernel = _common(random, 5)
    if not dilation or (op == "MaxPool" and opset < 10):
        attrs.pop("dilations", None)
    attrs["kernel_shape"] = kernel
    x = spread(random, (int(random.randint(1, 3)), int(random.randint(1, 3)), *_space(random, count)))
    return Draw(op, [Given(x, wrt=True)], attrs, opset, free=bool(random.rand() < 0.3))


def max_pool(random: Random) -> Draw:
    draw = _pool(random, "MaxPool", [8, 10, 11, 12, 17, 22, 25], dilation=True)
    if draw.opset >= 10 and random.rand() < 0.4:
        draw.attrs["ceil_mode"] = 1
    if random.rand() < 0.3:
        draw.attrs["storage_order"] = int(random.randint(0, 2))
    if random.rand() < 0.2:
        draw.outputs = 2
    return draw


def average_pool(random: Random) -> Draw:
    opset = [7, 10, 11, 17, 19, 22, 25]
    draw = _pool(random, "AveragePool", opset, dilation=True)
    if draw.opset < 19:
        draw.attrs.pop("dilations", None)
    if draw.opset >= 10 and random.rand() < 0.4:
        draw.attrs["ceil_mode"] = 1
    if random.rand() < 0.5:
        draw.attrs["count_include_pad"] = int(random.randint(0, 2))
    draw.linear = True
    return draw


def lp_pool(random: Random) -> Draw:
    draw = _pool(random, "LpPool", [11, 17, 18, 22], dilation=True)
    if draw.opset < 18:
        draw.attrs.pop("dilations", None)
    elif random.rand() < 0.3:
        draw.attrs["ceil_mode"] = 1
    draw.attrs["p"] = int(random.randint(1, 4))
    x = draw.inputs[0]
    assert x is not None
    x.value = np.where(abs(x.value) < 0.05, x.value + 0.1, x.value).astype(np.float32)
    return draw
