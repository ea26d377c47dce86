"""The table of cases for the derivatives: one entry is one form of one operator.

Inputs are called a, b, c... in the order of the operator's; results y, y1, y2... Values are spread so that none sits on
a kink (see `In.make`); `t(...)` is a float input that is differentiated, `ints(...)` a stored constant.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.vjp_check import Case, In

CASES: list[Case] = []


def t(*shape: int, low: float = -1.0, high: float = 1.0, **more: Any) -> In:
    return In(shape, low, high, **more)


def positive(*shape: int, low: float = 0.4, high: float = 2.0) -> In:
    return In(shape, low, high)


def fixed(value: Any, dtype: Any = np.float32) -> In:
    """A stored constant."""
    return In(value=np.asarray(value, dtype), wrt=False, stored=True)


def ints(*values: int) -> In:
    return fixed(values, np.int64)


def fed(value: Any, dtype: Any = np.int64) -> In:
    """The same as an input of the model: its value is known only at run time."""
    return In(value=np.asarray(value, dtype), wrt=False)


def case(name: str, op: str, *inputs: In | None, **more: Any) -> None:
    known = {k: more.pop(k) for k in tuple(more) if k in Case.__dataclass_fields__ and k not in ("axis",)}
    attrs = {**more, **known.pop("attrs", {})}
    CASES.append(Case(f"{op}/{name}", op, inputs, attrs, **known))


def chain(name: str, nodes: str, *inputs: In | None, **more: Any) -> None:
    """A few nodes, written as "Op(a, b) -> y" on lines ("-": left out); attributes in `attrs` by line number."""
    attrs = more.pop("attrs", {})
    parsed = []
    for k, line in enumerate(s.strip() for s in nodes.strip().splitlines()):
        call, results = (part.strip() for part in line.split("->"))
        op, names = call.rstrip(")").split("(")
        parsed.append((op, names.replace(",", " "), results.replace(",", " "), attrs.get(k, {})))
    CASES.append(Case(name, parsed[0][0], inputs, nodes=tuple(parsed), **more))


# --- element by element -------------------------------------------------------------------------------------------

for _op in ("Abs", "Neg", "Sin", "Cos", "Exp", "Erf", "Identity", "Sigmoid", "Tanh", "Softplus", "Softsign", "Relu"):
    case("plain", _op, t(2, 3, 4, low=-3, high=3))
for _op in ("Log", "Sqrt", "Reciprocal"):
    case("positive", _op, positive(2, 3, 4))
for _op in ("Relu", "Tanh", "Abs"):
    case("rank 0", _op, t(value=np.asarray(-0.7, np.float32)))
    case("no elements", _op, t(0, 3))
case("negative", "Reciprocal", t(5, low=-2, high=-0.5))
case("opset 21", "Sigmoid", t(7, low=-6, high=6), opset=21)
case("opset 13", "Exp", t(7), opset=13)

for _op in ("Add", "Sub", "Mul"):
    case("same shape", _op, t(2, 3), t(2, 3))
    case("b broadcast by rank", _op, t(2, 3, 4), t(4))
    case("a broadcast by rank", _op, t(4), t(2, 3, 4))
    case("both broadcast", _op, t(2, 1, 4), t(3, 1))
    case("b is one number", _op, t(2, 3), t())
    case("a is [1]", _op, t(1), t(2, 3))
    case("per channel", _op, t(2, 3, 4, 4), t(3, 1, 1))
    case("rank 0", _op, t(), t())
    case("no elements", _op, t(0, 3), t(1, 3))
    case("stored operand", _op, t(2, 3), fixed(np.arange(6).reshape(2, 3)))
    chain(f"{_op}/tensor read twice", f"{_op}(a, a) -> y", t(2, 3))
case("both broadcast", "Div", t(2, 1, 4), positive(3, 1))
case("same shape", "Div", t(2, 3), t(2, 3, low=-2, high=-0.5))
case("a is one number", "Div", t(), positive(2, 3))
chain("Div/tensor read twice", "Div(a, a) -> y", positive(2, 3))
case("square", "Pow", t(2, 3), fixed(2.0))
case("cube", "Pow", t(2, 3), fixed(3.0))
case("cube, integer exponent", "Pow", t(2, 3), fixed(3, np.int64))
case("power one", "Pow", t(2, 3), fixed(1.0))
case("power zero", "Pow", t(2, 3), fixed(0.0))
case("power zero of zero", "Pow", In(value=np.asarray([0, 1, -2], np.float32)), fixed(0.0))
case("vector of exponents, base zero", "Pow", In(value=np.zeros(3, np.float32)), fixed([0.0, 1.0, 2.0]))
case("square root", "Pow", positive(2, 3), fixed(0.5))
case("power -2", "Pow", positive(2, 3), fixed(-2.0))
case("vector of exponents, one zero", "Pow", t(2, 3, low=0.5, high=2), fixed([0.0, 1.0, 2.5]))
case("vector of exponents, base of any sign", "Pow", t(2, 3), fixed([0.0, 1.0, 2.0]))
case("both differentiated", "Pow", positive(2, 3), t(3, low=-2, high=2))
case("base broadcast", "Pow", positive(3), t(2, 3, low=-2, high=2))
case("exponent fed as integers", "Pow", t(2, 3), fed([1, 2, 3]))
case("one input", "Sum", t(2, 3))
case("three inputs, broadcast", "Sum", t(2, 3), t(3), t(2, 1))
chain("Sum/tensor read three times", "Sum(a, a, a) -> y", t(2, 3))
case("one input", "Mean", t(2, 3))
case("three inputs, broadcast", "Mean", t(2, 3), t(3), t(2, 1))
for _op in ("Max", "Min"):
    case("two inputs", _op, t(2, 3), t(2, 3, low=-1.1, high=0.93))
    case("three inputs, broadcast", _op, t(2, 3), t(3, low=-0.91), t(2, 1, low=-0.83))
    case("one input", _op, t(2, 3))
    case("a bound that is no rectifier", _op, t(2, 3), fixed(0.1))
case("bounded below at zero", "Max", t(2, 3), fixed(0.0))
for _name, _shapes in {
    "same": ((2, 3), (2, 3)),
    "x broadcast": ((3,), (2, 3)),
    "y broadcast": ((2, 3), (2, 1)),
}.items():
    case(_name, "Where", fed([[True, False, True], [False, False, True]], np.bool_), t(*_shapes[0]), t(*_shapes[1]))
case("condition broadcast", "Where", fed([True, False, True], np.bool_), t(2, 3), t())
case("condition widens", "Where", fed([[True], [False]], np.bool_), t(3), t(3))
case("stored condition", "Where", fixed([True, False, True], np.bool_), t(2, 3), t(2, 3))
case("fmod", "Mod", t(6, low=-5, high=5), fixed(1.3), fmod=1)
case("fmod, both", "Mod", t(2, 3, low=-5.1, high=5), t(3, low=1.1, high=2.3), fmod=1)
chain(
    "Cast/half and back",
    "Cast(a) -> h\nMul(h, h) -> g\nCast(g) -> y",
    t(2, 3),
    attrs={0: {"to": 10}, 2: {"to": 1}},
    tolerance=3e-3,
)
case("half to float", "Cast", t(2, 3, dtype=np.float16), to=1, tolerance=1e-3)
case("float to half", "Cast", t(2, 3), to=10, tolerance=1e-3)
chain(
    "Cast/from uint8",
    "Cast(a) -> h\nMul(h, h) -> y",
    In(value=np.arange(6, dtype=np.uint8).reshape(2, 3)),
    attrs={0: {"to": 1}},
)
chain("Cast/from int64", "Cast(a) -> h\nExp(h) -> y", In(value=np.asarray([-1, 0, 2], np.int64)), attrs={0: {"to": 1}})
chain(
    "Cast/uint8 through int32",
    "Cast(a) -> i\nSub(i, b) -> j\nCast(j) -> h\nMul(h, h) -> y",
    In(value=np.arange(6, dtype=np.uint8)),
    fixed(2, np.int32),
    attrs={0: {"to": 6}, 2: {"to": 1}},
)

# --- activations --------------------------------------------------------------------------------------------------

case("opset 6 to 15", "Relu", t(2, 3), opset=13)
case("negative alpha", "ThresholdedRelu", t(2, 5, low=-2, high=2), alpha=-0.53)
case("default alpha", "ThresholdedRelu", t(2, 5, low=-2, high=2))
case("both bounds", "Clip", t(2, 7, low=-2, high=2), fixed(-0.51), fixed(0.77))
case("lower bound", "Clip", t(2, 7), fixed(-0.51))
case("upper bound", "Clip", t(2, 7), None, fixed(0.51))
case("no bounds", "Clip", t(2, 7))
case("fed bounds", "Clip", t(2, 7), fed(-0.51, np.float32), fed(0.3, np.float32))
case("relu6", "Clip", t(2, 7, low=-3, high=9), fixed(0.0), fixed(6.0))
case("opset 12", "Clip", t(2, 7), fixed(-0.51), fixed(0.3), opset=12)
case("alpha", "LeakyRelu", t(2, 7), alpha=0.3)
case("default", "LeakyRelu", t(2, 7))
case("negative alpha", "LeakyRelu", t(2, 7), alpha=-0.3)
case("slope per channel", "PRelu", t(2, 3, 4), t(3, 1, low=0.1, high=0.9))
case("one slope", "PRelu", t(2, 3, 4), t(1))
case("slope of the full shape", "PRelu", t(2, 3), t(2, 3))
case("opset 9, stored slope", "PRelu", t(2, 3, 4), fixed([[0.1], [0.2], [0.7]]), opset=9)
for _op, _attrs in {"Elu": {"alpha": 0.7}, "Selu": {"alpha": 1.5, "gamma": 1.1}, "Celu": {"alpha": 0.6}}.items():
    case("attributes", _op, t(2, 7, low=-3, high=3), attrs=_attrs, oracle="reference" if _op == "Celu" else "")
    case("default", _op, t(2, 7, low=-3, high=3))
case("attributes", "HardSigmoid", t(3, 7, low=-4, high=4), alpha=0.31, beta=0.4)
case("default", "HardSigmoid", t(3, 7, low=-4, high=4))
case("plain", "HardSwish", t(3, 7, low=-5, high=5))
case("plain", "Mish", t(3, 7, low=-5, high=5), opset=18)
case("default", "Swish", t(3, 7, low=-5, high=5), opset=24)
case("alpha", "Swish", t(3, 7, low=-5, high=5), opset=24, attrs={"alpha": 1.7})
case("exact", "Gelu", t(3, 7, low=-4, high=4), opset=20)
case("tanh", "Gelu", t(3, 7, low=-4, high=4), opset=20, approximate="tanh")
chain("Silu/sigmoid second", "Sigmoid(a) -> s\nMul(a, s) -> y", t(2, 7, low=-5, high=5))
chain("Silu/sigmoid first", "Sigmoid(a) -> s\nMul(s, a) -> y", t(2, 7, low=-5, high=5))
chain("Silu/sigmoid read elsewhere", "Sigmoid(a) -> s\nMul(a, s) -> u\nAdd(u, s) -> y", t(2, 7, low=-5, high=5))
chain("Silu/sigmoid of another tensor", "Sigmoid(b) -> s\nMul(a, s) -> y", t(2, 7), t(2, 7))
for _op in ("Softmax", "LogSoftmax"):
    for _axis in (-1, 1, 0, -3):
        case(f"axis {_axis}", _op, t(2, 3, 4, low=-3, high=3), attrs={"axis": _axis})
    case("default axis", _op, t(2, 5, low=-3, high=3))
    for _axis in (0, 1, 2, -1):
        case(f"opset 11, axis {_axis}", _op, t(2, 3, 4, low=-3, high=3), attrs={"axis": _axis}, opset=11)
    case("opset 11, default axis", _op, t(2, 3, 4), opset=11)
case("inference", "Dropout", t(2, 5))
case("ratio given", "Dropout", t(2, 5), fixed(0.4))
case("training_mode false", "Dropout", t(2, 5), fixed(0.4), fixed(False, np.bool_))
case("training_mode fed, false", "Dropout", t(2, 5), fixed(0.4), fed(False, np.bool_))
case("training that drops nothing", "Dropout", t(2, 5), fixed(0.0), fed(True, np.bool_))
case("opset 10", "Dropout", t(2, 5), opset=10, attrs={"ratio": 0.4})

# --- matrix products ----------------------------------------------------------------------------------------------

for _name, _left, _right in (
    ("2 x 2", (3, 4), (4, 5)),
    ("vector x matrix", (4,), (4, 5)),
    ("matrix x vector", (3, 4), (4,)),
    ("vector x vector", (4,), (4,)),
    ("batch x matrix", (2, 3, 4), (4, 5)),
    ("matrix x batch", (3, 4), (2, 4, 5)),
    ("batch x batch", (2, 3, 4), (2, 4, 5)),
    ("batch of one x batch", (1, 3, 4), (2, 4, 5)),
    ("two batch axes, both broadcast", (2, 1, 3, 4), (3, 4, 2)),
    ("two batch axes x one of one", (2, 3, 2, 4), (1, 4, 2)),
    ("vector x batch", (4,), (2, 4, 5)),
    ("batch x vector", (2, 3, 4), (4,)),
):
    case(_name, "MatMul", t(*_left), t(*_right), linear=True)
chain("MatMul/tensor read twice", "MatMul(a, a) -> y", t(3, 3))
chain("MatMul/tensor read twice, batch", "MatMul(a, a) -> y", t(2, 3, 3))
for _ta in (0, 1):
    for _tb in (0, 1):
        _shape_a, _shape_b = ((4, 2) if _ta else (2, 4)), ((3, 4) if _tb else (4, 3))
        case(
            f"transA={_ta} transB={_tb}",
            "Gemm",
            t(*_shape_a),
            t(*_shape_b),
            t(3),
            transA=_ta,
            transB=_tb,
            alpha=0.7,
            beta=1.3,
        )
case("without C", "Gemm", t(2, 4), t(4, 3))
case("C is one number", "Gemm", t(2, 4), t(4, 3), t(), beta=0.5)
case("C is a column", "Gemm", t(2, 4), t(4, 3), t(2, 1))
case("C is full", "Gemm", t(2, 4), t(4, 3), t(2, 3))
case("stored weight", "Gemm", t(2, 4), fixed(np.arange(12).reshape(3, 4) / 7), fixed([1, 2, 3]), transB=1)
case("opset 9", "Gemm", t(2, 4), t(4, 3), t(3), opset=9)
case("no rows", "Gemm", t(0, 4), t(4, 3), t(3), dynamic=False)

# --- convolutions -------------------------------------------------------------------------------------------------


def conv(name: str, x: tuple[int, ...], w: tuple[int, ...], bias: bool = True, op: str = "Conv", **more: Any) -> None:
    channels = w[0] if op == "Conv" else w[1] * more.get("group", 1)
    case(name, op, t(*x), t(*w), *([t(channels)] if bias else []), linear=True, free="a", **more)


conv("1-D", (2, 3, 9), (4, 3, 3), pads=[1, 1])
conv("2-D", (2, 3, 6, 5), (4, 3, 3, 3))
conv("3-D", (1, 2, 4, 3, 4), (2, 2, 2, 3, 2), pads=[1, 0, 1, 0, 1, 1], strides=[2, 1, 2])
conv("1 x 1", (2, 3, 4, 4), (5, 3, 1, 1), bias=False)
conv("1 x 1 strided", (1, 3, 5, 5), (2, 3, 1, 1), strides=[2, 2])
conv("strided, a row left over", (1, 2, 8, 7), (3, 2, 3, 3), strides=[2, 3], pads=[1, 1, 1, 1])
conv("stride larger than kernel", (1, 2, 8, 8), (3, 2, 2, 2), strides=[3, 3])
conv("asymmetric pads", (1, 2, 6, 6), (3, 2, 3, 3), pads=[0, 1, 2, 3])
conv("asymmetric pads, strided", (1, 2, 7, 6), (3, 2, 3, 3), pads=[0, 1, 2, 1], strides=[2, 2])
conv("more pads than kernel", (1, 2, 4, 4), (3, 2, 2, 2), pads=[3, 3, 3, 3])
conv("dilated", (1, 2, 8, 8), (3, 2, 3, 3), dilations=[2, 3], pads=[2, 3, 2, 3])
conv("dilated and strided", (1, 2, 9, 9), (3, 2, 3, 3), dilations=[2, 2], strides=[2, 2], pads=[1, 1, 1, 1])
conv("grouped", (2, 4, 5, 5), (6, 2, 3, 3), group=2, pads=[1, 1, 1, 1])
conv("depthwise", (2, 3, 5, 5), (3, 1, 3, 3), group=3, pads=[1, 1, 1, 1])
conv("depthwise, strided, multiplier 2", (1, 3, 6, 6), (6, 1, 3, 3), group=3, strides=[2, 2])
conv("grouped 1-D, dilated", (2, 4, 9), (4, 2, 3), group=2, dilations=[2], bias=False)
for _auto in ("SAME_UPPER", "SAME_LOWER", "VALID"):
    conv(f"{_auto}, stride 1", (1, 2, 5, 6), (3, 2, 2, 3), auto_pad=_auto)
    conv(f"{_auto}, stride 2", (1, 2, 6, 7), (3, 2, 3, 2), auto_pad=_auto, strides=[2, 2], dynamic=_auto == "VALID")
conv("VALID, dilated", (1, 2, 7, 6), (3, 2, 2, 2), auto_pad="VALID", dilations=[2, 2])
for _auto in ("SAME_UPPER", "SAME_LOWER"):  # the sizes unknown: only the gradient of x has no static part
    case(
        f"{_auto}, stride 2, stored weight",
        "Conv",
        t(1, 2, 6, 7),
        fixed(np.arange(36).reshape(3, 2, 3, 2) / 9 - 2),
        linear=True,
        auto_pad=_auto,
        strides=[2, 2],
    )
    case(
        f"{_auto}, stride 3, kernel 2",
        "Conv",
        t(1, 2, 7, 6),
        fixed(np.arange(24).reshape(3, 2, 2, 2) / 9 - 1),
        linear=True,
        auto_pad=_auto,
        strides=[3, 3],
    )
conv("opset 9", (1, 2, 5, 5), (2, 2, 3, 3), opset=9)
conv("opset 22", (1, 2, 5, 5), (2, 2, 3, 3), opset=22)
case("no images", "Conv", t(0, 2, 5, 5), fixed(np.ones((2, 2, 3, 3))), linear=True)
case(
    "stored weight",
    "Conv",
    t(2, 2, 5, 5),
    fixed(np.arange(54).reshape(3, 2, 3, 3) / 20 - 1),
    fixed([1, 2, 3]),
    linear=True,
    strides=[2, 2],
    pads=[1, 1, 1, 1],
)
chain("Conv/one weight, two convolutions", "Conv(a, b) -> u\nConv(u, b) -> y", t(1, 2, 6, 6), t(2, 2, 2, 2), free="a")

conv("1-D", (2, 3, 5), (3, 2, 3), op="ConvTranspose")
conv("2-D", (2, 3, 4, 4), (3, 2, 3, 3), op="ConvTranspose")
conv("3-D", (1, 2, 2, 3, 2), (2, 2, 2, 2, 2), op="ConvTranspose", strides=[2, 1, 2], bias=False)
conv("strided, padded", (1, 2, 4, 5), (2, 3, 3, 3), op="ConvTranspose", strides=[2, 2], pads=[1, 1, 1, 1])
conv("asymmetric pads", (1, 2, 4, 5), (2, 3, 3, 3), op="ConvTranspose", strides=[2, 2], pads=[0, 1, 2, 1])
conv(
    "output_padding",
    (1, 2, 4, 4),
    (2, 3, 3, 3),
    op="ConvTranspose",
    strides=[2, 2],
    pads=[1, 1, 1, 1],
    output_padding=[1, 1],
)
conv(
    "output_padding of one axis", (1, 2, 4, 4), (2, 3, 3, 2), op="ConvTranspose", strides=[3, 2], output_padding=[2, 0]
)
conv("dilated", (1, 2, 4, 4), (2, 3, 3, 3), op="ConvTranspose", dilations=[2, 2])
conv("grouped", (1, 4, 4, 4), (4, 2, 3, 3), op="ConvTranspose", group=2, strides=[2, 2])
conv(
    "depthwise", (1, 3, 4, 4), (3, 1, 4, 4), op="ConvTranspose", group=3, strides=[2, 2], pads=[1, 1, 1, 1], bias=False
)
conv("output_shape", (1, 2, 4, 4), (2, 3, 3, 3), op="ConvTranspose", strides=[2, 2], output_shape=[8, 8], dynamic=False)
conv(
    "output_shape, odd",
    (1, 2, 4, 4),
    (2, 3, 4, 3),
    op="ConvTranspose",
    strides=[2, 2],
    output_shape=[9, 7],
    dynamic=False,
)
conv(
    "output_shape, SAME_UPPER",
    (1, 2, 4, 4),
    (2, 3, 3, 3),
    op="ConvTranspose",
    strides=[2, 2],
    output_shape=[8, 8],
    auto_pad="SAME_UPPER",
    dynamic=False,
)
conv(
    "output_shape, SAME_LOWER",
    (1, 2, 4, 4),
    (2, 3, 3, 3),
    op="ConvTranspose",
    strides=[2, 2],
    output_shape=[8, 8],
    auto_pad="SAME_LOWER",
    dynamic=False,
)
for _auto in ("SAME_UPPER", "SAME_LOWER", "VALID"):
    conv(_auto, (1, 2, 4, 4), (2, 3, 3, 3), op="ConvTranspose", strides=[2, 2], auto_pad=_auto)
conv("stored weight, opset 22", (1, 2, 4, 4), (2, 3, 3, 3), op="ConvTranspose", opset=22, strides=[2, 2])

# --- pools --------------------------------------------------------------------------------------------------------

for _name, _shape, _attrs in (
    ("2 x 2", (2, 2, 4, 6), {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ("overlapping", (1, 2, 7, 7), {"kernel_shape": [3, 3], "strides": [2, 2]}),
    ("overlapping, stride 1", (1, 2, 5, 5), {"kernel_shape": [3, 3]}),
    ("padded", (1, 2, 6, 6), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("asymmetric pads", (1, 2, 6, 6), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 2]}),
    ("ceil_mode", (1, 2, 6, 6), {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    (
        "ceil_mode, padded",
        (1, 2, 6, 7),
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1},
    ),
    ("SAME_UPPER", (1, 2, 6, 7), {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ("SAME_LOWER", (1, 2, 6, 7), {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    ("VALID", (1, 2, 5, 6), {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "VALID"}),
    ("1-D", (2, 2, 9), {"kernel_shape": [3], "strides": [2]}),
    ("3-D", (1, 2, 4, 4, 4), {"kernel_shape": [2, 3, 2], "strides": [2, 1, 2], "pads": [0, 1, 0, 0, 1, 0]}),
):
    case(_name, "MaxPool", t(*_shape), attrs=_attrs)
    case(_name, "AveragePool", t(*_shape), attrs=_attrs, linear=True)
    if "pads" in _attrs or "auto_pad" in _attrs:
        case(
            f"{_name}, count_include_pad",
            "AveragePool",
            t(*_shape),
            attrs={**_attrs, "count_include_pad": 1},
            linear=True,
        )
        case(
            f"{_name}, count_include_pad, opset 19",
            "AveragePool",
            t(*_shape),
            attrs={**_attrs, "count_include_pad": 1},
            linear=True,
            opset=19,
        )
    if "ceil_mode" in _attrs:
        case(f"{_name}, opset 19", "AveragePool", t(*_shape), attrs=_attrs, linear=True, opset=19)
        case(f"{_name}, opset 22", "AveragePool", t(*_shape), attrs=_attrs, linear=True, opset=22)
case("opset 8", "MaxPool", t(1, 2, 6, 6), attrs={"kernel_shape": [2, 2], "strides": [2, 2]}, opset=8)
case("dilated", "MaxPool", t(1, 2, 7, 7), attrs={"kernel_shape": [2, 3], "dilations": [2, 2], "strides": [2, 1]})
case(
    "dilated, padded",
    "MaxPool",
    t(1, 2, 6, 6),
    attrs={"kernel_shape": [3, 2], "dilations": [2, 2], "pads": [1, 1, 1, 1]},
)
case("column-major indices", "MaxPool", t(2, 2, 5, 4), attrs={"kernel_shape": [2, 2], "storage_order": 1})
case(
    "indices asked for by the source",
    "MaxPool",
    t(2, 2, 5, 4),
    attrs={"kernel_shape": [2, 2]},
    outputs=2,
    differentiated=("y",),
)
case(
    "column-major indices in the source",
    "MaxPool",
    t(2, 2, 5, 4),
    attrs={"kernel_shape": [2, 2], "storage_order": 1},
    outputs=2,
    differentiated=("y",),
)
case("opset 22", "MaxPool", t(2, 2, 5, 4), attrs={"kernel_shape": [2, 2]}, opset=22)
case(
    "dilated",
    "AveragePool",
    t(1, 2, 7, 7),
    attrs={"kernel_shape": [2, 3], "dilations": [2, 2], "strides": [2, 1]},
    linear=True,
    opset=19,
)
case(
    "dilated, padded",
    "AveragePool",
    t(1, 2, 7, 7),
    attrs={"kernel_shape": [2, 3], "dilations": [2, 2], "pads": [1, 2, 1, 2]},
    linear=True,
    opset=19,
)
case(
    "dilated, padded, counted",
    "AveragePool",
    t(1, 2, 7, 7),
    attrs={"kernel_shape": [2, 3], "dilations": [2, 2], "pads": [1, 2, 1, 2], "count_include_pad": 1},
    linear=True,
    opset=19,
)
for _op in ("GlobalAveragePool", "GlobalMaxPool"):
    for _shape in ((2, 3, 5), (2, 3, 4, 5), (1, 2, 2, 3, 2)):
        case(
            f"{len(_shape) - 2}-D",
            _op,
            t(*_shape),
            linear=_op == "GlobalAveragePool",
            oracle="reference" if _op == "GlobalMaxPool" else "",
        )
for _size in (1, 3, 5):
    case(f"size {_size}", "LRN", t(2, 6, 2, 3, low=-2, high=2), size=_size, alpha=0.3, beta=0.75, bias=1.2)
case("default attributes", "LRN", t(1, 4, 3, 2), size=3)
case("window larger than the channels", "LRN", t(1, 3, 3, 2), size=7, alpha=0.5)

# --- normalizations -----------------------------------------------------------------------------------------------

_C = fixed([0.3, -0.2, 0.1]), fixed([0.7, 1.5, 2.0])
for _opset in (9, 14, 17):
    case(
        f"opset {_opset}",
        "BatchNormalization",
        t(2, 3, 4),
        t(3, low=0.5, high=2),
        t(3),
        *_C,
        opset=_opset,
        epsilon=1e-3,
    )
case("stored", "BatchNormalization", t(2, 3, 2, 2), fixed([1, 2, 3]), fixed([0, 1, 2]), *_C)
case("2-D input", "BatchNormalization", t(4, 3), t(3, low=0.5, high=2), t(3), *_C)
case("1-D space", "InstanceNormalization", t(2, 3, 5), t(3, low=0.5, high=2), t(3), epsilon=1e-2)
case("2-D space", "InstanceNormalization", t(2, 3, 3, 4), t(3, low=0.5, high=2), t(3))
for _axis in (-1, 1, -2):
    case(
        f"axis {_axis}",
        "LayerNormalization",
        t(2, 3, 4),
        t(*((2, 3, 4)[_axis:])),
        t(*((2, 3, 4)[_axis:])),
        attrs={"axis": _axis},
        epsilon=1e-2,
    )
case("without bias", "LayerNormalization", t(2, 3, 4), t(4))
case("scale of one number", "LayerNormalization", t(2, 3, 4), t(1), t(1), oracle="reference")
case("scale broadcast over the first axis", "LayerNormalization", t(2, 3, 4), t(4), t(1, 4), axis=1, oracle="reference")
for _opset, _count in ((18, 2), (21, 4)):
    case(
        f"opset {_opset}",
        "GroupNormalization",
        t(2, 4, 3, 2),
        fixed(np.arange(_count) + 0.5),
        fixed(np.arange(_count) / 3),
        attrs={"num_groups": 2},
        opset=_opset,
        oracle="reference",
    )
case("default axes", "MeanVarianceNormalization", t(2, 3, 2, 2))
case("axes", "MeanVarianceNormalization", t(2, 3, 4), attrs={"axes": [1, 2]})
case("negative axes", "MeanVarianceNormalization", t(2, 3, 4), attrs={"axes": [-1]})
for _p in (1, 2):
    for _axis in (-1, 1):
        case(f"p={_p}, axis {_axis}", "LpNormalization", t(2, 3, 4), attrs={"p": _p, "axis": _axis})

# --- reductions ---------------------------------------------------------------------------------------------------

_REDUCTIONS = (
    "ReduceSum",
    "ReduceMean",
    "ReduceMax",
    "ReduceMin",
    "ReduceL1",
    "ReduceL2",
    "ReduceSumSquare",
    "ReduceLogSum",
    "ReduceLogSumExp",
)
for _op in _REDUCTIONS:
    _x = positive(2, 3, 4) if _op == "ReduceLogSum" else t(2, 3, 4, low=-2, high=2)
    for _axes in ([1], [-1], [0, 2], [-3, 1], [2, 0]):
        for _keep in (0, 1):
            if _op == "ReduceSum":
                case(f"axes {_axes}, keepdims {_keep}", _op, _x, ints(*_axes), keepdims=_keep)
            else:
                case(f"axes {_axes}, keepdims {_keep}", _op, _x, attrs={"axes": _axes, "keepdims": _keep})
    case("all axes", _op, _x)
    case("all axes, no keepdims", _op, _x, keepdims=0)
    case("opset 18", _op, _x, ints(-1, 0), opset=18)
    case("opset 18, noop", _op, _x, opset=18, noop_with_empty_axes=1) if _op in (
        "ReduceSum",
        "ReduceMean",
        "ReduceMax",
        "ReduceMin",
    ) else None
    case("opset 18, empty axes reduce all", _op, _x, ints(), opset=18)
case("opset 11, attribute", "ReduceSum", t(2, 3, 4), attrs={"axes": [1]}, opset=11)

# --- layout -------------------------------------------------------------------------------------------------------

case("plain", "Reshape", t(2, 6), ints(3, 4))
case("0 and -1", "Reshape", t(2, 3, 4), ints(0, -1))
case("to rank 0", "Reshape", t(1, 1), ints())
case("no elements, allowzero", "Reshape", t(0, 3), ints(3, 0), allowzero=1)
case("shape fed", "Reshape", t(2, 6), fed([4, 3]))
chain(
    "Reshape/shape computed",
    "Shape(a) -> s\nGather(s, b) -> n\nUnsqueeze(n, c) -> m\nConcat(m, d) -> q\nReshape(a, q) -> y",
    t(2, 3, 2),
    fixed(0, np.int64),
    ints(0),
    ints(-1),
    attrs={3: {"axis": 0}},
)
for _axis in (0, 1, 2, 3, -1):
    case(f"axis {_axis}", "Flatten", t(2, 3, 4), attrs={"axis": _axis})
case("axes", "Squeeze", t(1, 3, 1, 2), ints(0, -2))
case("all", "Squeeze", t(1, 3, 1), dynamic=False)
case("axes", "Unsqueeze", t(3, 2), ints(0, -1))
case("of rank 0", "Unsqueeze", t(), ints(0))
case("opset 11", "Squeeze", t(1, 3, 1), attrs={"axes": [0]}, opset=11)
case("opset 11", "Unsqueeze", t(3, 2), attrs={"axes": [1]}, opset=11)
case("default", "Transpose", t(2, 3, 4))
case("perm", "Transpose", t(2, 3, 4), perm=[1, 2, 0])
case("NHWC", "Transpose", t(1, 2, 3, 4), perm=[0, 2, 3, 1])
case("by rank", "Expand", t(3), ints(2, 3))
case("by size", "Expand", t(2, 1, 3), ints(2, 4, 1))
case("rank 0", "Expand", t(), ints(2, 3))
case("unchanged", "Expand", t(2, 3), ints(1, 1))
case("shape fed", "Expand", t(2, 1), fed([3, 1, 4]))
case("repeats", "Tile", t(2, 3), ints(2, 3))
case("repeats of one", "Tile", t(2, 3), ints(1, 1))
case("repeats of zero", "Tile", t(2, 3), ints(0, 2))
case("repeats fed", "Tile", t(2, 3, 1), fed([1, 2, 4]))
for _mode in ("DCR", "CRD"):
    case(_mode, "DepthToSpace", t(2, 8, 2, 3), blocksize=2, mode=_mode)
    case(f"{_mode}, block 3", "DepthToSpace", t(1, 9, 2, 2), blocksize=3, mode=_mode)
case("default mode", "DepthToSpace", t(1, 4, 2, 3), blocksize=2)
case("block 2", "SpaceToDepth", t(2, 2, 4, 6), blocksize=2)
case("block 3", "SpaceToDepth", t(1, 2, 3, 6), blocksize=3)
for _axis in (0, 1, -1):
    case(
        f"axis {_axis}",
        "Concat",
        *(t(*(n if k == _axis % 2 else 3 for k in range(2))) for n in (2, 3, 1)),
        attrs={"axis": _axis},
    )
case("one input", "Concat", t(2, 3), axis=1)
case("one input empty", "Concat", t(2, 0), t(2, 3), axis=1)
chain("Concat/tensor read twice", "Concat(a, a) -> y", t(2, 3), attrs={0: {"axis": 1}})
chain(
    "Concat/tensor read three times, one beside", "Concat(a, b, a, a) -> y", t(2, 3), t(2, 2), attrs={0: {"axis": -1}}
)
case("equal", "Split", t(2, 6), outputs=3, axis=1)
case("sizes", "Split", t(2, 6), ints(1, 2, 3), outputs=3, axis=-1)
case("sizes fed", "Split", t(2, 6), fed([1, 2, 3]), outputs=3, axis=1)
case("default axis", "Split", t(4, 2), outputs=2)
case("opset 18, num_outputs uneven", "Split", t(2, 7), outputs=3, axis=1, num_outputs=3, opset=18)
case("opset 11", "Split", t(2, 6), attrs={"axis": 1, "split": [4, 2]}, outputs=2, opset=11)
chain("Split/first piece unused", "Split(a) -> u, v, w\nMul(v, w) -> y", t(2, 6), attrs={0: {"axis": 1}})
chain("Split/last piece unused", "Split(a, b) -> u, v\nExp(u) -> y", t(2, 6), ints(4, 2), attrs={0: {"axis": 1}})
chain("Split/a piece of no size", "Split(a, b) -> u, v\nExp(u) -> y", t(2, 6), ints(6, 0), attrs={0: {"axis": 1}})
chain("Split/one piece", "Split(a) -> u\nExp(u) -> y", t(2, 6), attrs={0: {"axis": 1}})
case("step 1", "Slice", t(5, 6), ints(1, 2), ints(4, 6))
case("axes", "Slice", t(3, 5, 6), ints(1, 0), ints(4, 3), ints(2, 0))
case("negative starts and ends", "Slice", t(5, 6), ints(-4, -5), ints(-1, 1000))
case("negative axes", "Slice", t(3, 5, 6), ints(1), ints(4), ints(-1))
case("step 2", "Slice", t(5, 7), ints(0, 1), ints(5, 7), ints(0, 1), ints(2, 3))
case("step -1", "Slice", t(5, 6), ints(-1), ints(-1000), ints(1), ints(-1))
case("step -2", "Slice", t(5, 6), ints(4, 5), ints(0, -1000), ints(0, 1), ints(-2, -1))
case("int32", "Slice", t(5, 6), fixed([1], np.int32), fixed([4], np.int32), fixed([1], np.int32), fixed([2], np.int32))
case("int32, step 1", "Slice", t(5, 6), fixed([1], np.int32), fixed([4], np.int32), fixed([1], np.int32))
case("fed", "Slice", t(5, 6), fed([1, -3]), fed([4, 100]), ints(0, 1), fed([1, 2]))
case("fed, int32", "Slice", t(5, 6), fed([1, -3], np.int32), fed([4, 100], np.int32), fixed([0, 1], np.int32))
case("fed, no axes", "Slice", t(5, 6), fed([1, -3]), fed([4, 100]))
case("nothing left", "Slice", t(5, 6), ints(4), ints(2), ints(0))
case("everything", "Slice", t(5, 6), ints(0), ints(9223372036854775807), ints(1))
case("ends far below", "Slice", t(5, 6), ints(2), ints(-9223372036854775808), ints(1), ints(-1))
case("starts far below, step -1", "Slice", t(3, 2), ints(-1000), ints(-1000), ints(0), ints(-1))
case("opset 9", "Slice", t(5, 6), attrs={"starts": [1, -3], "ends": [4, 100], "axes": [0, 1]}, opset=9)
chain(
    "Slice/start computed from the size",
    "Shape(a) -> s\nSlice(s, b, c) -> n\nDiv(n, c) -> m\nSlice(a, m, n, b) -> y",
    t(6, 2),
    ints(0),
    ints(1),
    dynamic=True,
)
case("constant", "Pad", t(3, 4), ints(1, 0, 2, 3))
case("constant, value", "Pad", t(3, 4), ints(1, 0, 2, 3), fixed(0.7))
case("differentiated value", "Pad", t(3, 4), ints(1, 0, 2, 3), t())
case("differentiated value, cut and filled", "Pad", t(4, 5), ints(-1, 2, 1, -2), t(1))
case("differentiated value, fed", "Pad", t(3, 4), fed([1, 0, 2, -1]), t())
case("differentiated value, axes", "Pad", t(2, 3, 4), ints(1, 2), t(), ints(-1), opset=18)
case("differentiated value, fed axes", "Pad", t(2, 3, 4), fed([1, 2]), t(), fed([-2]), opset=21)
case("negative pads", "Pad", t(5, 6), ints(-1, 2, 1, -2))
case("fed", "Pad", t(3, 4), fed([1, 0, 2, -1]))
case("axes", "Pad", t(2, 3, 4), ints(1, 2), None, ints(-1), opset=18)
case("two axes", "Pad", t(2, 3, 4), ints(1, 2, 0, -1), fixed(1.0), ints(2, 0), opset=18)
for _mode in ("reflect", "edge"):
    case(_mode, "Pad", t(4, 5), ints(1, 2, 3, 0), mode=_mode)
    case(f"{_mode}, images", "Pad", t(1, 2, 3, 4), ints(0, 0, 1, 2, 0, 0, 2, 1), mode=_mode)
    case(f"{_mode}, fed", "Pad", t(4, 5), fed([1, 2, 3, 0]), mode=_mode)
    case(f"{_mode}, axes", "Pad", t(2, 4, 5), ints(2, 1), None, ints(-2), opset=18, mode=_mode)
case("edge, negative pads", "Pad", t(5, 5), ints(-1, 2, 2, -1), mode="edge")
case("reflect, negative pads", "Pad", t(5, 5), ints(-1, 2, 2, -1), mode="reflect")
case("wrap", "Pad", t(4, 5), ints(1, 2, 3, 0), mode="wrap", opset=19)
case("wrap, axes", "Pad", t(2, 4, 5), ints(2, 1), None, ints(1), opset=21, mode="wrap")
case("opset 10", "Pad", t(3, 4), attrs={"pads": [1, 0, 2, 3], "value": 0.5}, opset=10)
case("opset 10, reflect", "Pad", t(3, 4), attrs={"pads": [1, 0, 2, 3], "mode": "reflect"}, opset=10)

# --- indexing -----------------------------------------------------------------------------------------------------

for _axis in (0, 1, -1):
    case(
        f"axis {_axis}, repeated and negative",
        "Gather",
        t(3, 4, 3),
        fixed([0, -1, 0, 2], np.int64),
        attrs={"axis": _axis},
    )
case("rank-0 index", "Gather", t(3, 4), fixed(1, np.int64), axis=1)
case("rank-0 negative index", "Gather", t(3, 4), fixed(-2, np.int64))
case("matrix of indices", "Gather", t(3, 4), fixed([[0, 1], [2, 0]], np.int64), axis=1)
case("fed, int32", "Gather", t(3, 4), fed([2, -1, 2], np.int32), axis=1)
case("no indices", "Gather", t(3, 4), fixed([], np.int64))
case("rank-1 data, rank-0 index", "Gather", t(4), fixed(2, np.int64))
chain("Gather/rank-1 data, matrix of indices", "Gather(a, b) -> y", t(4), fixed([[0, 3], [3, -1]], np.int64))
case("repeated and negative", "GatherElements", t(3, 3), fixed([[0, -1, 0], [2, 2, 0]], np.int64), axis=0)
case("axis 1", "GatherElements", t(2, 3), fixed([[0, -1, 0, 1], [2, 2, 0, 0]], np.int32), axis=1)
case("negative axis, fed", "GatherElements", t(2, 3), fed([[0, -1], [2, 2]]), axis=-1)
case("elements", "GatherND", t(3, 4), fixed([[0, 1], [2, -1], [0, 1]], np.int64))
case("slices", "GatherND", t(3, 4), fixed([[2], [-1], [0]], np.int64))
case("one batch axis", "GatherND", t(2, 3, 2), fixed([[1], [-1]], np.int64), batch_dims=1)
case(
    "one batch axis, matrix",
    "GatherND",
    t(2, 3, 2),
    fixed([[[1, 0], [2, 1]], [[-1, 1], [-1, 1]]], np.int64),
    batch_dims=1,
)
case("two batch axes", "GatherND", t(2, 3, 4), fixed([[[0], [1], [2]], [[-1], [0], [0]]], np.int64), batch_dims=2)
case("largest", "TopK", t(3, 5), ints(2), outputs=2, differentiated=("y",))
case("smallest, axis 0", "TopK", t(4, 3), ints(3), outputs=2, axis=0, largest=0, differentiated=("y",))
case("k fed", "TopK", t(3, 5), fed([3]), outputs=2, axis=1, differentiated=("y",))
chain("TopK/values unused", "TopK(a, b) -> v, i\nGatherElements(a, i) -> y", t(3, 5), ints(2), attrs={1: {"axis": -1}})
chain(
    "TopK/indices read too",
    "TopK(a, b) -> v, i\nGatherElements(a, i) -> u\nMul(u, v) -> y",
    t(3, 5),
    ints(2),
    attrs={1: {"axis": -1}},
)
case("opset 9", "TopK", t(3, 5), attrs={"k": 2}, outputs=2, opset=9, differentiated=("y",))

# --- resize -------------------------------------------------------------------------------------------------------


def resize(
    name: str, x: tuple[int, ...], scales: list[float] | None = None, sizes: list[int] | None = None, **more: Any
) -> None:
    extra = {"opset": more.pop("opset", 17)}
    tail = [fixed(scales)] if scales else [None, ints(*(sizes or []))]
    case(name, "Resize", t(*x), None, *tail, linear=True, attrs=more, **extra)


for _mode in ("nearest", "linear", "cubic"):
    for _coordinates in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"):
        for _scale in (2.0, 0.6, 1.7):
            resize(
                f"{_mode}, {_coordinates}, x {_scale}",
                (1, 2, 5, 4),
                [1, 1, _scale, _scale],
                mode=_mode,
                coordinate_transformation_mode=_coordinates,
            )
        resize(
            f"{_mode}, {_coordinates}, sizes",
            (2, 1, 5, 4),
            sizes=[2, 1, 7, 3],
            mode=_mode,
            coordinate_transformation_mode=_coordinates,
        )
    resize(
        f"{_mode}, half_pixel_symmetric",
        (1, 2, 5, 4),
        [1, 1, 1.3, 0.7],
        mode=_mode,
        coordinate_transformation_mode="half_pixel_symmetric",
        opset=19,
    )
for _rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
    resize(f"nearest, {_rounding}", (1, 1, 5, 4), [1, 1, 1.5, 0.5], mode="nearest", nearest_mode=_rounding)
    resize(
        f"nearest, {_rounding}, asymmetric",
        (1, 1, 5, 4),
        sizes=[1, 1, 8, 3],
        mode="nearest",
        nearest_mode=_rounding,
        coordinate_transformation_mode="asymmetric",
    )
resize(
    "cubic, coefficient and exclude_outside",
    (1, 1, 5, 4),
    [1, 1, 1.6, 2.0],
    mode="cubic",
    cubic_coeff_a=-0.5,
    exclude_outside=1,
)
resize("one axis only", (1, 2, 4, 5), [1, 1, 1, 2], mode="linear")
resize("scale that keeps the size", (1, 1, 4, 4), [1, 1, 1.2, 2], mode="linear")
resize("3-D", (1, 1, 3, 2, 3), [1, 1, 2, 1.5, 2], mode="linear")
resize("3-D nearest", (1, 1, 3, 2, 3), [1, 1, 2, 1.5, 0.5], mode="nearest")
resize("1-D", (1, 2, 5), [1, 1, 2], mode="linear")
resize("matrix", (4, 5), [2, 0.5], mode="linear")
resize("NHWC", (1, 4, 5, 2), [1, 2, 2, 1], mode="nearest")
resize("batch and channels too", (2, 2, 3, 3), [2, 1, 2, 1], mode="nearest")
resize("axes", (1, 2, 4, 5), [2, 1.5], mode="linear", opset=18, axes=[2, 3])
resize("axes, turned and negative", (1, 2, 4, 5), sizes=[7, 3], mode="linear", opset=18, axes=[-1, -2])
for _mode in ("linear", "cubic"):
    resize(f"antialias {_mode}, down", (1, 1, 8, 7), [1, 1, 0.4, 0.6], mode=_mode, opset=18, antialias=1)
    resize(f"antialias {_mode}, sizes", (1, 2, 8, 7), sizes=[1, 2, 3, 9], mode=_mode, opset=18, antialias=1)
resize("opset 11", (1, 2, 4, 5), [1, 1, 2, 2], mode="linear", opset=13)
case(
    "opset 11, with roi", "Resize", t(1, 2, 4, 5), fixed([]), fixed([1, 1, 2, 2]), linear=True, opset=11, mode="nearest"
)
case(
    "opset 11, sizes beside empty scales",
    "Resize",
    t(1, 2, 4, 5),
    fixed([]),
    fixed([]),
    ints(1, 2, 6, 7),
    linear=True,
    opset=11,
    mode="linear",
)
case("scales fed", "Resize", t(1, 2, 4, 5), None, fed([1, 1, 2, 1.5], np.float32), linear=True, mode="linear")
case("sizes fed", "Resize", t(1, 2, 4, 5), None, None, fed([1, 2, 6, 3]), linear=True, mode="linear")
case("opset 9, nearest", "Upsample", t(1, 2, 3, 4), fixed([1, 1, 2, 3]), opset=9, linear=True)
case("opset 9, linear", "Upsample", t(1, 2, 3, 4), fixed([1, 1, 2, 3]), opset=9, mode="linear", linear=True)
case("opset 7", "Upsample", t(1, 2, 3, 4), opset=7, attrs={"scales": [1.0, 1.0, 2.0, 2.0]}, linear=True)
case("opset 10, nearest", "Resize", t(1, 2, 3, 4), fixed([1, 1, 2, 3]), opset=10, linear=True)
case("opset 10, nearest, smaller", "Resize", t(1, 2, 6, 7), fixed([1, 1, 0.6, 0.4]), opset=10, linear=True)
case("opset 10, linear", "Resize", t(1, 2, 6, 7), fixed([1, 1, 0.6, 1.7]), opset=10, linear=True, mode="linear")

# --- paths --------------------------------------------------------------------------------------------------------

chain("path/several ways to the output", "Exp(a) -> u\nAdd(u, a) -> v\nMul(v, a) -> y", t(2, 3))
chain("path/an output read inside", "Exp(a) -> y\nMul(y, a) -> y1", t(2, 3))
chain("path/one output in two steps", "Exp(a) -> y\nExp(y) -> y1\nTanh(y1) -> y2", t(2, 3))
chain("path/an input that nothing reads", "Exp(a) -> y", t(2, 3), t(4))
chain("path/the input is the output's shape only", "Shape(b) -> s\nExpand(a, s) -> y", t(1, 3), t(2, 3))
chain("path/rounded beside", "Floor(a) -> u\nMul(u, a) -> y", t(2, 3, low=0.1, high=4.9))
chain(
    "path/an integer argmax beside",
    "ArgMax(a) -> i\nGather(a, i) -> u\nMul(u, u) -> y",
    t(3, 3),
    attrs={0: {"axis": 1, "keepdims": 0}},
)

# --- integers, half and double precision --------------------------------------------------------------------------

_PIXELS = In(value=np.arange(24, dtype=np.uint8).reshape(1, 2, 3, 4))
for _name, _nodes, _more in (
    ("transposed", "Transpose(a) -> u", {}),
    ("resized", "Resize(a, -, b) -> u", {"b": fixed([1, 1, 2, 2])}),
    (
        "sliced backwards",
        "Slice(a, b, c, d, e) -> u",
        dict(zip("bcde", (ints(-1), ints(-9), ints(3), ints(-1)), strict=True)),
    ),
    ("gathered", "Gather(a, b) -> u", {"b": fixed([0, 0], np.int64)}),
    ("tiled", "Tile(a, b) -> u", {"b": ints(1, 2, 1, 1)}),
    ("joined with itself", "Concat(a, a) -> u", {}),
    ("cut", "Split(a) -> u, w", {}),
    ("padded", "Pad(a, b) -> u", {"b": ints(0, 0, 1, 1, 0, 0, 1, 1)}),
):
    chain(
        f"uint8/{_name}",
        f"{_nodes}\nCast(u) -> v\nMul(v, v) -> y",
        _PIXELS,
        *_more.values(),
        attrs={0: {"axis": 1} if "axis" in _nodes or _nodes[:2] in ("Co", "Sp") else {}, 1: {"to": 1}},
        oracle="reference",
    )
chain(
    "int32/arithmetic",
    "Cast(a) -> i\nSub(i, b) -> j\nMul(j, j) -> k\nMul(k, b) -> l\nCast(l) -> y",
    In(value=np.arange(6, dtype=np.uint8)),
    fixed([2, 3, 1, 0, 5, 4], np.int32),
    attrs={0: {"to": 6}, 4: {"to": 1}},
)
chain(
    "int32/selections",
    "Cast(a) -> i\nSub(i, b) -> j\nRelu(j) -> k\nMax(k, c) -> l\nAbs(l) -> m\nCast(m) -> y",
    In(value=np.arange(9, dtype=np.uint8)),
    fixed(2.5, np.int32),
    fixed(3, np.int32),
    attrs={0: {"to": 6}, 5: {"to": 1}},
    opset=17,
)
for _type, _tolerance in ((np.float16, 4e-3), (np.float64, 1e-9)):
    _kind = np.dtype(_type).name

    def typed(
        name: str,
        op: str,
        *shapes: tuple[int, ...] | In,
        _type: Any = _type,
        _kind: str = _kind,
        _tolerance: float = _tolerance,
        **more: Any,
    ) -> None:
        given = [s if isinstance(s, In) else t(*s, dtype=_type) for s in shapes]
        case(f"{_kind}{name}", op, *given, tolerance=_tolerance, oracle="reference", **more)

    typed("", "Mul", (2, 3), (3,))
    typed("", "Relu", (2, 3))
    typed("", "Sigmoid", (2, 3))
    typed("", "Softmax", (2, 5))
    typed("", "MatMul", (2, 3), (3, 2))
    typed("", "Gemm", (2, 3), (3, 2), (2,))
    typed("", "ReduceMean", (2, 3, 2), axes=[1])
    typed("", "Pow", (2, 3), fixed(2.0, _type))
    typed("", "Gather", (4, 3), fixed([0, 2, 0], np.int64))
    typed("", "Pad", (2, 3), ints(0, 1, 0, 2))
    typed(", reflect", "Pad", (2, 3), ints(0, 1, 0, 2), mode="reflect")
    typed(", backwards", "Slice", (2, 5), ints(-1), ints(-9), ints(1), ints(-2))
    typed("", "Where", fed([True, False, True], np.bool_), (2, 3), (3,))
    typed("", "TopK", (3, 5), ints(2), outputs=2, differentiated=("y",))
    typed("", "MaxPool", (1, 2, 4, 4), attrs={"kernel_shape": [2, 2], "strides": [2, 2]})
    typed(
        "",
        "BatchNormalization",
        (2, 3, 4),
        *(fixed(v, _type) for v in ([1, 2, 3], [0, 1, 2], [0.3, -0.2, 0.1], [0.7, 1.5, 2.0])),
    )
for _name, _op, _shapes, _attrs in (
    ("float16", "Conv", ((1, 2, 5, 5), (3, 2, 3, 3), (3,)), {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
    ("float16", "AveragePool", ((1, 2, 4, 4),), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    ("float16", "LRN", ((1, 4, 2, 2),), {"size": 3}),
    ("float16", "LeakyRelu", ((2, 3),), {}),
    ("float16", "GlobalAveragePool", ((1, 2, 3, 2),), {}),
):
    case(
        _name,
        _op,
        *(t(*s, dtype=np.float16) for s in _shapes),
        attrs=_attrs,
        tolerance=4e-3,
        oracle="reference",
        free="a",
    )
_STATISTICS = (fixed(v) for v in ([1, 2, 3], [0, 1, 2], [0.3, -0.2, 0.1], [0.7, 1.5, 2.0]))
case(
    "float16 beside float32 statistics",
    "BatchNormalization",
    t(2, 3, 4, dtype=np.float16),
    *_STATISTICS,
    tolerance=4e-3,
    oracle="reference",
)
