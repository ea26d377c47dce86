"""Targets beyond a class: each form explains the scalar that it names, and says so; wrong ones are refused."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from PIL import Image

import gbp_onnx
from gbp_onnx.errors import GbpError, GbpWarning
from gbp_onnx.targets import Box, Mask, Seed, Similar
from gbp_onnx.targets.similarity import cosine_and_gradient
from tests.head_models import HEADS, SIZE, head_model

Array = np.ndarray[Any, Any]
Scalar = Callable[[dict[str, Array]], float]


def photo(seed: int = 0, height: int = SIZE, width: int = SIZE) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def explainer(name: str, rules: Any = "saliency", **options: Any) -> gbp_onnx.Explainer:
    return gbp_onnx.Explainer(head_model(name), rules, providers="cpu", **({"preprocess": "unit"} | options))


def pixels(model: onnx.ModelProto, picture: Array) -> Array:
    """The preset "unit", by hand: the model's input for a picture of its size."""
    x = picture.astype(np.float64) / 255
    last = model.graph.input[0].type.tensor_type.shape.dim[3].dim_value == 3
    return x[None] if last else np.moveaxis(x, -1, 0)[None]


def forward(model: onnx.ModelProto, *inner: str) -> Callable[[Array], dict[str, Array]]:
    """Run a model for one image; each output, and the `inner` tensors, without the batch axis."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inner)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs() if "seq" not in o.type]

    def run(x: Array) -> dict[str, Array]:
        found = dict(zip(names, session.run(names, {"image": x.astype(np.float32)}), strict=True))
        return {n: v[0].astype(np.float64) if v.dtype.kind == "f" else v for n, v in found.items()}

    return run


def before_softmax(model: onnx.ModelProto, op: str = "Softmax") -> str:
    """The input of the model's head."""
    return next(n.input[0] for n in model.graph.node if n.op_type == op)


# --- the map is the derivative of what is named -------------------------------------------------------------------


def cosine(a: Array, b: Array) -> float:
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def mean_over(name: str, label: int, where: Array) -> Scalar:
    return lambda out: float(out[name][label][where].mean())


HALF = np.zeros((SIZE, SIZE), bool)
HALF[:, :16] = True


def at_entry(name: str, *place: Any) -> Callable[[dict[str, Array]], Scalar]:
    """The mean of a tensor at a place that does not depend on the image."""
    return lambda at: lambda out: float(np.mean(out[name][place]))


def in_predicted_mask(name: str, label: int, by: str = "", axis: int = 0) -> Callable[[dict[str, Array]], Scalar]:
    """The mean of a class of `name` over the pixels where the first run predicts it, by the tensor `by`."""

    def scalar(at: dict[str, Array]) -> Scalar:
        where = at[by or name].argmax(axis) == label
        return lambda out: float(np.moveaxis(out[name], axis, 0)[label][where].mean())

    return scalar


def best_of_ssd(at: dict[str, Array]) -> Scalar:
    box, label = np.unravel_index(at["scores"][:, 1:].argmax(), (64, 3))
    return lambda out: float(out["head"][box, label + 1])


def best_of_yolov5(label: int) -> Callable[[dict[str, Array]], Scalar]:
    def score(out: dict[str, Array]) -> Array:
        return np.asarray(out["output0"][:, 4] * out["output0"][:, 5 + label])

    def scalar(at: dict[str, Array]) -> Scalar:
        box = int(score(at).argmax())
        return lambda out: float(score(out)[box])

    return scalar


def second_of_nms(at: dict[str, Array]) -> Scalar:
    """The entry of all scores that is the second of those that NonMaxSuppression leaves."""
    (place,) = np.argwhere(np.isclose(at["all_scores"], at["second"], atol=1e-7))
    return lambda out: float(out["all_scores"][tuple(place)])


