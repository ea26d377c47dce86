"""The public functions: Explainer, Explanation, build, differentiate, inspect, as the contract describes them."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from make_tiny import REFUSED_BY_ORT, TINY, feeds, make, write_external
from onnx import TensorProto
from PIL import Image

import gbp_onnx
from gbp_onnx import bundled
from gbp_onnx.errors import Reason

ALL = ("saliency", "deconvnet", "guided")
REFUSED = ("no_image", "unknown_op", "batchnorm_training", "not_differentiable", "disconnected")
EXPLAINABLE = [name for name in TINY if name not in REFUSED]
LABELS = ["ant", "bee", "cat", "dog", "elk"]
Array = np.ndarray[Any, Any]


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(model: onnx.ModelProto, inputs: dict[str, Array]) -> dict[str, Array]:
    names = [o.name for o in model.graph.output]
    return dict(zip(names, session(model).run(names, inputs), strict=True))


def explainer(name: str, rules: Any = ALL, **options: Any) -> gbp_onnx.Explainer:
    return gbp_onnx.Explainer(make(name), rules, providers="cpu", **options)


def photo(height: int = 40, width: int = 60, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def batch(count: int, name: str = "plain", seed: int = 0) -> Array:
    return feeds(make(name), batch=count, seed=seed)["image"]


def props(model: onnx.ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}


# --- Explainer.explain --------------------------------------------------------------------------------------------


def test_an_explanation_holds_what_it_promises() -> None:
    found = explainer("labelled").explain(photo())
    assert set(found.attributions) == set(ALL)
    for attribution in found.attributions.values():
        assert attribution.dtype == np.float32 and attribution.shape == (16, 16, 3) and np.isfinite(attribution).all()
    assert found.image.dtype == np.uint8 and found.image.shape == (16, 16, 3)
    assert found.predictions[0].index == found.target
    assert found.label == LABELS[found.target] == found.predictions[0].label
    assert found.score == found.predictions[0].score and 0 < found.score < 1
    assert sum(p.score for p in found.predictions) == pytest.approx(1, abs=1e-6)
    assert found.preprocess.name == "tf" and found.head == "Softmax"


def test_explained_is_the_logit() -> None:
    model = make("plain")
    maker = gbp_onnx.Explainer(model, "saliency", providers="cpu", preprocess="unit,resize=stretch")
    found = maker.explain(photo(16, 16), target=2)
    model.graph.output.append(onnx.ValueInfoProto(name="logits"))
    x = np.moveaxis(photo(16, 16), -1, 0)[None].astype(np.float32) / 255
    values = run(model, {"image": x})
    assert found.explained == pytest.approx(float(values["logits"][0, 2]), rel=1e-5)
    assert found.score == pytest.approx(float(values["scores"][0, 2]), rel=1e-5)


def test_the_map_is_the_derivative_of_the_explained_scalar() -> None:
    """Central differences of the logit, and of the probability under explain="output"."""
    x = batch(1).astype(np.float32)
    for explain, tensor in (("logit", "logits"), ("output", "scores")):
        model = make("plain")
        map_ = gbp_onnx.Explainer(model, "saliency", providers="cpu", explain=explain).attribute(x, 1)["saliency"]
        if tensor == "logits":
            model.graph.output.append(onnx.ValueInfoProto(name="logits"))
        runner, step = session(model), 1e-2
        for place in ((0, 1, 5, 5), (0, 0, 8, 3), (0, 2, 12, 12)):
            ends = []
            for sign in (1, -1):
                moved = x.copy()
                moved[place] += sign * step
                ends.append(float(runner.run([tensor], {"image": moved})[0][0, 1]))
            assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(float(map_[place]), rel=0.02, abs=1e-4)


@pytest.mark.parametrize("target", [3, np.int64(3), "dog", "DOG", (3,), (0, 3), [3], np.array([3])])
def test_every_form_of_one_target(target: Any) -> None:
    maker = explainer("labelled")
    found, expected = maker.explain(photo(), target), maker.explain(photo(), 3)
    assert (found.target, found.label, found.score) == (3, "dog", expected.score)
    np.testing.assert_array_equal(found.attributions["guided"], expected.attributions["guided"])


@pytest.mark.parametrize("target", [None, "top1", "TOP1", -1])
def test_top1(target: Any) -> None:
    found = explainer("labelled").explain(photo(), target)
    assert found.target == found.predictions[0].index


def test_top5() -> None:
    maker = explainer("labelled")
    found = maker.explain(photo(), "top5")
    assert [f.target for f in found] == [p.index for p in found[0].predictions]
    np.testing.assert_array_equal(
        found[1].attributions["guided"], maker.explain(photo(), found[1].target).attributions["guided"]
    )


def test_a_list_of_images() -> None:
    maker, pictures = explainer("labelled"), [photo(seed=k) for k in range(3)]
    found = maker.explain(pictures, [4, "ant", 2])
    assert [f.target for f in found] == [4, 0, 2]
    for one, picture in zip(found, pictures, strict=True):
        np.testing.assert_array_equal(
            one.attributions["guided"], maker.explain(picture, one.target).attributions["guided"]
        )
    assert [len(five) for five in maker.explain(pictures, "top5")] == [5, 5, 5]
    assert maker.explain([]) == []


def test_paths_pil_images_and_arrays_are_the_same(tmp_path: Path) -> None:
    maker, path = explainer("labelled"), tmp_path / "photo.png"
    Image.fromarray(photo()).save(path)
    maps = [maker.explain(form).attributions["guided"] for form in (path, str(path), Image.open(path), photo())]
    for other in maps[1:]:
        np.testing.assert_array_equal(maps[0], other)


def test_a_seed() -> None:
    """Any seed of the output's shape; a one-hot seed is the class."""
    maker = explainer("labelled")
    one_hot = np.eye(5, dtype=np.float32)[1]
    seeded, classed = maker.explain(photo(), one_hot), maker.explain(photo(), 1)
    assert seeded.target is None and seeded.label is None and seeded.score is None
    assert seeded.explained == pytest.approx(classed.explained, rel=1e-5)
    for rule in ALL:
        np.testing.assert_allclose(seeded.attributions[rule], classed.attributions[rule], rtol=1e-5, atol=1e-7)
    both = maker.explain(photo(), np.array([0, 2, 0, -1, 0], np.float64)).attributions["saliency"]
    parts = [maker.explain(photo(), k).attributions["saliency"] for k in (1, 3)]
    np.testing.assert_allclose(both, 2 * parts[0] - parts[1], rtol=1e-4, atol=1e-6)


