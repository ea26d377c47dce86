"""What the model is shown: presets, parsing, fitting to the input, and the way back to the photograph."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gbp_onnx.errors import InputError, ModelError
from gbp_onnx.imaging.photo import read_photo
from gbp_onnx.imaging.preprocess import (
    PRESETS,
    Frame,
    apply,
    default_preprocess,
    fit_to_input,
    from_metadata,
    parse_preprocess,
)
from gbp_onnx.types import Preprocess
from tests.corpus import CORPUS, needs_corpus

NCHW = ["N", 3, 224, 224]


def noise(height: int, width: int, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


def refused(code: str, action: Any, *words: str) -> str:
    with pytest.raises((InputError, ModelError)) as caught:
        action()
    assert caught.value.code == code
    for word in words:
        assert word in str(caught.value)
    return str(caught.value)


# --- presets


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("imagenet", lambda p: (p / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)),
        ("keras-caffe", lambda p: p[..., ::-1] - (103.939, 116.779, 123.68)),
        ("tf", lambda p: p / 127.5 - 1),
        ("lite", lambda p: (p - 127) / 128),
        ("unit", lambda p: p / 255),
        ("raw", lambda p: p),
    ],
)
def test_presets_follow_their_formulas(name: str, formula: Any) -> None:
    photo = noise(224, 224)
    fitted = fit_to_input(parse_preprocess(f"{name},crop_fraction=1"), NCHW, False)
    x, frame = apply(photo, fitted, np.float32)
    assert x.dtype == np.float32
    assert x.shape == (3, 224, 224)
    assert x.flags.c_contiguous
    assert (frame.image == np.asarray(photo)).all()
    np.testing.assert_allclose(x.transpose(1, 2, 0), formula(np.asarray(photo, np.float64)), rtol=2e-6, atol=8e-6)
    assert set(PRESETS) == {"imagenet", "keras-caffe", "tf", "lite", "unit", "raw"}


# --- parsing


def test_parse_takes_every_form(tmp_path: Path) -> None:
    imagenet = PRESETS["imagenet"]
    assert parse_preprocess("imagenet") == imagenet
    assert parse_preprocess(" imagenet ") == imagenet
    assert parse_preprocess(imagenet) is imagenet
    assert parse_preprocess({"preset": "imagenet"}) == imagenet
    assert parse_preprocess({"name": "imagenet"}) == imagenet
    assert parse_preprocess(imagenet.to_dict()) == imagenet
    assert parse_preprocess(json.dumps(imagenet.to_dict())) == imagenet
    stretched = parse_preprocess({"preset": "imagenet", "resize": "stretch"})
    assert stretched == replace(imagenet, resize="stretch", name="imagenet,resize=stretch")
    assert parse_preprocess("imagenet,resize=stretch") == stretched
    assert parse_preprocess('{"preset": "imagenet", "resize": "stretch"}') == stretched
    file = tmp_path / "own.json"
    file.write_text('{"preset": "imagenet", "resize": "stretch"}')
    assert parse_preprocess(str(file)) == stretched
    full = parse_preprocess("channels=bgr, scale=1/255, mean=1/2/3, std=4, crop_fraction=1.0, size=96x128, layout=nhwc")
    assert (full.channels, full.scale, full.mean, full.std) == ("BGR", 1 / 255, (1.0, 2.0, 3.0), (4.0,))
    assert (full.crop_fraction, full.size, full.layout) == (1.0, (96, 128), "NHWC")
    assert parse_preprocess("raw,size=96").size == (96, 96)
    assert parse_preprocess(stretched.name) == stretched  # the name is the short form
    named = parse_preprocess({"preset": "tf", "name": "mine", "interpolation": "BICUBIC"})
    assert (named.name, named.interpolation) == ("mine", "bicubic")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("imagnet", ("did you mean 'imagenet'", "keras-caffe")),
        ("", ("imagenet",)),
        ("imagenet,resise=crop", ("did you mean 'resize'",)),
        ("imagenet,resize=strech", ("did you mean 'stretch'", "pad")),
        ("imagenet,stretch", ("field=value",)),
        ("imagenet,interpolation=cubic", ("bicubic",)),
        ("imagenet,mean=1/2", ("mean has 2 numbers", "RGB has 3")),
        ("imagenet,channels=L", ("mean has 3 numbers",)),
        ("imagenet,std=0", ("std must not be 0",)),
        ("imagenet,std=1/0/1", ("std must not be 0",)),
        ("imagenet,scale=0", ("scale",)),
        ("imagenet,scale=1/0", ("scale",)),
        ("imagenet,scale=nan", ("scale",)),
        ("imagenet,mean=inf", ("mean",)),
        ("imagenet,mean=a/b/c", ("mean",)),
        ("imagenet,crop_fraction=0", ("crop_fraction",)),
        ("imagenet,crop_fraction=1.5", ("crop_fraction",)),
        ("imagenet,fill=300", ("fill",)),
        ("imagenet,fill=1.5", ("fill",)),
        ("imagenet,size=0", ("size",)),
        ("imagenet,size=1x2x3", ("size",)),
        ("imagenet,layout=CHWN", ("layout", "NHWC")),
        ('{"preset": ', ("JSON",)),
        ({"preset": "imagenet", "mean": [True, 1, 2]}, ("mean",)),
        ({"preset": ["imagenet"]}, ("preset",)),
        ("no/such/file.json", ("no/such/file.json",)),
    ],
)
def test_parse_refuses_with_what_exists(value: Any, words: tuple[str, ...]) -> None:
    refused("GBP409", lambda: parse_preprocess(value), *words)


def test_a_file_that_is_no_object(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("[1]")
    refused("GBP409", lambda: parse_preprocess(str(tmp_path / "list.json")), "list.json")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    refused("GBP409", lambda: parse_preprocess(str(tmp_path / "bytes.json")), "bytes.json")


def test_a_record_that_is_wrong_is_refused() -> None:
    refused("GBP409", lambda: parse_preprocess(Preprocess("bad", std=(0.0,))), "std")
    refused("GBP409", lambda: parse_preprocess(Preprocess("bad", channels="GBR")), "channels")


# --- metadata


def test_metadata() -> None:
    imagenet = PRESETS["imagenet"]
    assert from_metadata({}) is None
    assert from_metadata({"Image.ColorSpaceGamma": "SRGB"}) is None
    assert from_metadata({"gbp.preprocess": json.dumps(imagenet.to_dict())}) == imagenet
    both = {"gbp.preprocess": json.dumps(imagenet.to_dict()), "Image.BitmapPixelFormat": "Bgr8"}
    assert from_metadata(both) == imagenet
    mnist = {
        "Image.BitmapPixelFormat": "Gray8",
        "Image.NominalPixelRange": "NominalRange_0_255",
        "Image.ColorSpaceGamma": "SRGB",
    }
    found = from_metadata(mnist)
    assert found is not None
    assert (found.channels, found.scale, found.mean) == ("L", 1.0, (0.0,))


@pytest.mark.parametrize(
    ("span", "black", "white"),
    [
        ("NominalRange_0_255", 0, 255),
        ("Normalized_0_1", 0, 1),
        ("normalized_1_1", -1, 1),
        ("NominalRange_16_235", 16, 235),
    ],
)
@pytest.mark.parametrize(
    ("pixel_format", "channels"), [("Rgb8", "RGB"), ("BGR8", "BGR"), ("Rgba8", "RGBA"), ("Bgra8", "BGRA")]
)
def test_onnx_image_metadata(span: str, black: float, white: float, pixel_format: str, channels: str) -> None:
    found = from_metadata({"image.bitmappixelformat": pixel_format, "Image.NominalPixelRange": span})
    assert found is not None
    assert found.channels == channels
    x, _ = apply(
        Image.fromarray(np.array([[[0, 128, 255]]], np.uint8)),
        fit_to_input(replace(found, crop_fraction=1.0), [1, len(channels), 1, 1], False),
        np.float32,
    )
    wanted = {"R": black, "B": white, "A": white}
    for name, value in wanted.items():
        if name in channels:
            assert x[channels.index(name), 0, 0] == pytest.approx(value, abs=1e-4)


@pytest.mark.parametrize(
    "props",
    [
        {"gbp.preprocess": "{broken"},
        {"gbp.preprocess": "[]"},
        {"gbp.preprocess": '{"preset": "nonsense"}'},
        {"gbp.preprocess": '{"name": "x", "std": [0]}'},
        {"Image.BitmapPixelFormat": "Yuv420"},
        {"Image.NominalPixelRange": "0..1"},
        {"Image.BitmapPixelFormat": "Bgr8", "Image.ColorSpaceGamma": "Linear"},
    ],
)
def test_metadata_that_cannot_be_used(props: dict[str, str]) -> None:
    refused("GBP112", lambda: from_metadata(props))


# --- fitting


@pytest.mark.parametrize(
    ("shape", "layout", "size", "channels"),
    [
        (["N", 3, 224, 224], "NCHW", (224, 224), "RGB"),
        ([1, 3, 240, 320], "NCHW", (240, 320), "RGB"),
        ([None, 32, 48, 3], "NHWC", (32, 48), "RGB"),
        (["N", 3, "H", "W"], "NCHW", (224, 224), "RGB"),
        (["N", "H", "W", 3], "NHWC", (224, 224), "RGB"),
        ([-1, 3, "?", 0], "NCHW", (224, 224), "RGB"),
        ([None] * 4, "NCHW", (224, 224), "RGB"),
        (["N", None, 64, 64], "NCHW", (64, 64), "RGB"),
        (["N", 64, 64, None], "NHWC", (64, 64), "RGB"),
        (["N", 1, 28, 28], "NCHW", (28, 28), "L"),
        (["N", 64, 64, 1], "NHWC", (64, 64), "L"),
        (["N", 4, 8, 8], "NCHW", (8, 8), "RGBA"),
        ([3, 96, 96], "NCHW", (96, 96), "RGB"),
        ([96, 96, 3], "NHWC", (96, 96), "RGB"),
        (["N", 1, 3, 3], "NHWC", (1, 3), "RGB"),  # the count that fits the preprocessing decides
        (["N", 3, 3, 3], "NCHW", (3, 3), "RGB"),
        (["N", 1, 5, 4], "NCHW", (5, 4), "L"),
    ],
)
def test_fit(shape: list[Any], layout: str, size: tuple[int, int], channels: str) -> None:
    fitted = fit_to_input(PRESETS["imagenet"], shape, False)
    assert (fitted.layout, fitted.size, fitted.channels) == (layout, size, channels)
    x, frame = apply(noise(50, 70), fitted, np.float32)
    counts = (len(channels), *size) if layout == "NCHW" else (*size, len(channels))
    assert x.shape == counts
    assert frame.image.shape == (*size, 3)
    assert frame.photo_size == (50, 70)


def test_fit_takes_the_size_that_is_asked() -> None:
    asked = parse_preprocess("imagenet,size=96x64")
    assert fit_to_input(asked, ["N", 3, "H", "W"], False).size == (96, 64)
    assert fit_to_input(asked, ["N", 3, 96, None], False).size == (96, 64)
    refused("GBP409", lambda: fit_to_input(asked, NCHW, False), "96x64", "224")


def test_fit_keeps_a_layout_that_is_stated() -> None:
    stated = parse_preprocess("imagenet,layout=NHWC")
    assert fit_to_input(stated, ["N", 3, 3, 3], False).layout == "NHWC"
    assert fit_to_input(stated, [None] * 4, False).layout == "NHWC"
    refused("GBP409", lambda: fit_to_input(stated, NCHW, False), "NHWC")


@pytest.mark.parametrize("shape", [["N", 36, 36, 528], [1, 32, 56, 56], ["N", 10], [1, 2, 3, 4, 5], ["bytes"], []])
def test_inputs_that_are_no_photographs(shape: list[Any]) -> None:
    refused("GBP406", lambda: fit_to_input(PRESETS["imagenet"], shape, False), "input")


def test_channels_that_cannot_be_made() -> None:
    grey = parse_preprocess("raw,channels=L")
    refused("GBP406", lambda: fit_to_input(grey, NCHW, False), "3 channels", "channels=RGB")
    refused("GBP406", lambda: fit_to_input(parse_preprocess("raw,channels=RGBA"), NCHW, False), "3 channels")


def test_grey_statistics_follow_the_grey() -> None:
    for name in ("imagenet", "keras-caffe"):
        fitted = fit_to_input(PRESETS[name], ["N", 1, 28, 28], False)
        mean = dict(zip(PRESETS[name].channels, PRESETS[name].mean, strict=True))
        wanted = 0.299 * mean["R"] + 0.587 * mean["G"] + 0.114 * mean["B"]
        assert fitted.mean == pytest.approx((wanted,))
    x, frame = apply(
        noise(28, 28), fit_to_input(parse_preprocess("raw,crop_fraction=1"), [1, 28, 28], False), np.float32
    )
    rgb = np.asarray(noise(28, 28), np.float64)
    assert np.abs(x[0] - rgb @ (0.299, 0.587, 0.114)).max() < 1
    assert (frame.image == x[0][:, :, None]).all()


def test_alpha_is_opaque() -> None:
    x, _ = apply(noise(8, 8), fit_to_input(PRESETS["imagenet"], [1, 4, 8, 8], False), np.float32)
    assert x.shape == (4, 8, 8)
    assert (x[3] == 1).all()


# --- integers


def test_integer_inputs() -> None:
    raw = parse_preprocess("raw,crop_fraction=1")
    photo = noise(6, 6)
    for kind in (np.uint8, np.int16, np.int32, np.uint16, np.int64):
        x, _ = apply(photo, fit_to_input(raw, [1, 6, 6, 3], True), kind)
        assert x.dtype == kind
        assert (x == np.asarray(photo)).all()
    signed = default_preprocess(np.int8)
    x, _ = apply(photo, fit_to_input(replace(signed, crop_fraction=1.0), [1, 6, 6, 3], True), np.int8)
    assert x.dtype == np.int8
    assert (x.astype(int) == np.asarray(photo).astype(int) - 128).all()
    refused("GBP409", lambda: apply(photo, fit_to_input(raw, [1, 6, 6, 3], True), np.int8), "mean=128")
    refused("GBP409", lambda: apply(photo, fit_to_input(signed, [1, 6, 6, 3], True), np.uint8), "uint8")
    for name in ("imagenet", "tf", "lite", "unit", "keras-caffe"):
        refused("GBP409", lambda name=name: fit_to_input(PRESETS[name], [1, 6, 6, 3], True), "raw")
    assert default_preprocess("float16") == PRESETS["imagenet"]
    assert default_preprocess(np.uint8) == PRESETS["raw"]
    assert parse_preprocess(signed.name) == signed


def test_float_types() -> None:
    fitted = fit_to_input(PRESETS["imagenet"], NCHW, False)
    wide, _ = apply(noise(300, 300), fitted, np.float32)
    for kind in (np.float16, np.float64):
        x, _ = apply(noise(300, 300), fitted, kind)
        assert x.dtype == kind
        np.testing.assert_allclose(x, wide, rtol=1e-3)
    refused("GBP409", lambda: apply(noise(3, 3), PRESETS["imagenet"], np.float32), "fit_to_input")


# --- geometry


@pytest.mark.parametrize(("height", "width"), [(300, 451), (451, 300), (256, 256), (100, 77), (31, 500), (224, 225)])
@pytest.mark.parametrize(("target", "fraction"), [(224, 0.875), (299, 0.875), (64, 1.0), (33, 0.9)])
def test_crop_scales_the_short_side_and_takes_the_centre(height: int, width: int, target: int, fraction: float) -> None:
    """Resize(short), the long side rounded to the nearest, then CenterCrop(target): round((n - target) / 2)."""
    photo = noise(height, width)
    short = round(target / fraction)
    if height <= width:
        tall, wide = short, round(short * width / height)
    else:
        tall, wide = round(short * height / width), short
    whole = photo.resize((wide, tall), Image.Resampling.BILINEAR)
    top, left = round((tall - target) / 2.0), round((wide - target) / 2.0)
    wanted = np.asarray(whole)[top : top + target, left : left + target]
    preprocess = parse_preprocess(f"raw,crop_fraction={fraction}")
    _, frame = apply(photo, fit_to_input(preprocess, [1, 3, target, target], False), np.float32)
    assert (frame.image == wanted).all()
    assert (frame.scaled, frame.offset) == ((tall, wide), (top, left))


def test_crop_covers_inputs_that_are_not_square() -> None:
    for shape, photo in (((240, 320), noise(200, 900)), ((320, 240), noise(200, 900)), ((20, 60), noise(64, 64))):
        _, frame = apply(photo, fit_to_input(PRESETS["raw"], [1, 3, *shape], False), np.float32)
        assert frame.image.shape == (*shape, 3)
        assert all(
            0 <= offset <= scaled - side for offset, scaled, side in zip(frame.offset, frame.scaled, shape, strict=True)
        )


def test_a_thread_of_a_photograph_needs_little_memory() -> None:
    photo = Image.fromarray(
        np.tile(np.arange(60_000, dtype=np.uint32)[None, :, None] * 255 // 60_000, (2, 1, 3)).astype(np.uint8)
    )
    _, frame = apply(photo, fit_to_input(PRESETS["raw"], NCHW, False), np.float32)
    assert frame.scaled == (256, 60_000 * 128)
    assert np.ptp(frame.image) <= 1
    assert abs(int(frame.image[0, 0, 0]) - 127) <= 1


def test_stretch_and_pad() -> None:
    photo = noise(100, 200)
    _, frame = apply(photo, fit_to_input(parse_preprocess("raw,resize=stretch"), [1, 3, 50, 60], False), np.float32)
    assert (frame.image == np.asarray(photo.resize((60, 50), Image.Resampling.BILINEAR))).all()
    padded = parse_preprocess("raw,resize=pad,fill=7,interpolation=nearest")
    _, frame = apply(photo, fit_to_input(padded, [1, 3, 60, 60], False), np.float32)
    assert (frame.image[:15] == 7).all()
    assert (frame.image[45:] == 7).all()
    assert (frame.image[15:45] == np.asarray(photo.resize((60, 30), Image.Resampling.NEAREST))).all()
    assert (frame.scaled, frame.offset) == ((30, 60), (-15, 0))


@pytest.mark.parametrize("name", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_interpolations_differ_as_named(name: str) -> None:
    photo = noise(64, 64)
    preprocess = parse_preprocess(f"raw,interpolation={name},crop_fraction=1")
    _, frame = apply(photo, fit_to_input(preprocess, [1, 3, 40, 40], False), np.float32)
    assert (frame.image == np.asarray(photo.resize((40, 40), Image.Resampling[name.upper()]))).all()


# --- the way back


def test_to_photo_puts_a_point_where_it_was() -> None:
    """A blob drawn on the photograph, seen by the model, comes back to its place."""
    for resize in ("crop", "stretch", "pad"):
        height, width = 301, 420
        rows, columns = np.mgrid[0:height, 0:width]
        blob = np.exp(-((rows - 140) ** 2 + (columns - 230) ** 2) / (2 * 12.0**2))
        photo = Image.fromarray(np.repeat((blob * 255).astype(np.uint8)[:, :, None], 3, axis=2))
        fitted = fit_to_input(parse_preprocess(f"unit,resize={resize}"), NCHW, False)
        x, frame = apply(photo, fitted, np.float32)
        back = frame.to_photo(frame.to_rgb_hwc(x, fitted))
        assert back.shape == (height, width, 3)
        assert back.dtype == np.float32
        weight = back[:, :, 0].astype(np.float64)
        centre = (weight * rows).sum() / weight.sum(), (weight * columns).sum() / weight.sum()
        assert centre == pytest.approx((140, 230), abs=0.35), resize
        assert np.abs(back[:, :, 0] - blob).max() < 0.05, resize


def test_to_photo_is_zero_outside_the_crop_and_keeps_signs() -> None:
    fitted = fit_to_input(PRESETS["raw"], [1, 3, 32, 32], False)
    _, frame = apply(noise(64, 128), fitted, np.float32)
    back = frame.to_photo(np.full((32, 32, 1), -2.0, np.float32))
    inside = back[:, :, 0] != 0
    # 64 rows become 37 (32 / 0.875), of which 2..34 are seen: rows 3.46..58.8 of the photograph
    assert np.flatnonzero(inside.any(axis=1))[[0, -1]].tolist() == [3, 58]
    assert np.flatnonzero(inside.any(axis=0))[[0, -1]].tolist() == [36, 91]
    np.testing.assert_allclose(back[:, :, 0][inside], -2.0, rtol=1e-6)


def test_to_photo_interpolates_linearly() -> None:
    frame = Frame(np.zeros((2, 4, 3), np.uint8), (4, 8), (2, 4), (0, 0))
    ramp = np.broadcast_to(np.array([0.0, 4.0, 8.0, 12.0], np.float32)[None, :, None], (2, 4, 1))
    assert frame.to_photo(ramp)[0, :, 0].tolist() == [0, 1, 3, 5, 7, 9, 11, 12]
    small = Frame(np.zeros((8, 8, 3), np.uint8), (2, 2), (8, 8), (0, 0))
    point = np.zeros((8, 8, 1), np.float32)
    point[3, 2] = 1  # between the sample points of a smaller photograph: averaged in, not skipped
    assert small.to_photo(point)[0, 0, 0] > 0.02


def test_to_photo_keeps_broken_values_in_place() -> None:
    frame = Frame(np.zeros((8, 8, 3), np.uint8), (16, 16), (8, 8), (0, 0))
    values = np.ones((8, 8, 3), np.float32)
    values[2, 3, 1] = np.nan
    values[5, 5, 2] = np.inf
    back = frame.to_photo(values)
    assert 1 <= np.isnan(back[:, :, 1]).sum() <= 16
    assert np.isnan(back[4:6, 6:8, 1]).all()
    assert np.isnan(back[10:12, 10:12, 2]).all()
    assert np.isfinite(back[:, :, 0]).all()
    assert back[0, 0].tolist() == [1, 1, 1]


def test_to_photo_wants_the_frames_size() -> None:
    frame = Frame(np.zeros((8, 8, 3), np.uint8), (16, 16), (8, 8), (0, 0))
    refused("GBP405", lambda: frame.to_photo(np.zeros((7, 8, 3), np.float32)), "7x8x3")
    refused("GBP405", lambda: frame.to_photo(np.zeros((8, 8), np.float32)), "8x8")


@pytest.mark.parametrize("channels", ["RGB", "BGR", "RGBA", "BGRA", "L"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_attributions_come_back_in_rgb(channels: str, layout: str) -> None:
    rng = np.random.default_rng(0)
    planes = {name: rng.standard_normal((5, 6)).astype(np.float32) for name in channels}
    attribution = np.stack([planes[name] for name in channels], axis=0 if layout == "NCHW" else -1)
    frame = Frame(np.zeros((5, 6, 3), np.uint8), (5, 6), (5, 6), (0, 0))
    found = frame.to_rgb_hwc(attribution.astype(np.float64), Preprocess("x", channels=channels, layout=layout))
    assert found.dtype == np.float32
    wanted = "L" if channels == "L" else "RGB"
    assert found.shape == (5, 6, len(wanted))
    for place, name in enumerate(wanted):
        assert (found[:, :, place] == planes[name]).all()


# --- real models


CASES = {
    "squeezenet11_imagenet_ts_op17.onnx": ("keras-caffe", "Weimaraner golden dalmatian elephant samoyed"),
    "efficientnet_lite0_imagenet_ts_op13.onnx": ("lite", "Weimaraner golden dalmatian banana elephant samoyed"),
    "keras_mobilenet_v1_0.25_imagenet_tf2onnx_op13.onnx": ("tf", "Weimaraner dalmatian elephant samoyed"),
    "mobilenetv2_tv_imagenet_ts_op11.onnx": ("imagenet", "Weimaraner golden dalmatian banana elephant samoyed"),
    "tflite_coral_mobilenet_v2_1.0_224_quant.onnx": (
        "raw",
        "Weimaraner golden dalmatian banana elephant samoyed",
    ),
}
CLASSES = {"Weimaraner": 178, "golden": 207, "dalmatian": 251, "banana": 954, "elephant": 386, "samoyed": 258}


@pytest.mark.corpus
@needs_corpus
@pytest.mark.parametrize("file", CASES)
def test_the_corpus_table_holds(file: str) -> None:
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(CORPUS / "models" / file, providers=["CPUExecutionProvider"])
    model_input = session.get_inputs()[0]
    preset, names = CASES[file]
    dtype = np.uint8 if model_input.type == "tensor(uint8)" else np.float32
    fitted = fit_to_input(PRESETS[preset], model_input.shape, dtype == np.uint8)
    for name in names.split():
        (path,) = (CORPUS / "images").glob(f"*[_g]{name}*" if name != "golden" else "imagenet*golden*")
        x, _ = apply(read_photo(path), fitted, dtype)
        scores = session.run(None, {model_input.name: x[None]})[0][0]
        background = len(scores) - 1000  # some models keep a class 0 that stands for nothing
        assert scores.argmax() - background == CLASSES[name], name
