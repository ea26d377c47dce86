"""Where the conditions of the lowered forms end: what looks like their before, and is not, keeps its portable nodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

import gbp_onnx
from gbp_onnx.errors import InputError
from gbp_onnx.lowering import REWRITES, check_lowering, gates, liked_by
from gbp_onnx.probes import for_given_classes
from tests.lowering_nets import RULES, Net, agree, attributions, fired, lowered, portable, run

Array = NDArray[Any]
FORMS = tuple(REWRITES)


def images(net: Net, count: int = 2, seed: int = 1, targets: Any = None, steps: int | None = None) -> dict[str, Array]:
    dims = [d.dim_value or 12 for d in net.inputs[0].type.tensor_type.shape.dim]
    x = np.random.default_rng(seed).standard_normal((count, *dims[1:]))
    x = x if steps is None else np.round(x * steps)
    return {"x": x.astype(np.float32), "target": np.arange(count) % 4 if targets is None else np.array(targets)}


def both_agree(net: Net, feeds: dict[str, Array], *outputs: str, **options: Any) -> dict[str, dict[str, int]]:
    """Check each form of a network at two levels; how often the rewrites found their places."""
    built = portable(net.model(*outputs))
    counts = {}
    for form in FORMS:
        other = lowered(built, form)
        agree(built, other, feeds, ("all", "none"), **options)
        counts[form] = fired(other)
    return counts


# --- what the file says -------------------------------------------------------------------------------------------


def two_layers() -> Net:
    net = Net()
    net.head(net.block(net.pool(net.block("x", 16), 3, 2, 1), 32, 3, 2))
    return net


def test_the_portable_form_is_left_alone() -> None:
    built = portable(two_layers().model(), lowering="portable")
    other = lowered(built, "portable")
    assert other.graph == built.graph
    assert fired(other) == {}


@pytest.mark.parametrize("form", FORMS)
def test_a_lowered_file_says_its_form_and_keeps_the_forward_part(form: str) -> None:
    source = two_layers().model()
    built = gbp_onnx.build(source, lowering=form)
    assert next(e.value for e in built.metadata_props if e.key == "gbp.lowering") == form
    assert fired(built)
    plain = gbp_onnx.build(source)
    assert list(built.graph.input) == list(plain.graph.input)
    assert list(built.graph.output) == list(plain.graph.output)
    nodes = {n.name: n for n in built.graph.node}
    for node in source.graph.node:
        found = onnx.NodeProto.FromString(nodes[node.name].SerializeToString())
        del found.output[len(node.output) :]  # MaxPool's Indices
        assert found == node
    assert {w.name: w for w in source.graph.initializer}.items() <= {w.name: w for w in built.graph.initializer}.items()


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(InputError) as refusal:
        check_lowering("fast")
    assert refusal.value.code == "GBP410"
    assert liked_by("CPUExecutionProvider") == "cpu"
    assert liked_by("CUDAExecutionProvider") == "cuda"
    assert liked_by("CoreMLExecutionProvider") == "portable"


class OneHot(OpRun):  # type: ignore[misc]
    """onnx's own takes no depth of shape [1] under the newest NumPy."""

    op_domain = ""

    def _run(self, indices: Array, depth: Array, values: Array, axis: int = -1) -> tuple[Array]:
        assert axis == -1
        return (np.where(indices[..., None] == np.arange(depth.item()), values[1], values[0]),)


def test_the_reference_evaluator_computes_the_lowered_maps() -> None:
    """No trick of one runtime: onnx's own evaluator, in NumPy, finds them too."""
    net = Net(height=7, width=8)
    x = net.block("x", 16, 3, 2, cap=2.0)
    x = net.pool(net.relu(net.node("Add", net.conv(x, 16), x)), 2, 2)
    net.head(net.block(x, 16))
    built, feeds = portable(net.model()), images(net, 1)
    for form in FORMS:
        other = lowered(built, form)
        names = [o.name for o in other.graph.output]
        with np.errstate(over="ignore", invalid="ignore"):  # masks are steep
            results = ReferenceEvaluator(other, new_ops=[OneHot]).run(None, feeds)
        found = dict(zip(names, results, strict=True))
        for name, value in run(built, feeds, "none").items():
            assert np.abs(found[name] - value).max() <= 1e-5 * np.abs(value).max(), (name, form)
        assert all(m.any() for m in attributions(found).values())


