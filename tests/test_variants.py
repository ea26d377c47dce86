"""The sessions of an explainer: forms of the backward part, sizes that a run makes known, seeds and maps far from 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from make_tiny import feeds, make
from onnx import TensorProto, helper, numpy_helper

import gbp_onnx
from gbp_onnx import variants
from gbp_onnx.graph.assemble import set_metadata
from gbp_onnx.graph.sizes import input_dims
from gbp_onnx.rules import RULES
from gbp_onnx.seeds import near_one

Lower = Callable[[onnx.ModelProto, str], onnx.ModelProto]


def image(count: int = 1, size: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 3, size, size)).astype(np.float32)


def same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert found.keys() == wanted.keys()
    for rule in wanted:
        np.testing.assert_allclose(found[rule], wanted[rule], rtol=1e-5, atol=1e-6)


def lowered_by(monkeypatch: pytest.MonkeyPatch, change: Callable[[onnx.ModelProto], None]) -> list[list[Any]]:
    """Put a lowering in the real one's place; the image shapes of the models that it was given."""
    seen = []

    def lower(model: onnx.ModelProto, form: str) -> onnx.ModelProto:
        assert form == "cpu"
        seen.append(input_dims(model)["image"])
        change(model)
        set_metadata(model, {"gbp.lowering": form})
        return model

    monkeypatch.setattr(variants, "lower", lower)
    return seen


def clip_maps(model: onnx.ModelProto) -> None:
    """As masks of a lowered form do, which are exact up to 1e18: no map is larger than that."""
    bounds = [numpy_helper.from_array(np.float32(sign * 1e18), f"bound{sign}") for sign in (-1, 1)]
    model.graph.initializer.extend(bounds)
    for output in [o for o in model.graph.output if o.name.startswith("attribution")]:
        maker = next(n for n in model.graph.node if output.name in n.output)
        maker.output[list(maker.output).index(output.name)] = f"{output.name}/all"
        model.graph.node.append(helper.make_node("Clip", [f"{output.name}/all", "bound-1", "bound1"], [output.name]))


def nothing(model: onnx.ModelProto) -> None:
    del model


# --- forms ----------------------------------------------------------------------------------------------------


def test_the_form_is_what_the_provider_likes() -> None:
    assert gbp_onnx.Explainer(make("plain"), providers="cpu").lowering == "cpu"
    assert gbp_onnx.Explainer(make("plain"), providers="cpu", lowering="portable").lowering == "portable"
    assert gbp_onnx.Explainer(make("plain"), providers="cpu", low_memory=True).lowering == "portable"


def test_no_such_form() -> None:
    with pytest.raises(gbp_onnx.GbpError, match=r"GBP410.*'fast' is no lowering"):
        gbp_onnx.Explainer(make("plain"), lowering="fast")


@pytest.mark.parametrize("threads", [-1, 1.5, True, "two", 10**9])
def test_no_such_number_of_threads(threads: Any) -> None:
    with pytest.raises(gbp_onnx.GbpError, match=r"GBP410.*is no number of threads"):
        gbp_onnx.Explainer(make("plain"), threads=threads)


def test_threads_change_no_map() -> None:
    x = image()
    same(gbp_onnx.Explainer(make("plain"), threads=1).attribute(x), gbp_onnx.Explainer(make("plain")).attribute(x))


def test_a_lowered_file_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    built = gbp_onnx.build(make("plain"), lowering="cpu")
    seen = lowered_by(monkeypatch, nothing)
    explainer = gbp_onnx.Explainer(built, providers="cpu")
    x = image(2)
    same(explainer.attribute(x), gbp_onnx.Explainer(make("plain"), lowering="portable").attribute(x))
    assert explainer.lowering == "cpu" and not seen
    with pytest.raises(gbp_onnx.GbpError, match=r"GBP410.*built with 'cpu', not 'portable'"):
        gbp_onnx.Explainer(built, lowering="portable")


def test_a_portable_file_is_lowered_and_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = lowered_by(monkeypatch, clip_maps)
    built = gbp_onnx.build(make("plain"))
    before = built.SerializeToString(deterministic=True)
    explainer = gbp_onnx.Explainer(built, providers="cpu")
    explainer.attribute(image())
    explainer.attribute(image(), np.ones(5, np.float32))
    assert seen == [[1, 3, 16, 16]] * 2  # for targets, and for seeds
    assert built.SerializeToString(deterministic=True) == before


