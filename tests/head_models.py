"""Tiny networks with the heads that deployed models have: detectors, segmenters, decisions inside, embeddings.

from tests.head_models import HEADS, head_model
model = head_model("yolov8")     # image "image" float32 [N, 3, 32, 32] unless its function says otherwise
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from make_tiny import Net
from onnx import TensorProto, helper, numpy_helper

HEADS: dict[str, Callable[[Net], onnx.ModelProto]] = {}
SIZE = 32
IMAGE = {"image": ("N", 3, SIZE, SIZE)}
ONE = {"image": (1, 3, SIZE, SIZE)}
INT64 = TensorProto.INT64


def head(function: Callable[[Net], onnx.ModelProto]) -> Callable[[Net], onnx.ModelProto]:
    HEADS[function.__name__] = function
    return function


def head_model(name: str) -> onnx.ModelProto:
    """The network of that name, the same on every call; a Net is seeded by its name."""
    return HEADS[name](Net(name))


def trunk(n: Net, x: str = "image", halvings: int = 2) -> str:
    """Convolutions and rectifiers, [N, 8, 32 / 2^halvings, ...]."""
    for _ in range(halvings):
        x = n.relu(n.conv(x, 8, strides=[2, 2]))
    return x


def ints(n: Net, *values: int) -> str:
    return n.const(values, dtype=np.int64)


def pair(n: Net, op: str, outputs: tuple[str, str], *inputs: str, **attributes: Any) -> tuple[str, str]:
    """A node with two outputs."""
    n.nodes.append(helper.make_node(op, inputs, outputs, name=f"{outputs[0]}/{op}", **attributes))
    return outputs


# --- decisions behind the scores ----------------------------------------------------------------------------------


@head
def argmax(n: Net) -> onnx.ModelProto:
    """ "label" int64 [N] is all that is returned."""
    n.op("ArgMax", n.classify(trunk(n), out="logits"), out="label", axis=1, keepdims=0)
    return n.model({"label": (INT64, ("N",))}, IMAGE)


@head
def zipmap(n: Net) -> onnx.ModelProto:
    """scikit-learn's habit: a list of maps from class names to probabilities, and the best name."""
    scores = n.classify(trunk(n), "Softmax", out="probabilities", classes=3)
    best = n.op("ArgMax", scores, axis=1, keepdims=0)
    attributes = {"keys_int64s": [0, 1, 2], "values_strings": ["cat", "dog", "elk"]}
    n.op("LabelEncoder", best, out="label", domain="ai.onnx.ml", default_string="?", **attributes)
    n.op("ZipMap", scores, out="maps", domain="ai.onnx.ml", classlabels_strings=["cat", "dog", "elk"])
    model = n.model({"label": (TensorProto.STRING, ("N",))}, IMAGE)
    kind = helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    model.graph.output.append(helper.make_value_info("maps", helper.make_sequence_type_proto(kind)))
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 2))
    return model


@head
def topk(n: Net) -> onnx.ModelProto:
    """The three best probabilities and their classes."""
    scores = n.classify(trunk(n), "Softmax", out="probabilities")
    pair(n, "TopK", ("values", "classes"), scores, ints(n, 3), axis=1)
    return n.model({"values": ("N", 3), "classes": (INT64, ("N", 3))}, IMAGE)


@head
def hardmax(n: Net) -> onnx.ModelProto:
    """One-hot floats, through which nothing flows."""
    n.op("Hardmax", n.classify(trunk(n), out="logits"), out="one_hot", axis=1)
    return n.model({"one_hot": ("N", 5)}, IMAGE)


@head
def nms_only(n: Net) -> onnx.ModelProto:
    """Nothing but the indices that NonMaxSuppression selects."""
    boxes, scores = _ssd(n)
    by_class = n.op("Transpose", scores, out="by_class", perm=[0, 2, 1])
    limits = n.const(0.5), n.const(0.1)
    n.op("NonMaxSuppression", boxes, by_class, ints(n, 3), *limits, out="selected")
    return n.model({"selected": (INT64, ("n", 3))}, ONE)


# --- classifiers --------------------------------------------------------------------------------------------------


