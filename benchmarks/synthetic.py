"""A residual CNN of any size, its weights written to an external data file piece by piece: the same bytes every time.

python -m benchmarks.synthetic big.onnx --gigabytes 3
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
from onnx import TensorProto, helper

CLASSES, HIDDEN, SIDE = 1000, 4096, 224
WIDEST = 1024  # channels of the largest form: 37.7 MB a layer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--gigabytes", type=float, default=3.0)
    arguments = parser.parse_args()
    write_cnn(arguments.path, int(arguments.gigabytes * 1e9))
    print(arguments.path)


def write_cnn(path: Path, size: int, seed: int = 0) -> Path:
    """Write the model with at least `size` bytes of weights in `<path>.data` beside it.

    Input "image" float32 [N, 3, 224, 224]; output "scores" [N, 1000], a Softmax. Nothing larger than one layer's weight
    is ever in memory.
    """
    location = f"{path.name}.data"
    with (path.parent / location).open("wb") as data:
        model = _Writer(data, location, seed).network(size)
    path.write_bytes(model.SerializeToString())
    return path


class _Writer:
    def __init__(self, data: BinaryIO, location: str, seed: int) -> None:
        self.data, self.location, self.random = data, location, np.random.RandomState(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def network(self, size: int) -> onnx.ModelProto:
        """7 x 7 pixels behind the stem, then pairs of 3 x 3 convolutions with a shortcut, until it is large enough."""
        width = next((c for c in (16, 64, 256) if size < 40 * 36 * c * c), WIDEST)
        x = self.relu(self.conv("image", 3, width, kernel=7, stride=4))
        x = self.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
        x = self.relu(self.conv(x, width, width, stride=2))
        x = self.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
        hidden = min(HIDDEN, 4 * width)
        head = 4 * hidden * (width + CLASSES)
        while self.data.tell() + head < size:
            y = self.conv(self.relu(self.conv(x, width, width)), width, width, gain=0.1)
            x = self.relu(self.op("Add", x, y))
        x = self.op("Flatten", self.op("GlobalAveragePool", x))
        x = self.relu(self.gemm(x, width, hidden))
        self.op("Softmax", self.gemm(x, hidden, CLASSES), out="scores")
        graph = helper.make_graph(
            self.nodes,
            "synthetic",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])],
            [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", CLASSES])],
            self.initializers,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    def op(self, op_type: str, *inputs: str, out: str = "", **attributes: object) -> str:
        out = out or f"{op_type.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [out], name=f"{out}/{op_type}", **attributes))
        return out

    def relu(self, x: str) -> str:
        return self.op("Relu", x)

    def conv(self, x: str, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, gain: float = 1.0) -> str:
        weight, bias = self.weight(outputs, inputs, kernel, kernel, gain=gain), self.weight(outputs, gain=0.01)
        pads = [kernel // 2] * 4
        return self.op("Conv", x, weight, bias, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads)

    def gemm(self, x: str, inputs: int, outputs: int) -> str:
        return self.op("Gemm", x, self.weight(outputs, inputs), self.weight(outputs, gain=0.01), transB=1)

    def weight(self, *shape: int, gain: float = 1.0) -> str:
        """A random initializer in the data file, scaled so that activations keep their size (He et al. 2015)."""
        scale = gain * (2 / max(1, int(np.prod(shape[1:])))) ** 0.5
        values = self.random.standard_normal(shape).astype(np.float32) * np.float32(scale)
        self.data.write(b"\0" * (-self.data.tell() % 4096))  # pages, so that the file can be mapped
        tensor = TensorProto(name=f"weight_{len(self.initializers)}", dims=shape, data_type=TensorProto.FLOAT)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": self.location, "offset": self.data.tell(), "length": values.nbytes}.items():
            tensor.external_data.add(key=key, value=str(value))
        self.data.write(values.tobytes())
        self.initializers.append(tensor)
        return tensor.name


if __name__ == "__main__":
    main()
