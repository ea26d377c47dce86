"""Several classes of one image share its forward pass, and are what each is alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from make_tiny import make
from onnx import TensorProto, helper, numpy_helper

import gbp_onnx
from gbp_onnx import together
from gbp_onnx.explanation import Explanation
from tests.quantised_nets import quantised_net
from tests.test_precision import converted

NAMES = (
    "plain",
    "residual",
    "fire",
    "mobilenet",
    "nhwc",
    "dynamic",
    "fixed_batch_1",
    "logsoftmax",
    "multilabel",
    "moved_head",
    "multi_output",
    "labelled",
    "some_rectifiers",
)


def photo(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)


def explainer(model: onnx.ModelProto, **options: Any) -> gbp_onnx.Explainer:
    return gbp_onnx.Explainer(model, None, providers="cpu", preprocess="unit,resize=stretch", **options)


def sharing(model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> gbp_onnx.Explainer:
    """An explainer that shares from the first image on, and has nothing else to run."""
    monkeypatch.setattr(together, "ALONE_FIRST", 0)
    found = explainer(model)

    def alone(*_: Any) -> Any:
        raise AssertionError("a class ran alone")

    monkeypatch.setattr(found._together, "_alone", alone)
    return found


def same(found: Explanation, wanted: Explanation) -> None:
    assert (found.target, found.label, found.what) == (wanted.target, wanted.label, wanted.what)
    assert found.score == (None if wanted.score is None else pytest.approx(wanted.score, rel=1e-6))
    assert found.explained == pytest.approx(wanted.explained, rel=1e-5, abs=1e-6)
    assert [p.index for p in found.predictions] == [p.index for p in wanted.predictions]
    assert found.warnings == wanted.warnings
    assert found.attributions.keys() == wanted.attributions.keys()
    for rule, attribution in wanted.attributions.items():
        np.testing.assert_allclose(found.attributions[rule], attribution, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_top5_is_five_classes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    maker, alone = sharing(make(name), monkeypatch), explainer(make(name))
    five = maker.explain(photo(), "top5")
    values = alone.explain(photo()).predictions
    assert [one.target for one in five] == [p.index for p in values]
    for one in five:
        same(one, alone.explain(photo(), one.target))


@pytest.mark.parametrize("name", NAMES)
def test_lists_of_classes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = explainer(make(name))
    classes = list(range(alone.classes or 0))[:4]
    found = sharing(make(name), monkeypatch).explain(photo(), [*classes, "top1"])
    assert len(found) == len(classes) + 1
    for one, target in zip(found, [*classes, None], strict=True):
        same(one, alone.explain(photo(), target))


@pytest.mark.parametrize("kind", ["integers", "float16", "bfloat16"])
def test_classes_of_other_types(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "integers":
        model = quantised_net("qdq_u8")
    else:
        model = converted(make("plain"), TensorProto.FLOAT, getattr(TensorProto, kind.upper()))
    alone, shape = explainer(model), tuple(d if isinstance(d, int) else 1 for d in explainer(model)._runner.shape)
    x = np.random.default_rng(4).standard_normal(shape).astype(alone.dtype)[:1]
    runner = sharing(model, monkeypatch)._opened.several(5)
    found = runner.run_several(runner.checked({alone.image_input: x}), np.array([0, 3, 1, 2, -1]))
    for one, target in zip(found, [0, 3, 1, 2, None], strict=True):
        for rule, attribution in alone.attribute(x, target).items():
            np.testing.assert_allclose(one.attributions[rule], attribution, rtol=1e-5, atol=1e-7)


def test_more_classes_than_run_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "ALONE_FIRST", 0)
    maker, alone = explainer(make("plain")), explainer(make("plain"))
    targets = [4, 0, 1, 3, 2, 2, 4, 1, 0, 3, 1, 0]
    for one, target in zip(maker.explain(photo(), np.array(targets)), targets, strict=True):
        same(one, alone.explain(photo(), target))
    assert list(maker._opened._several) == [5]


def test_lists_of_any_targets() -> None:
    maker = explainer(make("plain"))
    targets = [2, (3,), np.ones(5, np.float32), "top1"]
    found = maker.explain(photo(), targets)
    for one, target in zip(found, targets, strict=True):
        same(one, maker.explain(photo(), target))
    both = maker.explain([photo(), photo(1)], [[0, 1], 2])
    assert [one.target for one in both[0]] == [0, 1] and both[1].target == 2


def test_the_first_images_run_alone() -> None:
    """The other graph takes longer to build than it saves on them."""
    maker = explainer(make("plain"))
    for _ in range(together.ALONE_FIRST):
        first = maker.explain(photo(), "top5")
    assert not maker._opened._several
    for one, other in zip(maker.explain(photo(), "top5"), first, strict=True):
        same(one, other)
    assert list(maker._opened._several) == [5]


@pytest.mark.parametrize("case", ["built", "low memory", "batch of 3"])
def test_what_cannot_share_runs_alone(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "ALONE_FIRST", 0)
    maker = {
        "built": lambda: explainer(gbp_onnx.build(make("plain"), tuple(gbp_onnx.rules.RULES))),
        "low memory": lambda: explainer(make("plain"), low_memory=True),
        "batch of 3": lambda: explainer(make("fixed_batch_3")),
    }[case]()
    five = maker.explain(photo(), "top5")
    assert not maker._opened._several
    for one in five:
        same(one, maker.explain(photo(), one.target))


def test_classes_without_a_batch_axis(monkeypatch: pytest.MonkeyPatch) -> None:
    """[H, W, 3] -> [4]: maps are stacked on an axis of their own."""
    weights = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Relu", ["m"], ["r"]),
        helper.make_node("ReduceMean", ["r"], ["y"], axes=[0, 1], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "hwc",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [16, 16, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    alone = explainer(model)
    for one in sharing(model, monkeypatch).explain(photo(), "top5"):
        same(one, alone.explain(photo(), one.target))


def test_nan_is_ranked_by_one_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runtimes differ in where NaN goes among the largest: then classes run alone."""
    model = make("plain")
    scale = numpy_helper.from_array(np.array([1, np.nan, 1, 1, 1], np.float32), "holes")
    model.graph.initializer.append(scale)
    name = model.graph.output[0].name
    maker = next(n for n in model.graph.node if name in n.output)
    maker.output[0] = "whole"
    model.graph.node.append(helper.make_node("Mul", ["whole", "holes"], [name]))
    monkeypatch.setattr(together, "ALONE_FIRST", 0)
    five = explainer(model).explain(photo(), "top5")
    assert [one.target for one in five][-1] == 1
    assert sorted(one.target for one in five) == [0, 1, 2, 3, 4]