@head
def spatial_head(n: Net) -> onnx.ModelProto:
    """Scores [N, 5, 1, 1], Softmax over axis 1."""
    n.op("Softmax", _pooled(n), out="scores", axis=1)
    return n.model({"scores": ("N", 5, 1, 1)}, IMAGE)


@head
def spatial_head_last(n: Net) -> onnx.ModelProto:
    """Scores [N, 1, 1, 5]."""
    x = n.op("Transpose", _pooled(n), perm=[0, 2, 3, 1])
    n.op("Softmax", x, out="scores", axis=3)
    return n.model({"scores": ("N", 1, 1, 5)}, IMAGE)


def _pooled(n: Net) -> str:
    x = n.op("GlobalAveragePool", trunk(n))
    n.channels[x] = 8
    return n.conv(x, 5, kernel=1)


@head
def multilabel(n: Net) -> onnx.ModelProto:
    """Five independent probabilities, and a second output with a regression."""
    x = trunk(n)
    n.classify(x, out="age", classes=1)
    n.classify(x, "Sigmoid", out="tags")
    return n.model({"age": ("N", 1), "tags": ("N", 5)}, IMAGE)


@head
def embedding(n: Net) -> onnx.ModelProto:
    """A vector of 16 numbers."""
    n.classify(trunk(n), out="vector", classes=16)
    return n.model({"vector": ("N", 16)}, IMAGE)


@head
def superresolution(n: Net) -> onnx.ModelProto:
    """A picture of twice the size."""
    n.op("DepthToSpace", n.conv(n.relu(n.conv("image", 8)), 12), out="picture", blocksize=2)
    return n.model({"picture": ("N", 3, 64, 64)}, IMAGE)


# --- segmenters ---------------------------------------------------------------------------------------------------


def _upsampled(n: Net, out: str, classes: int = 4) -> str:
    """DeepLab's end: scores of a coarse grid, enlarged bilinearly to the input's size."""
    coarse = n.conv(trunk(n), classes, kernel=1)
    sizes = n.op("Concat", n.op("Slice", n.op("Shape", coarse), ints(n, 0), ints(n, 2)), ints(n, SIZE, SIZE), axis=0)
    return n.op("Resize", coarse, "", "", sizes, out=out, mode="linear", coordinate_transformation_mode="half_pixel")


@head
def deeplab(n: Net) -> onnx.ModelProto:
    """Logits "out" [N, 4, 32, 32]."""
    _upsampled(n, "out")
    return n.model({"out": ("N", 4, SIZE, SIZE)}, IMAGE)


@head
def deeplab_argmax(n: Net) -> onnx.ModelProto:
    """Only the class of each pixel: int64 [N, 32, 32]."""
    n.op("ArgMax", _upsampled(n, "logits"), out="labels", axis=1, keepdims=0)
    return n.model({"labels": (INT64, ("N", SIZE, SIZE))}, IMAGE)


@head
def segmenter_last(n: Net) -> onnx.ModelProto:
    """Channels last throughout: image [N, 32, 32, 3], probabilities [N, 8, 8, 3]."""
    x = n.op("Transpose", "image", perm=[0, 3, 1, 2])
    n.channels[x] = 3
    x = n.op("Transpose", n.conv(trunk(n, x), 3, kernel=1), perm=[0, 2, 3, 1])
    n.op("Softmax", x, out="scores", axis=3)
    return n.model({"scores": ("N", 8, 8, 3)}, {"image": ("N", SIZE, SIZE, 3)})


@head
def text_map(n: Net) -> onnx.ModelProto:
    """PP-OCR's detector: the probability of text at each pixel, [N, 1, 32, 32]."""
    scores = _upsampled(n, "logits", 1)
    n.op("Sigmoid", scores, out="text")
    return n.model({"text": ("N", 1, SIZE, SIZE)}, IMAGE)


# --- detectors ----------------------------------------------------------------------------------------------------


def _priors() -> np.ndarray[Any, Any]:
    """64 boxes, a quarter of the picture wide, on a grid of 8: corners as shares."""
    centres = (np.stack(np.meshgrid(np.arange(8), np.arange(8)), axis=-1).reshape(-1, 2) + 0.5) / 8
    return np.concatenate([centres - 0.125, centres + 0.125], axis=1).astype(np.float32)


