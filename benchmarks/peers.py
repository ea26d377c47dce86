"""Variants of `worker` that are other libraries, run by an interpreter that has them; this package is not imported.

captum explains torchvision's network of the file's name, with the weights that lie beside the file (`zoo` writes them),
else with random ones; onnx2torch converts the very file for it;
onnx-ad writes a plain vector-Jacobian product, which ONNX Runtime runs (it knows no rules).

    python -m benchmarks.peers PHOTOGRAPH OUT.npz      one photograph from cold, three rules: what a script would do
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.worker import Prepared, Settings

NEEDS = {
    "captum": ("torch", "torchvision", "captum"),
    "onnx2torch + captum": ("torch", "torchvision", "captum", "onnx2torch"),
    "onnx-ad": ("onnx", "onnx_ad", "onnxruntime"),
}


def available() -> list[str]:
    """The variants that this interpreter has the modules for."""
    return [v for v, modules in NEEDS.items() if all(importlib.util.find_spec(m) for m in modules)]


def imports(variant: str) -> None:
    for module in NEEDS[variant]:
        torchvision_models() if module == "torchvision" else importlib.import_module(module)
    if "captum" in NEEDS[variant]:
        importlib.import_module("captum.attr")


def prepare(settings: Settings) -> Prepared:
    if settings.variant == "onnx-ad":
        return onnx_ad(settings)
    import torch
    from captum.attr import GuidedBackprop

    if settings.threads:
        torch.set_num_threads(settings.threads)
    if settings.variant == "captum":
        net = network(settings.model.stem)
        weights = settings.model.with_suffix(".pt")
        if weights.exists():
            net.load_state_dict(torch.load(weights, weights_only=True))
    else:
        import onnx2torch

        net = onnx2torch.convert(str(settings.model)).eval()
    without_inplace(net)
    size = (settings.batch, 3, settings.size, settings.size)
    x = torch.from_numpy(np.random.default_rng(0).normal(size=size).astype(np.float32)).requires_grad_()
    guided = GuidedBackprop(net)
    target = 0 if settings.batch == 1 else [0] * settings.batch
    return (lambda: guided.attribute(x, target=target)), None


def onnx_ad(settings: Settings) -> Prepared:
    import onnx
    import onnxruntime as ort
    from onnx_ad import reverse

    ort.set_default_logger_severity(4)
    model = onnx.load(settings.model)
    stored = {t.name for t in model.graph.initializer}
    x, y = next(i for i in model.graph.input if i.name not in stored), model.graph.output[0]
    for value in (x, y):
        value.type.tensor_type.shape.dim[0].dim_value = settings.batch
    begin = time.perf_counter()
    made = reverse(model, inputs=[x.name], outputs=[y.name], layout="onnx")
    took = (time.perf_counter() - begin) * 1e3
    options = ort.SessionOptions()
    options.intra_op_num_threads = settings.threads
    session = ort.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    random, feeds = np.random.default_rng(0), {}
    for value in session.get_inputs():  # one seed: its axis is the last one of the seed's input
        shape = [d if isinstance(d, int) and d > 0 else 1 for d in value.shape]
        feeds[value.name] = random.normal(size=shape).astype(np.float32)
    feeds[x.name] = random.normal(size=(settings.batch, 3, settings.size, settings.size)).astype(np.float32)
    return (lambda: session.run(None, feeds)), lambda: took


def torchvision_models() -> Any:
    """torchvision.models, also where torchvision's compiled operators are those of another build of torch: the
    networks here use none of them.
    """
    import torch

    register = torch.library.register_fake

    def passing(name: Any, *arguments: Any, **named: Any) -> Any:
        own = isinstance(name, str) and name.startswith("torchvision::")
        return (lambda function: function) if own else register(name, *arguments, **named)

    torch.library.register_fake = passing
    try:
        return importlib.import_module("torchvision.models")
    finally:
        torch.library.register_fake = register


def network(name: str) -> Any:
    """torchvision's network of this name, with random weights."""
    import torch

    models = torchvision_models()
    if not hasattr(models, name):
        raise SystemExit(f"torchvision has no network {name!r}")
    torch.manual_seed(0)
    options = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    return getattr(models, name)(weights=None, **options).eval()


def without_inplace(net: Any) -> None:
    """captum's hooks refuse activations that write into their input."""
    for module in net.modules():
        if hasattr(module, "inplace"):
            module.inplace = False


def script(photo: Path, out: Path) -> None:
    """What a script does: read a photograph, explain its best class under three rules, write the maps."""
    import torch
    from captum.attr import Deconvolution, GuidedBackprop, Saliency
    from PIL import Image

    net = network("squeezenet1_1")
    without_inplace(net)
    with Image.open(photo) as opened:
        image = opened.convert("RGB").resize((256, 256)).crop((16, 16, 240, 240))
    pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None] / 255
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = ((pixels - mean[:, None, None]) / deviation[:, None, None]).requires_grad_()
    target = int(net(x).argmax())
    maps = {m.__name__: m(net).attribute(x, target=target) for m in (GuidedBackprop, Deconvolution, Saliency)}
    np.savez(out, **{name: value.detach().numpy() for name, value in maps.items()})


if __name__ == "__main__":
    import warnings

    warnings.simplefilter("ignore")
    if sys.argv[1:] == ["--available"]:
        print(json.dumps(available()))
    else:
        script(Path(sys.argv[1]), Path(sys.argv[2]))
