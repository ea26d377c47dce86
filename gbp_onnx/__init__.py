"""Explain any image CNN from its exported ONNX file alone: Guided Backpropagation, Deconvnet and Saliency.

    import gbp_onnx

    explainer = gbp_onnx.Explainer("model.onnx", rules=("guided", "deconvnet", "saliency"))
    explanation = explainer.explain("dog.jpg")
    explanation.save("dog.png")

`import gbp_onnx` is light: onnx, onnxruntime and Pillow are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gbp_onnx.auditing.api import audit
    from gbp_onnx.comparison import Comparison, compare
    from gbp_onnx.errors import GbpError, GbpWarning
    from gbp_onnx.explainer import Explainer
    from gbp_onnx.explanation import Explanation
    from gbp_onnx.gradient import differentiate
    from gbp_onnx.graph.saving import save
    from gbp_onnx.inspection import Inspection, inspect
    from gbp_onnx.target import build
    from gbp_onnx.types import Prediction, Preprocess

__all__ = [
    "Comparison",
    "Explainer",
    "Explanation",
    "GbpError",
    "GbpWarning",
    "Inspection",
    "Prediction",
    "Preprocess",
    "__version__",
    "audit",
    "build",
    "compare",
    "differentiate",
    "inspect",
    "save",
]

_HOME = {
    "Comparison": "comparison",
    "Explainer": "explainer",
    "Explanation": "explanation",
    "GbpError": "errors",
    "GbpWarning": "errors",
    "Inspection": "inspection",
    "Prediction": "types",
    "Preprocess": "types",
    "audit": "auditing.api",
    "build": "target",
    "compare": "comparison",
    "differentiate": "gradient",
    "inspect": "inspection",
    "save": "graph.saving",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from gbp_onnx.version import package_version

        return package_version()
    if name not in _HOME:
        raise AttributeError(f"module 'gbp_onnx' has no attribute {name!r}")
    value = getattr(import_module(f"gbp_onnx.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