def _ssd(n: Net, classes: int = 4, prefix: str = "") -> tuple[str, str]:
    """Boxes [N, 64, 4] around priors, and probabilities [N, 64, classes]; class 0 is background."""
    x = trunk(n)

    def rows(width: int) -> str:
        return n.op("Reshape", n.op("Transpose", n.conv(x, width), perm=[0, 2, 3, 1]), ints(n, 0, -1, width))

    offsets = n.op("Mul", n.op("Tanh", rows(4)), n.const(0.05))
    boxes = n.op("Add", offsets, n.const(_priors()[None]), out=f"{prefix}boxes")
    return boxes, n.op("Softmax", rows(classes), out=f"{prefix}scores", axis=2)


@head
def ssd(n: Net) -> onnx.ModelProto:
    """Boxes first, probabilities second."""
    _ssd(n)
    return n.model({"boxes": ("N", 64, 4), "scores": ("N", 64, 4)}, IMAGE)


@head
def ssd_nms(n: Net) -> onnx.ModelProto:
    """NonMaxSuppression inside: boxes [n, 4], labels [n] and scores [n] of what is left, as torchvision does it."""
    boxes, scores = _ssd(n, prefix="all_")
    objects = n.op("Slice", scores, ints(n, 1), ints(n, 4), ints(n, 2))
    by_class = n.op("Transpose", objects, perm=[0, 2, 1])
    picked = n.op("NonMaxSuppression", boxes, by_class, ints(n, 3), n.const(0.5), n.const(0.2))
    labels = n.op("Gather", picked, ints(n, 1), axis=1)
    places = n.op("Squeeze", n.op("Gather", picked, ints(n, 2), axis=1), ints(n, 1))
    n.op("Gather", n.op("Squeeze", boxes, ints(n, 0)), places, out="boxes", axis=0)
    n.op("Add", n.op("Squeeze", labels, ints(n, 1)), ints(n, 1), out="labels")
    n.op("GatherND", by_class, picked, out="scores")
    return n.model({"boxes": ("n", 4), "labels": (INT64, ("n",)), "scores": ("n",)}, ONE)


@head
def yolov5(n: Net) -> onnx.ModelProto:
    """[N, 64, 8]: centre, size (pixels), objectness, three classes; one anchor on a grid of 8."""
    x = n.op("Sigmoid", n.op("Transpose", n.conv(trunk(n), 8), perm=[0, 2, 3, 1]))
    grid = np.stack(np.meshgrid(np.arange(8), np.arange(8)), axis=-1)[None].astype(np.float32)
    xy, wh, rest = (n.op("Slice", x, ints(n, a), ints(n, b), ints(n, 3)) for a, b in ((0, 2), (2, 4), (4, 8)))
    xy = n.op("Mul", n.op("Add", n.op("Mul", xy, n.const(2.0)), n.const(grid - 0.5)), n.const(4.0))
    wh = n.op("Mul", n.op("Pow", n.op("Mul", wh, n.const(2.0)), n.const(2.0)), n.const([8.0, 10.0]))
    n.op("Reshape", n.op("Concat", xy, wh, rest, axis=3), ints(n, 0, -1, 8), out="output0")
    return n.model({"output0": ("N", 64, 8)}, IMAGE)


def _ultralytics(n: Net, out: str, *further: str) -> str:
    """Centre and size (pixels), probabilities of three classes, and what follows, on a grid of 8: [N, 7..., 64]."""
    x = n.op("Reshape", n.conv(trunk(n), 7), ints(n, 0, 7, -1))
    centre = (np.stack(np.meshgrid(np.arange(8), np.arange(8))).reshape(1, 2, 64) + 0.5).astype(np.float32) * 4
    move, size, classes = (n.op("Slice", x, ints(n, a), ints(n, b), ints(n, 1)) for a, b in ((0, 2), (2, 4), (4, 7)))
    move = n.op("Add", move, n.const(centre))
    size = n.op("Mul", n.op("Softplus", size), n.const(8.0))
    return n.op("Concat", move, size, n.op("Sigmoid", classes), *further, out=out, axis=1)