def test_an_index_into_an_output_of_more_axes() -> None:
    maker = explainer("segmentation", preprocess="unit")
    found = maker.explain(photo(), (1, 5, 7))
    assert found.target == (1, 5, 7) == maker.explain(photo(), (0, 1, 5, 7)).target
    seed = np.zeros((2, 16, 16), np.float32)
    seed[1, 5, 7] = 1
    np.testing.assert_allclose(
        maker.explain(photo(), seed).attributions["guided"], found.attributions["guided"], rtol=1e-5, atol=1e-7
    )
    assert maker.explain(photo(), 1 * 256 + 5 * 16 + 7).target == (1, 5, 7)


@pytest.mark.parametrize(
    ("target", "code"),
    [
        (5, "GBP407"), (-2, "GBP407"), (True, "GBP407"), (1.0, "GBP407"), ((1, 1), "GBP407"), ((9,), "GBP407"),
        (np.zeros(4, np.float32), "GBP407"), ([1, 9], "GBP407"), ([], "GBP407"), ({}, "GBP407"),
        ("gnu", "GBP408"), ("", "GBP407"),
    ],
)  # fmt: skip
def test_targets_out_of_range(target: Any, code: str) -> None:
    with pytest.raises(gbp_onnx.GbpError) as caught:
        explainer("labelled").explain(photo(), target)
    assert caught.value.code == code


def test_labels_from_a_list_a_file_and_the_metadata(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("\n".join(name.upper() for name in LABELS))
    (tmp_path / "labels.json").write_text(json.dumps({str(k): name for k, name in enumerate(LABELS)}))
    names = {
        "list": explainer("plain", labels=LABELS).explain(photo(), 2).label,
        "text": explainer("plain", labels=tmp_path / "labels.txt").explain(photo(), 2).label,
        "json": explainer("plain", labels=str(tmp_path / "labels.json")).explain(photo(), 2).label,
        "metadata": explainer("labelled").explain(photo(), 2).label,
        "none": explainer("plain").explain(photo(), 2).label,
    }
    assert names == {"list": "cat", "text": "CAT", "json": "cat", "metadata": "cat", "none": None}


def test_four_labels_for_five_classes_have_background_in_front() -> None:
    found = explainer("plain", labels=LABELS[:4]).explain(photo(), 0)
    assert found.label == "background"


def test_labels_that_do_not_fit_are_not_shown() -> None:
    found = explainer("plain", labels=LABELS[:2]).explain(photo(), 0)
    assert found.label is None and any("2 labels do not fit 5 values" in w for w in found.warnings)


def test_preprocessing_in_every_form() -> None:
    record = {"preset": "unit", "resize": "stretch"}
    short = "unit,resize=stretch"
    maps = [
        explainer("plain", preprocess=form).explain(photo(), 0).attributions["guided"]
        for form in (record, short, json.dumps(record), gbp_onnx.Preprocess("x", scale=1 / 255, resize="stretch"))
    ]
    for other in maps[1:]:
        np.testing.assert_array_equal(maps[0], other)


def test_bgr_comes_back_as_rgb() -> None:
    """The model reads BGR; the map is in the order of the photograph. A colour swap proves it."""
    rgb, bgr = (explainer("plain", "saliency", preprocess=f"unit,channels={c},resize=stretch") for c in ("RGB", "BGR"))
    picture = photo(16, 16)
    straight = rgb.explain(picture, 1).attributions["saliency"]
    swapped = bgr.explain(picture[:, :, ::-1].copy(), 1).attributions["saliency"]
    np.testing.assert_allclose(swapped, straight[:, :, ::-1], rtol=1e-5, atol=1e-7)


def test_in_photo() -> None:
    found = explainer("labelled", preprocess="unit").explain(photo(40, 60), 1)
    placed = found.in_photo("guided")
    assert placed.dtype == np.float32 and placed.shape == (40, 60, 3)
    # 40 x 60 is scaled to 18 x 27, the frame lies at (1, 6) in it: of the photograph it covers what has its centre in
    # rows 2..37 and columns 13..48.
    inside = np.zeros((40, 60), bool)
    inside[2:38, 13:49] = True
    np.testing.assert_array_equal(placed.any(axis=2), inside)
    with pytest.raises(gbp_onnx.GbpError, match="GBP410"):
        found.in_photo("lrp")


def test_upright(tmp_path: Path) -> None:
    """A photograph that lies on its side and says so (EXIF) gives the map of the upright one."""
    path, exif = tmp_path / "turned.png", Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(photo()).copy()).save(path, exif=exif)
    maker = explainer("labelled")
    np.testing.assert_array_equal(
        maker.explain(path, 1).attributions["guided"], maker.explain(photo(), 1).attributions["guided"]
    )


