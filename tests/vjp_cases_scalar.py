"""More of the table of cases: functions, sums and products, reductions, losses, normalizations, com.microsoft."""

from __future__ import annotations

import numpy as np

from tests.vjp_cases import case, chain, fed, fixed, ints, positive, t
from tests.vjp_check import In

# --- element by element -------------------------------------------------------------------------------------------

for _op, _low, _high in (
    ("Tan", -1.2, 1.2),
    ("Asin", -0.9, 0.9),
    ("Acos", -0.9, 0.9),
    ("Atan", -3, 3),
    ("Sinh", -2, 2),
    ("Cosh", -2, 2),
    ("Asinh", -3, 3),
    ("Acosh", 1.2, 4),
    ("Atanh", -0.9, 0.9),
):
    case("plain", _op, t(2, 3, 4, low=_low, high=_high))
    case("rank 0", _op, t(low=_low, high=_high))
    case("no elements", _op, t(0, 3), opset=22)
case("default", "Shrink", t(2, 7, low=-2, high=2), oracle="reference")
case("bias", "Shrink", t(2, 7, low=-2, high=2), lambd=0.7, bias=0.3, oracle="reference")
case("negative lambd", "Shrink", t(2, 7, low=-2, high=2), lambd=-0.7, bias=0.3, oracle="reference")
case("to half", "CastLike", t(2, 3), fed([1], np.float16), tolerance=1e-3)
case("from half", "CastLike", t(2, 3, dtype=np.float16), fed([1], np.float32), tolerance=1e-3)
case("same type", "CastLike", t(2, 3), fed([1], np.float32))
case(
    "bounds differentiated",
    "Clip",
    t(3, 7, low=-2, high=2),
    t(value=np.asarray(-0.51, np.float32)),
    t(value=np.asarray(0.77, np.float32)),
)
case("lower bound differentiated", "Clip", t(3, 7), t(value=np.asarray(-0.51, np.float32)))
case("upper bound differentiated", "Clip", t(3, 7), None, t(value=np.asarray(0.51, np.float32)))
case(
    "bounds crossed",
    "Clip",
    t(3, 7),
    t(value=np.asarray(0.5, np.float32)),
    t(value=np.asarray(-0.3, np.float32)),
    oracle="reference",
)
case("whole quotients of both signs", "Mod", t(2, 6, low=-5, high=5), t(6, low=-3.1, high=-0.9), fmod=1)
case("exponent of another type", "Pow", positive(2, 3), In((3,), -2, 2, dtype=np.float64), tolerance=2e-6)

# --- matrices -----------------------------------------------------------------------------------------------------

for _equation, _shapes in (
    ("ij,jk->ik", ((2, 3), (3, 4))),
    ("ij,jk", ((2, 3), (3, 4))),
    ("ij -> ji", ((2, 3),)),
    ("ba", ((2, 3),)),
    ("ij->", ((2, 3),)),
    ("ij->i", ((2, 3),)),
    ("i->", ((4,),)),
    ("ii->i", ((3, 3),)),
    ("ii", ((3, 3),)),
    ("iij->j", ((3, 3, 2),)),
    ("iij,jk->ik", ((3, 3, 2), (2, 4))),
    ("ij,ij->ij", ((2, 3), (2, 3))),
    ("i,j->ij", ((2,), (3,))),
    ("i,i->", ((4,), (4,))),
    ("ij,k->i", ((2, 3), (4,))),
    ("bij,bjk->bik", ((2, 3, 2), (2, 2, 4))),
    ("...ij,...jk->...ik", ((2, 3, 2), (2, 2, 4))),
    ("...ij,...jk->...ik", ((2, 1, 3, 2), (1, 3, 2, 4))),
    ("...ij,jk", ((2, 3, 2), (2, 4))),
    ("...ii->...i", ((2, 3, 3),)),
    ("...ii ->...", ((2, 3, 3),)),
    ("i...->i...", ((2, 3, 2),)),
    ("b...d,d...->b...", ((2, 3, 4), (4, 3))),
    ("ij,jk,kl->il", ((2, 3), (3, 2), (2, 4))),
    ("bn,anm,bm->ba", ((2, 3), (4, 3, 5), (2, 5))),
    ("Ab,bC->AC", ((2, 3), (3, 2))),
    ("ij,j->i", ((2, 3), (1,))),
    (",i->i", ((), (3,))),
):
    case(f"{_equation}, {_shapes}", "Einsum", *(t(*s) for s in _shapes), equation=_equation)
