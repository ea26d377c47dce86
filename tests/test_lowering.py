"""The lowered forms against the portable form of the same built model: every rewrite, in every kind of layer."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from gbp_onnx.lowering import REWRITES
from tests.lowering_nets import RULES, Net, agree, fired, lowered, portable

Array = NDArray[Any]
EVERY_LEVEL = ("all", "extended", "none")


def images(net: Net, count: int = 2, seed: int = 1, levels: int | None = None) -> dict[str, Array]:
    """Random images and targets. `levels`: values are rounded to so many steps, which makes ties."""
    dims = net.inputs[0].type.tensor_type.shape.dim
    x = np.random.default_rng(seed).standard_normal((count, *(d.dim_value for d in dims[1:])))
    x = x if levels is None else np.round(x * levels) / levels
    return {"x": x.astype(np.float32), "target": np.arange(count) % 4}


# --- layers -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A network, and the least number of times that rewrites must find their places in its cpu form."""

    name: str
    make: Callable[[], Net]
    least: dict[str, int]
    levels: int | None = None


CASES: list[Case] = []


def case(name: str, levels: int | None = None, **least: int) -> Callable[[Callable[[], Net]], Callable[[], Net]]:
    def add(make: Callable[[], Net]) -> Callable[[], Net]:
        CASES.append(Case(name, make, least, levels))
        return make

    return add


def one_conv(width: int = 13, height: int = 12, channels: int = 16, out: int = 32, **attrs: Any) -> Net:
    """Conv + Relu of the image, then the convolution in question, gated on both sides."""
    net = Net(height=height, width=width)
    net.head(net.relu(net.conv(net.block("x", channels), out, **attrs)))
    return net


CONVS: dict[str, dict[str, Any]] = {
    "3x3": {"kernel": 3},
    "1x1": {"kernel": 1},
    "2x2": {"kernel": 2, "pads": 0},
    "5x3": {"kernel": (5, 3)},
    "7x7": {"kernel": 7},
    "no pads": {"kernel": 3, "pads": 0},
    "dilated": {"kernel": 3, "dilations": [2, 2], "pads": 2},
    "dilated unevenly": {"kernel": 3, "dilations": [1, 3], "pads": [1, 3, 1, 3]},
    "pads beyond the kernel": {"kernel": 3, "pads": 4},
    "grouped": {"kernel": 3, "group": 4},
    "depthwise": {"kernel": 3, "group": 16, "out": 16},
    "depthwise, two for each": {"kernel": 3, "group": 16, "out": 32},
    "asymmetric pads": {"kernel": 3, "pads": [0, 1, 2, 1]},
    "asymmetric pads, stride 2": {"kernel": 3, "stride": 2, "pads": [0, 0, 1, 1]},
    "SAME_UPPER": {"kernel": 3, "auto_pad": "SAME_UPPER"},
    "SAME_UPPER, stride 2": {"kernel": 3, "stride": 2, "auto_pad": "SAME_UPPER"},
    "SAME_LOWER, stride 2": {"kernel": 4, "stride": 2, "auto_pad": "SAME_LOWER"},
    "SAME_UPPER, depthwise, stride 2": {"kernel": 3, "stride": 2, "auto_pad": "SAME_UPPER", "group": 16, "out": 16},
    "VALID": {"kernel": 3, "auto_pad": "VALID"},
    "1x1, stride 2": {"kernel": 1, "stride": 2},
    "1x1, stride 2, padded": {"kernel": 1, "stride": 2, "pads": 1},
    "1x1, stride 3": {"kernel": 1, "stride": 3},
    "3x3, stride 2": {"kernel": 3, "stride": 2},
    "3x3, stride 2, no pads": {"kernel": 3, "stride": 2, "pads": 0},
    "2x2, stride 2": {"kernel": 2, "stride": 2, "pads": 0},
    "5x5, stride 2": {"kernel": 5, "stride": 2},
    "7x7, stride 2": {"kernel": 7, "stride": 2},
    "3x3, stride 3": {"kernel": 3, "stride": 3},
    "4x4, stride 4": {"kernel": 4, "stride": 4, "pads": 0},
    "3x3, stride 4": {"kernel": 3, "stride": 4},
    "3x3, strides 2 and 1": {"kernel": 3, "stride": (2, 1)},
    "3x3, strides 1 and 3": {"kernel": 3, "stride": (1, 3)},
    "dilated, stride 2": {"kernel": 3, "stride": 2, "dilations": [2, 2], "pads": 2},
    "grouped, stride 2": {"kernel": 3, "stride": 2, "group": 2},
    "depthwise, stride 2": {"kernel": 3, "stride": 2, "group": 16, "out": 16},
    "depthwise, 5x5, stride 2": {"kernel": 5, "stride": 2, "group": 16, "out": 16},
    "depthwise, stride 3": {"kernel": 3, "stride": 3, "group": 16, "out": 16},
    "many channels": {"kernel": 3, "channels": 48, "out": 80},
    **{f"{c} channels": {"kernel": 3, "channels": c, "out": c + 1} for c in (1, 3, 8, 24, 40)},
    **{f"{c} channels, stride 2": {"kernel": 3, "stride": 2, "channels": c, "out": c + 1} for c in (1, 3, 8, 24, 40)},
}
for _name, _attrs in CONVS.items():
    for _size in ((12, 12), (13, 11)):
        _least = {"rows": 1, "sums": 1} | ({} if _attrs.get("channels", 16) % 16 else {"gates": 1})
        case(f"conv/{_name}, {_size[0]} x {_size[1]}", **_least)(
            lambda attrs=_attrs, size=_size: one_conv(height=size[0], width=size[1], **attrs)  # type: ignore[misc]
        )