# --- warnings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("infinite", {"preprocess": "raw"}, "NaN or infinite"),
        ("dead_relu", {"preprocess": "raw"}, "the map is zero everywhere"),
        ("plain", {}, "'imagenet' is a guess"),
        ("uint8_input", {}, "'raw' is a guess"),
        ("no_rectifier", {"preprocess": "raw"}, "no rectifier lies on the way"),
        ("some_rectifiers", {"preprocess": "raw"}, "1 HardSwish"),
        ("no_pool", {"preprocess": "raw"}, "deconvnet reads nothing of the forward pass"),
    ],
)
def test_warnings(name: str, options: dict[str, Any], text: str) -> None:
    found = explainer(name, **options).explain(photo())
    assert any(text in warning for warning in found.warnings), found.warnings


@pytest.mark.parametrize("name", ["plain", "fire", "residual", "mobilenet"])
def test_no_warnings_where_there_is_nothing_to_say(name: str) -> None:
    assert explainer(name, ("saliency", "guided"), preprocess="unit").explain(photo()).warnings == ()


def test_deconvnet_of_a_net_without_pooling_is_indeed_the_same_for_every_image() -> None:
    maker = explainer("no_pool")
    one, other = (maker.attribute(batch(1, "no_pool", seed), 2) for seed in (1, 2))
    np.testing.assert_array_equal(one["deconvnet"], other["deconvnet"])
    assert not np.array_equal(one["guided"], other["guided"])


def test_a_dead_net_still_has_a_picture(tmp_path: Path) -> None:
    found = explainer("dead_relu", preprocess="raw").explain(photo())
    with Image.open(found.save(tmp_path / "figure.png")) as figure:
        assert figure.size[0] > 400


# --- Explainer.attribute ------------------------------------------------------------------------------------------


def test_attribute_has_the_layout_of_the_input() -> None:
    for name, shape in (("plain", (2, 3, 16, 16)), ("nhwc", (2, 16, 16, 3)), ("grey", (2, 1, 28, 28))):
        maps = explainer(name).attribute(batch(2, name), 1)
        assert set(maps) == set(ALL)
        assert all(m.shape == shape and m.dtype == np.float32 for m in maps.values())


def test_a_batch_is_its_images_one_by_one() -> None:
    maker, x, targets = explainer("fire"), batch(5, "fire"), [0, 4, 2, 2, 1]
    together = maker.attribute(x, targets)
    for k, target in enumerate(targets):
        alone = maker.attribute(x[k : k + 1], target)
        for rule in ALL:
            np.testing.assert_array_equal(together[rule][k], alone[rule][0])
    np.testing.assert_array_equal(maker.attribute(x, np.array(targets))["guided"], together["guided"])


@pytest.mark.parametrize(
    ("name", "count"), [("fixed_batch_1", 3), ("fixed_batch_3", 3), ("fixed_batch_3", 5), ("fixed_batch_3", 1)]
)
def test_fixed_batch_models_take_any_count(name: str, count: int) -> None:
    maker = explainer(name)
    x = np.random.default_rng(0).standard_normal((count, 3, 16, 16)).astype(np.float32)
    targets = [k % 5 for k in range(count)]
    maps = maker.attribute(x, targets)["guided"]
    assert maps.shape == x.shape
    for k in range(count):
        np.testing.assert_allclose(
            maps[k], maker.attribute(x[k : k + 1], targets[k])["guided"][0], rtol=1e-5, atol=1e-7
        )
    assert maker.explain(photo(), 3).target == 3


def test_dynamic_sizes() -> None:
    maker = explainer("dynamic")
    for size in (16, 21, 32):
        x = feeds(make("dynamic"), size=size)["image"]
        assert maker.attribute(x, 0)["guided"].shape == x.shape
    assert maker.explain(photo()).image.shape == (224, 224, 3), "224 where neither model nor preprocessing says"
    sized = explainer("dynamic", preprocess="unit,size=32x48")
    assert sized.explain(photo()).attributions["guided"].shape == (32, 48, 3)


def test_uint8_input() -> None:
    """Integer pixels are taken as real numbers: the map is float32, per grey level."""
    maker = explainer("uint8_input")
    x = batch(2, "uint8_input")
    maps = maker.attribute(x, 1)
    assert x.dtype == np.uint8 and maps["saliency"].dtype == np.float32 and maps["saliency"].any()
    found = maker.explain(photo(16, 16), 1)
    assert found.attributions["guided"].shape == (16, 16, 3)
    with pytest.raises(gbp_onnx.GbpError, match="GBP405"):
        maker.attribute(x.astype(np.float32) / 3, 1)