chain("Einsum/tensor read twice", "Einsum(a, a) -> y", t(3, 3), attrs={0: {"equation": "ij,jk->ik"}})
case("float64", "Einsum", t(2, 3, dtype=np.float64), t(3, 4, dtype=np.float64), equation="ij,jk->ik", tolerance=1e-9)

for _upper in (0, 1):
    case(f"upper {_upper}", "Trilu", t(4, 5), upper=_upper)
    case(f"upper {_upper}, k", "Trilu", t(2, 4, 3), fixed(1, np.int64), upper=_upper)
    case(f"upper {_upper}, k fed", "Trilu", t(2, 4, 3), fed(-1), upper=_upper)
case("default", "Trilu", t(0, 4))
case("2 x 2", "Det", t(2, 2))
case("3 x 3", "Det", t(3, 3))
case("batches", "Det", t(2, 2, 4, 4), tolerance=2e-6)
case("1 x 1", "Det", t(3, 1, 1), dynamic=False)
case("singular", "Det", In(value=np.asarray([[1, 2, 3], [2, 4, 6], [1, 0, 1]], np.float32)))
case("opset 22", "Det", t(3, 3), opset=22)

for _attrs in ({}, {"exclusive": 1}, {"reverse": 1}, {"exclusive": 1, "reverse": 1}):
    for _axis in (0, -1):
        _name = f"axis {_axis}, {', '.join(_attrs)}"
        case(_name, "CumSum", t(3, 4), fixed(_axis, np.int32), attrs=_attrs)
        case(f"{_name}, fed", "CumSum", t(2, 4, 2), fed(_axis), attrs=_attrs)
        case(_name, "CumProd", t(3, 4), fixed(_axis, np.int32), attrs=_attrs, opset=26)
        case(f"{_name}, fed", "CumProd", t(2, 4, 2), fed(_axis), attrs=_attrs, opset=26)
    case(
        f"zeros, {', '.join(_attrs)}",
        "CumProd",
        In(value=np.asarray([[2, 0, 3, 0, 4], [1, 2, 0, 5, 6], [0.5, 2, 3, 1, 2]], np.float32)),
        fixed(1, np.int64),
        attrs=_attrs,
        opset=26,
    )
case("a ramp", "Range", In(value=np.array(0.4, "f4")), In(value=np.array(2.9, "f4")), In(value=np.array(0.7, "f4")))
case("opset 11", "CumSum", t(3, 4), fixed(1, np.int32), opset=11)
case("axis of one element", "CumSum", t(3, 4), ints(1))

# --- reductions ---------------------------------------------------------------------------------------------------