# --- heads --------------------------------------------------------------------------------------------------------


def per_place(batch: Any) -> Net:
    """An output of 36 places with 5 classes each: a target is one of 180 numbers."""
    net = Net(height=6, width=6, batch=batch)
    rows = net.node("Transpose", net.block("x", 16), perm=[0, 2, 3, 1])
    rows = net.node("Reshape", rows, net.weight([-1, 16], np.int64))
    scores = net.node("Gemm", rows, net.weight(net.random.standard_normal((16, 5))))
    net.node("Reshape", scores, net.weight([36, 5] if batch == 1 else [-1, 36, 5], np.int64), name="y")
    return net


@pytest.mark.parametrize("batch", [1, "N"])
def test_a_classifier_of_several_places_is_no_row(batch: Any) -> None:
    net = per_place(batch)
    feeds = images(net, 1, targets=[77]) if batch == 1 else images(net, 2, targets=[77, 3])
    counts = both_agree(net, feeds)
    assert all("rows" not in found for found in counts.values())


def test_the_largest_value_and_targets_of_each_image() -> None:
    net = two_layers()
    both_agree(net, images(net, 5, targets=[4, -1, 0, 2, -1]))


@pytest.mark.parametrize("batch", [1, 2, None, "N"])
@pytest.mark.parametrize("rule", RULES)
def test_batches_of_every_kind(batch: Any, rule: str) -> None:
    net = Net(batch=batch)
    net.node("Flatten", net.node("GlobalAveragePool", net.relu(net.conv(net.pool(net.block("x", 16)), 5, 1))), name="y")
    built = portable(net.model(), rule)
    for form in FORMS:
        for count in (batch,) if isinstance(batch, int) else (1, 3):
            agree(built, lowered(built, form), images(net, count))


@pytest.mark.parametrize("shape", [(1, 5, 1, 1), (5, 1, 1), (1, 5, 12, 13), (1, 1, 12, 13)])
@pytest.mark.parametrize("batch", [1, "N"])
def test_a_fixed_mask_of_another_shape_before_the_mean(shape: tuple[int, ...], batch: Any) -> None:
    net = Net(batch=batch)
    mask = net.node("Greater", net.weight(net.random.standard_normal(shape)), net.weight(0.0))
    gated = net.node("Where", mask, net.conv(net.block("x", 16), 5, 1), net.weight(0.0))
    net.node("Flatten", net.node("GlobalAveragePool", gated), name="y")
    for rule in RULES:
        built = portable(net.model(), rule)
        for form in FORMS:
            agree(built, lowered(built, form), images(net, 1 if batch == 1 else 2))


@pytest.mark.parametrize("cap", [None, 0.4])
def test_scores_that_nobody_asks_for(cap: float | None) -> None:
    """The target's scores alone are computed, for their gate."""
    net = Net()
    scores = net.act(net.conv(net.block("x", 16), 5, 1), cap)
    net.node("Flatten", net.node("GlobalAveragePool", scores), name="y")
    for rule in RULES:
        built = for_given_classes(portable(net.model(), rule))
        assert built is not None
        other = lowered(built)
        assert fired(other)["classifiers"] == 1
        assert len(other.graph.output) == 1
        agree(built, other, images(net))


# --- explainers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["rows", "classifiers"])
def test_an_explainer_opens_a_lowered_file(kind: str) -> None:
    net = Net()
    y = net.block("x", 16)
    if kind == "rows":
        net.head(y)
    else:
        net.node("Flatten", net.node("GlobalAveragePool", net.relu(net.conv(y, 5, 1))), name="y")
    built = portable(net.model(), "guided")
    other = lowered(built)
    assert fired(other)[kind] == 1
    plain, fast = (gbp_onnx.Explainer(m.SerializeToString(), preprocess="raw") for m in (built, other))
    x = images(net)["x"]
    for target in (1, "top1", [0, 3]):
        wanted = plain.attribute(x, target)["guided"]
        assert np.abs(fast.attribute(x, target)["guided"] - wanted).max() <= 5e-6 * np.abs(wanted).max()
    with pytest.raises(InputError) as refusal:
        fast.attribute(x, np.ones((2, 5), np.float32))
    assert refusal.value.code == "GBP407"
    assert "portable" in refusal.value.fix