def test_float16() -> None:
    maps = explainer("float16").attribute(batch(2, "float16"), 1)
    assert all(m.dtype == np.float32 and m.any() for m in maps.values())


def test_several_inputs() -> None:
    maker = explainer("two_inputs")
    inputs = feeds(make("two_inputs"))
    maps = maker.attribute(inputs, [1, 2])
    assert maps["guided"].shape == inputs["image"].shape
    with pytest.raises(gbp_onnx.GbpError, match="GBP406"):
        maker.explain(photo())
    with pytest.raises(gbp_onnx.GbpError, match="GBP405"):
        maker.attribute(inputs["image"])


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((1, 3, 16, 17), np.float32), np.zeros((3, 16, 16), np.float32), np.zeros((1, 16, 16, 3), np.float32),
        np.zeros((0, 3, 16, 16), np.float32), np.array("text"), np.zeros((1, 3, 16, 16), np.complex64),
        {"wrong": np.zeros((1, 3, 16, 16), np.float32)},
    ],
    ids=["size", "no batch", "layout", "empty", "text", "complex", "name"],
)  # fmt: skip
def test_arrays_of_the_wrong_kind(x: Any) -> None:
    with pytest.raises(gbp_onnx.GbpError) as caught:
        explainer("plain").attribute(x)
    assert caught.value.code == "GBP405"


def test_top5_is_for_explain() -> None:
    with pytest.raises(gbp_onnx.GbpError, match="GBP407"):
        explainer("plain").attribute(batch(1), "top5")


def test_one_target_for_each_image() -> None:
    with pytest.raises(gbp_onnx.GbpError, match="GBP407"):
        explainer("plain").attribute(batch(3), [1, 2])


def test_arguments_stay_as_they_were() -> None:
    x = batch(2)
    before = x.copy()
    explainer("plain").attribute(x, 1)
    np.testing.assert_array_equal(x, before)


# --- threads, determinism -----------------------------------------------------------------------------------------


def test_the_same_bits_again() -> None:
    first, second = explainer("fire"), explainer("fire")
    x = batch(2, "fire")
    for rule in ALL:
        np.testing.assert_array_equal(first.attribute(x, 1)[rule], first.attribute(x, 1)[rule])
        np.testing.assert_array_equal(first.attribute(x, 1)[rule], second.attribute(x, 1)[rule])


def test_threads_share_one_explainer() -> None:
    """Several threads, all forms of target at once (the seeded session is made on first use): equal bits."""
    maker, pictures = explainer("labelled"), [photo(seed=k) for k in range(8)]
    targets: list[Any] = [0, "dog", "top1", (2,), np.eye(5, dtype=np.float32)[4], 1, "elk", np.ones(5, np.float32)]
    expected = [explainer("labelled").explain(p, t).attributions for p, t in zip(pictures, targets, strict=True)]
    found: list[Any] = [None] * 8
    barrier = threading.Barrier(8)

    def work(k: int) -> None:
        barrier.wait()
        for _ in range(3):
            found[k] = maker.explain(pictures[k], targets[k]).attributions

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    for one, other in zip(found, expected, strict=True):
        for rule in ALL:
            np.testing.assert_array_equal(one[rule], other[rule])


# --- saving -------------------------------------------------------------------------------------------------------


def test_save(tmp_path: Path) -> None:
    found = explainer("labelled").explain(photo(), "dog")
    for suffix in (".png", ".jpg", ".webp", ".npz", ".json"):
        path = tmp_path / "new" / f"figure{suffix}"
        assert found.save(path) == path and path.is_file()
    with Image.open(tmp_path / "new" / "figure.png") as figure:
        assert figure.format == "PNG" and figure.size == found.figure().size
    with np.load(tmp_path / "new" / "figure.npz") as arrays:
        for rule in ALL:
            np.testing.assert_array_equal(arrays[rule], found.attributions[rule])
        np.testing.assert_array_equal(arrays["image"], found.image)
    record = json.loads((tmp_path / "new" / "figure.json").read_text(encoding="utf-8"))
    assert record == json.loads(json.dumps(found.to_dict()))
    assert record["target"] == 3 and record["label"] == "dog" and record["rules"] == list(ALL)
    assert len(record["source_sha256"]) == 64 and record["versions"]["onnxruntime"] == ort.__version__
    with pytest.raises(gbp_onnx.GbpError, match="GBP411"):
        found.save(tmp_path / "figure.tiff")
    assert not list(tmp_path.rglob(".*"))


def test_pictures() -> None:
    found = explainer("labelled").explain(photo(), 1)
    assert [title for title, _ in found.panels()] == ["Photograph", "Deconvnet", "Guided Backpropagation", "Saliency"]
    assert found.picture("guided", "gray").shape == (16, 16, 3)
    assert found.overlay("guided").shape == (16, 16, 3)
    assert found.overlay("guided", whole_photo=photo()).shape == (40, 60, 3)
    assert np.array_equal(found.overlay("guided", alpha=0.0), found.image)


