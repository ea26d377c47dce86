"""Random small networks: the lowered maps are the portable ones under every rule."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gbp_onnx.lowering import REWRITES, gates
from tests.lowering_nets import Net, agree, fired, lowered, portable

channels = st.sampled_from((16, 16, 16, 32, 48, 8, 20))
caps = st.sampled_from((None, None, 6.0, 1.0, 0.25))
LAYERS = ("conv", "conv", "depthwise", "residual", "concat", "pool", "norm", "grouped")


@st.composite
def convs(draw: st.DrawFn) -> dict[str, Any]:
    """Kernel, stride and pads of a window that fits into anything: a pad is smaller than its kernel."""
    kernel = draw(st.tuples(*[st.integers(1, 5)] * 2))
    stride = draw(st.sampled_from(((1, 1), (1, 1), (2, 2), (2, 2), (3, 3), (2, 1), (1, 2))))
    half = [k // 2 for k in kernel]
    pads = [min(k - 1, h + draw(st.integers(0, 1))) for k, h in zip(kernel * 2, half * 2, strict=True)]
    return {"kernel": kernel, "stride": stride, "pads": pads}


@st.composite
def nets(draw: st.DrawFn) -> tuple[Net, bool]:
    """A network of two to five layers, and whether its images have only a few values, which makes ties."""
    seed = draw(st.integers(0, 2**16))
    net = Net(height=draw(st.integers(6, 14)), width=draw(st.integers(6, 14)), seed=seed)
    x = net.block("x", draw(channels), cap=draw(caps), **draw(convs()))
    for layer in draw(st.lists(st.sampled_from(LAYERS), min_size=1, max_size=4)):
        x = _layer(draw, net, x, layer)
    if draw(st.booleans()):
        net.head(x, trans=draw(st.sampled_from((0, 1, None))))
    else:
        scores = net.conv(x, 5, 1)
        scores = net.act(scores, draw(caps)) if draw(st.booleans()) else scores
        net.node("Flatten", net.node("GlobalAveragePool", scores), name="y")
    return net, draw(st.booleans())


def _layer(draw: st.DrawFn, net: Net, x: str, layer: str) -> str:
    have, cap = net.channels[x], draw(caps)
    match layer:
        case "conv":
            return net.block(x, draw(channels), cap=cap, **draw(convs()))
        case "depthwise":
            return net.block(x, have, cap=cap, group=have, **draw(convs()))
        case "grouped":
            return net.block(x, 2 * have, 3, group=2, cap=cap)
        case "residual":
            y = net.conv(net.block(x, draw(channels), cap=cap), have, draw(st.sampled_from((1, 3))))
            made = net.node("Add", *draw(st.permutations((x, y))))
            return net.act(made, cap) if draw(st.booleans()) else str(made)
        case "concat":
            parts = [x] if draw(st.booleans()) else []
            parts += [
                net.block(x, draw(channels), k, cap=cap) for k in draw(st.sampled_from(((1, 3), (3,), (1, 3, 5))))
            ]
            return net.concat(*parts) if len(parts) > 1 else parts[0]
        case "norm":
            return net.act(net.norm(net.conv(x, draw(channels))), cap)
        case _:
            return net.pool(x, **draw(convs()))


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
@given(nets(), st.integers(0, 2**16))
def test_random_networks(drawn: tuple[Net, bool], seed: int) -> None:
    net, coarse = drawn
    built = portable(net.model())
    dims = [d.dim_value for d in net.inputs[0].type.tensor_type.shape.dim][1:]
    x = np.random.default_rng(seed).standard_normal((2, *dims))
    feeds = {"x": (np.round(x) if coarse else x).astype(np.float32), "target": np.array([seed % 5, -1])}
    for form in REWRITES:
        with patch.object(gates, "_LARGE", (seed % 3) * gates._LARGE):  # what only large tensors get, too
            other = lowered(built, form)
        assert fired(other)
        agree(built, other, feeds, ("all",) if seed % 4 else ("none",), tolerance=1e-5, nonzero=False)
