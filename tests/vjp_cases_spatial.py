"""More of the table: values written by index, interpolation at computed places, regions."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.vjp_cases import case, chain, fed, fixed, ints, positive, t
from tests.vjp_check import In

# --- scatter ------------------------------------------------------------------------------------------------------

for _reduction, _opset in (("none", 16), ("add", 16), ("mul", 16), ("max", 18), ("min", 18)):
    _more: dict[str, Any] = {"opset": _opset, **({} if _reduction == "none" else {"reduction": _reduction})}
    case(
        f"{_reduction}, axis 1",
        "ScatterElements",
        t(3, 4),
        fixed([[0, -1], [2, 1]], np.int64),
        t(2, 2),
        axis=1,
        **_more,
    )
    case(
        f"{_reduction}, repeated, fed",
        "ScatterElements",
        t(4, 3),
        fed([[0, -1, 1], [0, 3, 1], [-4, 0, 0]], np.int32),
        t(3, 3, low=-1.7, high=1.9),
        axis=-2,
        **_more,
    )
    case(f"{_reduction}, elements", "ScatterND", t(3, 4), fixed([[0, 1], [2, -1], [1, 1]], np.int64), t(3), **_more)
    case(f"{_reduction}, slices, fed", "ScatterND", t(3, 2, 2), fed([[2], [-3]]), t(2, 2, 2, high=1.3), **_more)
    case(
        f"{_reduction}, repeated",
        "ScatterND",
        t(4, 2),
        fixed([[[1], [-3]], [[1], [0]]], np.int64),
        t(2, 2, 2, low=-1.3),
        **_more,
    )
    case(f"{_reduction}, no indices", "ScatterElements", t(4), fixed([], np.int64), t(0), **_more)
case(
    "mul, a factor of zero",
    "ScatterElements",
    t(3),
    fixed([0, 0, 2, 1], np.int64),
    In(value=np.asarray([0, 2, 3, 0], np.float32)),
    reduction="mul",
    oracle="reference",
)
case(
    "mul, two factors of zero",
    "ScatterND",
    t(3),
    fixed([[0], [0], [0]], np.int64),
    In(value=np.asarray([0, 2, 0], np.float32)),
    reduction="mul",
    oracle="reference",
)
case("stored data", "ScatterElements", fixed(np.zeros((2, 3))), fed([[0, 1, 1]]), t(1, 3))
case("opset 13", "ScatterElements", t(3, 3), fixed([[1, 0, 2]], np.int64), t(1, 3), opset=13)
case("opset 11", "ScatterND", t(3, 3), fixed([[1], [0]], np.int64), t(2, 3), opset=11)
for _mode in ("linear", "circular"):
    case(
        _mode,
        "TensorScatter",
        t(2, 2, 4, 3),
        t(2, 2, 2, 3),
        fed([1, 2 if _mode == "linear" else 3]),
        mode=_mode,
        opset=24,
        linear=True,
    )
case("axis 1, from the start", "TensorScatter", t(2, 4, 3), t(2, 2, 3), axis=1, opset=24, linear=True)
case("axis", "Compress", t(3, 4), fed([True, False, True], np.bool_), axis=0)
case("negative axis, short condition", "Compress", t(3, 4), fixed([False, True, True], np.bool_), axis=-1)
case("flattened", "Compress", t(2, 3), fed([False, True, False, True, True], np.bool_))
case("nothing taken", "Compress", t(2, 3), fixed([False, False], np.bool_), axis=1)
case("time first", "ReverseSequence", t(4, 3, 2), fed([1, 4, 2]), batch_axis=1, time_axis=0)
case("batch first", "ReverseSequence", t(3, 4), fixed([3, 1, 4], np.int64), batch_axis=0, time_axis=1)
case("values", "OneHot", fed([[0, 2], [-1, 5]]), fixed(3, np.int64), t(2), linear=True)
case("values, axis 0", "OneHot", fixed([0, 2, 1], np.int64), fixed([4], np.int64), t(2), axis=0, linear=True)

# --- interpolation at computed places ------------------------------------------------------------------------------

for _mode in ("nearest", "linear", "cubic"):
    for _padding in ("zeros", "border", "reflection"):
        for _align in (0, 1):
            case(
                f"{_mode}, {_padding}{', corners' * _align}",
                "GridSample",
                t(2, 2, 4, 3),
                t(2, 3, 2, 2, low=-1.8, high=1.83, wrt=_mode != "nearest"),
                mode=_mode,
                padding_mode=_padding,
                align_corners=_align,
                opset=20,
                tolerance=3e-6,
            )
for _mode in ("nearest", "bilinear", "bicubic"):
    case(f"opset 16, {_mode}", "GridSample", t(1, 2, 4, 3), t(1, 3, 2, 2, low=-1.2, wrt=False), mode=_mode, linear=True)
for _padding in ("zeros", "border", "reflection"):
    case(
        f"3-D linear, {_padding}",
        "GridSample",
        t(1, 2, 3, 2, 3),
        t(1, 2, 2, 1, 3, low=-1.5, high=1.47),
        mode="linear",
        padding_mode=_padding,
        opset=20,
        tolerance=3e-6,
    )
case("opset 20, cubic", "GridSample", t(1, 2, 4, 3), t(1, 2, 2, 2, low=-1.3, high=1.31), mode="cubic", opset=20)
case("opset 20, 3-D nearest", "GridSample", t(1, 1, 3, 2, 3), t(1, 2, 2, 1, 3, wrt=False), mode="nearest", opset=20)
case("one row", "GridSample", t(1, 1, 1, 4), t(1, 2, 2, 2), opset=20, padding_mode="reflection", align_corners=1)
case("stored grid", "GridSample", t(1, 2, 4, 4), fixed(np.linspace(-0.9, 0.8, 18).reshape(1, 3, 3, 2)))
for _align in (0, 1):
    case(f"2-D{', corners' * _align}", "AffineGrid", t(2, 2, 3), ints(2, 3, 4, 5), align_corners=_align, opset=20)
    case(
        f"3-D, fed{', corners' * _align}",
        "AffineGrid",
        t(1, 3, 4),
        fed([1, 3, 2, 1, 3]),
        align_corners=_align,
        opset=20,
    )
chain(
    "AffineGrid/spatial transformer",
    "AffineGrid(b, c) -> g\nGridSample(a, g) -> y",
    t(1, 2, 4, 4),
    t(1, 2, 3),
    ints(1, 2, 3, 5),
    opset=20,
    tolerance=3e-6,
)

# --- regions ------------------------------------------------------------------------------------------------------

_BOXES = [[0.31, 0.63, 5.21, 4.72], [-3.07, -2.11, 3.13, 9.17], [2.03, 2.01, 2.21, 2.12], [1.07, 1.11, 9.17, 3.53]]
_BOXES += [[5.03, 4.07, 3.01, 2.09]]  # turned around
for _mode in ("avg", "max"):
    for _half in ("half_pixel", "output_half_pixel"):
        for _ratio in (0, 1, 2):
            case(
                f"{_mode}, {_half}, sampling_ratio {_ratio}",
                "RoiAlign",
                t(2, 2, 6, 7),
                fed(_BOXES, np.float32),
                fed([0, 1, 1, 0, 1]),
                mode=_mode,
                output_height=2,
                output_width=3,
                sampling_ratio=_ratio,
                spatial_scale=0.8,
                coordinate_transformation_mode=_half,
                step=2e-4 if _mode == "avg" else 2e-6,
                tolerance=3e-6,
            )
    case(
        f"{_mode}, no boxes",
        "RoiAlign",
        t(1, 2, 4, 4),
        fed(np.zeros((0, 4)), np.float32),
        fed(np.zeros(0)),
        mode=_mode,
        output_height=2,
        output_width=2,
    )
case(
    "opset 10",
    "RoiAlign",
    t(1, 2, 6, 5),
    fixed([[0, 0.4, 4, 5], [1, 1, 2.5, 3]]),
    ints(0, 0),
    output_height=3,
    output_width=2,
    sampling_ratio=2,
    opset=10,
    tolerance=3e-6,
)

# --- pools --------------------------------------------------------------------------------------------------------

for _p in (1, 2, 3):
    case(f"p = {_p}", "GlobalLpPool", t(2, 3, 3, 4), p=_p)
    case(f"p = {_p}", "LpPool", t(2, 2, 5, 4), attrs={"kernel_shape": [3, 2], "strides": [2, 1], "p": _p})
    case(f"p = {_p}, padded", "LpPool", t(1, 2, 5, 4), attrs={"kernel_shape": [3, 2], "pads": [1, 1, 1, 0], "p": _p})
case("1-D", "GlobalLpPool", t(2, 2, 5))
case("1-D", "LpPool", t(1, 2, 7), attrs={"kernel_shape": [3], "strides": [2]})
case("3-D", "LpPool", t(1, 2, 3, 4, 3), attrs={"kernel_shape": [2, 2, 2]})
case("SAME_UPPER", "LpPool", t(1, 1, 5, 4), attrs={"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"})
case("opset 18, dilations", "LpPool", t(1, 1, 7, 6), attrs={"kernel_shape": [2, 3], "dilations": [2, 2]}, opset=18)
case(
    "opset 18, ceil",
    "LpPool",
    t(1, 1, 5, 7),
    attrs={"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1},
    opset=18,
)
_PLACES = np.asarray([[[[1, 3], [9, 15]], [[16, 18], [28, 31]]]])
case("fed", "MaxUnpool", t(1, 2, 2, 2), fed(_PLACES), attrs={"kernel_shape": [2, 2], "strides": [2, 2]}, linear=True)
case(
    "one place twice",
    "MaxUnpool",
    t(1, 1, 2, 2),
    fixed([[[[1, 1], [9, 1]]]], np.int64),
    attrs={"kernel_shape": [2, 2], "strides": [2, 2]},
    linear=True,
)
case(
    "output_shape",
    "MaxUnpool",
    t(1, 2, 2, 2),
    fed(_PLACES),
    ints(1, 2, 5, 5),
    attrs={"kernel_shape": [2, 2], "strides": [2, 2]},
    linear=True,
)

# --- patches ------------------------------------------------------------------------------------------------------

case("plain", "Col2Im", t(1, 6, 4), ints(4, 6), ints(2, 3), attrs={"strides": [2, 3]}, opset=18, linear=True)
case(
    "overlapping, padded, dilated",
    "Col2Im",
    t(2, 8, 25),
    ints(5, 6),
    ints(2, 2),
    attrs={"pads": [1, 0, 1, 1], "dilations": [2, 2]},
    opset=18,
    linear=True,
)
case("3-D, fed", "Col2Im", t(1, 8, 4), fed([2, 3, 3]), fed([2, 2, 2]), opset=18, linear=True)
case("1-D", "Col2Im", t(1, 6, 3), ints(7), ints(3), attrs={"strides": [2]}, opset=18, linear=True)
for _name, _target in (("larger", [7, 9]), ("smaller", [2, 3]), ("mixed", [8, 2]), ("same", [4, 6])):
    case(_name, "CenterCropPad", t(4, 6), ints(*_target), opset=18, linear=True)
case("axes, fed", "CenterCropPad", t(2, 5, 4), fed([8, 3]), axes=[-1, 1], opset=18, linear=True)
for _name, _attrs, _shapes in (
    ("plain", {}, ((1, 2, 5, 4), (2, 2, 3, 2), (1, 12, 3, 3))),
    (
        "stride, padding, dilation",
        {"strides": [2, 1], "pads": [1, 0, 1, 2], "dilations": [1, 2]},
        ((2, 1, 5, 4), (2, 1, 3, 2), (2, 12, 3, 4)),
    ),
    ("groups", {"group": 2, "offset_group": 2}, ((1, 4, 3, 3), (2, 2, 2, 2), (1, 16, 2, 2))),
    ("offset groups only", {"offset_group": 2}, ((1, 4, 3, 3), (2, 4, 2, 2), (1, 16, 2, 2))),
):
    _x, _w, _o = _shapes
    _inputs = t(*_x), t(*_w), t(*_o, low=-1.7, high=1.6)
    case(_name, "DeformConv", *_inputs, attrs=_attrs, opset=19, free="ace", tolerance=3e-6, step=2e-6)
    _m = (_o[0], _o[1] // 2, *_o[2:])
    case(
        f"{_name}, bias and mask",
        "DeformConv",
        *_inputs,
        t(_w[0]),
        positive(*_m),
        attrs=_attrs,
        opset=19,
        free="ace",
        tolerance=3e-6,
        step=2e-6,
    )
case(
    "stored weight",
    "DeformConv",
    t(1, 2, 4, 4),
    fixed(np.arange(36).reshape(2, 2, 3, 3) / 10),
    t(1, 18, 2, 2),
    None,
    positive(1, 9, 2, 2),
    opset=22,
    tolerance=3e-6,
    step=2e-6,
)

# --- resize -------------------------------------------------------------------------------------------------------

_CROP: dict[str, Any] = {"coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 0.7}
for _mode in ("nearest", "linear", "cubic"):
    _box = fixed([0, 0, 0.11, -0.23, 1, 1, 0.87, 1.31])
    case(f"crop, {_mode}", "Resize", t(1, 2, 4, 5), _box, None, ints(1, 2, 3, 6), mode=_mode, linear=True, **_CROP)
    case(
        f"crop, {_mode}, scales",
        "Resize",
        t(1, 1, 4, 5),
        _box,
        fixed([1, 1, 1.6, 0.7]),
        mode=_mode,
        linear=True,
        **_CROP,
    )
    case(
        f"{_mode}, scales fed",
        "Resize",
        t(1, 2, 4, 5),
        None,
        fed([1, 1, 1.3, 0.6], np.float32),
        mode=_mode,
        linear=True,
    )
case(
    "crop, fed",
    "Resize",
    t(1, 2, 4, 5),
    fed([0, 0, 0.2, 0.3, 1, 1, 0.6, 1.1], np.float32),
    None,
    fed([1, 2, 4, 3]),
    mode="linear",
    linear=True,
    **_CROP,
)
case(
    "crop, axes",
    "Resize",
    t(1, 2, 4, 5),
    fixed([0.2, 0.3, 0.6, 1.1]),
    None,
    ints(3, 7),
    mode="linear",
    linear=True,
    axes=[2, 3],
    opset=18,
    **_CROP,
)
case(
    "crop that keeps the size",
    "Resize",
    t(1, 2, 4, 5),
    fixed([0, 0, 0.2, 0.3, 1, 1, 0.6, 0.9]),
    None,
    ints(1, 2, 4, 5),
    mode="linear",
    linear=True,
    **_CROP,
)
for _policy in ("not_larger", "not_smaller"):
    for _mode, _sizes in (("nearest", (7, 8)), ("linear", (7, 9)), ("linear", (3, 7)), ("cubic", (9, 5))):
        case(
            f"{_policy}, {_mode} {_sizes}",
            "Resize",
            t(1, 2, 4, 5),
            None,
            None,
            ints(*_sizes),
            mode=_mode,
            linear=True,
            axes=[2, 3],
            keep_aspect_ratio_policy=_policy,
            opset=18,
        )
case(
    "not_larger, axes turned, fed",
    "Resize",
    t(1, 2, 4, 5),
    None,
    None,
    fed([9, 7]),
    mode="linear",
    linear=True,
    axes=[3, 2],
    keep_aspect_ratio_policy="not_larger",
    opset=18,
)
case(
    "not_smaller, one axis",
    "Resize",
    t(1, 2, 4, 5),
    None,
    None,
    ints(7),
    mode="linear",
    linear=True,
    axes=[3],
    keep_aspect_ratio_policy="not_smaller",
    opset=18,
)

# --- axes, pads, repeats given at run time --------------------------------------------------------------------------

case("axes fed", "Slice", t(3, 5, 6), fed([1, -4]), fed([4, 100]), fed([-1, 0]), linear=True)
case(
    "axes fed, int32, steps",
    "Slice",
    t(5, 6),
    fed([4, 0], np.int32),
    fed([-9, 5], np.int32),
    fed([0, 1], np.int32),
    fed([-2, 2], np.int32),
    linear=True,
)
case("axes fed, stored bounds", "Slice", t(5, 6), ints(1), ints(3), fed([1]), linear=True)
for _mode in ("constant", "reflect", "edge", "wrap"):
    case(
        f"{_mode}, axes fed",
        "Pad",
        t(3, 4, 5),
        fed([1, 2, 0, 1]),
        None,
        fed([-1, 1]),
        mode=_mode,
        opset=19,
        linear=True,
    )
case("axes fed, negative pads", "Pad", t(3, 4), fed([-1, 2]), fixed(0.5), fed([1]), opset=18, linear=True)
case("axes fed", "Squeeze", t(1, 3, 1), fed([0, 2]))
case("axes fed", "Unsqueeze", t(3, 2), fed([0, -1]))
case(
    "sizes fed, opset 18, middle piece unused",
    "Split",
    t(2, 6),
    fed([1, 2, 3]),
    outputs=3,
    axis=1,
    opset=18,
    differentiated=("y", "y2"),
)

# --- com.microsoft --------------------------------------------------------------------------------------------------

for _mode in ("bilinear", "bicubic", "nearest"):
    case(
        f"com.microsoft, {_mode}",
        "GridSample",
        t(1, 2, 4, 3),
        t(1, 3, 2, 2, low=-1.2, wrt=False),
        attrs={"domain": "com.microsoft", "mode": _mode, "padding_mode": "border"},
        linear=True,
        oracle="float32",
    )

# --- ConvTranspose whose pads follow from output_shape ----------------------------------------------------------------

for _upper in ("NOTSET", "SAME_UPPER"):
    for _size in (5, 6, 7):  # of 6 that the windows reach
        case(
            f"output_shape {_size}, {_upper}, any size",
            "ConvTranspose",
            t(2, 2, 3),
            t(2, 1, 2),
            t(1),
            attrs={"strides": [2], "output_shape": [_size], "auto_pad": _upper},
            free="a",
            linear=True,
        )
case(
    "output_shape, groups and dilations",
    "ConvTranspose",
    t(1, 4, 3, 4),
    t(4, 1, 3, 2),
    linear=True,
    free="a",
    attrs={"strides": [2, 1], "dilations": [1, 2], "group": 2, "output_shape": [5, 5], "output_padding": [1, 0]},
)
_BINS = [[0, 0.31, 0.63, 5.21, 4.72], [1, -3.07, -2.11, 3.13, 9.17], [1, 2.03, 2.01, 2.21, 2.12]]
_BINS += [[0, 6.07, 1.11, 9.17, 3.53], [1, 5.03, 4.07, 3.01, 2.09], [0, -9, -9, -5, -6]]
for _scale in (1.0, 0.7):
    case(
        f"scale {_scale}",
        "MaxRoiPool",
        t(2, 2, 6, 7),
        fed(_BINS, np.float32),
        pooled_shape=[2, 3],
        spatial_scale=_scale,
        oracle="reference",
    )
case("flattened", "Unique", t(2, 3), differentiated=("y",), oracle="reference")
case("not sorted, all outputs", "Unique", t(6), outputs=4, sorted=0, differentiated=("y",), oracle="reference")
case("axis", "Unique", t(3, 2), axis=0, differentiated=("y",), oracle="reference")
_CROPS = fed([[0.11, 0.22, 0.73, 1.12], [0.03, 0.97, 0.98, 0.02], [-0.2, 0.4, 0.6, 0.6]], np.float32)
for _mode in ("bilinear", "nearest"):
    for _size in ((3, 4), (1, 2)):
        case(
            f"{_mode}, {_size}",
            "CropAndResize",
            t(2, 2, 4, 5),
            _CROPS,
            fed([1, 0, 1], np.int32),
            fixed(_size, np.int32),
            attrs={"domain": "com.microsoft", "mode": _mode, "extrapolation_value": 0.7},
            linear=True,
        )