# --- build --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXPLAINABLE)
def test_a_built_explainer_is_valid_and_keeps_the_forward_pass(name: str) -> None:
    source = make(name)
    built = gbp_onnx.build(source, ALL)
    onnx.checker.check_model(built, full_check=True)
    assert {n.domain for n in built.graph.node} <= {"", "ai.onnx"}
    inputs = feeds(source)
    count = len(inputs["image"])
    expected, found = (
        run(source, inputs),
        run(built, {**inputs, "target" if name != "names_taken" else "target_1": np.full(count, 1)}),
    )
    for output, value in expected.items():
        if name == "infinite":
            np.testing.assert_array_equal(np.isfinite(found[output]), np.isfinite(value))
        else:
            tolerance = 1e-3 if value.dtype == np.float16 else 1e-5
            scale = float(np.abs(value).max()) or 1.0
            assert float(np.abs(found[output].astype(np.float64) - value).max()) <= tolerance * scale
    for rule in ALL:
        key = json.loads(props(built)["gbp.outputs"])[f"attribution_{rule}"]
        assert found[key].shape == inputs["image"].shape and found[key].dtype == np.float32


@pytest.mark.parametrize("name", TINY)
def test_the_source_is_never_modified(name: str) -> None:
    source = make(name)
    before = source.SerializeToString(deterministic=True)
    for action in (gbp_onnx.build, gbp_onnx.differentiate, gbp_onnx.inspect, gbp_onnx.Explainer):
        try:
            action(source)
        except gbp_onnx.GbpError:
            assert name in (*REFUSED, *REFUSED_BY_ORT) or (name, action) == ("uint8_input", gbp_onnx.differentiate)
        assert source.SerializeToString(deterministic=True) == before


def test_path_bytes_and_model_are_the_same(tmp_path: Path) -> None:
    source = make("plain")
    path = tmp_path / "model.onnx"
    path.write_bytes(source.SerializeToString())
    forms = (path, str(path), path.read_bytes(), source)
    x, maps = batch(1), []
    for form in forms:
        maps.append(gbp_onnx.Explainer(form, ALL, providers="cpu").attribute(x, 1)["guided"])
    for other in maps[1:]:
        np.testing.assert_array_equal(maps[0], other)


def test_external_data(tmp_path: Path) -> None:
    path = write_external(make("plain"), tmp_path)
    built = gbp_onnx.build(path)
    assert not any(t.data_location for t in built.graph.initializer)
    np.testing.assert_array_equal(
        gbp_onnx.Explainer(built).attribute(batch(1), 1)["guided"],
        explainer("plain", "guided").attribute(batch(1), 1)["guided"],
    )


def test_inputs_outputs_and_metadata() -> None:
    source = make("labelled")
    built = gbp_onnx.build(source, ("guided", "saliency"))
    assert [i.name for i in built.graph.input] == ["image", "target"]
    target = built.graph.input[1].type.tensor_type
    assert target.elem_type == TensorProto.INT64 and [d.dim_param for d in target.shape.dim] == ["N"]
    assert [o.name for o in built.graph.output] == ["scores", "attribution_guided", "attribution_saliency"]
    for info in built.graph.output[1:]:
        assert info.type.tensor_type.elem_type == TensorProto.FLOAT
        assert info.type.tensor_type.shape == built.graph.input[0].type.tensor_type.shape
    found = props(built)
    assert {k: found[k] for k in props(source)} == props(source)
    assert json.loads(found["gbp.rules"]) == ["guided", "saliency"]
    assert found["gbp.output"] == "scores" and found["gbp.explained"] == "logits"
    assert found["gbp.version"] == gbp_onnx.__version__ and len(found["gbp.source_sha256"]) == 64
    assert json.loads(found["gbp.inputs"]) == {"image": "image", "target": "target"}


def test_target_input() -> None:
    """One class per image, -1 for the largest; the flat index where the output has more axes."""
    built = gbp_onnx.build(make("plain"))
    x = batch(3)
    by_class = run(built, {"image": x, "target": np.array([1, 4, -1])})
    best = int(by_class["scores"][2].argmax())
    again = run(built, {"image": x, "target": np.array([1, 4, best])})
    np.testing.assert_array_equal(by_class["attribution_guided"], again["attribution_guided"])
    flat = gbp_onnx.build(make("segmentation"))
    place = np.ravel_multi_index((1, 5, 7), (2, 16, 16))
    maps = run(flat, {"image": x, "target": np.full(3, place)})["attribution_guided"]
    found = explainer("segmentation").attribute(x, (1, 5, 7))["guided"]
    np.testing.assert_allclose(maps, found, rtol=1e-5, atol=1e-7)


def test_taken_names_are_numbered() -> None:
    built = gbp_onnx.build(make("names_taken"))
    assert json.loads(props(built)["gbp.inputs"]) == {"image": "image", "target": "target_1"}
    assert json.loads(props(built)["gbp.outputs"]) == {"attribution_guided": "attribution_guided_1"}
    assert [o.name for o in built.graph.output] == ["scores", "attribution_guided_1"]
    maker = gbp_onnx.Explainer(built)
    np.testing.assert_array_equal(
        maker.attribute(batch(1, "names_taken"), 1)["guided"],
        explainer("names_taken").attribute(batch(1, "names_taken"), 1)["guided"],
    )
    gradient = gbp_onnx.differentiate(make("names_taken"))
    assert [i.name for i in gradient.graph.input] == ["image", "scores_seed_1"]
    assert [o.name for o in gradient.graph.output] == ["scores", "image_grad_1"]


