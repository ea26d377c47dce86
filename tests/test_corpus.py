"""The corpus' real models and photographs, from file to map. Skipped, and said so, where the corpus is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import gbp_onnx
from gbp_onnx.errors import GbpError
from tests.corpus import CORPUS, needs_corpus
from tests.corpus_split import EXPLAINED, expected, feeds_for, models

pytestmark = [needs_corpus, pytest.mark.corpus]
RULES = ("saliency", "deconvnet", "guided")

PHOTOS = {
    "imagenet_n02092339_Weimaraner.JPEG": 178,
    "imagenet_n02123045_tabby.JPEG": 281,
    "imagenet_n02099601_golden_retriever.JPEG": 207,
    "imagenet_n02110341_dalmatian.JPEG": 251,
    "imagenet_n07753592_banana.JPEG": 954,
    "imagenet_n02504458_African_elephant.JPEG": 386,
    "pytorch_hub_dog_samoyed.jpg": 258,
}
EGYPTIAN_CAT, CORN = 285, 987
# What the corpus' table says that each model sees in the seven photographs, in order.
SEEN = {
    ("squeezenet11_imagenet_ts_op17", "keras-caffe"): (178, EGYPTIAN_CAT, 207, 251, CORN, 386, 258),
    ("squeezenet11_imagenet_dynamo_op18", "keras-caffe"): (178, EGYPTIAN_CAT, 207, 251, CORN, 386, 258),
    ("mobilenetv2_tv_imagenet_ts_op11", "imagenet"): (178, EGYPTIAN_CAT, 207, 251, 954, 386, 258),
    ("efficientnet_lite0_imagenet_ts_op13", "lite"): (178, EGYPTIAN_CAT, 207, 251, 954, 386, 258),
    ("winml_squeezenet_fp16", "keras-caffe"): (178, EGYPTIAN_CAT, 207, 251, CORN, 386, 258),
}

REFUSED = {name: verdict for name, verdict in expected().items() if verdict != EXPLAINED}
MODELS = [path.name for path in models()]


@pytest.mark.parametrize("name", [m for m in MODELS if m not in REFUSED])
def test_a_float_model_is_explained_and_its_results_stay(name: str) -> None:
    path = CORPUS / "models" / name
    built = gbp_onnx.build(path, RULES)
    onnx.checker.check_model(built) if not name.startswith(("ort_fuse", "trt_")) else None  # sources that fail it too
    session = ort.InferenceSession(built.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = feeds_for(session)
    image = json.loads(next(e.value for e in built.metadata_props if e.key == "gbp.inputs"))["image"]
    found = dict(zip((o.name for o in session.get_outputs()), session.run(None, feeds), strict=True))
    source = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    wanted = source.run(None, {k: v for k, v in feeds.items() if k != "target"})
    for output, value in zip(source.get_outputs(), wanted, strict=True):
        scale = max(np.abs(value).max(), 1e-30)
        assert np.abs(found[output.name].astype(float) - value.astype(float)).max() <= 1e-5 * scale, output.name
    for rule in RULES:
        attribution = found[f"attribution_{rule}"]
        assert attribution.shape == feeds[image].shape
        assert attribution.dtype == np.float32
        assert np.isfinite(attribution).all()
        assert attribution.any(), rule


@pytest.mark.parametrize("name", [m for m in MODELS if m in REFUSED])
def test_a_model_that_cannot_be_explained_is_refused_with_a_reason(name: str) -> None:
    with pytest.raises(GbpError) as refusal:
        gbp_onnx.build(CORPUS / "models" / name)
    assert refusal.value.code == REFUSED[name]
    assert refusal.value.fix
    assert name in str(refusal.value)


@pytest.mark.parametrize(("model", "preprocess"), SEEN)
def test_the_predictions_are_the_tables(model: str, preprocess: str) -> None:
    explainer = gbp_onnx.Explainer(CORPUS / "models" / f"{model}.onnx", preprocess=preprocess, providers="cpu")
    seen = tuple(explainer.explain(CORPUS / "images" / photo).target for photo in PHOTOS)
    assert seen == SEEN[model, preprocess]


def test_the_bundled_model_sees_what_the_corpus_one_does() -> None:
    explainer = gbp_onnx.Explainer(providers="cpu")
    wanted = SEEN["squeezenet11_imagenet_ts_op17", "keras-caffe"]
    assert tuple(explainer.explain(CORPUS / "images" / photo).target for photo in PHOTOS) == wanted


def test_the_guided_map_of_the_weimaraner_is_sharp_and_on_the_head() -> None:
    """Three measures: the share of |map| in a box around the head, in its strongest 5 % of pixels, and how much a pixel
    tells about its neighbour (correlation of the channel sum at distance 1; noise tells nothing)."""
    found = gbp_onnx.Explainer(None, RULES, providers="cpu").explain(CORPUS / "images" / next(iter(PHOTOS)))
    assert found.label == "Weimaraner"
    measures = {rule: measure(found.attributions[rule]) for rule in RULES}
    head, strongest, smooth = ({rule: m[k] for rule, m in measures.items()} for k in range(3))
    assert head["guided"] > 0.7 > 0.6 > head["saliency"]
    assert strongest["guided"] > 1.5 * strongest["saliency"]
    assert smooth["guided"] > 3 * smooth["saliency"]


def measure(attribution: np.ndarray[Any, Any]) -> tuple[float, float, float]:
    strength = np.abs(attribution).sum(axis=2)
    strength /= strength.sum()
    head = float(strength[:125, 85:190].sum())  # 26 % of the area
    strongest = float(np.sort(strength.ravel())[::-1][: strength.size // 20].sum())
    signed = attribution.sum(axis=2) - attribution.sum(axis=2).mean()
    pairs = ((signed[:, 1:] * signed[:, :-1]).mean() + (signed[1:] * signed[:-1]).mean()) / 2
    return head, strongest, float(pairs / (signed * signed).mean())


def test_several_photographs_at_once_equal_one_by_one() -> None:
    paths = [CORPUS / "images" / photo for photo in PHOTOS][:3]
    explainer = gbp_onnx.Explainer(providers="cpu")
    together = explainer.explain(list(paths), target=[178, 285, 207])
    for path, target, found in zip(paths, (178, 285, 207), together, strict=True):
        assert np.array_equal(
            found.attributions["guided"], explainer.explain(Path(path), target).attributions["guided"]
        )