def test_a_lowered_file_without_a_looked_up_row_takes_a_seed() -> None:
    net = two_layers()
    built = portable(net.model(), "guided")
    other = lowered(built, without={"rows"})
    plain, fast = (gbp_onnx.Explainer(m.SerializeToString(), preprocess="raw") for m in (built, other))
    x, seed = images(net)["x"], np.random.default_rng(3).standard_normal((2, 5)).astype(np.float32)
    wanted = plain.attribute(x, seed)["guided"]
    assert np.abs(fast.attribute(x, seed)["guided"] - wanted).max() <= 5e-6 * np.abs(wanted).max()


# --- names --------------------------------------------------------------------------------------------------------


def renamed(net: Net, names: dict[str, str]) -> Net:
    for node in net.nodes:
        for field in (node.input, node.output):
            field[:] = [names.get(n, n) for n in field]
    return net


@pytest.mark.parametrize("rule", [*RULES, None])
def test_a_cotangents_name_may_be_that_of_another_tensors(rule: str | None) -> None:
    """The source holds grad/a, so that the cotangent of a is called grad/a_1; and a_1 is a tensor of another size."""
    prefix = f"grad/{rule or 'guided'}/" if rule is None else "grad/"
    net = Net(height=12, width=12)
    a = net.block("x", 16)
    b = net.block(a, 16, 3, 2, pads=[0, 0, 1, 1])  # of what is cropped at run time, inference knows no size
    c = net.block(net.pool(b, 2, 2), 16)
    net.head(c)
    renamed(net, {a: "a", b: f"{prefix}a", c: "a_1"})
    built = portable(net.model(), rule or RULES)
    for form in FORMS:
        agree(built, lowered(built, form), images(net))


@pytest.mark.parametrize("rule", RULES)
def test_a_tensor_may_be_called_like_a_rules_cotangent(rule: str) -> None:
    net = Net(height=12, width=12)
    a = net.block("x", 16)
    b = net.block(net.block(a, 16, 3, 2, pads=[0, 0, 1, 1]), 16, pads=[1, 1, 0, 0])
    net.head(b)
    renamed(net, {a: "guided/b", b: "b"})
    for rules in (rule, RULES):
        built = portable(net.model(), rules)
        for form in FORMS:
            agree(built, lowered(built, form), images(net))


def test_the_sources_own_nodes_may_be_called_as_ours() -> None:
    net = Net(height=12, width=12)
    up = net.node("ConvTranspose", net.block("x", 16), net.weight(net.random.standard_normal((16, 16, 3, 3)) * 0.1))
    net.channels[up] = 16
    net.head(net.block(net.relu(up), 16))
    for k, node in enumerate(net.nodes):
        node.name = f"grad/{k}"
    both_agree(net, images(net))
    source, other = net.model(), lowered(portable(net.model()))
    nodes = {n.name: n for n in other.graph.node}
    assert all(nodes[n.name] == n for n in source.graph.node)


def test_nodes_without_names() -> None:
    net = two_layers()
    for node in net.nodes:
        node.name = ""
    assert both_agree(net, images(net))["cpu"]["gates"] == 6


# --- numbers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-18, 1e-10, 1e10, 1e15, 1e20, 1e30, 1e37])
def test_pools_of_small_and_large_numbers(scale: float) -> None:
    """The image's own pool, and one behind others; from 2^38 on, 2^90 times a number is infinite."""
    net = Net(height=9, width=9)
    x = net.node("Mul", net.conv("x", 16), net.weight(scale))
    net.channels[x] = 16
    for _ in range(2):
        x = net.pool(net.relu(x), 3, 2, 1)
    x = net.node("Mul", x, net.weight(1 / scale))
    net.channels[x] = 16
    net.head(net.block(x, 16))
    both_agree(net, images(net, steps=1))


@pytest.mark.parametrize("pads", [0, 1])
@pytest.mark.parametrize("kernel", [2, 3])
def test_what_a_pool_of_nothing_but_zeros_sends_goes_to_the_first(kernel: int, pads: int) -> None:
    """Seen where no mask of the rectifier follows: the cotangent of the zeros themselves, under deconvnet."""
    net = Net(channels=16, height=7, width=7)
    net.head(net.conv(net.pool(net.relu("x"), kernel, 2, pads), 16))
    x = np.zeros((2, 16, 7, 7), np.float32)
    x[1, :, ::3, ::2] = 1.0
    feeds = {"x": x, "target": np.array([0, 1])}
    both_agree(net, feeds)
    assert attributions(run(portable(net.model(), "deconvnet"), feeds))["attribution_deconvnet"][0].any()