@head
def yolov8(n: Net) -> onnx.ModelProto:
    """Ultralytics' layout [N, 4 + 3, 64]."""
    _ultralytics(n, "output0")
    return n.model({"output0": ("N", 7, 64)}, IMAGE)


@head
def yolov8_seg(n: Net) -> onnx.ModelProto:
    """Ultralytics' segmentation: [N, 4 + 3 + 5, 64] with coefficients of five prototypes [N, 5, 16, 16]."""
    _ultralytics(n, "output0", n.op("Reshape", n.conv(trunk(n), 5), ints(n, 0, 5, -1)))
    n.conv(trunk(n, halvings=1), 5, out="output1")
    names = {"names": "{0: 'person', 1: 'car', 2: 'dog'}", "task": "segment"}
    return n.model({"output0": ("N", 12, 64), "output1": ("N", 5, 16, 16)}, IMAGE, metadata=names)


@head
def end_to_end(n: Net) -> onnx.ModelProto:
    """The five best boxes as rows [1, 5, 6]: corners in pixels, score, class; chosen by TopK inside."""
    boxes, scores = _ssd(n)
    best, label = n.op("ReduceMax", scores, axes=[2], keepdims=0), n.op("ArgMax", scores, axis=2, keepdims=0)
    values, places = pair(n, "TopK", ("five", "places"), best, ints(n, 5), axis=1)
    flat = n.op("Squeeze", places, ints(n, 0))
    corners = n.op("Gather", n.op("Mul", boxes, n.const(float(SIZE))), flat, axis=1)
    classes = n.op("Cast", n.op("Gather", label, flat, axis=1), to=TensorProto.FLOAT)
    columns = [n.op("Unsqueeze", x, ints(n, 2)) for x in (values, classes)]
    n.op("Concat", corners, *columns, out="rows", axis=2)
    return n.model({"rows": (1, 5, 6)}, ONE)


@head
def detr(n: Net) -> onnx.ModelProto:
    """Logits [N, 16, 6] with "no object" last, boxes [N, 16, 4] as centre and size in shares."""
    x = trunk(n, halvings=3)

    def rows(width: int) -> str:
        return n.op("Reshape", n.op("Transpose", n.conv(x, width), perm=[0, 2, 3, 1]), ints(n, 0, -1, width))

    n.op("Sigmoid", rows(4), out="pred_boxes")
    n.op("Identity", rows(6), out="logits")
    return n.model({"pred_boxes": ("N", 16, 4), "logits": ("N", 16, 6)}, IMAGE)


@head
def pnet(n: Net) -> onnx.ModelProto:
    """MTCNN's first stage: on a grid of 8, offsets [N, 8, 8, 4] and probabilities [N, 8, 8, 2] of face or none."""
    x = n.op("Transpose", "image", perm=[0, 3, 1, 2])
    n.channels[x] = 3
    x = trunk(n, x)
    n.op("Transpose", n.conv(x, 4, kernel=1), out="offsets", perm=[0, 2, 3, 1])
    n.op("Softmax", n.op("Transpose", n.conv(x, 2, kernel=1), perm=[0, 2, 3, 1]), out="faces", axis=3)
    return n.model({"offsets": ("N", 8, 8, 4), "faces": ("N", 8, 8, 2)}, {"image": ("N", SIZE, SIZE, 3)})


