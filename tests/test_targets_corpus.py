"""Targets of real models from the corpus: detectors, inner tensors, decisions inside. Skipped where it is missing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gbp_onnx
from gbp_onnx.targets import Similar
from tests.corpus import CORPUS, needs_corpus

pytestmark = [needs_corpus, pytest.mark.corpus]
CAT_AND_DOG = CORPUS / "images" / "coreml_cat_dog.jpg"


def explainer(name: str, preprocess: str, **options: Any) -> gbp_onnx.Explainer:
    path = CORPUS / "models" / f"{name}.onnx"
    return gbp_onnx.Explainer(path, "guided", providers="cpu", preprocess=preprocess, **options)


def share_inside(found: gbp_onnx.Explanation, grown: float) -> float:
    """The share of |map| in the outlined box, grown by so many of its sizes on each side."""
    assert found.outline is not None and found.outline.box is not None
    strength = np.abs(found.attributions["guided"]).sum(axis=2)
    left, top, right, bottom = found.outline.box
    x, y = grown * (right - left), grown * (bottom - top)
    rows = slice(max(0, int(top - y)), int(bottom + y) + 1)
    columns = slice(max(0, int(left - x)), int(right + x) + 1)
    return float(strength[rows, columns].sum() / strength.sum())


def test_ultraface_explains_a_face_where_its_box_is() -> None:
    """The corpus has no human face; the best box is what the detector takes for one."""
    maker = explainer("ultraface_rfb_320", "lite,resize=stretch")
    found = maker.explain(CAT_AND_DOG)
    assert found.target[1] == 1 and found.explained != found.score and "detector" in found.warnings[0]
    assert share_inside(found, 1.0) > 0.5
    entry = maker.explain(CAT_AND_DOG, f"scores[0, {found.target[0]}, 1]")
    np.testing.assert_array_equal(entry.attributions["guided"], found.attributions["guided"])
    edge = maker.explain(CAT_AND_DOG, f"boxes[0, {found.target[0]}, 3]")
    assert edge.record["explained_tensor"] == "boxes" and edge.attributions["guided"].any()
    with pytest.raises(gbp_onnx.GbpError, match=r"'scores' \[4420, 2\], 'boxes' \[4420, 4\]"):
        maker.explain(CAT_AND_DOG, "mask")


def test_pnet_explains_the_best_cell() -> None:
    found = explainer("mtcnn_pnet", "lite,size=120x160").explain(CAT_AND_DOG, "box")
    assert found.target[2] == 1 and found.score > 0.5
    assert share_inside(found, 6.0) > 0.99, "P-Net sees 12 pixels around a cell of 2"


def test_rnet_stays_a_classifier() -> None:
    found = explainer("mtcnn_rnet", "lite").explain(CAT_AND_DOG)
    assert found.target in (0, 1) and found.what is None


def test_features_are_no_segmentation() -> None:
    found = explainer("ort_simplified_ssd", "imagenet").explain(CAT_AND_DOG)
    assert isinstance(found.target, tuple) and any("5760000 values" in w for w in found.warnings)


def test_a_zipmap_is_looked_through() -> None:
    maker = explainer("ort_squeezenet_tensor_input", "imagenet")
    found = maker.explain(CAT_AND_DOG)
    assert maker.output == "loss1" and found.head == "Sigmoid" and found.label
    assert found.attributions["guided"].any() and any("ZipMap" in w for w in found.warnings)


def test_a_class_over_a_part_of_the_last_features() -> None:
    """The dog's half of the picture says "golden retriever" more than the cat's; the mean over all is the logit."""
    name, features = "squeezenet11_imagenet_ts_op17", "/Relu_1_output_0"
    maker = explainer(name, "keras-caffe,resize=stretch", output=features)
    photo = gbp_onnx.Explainer(None, "guided", providers="cpu").explain(CAT_AND_DOG).frame.photo_size
    half, whole = (0, 0, photo[1] // 2, photo[0]), (0, 0, photo[1], photo[0])
    dog, everywhere = (maker.explain(CAT_AND_DOG, gbp_onnx.targets.Mask(207, place)) for place in (half, whole))
    logit = explainer(name, "keras-caffe,resize=stretch").explain(CAT_AND_DOG, 207)
    assert dog.explained > everywhere.explained == pytest.approx(logit.explained, rel=1e-5)
    np.testing.assert_allclose(everywhere.attributions["guided"], logit.attributions["guided"], rtol=1e-3, atol=1e-6)


def test_cats_are_alike() -> None:
    maker = explainer("squeezenet11_imagenet_ts_op17", "keras-caffe", output="/c10/Conv_output_0")
    images = CORPUS / "images"
    cat = images / "imagenet_n02123045_tabby.JPEG"
    alike = maker.explain(cat, Similar(images / "imagenet_n02123159_tiger_cat.JPEG"))
    unlike = maker.explain(cat, Similar(images / "imagenet_n07753592_banana.JPEG"))
    assert 1 > alike.explained > unlike.explained and alike.attributions["guided"].any()