_REDUCTIONS = {
    "ReduceSum": t,
    "ReduceMean": t,
    "ReduceMax": t,
    "ReduceMin": t,
    "ReduceL1": t,
    "ReduceL2": t,
    "ReduceSumSquare": t,
    "ReduceLogSum": positive,
    "ReduceLogSumExp": t,
    "ReduceProd": t,
}
for _op, _make in _REDUCTIONS.items():
    for _keep in (0, 1):
        for _axes in ([1], [2, 0], [-1], [0, 1, 2], []):
            case(
                f"axes {_axes} fed, keepdims {_keep}",
                _op,
                _make(2, 3, 4),
                fed(np.asarray(_axes, np.int64)),
                keepdims=_keep,
                opset=18,
                tolerance=2e-6,
            )
        case(
            f"no axes fed, noop, keepdims {_keep}",
            _op,
            _make(2, 3),
            fed(np.zeros(0, np.int64)),
            keepdims=_keep,
            noop_with_empty_axes=1,
            opset=18,
        )
    case("rank 0, axes fed", _op, _make(), fed(np.zeros(0, np.int64)), opset=18)
    case("rank 0, keepdims", _op, _make(), opset=18)
    case("rank 0, opset 13", _op, _make(), opset=13, keepdims=0)
    case("no elements on a kept axis", _op, _make(0, 3), ints(1), opset=18)
    case("no elements on a kept axis, fed", _op, _make(0, 3), fed([1]), opset=18)
for _op in ("ReduceSum", "ReduceMean", "ReduceProd", "ReduceSumSquare", "ReduceL1", "ReduceL2"):
    case("no elements on the axis", _op, t(2, 0), ints(1), opset=18)
for _name, _shape, _more in (
    ("plain", (2, 3, 4), {"axes": [1]}),
    ("all", (2, 3), {}),
    ("not kept", (2, 3, 4), {"axes": [-1, 0], "keepdims": 0}),
):
    case(_name, "ReduceProd", t(*_shape), attrs=_more)
case(
    "zeros",
    "ReduceProd",
    In(value=np.asarray([[2, 0, 3], [0, 0, 4], [1, 2, 3], [0, 5, 6]], np.float32)),
    ints(1),
    opset=18,
)
case(
    "zeros, axes fed",
    "ReduceProd",
    In(value=np.asarray([[2, 0, 3], [0, 0, 4], [1, 2, 3]], np.float32)),
    fed([1]),
    opset=18,
)
case("opset 11", "ReduceProd", t(2, 3), attrs={"axes": [1]}, opset=11)
case("noop", "ReduceProd", t(2, 3), opset=18, noop_with_empty_axes=1)
case("negative axes attribute", "ReduceL2", t(2, 3, 4), attrs={"axes": [-2]})

# --- losses -------------------------------------------------------------------------------------------------------

_TARGETS = {(3, 5): [1, 4, 0], (2, 4, 3): [[0, 3, 1], [2, 2, 1]], (1, 3, 2, 2): [[[0, 2], [1, 1]]]}
_IGNORED = {(3, 5): [1, -7, 0], (2, 4, 3): [[0, 255, 1], [255, 2, 1]]}
_CLASS_WEIGHTS = {5: [0.3, 0.9, 1.2, 0.5, 0.7], 4: [0.3, 0.9, 1.2, 0.5], 3: [0.3, 0.9, 1.2]}
for _op in ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"):
    for _reduction in ("none", "mean", "sum"):
        for _shape, _target in _TARGETS.items():
            _name = f"{_reduction}, {_shape}"
            case(_name, _op, t(*_shape), fixed(_target, np.int64), reduction=_reduction)
            case(
                f"{_name}, target fed, weighted",
                _op,
                t(*_shape),
                fed(_target),
                In(value=np.asarray(_CLASS_WEIGHTS[_shape[1]], np.float32)),
                reduction=_reduction,
            )
        case(f"{_reduction}, int32, opset 12", _op, t(3, 5), fed([1, 4, 0], np.int32), reduction=_reduction, opset=12)
    case("default", _op, t(3, 5), fed([1, 4, 0]))
    for _reduction in ("none", "mean", "sum"):
        case(f"{_reduction}, ignored", _op, t(3, 5), fed([1, 2, 0]), reduction=_reduction, ignore_index=2)
        case(
            f"{_reduction}, ignored -7, weighted",
            _op,
            t(3, 5),
            fed(_IGNORED[3, 5]),
            In(value=np.asarray(_CLASS_WEIGHTS[5], np.float32)),
            reduction=_reduction,
            ignore_index=-7,
        )
        case(
            f"{_reduction}, ignored 255",
            _op,
            t(2, 4, 3),
            fed(_IGNORED[2, 4, 3]),
            reduction=_reduction,
            ignore_index=255,
        )