# model, target, tensors besides the outputs, and the explained scalar in terms of all these, for a given first run
CASES: list[tuple[str, Any, str, Callable[[dict[str, Array]], Scalar]]] = [
    ("deeplab", "mask:2", "", in_predicted_mask("out", 2)),
    ("deeplab", Mask(1), "", in_predicted_mask("out", 1)),
    ("deeplab", "mask:3@0,0,16,32", "", lambda at: mean_over("out", 3, HALF)),
    ("deeplab", Mask(3, HALF), "", lambda at: mean_over("out", 3, HALF)),
    ("deeplab", "out[0, 2, 3:9, :]", "", at_entry("out", 2, slice(3, 9))),
    ("deeplab", "[2, 3, 4]", "", at_entry("out", 2, 3, 4)),
    ("deeplab_argmax", "mask", "logits", in_predicted_mask("logits", 1)),
    ("segmenter_last", "mask:1", "head", in_predicted_mask("head", 1, "scores", -1)),
    ("text_map", "mask:0@0,0,16,32", "head", lambda at: mean_over("head", 0, HALF)),
    ("superresolution", "picture[:, 10:20, 10:20]", "", at_entry("picture", slice(None), slice(10, 20), slice(10, 20))),
    ("superresolution", "mask:1@0,0,16,32", "", at_entry("picture", 1, slice(None), slice(0, 32))),
    ("ssd", "box:2@17", "head", at_entry("head", 17, 2)),
    ("ssd", "box", "head", best_of_ssd),
    ("ssd", "boxes[0, 17, 3]", "", at_entry("boxes", 17, 3)),
    ("yolov5", "box:1@9", "", lambda at: lambda out: float(out["output0"][9, 4] * out["output0"][9, 6])),
    ("yolov5", Box(2), "", best_of_yolov5(2)),
    ("yolov8", "box:2", "", lambda at: at_entry("output0", 6, at["output0"][6].argmax())(at)),
    ("yolov8", "box:0@5", "", at_entry("output0", 4, 5)),
    ("ssd_nms", "box:@1", "all_scores", second_of_nms),
    ("end_to_end", "box:@0", "", at_entry("rows", 0, 4)),
    ("detr", "box:3@7", "", at_entry("logits", 7, 3)),
    ("pnet", "box:1@20", "head", at_entry("head", 2, 4, 1)),
    ("embedding", Similar(photo(5)), "", lambda at: lambda out: cosine(out["vector"], at["other"])),
    ("multilabel", "age[0]", "", at_entry("age", 0)),
    ("topk", 1, "logits", at_entry("logits", 1)),
    ("zipmap", "dog", "logits", at_entry("logits", 1)),
    ("argmax", 3, "logits", at_entry("logits", 3)),
    ("hardmax", 3, "logits", at_entry("logits", 3)),
    ("nms_only", (2, 5), "head", at_entry("head", 5, 2)),
    ("spatial_head", 2, "head", at_entry("head", 2, 0, 0)),
    ("spatial_head_last", 2, "head", at_entry("head", 0, 0, 2)),
]


@pytest.mark.parametrize(("name", "target", "inner", "scalar"), CASES, ids=[f"{c[0]}-{str(c[1])[:24]}" for c in CASES])
def test_the_map_is_the_derivative_of_what_the_target_names(
    name: str, target: Any, inner: str, scalar: Callable[[dict[str, Array]], Scalar]
) -> None:
    """Central differences of the scalar along the map; the explained number is the scalar itself."""
    model, picture = head_model(name), photo()
    head = before_softmax(model, "Sigmoid" if name == "text_map" else "Softmax") if inner == "head" else inner
    run, x = forward(model, *([head] if head else [])), pixels(model, picture)

    def at(x: Array) -> dict[str, Array]:
        found = run(x)
        return found | ({"head": found[head]} if inner == "head" else {})

    first = at(x)
    if name == "embedding":
        first["other"] = at(pixels(model, photo(5)))["vector"]
    if name == "ssd_nms":
        session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        first["second"] = session.run(["scores"], {"image": x.astype(np.float32)})[0][1]
    value = scalar(first)
    found = explainer(name).explain(picture, target)
    assert found.explained == pytest.approx(value(first), rel=1e-4, abs=1e-6)
    slope = found.attributions["saliency"].astype(np.float64)
    direction = (
        slope if model.graph.input[0].type.tensor_type.shape.dim[3].dim_value == 3 else np.moveaxis(slope, -1, 0)
    )
    length = np.linalg.norm(direction)
    assert length > 1e-6
    # A step over a kink of some rectifier spoils one step size, not all.
    errors = []
    for step in (3e-2, 1e-2, 3e-3):
        ends = [value(at(x + sign * step * direction / length)) for sign in (1, -1)]
        errors.append(abs((ends[0] - ends[1]) / (2 * step) - length) / length)
    assert min(errors) < 5e-3, errors


