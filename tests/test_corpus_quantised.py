"""The corpus' quantised models: rectifiers found, integers kept, maps against the float64 oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

import gbp_onnx
from tests.corpus import CORPUS, needs_corpus
from tests.oracle.quantised_oracle import quantised_oracle
from tests.quantised_nets import fused, run

pytestmark = [needs_corpus, pytest.mark.corpus]
RULES = ("saliency", "deconvnet", "guided")
SQUEEZENET = "derived_squeezenet11_imagenet_ort_"
RECTIFIERS: dict[str, dict[str, int]] = {
    f"{SQUEEZENET}qdq_int8_perchannel": {"QuantizeLinear": 26},
    f"{SQUEEZENET}qoperator_uint8": {"QLinearConv": 26},
    "ort_mauimodeltester_model": {"Relu": 35},
    "ort_qdq_multi_consumer": {"QuantizeLinear": 3},
    "ort_qdq_multi_consumer_contrib": {"QuantizeLinear": 3},
    "tflite_coral_mobilenet_v1_0.25_128_quant": {"Clip": 27},
    "tflite_coral_mobilenet_v2_1.0_224_quant": {"Clip": 35},
    "tflite_mlperftiny_resnet8_cifar10_int8": {"Relu": 7},
    "ort_conv_qdq_s8s8_perchannel": {},
    "ort_conv_qdq_u8u8": {},
}
"""By kind: a Relu or Clip that the export kept is one rectifier with the quantiser behind it."""


def loaded(name: str) -> tuple[onnx.ModelProto, dict[str, Any]]:
    model = onnx.load(CORPUS / "models" / f"{name}.onnx")
    value = model.graph.input[0]
    sizes = [d.dim_value if d.dim_value > 0 else 1 for d in value.type.tensor_type.shape.dim]
    kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    random = np.random.RandomState(0)
    x = random.randn(*sizes) if kind.kind == "f" else random.randint(*map(int, limits(kind)), sizes)
    return model, {value.name: x.astype(kind)}


def limits(kind: Any) -> tuple[int, int]:
    return np.iinfo(kind).min, np.iinfo(kind).max + 1


@pytest.mark.parametrize("name", RECTIFIERS)
def test_rectifiers_are_found_and_none_twice(name: str) -> None:
    found = gbp_onnx.inspect(CORPUS / "models" / f"{name}.onnx")
    assert found.counts == RECTIFIERS[name]
    assert len({r["name"] for r in found.rectifiers}) == len(found.rectifiers)
    assert not found.ungated and not found.unsupported


@pytest.mark.filterwarnings("ignore:no rectifier lies on the way")
@pytest.mark.parametrize("name", RECTIFIERS)
def test_the_forward_stays_on_the_deployed_integers(name: str) -> None:
    model, feeds = loaded(name)
    built = gbp_onnx.build(model, RULES)
    assert fused(built) == fused(model)
    made = run(built, {**feeds, "target": np.asarray([-1])})
    for output, value in run(model, feeds).items():
        np.testing.assert_array_equal(made[output], value)


@pytest.mark.filterwarnings("ignore:no rectifier lies on the way")
@pytest.mark.parametrize("name", RECTIFIERS)
@pytest.mark.parametrize("rule", RULES)
def test_maps_agree_with_the_oracle(name: str, rule: str) -> None:
    model, feeds = loaded(name)
    wanted = quantised_oracle(model, feeds, rule)
    found = run(gbp_onnx.build(model, rule), {**feeds, "target": np.asarray([-1])})[f"attribution_{rule}"]
    assert np.abs(found - wanted.attribution).max() <= 1e-4 * np.abs(wanted.attribution).max()
    assert sorted(wanted.rectifiers) == sorted(r["name"] for r in gbp_onnx.inspect(model).rectifiers)
