"""Resize and Pad: every mode, with what they read given as constants or at run time."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.grids.draw import Draw, Given, Random, spread

__all__ = ["pad", "resize"]

_COORDINATES = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_crop_and_resize"]


def resize(random: Random) -> Draw:
    opset = int(random.choice([10, 11, 13, 17, 18, 19, 22, 25]))
    mode = str(random.choice(["nearest", "linear", "cubic"]))
    rank = int(random.choice([1, 2, 3, 4, 5], p=[0.05, 0.15, 0.15, 0.5, 0.15]))
    axes = sorted(random.permutation(rank)[: random.randint(1, rank + 1)].tolist())
    if rank >= 4 and random.rand() < 0.7:
        axes = list(range(2, rank))
    if rank == 4 and mode == "cubic":
        axes = [2, 3]
    shape = tuple(int(random.randint(1, 8 if k in axes else 3)) for k in range(rank))
    x = spread(random, shape)
    stored = bool(random.rand() < 0.6)
    if opset == 10:
        mode = "nearest" if mode == "nearest" else "linear"
        scales = np.ones(rank, np.float32)
        scales[axes] = random.choice([0.5, 1, 1.5, 2, 3, 0.6], len(axes))
        inputs: list[Given | None] = [Given(x, wrt=True), Given(scales, stored=stored)]
        return Draw("Resize", inputs, {"mode": mode}, opset, linear=True, free=bool(random.rand() < 0.3))
    attrs: dict[str, Any] = {"mode": mode}
    named = opset >= 18 and random.rand() < 0.5
    if named:
        attrs["axes"] = [int(a) if random.rand() < 0.7 else int(a) - rank for a in axes]
        if random.rand() < 0.3:
            attrs["axes"] = [attrs["axes"][k] for k in random.permutation(len(axes))]
    order = [a % rank for a in attrs["axes"]] if named else list(range(rank))
    if random.rand() < 0.8:
        choices = _COORDINATES + (["half_pixel_symmetric"] if opset >= 19 else [])
        attrs["coordinate_transformation_mode"] = str(random.choice(choices))
    if mode == "nearest" and random.rand() < 0.7:
        attrs["nearest_mode"] = str(random.choice(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]))
    if mode == "cubic" and random.rand() < 0.6:
        attrs["cubic_coeff_a"] = float(random.choice([-0.5, -0.75, -0.6]))
    if mode != "nearest" and random.rand() < 0.3:
        attrs["exclude_outside"] = 1
    if opset >= 18 and mode != "nearest" and random.rand() < 0.35:
        attrs["antialias"] = 1
    roi: Given | None = None
    if attrs.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        begin = dict.fromkeys(range(rank), 0.0)
        end = dict.fromkeys(range(rank), 1.0)
        for a in axes:
            begin[a], end[a] = sorted(random.uniform(-0.2, 1.2, 2).tolist())
        box = np.array([begin[a] for a in order] + [end[a] for a in order], np.float32)
        roi = Given(box, stored=bool(random.rand() < 0.6))
        attrs["extrapolation_value"] = float(random.choice([0.0, 0.7]))
    scales_in: Given | None = None
    sizes_in: Given | None = None
    if random.rand() < 0.5:
        scale = dict.fromkeys(range(rank), 1.0)
        for a in axes:
            scale[a] = float(random.choice([0.5, 0.34, 0.75, 1, 1.2, 1.5, 2, 2.5, 3]))
        scales_in = Given(np.array([scale[a] for a in order], np.float32), stored=stored)
    else:
        size = dict(enumerate(shape))
        for a in axes:
            size[a] = int(random.randint(1, 12))
        sizes_in = Given(np.array([size[a] for a in order], np.int64), stored=stored)
        if opset >= 18 and random.rand() < 0.3:
            attrs["keep_aspect_ratio_policy"] = str(random.choice(["not_larger", "not_smaller"]))
    if opset == 11 and roi is None:
        roi = Given(np.zeros(0, np.float32), stored=True)
    if opset == 11 and scales_in is None:
        scales_in = Given(np.zeros(0, np.float32), stored=True)
    inputs = [Given(x, wrt=True), roi, scales_in, sizes_in]
    return Draw("Resize", inputs, attrs, opset, linear=True, free=bool(random.rand() < 0.3))


def pad(random: Random) -> Draw:
    opset = int(random.choice([7, 10, 11, 13, 17, 18, 19, 21, 23, 24, 25]))
    modes = ["constant", "reflect", "edge"] + (["wrap"] if opset >= 19 else [])
    mode = str(random.choice(modes))
    rank = int(random.randint(1, 6))
    shape = tuple(random.randint(1, 6 if rank < 4 else 4, rank).tolist())
    named = opset >= 18 and random.rand() < 0.5
    axes = random.permutation(rank)[: random.randint(1, rank + 1)].tolist() if named else list(range(rank))
    amounts = {}
    for a in axes:
        most = shape[a] if mode == "reflect" else 4
        low = -1 if random.rand() < 0.4 else 0
        amounts[a] = (int(random.randint(low, max(most, low + 1))), int(random.randint(low, max(most, low + 1))))
        if sum(min(v, 0) for v in amounts[a]) <= -shape[a]:
            amounts[a] = (0, 0)
        if random.rand() < 0.4:
            amounts[a] = (0, 0)
    pads = [amounts[a][0] for a in axes] + [amounts[a][1] for a in axes]
    x = Given(spread(random, shape), wrt=True)
    free = bool(random.rand() < 0.3)
    if opset < 11:
        attrs: dict[str, Any] = {"pads": pads, "mode": mode}
        if random.rand() < 0.4:
            attrs["value"] = 0.5
        return Draw("Pad", [x], attrs, opset, linear=True, free=free)
    stored = bool(random.rand() < 0.5)
    inputs: list[Given | None] = [x, Given(np.array(pads, np.int64), stored=stored), None, None]
    if mode == "constant" and random.rand() < 0.4:
        inputs[2] = Given(np.array(0.5, np.float32), stored=bool(random.rand() < 0.5))
    if named:
        signed = [a if random.rand() < 0.7 else a - rank for a in axes]
        kind = np.int64 if random.rand() < 0.5 else np.int32
        inputs[3] = Given(np.array(signed, kind), stored=bool(random.rand() < 0.5))
    return Draw(
        "Pad",
        inputs,
        {} if mode == "constant" and random.rand() < 0.5 else {"mode": mode},
        opset,
        linear=True,
        free=free,
    )