for _reduction in ("none", "mean"):
    case(f"{_reduction}, log_prob", "SoftmaxCrossEntropyLoss", t(3, 5), fed([1, 4, 0]), reduction=_reduction, outputs=2)
    case(
        f"{_reduction}, log_prob alone",
        "SoftmaxCrossEntropyLoss",
        t(2, 4, 3),
        fed(_TARGETS[2, 4, 3]),
        reduction=_reduction,
        outputs=2,
        differentiated=("y1",),
    )
    case(
        f"{_reduction}, log_prob not differentiated",
        "SoftmaxCrossEntropyLoss",
        t(3, 5),
        fed([1, 4, 0]),
        reduction=_reduction,
        outputs=2,
        differentiated=("y",),
    )

# --- normalizations -----------------------------------------------------------------------------------------------

case("statistics differentiated", "BatchNormalization", t(2, 3, 2, 2), t(3, low=0.5, high=2), t(3), t(3), positive(3))
case("statistics differentiated, 2-D", "BatchNormalization", t(4, 3), t(3), t(3), t(3), positive(3), epsilon=1e-2)
for _axis in (-1, 1):
    _scale = (4,) if _axis == -1 else (3, 4)
    case(
        f"three outputs, axis {_axis}",
        "LayerNormalization",
        t(2, 3, 4),
        t(*_scale),
        t(*_scale),
        axis=_axis,
        outputs=3,
        oracle="reference",
        tolerance=3e-6,
    )
    case(
        f"statistics alone, axis {_axis}",
        "LayerNormalization",
        t(2, 3, 4),
        t(*_scale),
        axis=_axis,
        outputs=3,
        oracle="reference",
        differentiated=("y1", "y2"),
        tolerance=3e-6,
    )
case(
    "opset 16, as ONNX Runtime writes it", "LayerNormalization", t(2, 3, 4), t(4), t(4), opset=16, axis=-1, epsilon=1e-5
)
for _opset, _scale in ((18, 2), (21, 4)):
    case(
        f"scale and bias, opset {_opset}",
        "GroupNormalization",
        t(2, 4, 3),
        t(_scale, low=0.5, high=2),
        t(_scale),
        opset=_opset,
        num_groups=2,
        oracle="reference",
        free="a",
    )
    case(
        f"scale and bias, 2-D, opset {_opset}",
        "GroupNormalization",
        t(2, 4, 2, 3),
        t(_scale),
        t(_scale),
        opset=_opset,
        num_groups=2,
        oracle="reference",
        free="a",
    )
for _axis, _scale in ((-1, (4,)), (1, (3, 4)), (2, (1,)), (-2, (4,))):
    case(
        f"axis {_axis}, scale {_scale}",
        "RMSNormalization",
        t(2, 3, 4),
        t(*_scale),
        opset=23,
        axis=_axis,
        oracle="reference",
    )
case("default", "RMSNormalization", t(2, 5), t(5), opset=23, oracle="reference")
case("as ONNX Runtime writes it", "SimplifiedLayerNormalization", t(2, 3, 4), t(4), axis=-1, epsilon=1e-6)

# --- com.microsoft ------------------------------------------------------------------------------------------------