def first_conv(height: int, width: int, then: str, **attrs: Any) -> Net:
    """The convolution of the image, whose cotangent is whole, or comes in phases."""
    net = Net(height=height, width=width)
    y = net.relu(net.conv("x", 16, **attrs))
    y = {
        "conv": lambda: net.block(y, 32),
        "stride": lambda: net.block(y, 32, 3, 2),
        "pool": lambda: net.pool(y, 3, 2, 1),
    }[then]()
    net.head(y)
    return net


for _kernel, _stride, _pads in (
    (3, 1, 1),
    (5, 1, 0),
    (3, 2, 1),
    (7, 2, 3),
    (2, 2, 0),
    (4, 4, 0),
    (3, 3, 1),
    (11, 4, 2),
):
    for _then in ("conv", "stride", "pool"):
        for _size in ((24, 24), (27, 25)):
            case(
                f"image/{_kernel}x{_kernel}, stride {_stride}, then {_then}, {_size[0]} x {_size[1]}", levels=2, sums=1
            )(
                lambda k=_kernel, s=_stride, p=_pads, t=_then, z=_size: first_conv(  # type: ignore[misc]
                    z[0], z[1], t, kernel=k, stride=s, pads=p
                )
            )


def pooled(cap: float | None, over: str, size: tuple[int, int], **attrs: Any) -> Net:
    net = Net(height=size[0], width=size[1])
    x = net.block("x", 16, cap=cap)
    if over == "Concat":
        x = net.concat(x, net.block("x", 16, 1, cap=cap))
    elif over == "Add":
        x = net.node("Add", x, net.block("x", 16, 1, cap=cap))
    net.head(net.block(net.pool(x, **attrs), 16))
    return net


POOLS: dict[str, dict[str, Any]] = {
    "2x2, stride 2": {"kernel": 2, "stride": 2},
    "3x3, stride 2": {"kernel": 3, "stride": 2},
    "3x3, stride 2, padded": {"kernel": 3, "stride": 2, "pads": 1},
    "3x3, stride 2, ceil": {"kernel": 3, "stride": 2, "ceil_mode": 1},
    "3x3, stride 2, padded at the end": {"kernel": 3, "stride": 2, "pads": [0, 0, 1, 1]},
    "3x3, stride 1, padded": {"kernel": 3, "stride": 1, "pads": 1},
    "2x2, stride 1": {"kernel": 2, "stride": 1},
    "3x3, stride 3": {"kernel": 3, "stride": 3},
    "2x3, strides 3 and 1": {"kernel": (2, 3), "stride": (3, 1), "pads": [1, 0, 0, 2]},
    "5x5, stride 2, padded": {"kernel": 5, "stride": 2, "pads": 2},
    "1x1, stride 2": {"kernel": 1, "stride": 2},
    "2x2, stride 4": {"kernel": 2, "stride": 4},
    "dilated": {"kernel": 2, "stride": 1, "dilations": [2, 2]},
    "SAME_UPPER": {"kernel": 3, "stride": 2, "auto_pad": "SAME_UPPER"},
    "VALID": {"kernel": 3, "stride": 2, "auto_pad": "VALID"},
}
for _name, _attrs in POOLS.items():
    for _over in ("Relu", "Clip", "Concat", "Add"):
        for _size in ((12, 12), (13, 11)):
            case(f"pool/{_name}, behind {_over}, {_size[0]} x {_size[1]}", levels=1, gates=1)(
                lambda a=_attrs, o=_over, z=_size: pooled(2.0 if o == "Clip" else None, o, z, **a)  # type: ignore[misc]
            )


