"""Old opsets are lifted exactly or refused: the canonical model computes what ONNX Runtime computes for the source."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import gbp_onnx
from gbp_onnx.canonical.lift import OLDEST_EMITTED, UNCHANGED
from gbp_onnx.canonical.passes import canonical_model
from gbp_onnx.errors import ModelError
from gbp_onnx.graph.reader import opset_of
from tests.vjp_check import session

FLOAT = TensorProto.FLOAT
Const = np.ndarray
IMAGE = (1, 2, 6, 4)


def old(
    op: str,
    opset: int,
    *inputs: tuple[int, ...] | Const | None,
    outputs: int = 1,
    free: bool = False,
    results: tuple[str, ...] = (),
    **attrs: Any,
) -> onnx.ModelProto:
    """One node; a tuple is a float input of that shape, an array an initializer. `free`: sizes not written down."""
    names, given, stored = [], [], []
    for k, spec in enumerate(inputs):
        names.append("" if spec is None else "abcdefgh"[k])
        if isinstance(spec, np.ndarray):
            stored.append(numpy_helper.from_array(spec, names[-1]))
        elif spec is not None:
            given.append(
                helper.make_tensor_value_info(
                    names[-1], FLOAT, [f"{names[-1]}{i}" for i in range(len(spec))] if free else spec
                )
            )
    made = [f"y{k or ''}" for k in range(outputs)]
    graph = helper.make_graph(
        [helper.make_node(op, names, made, name="the node", **attrs)],
        "old",
        given,
        [onnx.ValueInfoProto(name=n) for n in results or made],
        stored,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=6)
    return onnx.shape_inference.infer_shapes(model)


def feeds(model: onnx.ModelProto, shapes: tuple[Any, ...]) -> dict[str, np.ndarray]:
    random = np.random.RandomState(3)
    given = [s for s in shapes if isinstance(s, tuple)]
    return {i.name: random.uniform(-2, 2, s).astype(np.float32) for i, s in zip(model.graph.input, given, strict=True)}


def _i(*values: int) -> Const:
    return np.asarray(values, np.int64)


def _f(*values: float) -> Const:
    return np.asarray(values, np.float32)


_W, _C = np.ones((2, 2, 3, 3), np.float32) / 7, (_f(1, 2), _f(0, 1), _f(0.2, -0.3), _f(1.5, 0.7))

EXACT: list[tuple[str, int, tuple[Any, ...], dict[str, Any]]] = [
    *(
        (op, opset, (IMAGE,), {"axis": axis})
        for op in ("Softmax", "LogSoftmax", "Hardmax")
        for opset in (7, 9, 11)
        for axis in (0, 1, 2, 3)
    ),
    *((op, 11, (IMAGE,), {"axis": axis}) for op in ("Softmax", "LogSoftmax", "Hardmax") for axis in (-1, -2, -4)),
    *((op, 9, (IMAGE,), {}) for op in ("Softmax", "LogSoftmax", "Hardmax")),
    ("Softmax", 9, ((1, 10, 1, 1),), {}),
    ("Softmax", 12, ((3, 5),), {}),
    *(
        ("Upsample", 7, (IMAGE,), {"scales": s, "mode": m})
        for s in ([1.0, 1.0, 2.0, 3.0], [1.0, 1.0, 1.5, 2.4])
        for m in ("nearest", "linear")
    ),
    *(
        ("Upsample", 9, (IMAGE, _f(1, 1, *s)), {"mode": m})
        for s in ((2, 3), (1.5, 2.4), (1, 2))
        for m in ("nearest", "linear")
    ),
    *(
        ("Resize", 10, (IMAGE, _f(1, 1, *s)), {"mode": m})
        for s in ((2, 3), (1.5, 2.4), (0.5, 0.4), (0.7, 1))
        for m in ("nearest", "linear")
    ),
    ("Resize", 10, (IMAGE, _f(1, 1, 0.6, 1.7)), {"mode": "linear"}),
    ("Resize", 10, (IMAGE, _f(1, 1, 0.5, 2)), {"mode": "nearest"}),
    ("Clip", 6 + 1, (IMAGE,), {"min": -0.5, "max": 0.7}),
    ("Clip", 7, (IMAGE,), {"min": 0.0}),
    ("Clip", 10, (IMAGE,), {"max": 0.7}),
    ("Clip", 7, (IMAGE,), {}),
    ("Pad", 7, (IMAGE,), {"pads": [0, 0, 1, 2, 0, 0, 3, 1]}),
    ("Pad", 10, (IMAGE,), {"pads": [0, 0, 1, 2, 0, 0, 3, 1], "value": 0.7}),
    ("Pad", 9, (IMAGE,), {"pads": [0, 0, 1, 2, 0, 0, 3, 1], "mode": "reflect"}),
    ("Pad", 9, (IMAGE,), {"pads": [0, 0, 1, 2, 0, 0, 3, 1], "mode": "edge"}),
    ("Pad", 9, (IMAGE,), {"pads": [0, 0, -1, 2, 0, 0, 3, -1]}),
    ("Slice", 7, (IMAGE,), {"starts": [1, -3], "ends": [5, 1000], "axes": [2, 3]}),
    ("Slice", 9, (IMAGE,), {"starts": [0, 1], "ends": [1, 2]}),
    ("Slice", 10, (IMAGE, _i(-1), _i(-100), _i(2), _i(-2)), {}),
    ("Squeeze", 7, ((1, 3, 1),), {"axes": [0]}),
    ("Squeeze", 11, ((1, 3, 1),), {"axes": [-1]}),
    ("Squeeze", 9, ((1, 3, 1),), {}),
    ("Unsqueeze", 7, ((3, 2),), {"axes": [0, 3]}),
    ("Unsqueeze", 11, ((3, 2),), {"axes": [-1]}),
    *(("ReduceSum", 9, (IMAGE,), a) for a in ({"axes": [1, 2]}, {"axes": [3], "keepdims": 0}, {}, {"keepdims": 0})),
    *(
        (f"Reduce{k}", opset, (IMAGE,), {"axes": [1, 2]})
        for k in ("Mean", "Max", "Min", "L1", "L2", "SumSquare", "LogSumExp")
        for opset in (7, 11, 13)
    ),
    ("Split", 7, (IMAGE,), {"axis": 2, "split": [1, 5], "outputs": 2}),
    ("Split", 7, (IMAGE,), {"axis": 1, "outputs": 2}),
    ("Split", 11, (IMAGE,), {"axis": -1, "split": [3, 1], "outputs": 2}),
    *(
        ("Dropout", opset, (IMAGE,), {"ratio": 0.5, "outputs": n, "results": ("y",)})
        for opset in (7, 10)
        for n in (1, 2)
    ),
    *(("BatchNormalization", opset, (IMAGE, *_C), {"epsilon": 1e-3}) for opset in (7, 9, 14)),
    ("BatchNormalization", 7, (IMAGE, *_C), {"spatial": 1, "momentum": 0.9}),
    ("TopK", 7, (IMAGE,), {"k": 2, "axis": 2, "outputs": 2}),
    ("TopK", 10, (IMAGE, _i(2)), {"axis": 2, "outputs": 2}),
    ("TopK", 11, (IMAGE, _i(2)), {"axis": 2, "largest": 0, "outputs": 2}),
    ("Scatter", 9, ((3, 3), _i(1, 0, 2).reshape(1, 3), _f(1, 2, 3).reshape(1, 3)), {}),
    ("ScatterElements", 11, ((3, 3), _i(1, 0, 2).reshape(1, 3), _f(1, 2, 3).reshape(1, 3)), {"axis": 0}),
    (
        "RoiAlign",
        10,
        (IMAGE, _f(0, 0, 3, 3, 1, 1, 2.4, 4.7).reshape(2, 4), _i(0, 0)),
        {"output_height": 2, "output_width": 2, "sampling_ratio": 2},
    ),
    ("RoiAlign", 10, (IMAGE, _f(0, 0, 3, 3).reshape(1, 4), _i(0)), {"mode": "max", "spatial_scale": 0.5}),
    *(
        ("ImageScaler", opset, (IMAGE,), a)
        for opset in (7, 9)
        for a in (
            {"scale": 0.5, "bias": [1.0, -2.0]},
            {"scale": 1.0, "bias": [1.0, -2.0]},
            {"scale": 2.0, "bias": [0.0, 0.0]},
        )
    ),
    # Defined anew, but meaning the same.
    *(
        ("Conv", o, (IMAGE, _W), a)
        for o in (7, 11)
        for a in ({}, {"strides": [2, 2], "pads": [1, 0, 1, 2]}, {"auto_pad": "SAME_UPPER"})
    ),
    *(
        ("ConvTranspose", o, (IMAGE, _W), a)
        for o in (7, 11)
        for a in (
            {"strides": [2, 2]},
            {"output_padding": [1, 1], "strides": [2, 2]},
            {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
            {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
            {"output_shape": [12, 9], "strides": [2, 2]},
        )
    ),
    *(
        ("MaxPool", o, (IMAGE,), {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1]})
        for o in (7, 8, 10, 11)
    ),
    *(
        ("MaxPool", o, (IMAGE,), {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "SAME_LOWER"})
        for o in (7, 8, 11)
    ),
    *(
        ("MaxPool", o, (IMAGE,), {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1, "outputs": 2})
        for o in (10, 12)
    ),
    *(
        (
            "AveragePool",
            o,
            (IMAGE,),
            {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1], "count_include_pad": c},
        )
        for o in (7, 10, 11)
        for c in (0, 1)
    ),
    *(
        (
            "AveragePool",
            10,
            (IMAGE,),
            {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1, "pads": [1, 1, 1, 1], "count_include_pad": c},
        )
        for c in (0, 1)
    ),
    *(
        (o, v, (IMAGE,), {})
        for o in (
            "Relu",
            "Sigmoid",
            "Tanh",
            "Exp",
            "Abs",
            "Neg",
            "Floor",
            "Ceil",
            "Identity",
            "Softplus",
            "Softsign",
            "GlobalAveragePool",
            "GlobalMaxPool",
        )
        for v in (7, 12)
    ),
    *((o, v, (IMAGE, (2, 1, 1)), {}) for o in ("Add", "Sub", "Mul", "Div") for v in (7, 13)),
    *((o, v, (IMAGE, IMAGE, IMAGE), {}) for o in ("Sum", "Mean", "Max", "Min") for v in (7, 8, 12)),
    *(("PRelu", v, (IMAGE, _f(0.1, 0.3).reshape(2, 1, 1)), {}) for v in (7, 9)),
    *(("LeakyRelu", v, (IMAGE,), {"alpha": 0.2}) for v in (7, 15)),
    *(("Gemm", v, ((3, 4), (4, 5), (5,)), {"alpha": 0.5}) for v in (7, 9, 11)),
    ("Gemm", 7, ((3, 4), (5, 4), (3, 1)), {"transB": 1}),
    *(("Pow", v, (IMAGE, _f(2.0)), {}) for v in (7, 12, 13)),
    *(("MatMul", v, ((3, 4), (4, 5)), {}) for v in (7, 9)),
    *(("LRN", v, ((1, 6, 2, 2),), {"size": 3, "alpha": 0.1}) for v in (7, 13)),
    *(("Flatten", v, (IMAGE,), {"axis": 2}) for v in (7, 9, 11)),
    *(("Concat", v, (IMAGE, IMAGE), {"axis": 1}) for v in (7, 11)),
    *(("Gather", v, (IMAGE, _i(1, 0)), {"axis": 1}) for v in (7, 11)),
    *(("ArgMax", v, (IMAGE,), {"axis": 2}) for v in (7, 11, 12)),
    *(("Cast", v, (IMAGE,), {"to": TensorProto.INT32}) for v in (7, 9)),
    *(("Transpose", v, (IMAGE,), {"perm": [0, 2, 3, 1]}) for v in (7, 12)),
    *(("DepthToSpace", v, ((1, 8, 2, 3),), {"blocksize": 2}) for v in (7, 11)),
    ("DepthToSpace", 11, ((1, 8, 2, 3),), {"blocksize": 2, "mode": "CRD"}),
    ("SpaceToDepth", 7, (IMAGE,), {"blocksize": 2}),
    ("MeanVarianceNormalization", 9, (IMAGE,), {}),
    ("InstanceNormalization", 7, (IMAGE, _f(1, 2), _f(0, 1)), {}),
    ("Tile", 7, (IMAGE, _i(1, 1, 2, 1)), {}),
    ("Expand", 8, ((2, 1), _i(2, 3)), {}),
    ("Reshape", 7, (IMAGE, _i(0, -1)), {}),
    ("Where", 9, (np.asarray([True, False, True, False]), IMAGE, IMAGE), {}),
]


@pytest.mark.parametrize("free", [False, True], ids=["sizes known", "sizes unknown"])
@pytest.mark.parametrize(
    ("op", "opset", "inputs", "more"), EXACT, ids=lambda v: str(v)[:40] if not isinstance(v, tuple) else ""
)
def test_lifted_exactly(op: str, opset: int, inputs: tuple[Any, ...], more: dict[str, Any], free: bool) -> None:
    model = old(op, opset, *inputs, free=free, **more)
    before = model.SerializeToString()
    given = feeds(model, inputs)
    want = session(model).run(None, given)
    copy = onnx.ModelProto.FromString(before)
    lifted = canonical_model(copy)
    assert opset_of(lifted) >= OLDEST_EMITTED and lifted.ir_version == 10
    got = session(lifted).run(None, given)
    for name, mine, theirs in zip([o.name for o in model.graph.output], got, want, strict=True):
        np.testing.assert_array_equal(mine, theirs, err_msg=name)
    assert [o.name for o in lifted.graph.output] == [o.name for o in model.graph.output]
    assert any(n.name == "the node" for n in lifted.graph.node)
    is_float = any(o.type.tensor_type.elem_type == FLOAT for o in model.graph.output)
    if is_float and op not in _NO_DERIVATIVE and not (free and "output_shape" in more):
        gbp_onnx.differentiate(model)
        assert model.SerializeToString() == before


_NO_DERIVATIVE = {"ScatterElements", "Scatter", "RoiAlign"}


REFUSED: list[tuple[str, int, tuple[Any, ...], dict[str, Any], str]] = [
    ("BatchNormalization", 7, (IMAGE, *_C), {"spatial": 0}, "spatial=0"),
    ("Dropout", 10, (IMAGE,), {"outputs": 2}, "its mask is read"),
]


@pytest.mark.parametrize(
    ("op", "opset", "inputs", "more", "why"), REFUSED, ids=lambda v: v if isinstance(v, str) else ""
)
def test_refused_where_it_cannot_be_exact(
    op: str, opset: int, inputs: tuple[Any, ...], more: dict[str, Any], why: str
) -> None:
    with pytest.raises(ModelError, match=why) as error:
        gbp_onnx.differentiate(old(op, opset, *inputs, **more))
    assert error.value.code == "GBP107" and "the node" in str(error.value)


def test_every_unchanged_operator_is_one() -> None:
    """UNCHANGED names operators of the standard, and none that could be left out of it."""
    for op in UNCHANGED:
        versions = {onnx.defs.get_schema(op, v).since_version for v in range(7, OLDEST_EMITTED + 1) if _has(op, v)}
        assert len(versions) > 1, op


def _has(op: str, opset: int) -> bool:
    try:
        onnx.defs.get_schema(op, opset)
    except onnx.defs.SchemaError:
        return False
    return True


def test_metadata_names_functions_and_annotations_survive() -> None:
    model = old("Softmax", 9, IMAGE, axis=1)
    model.graph.name, model.producer_name, model.doc_string, model.graph.doc_string = (
        "a name",
        "a tool",
        "about",
        "graph",
    )
    model.metadata_props.add(key="labels", value="cat")
    model.graph.node[0].doc_string = "a node"
    note = model.graph.quantization_annotation.add(tensor_name="a")
    note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="s")
    before = model.SerializeToString()
    built = gbp_onnx.differentiate(model)
    assert model.SerializeToString() == before
    assert (built.graph.name, built.producer_name, built.doc_string, built.graph.doc_string) == (
        "a name",
        "a tool",
        "about",
        "graph",
    )
    assert {p.key: p.value for p in built.metadata_props}["labels"] == "cat"
    assert built.graph.quantization_annotation[0].tensor_name == "a"
    assert any(n.name == "the node" and n.doc_string == "a node" for n in built.graph.node)


def test_local_functions_of_an_old_opset_are_inlined_and_lifted() -> None:
    body = [helper.make_node("Softmax", ["p"], ["q"], axis=1)]
    function = helper.make_function("own", "Head", ["p"], ["q"], body, [helper.make_opsetid("", 9)])
    graph = helper.make_graph(
        [helper.make_node("Head", ["a"], ["y"], domain="own")],
        "g",
        [helper.make_tensor_value_info("a", FLOAT, IMAGE)],
        [helper.make_tensor_value_info("y", FLOAT, IMAGE)],
    )
    model = helper.make_model(
        graph,
        functions=[function],
        opset_imports=[helper.make_opsetid("", 9), helper.make_opsetid("own", 1)],
        ir_version=8,
    )
    model.metadata_props.add(key="labels", value="cat")
    given = {"a": np.random.RandomState(0).uniform(-1, 1, IMAGE).astype(np.float32)}
    want = session(old("Softmax", 9, IMAGE, axis=1)).run(None, given)[0]
    built = gbp_onnx.differentiate(model)
    np.testing.assert_array_equal(session(built).run(["y"], {**given, "y_seed": want})[0], want)
    assert not built.functions and {p.key: p.value for p in built.metadata_props}["labels"] == "cat"


def test_branches_are_lifted_too() -> None:
    """If at opset 9, whose branches hold a Softmax-1 over 4-D and a Clip-6 that read the outer graph."""

    def branch(name: str, node: onnx.NodeProto) -> onnx.GraphProto:
        return helper.make_graph([node], name, [], [helper.make_tensor_value_info(node.output[0], FLOAT, IMAGE)])

    then = branch("then", helper.make_node("Softmax", ["a"], ["t"], axis=1))
    other = branch("else", helper.make_node("Clip", ["a"], ["e"], min=-0.5, max=0.5))
    graph = helper.make_graph(
        [helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)],
        "g",
        [helper.make_tensor_value_info("a", FLOAT, IMAGE), helper.make_tensor_value_info("c", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("y", FLOAT, IMAGE)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=6)
    onnx.checker.check_model(model)
    x = np.random.RandomState(0).uniform(-1, 1, IMAGE).astype(np.float32)
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    lifted = session(canonical_model(copy))
    onnx.checker.check_model(copy)
    for flag in (True, False):
        given = {"a": x, "c": np.asarray(flag)}
        np.testing.assert_array_equal(lifted.run(None, given)[0], session(model).run(None, given)[0])


def test_a_constant_of_an_outer_graph_is_seen_in_a_branch() -> None:
    """Resize-10 inside If, whose scales are an initializer outside: its rounding depends on their value."""
    scales = numpy_helper.from_array(_f(1, 1, 0.5, 0.5), "s")
    made = (1, 2, 3, 2)

    def branch(name: str, mode: str) -> onnx.GraphProto:
        node = helper.make_node("Resize", ["a", "s"], [name], mode=mode)
        return helper.make_graph([node], name, [], [helper.make_tensor_value_info(name, FLOAT, made)])

    graph = helper.make_graph(
        [helper.make_node("If", ["c"], ["y"], then_branch=branch("t", "nearest"), else_branch=branch("e", "linear"))],
        "g",
        [helper.make_tensor_value_info("a", FLOAT, IMAGE), helper.make_tensor_value_info("c", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("y", FLOAT, made)],
        [scales],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 10)], ir_version=6)
    x = np.random.RandomState(0).uniform(-1, 1, IMAGE).astype(np.float32)
    lifted = session(canonical_model(onnx.ModelProto.FromString(model.SerializeToString())))
    for flag in (True, False):
        given = {"a": x, "c": np.asarray(flag)}
        np.testing.assert_array_equal(lifted.run(None, given)[0], session(model).run(None, given)[0])
