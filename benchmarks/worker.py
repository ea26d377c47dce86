"""One measurement in a process of its own: ONNX Runtime sessions that share a process disturb each other.

Prints one JSON line: {"ms": median milliseconds of a run, "build_ms": ..., "first_ms": ...}.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("forward", "saliency", "deconvnet", "guided", "all", "captum"))
    parser.add_argument("model", type=Path)
    parser.add_argument("--runs", type=int, default=30)
    arguments = parser.parse_args()
    started = time.perf_counter()
    run = captum(arguments.model) if arguments.what == "captum" else ours(arguments.what, arguments.model)
    built = time.perf_counter()
    run()
    first = time.perf_counter()
    times = []
    for _ in range(arguments.runs):
        begin = time.perf_counter()
        run()
        times.append((time.perf_counter() - begin) * 1e3)
    facts = {"ms": statistics.median(times), "build_ms": (built - started) * 1e3, "first_ms": (first - built) * 1e3}
    print(json.dumps(facts))


def ours(what: str, path: Path) -> Callable[[], Any]:
    """The plain model, or its explainer under one rule or all, in ONNX Runtime on the CPU."""
    import onnxruntime as ort

    from gbp_onnx import build

    ort.set_default_logger_severity(3)
    rules = ("saliency", "deconvnet", "guided") if what == "all" else (what,)
    model = path.read_bytes() if what == "forward" else build(path, rules).SerializeToString()
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    feeds = {}
    for value in session.get_inputs():
        if value.name == "target":
            feeds[value.name] = np.array([0])
        else:
            shape = [d if isinstance(d, int) and d > 0 else 1 if k == 0 else 224 for k, d in enumerate(value.shape)]
            feeds[value.name] = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    return lambda: session.run(None, feeds)


def captum(path: Path) -> Callable[[], Any]:
    """captum's guided backpropagation of the same network in torch, with the same weights."""
    import onnx
    import torch
    from captum.attr import GuidedBackprop
    from onnx import numpy_helper

    class Fire(torch.nn.Module):
        def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
            super().__init__()
            self.squeeze, self.squeeze_relu = torch.nn.Conv2d(inputs, squeeze, 1), torch.nn.ReLU()
            self.left, self.left_relu = torch.nn.Conv2d(squeeze, expand, 1), torch.nn.ReLU()
            self.right, self.right_relu = torch.nn.Conv2d(squeeze, expand, 3, padding=1), torch.nn.ReLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.squeeze_relu(self.squeeze(x))
            return torch.cat([self.left_relu(self.left(x)), self.right_relu(self.right(x))], 1)

    pool = torch.nn.MaxPool2d
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 64, 3, 2),
        torch.nn.ReLU(),
        pool(3, 2),
        Fire(64, 16, 64),
        Fire(128, 16, 64),
        pool(3, 2),
        Fire(128, 32, 128),
        Fire(256, 32, 128),
        pool(3, 2),
        Fire(256, 48, 192),
        Fire(384, 48, 192),
        Fire(384, 64, 256),
        Fire(512, 64, 256),
        torch.nn.Conv2d(512, 1000, 1),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
    ).eval()
    graph = onnx.load(path).graph
    tensors = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in graph.initializer}
    with torch.no_grad():
        convs = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
        for module, node in zip(convs, (n for n in graph.node if n.op_type == "Conv"), strict=True):
            module.weight.copy_(tensors[node.input[1]])
            module.bias.copy_(tensors[node.input[2]])
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 3, 224, 224)).astype(np.float32)).requires_grad_()
    attribution = GuidedBackprop(net)
    return lambda: attribution.attribute(x, target=0)


if __name__ == "__main__":
    import warnings

    warnings.simplefilter("ignore")
    main()
