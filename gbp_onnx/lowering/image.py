"""The cotangent of the image: few channels, which the blocked layout would fill up with zeros.

    ConvTranspose(ct, W [M, 3, k, k])  ->  DepthToSpace(Conv(ct, W' [3 F F, M, ...], stride F/s), F)

Every filter makes one of the F x F places of a square of pixels (Shi et al. 2016, "Is the deconvolution layer the same
as a convolutional layer?"): 48 channels for F = 4. Where ct was put together from phases, they are read as they are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gbp_onnx.lowering.blocked import sized, total
from gbp_onnx.lowering.draft import Draft
from gbp_onnx.lowering.patterns import Transposed

__all__ = ["as_shuffled"]

_SIDE = {1: 2, 2: 4, 4: 4}
"""F by the stride of the forward convolution."""


def as_shuffled(g: Draft, t: Transposed) -> str | None:
    """The form above, for square strides of 1, 2 and 4; None elsewhere, and where the weight is not at hand."""
    stride, source = t.strides[0], g.space(t.ct)
    if t.strides != (stride, stride) or stride not in _SIDE or t.group != 1 or t.dilations != (1, 1) or source is None:
        return None
    weight = g.value(t.weight)
    if weight is None or weight.dtype != np.float32:
        return None
    side, channels = _SIDE[stride], t.size[0]
    places = [_places(side, k, stride, p) for k, p in zip(t.kernel, t.begins, strict=True)]
    low = [min(0, *(o for _, _, o in axis)) for axis in places]
    high = [max(o for _, _, o in axis) for axis in places]
    spots = np.zeros((channels, side, side, source[0], high[0] - low[0] + 1, high[1] - low[1] + 1), np.float32)
    for ry, ty, oy in places[0]:
        for rx, tx, ox in places[1]:
            spots[:, ry, rx, :, oy - low[0], ox - low[1]] = weight[:, :, ty, tx].T
    filters: NDArray[np.float32] = spots.reshape(channels * side * side, *spots.shape[3:])
    squares = (-(-t.size[1] // side), -(-t.size[2] // side))
    phases = g.phases.get(g.now(t.ct), {(0, 0): t.ct})
    known = [1 + max(at[axis] for at in phases) for axis in (0, 1)]
    if any(side // stride % n for n in known):
        phases, known = {(0, 0): t.ct}, [1, 1]
    steps = (side // stride // known[0], side // stride // known[1])
    parts = []
    for at, phase in phases.items():
        cut, begin = filters, []
        for axis, (a, n) in enumerate(zip(at, known, strict=True)):
            first = (a - low[axis]) % n  # of the taps, those that lie in this phase
            cut = np.take(cut, range(first, cut.shape[2 + axis], n), axis=2 + axis)
            begin.append((low[axis] + first - a) // n)
        if cut.size:
            parts.append(_conv(g, phase, cut, (begin[0], begin[1]), steps, squares))
    small = total(g, *parts)
    whole = sized(g, t.ct, channels, squares[0] * side, squares[1] * side)
    image = g.emit("DepthToSpace", [small], whole, blocksize=side, mode="CRD")
    if whole[2:] != t.size[1:]:
        bounds = [g.constant(v, np.int64) for v in ([0, 0], list(t.size[1:]), [2, 3])]
        image = g.emit("Slice", [image, *bounds], sized(g, t.ct, *t.size))
    return image


def _places(side: int, kernel: int, stride: int, begin: int) -> list[tuple[int, int, int]]:
    """(place in the square, tap, offset in ct) of every tap that reaches a place."""
    return [
        (r, tap, (r + begin - tap) // stride)
        for r in range(side)
        for tap in range(kernel)
        if (r + begin - tap) % stride == 0
    ]


def _conv(
    g: Draft, x: str, filters: NDArray[np.float32], low: tuple[int, int], steps: tuple[int, int], size: tuple[int, int]
) -> str:
    """x convolved with filters whose first tap sees x[steps * r + low], low <= 0, for every r of `size`."""
    _, *space = g.space(x) or (0, 0, 0)
    ends = []
    for axis in (0, 1):
        end = (size[axis] - 1) * steps[axis] + filters.shape[2 + axis] - space[axis] + low[axis]
        if end < 0:  # taps of zero use up what is left over
            grown = [(0, 0)] * 4
            grown[2 + axis] = (0, -end)
            filters = np.pad(filters, grown)
        ends.append(max(end, 0))
    return g.emit(
        "Conv",
        [x, g.constant(filters)],
        sized(g, x, filters.shape[0], *size),
        kernel_shape=list(filters.shape[2:]),
        strides=list(steps),
        pads=[-low[0], -low[1], *ends],
    )