@case("pool/behind a pool", levels=1, gates=1)
def _pools() -> Net:
    net = Net(height=20, width=18)
    net.head(net.block(net.pool(net.pool(net.block("x", 16), 3, 2, 1), 3, 1, 1), 16))
    return net


@case("pool/beside a convolution that reads the same", levels=1, gates=1)
def _pool_beside() -> Net:
    net = Net()
    x = net.block("x", 16)
    net.head(net.concat(net.pool(x, 3, 2, 1), net.block(x, 32, 3, 2)))
    return net


@case("pool/3x3, stride 2, padded, of what may be negative", levels=1, gates=1)
def _pool_negative() -> Net:
    net = Net()
    net.head(net.block(net.pool(net.conv(net.block("x", 16), 16), 3, 2, 1), 16))
    return net


@case("pool/behind a norm", levels=1, scales=1)
def _pool_norm() -> Net:
    net = Net()
    net.head(net.block(net.pool(net.norm(net.block("x", 16)), 3, 2, 1), 16))
    return net


for _cap in (6.0, 1.0, 0.5, 20.0, 3e4, 1e-3, 1e-6, 1e30):

    @case(f"cap/{_cap}", gates=2 if _cap > 1e-5 else 1)
    def _capped(cap: float = _cap) -> Net:
        net = Net()
        scale = net.weight(np.float32(cap / 2))
        y = net.node("Mul", net.conv("x", 16), scale)
        net.channels[y] = 16
        y = net.node("Div", net.clip(y, cap), scale)
        net.channels[y] = 16
        net.head(net.block(y, 32, 3, 2, cap=1e30))
        return net


@case("residual/identity", gates=4)
def _residual() -> Net:
    net = Net()
    x = net.block("x", 16)
    for _ in range(3):
        x = net.relu(net.node("Add", net.conv(net.block(x, 16), 16), x))
    net.head(x)
    return net


@case("residual/strided, with a 1x1 beside it", gates=3)
def _downsample() -> Net:
    net = Net(height=14, width=16)
    x = net.block("x", 16)
    x = net.relu(net.node("Add", net.conv(net.block(x, 32, 3, 2), 32), net.conv(x, 32, 1, 2)))
    net.head(net.relu(net.node("Add", net.conv(net.block(x, 32, 1), 48, 3, 2), net.conv(x, 48, 1, 2))))
    return net


@case("residual/strided, with a 3x3 and the identity's pool beside it", levels=1, gates=1)
def _three_ways() -> Net:
    net = Net(height=14, width=16)
    x = net.block("x", 16)
    y = net.node("Add", net.conv(x, 16, 3, 2), net.conv(x, 16, 5, 2))
    net.head(net.relu(net.node("Add", y, net.pool(x, 2, 2))))
    return net


@case("residual/read by the head, too", gates=2)
def _read_by_head() -> Net:
    net = Net()
    x = net.block("x", 16)
    y = net.block(x, 16)
    pooled = [net.node("Flatten", net.node("GlobalAveragePool", t)) for t in (x, y)]
    net.node("Gemm", net.node("Concat", *pooled, axis=1), net.weight(net.random.standard_normal((32, 5))), name="y")
    return net


@case("residual/inverted, depthwise, capped", gates=4, sums=1)
def _inverted() -> Net:
    net = Net(height=16, width=16)
    x = net.conv(net.block("x", 16, 3, 2, cap=6.0), 16, 1)
    for stride in (1, 2):
        y = net.block(net.block(x, 48, 1, cap=6.0), 48, 3, stride, group=48, cap=6.0)
        y = net.conv(y, 16, 1)
        x = net.node("Add", x, y) if stride == 1 else y
    net.head(net.act(net.conv(x, 32, 1), 6.0))
    return net


def gapped(op: str) -> Net:
    net = Net()
    y = net.node("Mul", net.norm(net.conv("x", 16), None), net.weight(0.7))
    net.channels[y] = 16
    y = net.relu(y)
    y = net.relu(net.norm(net.conv(y, 32, 3, 2), None))
    gamma = np.linspace(-1, 1, 33)
    net.head(
        net.relu(net.norm(net.conv(y, 33, 1), gamma)) if op == "odd" else net.norm(y, np.r_[gamma[1:16], np.zeros(17)])
    )
    return net


