"""Export torchvision's networks with random weights, to measure them: needs torch and torchvision.

    python -m benchmarks.zoo FOLDER [resnet18 ...]

Each has input "input" [N, 3, 224, 224] and output "output" [N, 1000]; its weights lie beside it in torch's own form,
NETWORK.pt. Files that are there are left as they are.
"""

from __future__ import annotations

import argparse
import os
import warnings
from pathlib import Path

from benchmarks.peers import network

NETWORKS = ("resnet18", "resnet50", "vgg16", "squeezenet1_1", "mobilenet_v2", "densenet121", "googlenet")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"of {', '.join(NETWORKS)}; all")
    arguments = parser.parse_args()
    if unknown := set(arguments.networks) - set(NETWORKS):
        parser.error(f"there is no {', '.join(sorted(unknown))}: choose of {', '.join(NETWORKS)}")
    warnings.simplefilter("ignore")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.networks or NETWORKS:
        path = arguments.folder / f"{name}.onnx"
        if not path.exists():
            export(name, path)
        print(path, flush=True)


def export(name: str, path: Path) -> None:
    """Write one network, whole or not at all."""
    import torch

    net = network(name)
    with torch.no_grad():
        for parameter in net.parameters():  # biases of zero make dead rectifiers, and equal weights that exporters join
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
    axes = {"input": {0: "N"}, "output": {0: "N"}}
    unfinished = path.with_suffix(f".{os.getpid()}.part")
    try:
        torch.save(net.state_dict(), unfinished)
        unfinished.replace(path.with_suffix(".pt"))
        torch.onnx.export(
            net,
            (torch.zeros(1, 3, 224, 224),),
            str(unfinished),
            dynamo=False,
            opset_version=17,
            input_names=["input"],
            output_names=["output"],
            dynamic_axes=axes,
        )
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