_MS = {"domain": "com.microsoft"}
case("com.microsoft", "Gelu", t(3, 7, low=-4, high=4), **_MS)
case("plain", "BiasGelu", t(3, 7, low=-4, high=4), t(7), **_MS)
case("with bias", "FastGelu", t(2, 3, 7, low=-4, high=4), t(7), **_MS)
case("without bias", "FastGelu", t(3, 7, low=-4, high=4), **_MS)
case("default", "QuickGelu", t(3, 7, low=-4, high=4), **_MS)
case("alpha", "QuickGelu", t(3, 7, low=-4, high=4), alpha=1.0, **_MS)
case("one matrix", "Inverse", In(value=np.asarray([[2, 0.3], [-0.5, 1.5]], np.float32)), **_MS)
case("batch", "Inverse", In(value=np.asarray([[[2, 0.3], [-0.5, 1.5]], [[1, 1], [-1, 1]]], np.float32)), **_MS)
for _a, _b, _attrs in (
    ((2, 3), (3, 4), {}),
    ((3, 2), (3, 4), {"transA": 1, "alpha": 0.3}),
    ((2, 3), (4, 3), {"transB": 1}),
    ((3, 2), (4, 3), {"transA": 1, "transB": 1, "alpha": 2.0}),
    ((2, 2, 3), (3, 4), {}),
    ((2, 2, 3), (2, 4, 3), {"transB": 1}),
    ((2, 1, 2, 3), (3, 4, 3), {"transB": 1, "alpha": 0.5}),
    ((3, 2), (2, 3, 4), {"transA": 1}),
    ((2, 5, 3), (5, 3, 4), {"transBatchA": 1}),
    ((5, 2, 3), (3, 5, 4), {"transBatchB": 1}),
    ((3, 5, 2), (5, 3, 4), {"transBatchA": 1, "transA": 1}),
    ((2, 5, 3), (4, 5, 3), {"transBatchA": 1, "transBatchB": 1, "transB": 1, "alpha": 0.7}),
    ((2, 6, 5, 3), (4, 6, 5, 3), {"transBatchA": 1, "transBatchB": 1, "transB": 1}),
):
    case(f"{_a} {_b} {_attrs}", "FusedMatMul", t(*_a), t(*_b), attrs=_attrs, linear=True, tolerance=2e-6, **_MS)
case("its old name", "TransposeMatMul", t(2, 4, 3), t(2, 4, 5), attrs={"transA": 1}, linear=True, tolerance=2e-6, **_MS)
for _name, _skip in (("same shape", (2, 3, 4)), ("one skip for the batch", (1, 3, 4)), ("2-D skip", (3, 4))):
    case(_name, "SkipLayerNormalization", t(2, 3, 4), t(*_skip), t(4), t(4), t(4), epsilon=1e-3, **_MS)
    case(_name, "SkipSimplifiedLayerNormalization", t(2, 3, 4), t(*_skip), t(4), t(4), epsilon=1e-3, **_MS)
case("without beta and bias", "SkipLayerNormalization", t(2, 3, 4), t(2, 3, 4), t(4), epsilon=1e-3, **_MS)
case("without beta", "SkipLayerNormalization", t(2, 3, 4), t(2, 3, 4), t(4), None, t(4), epsilon=1e-3, **_MS)
case("without bias", "SkipSimplifiedLayerNormalization", t(2, 3, 4), t(2, 3, 4), t(4), epsilon=1e-3, **_MS)

chain(
    "com.microsoft/an optimised block, whose ranks onnx does not infer",
    """MatMul(a, b) -> m
    BiasGelu(m, c) -> g
    MatMul(g, d) -> n
    SkipLayerNormalization(n, a, e, e, f) -> s
    FusedMatMul(s, s) -> q
    ReduceMax(q) -> r
    FusedMatMul(r, s) -> y""",
    t(2, 3, 4),
    t(4, 6),
    t(6),
    t(6, 4),
    t(4, low=0.5, high=2),
    t(4),
    attrs={
        **dict.fromkeys((1,), _MS),
        3: {**_MS, "epsilon": 1e-3},
        4: {**_MS, "transB": 1, "alpha": 0.5},
        5: {"axes": [-1], "keepdims": 1},
        6: {**_MS, "transA": 1},
    },
    oracle="reference",
    tolerance=3e-6,
)