def test_building_from_a_built_explainer_is_refused() -> None:
    with pytest.raises(gbp_onnx.GbpError, match="GBP111"):
        gbp_onnx.build(gbp_onnx.build(make("plain")))


def test_a_built_explainer_brings_its_own_preprocessing_labels_and_rules(tmp_path: Path) -> None:
    path = tmp_path / "explainer.onnx"
    onnx.save(gbp_onnx.build(make("labelled"), ALL), path)
    maker, source = gbp_onnx.Explainer(path), explainer("labelled")
    assert maker.rules == ALL and maker.preprocess == source.preprocess
    one, other = maker.explain(photo(), "dog"), source.explain(photo(), "dog")
    assert one.label == "dog" and one.explained == other.explained and one.predictions == other.predictions
    for rule in ALL:
        np.testing.assert_array_equal(one.attributions[rule], other.attributions[rule])
    np.testing.assert_array_equal(
        maker.explain(photo(), np.ones(5, np.float32)).attributions["guided"],
        source.explain(photo(), np.ones(5, np.float32)).attributions["guided"],
    )
    assert set(gbp_onnx.Explainer(path, "saliency").explain(photo()).attributions) == {"saliency"}


def test_a_built_explainer_lacks_rules_that_were_not_built() -> None:
    built = gbp_onnx.build(make("plain"), "saliency")
    assert gbp_onnx.Explainer(built).rules == ("saliency",)
    with pytest.raises(gbp_onnx.GbpError, match="GBP410"):
        gbp_onnx.Explainer(built, ("deconvnet", "saliency"))


def test_several_image_inputs() -> None:
    built = gbp_onnx.build(make("two_inputs"), wrt=("image", "extra"))
    assert [o.name for o in built.graph.output][1:] == ["attribution_guided_image", "attribution_guided_extra"]


def test_the_output_is_chosen() -> None:
    assert props(gbp_onnx.build(make("multi_output")))["gbp.output"] == "scores", "the one that comes from a Softmax"
    boxes = gbp_onnx.build(make("multi_output"), output="boxes")
    assert props(boxes)["gbp.output"] == props(boxes)["gbp.explained"] == "boxes"
    best = gbp_onnx.build(make("multi_output"), output="best")
    assert props(best)["gbp.output"] == "scores", "an ArgMax is looked through"
    with pytest.raises(gbp_onnx.GbpError, match="GBP110"):
        gbp_onnx.build(make("multi_output"), output="nothing")


@pytest.mark.parametrize(
    ("name", "op"),
    [("plain", "Softmax"), ("logsoftmax", "LogSoftmax"), ("multilabel", "Sigmoid"), ("moved_head", "Softmax")],
)
def test_the_head_is_found(name: str, op: str) -> None:
    assert props(gbp_onnx.build(make(name)))["gbp.head"] == op
    whole = props(gbp_onnx.build(make(name), explain="output"))
    assert whole["gbp.head"] == "" and whole["gbp.explained"] == "scores"


@pytest.mark.parametrize(("name", "family"), [("no_rectifier", "leaky"), ("some_rectifiers", "smooth")])
@pytest.mark.parametrize("rule", ["guided", "deconvnet"])
def test_rectify_changes_what_it_names_and_nothing_else(name: str, family: str, rule: str) -> None:
    x, other = batch(1, name), "smooth" if family == "leaky" else "leaky"
    plain, same, changed = (
        explainer(name, rule, rectify=families).attribute(x, 1)[rule] for families in ((), (other,), (family,))
    )
    assert not np.allclose(plain, changed)
    if name == "no_rectifier":
        np.testing.assert_array_equal(plain, same)
    assert explainer(name, "saliency", rectify=family).attribute(x, 1)["saliency"] == pytest.approx(
        explainer(name, "saliency").attribute(x, 1)["saliency"]
    )


@pytest.mark.parametrize("options", [{"rules": "lrp"}, {"rules": ()}, {"explain": "loss"}, {"rectify": ("gelu",)}])
def test_options_that_do_not_exist(options: dict[str, Any]) -> None:
    with pytest.raises(gbp_onnx.GbpError, match="GBP410"):
        gbp_onnx.build(make("plain"), **options)


def test_all_obstacles_at_once() -> None:
    with pytest.raises(gbp_onnx.GbpError) as caught:
        gbp_onnx.build(make("unknown_op"))
    reasons = caught.value.reasons  # type: ignore[attr-defined]
    assert [(r.code, r.op) for r in reasons] == [
        ("GBP201", "com.example::Frobnicate"),
        ("GBP201", "com.example::Twiddle"),
    ]


def test_all_obstacles_on_both_sides_of_the_head() -> None:
    model = make("unknown_op")
    model.graph.node[-1].output[0] = "probabilities"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(0.5, np.float32), "ratio"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "training"))
    model.graph.node.append(
        onnx.helper.make_node("Dropout", ["probabilities", "ratio", "training"], ["scores"], "drop")
    )
    found = [(r["code"], r["op"]) for r in gbp_onnx.inspect(model).unsupported]
    assert found == [
        ("GBP201", "com.example::Frobnicate"),
        ("GBP201", "com.example::Twiddle"),
        ("GBP202", "Dropout"),
    ]