@pytest.mark.parametrize("value", [0.0, 0.7, -0.7])
def test_images_of_one_value(value: float) -> None:
    net = Net(height=14, width=15)
    x = net.pool(net.block("x", 16, 3, 2, cap=1.0), 3, 2, 1)
    net.head(net.block(net.concat(net.block(x, 16), net.pool(x, 3, 1, 1)), 16))
    built = portable(net.model())
    feeds = {"x": np.full((2, 3, 14, 15), value, np.float32), "target": np.array([1, 2])}
    for form in FORMS:
        agree(built, lowered(built, form), feeds)


@pytest.mark.parametrize("cap", [6.0, 1.0, 1e-3, 3e4])
def test_values_at_the_ends_of_a_cap(cap: float) -> None:
    """Exactly 0, exactly the cap, and their neighbours in float32."""
    below = np.nextafter(np.float32(cap), np.float32(0))
    above = np.nextafter(np.float32(cap), np.float32(2 * cap))
    ends = np.array([-cap, -0.0, 0.0, cap / 2, below, cap, above, 2 * cap, cap * 2.0**-20], np.float32)
    net = Net(channels=16, height=3, width=3)
    net.head(net.conv(net.clip("x", cap), 16))
    x = np.stack([np.resize(np.roll(ends, k), (3, 3)) for k in range(16)])[None]
    feeds = {"x": np.concatenate([x, x[:, ::-1]]), "target": np.array([0, 3])}
    built = portable(net.model())
    for form in FORMS:
        other = lowered(built, form)
        agree(built, other, feeds)
        for rule in ("saliency", "guided"):
            found, wanted = (run(m, feeds)[f"attribution_{rule}"] for m in (other, built))
            assert np.array_equal(found != 0, wanted != 0)


def test_a_cap_that_the_fold_cannot_hold_keeps_its_gate() -> None:
    for cap, places in ((2.0**-14, 1), (2.0**-17, 0)):
        net = Net(channels=16, height=4, width=4)
        net.head(net.conv(net.clip("x", cap), 16))
        built = portable(net.model(), "guided")
        assert fired(lowered(built)).get("gates", 0) == places
        feeds = images(net)
        agree(built, lowered(built), {**feeds, "x": feeds["x"] * np.float32(cap)})


def test_maps_of_nothing_stay_nothing() -> None:
    net = Net(height=8, width=8)
    dead = net.relu(net.node("Sub", net.conv("x", 16), net.weight(1e3)))
    net.channels[dead] = 16
    net.head(net.block(net.pool(dead, 3, 2, 1), 16))
    built = portable(net.model(), ("saliency", "guided"))
    for form in FORMS:
        other = lowered(built, form)
        agree(built, other, images(net), nonzero=False)
        assert not any(m.any() for m in attributions(run(other, images(net))).values())


