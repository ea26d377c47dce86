"""Variants of `worker` that need nothing but this package: plain inference, and explanations."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.worker import Prepared, Settings

RULES = ("guided", "deconvnet", "saliency")


def imports(variant: str) -> None:
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    if variant not in ("inference", "session"):
        import gbp_onnx

        gbp_onnx.Explainer, gbp_onnx.build  # noqa: B018 - loaded on first use


def prepare(settings: Settings) -> Prepared:
    if settings.variant == "inference":
        return inference(settings), None
    if settings.variant == "session":
        session_of(settings)
        return (lambda: None), None
    if settings.variant.startswith("explain"):
        return explanation(settings), None
    rules = {"three rules": RULES, "saliency": ("saliency",), "deconvnet": ("deconvnet",)}
    asked = rules.get(settings.variant, ("guided",))
    lowering = "portable" if settings.variant.endswith("portable") else "auto"
    one = explainer(settings.model, asked, lowering, settings.threads)
    x = image_for(one._runner.shape, one.dtype, settings.size, settings.batch)

    def build() -> float:
        import gbp_onnx

        begin = time.perf_counter()
        gbp_onnx.build(settings.model, asked, lowering=lowering)
        return (time.perf_counter() - begin) * 1e3

    return (lambda: one.attribute(x, 0)), build


def inference(settings: Settings) -> Any:
    session = session_of(settings)
    feeds = {}
    for value in session.get_inputs():
        kind = np.dtype({"float": "float32", "double": "float64"}.get(value.type[7:-1], value.type[7:-1]))
        feeds[value.name] = image_for(value.shape, kind, settings.size, settings.batch)
    return lambda: session.run(None, feeds)


def session_of(settings: Settings) -> Any:
    """ONNX Runtime on the file as it is."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = settings.threads
    return ort.InferenceSession(str(settings.model), options, providers=["CPUExecutionProvider"])


def explanation(settings: Settings) -> Any:
    """`Explainer.explain` of a photograph of the model's own size: what is read and cut is next to nothing."""
    one = explainer(settings.model, ("guided",), "auto", settings.threads)
    shape = [d if isinstance(d, int) and d > 0 else settings.size for d in one._runner.shape[1:]]
    height, width = shape[1:] if shape[0] < 5 else shape[:2]
    photo = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    target = "top5" if "five" in settings.variant else "top1"
    return lambda: one.explain(photo, target)


def explainer(model: Path, rules: tuple[str, ...], lowering: str, threads: int = 0, cache: bool = True) -> Any:
    """An explainer on the CPU; models without preprocessing of their own take ImageNet's."""
    from gbp_onnx import Explainer

    given: dict[str, Any] = {"rules": rules, "providers": "cpu", "preprocess": "imagenet", "cache": cache}
    return Explainer(model, lowering=lowering, threads=threads, **given)


def image_for(declared: Any, kind: np.dtype[Any], size: int, batch: int = 1) -> np.ndarray[Any, Any]:
    """A seeded random batch; `size` where the file leaves pixels open, `batch` where it leaves the batch open."""
    shape = [d if isinstance(d, int) and d > 0 else size for d in declared]
    if not isinstance(declared[0], int) or declared[0] < 1:
        shape[0] = batch
    elif declared[0] == 1 and batch > 1:
        shape[0] = batch  # the explainer runs image after image; plain inference must refuse
    values = np.random.default_rng(0).normal(size=shape)
    return values.astype(kind) if kind.kind == "f" else (values * 40 + 128).clip(0, 255).astype(kind)
