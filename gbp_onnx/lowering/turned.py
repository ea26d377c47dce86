"""Transposed convolutions as convolutions: the weight with its channels exchanged and its taps turned round.

The turned weight is computed in the graph from the source's own: the runtime evaluates it once, when a session starts,
and the file holds no copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gbp_onnx.lowering.blocked import sized, spread
from gbp_onnx.lowering.draft import Draft
from gbp_onnx.lowering.patterns import Transposed

__all__ = ["as_conv", "as_phases", "as_spread", "cut_channels"]

_END = -(2**31)


def as_conv(g: Draft, t: Transposed) -> str | None:
    """ConvTranspose(ct, W), stride 1 -> Conv(ct, W turned), pads d (k - 1) - p. None where a pad would be negative."""
    if t.strides != (1, 1):
        return None
    return _conv(g, t, t.ct)


def as_spread(g: Draft, t: Transposed) -> str | None:
    """ConvTranspose(ct, W), stride s -> Conv(ct spread out by s, W turned); of one tap, spread(Conv(ct, W turned))."""
    source = g.space(t.ct)
    if source is None or t.strides == (1, 1):
        return None
    if t.kernel == (1, 1) and t.group == 1 and t.begins == (0, 0):
        small = Transposed(t.ct, t.weight, 1, (1, 1), (1, 1), (1, 1), (0, 0), (t.size[0], *source[1:]))
        made = _conv(g, small, t.ct)
        return None if made is None else spread(g, made, t.strides, t.size[1:])
    reach = [d * (k - 1) for k, d in zip(t.kernel, t.dilations, strict=True)]
    begin = [r - p for r, p in zip(reach, t.begins, strict=True)]
    most = [h - b + r for h, b, r in zip(t.size[1:], begin, reach, strict=True)]  # rows that a stride-1 conv can use
    have = [n * s for n, s in zip(source[1:], t.strides, strict=True)]
    size = (min(most[0], have[0]), min(most[1], have[1]))
    if any(n < (m - 1) * s + 1 for n, m, s in zip(size, source[1:], t.strides, strict=True)):
        return None
    return _conv(g, t, spread(g, t.ct, t.strides, size))


def as_phases(g: Draft, t: Transposed) -> dict[tuple[int, int], str] | None:
    """ConvTranspose(ct, W), stride s -> s * s small convolutions, one for each phase of the result's rows and columns.

    Each phase (a, b) is [N, I, ceil(H/s), ceil(W/s)]. None for dilated or grouped ones (but for depthwise ones), and
    where a phase has no tap.
    """
    source = g.space(t.ct)
    if source is None or t.dilations != (1, 1) or not (t.group == 1 or t.is_depthwise):
        return None
    quarter = [-(-n // s) for n, s in zip(t.size[1:], t.strides, strict=True)]
    found: dict[tuple[int, int], str] = {}
    for a in range(t.strides[0]):
        for b in range(t.strides[1]):
            cuts, pads = [], []
            for axis, phase in enumerate((a, b)):
                taps = phase_taps(phase, t.kernel[axis], t.strides[axis], t.begins[axis])
                if not taps:
                    return None
                offsets = [(phase + t.begins[axis] - tap) // t.strides[axis] for tap in taps]
                end = quarter[axis] + offsets[0] - source[1 + axis]
                if offsets[-1] > 0 or end < 0:
                    return None
                cuts.append((taps[-1], taps[0], t.strides[axis]))
                pads.append((-offsets[-1], end))
            weight = _turned(g, t, cuts)
            shape = g.shape(weight) or ()
            found[a, b] = g.emit(
                "Conv",
                [t.ct, weight],
                sized(g, t.ct, t.size[0], quarter[0], quarter[1]),
                kernel_shape=list(shape[2:]),
                pads=[pads[0][0], pads[1][0], pads[0][1], pads[1][1]],
                group=t.group,
            )
    return found


def phase_taps(phase: int, kernel: int, stride: int, begin: int) -> list[int]:
    """The taps that reach a phase of the rows, in order."""
    return list(range((phase + begin) % stride, kernel, stride))


def cut_channels(g: Draft, weight: str, begin: int, end: int) -> str:
    """W[:, begin:end]: the part of a weight [O, I, kh, kw] that reaches some channels of the result."""
    shape = g.weight_shape(weight) or g.shape(weight) or ()
    bounds = [g.constant([v], np.int64) for v in (begin, end, 1)]
    part = g.emit("Slice", [weight, *bounds], (shape[0], end - begin, *shape[2:]))
    g.cut_weights.add(part)
    return part


def _conv(g: Draft, t: Transposed, x: str) -> str | None:
    source = g.space(x)
    if source is None:
        return None
    reach = [d * (k - 1) for k, d in zip(t.kernel, t.dilations, strict=True)]
    begins = [r - p for r, p in zip(reach, t.begins, strict=True)]
    ends = [h - n - b + r for h, n, b, r in zip(t.size[1:], source[1:], begins, reach, strict=True)]
    if min(*begins, *ends) < 0:
        return None
    weight = _turned(g, t, [(k - 1, 0, 1) for k in t.kernel])
    attrs: dict[str, Any] = {"kernel_shape": list(t.kernel), "dilations": list(t.dilations), "group": t.group}
    attrs["pads"] = [*begins, *ends]
    return g.emit("Conv", [x, weight], sized(g, x, *t.size), **attrs)


def _turned(g: Draft, t: Transposed, cuts: Sequence[tuple[int, int, int]]) -> str:
    """The weight [I, O/group, taps...] from [O, I/group, kh, kw]; of each axis the taps last, last - step... first."""
    name, (o, i, kh, kw) = t.weight, g.shape(t.weight) or (0, 0, 0, 0)
    if t.group == 1:
        name = g.emit("Transpose", [name], (i, o, kh, kw), perm=[1, 0, 2, 3])
        shape = (i, o)
    elif i == 1 and o == t.group:
        shape = (o, i)
    else:
        split = (t.group, o // t.group, i, kh, kw)
        name = g.emit("Reshape", [name, g.constant(split, np.int64)], split)
        name = g.emit("Transpose", [name], (t.group, i, o // t.group, kh, kw), perm=[0, 2, 1, 3, 4])
        shape = (t.group * i, o // t.group)
        name = g.emit("Reshape", [name, g.constant((*shape, kh, kw), np.int64)], (*shape, kh, kw))
    counts = [len(range(first, last + 1, step)) for last, first, step in cuts]
    if (kh, kw) != (1, 1):
        starts, steps = [last for last, _, _ in cuts], [-step for _, _, step in cuts]
        ends = [first - 1 if first else _END for _, first, _ in cuts]
        bounds = [g.constant(v, np.int64) for v in (starts, ends, [2, 3], steps)]
        name = g.emit("Slice", [name, *bounds], (*shape, *counts))
    if name not in g.turned_weights:
        g.turned_weights[name] = int(np.prod((*shape, *counts)))
    return name