def test_the_cosine_has_the_derivative_that_it_says() -> None:
    rng = np.random.default_rng(0)
    e, r, d = rng.normal(size=(3, 12))
    value, gradient = cosine_and_gradient(e, r)
    assert value == pytest.approx(cosine(e, r))
    slope = (cosine(e + 1e-6 * d, r) - cosine(e - 1e-6 * d, r)) / 2e-6
    assert float(gradient @ d) == pytest.approx(slope, rel=1e-6)
    with pytest.raises(GbpError, match="GBP407"):
        cosine_and_gradient(np.zeros(3), np.ones(3))


@pytest.mark.parametrize("target", ["mask:2", "mask:3@0,0,16,32", "[2, 3, 4]", Mask(3, HALF)])
def test_attribute_takes_the_same_targets(target: Any) -> None:
    maker, pictures = explainer("deeplab", ("guided",)), [photo(), photo(1)]
    x = np.concatenate([pixels(head_model("deeplab"), p) for p in pictures]).astype(np.float32)
    found = maker.attribute(x, target)["guided"]
    for row, picture in enumerate(pictures):
        alone = maker.explain(picture, target).attributions["guided"]
        np.testing.assert_allclose(np.moveaxis(found[row], 0, -1), alone, rtol=1e-4, atol=1e-7)


def test_each_image_of_a_batch_may_have_a_target_of_its_own() -> None:
    maker = explainer("yolov8", ("guided",))
    x = np.concatenate([pixels(head_model("yolov8"), photo(k)) for k in range(3)]).astype(np.float32)
    targets = ["box:1", 70, "output0[5, 3]"]
    found = maker.attribute(x, targets)["guided"]
    for row, target in enumerate(targets):
        np.testing.assert_array_equal(found[row], maker.attribute(x[row : row + 1], target)["guided"][0])
    assert [f.what for f in maker.explain([photo(0), photo(1)], ["box:1@3", "output0[5, 3]"])] == [
        "class 1 in box 3",
        "output0[5, 3]",
    ]


def test_top1_of_arrays_stays_the_largest_value() -> None:
    maker = explainer("ssd")
    x = pixels(head_model("ssd"), photo()).astype(np.float32)
    largest = int(forward(head_model("ssd"))(x)["scores"].argmax())
    np.testing.assert_array_equal(maker.attribute(x)["saliency"], maker.attribute(x, largest)["saliency"])


# --- what is said -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "target", "said"),
    [
        ("deeplab", "mask:1", "segmenter: top1 is the mean of class 1 over its predicted mask"),
        ("deeplab_argmax", "mask:1", "segmenter"),
        ("segmenter_last", "mask:1", "segmenter"),
        ("ssd", None, "detector: top1 is the score of class 1 in box"),
        ("ssd_nms", 0, "detector"),
        ("yolov5", None, "[centre, size, objectness, 3 classes]"),
        ("yolov8", None, "[centre, size, 3 classes]"),
        ("end_to_end", (0, 4), "[corners, score, class]"),
        ("detr", None, "class 5 is taken as background"),
        ("pnet", None, "detector"),
        ("superresolution", None, "top1 is the largest of the output's 12288 values, at [0, "),
    ],
)
def test_what_top1_has_become_is_said(name: str, target: Any, said: str) -> None:
    found = explainer(name).explain(photo())
    assert any(said in w for w in found.warnings), found.warnings
    assert target in (None, found.target)
    assert found.name in found.heading and json.dumps(found.to_dict())
    if name != "superresolution":
        assert found.outline is not None
        assert not np.array_equal(found.panels()[0][1], found.image), "the outline is drawn"


