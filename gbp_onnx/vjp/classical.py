"""Operators of ai.onnx.ml: scikit-learn's models behind (or in front of) a network, as far as they are smooth."""

from __future__ import annotations

import numpy as np

from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.reader import FLOAT_TYPES, Node, Tensor
from gbp_onnx.vjp.common import as_real, masked, need, rank_of, reshape_like
from gbp_onnx.vjp.layout import scatter_along
from gbp_onnx.vjp.registry import Cotangents, Refusal, refuses, stops_gradient, vjp
from gbp_onnx.vjp.stops import PIECEWISE_CONSTANT, TEXT

ML = "ai.onnx.ml"

stops_gradient("Binarizer", "LabelEncoder", "OneHotEncoder", why=PIECEWISE_CONSTANT, domain=ML)
stops_gradient("TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor", why=PIECEWISE_CONSTANT, domain=ML)
stops_gradient("CategoryMapper", "DictVectorizer", why=TEXT, domain=ML)
refuses("ZipMap", why="its result is a list of dictionaries; explain the tensor that it reads", domain=ML)
refuses("CastMap", why="it reads a dictionary", domain=ML)
refuses("SVMClassifier", "SVMRegressor", why="the derivative of a support vector machine is not known here", domain=ML)


@vjp("Scaler", domain=ML)
def scaler(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct * scale"""
    scale = np.asarray(node.attrs["scale"], np.float32)
    if scale.size > 1 and rank_of(op, need(node.inputs[0], "input")) > 2:
        raise Refusal("it scales more than two axes by a row of numbers")
    return (_like(op, op.Mul(ct, op.constant(scale)), node),)


@vjp("Normalizer", domain=ML)
def normalizer(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """(ct - d * sum(ct * y)) / norm, along the last axis; d, the norm's derivative: y, sign(x), or 1 at the maximum"""
    x, norm = as_real(op, need(node.inputs[0], "input"), ct), node.attrs["norm"]
    last = [rank_of(op, node.inputs[0]) - 1]
    if norm == "L2":
        length, slope = op.Sqrt(op.ReduceSum(op.Mul(x, x), axes=last, keepdims=1)), node.outputs[0]
    elif norm == "L1":
        length, slope = op.ReduceSum(op.Abs(x), axes=last, keepdims=1), op.Sign(x)
    else:
        highest = op.ArgMax(x, axis=last[0], keepdims=0)
        slope = op.OneHot(highest, op.dim(node.inputs[0], last[0]), op.constant([0, 1], op.elem_type(ct)), axis=-1)
        length = op.ReduceMax(x, axes=last, keepdims=1)
    inner = op.ReduceSum(op.Mul(ct, node.outputs[0]), axes=last, keepdims=1)
    empty = op.Equal(length, 0.0)  # a row of zeros stays one
    divided = op.Div(op.Sub(ct, op.Mul(slope, inner)), op.Where(empty, 1.0, length))
    return (_like(op, op.Where(empty, ct, divided), node),)


@vjp("Imputer", domain=ML)
def imputer(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct where x is not missing"""
    x = node.inputs[0]
    if node.attrs.get("imputed_value_int64s"):
        missing = op.Equal(x, int(node.attrs["replaced_value_int64"]))
    else:
        value = float(node.attrs["replaced_value_float"])
        missing = op.IsNaN(x) if np.isnan(value) else op.Equal(x, value)
    return (masked(op, op.Not(missing), ct),)


@vjp("ArrayFeatureExtractor", domain=ML)
def array_feature_extractor(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct added to the columns that were taken"""
    x, columns = need(node.inputs[0], "input"), need(node.inputs[1], "indices")
    rank = rank_of(op, x)
    table = ct if rank > 1 else op.Reshape(ct, [1, -1])
    taken = scatter_along(op, table, op.Reshape(columns, [-1]), op.dim(x, rank - 1), max(rank, 2) - 1, max(rank, 2))
    return (taken if rank > 1 else reshape_like(op, taken, x),)


@vjp("FeatureVectorizer", domain=ML)
def feature_vectorizer(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct, cut at the seams"""
    sizes = [int(s) for s in node.attrs["inputdimensions"]]
    for x, size in zip(node.inputs, sizes, strict=True):
        shape = None if x is None else op.known_shape(x)
        if shape is None or shape[-1] != size:
            raise Refusal(f"it cuts or fills up an input to {size} columns")
    if len(sizes) == 1:
        return (reshape_like(op, ct, node.inputs[0]),)
    pieces = op.Split(ct, sizes, axis=1, outputs=len(sizes))
    return tuple(
        op.Cast(reshape_like(op, piece, x), to=op.elem_type(x)) if op.elem_type(x) in FLOAT_TYPES else piece
        for piece, x in zip(pieces, node.inputs, strict=True)
        if x is not None
    )


# --- linear models ------------------------------------------------------------------------------------------------


@vjp("LinearRegressor", domain=ML)
def linear_regressor(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """ct @ W, behind the derivative of the softmax or the sigmoid that follows"""
    count = int(node.attrs["targets"])
    # ONNX Runtime leaves a single number as it is, whatever post_transform says.
    scores = ct if count == 1 else _before_transform(op, node, ct, need(node.outputs[0], "output"))
    return (_through_weights(op, node, scores, count),)


@vjp("LinearClassifier", domain=ML, outputs="all")
def linear_classifier(op: Emitter, node: Node, cts: tuple[Tensor | None, ...]) -> Cotangents:
    """ct @ W, behind the derivative of the softmax or the sigmoid that follows; one score s gives 1 - s and s"""
    ct, y = cts[1], node.outputs[1]
    if ct is None or y is None:
        return (None,)  # the label alone is used
    count = len(node.attrs.get("intercepts") or ()) or len(_labels(node))
    if count > 1:
        return (_through_weights(op, node, _before_transform(op, node, ct, y), count),)
    first, second = op.Split(ct, [1, 1], axis=1, outputs=2)
    score = op.Sub(second, first)
    if node.attrs["post_transform"] == "LOGISTIC":
        probability = op.Slice(y, [1], [2], [1])
        score = op.Mul(score, op.Mul(probability, op.Sub(1.0, probability)))
    return (_through_weights(op, node, score, count),)


def _labels(node: Node) -> list[int | str]:
    return list(node.attrs.get("classlabels_ints") or node.attrs.get("classlabels_strings") or ())


def _before_transform(op: Emitter, node: Node, ct: Tensor, y: Tensor) -> Tensor:
    """The cotangent of the scores in front of post_transform."""
    match node.attrs["post_transform"]:
        case "NONE":
            return ct
        case "LOGISTIC":
            made: Tensor = op.Mul(ct, op.Mul(y, op.Sub(1.0, y)))
        case "SOFTMAX":
            made = op.Mul(y, op.Sub(ct, op.ReduceSum(op.Mul(ct, y), axes=[1], keepdims=1)))
        case other:
            raise Refusal(f"its post_transform is {other}")
    return made


def _through_weights(op: Emitter, node: Node, ct: Tensor, count: int) -> Tensor:
    if node.attrs["post_transform"] == "PROBIT":
        raise Refusal("its post_transform is PROBIT")
    weights = np.asarray(node.attrs["coefficients"], np.float32).reshape(count, -1)
    return _like(op, reshape_like(op, op.MatMul(ct, op.constant(weights)), need(node.inputs[0], "input")), node)


def _like(op: Emitter, ct: Tensor, node: Node) -> Tensor:
    """`ct`, float32, in the input's type where that is another float: the results of these operators are float32."""
    kind = op.elem_type(need(node.inputs[0], "input"))
    made: Tensor = op.Cast(ct, to=kind) if kind in FLOAT_TYPES and kind != op.elem_type(ct) else ct
    return made