# --- half and double precision ------------------------------------------------------------------------------------

for _type, _tolerance in ((np.float16, 6e-3), (np.float64, 1e-8)):
    _kind = np.dtype(_type).name
    for _op, _given, _attrs, _opset in (
        ("Shrink", [(2, 7)], {"lambd": 0.3}, 17),
        ("Clip", [(2, 7), (), ()], {}, 17),
        ("Einsum", [(2, 3), (3, 4)], {"equation": "ij,jk->ik"}, 17),
        ("CumSum", [(2, 3), fed(1)], {"exclusive": 1}, 17),
        ("Trilu", [(3, 3)], {}, 17),
        ("ReduceProd", [(2, 3), fed([1])], {}, 18),
        ("ReduceMean", [(2, 3), fed([1])], {}, 18),
        ("ReduceMax", [(2, 3), fed([1])], {}, 18),
        ("ReduceLogSumExp", [(2, 3), fed([1])], {"keepdims": 0}, 18),
        ("NegativeLogLikelihoodLoss", [(3, 4), fed([1, 3, 0]), (4,)], {}, 17),
        ("SoftmaxCrossEntropyLoss", [(3, 4), fed([1, 3, 0])], {"ignore_index": 3}, 17),
        ("LayerNormalization", [(2, 5), (5,), (5,)], {}, 17),
        ("RMSNormalization", [(2, 5), (5,)], {}, 23),
        ("GroupNormalization", [(2, 4, 3), (4,), (4,)], {"num_groups": 2}, 21),
    ):
        case(
            f"{_kind}, {_op}",
            _op,
            *(g if isinstance(g, In) else t(*g, dtype=_type) for g in _given),
            attrs=_attrs,
            opset=_opset,
            tolerance=_tolerance,
            oracle="reference",
            free="a",
        )
case("float16", "Atan", t(2, 3, dtype=np.float16), tolerance=4e-3, oracle="reference")
case("float16", "Sinh", t(2, 3, dtype=np.float16), tolerance=4e-3, oracle="reference")
for _parameters in (np.float16, np.float32):
    case(
        f"float16 beside {np.dtype(_parameters).name}, all differentiated",
        "BatchNormalization",
        t(2, 3, 4, dtype=np.float16),
        *(t(3, low=0.5, high=2, dtype=_parameters) for _ in range(4)),
        tolerance=8e-3,
        oracle="reference",
    )
case(
    "float16, three outputs",
    "LayerNormalization",
    t(2, 6, dtype=np.float16),
    t(6, dtype=np.float16),
    outputs=3,
    oracle="reference",
    tolerance=8e-3,
)

# --- integers ------------------------------------------------------------------------------------------------------

for _name, _nodes, _more, _attrs in (
    ("sum of squares", "ReduceSumSquare(i) -> k", (), {}),
    ("absolute values", "ReduceL1(i) -> k", (), {}),
    ("product", "ReduceProd(i) -> k", (), {"axes": [1]}),
    ("sum", "ReduceSum(i, b) -> k", (ints(0),), {}),
    ("matrix product", "MatMul(i, b) -> k", (fixed([[1, 2], [0, -3], [4, 1]], np.int32),), {}),
    ("running sum", "CumSum(i, b) -> k", (fixed(1, np.int64),), {}),
    ("slopes", "PRelu(i, b) -> k", (fixed([2], np.int32),), {}),
    ("square", "Pow(i, b) -> k", (fixed(2.0),), {}),
):
    chain(
        f"int32/{_name}",
        f"Cast(a) -> j\nSub(j, c) -> i\n{_nodes}\nCast(k) -> y",
        In(value=np.asarray([[1, 5, 2], [7, 3, 4]], np.uint8)),
        _more[0] if _more else None,
        fixed(6, np.int32),
        attrs={0: {"to": 6}, 2: _attrs, 3: {"to": 1}},
        oracle="reference",
    )