case("norm/of 33 channels", scales=1)(lambda: gapped("odd"))
case("norm/with negative and zero factors", scales=2)(lambda: gapped("even"))


@case("concat/fire", pieces=1, gates=3)
def _fire() -> Net:
    net = Net()
    x = net.block("x", 16)
    for _ in range(2):
        squeezed = net.block(x, 16, 1)
        x = net.concat(net.block(squeezed, 32, 1), net.block(squeezed, 32, 3))
    net.head(net.block(x, 16, 1))
    return net


@case("concat/fire and pool", levels=1, pieces=1, gates=3)
def _fire_pool() -> Net:
    net = Net(height=15, width=14)
    squeezed = net.block("x", 16, 1)
    x = net.pool(net.concat(net.block(squeezed, 32, 1), net.block(squeezed, 32, 3)), 3, 2)
    squeezed = net.block(x, 16, 1)
    net.head(net.concat(net.block(squeezed, 32, 1), net.block(squeezed, 48, 3)))
    return net


def inception(last: str) -> Net:
    net = Net(height=10, width=11)
    x = net.block("x", 16)
    for out in (16, 32):
        pooled = net.pool(x, 3, 1, 1)
        x = net.concat(
            net.block(x, out, 1),
            net.block(net.block(x, 16, 1), 16, 3),
            net.block(net.block(x, 16, 1), 16, 5),
            net.block(pooled, 16, 1),
        )
    net.head(net.pool(x, 2, 2) if last == "pool" else net.block(x, 16, 3, 2))
    return net


case("concat/inception, pooled", levels=1, pieces=1)(lambda: inception("pool"))
case("concat/inception, strided", levels=1, pieces=1)(lambda: inception("stride"))


@case("concat/of the same rectifier twice")
def _twice() -> Net:
    net = Net()
    x = net.block("x", 16)
    net.head(net.block(net.concat(x, net.block(x, 16), x), 16))
    return net


@case("concat/of parts with other caps", gates=1)
def _mixed() -> Net:
    net = Net()
    x = net.concat(net.block("x", 16), net.block("x", 16, cap=1.0), net.conv("x", 16))
    net.head(net.node("Add", net.conv(x, 16), net.conv(x, 16, 1)))
    return net


def dense(layers: int, norm: bool = True) -> Net:
    """Growing concats and a transition."""
    net = Net(height=8, width=10)
    parts = [net.block("x", 16)]
    for layer in range(layers):
        x = parts[0] if layer == 0 else net.concat(*parts)
        y = net.relu(net.norm(x, 0.5 + net.random.random(net.channels[x]))) if norm else x
        parts.append(net.conv(net.block(y, 32, 1), 16))
    x = net.relu(net.norm(net.concat(*parts), 1.0))
    x = net.node("AveragePool", net.conv(x, 32, 1), kernel_shape=[2, 2], strides=[2, 2])
    net.channels[x] = 32
    net.head(net.relu(net.norm(x)))
    return net


case("growing/4 layers", scales=1)(lambda: dense(4))
case("growing/without norms", gates=1)(lambda: dense(3, norm=False))


@case("head/transB 0", rows=1)
def _trans() -> Net:
    net = Net()
    net.head(net.block("x", 16), trans=0)
    return net


@case("head/MatMul", rows=1)
def _matmul() -> Net:
    net = Net()
    net.head(net.block("x", 16), trans=None)
    return net


@case("head/two layers", rows=1)
def _two_layers() -> Net:
    net = Net(height=6, width=6)
    flat = net.node("Flatten", net.pool(net.block("x", 16), 2, 2))
    w = net.weight(net.random.standard_normal((144, 24)) * 0.1)
    net.node(
        "Gemm", net.node("Relu", net.node("MatMul", flat, w)), net.weight(net.random.standard_normal((24, 5))), name="y"
    )
    return net


def conv_head(kind: str, flat: bool) -> Net:
    net = Net()
    y = net.conv(net.block("x", 16), 5, 1)
    y = y if kind == "plain" else net.act(y, 0.4 if kind == "capped" else None)
    g = net.node("GlobalAveragePool", y, name="" if flat else "y")
    if flat:
        net.node("Flatten", g, name="y")
    return net


for _kind in ("plain", "rectified", "capped"):
    for _flat in (False, True):
        case(f"head/conv, {_kind}{', flat' if _flat else ''}", classifiers=1)(
            lambda k=_kind, f=_flat: conv_head(k, f)  # type: ignore[misc]
        )


