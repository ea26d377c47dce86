"""What a model wants to see, and a photograph brought to it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gbp_onnx.errors import GbpError, InputError, ModelError
from gbp_onnx.imaging.options import unknown
from gbp_onnx.types import Preprocess

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "DEFAULT_SIZE",
    "PRESETS",
    "Frame",
    "apply",
    "default_preprocess",
    "fit_to_input",
    "from_metadata",
    "parse_preprocess",
]

DEFAULT_SIZE = (224, 224)

PRESETS: dict[str, Preprocess] = {
    preset.name: preset
    for preset in (
        Preprocess("imagenet", scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
        Preprocess("keras-caffe", channels="BGR", mean=(103.939, 116.779, 123.68)),
        Preprocess("tf", scale=1 / 127.5, mean=(1.0,)),
        Preprocess("lite", mean=(127.0,), std=(128.0,)),
        Preprocess("unit", scale=1 / 255),
        Preprocess("raw"),
    )
}

CHANNELS = ("RGB", "BGR", "L", "RGBA", "BGRA")
CHOICES = {
    "channels": CHANNELS,
    "resize": ("crop", "stretch", "pad"),
    "interpolation": ("nearest", "bilinear", "bicubic", "lanczos"),
    "layout": ("NCHW", "NHWC"),
}
FIELDS = tuple(field.name for field in fields(Preprocess))
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, the weights of Pillow's mode "L"
WHERE = "preprocessing"


def parse_preprocess(value: str | Mapping[str, Any] | Preprocess) -> Preprocess:
    """The preprocessing that `value` describes, validated.

    `value`: a preset ("imagenet"); the short form "imagenet,resize=stretch,mean=1/2/3,size=96x128" (a preset, or
    only fields); a JSON object or mapping with the fields of `Preprocess`, on top of "preset" if that is given; the
    path of a .json file with such an object. Raises GBP409, with what exists.
    """
    if isinstance(value, Preprocess):
        return _validated(value)
    if isinstance(value, Mapping):
        return _from_mapping(value)
    text = value.strip()
    if text.startswith("{"):
        return _from_json(text, WHERE)
    if text.lower().endswith(".json"):
        return _from_file(Path(text))
    return _from_short_form(text)


def default_preprocess(dtype: DTypeLike) -> Preprocess:
    """The guess for an input of this type where nothing is known: imagenet for floats, raw pixels for integers.

    Signed 8-bit inputs get raw pixels minus 128, as TensorFlow Lite's int8 models want them.
    """
    kind = np.dtype(dtype)
    if kind.kind not in "iu":
        return PRESETS["imagenet"]
    return replace(PRESETS["raw"], name="raw,mean=128", mean=(128.0,)) if kind == np.int8 else PRESETS["raw"]


def _from_mapping(value: Mapping[str, Any], where: str = WHERE) -> Preprocess:
    given = dict(value)
    for key in given:
        if key not in FIELDS and key != "preset":
            raise unknown("GBP409", "field", key, ["preset", *FIELDS], where)
    if "preset" not in given and given.get("name") in PRESETS and not {"scale", "mean", "std"} & given.keys():
        given["preset"] = given.pop("name")
    base = Preprocess("custom")
    if "preset" in given:
        base = _preset(given.pop("preset"), where)
    changes = {key: _coerced(key, entry, where) for key, entry in given.items()}
    changed = ",".join(f"{key}={_short(entry)}" for key, entry in changes.items() if entry != getattr(base, key))
    if "name" not in changes and changed:
        changes["name"] = f"{base.name},{changed}" if base.name in PRESETS else changed
    return _validated(replace(base, **changes), where)


def _short(value: Any) -> str:
    if isinstance(value, tuple):
        return "/".join(f"{entry:g}" for entry in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _from_json(text: str, where: str) -> Preprocess:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InputError("GBP409", f"not valid JSON ({error})", where, "check quotes and commas") from error
    if not isinstance(value, dict):
        raise InputError("GBP409", f"the JSON is no object but {type(value).__name__}", where, 'write {"preset": ...}')
    return _from_mapping(value, where)


def _from_file(path: Path) -> Preprocess:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(
            "GBP409", f"cannot read the preprocessing file ({why})", str(path), "check the path"
        ) from error
    return _from_json(text, str(path))


def _from_short_form(text: str) -> Preprocess:
    given: dict[str, Any] = {}
    for position, part in enumerate(part.strip() for part in text.split(",")):
        key, equals, entry = (piece.strip() for piece in part.partition("="))
        if not equals:
            if position > 0:
                raise InputError("GBP409", f"{part!r} is not of the form field=value", WHERE, "write mean=1/2/3")
            key, entry = "preset", part
        given[key] = entry
    return _from_mapping(given)


def _preset(name: Any, where: str) -> Preprocess:
    if not isinstance(name, str) or name not in PRESETS:
        raise unknown("GBP409", "preprocessing preset", name, PRESETS, where)
    return PRESETS[name]


def _coerced(key: str, entry: Any, where: str) -> Any:
    """The entry of a mapping as the type of its field; text is read as in the short form."""
    try:
        if key in ("mean", "std"):
            return tuple(_number(number) for number in _sequence(entry, "/"))
        if key in ("scale", "crop_fraction"):
            return _number(entry)
        if key == "fill":
            return _integer(entry)
        if key == "size":
            return _size(entry)
        if key == "layout" and (entry is None or str(entry).lower() == "none"):
            return None
        if key in CHOICES:
            return _choice(key, entry, where)
        return str(entry)
    except (TypeError, ValueError) as error:
        raise InputError(
            "GBP409", f"{key} cannot be {entry!r} ({error})", where, "see `gbp-onnx explain --help`"
        ) from error


def _choice(key: str, entry: Any, where: str) -> str:
    for name in CHOICES[key]:
        if str(entry).lower() == name.lower():
            return name
    raise unknown("GBP409", key, entry, CHOICES[key], where)


def _sequence(entry: Any, separator: str) -> Sequence[Any]:
    if isinstance(entry, str):
        return re.split(separator, entry)
    return entry if isinstance(entry, list | tuple) else [entry]


def _number(entry: Any) -> float:
    """A finite number; "1/255" is read as a quotient where one number is wanted."""
    if isinstance(entry, bool):
        raise TypeError("a number is wanted")
    if isinstance(entry, str) and entry.count("/") == 1:
        top, bottom = (float(piece) for piece in entry.split("/"))
        if bottom == 0:
            raise ValueError("division by zero")
        return top / bottom
    return float(entry)


def _integer(entry: Any) -> int:
    number = _number(entry)
    if not number.is_integer():
        raise ValueError("a whole number is wanted")
    return int(number)


def _size(entry: Any) -> tuple[int, int] | None:
    if entry is None or str(entry).lower() == "none":
        return None
    sides = [_integer(side) for side in _sequence(entry, "[x/]")]
    if len(sides) not in (1, 2):
        raise ValueError("one or two sides are wanted, height x width")
    return sides[0], sides[-1]


def _validated(preprocess: Preprocess, where: str = WHERE) -> Preprocess:
    def refuse(what: str, fix: str) -> InputError:
        return InputError("GBP409", what, where, fix)

    for key, known in CHOICES.items():
        entry = getattr(preprocess, key)
        if entry not in known and not (key == "layout" and entry is None):
            raise unknown("GBP409", key, entry, known, where)
    count = len(preprocess.channels)
    for key in ("mean", "std"):
        numbers = getattr(preprocess, key)
        if len(numbers) not in (1, count):
            what = f"{key} has {len(numbers)} numbers, {preprocess.channels} has {count} channels"
            raise refuse(what, f"give 1 or {count} numbers")
        if not all(math.isfinite(number) for number in numbers):
            raise refuse(f"{key} must be finite, not {_short(numbers)}", "give finite numbers")
    if not all(preprocess.std):
        raise refuse("std must not be 0: the pixels are divided by it", "give the standard deviations, or 1")
    if not math.isfinite(preprocess.scale) or preprocess.scale == 0:
        raise refuse(f"scale must be finite and not 0, not {preprocess.scale:g}", "1/255 maps pixels to 0..1")
    if not 0 < preprocess.crop_fraction <= 1:
        raise refuse(f"crop_fraction must be in (0, 1], not {preprocess.crop_fraction:g}", "0.875 is 224 of 256")
    if not 0 <= preprocess.fill <= 255:
        raise refuse(f"fill must be 0..255, not {preprocess.fill}", "0 is black")
    if preprocess.size is not None and not all(1 <= side <= 16384 for side in preprocess.size):
        raise refuse(f"size must be 1..16384, not {_short(preprocess.size)}", "give height and width in pixels")
    return preprocess


PIXEL_FORMATS = {"gray8": "L", "rgb8": "RGB", "bgr8": "BGR", "rgba8": "RGBA", "bgra8": "BGRA"}
PIXEL_RANGES = {  # name: (scale, mean)
    "nominalrange_0_255": (1.0, 0.0),
    "normalized_0_1": (1 / 255, 0.0),
    "normalized_1_1": (1 / 127.5, 1.0),
    "nominalrange_16_235": (219 / 255, -16.0),
}


def from_metadata(props: Mapping[str, str]) -> Preprocess | None:
    """The preprocessing that a model's metadata_props state, or None.

    `gbp.preprocess` (JSON) counts first, then ONNX's image metadata (MetadataProps.md: Image.BitmapPixelFormat,
    Image.NominalPixelRange, Image.ColorSpaceGamma; keys and values in any case). Raises GBP112 where they cannot be
    used: broken JSON, unknown values, linear light.
    """
    record = props.get("gbp.preprocess")
    if record and record.strip() not in ("", "null"):
        try:
            return _from_json(record, "gbp.preprocess")
        except GbpError as error:
            fix = "state the preprocessing yourself, or write the model's metadata anew"
            raise ModelError("GBP112", error.what, "gbp.preprocess", fix) from error
    image = {key.lower(): value.strip().lower() for key, value in props.items() if key.lower().startswith("image.")}
    pixels, span = image.get("image.bitmappixelformat"), image.get("image.nominalpixelrange")
    if pixels is None and span is None:
        return None
    if image.get("image.colorspacegamma", "srgb") != "srgb":
        what = f"Image.ColorSpaceGamma is {image['image.colorspacegamma']!r}, only sRGB is known here"
        raise ModelError("GBP112", what, "metadata", "state the preprocessing yourself")
    channels = _known("Image.BitmapPixelFormat", pixels or "rgb8", PIXEL_FORMATS)
    scale, mean = _known("Image.NominalPixelRange", span or "nominalrange_0_255", PIXEL_RANGES)
    return Preprocess("onnx-image-metadata", channels=channels, scale=scale, mean=(mean,))


def _known(key: str, value: str, table: Mapping[str, Any]) -> Any:
    if value not in table:
        what = f"{key} is {value!r}, known are: {', '.join(table)}"
        raise ModelError("GBP112", what, "metadata", "state the preprocessing yourself")
    return table[value]


def fit_to_input(preprocess: Preprocess, shape: Sequence[int | str | None], is_integer: bool) -> Preprocess:
    """`preprocess` with layout, size and channels settled for an input of this shape.

    `shape`: [N, C, H, W], [N, H, W, C], or either without N; names, None and numbers below 1 are dynamic. Dynamic
    height and width become `preprocess.size`, else DEFAULT_SIZE (224 x 224). Where the shape leaves the layout open,
    a channel count that fits `preprocess` decides, then NCHW. RGB preprocessing goes onto a 1-channel input as grey
    (mean and std weighted like the grey itself) and onto a 4-channel one with an opaque alpha (mean 0, std 1).

    Raises GBP406 where the input takes no photograph, or not with these channels; GBP409 where size or layout
    contradict it, or where `is_integer` and the numbers are not whole.
    """
    dims = [dim if isinstance(dim, int) and dim > 0 else None for dim in shape]
    text = f"[{', '.join('?' if dim is None else str(dim) for dim in shape)}]"
    if len(dims) not in (3, 4):
        what = f"the input has {len(dims)} axes {text}; a photograph needs [N, C, H, W] or [N, H, W, C]"
        raise InputError("GBP406", what, fix="name the image input with wrt=, or call attribute() with arrays")
    layout = _layout(preprocess, dims[-3:], text)
    channels, height, width = (dims[-3], dims[-2], dims[-1]) if layout == "NCHW" else (dims[-1], dims[-3], dims[-2])
    fitted = _with_channels(preprocess, channels or len(preprocess.channels), text)
    if is_integer:
        _check_integer(fitted)
    return replace(fitted, layout=layout, size=_settled_size(preprocess, height, width, text))


def _layout(preprocess: Preprocess, dims: Sequence[int | None], text: str) -> str:
    """NCHW or NHWC for the last three axes."""
    first, last = dims[0], dims[2]
    if preprocess.layout is not None:
        channels = first if preprocess.layout == "NCHW" else last
        if channels not in (1, 3, 4, None):
            what = f"layout {preprocess.layout} would make {channels} channels of the input {text}"
            raise InputError("GBP409", what, WHERE, "leave the layout out, it is read off the model")
        return preprocess.layout
    static: list[tuple[int | None, str]] = [(first, "NCHW"), (last, "NHWC")]
    fits = [pair for pair in static if pair[0] in (1, 3, 4)] or [pair for pair in static if pair[0] is None]
    if not fits:
        what = f"the input {text} has 1, 3 or 4 channels in no layout: it is not an image of the usual kind"
        raise InputError("GBP406", what, fix="call attribute() with an array of this shape")
    return next((layout for count, layout in fits if count == len(preprocess.channels)), fits[0][1])


def _settled_size(preprocess: Preprocess, height: int | None, width: int | None, text: str) -> tuple[int, int]:
    asked = preprocess.size or DEFAULT_SIZE
    size = height or asked[0], width or asked[1]
    if preprocess.size is not None and size != preprocess.size:
        what = f"size {asked[0]}x{asked[1]} does not fit the input {text}"
        raise InputError("GBP409", what, WHERE, "leave the size out, it is read off the model")
    return size


def _with_channels(preprocess: Preprocess, count: int, text: str) -> Preprocess:
    own = preprocess.channels
    if count == len(own):
        return preprocess
    if len(own) != 3:
        what = f"the input {text} wants {count} channels, the preprocessing makes {len(own)} ({own})"
        raise InputError(
            "GBP406", what, WHERE, f"set channels={'RGB' if count == 3 else 'L' if count == 1 else 'RGBA'}"
        )
    if count == 1:
        weights = LUMA if own == "RGB" else LUMA[::-1]
        mean, std = (_weighted(numbers, weights) for numbers in (preprocess.mean, preprocess.std))
        return replace(preprocess, channels="L", mean=mean, std=std)
    mean = preprocess.mean if len(preprocess.mean) == 1 else (*preprocess.mean, 0.0)
    std = preprocess.std if len(preprocess.std) == 1 else (*preprocess.std, 1.0)
    return replace(preprocess, channels=f"{own}A", mean=mean, std=std)


def _weighted(numbers: tuple[float, ...], weights: NDArray[np.float64]) -> tuple[float, ...]:
    return numbers if len(numbers) == 1 else (float(np.dot(numbers, weights)),)


def _check_integer(preprocess: Preprocess) -> None:
    whole = (
        preprocess.scale == 1
        and set(preprocess.std) == {1.0}
        and all(m.is_integer() for m in map(float, preprocess.mean))
    )
    if not whole:
        what = f"the model's input is integer, {preprocess.name!r} does not give whole numbers"
        raise InputError("GBP409", what, WHERE, "use raw (or raw,mean=128 for a signed input)")


@dataclass(frozen=True, slots=True)
class Frame:
    """What the model saw, and where it lies in the photograph.

    `image`: uint8 [H, W, 3], RGB, before normalisation. `photo_size`: (height, width) of the photograph in pixels.
    `scaled`: (height, width) of the photograph after resizing; `offset`: (top, left) of the frame in it, negative
    where the frame is padded.
    """

    image: NDArray[np.uint8]
    photo_size: tuple[int, int]
    scaled: tuple[int, int]
    offset: tuple[int, int]

    def to_photo(self, array: NDArray[Any]) -> NDArray[np.float32]:
        """A map float [H, W, C] in this frame, put back on the photograph: float32 [photo height, photo width, C].

        Bilinear (with antialiasing where the photograph is the smaller of the two), signs kept, zero for photograph
        pixels whose centre lies outside the frame. NaN and infinite values stay where they are, as NaN.
        """
        if array.ndim != 3 or array.shape[:2] != self.image.shape[:2]:
            height, width = self.image.shape[:2]
            shape = "x".join(str(n) for n in array.shape)
            raise InputError("GBP405", f"the map is {shape}, the frame wants {height}x{width}xC")
        rows, columns = (
            _resampling(self.photo_size[axis], self.scaled[axis], self.offset[axis], array.shape[axis])
            for axis in (0, 1)
        )
        values = array.astype(np.float32)
        broken = ~np.isfinite(values)
        result = _resampled(rows, np.where(broken, np.float32(0), values), columns)
        if broken.any():
            result[_resampled(rows, broken.astype(np.float32), columns) > 0] = np.nan
        return result

    def to_rgb_hwc(self, attribution: NDArray[Any], preprocess: Preprocess) -> NDArray[np.float32]:
        """An attribution in the model's layout, without batch axis, as float32 [H, W, C] in the order of `image`.

        C is 3 (R, G, B; the alpha channel of 4-channel inputs is left out) or 1 for grey inputs.
        """
        array = attribution if preprocess.layout == "NHWC" else np.moveaxis(attribution, 0, -1)
        order = [preprocess.channels.index(name) for name in ("L" if preprocess.channels == "L" else "RGB")]
        rgb: NDArray[np.float32] = np.empty((*array.shape[:2], len(order)), np.float32)
        for place, channel in enumerate(order):
            rgb[:, :, place] = array[:, :, channel]
        return rgb


def _resampled(
    rows: NDArray[np.float32], values: NDArray[np.float32], columns: NDArray[np.float32]
) -> NDArray[np.float32]:
    """rows @ values @ columns^T for each channel; [h, H], [H, W, C], [w, W] -> [h, w, C]."""
    planes = [rows @ values[:, :, channel] @ columns.T for channel in range(values.shape[2])]
    return np.stack(planes, axis=-1) if planes else np.zeros((len(rows), len(columns), 0), np.float32)


def _resampling(photo: int, scaled: int, offset: int, frame: int) -> NDArray[np.float32]:
    """The matrix [photo, frame] that samples a frame at the pixel centres of the photograph, along one axis."""
    step = scaled / photo  # frame pixels for each photograph pixel
    centres = (np.arange(photo) + 0.5) * step - offset
    distance = np.abs(centres[:, None] - (np.arange(frame) + 0.5)[None, :]) / max(1.0, step)
    weights = np.maximum(0.0, 1.0 - distance)
    weights[(centres < 0) | (centres > frame)] = 0.0
    total = weights.sum(axis=1, keepdims=True)
    matrix: NDArray[np.float32] = np.divide(weights, total, out=weights, where=total > 0).astype(np.float32)
    return matrix


def apply(photo: Image.Image, preprocess: Preprocess, dtype: DTypeLike) -> tuple[NDArray[Any], Frame]:
    """The model's input for one photograph, without batch axis, and the frame that says what the model saw.

    `photo`: upright 8-bit RGB (`read_photo`). `preprocess`: from `fit_to_input`. The result is [C, H, W] or
    [H, W, C] of `dtype`; floats are computed in float32. "crop" resizes as torchvision does: short side to
    size / crop_fraction, long side in proportion, antialiased; then the centre. (Both sides are rounded to the nearest,
    which keeps the proportions best; torchvision rounds the long side down, one pixel at most.)

    Raises GBP409 where `preprocess` is not fitted, or its numbers do not fit an integer `dtype`.
    """
    if preprocess.size is None or preprocess.layout is None:
        raise InputError("GBP409", "size and layout are open", WHERE, "call fit_to_input first")
    kind = np.dtype(dtype)
    seen, scaled, offset = _resize(photo, preprocess, preprocess.size)
    if preprocess.channels == "L":
        seen = seen.convert("L").convert("RGB")
    image = np.array(seen)
    planes = _planes(image, preprocess.channels)
    if kind.kind in "iu":
        values = _whole(planes, preprocess, kind)
    else:
        mean, std = (np.array(numbers, np.float32)[:, None, None] for numbers in (preprocess.mean, preprocess.std))
        real = planes.astype(np.float32)
        real *= np.float32(preprocess.scale)
        real -= mean
        real /= std
        values = real.astype(kind, copy=False)
    if preprocess.layout == "NHWC":
        values = np.moveaxis(values, 0, -1)
    return np.ascontiguousarray(values), Frame(image, (photo.height, photo.width), scaled, offset)


def _planes(image: NDArray[np.uint8], channels: str) -> NDArray[np.uint8]:
    """uint8 [C, H, W] with these channels, from RGB (grey RGB for "L"); alpha is opaque."""
    opaque = np.full(image.shape[:2], 255, np.uint8)
    known = {"L": image[:, :, 0], **dict(zip("RGBA", (*np.moveaxis(image, -1, 0), opaque), strict=True))}
    return np.stack([known[name] for name in channels])


def _whole(planes: NDArray[np.uint8], preprocess: Preprocess, kind: np.dtype[Any]) -> NDArray[Any]:
    _check_integer(preprocess)
    limits = np.iinfo(kind)
    mean = np.array(preprocess.mean, np.int64)[:, None, None]
    if (0 - mean).min() < limits.min or (255 - mean).max() > limits.max:
        what = f"pixels 0..255 minus {_short(preprocess.mean)} do not fit the model's {kind} input"
        fix = "use raw,mean=128" if kind == np.int8 else "use raw"
        raise InputError("GBP409", what, WHERE, fix)
    return (planes.astype(np.int64) - mean).astype(kind)


Pair = tuple[int, int]


def _resize(photo: Image.Image, preprocess: Preprocess, size: Pair) -> tuple[Image.Image, Pair, Pair]:
    """The frame as a PIL image, the size of the whole photograph at its scale, and the frame's place in that."""
    from PIL import Image

    filters = {name: Image.Resampling[name.upper()] for name in CHOICES["interpolation"]}
    resample = filters[preprocess.interpolation]
    height, width = size
    if (
        preprocess.resize == "stretch" or (photo.height, photo.width) == size
    ):  # a picture of that size is taken as it is
        return photo.resize((width, height), resample), size, (0, 0)
    if preprocess.resize == "pad":
        ratio = min(height / photo.height, width / photo.width)
        scaled = max(1, min(height, round(photo.height * ratio))), max(1, min(width, round(photo.width * ratio)))
        top, left = (height - scaled[0]) // 2, (width - scaled[1]) // 2
        canvas = Image.new("RGB", (width, height), (preprocess.fill,) * 3)
        canvas.paste(photo.resize((scaled[1], scaled[0]), resample), (left, top))
        return canvas, scaled, (-top, -left)
    scaled = _cover(photo.height, photo.width, *(round(side / preprocess.crop_fraction) for side in size))
    top, left = round((scaled[0] - height) / 2), round((scaled[1] - width) / 2)
    if scaled[0] * scaled[1] <= 64 * max(height * width, 1 << 20):
        whole = photo.resize((scaled[1], scaled[0]), resample)
        return whole.crop((left, top, left + width, top + height)), scaled, (top, left)
    # A photograph thousands of times longer than wide: sample the crop alone, which differs by float32 rounding.
    y, x = photo.height / scaled[0], photo.width / scaled[1]
    box = (left * x, top * y, min((left + width) * x, photo.width), min((top + height) * y, photo.height))
    return photo.resize((width, height), resample, box=box), scaled, (top, left)


def _cover(height: int, width: int, least_height: int, least_width: int) -> Pair:
    """The smallest size of the same aspect ratio that covers the given one, the longer side rounded to the nearest."""
    if least_height * width >= least_width * height:
        return least_height, max(least_width, round(least_height * width / height))
    return max(least_height, round(least_width * height / width)), least_width