def test_building_is_deterministic(tmp_path: Path) -> None:
    """The same bytes in another process, whatever the hashes of strings are there."""
    onnx.save(make("fire"), tmp_path / "model.onnx")
    code = (
        "import sys, gbp_onnx; sys.stdout.buffer.write(gbp_onnx.build(sys.argv[1], sys.argv[2:]).SerializeToString())"
    )
    built = [
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "model.onnx"), *ALL],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert built[0] == built[1] and len(built[0]) > 1000


def test_masks_apply_at_every_rectifier() -> None:
    """Guided backpropagation is not deconvnet's map masked once by saliency's."""
    maps = explainer("residual").attribute(batch(1, "residual"), 1)
    assert not np.allclose(maps["guided"], np.where(maps["saliency"] != 0, maps["deconvnet"], 0))
    assert not np.allclose(maps["guided"], np.maximum(maps["saliency"], 0))


# --- differentiate ------------------------------------------------------------------------------------------------


def test_differentiate_names_types_and_shapes() -> None:
    model = gbp_onnx.differentiate(make("multi_output"))
    assert [i.name for i in model.graph.input] == ["image", "boxes_seed", "scores_seed"]
    assert [o.name for o in model.graph.output] == ["boxes", "scores", "best", "image_grad"]
    gradient = model.graph.output[3].type.tensor_type
    assert gradient == model.graph.input[0].type.tensor_type


def test_differentiate_sums_over_outputs() -> None:
    source = make("multi_output")
    x = batch(2, "multi_output")
    seeds = {
        f"{name}_seed": np.random.default_rng(k).standard_normal((2, n)).astype(np.float32)
        for k, (name, n) in enumerate({"boxes": 4, "scores": 5}.items())
    }
    together = run(gbp_onnx.differentiate(source), {"image": x, **seeds})["image_grad"]
    parts = [
        run(gbp_onnx.differentiate(source, outputs=name), {"image": x, f"{name}_seed": seeds[f"{name}_seed"]})[
            "image_grad"
        ]
        for name in ("boxes", "scores")
    ]
    np.testing.assert_allclose(together, parts[0] + parts[1], rtol=1e-4, atol=1e-6)


def test_an_independent_input_gets_zeros() -> None:
    model = gbp_onnx.differentiate(make("disconnected"), outputs="scores")
    inputs = feeds(make("disconnected"))
    found = run(model, {**inputs, "scores_seed": np.ones((2, 5), np.float32)})
    assert found["image_grad"].shape == inputs["image"].shape and not found["image_grad"].any()
    np.testing.assert_array_equal(found["extra_grad"], (inputs["extra"] > 0).astype(np.float32))


def test_a_named_integer_input_is_taken_as_real_numbers() -> None:
    model = gbp_onnx.differentiate(make("uint8_input"), wrt="image")
    found = run(model, {"image": batch(2, "uint8_input"), "scores_seed": np.eye(5, dtype=np.float32)[[0, 1]]})
    assert found["image_grad"].dtype == np.float32 and found["image_grad"].shape == (2, 16, 16, 3)
    with pytest.raises(gbp_onnx.GbpError, match="GBP108"):
        gbp_onnx.differentiate(make("uint8_input"))


def test_initializers_listed_as_inputs_stop_being_inputs() -> None:
    source = make("initializer_inputs")
    assert len(source.graph.input) > 1
    model = gbp_onnx.differentiate(source)
    assert [i.name for i in model.graph.input] == ["image", "scores_seed"]


def test_a_half_precision_gradient_has_the_inputs_type() -> None:
    model = gbp_onnx.differentiate(make("float16"))
    assert model.graph.output[1].type.tensor_type.elem_type == TensorProto.FLOAT16
    found = run(model, {"image": batch(2, "float16"), "scores_seed": np.eye(5, dtype=np.float16)[[0, 1]]})
    assert found["image_grad"].dtype == np.float16 and found["image_grad"].any()


def test_differentiate_does_not_look_through_the_head() -> None:
    model = gbp_onnx.differentiate(make("plain"))
    found = run(model, {"image": batch(1), "scores_seed": np.ones((1, 5), np.float32)})
    assert float(np.abs(found["image_grad"]).max()) < 1e-5, (
        "probabilities sum to one: the derivative of the sum is zero"
    )


def test_differentiate_under_a_rule() -> None:
    x, seed = batch(1), np.eye(5, dtype=np.float32)[[1]]
    plain = make("plain")
    del plain.graph.output[:]
    plain.graph.node.pop()  # the Softmax
    plain.graph.output.append(onnx.helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 5]))
    for rule in ALL:
        gradient = run(gbp_onnx.differentiate(plain, rule=rule), {"image": x, "logits_seed": seed})["image_grad"]
        np.testing.assert_allclose(gradient, explainer("plain", rule).attribute(x, 1)[rule], rtol=1e-5, atol=1e-7)


# --- inspect ------------------------------------------------------------------------------------------------------


