"""The nine light models of the onnx package, opset 9, with seeded random weights: every rule, against differences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.backend.test
import pytest
from onnx import numpy_helper

import gbp_onnx
from gbp_onnx.probes import with_probes
from tests.oracle.weights import randomise_weights
from tests.vjp_check import session

LIGHT = Path(onnx.backend.test.__file__).parent / "data" / "light"
MODELS = (
    "bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50", "shufflenet", "squeezenet", "vgg19",
    "zfnet512",
)  # fmt: skip
RULES = ("saliency", "deconvnet", "guided")


def light(name: str) -> onnx.ModelProto:
    """The model with random weights; dense layers of 4096 units are cut to 64, which saves 1.5 GB."""
    model = onnx.load(LIGHT / f"light_{name}.onnx")
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT64 and tensor.name.endswith("__SHAPE"):
            sizes = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(np.where(sizes == 4096, 64, sizes), tensor.name))
    return randomise_weights(model, seed=7)


@pytest.mark.parametrize("name", MODELS)
def test_light_model(name: str) -> None:
    model = light(name)
    weights = {t.name for t in model.graph.initializer}
    image = next(i for i in model.graph.input if i.name not in weights)
    shape = [d.dim_value for d in image.type.tensor_type.shape.dim]
    x = np.random.RandomState(11).normal(0, 1, shape).astype(np.float32)
    want = session(model).run(None, {image.name: x})[0]
    built = gbp_onnx.build(model, RULES)
    props = {p.key: p.value for p in built.metadata_props}
    assert props["gbp.head"] == ("" if name == "densenet121" else "Softmax")
    roles = json.loads(props["gbp.outputs"])
    explained, seed = with_probes(built)
    run = session(built)
    names = [roles[f"attribution_{r}"] for r in RULES]
    feeds = {image.name: x, "target": np.asarray([-1], np.int64)}
    forward, logits, placed, *maps = run.run([model.graph.output[0].name, explained, seed, *names], feeds)
    np.testing.assert_allclose(forward, want, rtol=1e-5, atol=1e-5 * np.abs(want).max())
    assert int(logits.argmax()) == int(placed.argmax()) and placed.sum() == 1
    saliency, deconvnet, guided = (m.astype(np.float64) for m in maps)
    for rule in (saliency, deconvnet, guided):
        assert rule.shape == tuple(shape) and np.isfinite(rule).all() and rule.any()
    _along_directions(run, feeds, image.name, explained, int(logits.argmax()), saliency)


def _along_directions(
    run: Any, feeds: dict[str, np.ndarray], image: str, explained: str, chosen: int, slope: Any
) -> None:
    """d logit / d direction by differences: rectifiers that flip within the step and rounding leave a few per mille."""
    x, noise = feeds[image], np.random.RandomState(12).normal(size=slope.shape)
    ascent = slope / np.linalg.norm(slope)
    for direction in (ascent, ascent + noise / np.linalg.norm(noise)):
        ratios = []
        for step in (0.003, 0.01, 0.03):
            ends = [(x + sign * step * direction).astype(np.float32) for sign in (1, -1)]
            above, below = (run.run([explained], {**feeds, image: end})[0].reshape(-1)[chosen] for end in ends)
            ratios.append((float(above) - float(below)) / (2 * step) / float((slope * direction).sum()))
        assert np.median(ratios) == pytest.approx(1, abs=0.005)