@pytest.mark.parametrize(
    ("name", "output", "tail"),
    [
        ("argmax", "logits", "ArgMax"), ("zipmap", "probabilities", "ArgMax"), ("topk", "probabilities", "TopK"),
        ("hardmax", "logits", "Hardmax"), ("nms_only", "by_class", "NonMaxSuppression"),
        ("deeplab_argmax", "logits", "ArgMax"),
    ],
)  # fmt: skip
def test_a_tail_is_looked_through_and_said(name: str, output: str, tail: str) -> None:
    model = head_model(name)
    found = gbp_onnx.inspect(model)
    assert any(tail in w and repr(output) in w for w in found.warnings)
    with pytest.warns(GbpWarning, match=tail):
        built = gbp_onnx.build(model, ("saliency",))
    props = {e.key: e.value for e in built.metadata_props}
    assert props["gbp.output"] == output and json.loads(props["gbp.tail"])["op"] == tail
    assert any(tail in w for w in json.loads(props["gbp.warnings"]))
    assert [o.name for o in built.graph.output] == [*(o.name for o in model.graph.output), "attribution_saliency"]
    assert any(tail in w for w in explainer(name).explain(photo()).warnings)


def test_an_explained_output_stays_as_it_is_where_that_is_asked() -> None:
    values = explainer("topk", explain="output")
    assert values.output == "values" and values.explain(photo()).target == 0


def test_names_of_classes_are_read_off_a_zipmap() -> None:
    assert explainer("zipmap").explain(photo(), "ELK").target == 2


def test_boxes_that_another_output_scores_are_not_the_default() -> None:
    for name, output in (("ssd", "scores"), ("ssd_nms", "scores"), ("detr", "logits"), ("pnet", "faces")):
        assert explainer(name).output == output
    assert explainer("ssd", output="boxes").output == "boxes"


def test_any_inner_tensor_can_be_named() -> None:
    model = head_model("deeplab_argmax")
    found = explainer("deeplab_argmax", output="logits").explain(photo(), "mask:1")
    assert found.target == explainer("deeplab_argmax", output="labels").explain(photo(), "mask:1").target == "mask:1"
    with pytest.warns(GbpWarning, match="inner tensor"):
        gbp_onnx.build(model, output="logits")
    with pytest.raises(GbpError, match=r"GBP110(?s:.)*labels"):
        gbp_onnx.build(model, output="nothing")


def test_top5_of_detectors_and_segmenters() -> None:
    five = explainer("yolov8").explain(photo(), "top5")
    assert [f.score for f in five] == sorted((f.score for f in five), reverse=True)
    assert len({f.target for f in five}) == 5 and [p.score for p in five[0].predictions] == [f.score for f in five]
    areas = explainer("deeplab").explain(photo(), "top5")
    assert {f.target for f in areas} <= {f"mask:{k}" for k in range(4)} and areas[-1].target == "mask:0"
    shares = [p.score for p in areas[0].predictions]
    assert sum(shares) == pytest.approx(1) and areas[0].shares and "%" in areas[0].seen


def test_labels_name_masks_and_boxes() -> None:
    labels = ["background", "cat", "dog", "elk"]
    found = explainer("deeplab", labels=labels).explain(photo(), "mask:dog")
    assert (found.label, found.target) == ("dog", "mask:2") and found.heading.startswith("dog over its predicted mask")
    assert explainer("deeplab", labels=labels).explain(photo(), "cat").target == "mask:1"
    box = explainer("yolov8", labels=labels[1:]).explain(photo(), "box:elk")
    assert box.label == "elk" and box.target[0] == 6
    assert explainer("yolov8", labels=labels[1:]).explain(photo(), "elk").target == box.target
    masked = explainer("spatial_head", labels=["mask", "box", "similar", "a[1]", "x.npy"])
    assert [masked.explain(photo(), t).target for t in ("mask", "BOX", "similar", "a[1]", "x.npy")] == [0, 1, 2, 3, 4]


def test_the_box_that_overlaps_a_region() -> None:
    """Prior 27 of ssd lies in column 3, row 3 of 8: pixels 10..18 of 32, 20..36 in one of twice the size."""
    found = explainer("ssd", preprocess="unit,resize=stretch").explain(photo(0, 64, 64), "box:1@20,20,36,36")
    assert found.name.endswith("box 27")
    assert found.outline is not None and found.outline.box == pytest.approx((10, 10, 18, 18), abs=3.5)


# --- regions, seeds, files ----------------------------------------------------------------------------------------