def test_inspect() -> None:
    found = gbp_onnx.inspect(make("rectifiers"))
    assert found.counts == {"Relu": 1, "Max": 2, "Where": 1, "Clip": 1, "ThresholdedRelu": 1}
    assert found.head == {"output": "scores", "op": "Softmax", "node": "scores/Softmax"}
    assert found.explained == "logits" and found.wrt == ("image",)
    assert found.inputs == ({"name": "image", "type": "float", "shape": ["N", 3, 16, 16]},)


def test_inspect_as_json() -> None:
    found = json.loads(gbp_onnx.inspect(make("some_rectifiers")).to_json())
    assert found.keys() >= {
        "inputs",
        "outputs",
        "head",
        "rectifiers",
        "ungated",
        "unsupported",
        "preprocess",
        "warnings",
    }
    assert all(set(r) == {"name", "kind"} for r in (*found["rectifiers"], *found["ungated"]))
    assert {r["kind"] for r in found["ungated"]} == {"HardSwish", "PRelu", "Silu"}
    refused = json.loads(gbp_onnx.inspect(make("batchnorm_training")).to_json())
    (reason,) = refused["unsupported"]
    assert set(reason) == {"code", "op", "node", "why"} and reason["op"] == "BatchNormalization"
    assert json.loads(gbp_onnx.inspect(make("labelled")).to_json())["preprocess"]["name"] == "tf"


def test_inspect_a_built_explainer_sees_its_source() -> None:
    source, built = gbp_onnx.inspect(make("rectifiers")), gbp_onnx.inspect(gbp_onnx.build(make("rectifiers"), ALL))
    assert built.rectifiers == source.rectifiers and built.head == source.head and built.explained == source.explained


# --- errors, providers, the bundled pair --------------------------------------------------------------------------


def test_errors_survive_pickling() -> None:
    """Process pools send errors through pickle."""
    for make_error in (lambda: gbp_onnx.build(make("unknown_op")), lambda: gbp_onnx.Explainer("gone.onnx")):
        with pytest.raises(gbp_onnx.GbpError) as caught:
            make_error()
        again = pickle.loads(pickle.dumps(caught.value))
        assert (str(again), again.code, type(again)) == (str(caught.value), caught.value.code, type(caught.value))
        assert all(isinstance(r, Reason) for r in getattr(again, "reasons", ()))


@pytest.mark.parametrize("model", [3, None.__class__, ["model.onnx"]])
def test_what_is_no_model(model: Any) -> None:
    with pytest.raises(gbp_onnx.GbpError):
        gbp_onnx.build(model)


def test_providers() -> None:
    assert explainer("plain").providers == ("CPUExecutionProvider",)
    assert gbp_onnx.Explainer(make("plain"), providers=["CPUExecutionProvider"]).providers == ("CPUExecutionProvider",)
    for wish in ("tpu", ["NoSuchExecutionProvider"]):
        with pytest.raises(gbp_onnx.GbpError, match="GBP303"):
            gbp_onnx.Explainer(make("plain"), providers=wish)


def test_the_bundled_pair_is_the_default() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        maker = gbp_onnx.Explainer()
        found = maker.explain(bundled.photo_path())
    assert found.label in ("Egyptian cat", "tabby") and found.warnings == ()
    assert found.attributions["guided"].shape == (224, 224, 3)
    assert [p.label for p in found.predictions][:3] == ["Egyptian cat", "tiger cat", "tabby"]
    assert len(gbp_onnx.inspect(bundled.model_path()).rectifiers) == 26


# --- details that users meet --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "0: 'ant',\n1: 'bee',\n2: 'cat',\n3: 'dog',\n4: 'elk',\n",
        "{0: 'ant',\n 1: 'bee',\n 2: 'cat',\n 3: 'dog',\n 4: 'elk'}",
        "0 ant\n1 bee\n2 cat\n3 dog\n4 elk\n",
        "0\tant\n1\tbee\n2\tcat\n3\tdog\n4\telk\n",
        '{"id2label": {"0": "ant", "1": "bee", "2": "cat", "3": "dog", "4": "elk"}}',
        '["ant", "bee", "cat", "dog", "elk"]',
        "background\nant\nbee\ncat\ndog\nelk\n",
        "n01 ant\nn02 bee\nn03 cat\nn04 dog\nn05 elk\n".replace("n0", "n0000000"),
    ],
)
def test_label_files_as_they_are_found(tmp_path: Path, text: str) -> None:
    (tmp_path / "labels.txt").write_text(text)
    found = explainer("plain", labels=tmp_path / "labels.txt").explain(photo(), 2)
    assert found.label == "cat"


def test_an_explanation_shows_itself_in_a_line() -> None:
    found = explainer("labelled").explain(photo(), 1)
    assert len(repr(found)) < 200 and found.label in repr(found)
    assert found == found and len({found}) == 1


def test_a_picture_of_the_inputs_size_is_taken_as_it_is() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    found = gbp_onnx.Explainer(make("fixed_batch_1"), preprocess="raw").explain(pixels)
    size = found.image.shape[:2]
    exact = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    again = gbp_onnx.Explainer(make("fixed_batch_1"), preprocess="raw").explain(exact)
    assert np.array_equal(again.image, exact)


def test_top3_is_said_not_to_exist() -> None:
    with pytest.raises(gbp_onnx.GbpError, match="top1 and top5 are"):
        explainer("labelled").explain(photo(), "top3")
