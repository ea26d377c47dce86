"""Arrays that stay on a device, CUDA's options: what the CPU provider can show of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from make_tiny import feeds, make
from onnxruntime import OrtValue

import gbp_onnx
from gbp_onnx.runtime import providers
from gbp_onnx.runtime.binding import Replayed, is_value
from gbp_onnx.runtime.providers import CPU, CUDA, Choice, choose_providers


def value(array: Any) -> OrtValue:
    return OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))


@pytest.mark.parametrize("name", ["plain", "dynamic", "fixed_batch_3", "labelled"])
@pytest.mark.parametrize("count", [1, 3])
def test_values_in_and_values_out(name: str, count: int) -> None:
    explainer = gbp_onnx.Explainer(make(name), None, providers="cpu")
    x = feeds(make(name), batch=3 if name == "fixed_batch_3" else count)["image"]
    for target in (None, 2, list(range(len(x)))):
        wanted, found = explainer.attribute(x, target), explainer.attribute(value(x), target)
        for rule, attribution in wanted.items():
            assert is_value(found[rule]) and found[rule].device_name() == "cpu"
            np.testing.assert_allclose(found[rule].numpy(), attribution, rtol=1e-5, atol=1e-7)


def test_seeds_that_are_values() -> None:
    explainer, x = gbp_onnx.Explainer(make("plain"), providers="cpu"), feeds(make("plain"))["image"]
    seed = np.random.default_rng(0).standard_normal((2, 5)).astype(np.float32)
    found = explainer.attribute(value(x), value(seed))["guided"].numpy()
    np.testing.assert_allclose(found, explainer.attribute(x, seed)["guided"], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "x", "target", "code"),
    [
        ("plain", np.zeros((1, 3, 16, 16)), None, "GBP405"),
        ("plain", np.zeros((1, 3, 16, 17), np.float32), None, "GBP405"),
        ("plain", np.zeros((3, 16, 16), np.float32), None, "GBP405"),
        ("two_inputs", np.zeros((1, 3, 16, 16), np.float32), None, "GBP405"),
        ("plain", np.zeros((1, 3, 16, 16), np.float32), 5, "GBP407"),
        ("plain", np.zeros((1, 3, 16, 16), np.float32), np.ones(5, np.float32), "GBP407"),
        ("plain", np.zeros((1, 3, 16, 16), np.float32), [1, 2], "GBP407"),
        ("plain", np.zeros((1, 3, 16, 16), np.float32), value(np.ones((1, 4), np.float32)), "GBP305"),
    ],
)
def test_values_that_do_not_fit(name: str, x: np.ndarray, target: Any, code: str) -> None:
    with pytest.raises(gbp_onnx.GbpError) as caught:
        gbp_onnx.Explainer(make(name), providers="cpu").attribute(value(x), target)
    assert caught.value.code == code


def test_runs_that_are_replayed_keep_their_places() -> None:
    """One binding for each set of shapes, into which inputs are copied; the results are copies."""
    built = gbp_onnx.build(make("plain")).SerializeToString()
    session = onnxruntime.InferenceSession(built, providers=[CPU])
    replayed = Replayed(session, "cpu", 0)
    names, results = ["scores", "attribution_guided"], []
    for seed, count in ((0, 1), (1, 1), (2, 3), (3, 1), (4, 3)):
        given = {**feeds(make("plain"), batch=count, seed=seed), "target": np.full(count, seed)}
        results.append((replayed.run(given, names), session.run(names, given)))
    for found, wanted in results:
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(one, other)
    assert len(replayed._places) == 2


def test_cuda_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "cuda_problem", lambda: None)
    monkeypatch.setattr(providers.onnxruntime(), "get_available_providers", lambda: [CUDA, CPU])
    for wanted in ("auto", "cuda"):
        choice = choose_providers(wanted)
        assert choice.names == (CUDA, CPU)
        assert choice.option("use_tf32") == "0" and not choice.captures
    own = choose_providers([(CUDA, {"use_tf32": "1", "enable_cuda_graph": "1", "device_id": 1}), CPU])
    assert own.option("use_tf32") == "1" and own.captures and own.option("device_id") == "1"
    assert not Choice((CPU,), "").captures and Choice((CPU,), "").option("device_id") == ""