def test_a_mask_from_a_file_follows_the_photograph_through_the_crop(tmp_path: Path) -> None:
    """The photograph is 64 x 128 and its columns 32..96 are seen, at half size: from 72 on it is 20..32 there."""
    mask = np.zeros((64, 128), np.uint8)
    mask[:, 72:] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    np.save(tmp_path / "mask.npy", mask > 0)
    maker, picture = explainer("deeplab", preprocess="unit,crop_fraction=1"), photo(0, 64, 128)
    maps = [
        maker.explain(picture, target)
        for target in (
            f"mask:2@{tmp_path / 'mask.png'}", f"mask:2@{tmp_path / 'mask.npy'}", Mask(2, mask), "mask:2@72,0,128,64",
            "[2, :, 20:]",
        )
    ]  # fmt: skip
    for found in maps[1:]:
        np.testing.assert_allclose(
            found.attributions["saliency"], maps[0].attributions["saliency"], rtol=1e-5, atol=1e-9
        )
    assert maps[0].outline is not None and maps[0].outline.mask is not None
    np.testing.assert_array_equal(maps[0].outline.mask, np.tile(np.arange(SIZE) >= 20, (SIZE, 1)))
    common = maker.explain(picture, f"mask:{tmp_path / 'mask.png'}")
    assert common.target.startswith("mask:") and "region" in common.name


def test_seeds_from_files(tmp_path: Path) -> None:
    seed = np.random.default_rng(0).normal(size=(7, 64)).astype(np.float32)
    np.save(tmp_path / "seed.npy", seed)
    np.savez(tmp_path / "two.npz", output0=seed, other=seed)
    np.savez(tmp_path / "none.npz", a=seed, b=seed)
    np.save(tmp_path / "wrong.npy", seed[:3])
    np.save(tmp_path / "text.npy", np.array(["a"]))
    (tmp_path / "broken.npy").write_text("no array")
    maker = explainer("yolov8")
    wanted = maker.explain(photo(), seed).attributions["saliency"]
    for target in (str(tmp_path / "seed.npy"), Seed(tmp_path / "two.npz")):
        np.testing.assert_array_equal(maker.explain(photo(), target).attributions["saliency"], wanted)
    for name in ("none.npz", "wrong.npy", "text.npy", "broken.npy", "missing.npy"):
        with pytest.raises(GbpError, match="GBP407"):
            maker.explain(photo(), str(tmp_path / name))


def test_similar_to_a_file_and_to_itself(tmp_path: Path) -> None:
    Image.fromarray(photo(5)).save(tmp_path / "other.png")
    maker = explainer("embedding")
    found = maker.explain(photo(), f"similar:{tmp_path / 'other.png'}")
    assert found.name == "similarity to other.png" and found.score == found.explained
    array = pixels(head_model("embedding"), photo(5)).astype(np.float32)
    for target in (Similar(photo(5)), Similar(array), Similar(array[0])):
        np.testing.assert_allclose(
            maker.explain(photo(), target).attributions["saliency"], found.attributions["saliency"], atol=1e-8
        )
    same = maker.explain(photo(), Similar(photo()))
    assert same.explained == pytest.approx(1) and any("maximum" in w for w in same.warnings)
    assert np.abs(same.attributions["saliency"]).max() < 1e-3 * np.abs(found.attributions["saliency"]).max()


def test_similarity_looks_at_probabilities_behind_a_head() -> None:
    """The cosine is of the output itself, not of what the head's logits would be."""
    found = explainer("spatial_head").explain(photo(), Similar(photo(3)))
    run = forward(head_model("spatial_head"))
    ours, theirs = (run(pixels(head_model("spatial_head"), photo(k)))["scores"].ravel() for k in (0, 3))
    assert found.explained == pytest.approx(cosine(ours, theirs), rel=1e-5)
    assert found.head is None and found.record["explained_tensor"] == "scores"


# --- what is refused ----------------------------------------------------------------------------------------------

