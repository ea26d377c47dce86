"""The lowered forms of the corpus' real models, on photographs. Skipped, and said so, where the corpus is missing."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from PIL import Image

from gbp_onnx.lowering import REWRITES
from tests.corpus import CORPUS, needs_corpus
from tests.corpus_split import EXPLAINED, expected, feeds_for, models
from tests.lowering_nets import attributions, fired, lowered, portable, run

pytestmark = [needs_corpus, pytest.mark.corpus]

PHOTOS = ("imagenet_n02092339_Weimaraner.JPEG", "imagenet_n07753592_banana.JPEG")
SLOW = {"paddle_ppocr_cls.onnx", "ort_simplified_ssd.onnx"}
"""Minutes for every photograph and form: one each."""
TOLERANCE = {("keras_mobilenet_v1_0.25", "deconvnet"): 2e-5}
"""Where 1e-5 of a map's maximum is less than both forms' own rounding: deconvnet's maps of this network are sums of
terms that cancel, and against float64 the portable form errs by up to 6e-6, the cpu form by up to 8e-6 (five
photographs), so that they may lie 1.1e-5 apart."""


def photograph(name: str, like: NDArray[Any], scale: float) -> NDArray[Any]:
    """A photograph in the shape and type of a model's input, about -scale..scale where that is float."""
    shape = like.shape
    last = len(shape) == 4 and shape[-1] in (1, 3) and shape[1] not in (1, 3)
    (height, width), channels = (shape[-3:-1], shape[-1]) if last else (shape[-2:], shape[-3] if len(shape) > 2 else 1)
    image = Image.open(CORPUS / "images" / name).convert("RGB" if channels == 3 else "L").resize((width, height))
    pixels = np.asarray(image, np.float32).reshape(height, width, -1)
    pixels = np.resize(pixels, (height, width, channels)) if pixels.shape[2] != channels else pixels
    if like.dtype.kind == "f":
        pixels = (pixels - 127.5) / 127.5 * scale
    elif like.dtype == np.int8:
        pixels = pixels - 128
    pixels = pixels if last else pixels.transpose(2, 0, 1)
    return np.broadcast_to(pixels.reshape(shape[1:] if len(shape) == 4 else shape), shape).astype(like.dtype)


@pytest.mark.parametrize("name", [p.name for p in models() if expected()[p.name] == EXPLAINED])
def test_the_maps_of_photographs_are_the_portable_ones(name: str) -> None:
    built = portable(CORPUS / "models" / name)
    feeds = feeds_for(ort.InferenceSession(built.SerializeToString(), providers=["CPUExecutionProvider"]))
    image = json.loads(next(e.value for e in built.metadata_props if e.key == "gbp.inputs"))["image"]
    scale = 127.0 if "squeezenet" in name else 2.0
    for photo in PHOTOS[: 1 if name in SLOW else None]:
        feeds[image] = photograph(photo, feeds[image], scale)
        wanted = run(built, feeds)
        for form in list(REWRITES)[: 1 if name in SLOW else None]:
            found = run(lowered(built, form), feeds)
            for output, value in attributions(wanted).items():
                rule = output.removeprefix("attribution_").split("_")[0]
                part = next((t for (n, r), t in TOLERANCE.items() if name.startswith(n) and r == rule), 1e-5)
                assert np.abs(found[output] - value).max() <= part * np.abs(value).max(), (output, form, photo)
            for output in set(wanted) - set(attributions(wanted)):
                assert np.array_equal(found[output], wanted[output]) or _close(found[output], wanted[output]), output
        assert any(m.any() for m in attributions(wanted).values())


def _close(found: Any, wanted: Any) -> bool:
    """The model's own outputs, a bit of which other fusions may change."""
    step = 2.0**-9 if wanted.dtype == np.float16 else 1e-6
    return bool(np.abs(found.astype(np.float64) - wanted).max() <= step * np.abs(wanted).max())


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("squeezenet11_imagenet_ts_op17.onnx", {"classifiers": 1, "pieces": 8, "gates": 25, "sums": 25}),
        ("mobilenetv2_tv_imagenet_ts_op11.onnx", {"rows": 1, "gates": 35, "sums": 35}),
        ("efficientnet_lite0_imagenet_ts_op13.onnx", {"rows": 1, "gates": 33, "sums": 40}),
        ("keras_resnet8_cifar10_tf2onnx.onnx", {"rows": 1, "gates": 7}),
    ],
)
def test_the_rewrites_find_their_places_in_real_networks(name: str, least: dict[str, int]) -> None:
    counts = fired(lowered(portable(CORPUS / "models" / name, "guided")))
    assert all(counts.get(rewrite, 0) >= places for rewrite, places in least.items()), counts
