"""How long it takes to write the gradient graph of models of 4,000 nodes: ``python -m benchmarks.building``."""

from __future__ import annotations

import argparse
import cProfile
import pstats
import statistics
import time
from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import gbp_onnx

Nodes = list[onnx.NodeProto]
RULES = ("guided", "deconvnet", "saliency")
Weights = list[onnx.TensorProto]


def convolutional(count: int) -> onnx.ModelProto:
    """Blocks of Conv, BatchNormalization, Relu with a residual sum, each fourth joined by Concat and a 1x1 Conv."""
    random = np.random.RandomState(0)
    nodes: Nodes = []
    weights: Weights = []
    width, x = 8, "x"

    def stored(name: str, *shape: int) -> str:
        weights.append(numpy_helper.from_array(random.uniform(0.1, 0.2, shape).astype(np.float32), name))
        return name

    def node(op: str, *inputs: str, **attrs: object) -> str:
        nodes.append(helper.make_node(op, list(inputs), [f"{op}_{len(nodes)}"], name=f"n{len(nodes)}", **attrs))
        return str(nodes[-1].output[0])

    x = node("Conv", x, stored("w", width, 3, 3, 3), pads=[1, 1, 1, 1])
    while len(nodes) < count - 8:
        k, skip = len(nodes), x
        y = node("Conv", x, stored(f"w{k}", width, width, 3, 3), pads=[1, 1, 1, 1])
        statistics_of = [stored(f"{role}{k}", width) for role in ("scale", "bias", "mean", "var")]
        x = node("Relu", node("Add", node("BatchNormalization", y, *statistics_of), skip))
        if k // 4 % 4 == 0:
            both = node("Concat", x, skip, axis=1)
            x = node("Conv", both, stored(f"v{k}", width, 2 * width, 1, 1))
    y = node("Flatten", node("GlobalAveragePool", x))
    y = node("Softmax", node("Gemm", y, stored("fc", width, 10)))
    return _model(nodes, weights, y, ["N", 3, 32, 32], ["N", 10])


def elementwise(count: int) -> onnx.ModelProto:
    """Elementwise operators on tensors of which no size is known."""
    nodes: Nodes = []
    weights = [numpy_helper.from_array(np.full(1, 0.5, np.float32), "half")]
    x = "x"
    for k in range(count):
        op = ("Add", "Sigmoid", "Mul", "Tanh", "Sub", "Relu", "Div", "Exp")[k % 8]
        inputs = [x, ("half", "x")[k % 3 == 0]] if op in ("Add", "Mul", "Sub", "Div") else [x]
        nodes.append(helper.make_node(op, inputs, [f"t{k}"], name=f"n{k}"))
        x = f"t{k}"
    return _model(nodes, weights, x, ["N", "C", "H", "W"], [None] * 4)


def reshaping(count: int) -> onnx.ModelProto:
    """Shapes computed from shapes, as exporters write them for dynamic batches: Shape, Gather, Concat, Reshape."""
    nodes: Nodes = []
    weights = [
        numpy_helper.from_array(np.array(v, np.int64), n)
        for n, v in (("zero", [0]), ("rest", [-1]), ("four", [8, 4, 4]))
    ]
    x = "x"
    for k in range(count // 8):
        steps = [
            ("Shape", [x], {}),
            ("Gather", [f"{k}_0", "zero"], {"axis": 0}),
            ("Concat", [f"{k}_1", "rest"], {"axis": 0}),
            ("Reshape", [x, f"{k}_2"], {}),
            ("Tanh", [f"{k}_3"], {}),
            ("Concat", [f"{k}_1", "four"], {"axis": 0}),
            ("Reshape", [f"{k}_4", f"{k}_5"], {}),
            ("Transpose", [f"{k}_6"], {"perm": [0, 1, 3, 2]}),
        ]
        nodes += [helper.make_node(o, i, [f"{k}_{j}"], name=f"n{k}_{j}", **a) for j, (o, i, a) in enumerate(steps)]
        x = f"{k}_7"
    return _model(nodes, weights, x, ["N", 8, 4, 4], [None] * 4)


MODELS: dict[str, Callable[[int], onnx.ModelProto]] = {
    "convolutional": convolutional,
    "elementwise": elementwise,
    "reshaping": reshaping,
}


def _model(nodes: Nodes, weights: Weights, result: str, shape: list[int | str], made: list[object]) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info(result, TensorProto.FLOAT, made)]
    graph = helper.make_graph(nodes, "generated", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def seconds(make: Callable[[], object], rounds: int) -> float:
    """The median of so many rounds."""
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        make()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", help="ONNX models besides the generated ones")
    parser.add_argument("--nodes", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", action="store_true", help="print where the time of differentiate goes")
    arguments = parser.parse_args()
    models = {name: make(arguments.nodes) for name, make in MODELS.items()}
    models.update((file, onnx.load(file)) for file in arguments.files)
    gbp_onnx.differentiate(elementwise(8))  # imports
    print("| model | nodes | differentiate, s | build with three rules, s |\n|---|---:|---:|---:|")
    for name, model in models.items():
        plain = seconds(lambda model=model: gbp_onnx.differentiate(model), arguments.rounds)  # type: ignore[misc]
        whole = seconds(lambda model=model: gbp_onnx.build(model, RULES), arguments.rounds)  # type: ignore[misc]
        print(f"| {name} | {len(model.graph.node)} | {plain:.2f} | {whole:.2f} |", flush=True)
        if arguments.profile:
            with cProfile.Profile() as profile:
                gbp_onnx.differentiate(model)
            pstats.Stats(profile).sort_stats("cumulative").print_stats(45)


if __name__ == "__main__":
    main()