BAD = [
    ("spatial_head", "mask", "GBP407"), ("spatial_head", "box", "GBP407"), ("spatial_head", "box:1@2", "GBP407"),
    ("deeplab", "mask:4", "GBP407"), ("deeplab", "mask:cat", "GBP408"), ("deeplab", "mask:1@no.png", "GBP401"),
    ("deeplab", "mask:1@5,5,5,9", "GBP407"), ("deeplab", "mask:1@100,100,120,120", "GBP407"),
    ("deeplab", Mask(1, np.zeros((8, 8))), "GBP407"), ("deeplab", "out[0, 0]", "GBP407"),
    ("deeplab", "out[4, 0, 0]", "GBP407"), ("deeplab", "out[-1, 0, 0]", "GBP407"),
    ("deeplab", "out[0, 0, 32]", "GBP407"),
    ("deeplab", "out[1, 0, 0, 0]", "GBP407"), ("deeplab", "out[0, 5:5, 0]", "GBP407"), ("deeplab", "out[]", "GBP407"),
    ("deeplab", "out[a]", "GBP407"), ("deeplab", "out[::0, 0, 0]", "GBP407"), ("deeplab", "in[0, 0, 0]", "GBP407"),
    ("deeplab", "similar:", "GBP407"), ("deeplab", "similar:no.png", "GBP401"), ("deeplab", "cat", "GBP408"),
    ("ssd", "box:1@64", "GBP407"), ("ssd", "box:9", "GBP407"), ("ssd", "box:1@a", "GBP407"), ("ssd", "mask", "GBP407"),
    ("ssd", "box:1@1000,1000,1010,1010", "GBP407"), ("ssd_nms", "box:2@0", "GBP407"), ("yolov8", "top3", "GBP407"),
    ("deeplab", Mask(1, np.zeros((2, 2, 2, 2))), "GBP405"), ("deeplab", "mask:2@1,2,3", "GBP401"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "target", "code"), BAD, ids=[f"{b[0]}-{str(b[1])[:30]}" for b in BAD])
def test_bad_targets(name: str, target: Any, code: str) -> None:
    with pytest.raises(GbpError) as caught:
        explainer(name).explain(photo(), target)
    assert caught.value.code == code and caught.value.fix


def test_a_bad_target_says_what_the_model_has() -> None:
    for target in ("nothing[0, 1]", "box", "mask"):
        with pytest.raises(GbpError, match="scores"):
            explainer("spatial_head").explain(photo(), target)
    with pytest.raises(GbpError, match=r"class 0 is predicted nowhere(?s:.)*class 1 \(9"):
        explainer("segmenter_last").explain(photo(), "mask:0")


def test_a_built_explainer_explains_what_it_was_built_for(tmp_path: Path) -> None:
    onnx.save(gbp_onnx.build(head_model("ssd"), ("saliency",)), tmp_path / "built.onnx")
    maker = gbp_onnx.Explainer(tmp_path / "built.onnx", "saliency", preprocess="unit", providers="cpu")
    assert maker.explain(photo(), "box:2@17").target == (17, 2)
    for target in ("boxes[0, 1, 2]", Similar(photo(1))):
        with pytest.raises(GbpError, match=r"GBP407.*built explainer"):
            maker.explain(photo(), target)


def test_every_network_of_this_page_is_valid_and_seeded() -> None:
    for name in HEADS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            onnx.checker.check_model(head_model(name), full_check=name != "zipmap")
        assert head_model(name).SerializeToString() == head_model(name).SerializeToString()


def test_mask_coefficients_behind_the_classes_are_left_out() -> None:
    found = explainer("yolov8_seg").explain(photo())
    assert found.label in ("person", "car", "dog"), "the names that Ultralytics writes"
    assert any("3 classes" in w for w in found.warnings)
    table = forward(head_model("yolov8_seg"))(pixels(head_model("yolov8_seg"), photo()))["output0"]
    assert found.score == pytest.approx(table[4:7].max(), rel=1e-5)


def test_tensorflows_names() -> None:
    """The class of a box stands in detection_classes, not in another output of whole numbers; boxes are turned."""
    outputs = forward(head_model("tensorflow_ssd"))(pixels(head_model("tensorflow_ssd"), photo()))
    found = explainer("tensorflow_ssd").explain(photo())
    assert found.predictions[0].index == int(outputs["detection_classes"][0])
    assert found.outline is not None and found.outline.box is not None
    top, left, bottom, right = outputs["detection_boxes"][0] * SIZE
    assert found.outline.box == pytest.approx((left, top, right, bottom), rel=1e-5)