@head
def tensorflow_ssd(n: Net) -> onnx.ModelProto:
    """The outputs of TensorFlow's detection API: boxes as top, left, bottom, right in shares; classes as floats."""
    boxes, scores = _ssd(n, prefix="raw_")
    objects = n.op("Slice", scores, ints(n, 1), ints(n, 4), ints(n, 2))
    best, label = n.op("ReduceMax", objects, axes=[2], keepdims=0), n.op("ArgMax", objects, axis=2, keepdims=0)
    _, places = pair(n, "TopK", ("detection_scores", "places"), best, ints(n, 5), axis=1)
    flat = n.op("Squeeze", places, ints(n, 0))
    turned = n.op("Gather", boxes, ints(n, 1, 0, 3, 2), axis=2)
    n.op("Gather", turned, flat, out="detection_boxes", axis=1)
    n.op("Cast", places, out="detection_anchor_indices", to=TensorProto.FLOAT)
    labels = n.op("Add", n.op("Gather", label, flat, axis=1), ints(n, 1))
    n.op("Cast", labels, out="detection_classes", to=TensorProto.FLOAT)
    names = ("detection_anchor_indices", "detection_boxes", "detection_classes", "detection_scores")
    return n.model({k: (1, 5, 4) if k == "detection_boxes" else (1, 5) for k in names}, ONE)


def _with_threshold(model: onnx.ModelProto, threshold: float) -> onnx.ModelProto:
    """The score that a box must reach in the model's NonMaxSuppression."""
    name = next(node.input[4] for node in model.graph.node if node.op_type == "NonMaxSuppression")
    for tensor in model.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(np.asarray(threshold, np.float32), name))
    return model


@head
def nothing_found(n: Net) -> onnx.ModelProto:
    """ssd_nms with a threshold that no score reaches: boxes [0, 4], scores [0]."""
    return _with_threshold(ssd_nms(n), 0.999)


@head
def half_deeplab(n: Net) -> onnx.ModelProto:
    """deeplab in float16 on 32 x 32: the weights of a mean over a large mask would lose their digits there."""
    coarse = n.conv(trunk(n, n.op("Cast", "image", to=TensorProto.FLOAT)), 4, kernel=1)
    up = n.op("Resize", coarse, "", n.const([1, 1, 4, 4]), mode="linear", coordinate_transformation_mode="half_pixel")
    n.op("Cast", up, out="out", to=TensorProto.FLOAT16)
    half = TensorProto.FLOAT16
    return n.model({"out": (half, ("N", 4, SIZE, SIZE))}, {"image": (half, ("N", 3, SIZE, SIZE))})


@head
def one_found(n: Net) -> onnx.ModelProto:
    """ssd_nms whose threshold only the best score reaches: boxes [1, 4], scores [1], whose 1 counts no images."""
    return _with_threshold(ssd_nms(n), 0.4)


@head
def free_output(n: Net) -> onnx.ModelProto:
    """An embedding of one image whose declared output has no size at all."""
    sizes = n.op("Cast", n.op("ReduceSum", "image", keepdims=0), to=INT64)  # no shape inference sees through this
    sizes = n.op("Add", n.op("Mul", sizes, ints(n, 0)), ints(n, 1, 16))
    n.op("Reshape", n.classify(trunk(n), out="inner", classes=16), sizes, out="vector")
    return n.model({"vector": ("a", "b")}, ONE)


@head
def pixels_inside(n: Net) -> onnx.ModelProto:
    """uint8 [N, 32, 40, 3], cut and turned as integers before it becomes float; scores and a sorted copy's places."""
    x = n.op("Slice", "image", ints(n, 0), ints(n, SIZE), ints(n, 2))
    x = n.op("Cast", n.op("Transpose", x, perm=[0, 3, 1, 2]), to=TensorProto.FLOAT)
    n.channels[x] = 3
    x = n.op("Mul", x, n.const(1 / 255))
    n.classify(trunk(n, x), out="scores")
    _, places = pair(n, "TopK", ("sorted", "places"), "scores", ints(n, 5), axis=1)
    n.op("Cast", places, out="order", to=TensorProto.FLOAT)
    outputs = {"order": ("N", 5), "scores": ("N", 5)}
    return n.model(outputs, {"image": (TensorProto.UINT8, ("N", SIZE, 40, 3))})


@head
def depth(n: Net) -> onnx.ModelProto:
    """A number in 0..1 for each pixel, [N, 32, 32], by a Clip: neither boxes nor classes."""
    x = n.conv(n.relu(n.conv("image", 8)), 1)
    n.op("Squeeze", n.op("Clip", x, n.const(0.0), n.const(1.0)), ints(n, 1), out="depth")
    return n.model({"depth": ("N", SIZE, SIZE)}, IMAGE)