@case("head/conv with a norm before the mean")
def _norm_head() -> Net:
    net = Net()
    net.node("Flatten", net.node("GlobalAveragePool", net.norm(net.conv(net.block("x", 16), 5, 1))), name="y")
    return net


@case("head/Softmax", rows=1)
def _softmax() -> Net:
    net = Net()
    net.head(net.block("x", 16))
    net.nodes[-1].output[0] = "logits"
    net.node("Softmax", "logits", name="y", axis=1)
    return net


@pytest.mark.parametrize("net", CASES, ids=lambda c: c.name)
def test_the_maps_are_the_portable_ones(net: Case) -> None:
    """One rule at a time and all three at once; with all optimisations of the runtime, with some, with none."""
    made = net.make()
    model = made.model()
    for rule in RULES:
        built = portable(model, rule)
        other = lowered(built)
        for rewrite, least in net.least.items():
            assert fired(other).get(rewrite, 0) >= least or rule == "deconvnet", (rule, rewrite, fired(other))
        agree(built, other, images(made, levels=net.levels), ("all",))
    built = portable(model)
    other = lowered(built)
    onnx.checker.check_model(other, full_check=True)
    agree(built, other, images(made, seed=2, levels=net.levels), ("extended", "none"))


@pytest.mark.parametrize("net", CASES, ids=lambda c: c.name)
def test_the_maps_of_the_cuda_form_are_the_portable_ones(net: Case) -> None:
    """On the CPU provider, which computes the same values."""
    made = net.make()
    built = portable(made.model())
    other = lowered(built, "cuda")
    assert sum(fired(other).values()) > 0
    onnx.checker.check_model(other, full_check=True)
    agree(built, other, images(made, levels=net.levels), ("all", "none"))


# --- switches -----------------------------------------------------------------------------------------------------

WITH: dict[tuple[str, str], str] = {
    ("cpu", "sizes"): "head/transB 0",
    ("cpu", "shapes"): "head/transB 0",
    ("cpu", "rows"): "head/transB 0",
    ("cpu", "classifiers"): "head/conv, rectified",
    ("cpu", "factors"): "growing/4 layers",
    ("cpu", "scales"): "norm/with negative and zero factors",
    ("cpu", "growing"): "growing/4 layers",
    ("cpu", "pieces"): "concat/inception, strided",
    ("cpu", "gates"): "concat/fire and pool",
    ("cpu", "sums"): "residual/inverted, depthwise, capped",
    ("cuda", "sizes"): "head/transB 0",
    ("cuda", "shapes"): "head/transB 0",
    ("cuda", "rows"): "head/transB 0",
    ("cuda", "classifiers"): "head/conv, capped",
    ("cuda", "growing"): "growing/4 layers",
    ("cuda", "turned"): "concat/inception, strided",
    ("cuda", "masks"): "residual/inverted, depthwise, capped",
}
"""A network in which each rewrite finds a place."""


def test_every_rewrite_has_a_switch_that_is_tested() -> None:
    assert set(WITH) == {(form, rewrite.name) for form, rewrites in REWRITES.items() for rewrite in rewrites}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("form", "name"), WITH)
def test_each_rewrite_by_itself_and_all_others_without_it(form: str, name: str, rule: str) -> None:
    net = next(c for c in CASES if c.name == WITH[form, name])
    made = net.make()
    built = portable(made.model(), rule)
    others = {r.name for r in REWRITES[form]} - {name}
    alone, without = lowered(built, form, others), lowered(built, form, {name})
    assert set(fired(alone)) == ({name} if (name, rule) != ("masks", "deconvnet") else set())
    assert name not in fired(without)
    assert fired(without)
    for other in (alone, without):
        agree(built, other, images(made, levels=net.levels), EVERY_LEVEL)


def test_without_all_rewrites_nothing_changes() -> None:
    built = portable(next(c for c in CASES if c.name == "concat/fire and pool").make().model())
    for form, rewrites in REWRITES.items():
        other = lowered(built, form, {r.name for r in rewrites})
        assert fired(other) == {}
        assert {n.name: n for n in other.graph.node} == {n.name: n for n in built.graph.node}
        assert list(other.graph.initializer) == list(built.graph.initializer)


def test_copies_of_weights_are_counted() -> None:
    made = Net()
    made.head(made.block(made.block("x", 16), 32, 3, 2))  # the image's convolution is made anew: it is no copy
    built = lowered(portable(made.model(), "guided"))
    weights = json.loads(next(e.value for e in built.metadata_props if e.key == "gbp.rewrites"))["weights"]
    assert weights == 16 * 32 * 9