def test_a_detector_that_finds_nothing_says_so() -> None:
    for target in (None, "box", "top5"):
        with pytest.raises(GbpError, match=r"GBP407.*finds no box"):
            explainer("nothing_found").explain(photo(), target)


def test_an_output_that_was_chosen_is_not_left_for_another() -> None:
    """top1 of a detector's boxes, asked for by name, is not its scores."""
    found = explainer("ssd", output="boxes").explain(photo())
    assert found.record["output"] == "boxes" and any("no class or object" in w for w in found.warnings)
    built = gbp_onnx.build(head_model("ssd"), ("saliency",), output="boxes")
    maker = gbp_onnx.Explainer(built, "saliency", preprocess="unit", providers="cpu")
    assert maker.explain(photo()).target == found.target


def test_the_mean_over_a_large_mask_in_half_precision() -> None:
    """As exact as one entry is, though a weight of 1/700 has 11 bits only and smaller ones fewer."""
    maker = explainer("half_deeplab")
    mean = maker.explain(photo(), Mask(1, np.ones((SIZE, SIZE))))
    seed = np.zeros((4, SIZE, SIZE), np.float32)
    seed[1] = 1
    total = maker.explain(photo(), seed)
    assert mean.explained == pytest.approx(total.explained / SIZE**2, rel=1e-3)
    np.testing.assert_allclose(
        mean.attributions["saliency"] * SIZE**2, total.attributions["saliency"], rtol=1e-5, atol=1e-7
    )


def test_the_first_of_very_many_values_are_the_first_of_all() -> None:
    from gbp_onnx.explanation import top_predictions

    values = np.random.default_rng(0).integers(0, 3000, 20_000).astype(np.float32)
    values[::7] = np.nan
    wanted = np.argsort(-np.where(np.isnan(values), -np.inf, values), kind="stable")[:5]
    assert [p.index for p in top_predictions(values.reshape(20, -1), None)] == list(wanted)
    assert [p.index for p in top_predictions(np.full(9000, np.nan), None)] == [0, 1, 2, 3, 4]


def test_a_detector_that_finds_one_box() -> None:
    """Its first axis is 1 then, as a batch axis would be."""
    outputs = forward(head_model("one_found"))
    maker = explainer("one_found")
    for seed in range(40):
        x = pixels(head_model("one_found"), photo(seed)).astype(np.float32)
        if maker._runner.forward({"image": x})["boxes"].shape == (1, 4):
            found = maker.explain(photo(seed))
            assert found.target == 0 and found.outline is not None and found.attributions["saliency"].any()
            assert found.score == pytest.approx(float(outputs(x)["scores"]))
            return
    pytest.fail("no photo with one box")


def test_an_output_whose_size_is_not_declared() -> None:
    maker = explainer("free_output")
    plain = maker.explain(photo())
    assert maker.explain(photo(), f"vector[0, {plain.target}]").explained == pytest.approx(plain.explained)
    assert maker.explain(photo(), Similar(photo(3))).attributions["saliency"].any()
    assert maker.explain(photo(), np.eye(16, dtype=np.float32)[plain.target]).explained == pytest.approx(
        plain.explained
    )


def test_integer_pixels_carry_a_gradient_and_places_do_not() -> None:
    maker = gbp_onnx.Explainer(head_model("pixels_inside"), "saliency", providers="cpu")
    assert maker.output == "scores", "order is made of places"
    assert maker.explain(photo(0, SIZE, 40)).attributions["saliency"].any()
    assert maker.explain(photo(0, SIZE, 40), "scores[0, 3]").target == 3
    assert explainer("pixels_inside", preprocess="raw", output="order").output == "scores"


def test_a_map_of_numbers_is_no_detector() -> None:
    maker = explainer("depth")
    found = maker.explain(photo())
    assert isinstance(found.target, tuple) and any("no class or object" in w for w in found.warnings)
    with pytest.raises(GbpError, match=r"GBP407.*no boxes"):
        maker.explain(photo(), "box")
    region = maker.explain(photo(), "mask:0@0,0,16,32")
    assert region.explained == pytest.approx(maker.explain(photo(), "depth[0, :, 0:16]").explained, rel=1e-5)
