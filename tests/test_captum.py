"""captum, where it is right (ReLUs are modules that nothing else reads), and where it is not: that we differ.

torchvision networks with random weights, exported by converters/torch_export.py; needs torch, torchvision and captum.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gbp_onnx

pytestmark = pytest.mark.oracle
torch = pytest.importorskip("torch", reason="torch is not installed (make oracle)")
captum_attr = pytest.importorskip("captum.attr", reason="captum is not installed (make oracle)")

METHODS = {"saliency": "Saliency", "deconvnet": "Deconvolution", "guided": "GuidedBackprop"}


def converter() -> Any:
    path = Path(__file__).resolve().parents[1] / "converters" / "torch_export.py"
    spec = importlib.util.spec_from_file_location("torch_export", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["torch_export"] = module
    spec.loader.exec_module(module)
    return module


def pair(name: str) -> tuple[Any, Any]:
    """A torchvision network with He-scaled random weights, and its ONNX export."""
    tools = converter()
    try:
        torchvision = tools.import_torchvision(torch)
    except Exception as error:
        pytest.skip(f"torchvision does not load: {error}")
    torch.manual_seed(0)
    options = {"init_weights": False} if name == "googlenet" else {}
    net = getattr(torchvision.models, name)(weights=None, **options).eval()
    if name == "googlenet":
        net.aux1 = net.aux2 = None
        net.aux_logits = False
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
                torch.nn.init.kaiming_normal_(module.weight)
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    example = torch.zeros(1, 3, 224, 224)
    return net, tools.export(net, example, torch, "torchscript", 17, True)


def compare(actual: np.ndarray[Any, Any], reference: np.ndarray[Any, Any]) -> tuple[float, float, float]:
    """max|d| / max|ref|, cosine, norm ratio"""
    a, b = actual.astype(np.float64).ravel(), reference.astype(np.float64).ravel()
    norms = np.linalg.norm(a), np.linalg.norm(b)
    return (
        float(np.abs(a - b).max() / np.abs(b).max()),
        float(a @ b / (norms[0] * norms[1])),
        float(norms[0] / norms[1]),
    )


def both(name: str, rules: tuple[str, ...]) -> dict[str, tuple[float, float, float]]:
    net, model = pair(name)
    x = np.random.default_rng(1).normal(size=(1, 3, 224, 224)).astype(np.float32)
    explainer = gbp_onnx.Explainer(model, rules, providers="cpu")
    maps, found = explainer.attribute(x, 7), {}
    for rule in rules:
        method = getattr(captum_attr, METHODS[rule])(net)
        options = {"abs": False} if rule == "saliency" else {}
        theirs = method.attribute(torch.from_numpy(x).requires_grad_(), target=7, **options).detach().numpy()
        found[rule] = compare(maps[rule], theirs)
    print(json.dumps({name: found}))
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["resnet18", "vgg16"])
def test_equal_where_captum_is_right(name: str) -> None:
    for rule, (worst, cosine, ratio) in both(name, tuple(METHODS)).items():
        assert worst <= 1e-4 or (cosine >= 0.9999 and abs(ratio - 1) <= 1e-3), (rule, worst, cosine, ratio)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["googlenet", "mobilenet_v2"])
def test_different_where_captum_sees_no_relu(name: str) -> None:
    """Functional ReLUs and ReLU6: captum returns the plain gradient and calls it guided; the plain gradients agree."""
    found = both(name, ("saliency", "guided", "deconvnet"))
    worst, cosine, ratio = found["saliency"]
    assert worst <= 1e-4 or (cosine >= 0.9999 and abs(ratio - 1) <= 1e-3)
    assert found["guided"][1] < 0.5
    assert found["deconvnet"][1] < 0.5