@pytest.mark.parametrize("size", [(16, 16), (13, 11)])
@pytest.mark.parametrize("cap", [None, 6.0])
def test_narrow_bottlenecks_of_large_tensors(
    size: tuple[int, int], cap: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the tensors were large: phases go through the next convolution, and are put together behind it."""
    monkeypatch.setattr(gates, "_LARGE", 0)
    net = Net(height=size[0], width=size[1])
    x = net.block("x", 16)
    for group in (48, 1):
        x = net.conv(net.block(net.block(x, 48, 1, cap=cap), 48, 3, 2, cap=cap, group=group), 16, 1)
    net.head(x)
    assert both_agree(net, images(net))["cpu"]["gates"] > 0


# --- sizes, types, operators --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [("H", "W"), (12, "W")])
def test_open_sizes_keep_the_portable_nodes(size: tuple[Any, Any]) -> None:
    net = Net(height=size[0], width=size[1])
    net.head(net.block(net.pool(net.block("x", 16), 3, 2, 1), 32, 3, 2))
    counts = both_agree(net, images(net))
    assert set(counts["cpu"]) <= {"rows", "sizes", "shapes"}


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 1), (1, 9), (5, 31)])
def test_tiny_images(size: tuple[int, int]) -> None:
    net = Net(height=size[0], width=size[1])
    net.head(net.block(net.pool(net.block("x", 16), 3, 2, 1), 32, 3, 2))
    both_agree(net, images(net))


@pytest.mark.parametrize("opset", range(11, 27))
def test_every_opset(opset: int) -> None:
    net = Net(height=14, width=13)
    x = net.block("x", 16, 3, 2, cap=6.0)
    x = net.pool(net.concat(net.block(x, 16, 1), net.block(x, 16)), 3, 1, 1)
    x = net.relu(net.node("Add", net.conv(x, 32, pads=[0, 0, 2, 2]), x))
    net.head(net.relu(net.norm(net.conv(x, 16, 3, 2))))
    built = portable(net.model(opset=opset))
    other = lowered(built)
    assert set(fired(other)) == {"sizes", "shapes", "rows", "scales", "gates", "sums"}
    agree(built, other, images(net), ("all",))


def in_type(net: Net, kind: int) -> onnx.ModelProto:
    model, dtype = net.model(), helper.tensor_dtype_to_np_dtype(kind)
    for weight in model.graph.initializer:
        value = numpy_helper.to_array(weight)
        if value.dtype == np.float32:
            weight.CopyFrom(numpy_helper.from_array(value.astype(dtype), weight.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = kind
    return model


@pytest.mark.parametrize("form", FORMS)
def test_half_precision(form: str) -> None:
    """The maps; the cuda form's scores on the CPU differ by a bit, as its masks keep a cast of the runtime's there."""
    net = two_layers()
    built = portable(in_type(net, TensorProto.FLOAT16))
    feeds = images(net)
    feeds["x"] = feeds["x"].astype(np.float16)
    wanted, found = (attributions(run(m, feeds, "none")) for m in (built, lowered(built, form)))
    for rule, value in wanted.items():
        assert np.abs(found[rule] - value).max() <= 1e-5 * np.abs(value).max(), rule


@pytest.mark.parametrize("form", FORMS)
def test_double_precision_keeps_its_rows(form: str) -> None:
    """Looked up, they would be float32. (ONNX Runtime has no convolution of doubles.)"""
    net = Net(height=5, width=6)
    hidden = net.node(
        "Relu", net.node("Gemm", net.node("Flatten", "x"), net.weight(net.random.standard_normal((90, 16))))
    )
    net.node("Gemm", hidden, net.weight(net.random.standard_normal((16, 5))), name="y")
    built = portable(in_type(net, TensorProto.DOUBLE))
    other = lowered(built, form)
    feeds = images(net)
    agree(built, other, {**feeds, "x": feeds["x"].astype(np.float64)})
    assert "rows" not in fired(other)


def test_weights_from_constant_nodes_and_shared_ones() -> None:
    net = Net(height=12, width=12)
    x, weight = net.block("x", 16), net.weight(net.random.standard_normal((16, 16, 3, 3)) * 0.1)
    for stride in (1, 2, 1):
        x = net.node("Conv", x, weight, pads=[1] * 4, strides=[stride] * 2)
        net.channels[x] = 16
        x = net.relu(x)
    net.head(x)
    assert both_agree(net, images(net))["cpu"]["gates"] == 12
    model = net.model()
    constants = [helper.make_node("Constant", [], [w.name], value=w) for w in model.graph.initializer]
    nodes = [*constants, *model.graph.node]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    built = portable(model)
    for form in FORMS:
        agree(built, lowered(built, form), images(net))


def test_channels_last() -> None:
    net = Net(channels=12, height=13, width=3)
    x = net.node("Transpose", "x", perm=[0, 3, 1, 2])
    net.channels[x] = 3
    net.head(net.block(net.pool(net.block(x, 16, 3, 2), 3, 2, 1), 16))
    assert both_agree(net, images(net))["cpu"]["gates"] == 6


@pytest.mark.parametrize("batch", ["N", "M", 1])
def test_two_images(batch: Any) -> None:
    """The second may have a batch of its own, which is broadcast."""
    net = Net(height=12, width=12)
    net.inputs.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [batch, 3, 12, 12]))
    net.channels["z"] = 3
    both = net.node("Add", net.block("x", 16), net.block(net.block("z", 16), 16))
    net.head(net.block(net.block(both, 16), 16, 3, 2))
    built = portable(net.model(), wrt=("x", "z"))
    feeds = images(net)
    feeds["z"] = np.random.default_rng(5).standard_normal((2 if batch == "N" else 1, 3, 12, 12)).astype(np.float32)
    for form in FORMS:
        agree(built, lowered(built, form), feeds)


def test_bodies_that_read_what_is_gated() -> None:
    net = Net(height=12, width=12)
    a = net.block("x", 16)
    b = net.block(a, 16)
    bodies = {}
    for name, nodes in {
        "then_branch": [("Add", [a, b], "t0"), ("Relu", ["t0"], "t1")],
        "else_branch": [("Mul", [a, b], "t1")],
    }.items():
        made = [helper.make_node(op, read, [name + out], name=name + out) for op, read, out in nodes]
        for node in made:
            node.input[:] = [name + i if i == "t0" else i for i in node.input]
        out = helper.make_tensor_value_info(made[-1].output[0], TensorProto.FLOAT, None)
        bodies[name] = helper.make_graph(made, name, [], [out])
    x = net.node("If", net.node("Greater", net.node("ReduceSum", "x", keepdims=0), net.weight(0.0)), **bodies)
    net.channels[x] = 16
    net.head(net.block(x, 16, 3, 2))
    feeds = images(net)
    for sign in (1, -1):
        both_agree(net, {**feeds, "x": feeds["x"] + np.float32(sign)})


def test_what_the_model_returns_itself() -> None:
    """Tensors inside gates, and a pool's Indices, which must not be taken away."""
    net = Net(height=12, width=12)
    x = net.block("x", 16)
    before = net.conv(x, 16)
    after = net.relu(before)
    pooled, indices = net.node("MaxPool", after, outputs=2, kernel_shape=[3, 3], strides=[2, 2])
    net.channels[pooled] = 16
    net.head(net.block(pooled, 16))
    model = net.model("y", x, before, after)
    model.graph.output.append(helper.make_tensor_value_info(indices, TensorProto.INT64, None))
    built = portable(model)
    for form in FORMS:
        agree(built, lowered(built, form), images(net, steps=1))


def test_a_pools_indices_that_another_node_reads() -> None:
    net = Net(height=12, width=12)
    pooled, indices = net.node("MaxPool", net.block("x", 16), outputs=2, kernel_shape=[2, 2], strides=[2, 2])
    net.channels[pooled] = 16
    back = net.node("MaxUnpool", net.block(pooled, 16), indices, kernel_shape=[2, 2], strides=[2, 2])
    net.channels[back] = 16
    net.head(net.block(back, 16))
    both_agree(net, images(net, steps=1))


def window(net: Net, x: str, cap: Any) -> str:
    """conv(x) where another convolution is between 0 and a cap."""
    other = net.conv(x, 16)
    low, high = net.node("Greater", other, net.weight(0.0)), net.node("Less", other, net.weight(cap))
    return str(net.node("Where", net.node("And", low, high), net.conv(x, 16), net.weight(0.0)))


LOOKALIKES: dict[str, Any] = {
    "a window of another tensor": lambda n, x: window(n, x, 1.0),
    "a window with a cap for each channel": lambda n, x: window(n, x, np.linspace(0.1, 2, 16).reshape(16, 1, 1)),
    "a mask for each channel": lambda n, x: n.node(
        "Where",
        n.node("Greater", n.weight(np.linspace(-1, 1, 16).reshape(1, 16, 1, 1)), n.weight(0.0)),
        x,
        n.weight(0.0),
    ),
    "a mask for each column": lambda n, x: n.node(
        "Where", n.node("Greater", n.weight(np.linspace(-1, 1, 12)), n.weight(0.0)), n.conv(x, 16), n.weight(0.0)
    ),
    "Clip from -1 to 1": lambda n, x: n.node("Clip", n.conv(x, 16), n.weight(-1.0), n.weight(1.0)),
    "Clip from 0.5 to 1": lambda n, x: n.node("Clip", n.conv(x, 16), n.weight(0.5), n.weight(1.0)),
    "ThresholdedRelu": lambda n, x: n.node("ThresholdedRelu", n.conv(x, 16), alpha=0.3),
    "ThresholdedRelu at 0": lambda n, x: n.node("ThresholdedRelu", n.conv(x, 16), alpha=0.0),
    "ThresholdedRelu below 0": lambda n, x: n.node("ThresholdedRelu", n.conv(x, 16), alpha=-0.3),
    "LeakyRelu": lambda n, x: n.node("LeakyRelu", n.conv(x, 16), alpha=0.1),
    "HardSigmoid": lambda n, x: n.node("HardSigmoid", n.conv(x, 16)),
    "HardSwish": lambda n, x: n.node("HardSwish", n.conv(x, 16)),
    "Max(Min)": lambda n, x: n.node("Min", n.node("Max", n.conv(x, 16), n.weight(0.0)), n.weight(1.0)),
    "a squeeze and excitation": lambda n, x: n.node(
        "Mul", x, n.node("Sigmoid", n.conv(n.relu(n.conv(n.node("GlobalAveragePool", x), 16, 1)), 16, 1))
    ),
    "a factor for each row": lambda n, x: n.node("Mul", x, n.weight(np.linspace(-1, 1, 12).reshape(1, 1, 12, 1))),
    "Relu of Relu": lambda n, x: n.relu(n.relu(n.conv(x, 16))),
    "Clip of Relu": lambda n, x: n.clip(n.relu(n.conv(x, 16)), 1.0),
    "Relu of Clip": lambda n, x: n.relu(n.clip(n.conv(x, 16), 1.0)),
    "x + x": lambda n, x: n.relu(n.node("Add", n.node("Add", x, x), n.conv(x, 16))),
    "x - y": lambda n, x: n.relu(n.node("Sub", x, n.conv(x, 16))),
    "a pool of -x": lambda n, x: n.pool(n.node("Neg", x), 3, 2, 1),
    "pools of pools with windows in the padding": lambda n, x: n.pool(n.pool(x, 2, 3, 1, ceil_mode=1), 2, 1),
    "AveragePool": lambda n, x: n.node("AveragePool", x, kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2]),
    "a global maximum": lambda n, x: n.node("Add", x, n.node("GlobalMaxPool", x)),
    "ConvTranspose": lambda n, x: n.relu(
        n.node("ConvTranspose", x, n.weight(n.random.standard_normal((16, 16, 3, 3)) * 0.1), strides=[2, 2])
    ),
    "Concat of rows": lambda n, x: n.node("Concat", x, n.conv(x, 16), axis=2),
    "Slice with steps": lambda n, x: n.node(
        "Slice", x, *(n.weight(v, np.int64) for v in ([1, 0], [12, 12], [2, 3], [2, 3]))
    ),
    "Slice": lambda n, x: n.node(
        "Slice", n.relu(n.conv(x, 16)), *(n.weight(v, np.int64) for v in ([1, 2], [11, 12], [2, 3]))
    ),
    "shuffled channels": lambda n, x: n.node(
        "Reshape",
        n.node("Transpose", n.node("Reshape", x, n.weight([0, 2, 8, 12, 12], np.int64)), perm=[0, 2, 1, 3, 4]),
        n.weight([0, 16, 12, 12], np.int64),
    ),
    "Resize": lambda n, x: n.node("Resize", x, "", n.weight([1, 1, 2, 2]), mode="nearest"),
    **{
        f"Pad {mode} {value}": lambda n, x, mode=mode, value=value: n.block(
            n.node(
                "Pad",
                x,
                n.weight([0, 0, 1, 2, 0, 0, 2, 1], np.int64),
                *([n.weight(value)] if mode == "constant" else []),
                mode=mode,
            ),
            16,
            3,
            2,
            pads=0,
        )
        for mode, value in (("constant", 0.0), ("constant", 1.5), ("reflect", 0.0), ("edge", 0.0))
    },
    "Pad that takes away": lambda n, x: n.block(n.node("Pad", x, n.weight([0, 0, -1, -1, 0, 0, -1, -2], np.int64)), 16),
}


@pytest.mark.parametrize("name", LOOKALIKES)
def test_lookalikes(name: str) -> None:
    net = Net(height=12, width=12)
    x = LOOKALIKES[name](net, net.block("x", 16))
    net.channels[x] = 16
    net.head(net.block(x, 16, 3, 2))
    both_agree(net, images(net))


@pytest.mark.parametrize("rank", [1, 3])
def test_other_numbers_of_axes(rank: int) -> None:
    net = Net()
    net.inputs[0] = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, *[9] * rank])
    x, inside = "x", 3
    for _ in range(2):
        x = net.node(
            "Conv", x, net.weight(net.random.standard_normal((16, inside, *[3] * rank)) * 0.2), pads=[1] * 2 * rank
        )
        x, inside = net.relu(x), 16
    x = net.node("MaxPool", x, kernel_shape=[2] * rank, strides=[2] * rank)
    net.channels[x] = 16
    net.head(x)
    both_agree(net, images(net))
