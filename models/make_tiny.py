"""Tiny networks for tests: one small, seeded ONNX model for each form of graph that the package has to deal with.

    from make_tiny import TINY, make, feeds
    model = make("residual")                     # the same bytes on every run
    session.run(None, feeds(model, batch=2))     # random inputs of the right names, shapes and types

Unless a function says otherwise: image "image" float32 [N, 3, 16, 16], output "scores" [N, 5], opset 17, IR 8, valid
by onnx.checker and accepted by ONNX Runtime. `REFUSED_BY_ORT` names those that ONNX Runtime does not load.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

IMAGE = ("N", 3, 16, 16)
CLASSES = 5

TINY: dict[str, Callable[[], onnx.ModelProto]] = {}
REFUSED_BY_ORT = frozenset({"unknown_op"})

Make = Callable[["Net"], onnx.ModelProto]


class Net:
    """A graph in the making. Methods append one node (or two) and return the name of its output."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.random = np.random.RandomState(zlib.crc32(name.encode()))  # its stream is frozen, default_rng's is not
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.channels: dict[str, int] = {"image": 3}

    def op(self, op_type: str, *inputs: str, out: str = "", domain: str = "", **attributes: Any) -> str:
        """A node with one output."""
        out = out or f"{op_type.lower()}_{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(op_type, inputs, [out], name=f"{out}/{op_type}", domain=domain, **attributes)
        )
        self.channels[out] = next((self.channels[i] for i in inputs if i in self.channels), 0)
        return out

    def const(self, value: Any, name: str = "", dtype: Any = np.float32) -> str:
        """An initializer."""
        name = name or f"const_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def weight(self, *shape: int, name: str = "", bias: bool = False) -> str:
        """A random initializer, scaled so that activations keep their size (fan-in)."""
        scale = 0.1 if bias else (2.0 / max(1, int(np.prod(shape[1:])))) ** 0.5
        return self.const(self.random.standard_normal(shape) * scale, name)

    def conv(self, x: str, width: int, kernel: int = 3, group: int = 1, out: str = "", **attributes: Any) -> str:
        """A convolution with bias, padded to keep the size at stride 1."""
        weight = self.weight(width, self.channels[x] // group, kernel, kernel)
        attributes.setdefault("pads", [kernel // 2] * 4)
        y = self.op("Conv", x, weight, self.weight(width, bias=True), out=out, group=group, **attributes)
        self.channels[y] = width
        return y

    def relu(self, x: str) -> str:
        return self.op("Relu", x)

    def classify(self, x: str, head: str = "", out: str = "scores", classes: int = CLASSES) -> str:
        """Global mean, Gemm, and the head node if one is named; ends in the tensor `out`."""
        width = self.channels[x]
        flat = self.op("Flatten", self.op("GlobalAveragePool", x), axis=1)
        weight, bias = self.weight(classes, width), self.weight(classes, bias=True)
        if not head:
            return self.op("Gemm", flat, weight, bias, out=out, transB=1)
        attributes: dict[str, Any] = {} if head == "Sigmoid" else {"axis": 1}
        return self.op(head, self.op("Gemm", flat, weight, bias, out="logits", transB=1), out=out, **attributes)

    def model(
        self,
        outputs: dict[str, Any] | None = None,
        inputs: dict[str, Any] | None = None,
        *,
        opset: int = 17,
        ir: int = 8,
        domains: tuple[str, ...] = (),
        functions: tuple[onnx.FunctionProto, ...] = (),
        metadata: dict[str, str] | None = None,
    ) -> onnx.ModelProto:
        """The ModelProto; a shape stands for float32, (type, shape) for another type."""
        graph = helper.make_graph(
            self.nodes,
            self.name,
            [_info(*pair) for pair in (inputs or {"image": IMAGE}).items()],
            [_info(*pair) for pair in (outputs or {"scores": ("N", CLASSES)}).items()],
            self.initializers,
        )
        imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
        model = helper.make_model(graph, opset_imports=imports, ir_version=ir, functions=list(functions))
        model.producer_name = "make_tiny"
        helper.set_model_props(model, metadata or {})
        return model


def _info(name: str, spec: Any) -> onnx.ValueInfoProto:
    elem, shape = spec if len(spec) == 2 and isinstance(spec[1], tuple) else (TensorProto.FLOAT, spec)
    return helper.make_tensor_value_info(name, elem, list(shape))


def tiny(function: Make) -> Make:
    """Register `function` under its name; it gets a Net seeded by that name."""
    name = function.__name__
    TINY[name] = lambda: function(Net(name))
    return function


@cache
def _serialized(name: str) -> bytes:
    return bytes(TINY[name]().SerializeToString(deterministic=True))


def make(name: str) -> onnx.ModelProto:
    """A fresh copy of the network of that name."""
    if name not in TINY:
        raise KeyError(f"no tiny network {name!r}; there are: {', '.join(TINY)}")
    return onnx.load_model_from_string(_serialized(name))


def feeds(model: onnx.ModelProto, batch: int = 2, size: int = 16, seed: int = 0) -> dict[str, np.ndarray]:
    """Random arrays for every input that is no initializer: normal for floats, 0..255 or small for integers.

    A named first axis becomes `batch`, any other named axis `size`.
    """
    random = np.random.RandomState(seed)
    constants = {i.name for i in model.graph.initializer}
    result: dict[str, np.ndarray] = {}
    for value in model.graph.input:
        if value.name in constants:
            continue
        tensor = value.type.tensor_type
        dims = tensor.shape.dim
        shape = [d.dim_value if d.HasField("dim_value") else (size if i else batch) for i, d in enumerate(dims)]
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        if dtype.kind == "f":
            result[value.name] = random.standard_normal(shape).astype(dtype)
        else:
            result[value.name] = random.randint(0, 256 if dtype == np.uint8 else 3, shape).astype(dtype)
    return result


def write_external(model: onnx.ModelProto, folder: str | Path, location: str = "weights.bin") -> Path:
    """Save a copy with every initializer in the external file `location` inside `folder`; give the model's path."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    path = Path(folder) / "model.onnx"
    onnx.save_model(copy, path, save_as_external_data=True, location=location, size_threshold=0)
    return path


# ---- ordinary networks ------------------------------------------------------------------------------------------


@tiny
def plain(n: Net) -> onnx.ModelProto:
    """Conv, Relu, MaxPool, Conv, Relu, Flatten, Gemm, Softmax."""
    x = n.op("MaxPool", n.relu(n.conv("image", 6)), kernel_shape=[2, 2], strides=[2, 2])
    x = n.op("Flatten", n.relu(n.conv(x, 8)), axis=1)
    x = n.op("Gemm", x, n.weight(CLASSES, 8 * 8 * 8), n.weight(CLASSES, bias=True), out="logits", transB=1)
    n.op("Softmax", x, out="scores", axis=1)
    return n.model()


@tiny
def no_pool(n: Net) -> onnx.ModelProto:
    """Conv and Relu only: deconvnet's backward pass reads nothing of the forward pass here."""
    n.classify(n.relu(n.conv(n.relu(n.conv("image", 6)), 8)), "Softmax")
    return n.model()


@tiny
def residual(n: Net) -> onnx.ModelProto:
    """A basic block: the tensor that enters it is read twice."""
    h = n.relu(n.conv("image", 8))
    x = n.op("Add", n.conv(n.relu(n.conv(h, 8)), 8), h)
    n.classify(n.relu(x), "Softmax")
    return n.model()


@tiny
def preact_skip(n: Net) -> onnx.ModelProto:
    """y = 3 relu(h) - 2 h: a rectifier's input that is also read past it (hooks on modules get this wrong)."""
    h = n.conv("image", 8)
    y = n.op("Sub", n.op("Mul", n.relu(h), n.const(3.0)), n.op("Mul", h, n.const(2.0)))
    n.classify(y)
    return n.model()


@tiny
def mobilenet(n: Net) -> onnx.ModelProto:
    """Clip(0, 6), depthwise Conv, linear bottleneck with a shortcut, as in MobileNetV2."""
    low, high = n.const(0.0, "low"), n.const(6.0, "high")
    x = n.op("Clip", n.conv("image", 8, strides=[2, 2]), low, high)
    y = n.op("Clip", n.conv(x, 16, kernel=1), low, high)
    y = n.op("Clip", n.conv(y, 16, group=16), low, high)
    n.classify(n.op("Add", x, n.conv(y, 8, kernel=1)), "Softmax")
    return n.model()


@tiny
def clip_attributes(n: Net) -> onnx.ModelProto:
    """ReLU6 as opset 6 to 10 wrote it: Clip with the bounds as attributes. Opset 10, IR 5."""
    n.classify(n.op("Clip", n.conv("image", 8), min=0.0, max=6.0))
    return n.model(opset=10, ir=5)


@tiny
def fire(n: Net) -> onnx.ModelProto:
    """SqueezeNet's fire module: squeeze, two expansions, Concat; overlapping MaxPool."""
    x = n.op("MaxPool", n.relu(n.conv("image", 8)), kernel_shape=[3, 3], strides=[2, 2])
    x = n.relu(n.conv(x, 4, kernel=1))
    x = n.op("Concat", n.relu(n.conv(x, 6, kernel=1)), n.relu(n.conv(x, 6)), axis=1)
    n.channels[x] = 12
    n.classify(x, "Softmax")
    return n.model()


@tiny
def batchnorm(n: Net) -> onnx.ModelProto:
    """Conv, BatchNormalization (inference), Relu, AveragePool that counts its padding, MaxPool with ceil_mode."""
    x = n.conv("image", 8)
    parameters = [n.const(n.random.uniform(0.5, 1.5, 8)), n.const(n.random.uniform(-0.5, 0.5, 8))]
    statistics = [n.const(n.random.uniform(-0.5, 0.5, 8)), n.const(n.random.uniform(0.5, 1.5, 8))]
    x = n.relu(n.op("BatchNormalization", x, *parameters, *statistics))
    x = n.op("AveragePool", x, kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1], count_include_pad=1)
    x = n.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
    n.classify(n.relu(n.conv(x, 8)), "Softmax")
    return n.model()


@tiny
def grey(n: Net) -> onnx.ModelProto:
    """One channel: "image" [N, 1, 28, 28]."""
    n.channels["image"] = 1
    n.classify(n.op("MaxPool", n.relu(n.conv("image", 6)), kernel_shape=[2, 2], strides=[2, 2]), "Softmax")
    return n.model(inputs={"image": ("N", 1, 28, 28)})


@tiny
def labelled(n: Net) -> onnx.ModelProto:
    """Preprocessing and labels in the metadata, as this project's converters write them."""
    n.classify(n.relu(n.conv("image", 8)), "Softmax")
    preprocess = {"name": "tf", "channels": "RGB", "scale": 1.0, "mean": [127.5], "std": [127.5], "resize": "stretch"}
    labels = ["ant", "bee", "cat", "dog", "elk"]
    return n.model(metadata={"gbp.preprocess": json.dumps(preprocess), "gbp.labels": json.dumps(labels)})


# ---- shapes and layouts -----------------------------------------------------------------------------------------


@tiny
def dynamic(n: Net) -> onnx.ModelProto:
    """Batch, height and width are all dynamic: "image" [N, 3, H, W]."""
    x = n.op("MaxPool", n.relu(n.conv("image", 6)), kernel_shape=[3, 3], strides=[2, 2])
    n.classify(n.relu(n.conv(x, 8)), "Softmax")
    return n.model(inputs={"image": ("N", 3, "H", "W")})


@tiny
def nhwc(n: Net) -> onnx.ModelProto:
    """As tf2onnx writes it: "image" [N, 16, 16, 3], a Transpose first."""
    x = n.op("Transpose", "image", perm=[0, 3, 1, 2])
    n.classify(n.relu(n.conv(x, 8)), "Softmax")
    return n.model(inputs={"image": ("N", 16, 16, 3)})


def _fixed(n: Net, batch: int) -> onnx.ModelProto:
    x = n.op("MaxPool", n.relu(n.conv("image", 6)), kernel_shape=[2, 2], strides=[2, 2])
    x = n.op("Reshape", x, n.const([batch, 6 * 64], dtype=np.int64))
    x = n.op("Gemm", x, n.weight(CLASSES, 6 * 64), n.weight(CLASSES, bias=True), out="logits", transB=1)
    n.op("Softmax", x, out="scores", axis=1)
    return n.model({"scores": (batch, CLASSES)}, {"image": (batch, 3, 16, 16)})


@tiny
def fixed_batch_1(n: Net) -> onnx.ModelProto:
    """The batch is 1, also inside (a Reshape says so)."""
    return _fixed(n, 1)


@tiny
def fixed_batch_3(n: Net) -> onnx.ModelProto:
    """The batch is 3, also inside."""
    return _fixed(n, 3)


@tiny
def shape_subgraph(n: Net) -> onnx.ModelProto:
    """The flattening is computed: Shape, Gather, Unsqueeze, Concat, Reshape; none of it carries gradient."""
    x = n.relu(n.conv("image", 4, strides=[2, 2]))
    batch = n.op("Gather", n.op("Shape", x), n.const(0, dtype=np.int64), axis=0)
    batch = n.op("Unsqueeze", batch, n.const([0], dtype=np.int64))
    shape = n.op("Concat", batch, n.const([-1], dtype=np.int64), axis=0)
    x = n.op("Reshape", x, shape)
    n.op("Gemm", x, n.weight(CLASSES, 4 * 64), n.weight(CLASSES, bias=True), out="scores", transB=1)
    return n.model()


@tiny
def segmentation(n: Net) -> onnx.ModelProto:
    """An output with more axes: "scores" [N, 2, 16, 16], up again by ConvTranspose and Resize."""
    x = n.relu(n.conv("image", 8, strides=[2, 2]))
    x = n.relu(n.conv(x, 8, strides=[2, 2]))
    up = n.op("ConvTranspose", x, n.weight(8, 6, 2, 2), n.weight(6, bias=True), kernel_shape=[2, 2], strides=[2, 2])
    n.channels[up] = 6
    scales = n.const([1, 1, 2, 2])
    up = n.op("Resize", n.relu(up), "", scales, mode="nearest", nearest_mode="floor",
              coordinate_transformation_mode="asymmetric")  # fmt: skip
    n.op("Softmax", n.conv(up, 2, kernel=1), out="scores", axis=1)
    return n.model({"scores": ("N", 2, 16, 16)})


# ---- how parameters and nodes are written -----------------------------------------------------------------------


@tiny
def constant_nodes(n: Net) -> onnx.ModelProto:
    """Every parameter is a Constant node, none an initializer."""
    n.classify(n.relu(n.conv("image", 8)), "Softmax")
    constants = [
        helper.make_node("Constant", [], [tensor.name], name=f"{tensor.name}/Constant", value=tensor)
        for tensor in n.initializers
    ]
    n.nodes, n.initializers = constants + n.nodes, []
    return n.model()


@tiny
def initializer_inputs(n: Net) -> onnx.ModelProto:
    """IR 3, where every initializer is listed as an input too. Opset 8, batch 1."""
    n.classify(n.relu(n.conv("image", 8)))
    sizes = {tensor.name: tuple(tensor.dims) for tensor in n.initializers}
    return n.model({"scores": (1, CLASSES)}, {"image": (1, 3, 16, 16), **sizes}, opset=8, ir=3)


@tiny
def shared_identity(n: Net) -> onnx.ModelProto:
    """Identity nodes over initializers that several layers share, as current torch exports have them."""
    n.weight(8, 8, 3, 3, name="kernel")
    n.weight(8, bias=True, name="bias")
    x = n.relu(n.conv("image", 8))
    for _ in range(2):
        kernel, bias = n.op("Identity", "kernel"), n.op("Identity", "bias")
        x = n.relu(n.op("Conv", x, kernel, bias, pads=[1, 1, 1, 1]))
        n.channels[x] = 8
    n.classify(x, "Softmax")
    return n.model()


@tiny
def functions(n: Net) -> onnx.ModelProto:
    """Local functions, one calling the other, with an attribute reference; torch's dynamo exports have such."""
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("tiny", 1)]
    leaky = helper.make_node("LeakyRelu", ["h"], ["y"], name="leak")
    leaky.attribute.append(onnx.AttributeProto(name="alpha", type=onnx.AttributeProto.FLOAT, ref_attr_name="slope"))
    rectify = helper.make_node("Relu", ["x"], ["h"], name="rectify")
    activate = helper.make_function("tiny", "Activate", ["x"], ["y"], [rectify, leaky], imports[:1], ["slope"])
    block = helper.make_function(
        "tiny", "Block", ["x", "w", "b"], ["y"],
        [
            helper.make_node("Conv", ["x", "w", "b"], ["h"], name="conv", pads=[1, 1, 1, 1]),
            helper.make_node("Activate", ["h"], ["y"], name="activate", domain="tiny", slope=0.2),
        ],
        imports,
    )  # fmt: skip
    x, width = "image", 3
    for _ in range(2):
        x = n.op("Block", x, n.weight(8, width, 3, 3), n.weight(8, bias=True), domain="tiny")
        n.channels[x] = width = 8
    n.classify(x, "Softmax")
    return n.model(domains=("tiny",), functions=(activate, block))


@tiny
def unnamed_nodes(n: Net) -> onnx.ModelProto:
    """No node has a name."""
    n.classify(n.relu(n.conv("image", 8)), "Softmax")
    for node in n.nodes:
        node.name = ""
    return n.model()


@tiny
def names_taken(n: Net) -> onnx.ModelProto:
    """Inside are tensors called "target", "attribution_guided", "scores_seed", "image_grad" and "grad/target"."""
    x = n.op("Relu", n.conv("image", 8, out="target"), out="attribution_guided")
    x = n.op("Relu", n.conv(x, 8, out="scores_seed"), out="image_grad")
    n.classify(n.op("Neg", x, out="grad/target"), "Softmax")
    return n.model()


# ---- outputs and heads ------------------------------------------------------------------------------------------


@tiny
def inner_output(n: Net) -> onnx.ModelProto:
    """ "features" [N, 8, 16, 16] is an output and is read inside as well."""
    x = n.op("Relu", n.conv("image", 8), out="features")
    n.classify(n.relu(n.conv(x, 8)), "Softmax")
    return n.model({"features": ("N", 8, 16, 16), "scores": ("N", CLASSES)})


@tiny
def multi_output(n: Net) -> onnx.ModelProto:
    """Two heads on one trunk, "scores" [N, 5] and "boxes" [N, 4], and "best" int64 [N]."""
    x = n.relu(n.conv("image", 8))
    scores = n.classify(x, "Softmax")
    n.classify(x, out="boxes", classes=4)
    n.op("ArgMax", scores, out="best", axis=1, keepdims=0)
    return n.model({"boxes": ("N", 4), "scores": ("N", CLASSES), "best": (TensorProto.INT64, ("N",))})


@tiny
def two_inputs(n: Net) -> onnx.ModelProto:
    """An image and "extra" float32 [N, 5], which is added to the scores after a Relu."""
    pooled = n.classify(n.relu(n.conv("image", 8)), out="pooled")
    n.op("Add", pooled, n.op("Relu", "extra"), out="scores")
    return n.model(inputs={"extra": ("N", CLASSES), "image": IMAGE})


@tiny
def disconnected(n: Net) -> onnx.ModelProto:
    """ "scores" does not depend on the image but on "extra" alone; "seen" [N, 5] does."""
    n.classify(n.relu(n.conv("image", 8)), out="seen")
    n.op("Relu", "extra", out="scores")
    return n.model({"scores": ("N", CLASSES), "seen": ("N", CLASSES)}, {"image": IMAGE, "extra": ("N", CLASSES)})


@tiny
def dropout(n: Net) -> onnx.ModelProto:
    """Dropout at inference, once with its ratio as an input and once plain."""
    x = n.op("Dropout", n.relu(n.conv("image", 8)), n.const(0.5))
    n.classify(n.op("Dropout", n.relu(n.conv(x, 8))), "Softmax")
    return n.model()


@tiny
def logsoftmax(n: Net) -> onnx.ModelProto:
    """Ends in LogSoftmax."""
    n.classify(n.relu(n.conv("image", 8)), "LogSoftmax")
    return n.model()


@tiny
def multilabel(n: Net) -> onnx.ModelProto:
    """Ends in Sigmoid."""
    n.classify(n.relu(n.conv("image", 8)), "Sigmoid")
    return n.model()


@tiny
def moved_head(n: Net) -> onnx.ModelProto:
    """Softmax over the channels of [N, 5, 1, 1], then Reshape, Identity and Dropout up to the output."""
    x = n.op("GlobalAveragePool", n.conv(n.relu(n.conv("image", 8)), CLASSES, kernel=1), out="logits")
    x = n.op("Reshape", n.op("Softmax", x, axis=1), n.const([0, -1], dtype=np.int64))
    n.op("Dropout", n.op("Identity", x), out="scores")
    return n.model()


# ---- rectifiers and activations ---------------------------------------------------------------------------------


@tiny
def rectifiers(n: Net) -> onnx.ModelProto:
    """Six rectifiers, one after the other: Relu, Max, Where, Clip without a top, Min of Max, ThresholdedRelu."""
    zero, six = n.const(0.0, "zero"), n.const(6.0, "six")
    x = n.relu(n.conv("image", 6))
    x = n.op("Max", n.conv(x, 6), zero)
    h = n.conv(x, 6)
    x = n.op("Where", n.op("Greater", h, zero), h, zero)
    n.channels[x] = 6
    x = n.op("Clip", n.conv(x, 6), zero)
    x = n.op("Min", n.op("Max", zero, n.conv(x, 6)), six)
    n.channels[x] = 6
    x = n.op("ThresholdedRelu", n.conv(x, 6), alpha=0.1)
    n.classify(x, "Softmax")
    return n.model()


@tiny
def no_rectifier(n: Net) -> onnx.ModelProto:
    """LeakyRelu, Sigmoid and Tanh: nothing here is a rectifier."""
    x = n.op("LeakyRelu", n.conv("image", 8), alpha=0.1)
    x = n.op("Sigmoid", n.conv(x, 8))
    n.classify(n.op("Tanh", n.conv(x, 8)), "Softmax")
    return n.model()


@tiny
def some_rectifiers(n: Net) -> onnx.ModelProto:
    """A Relu beside activations that no rule gates: HardSwish, PRelu and x * Sigmoid(x)."""
    x = n.op("HardSwish", n.conv("image", 8))
    x = n.op("PRelu", n.conv(x, 8), n.const(n.random.uniform(0.1, 0.3, (8, 1, 1))))
    h = n.conv(n.relu(x), 8)
    n.classify(n.op("Mul", h, n.op("Sigmoid", h)), "Softmax")
    return n.model()


@tiny
def dead_relu(n: Net) -> onnx.ModelProto:
    """The last Relu never opens for inputs below 1e5: saliency and guided maps are all zero."""
    x = n.op("Sub", n.conv("image", 8), n.const(1e9))
    n.classify(n.relu(x), "Softmax")
    return n.model()


@tiny
def infinite(n: Net) -> onnx.ModelProto:
    """Factors of 1e30 twice over: the outputs and the map overflow to infinity and NaN."""
    x = n.relu(n.conv("image", 8))
    for _ in range(2):
        x = n.op("Mul", x, n.const(1e30))
    n.classify(x)
    return n.model()


# ---- types ------------------------------------------------------------------------------------------------------


@tiny
def uint8_input(n: Net) -> onnx.ModelProto:
    """Takes the pixels themselves: "image" uint8 [N, 16, 16, 3]; Cast, Transpose and scaling inside."""
    x = n.op("Transpose", n.op("Cast", "image", to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
    x = n.op("Div", n.op("Sub", x, n.const(127.5)), n.const(127.5))
    n.classify(n.relu(n.conv(x, 8)), "Softmax")
    return n.model(inputs={"image": (TensorProto.UINT8, ("N", 16, 16, 3))})


@tiny
def float16(n: Net) -> onnx.ModelProto:
    """All in half precision."""
    n.classify(n.relu(n.conv("image", 8)), "Softmax")
    n.initializers = [
        numpy_helper.from_array(numpy_helper.to_array(t).astype(np.float16), t.name) for t in n.initializers
    ]
    half = TensorProto.FLOAT16
    return n.model({"scores": (half, ("N", CLASSES))}, {"image": (half, IMAGE)})


# ---- what has to be refused -------------------------------------------------------------------------------------


@tiny
def no_image(n: Net) -> onnx.ModelProto:
    """No input of rank 3 or more: "tokens" int64 [N, 4], looked up in a table."""
    x = n.op("ReduceMean", n.op("Gather", n.weight(3, 8), "tokens", axis=0), axes=[1], keepdims=0)
    n.op("Gemm", n.relu(x), n.weight(CLASSES, 8), n.weight(CLASSES, bias=True), out="scores", transB=1)
    return n.model(inputs={"tokens": (TensorProto.INT64, ("N", 4))})


@tiny
def unknown_op(n: Net) -> onnx.ModelProto:
    """Two operators of a domain that nobody knows; onnx.checker lets them pass, ONNX Runtime does not load it."""
    x = n.op("Frobnicate", n.conv("image", 8), domain="com.example")
    x = n.op("Twiddle", n.relu(n.conv(x, 8)), domain="com.example", knob=3)
    n.classify(x, "Softmax")
    return n.model(domains=("com.example",))


@tiny
def batchnorm_training(n: Net) -> onnx.ModelProto:
    """BatchNormalization in training mode: its statistics come from the batch."""
    x = n.conv("image", 8)
    ones, zeros = n.const(np.ones(8), "ones"), n.const(np.zeros(8), "zeros")
    outputs = ["normal", "running_mean", "running_var"]
    n.nodes.append(
        helper.make_node("BatchNormalization", [x, ones, zeros, zeros, ones], outputs, name="bn", training_mode=1)
    )
    n.channels["normal"] = 8
    n.classify(n.relu("normal"), "Softmax")
    return n.model()


@tiny
def not_differentiable(n: Net) -> onnx.ModelProto:
    """The way from the image to the output leads through ArgMax: nothing can flow back."""
    x = n.op("ArgMax", n.relu(n.conv("image", 8)), axis=1, keepdims=1)
    x = n.op("Cast", x, to=TensorProto.FLOAT)
    n.channels[x] = 1
    n.classify(x, "Softmax")
    return n.model()