def test_a_lowered_file_without_a_place_for_seeds() -> None:
    built = gbp_onnx.build(make("plain"), lowering="cpu")
    props = {e.key: e.value for e in built.metadata_props}
    for node in built.graph.node:  # another name: as if the one-hot were gone
        for names in (node.input, node.output):
            for at, name in enumerate(names):
                names[at] = "other" if name == props["gbp.seed"] else name
    explainer = gbp_onnx.Explainer(built)
    same(explainer.attribute(image()), gbp_onnx.Explainer(make("plain")).attribute(image()))
    photo = np.zeros((16, 16, 3), np.uint8)
    for target in (3, None):
        assert (
            explainer.explain(photo, target).explained
            == gbp_onnx.Explainer(make("plain")).explain(photo, target).explained
        )
    with pytest.raises(gbp_onnx.GbpError, match=r"GBP407.*no place for a seed"):
        explainer.attribute(image(), np.ones(5, np.float32))


# --- sizes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain", "dynamic", "fixed_batch_1", "fixed_batch_3", "multi_output", "two_inputs"])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_batches_are_what_their_images_are(name: str, count: int) -> None:
    model = make(name)
    if name.startswith("fixed_batch") and count != int(name[-1]):
        count = int(name[-1])
    explainer = gbp_onnx.Explainer(model, None, providers="cpu")
    assert explainer._runner.shape == input_dims(model)["image"]
    given = feeds(model, batch=count)
    built = gbp_onnx.build(model, tuple(RULES))
    plain = gbp_onnx.Explainer(built, None, lowering="portable")
    session = onnxruntime.InferenceSession(built.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [f"attribution_{rule}" for rule in RULES]
    wanted = dict(zip(RULES, session.run(names, {**given, "target": np.full(count, 1)}), strict=True))
    same(explainer.attribute(given, 1), wanted)
    same(plain.attribute(given, 1), wanted)


def test_one_image_has_a_session_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch axis is fixed at 1 on the CPU, and the shapes that are told are those of the file all the same."""
    explainer = gbp_onnx.Explainer(make("plain"), providers="cpu")
    runner = explainer._runner
    assert runner._session.input_shapes["image"] == [1, 3, 16, 16]
    assert runner.shape == ["N", 3, 16, 16] and runner.outputs["scores"] == ["N", 5]
    assert explainer.classes == 5


def test_sizes_are_fixed_before_a_model_is_lowered(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = lowered_by(monkeypatch, nothing)
    explainer = gbp_onnx.Explainer(make("dynamic"), providers="cpu")
    portable = gbp_onnx.Explainer(make("dynamic"), providers="cpu", lowering="portable")
    for size in (16, 18, 16, 23):
        same(explainer.attribute(image(1, size)), portable.attribute(image(1, size)))
    assert seen == [[1, 3, 16, 16], [1, 3, 18, 18], [1, 3, 23, 23]]


def test_few_sessions_for_sizes_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = lowered_by(monkeypatch, nothing)
    explainer = gbp_onnx.Explainer(make("dynamic"), providers="cpu")
    sizes = range(14, 14 + variants.SIZES_KEPT + 1)
    for size in (*sizes, sizes[-1], sizes[0]):
        explainer.attribute(image(1, size))
    assert [shape[2] for shape in seen] == [*sizes, sizes[0]]
    assert len(explainer._runner._variants._own_sizes) == variants.SIZES_KEPT


def test_declared_sizes_of_outputs_do_not_bind(monkeypatch: pytest.MonkeyPatch) -> None:
    """An export says of its outputs what was true of its own example; the session says what is true."""
    model = make("dynamic")
    for output in model.graph.output:
        for dim in output.type.tensor_type.shape.dim:
            dim.dim_param = "H"  # wrong: it is the name of the image's height
    lowered_by(monkeypatch, nothing)
    wanted = gbp_onnx.Explainer(make("dynamic"), lowering="portable").attribute(image(1, 19))
    same(gbp_onnx.Explainer(model).attribute(image(1, 19)), wanted)


# --- magnitudes -----------------------------------------------------------------------------------------------


def test_seeds_are_brought_near_one() -> None:
    seeds = np.array([[3e30, 1], [0, 0], [-5e-42, 1e-44], [np.inf, 1], [np.nan, 1], [1, 0.5]], np.float32)
    near, powers = near_one(seeds)
    assert [int(p) for p in powers] == [101, 0, -138, 0, 0, 0]
    ordinary = np.abs(near[[0, 2, 5]]).max(axis=1)
    assert ((ordinary >= 1) & (ordinary < 2)).all()
    np.testing.assert_array_equal(np.ldexp(near[[0, 1, 2, 5]], powers[[0, 1, 2, 5], None]), seeds[[0, 1, 2, 5]])
    np.testing.assert_array_equal(near[3:5], seeds[3:5])


@pytest.mark.parametrize("factor", [2.0**-110, 2.0**-20, 2.0**70, 2.0**100])
@pytest.mark.parametrize("count", [1, 3])
def test_maps_of_seeds_of_any_size(monkeypatch: pytest.MonkeyPatch, factor: float, count: int) -> None:
    """Maps are homogeneous in the seed, and stay it where a form has masks for moderate gradients only."""
    lowered_by(monkeypatch, clip_maps)
    explainer = gbp_onnx.Explainer(make("plain"), None, providers="cpu")
    seeds = np.random.default_rng(1).standard_normal((count, 5))
    seeds[:, 0] = 1.5
    usual = explainer.attribute(image(count), seeds)
    scaled = explainer.attribute(image(count), seeds * np.geomspace(factor, 1, count)[:, None].astype(np.float64))
    for rule, found in scaled.items():
        for row, at in enumerate(np.geomspace(factor, 1, count)):
            np.testing.assert_allclose(found[row] / at, usual[rule][row], rtol=1e-5, atol=1e-7)
    assert {form for _, form, _ in explainer._runner._variants._sessions} == {"cpu"}
    alone = explainer.explain(np.zeros((16, 16, 3), np.uint8), seeds[0] * factor)
    assert alone.explained == pytest.approx(
        explainer.explain(np.zeros((16, 16, 3), np.uint8), seeds[0]).explained * factor
    )


def steep(gain: float) -> onnx.ModelProto:
    """Scores that grow by `gain` squared with the image."""
    weights = np.random.default_rng(2).standard_normal((4, 3, 3, 3)).astype(np.float32) * np.float32(gain)
    dense = np.random.default_rng(3).standard_normal((5, 4)).astype(np.float32) * np.float32(gain)
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Gemm", ["f", "d"], ["scores"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "steep",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 16, 16])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 5])],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(dense, "d")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("gain", [1.0, 1e12])
def test_maps_beyond_what_a_form_gets_right(monkeypatch: pytest.MonkeyPatch, gain: float) -> None:
    """They are computed again in the portable form, image by image."""
    lowered_by(monkeypatch, clip_maps)
    wanted = gbp_onnx.Explainer(steep(gain), None, lowering="portable").attribute(image(2))
    explainer = gbp_onnx.Explainer(steep(gain), None, providers="cpu")
    found = explainer.attribute(image(2))
    for rule, attribution in wanted.items():
        assert (np.abs(attribution).max() > 1e18) == (gain > 1)
        np.testing.assert_allclose(found[rule], attribution, rtol=1e-5)
    forms = [form for _, form, _ in explainer._runner._variants._sessions]
    assert forms == (["cpu", "portable"] if gain > 1 else ["cpu"])


def test_maps_that_a_form_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    def divide_by_zero(model: onnx.ModelProto) -> None:
        model.graph.initializer.append(numpy_helper.from_array(np.float32(0), "nought"))
        output = next(o.name for o in model.graph.output if o.name.startswith("attribution"))
        maker = next(n for n in model.graph.node if output in n.output)
        maker.output[list(maker.output).index(output)] = "before"
        model.graph.node.append(helper.make_node("Div", ["before", "nought"], [output]))

    lowered_by(monkeypatch, divide_by_zero)
    wanted = gbp_onnx.Explainer(make("plain"), lowering="portable").attribute(image())
    same(gbp_onnx.Explainer(make("plain"), providers="cpu").attribute(image()), wanted)


def test_the_command_line_names_the_form(tmp_path: Path) -> None:
    from gbp_onnx.cli.main import run

    onnx.save(make("plain"), tmp_path / "plain.onnx")
    assert run(["build", str(tmp_path / "plain.onnx"), "-o", str(tmp_path / "built.onnx"), "--lowering", "cpu"]) == 0
    props = {e.key: e.value for e in onnx.load(tmp_path / "built.onnx").metadata_props}
    assert props["gbp.lowering"] == "cpu"
    words: Sequence[str] = ["explain", str(tmp_path / "built.onnx"), "--lowering", "portable", "--threads", "1"]
    assert run([*words, "-o", str(tmp_path / "out.png")]) == 2
