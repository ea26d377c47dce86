"""Copies of a model for other sizes of image; photographs made of one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from PIL import Image, ImageEnhance

PHOTO_SIZES = ((500, 375), (375, 500), (640, 480))


def resized(path: Path, size: int, folder: Path) -> Path:
    """A copy whose image input is `size` pixels high and wide: it runs where the network is convolutional up to a
    global pooling. Weights in files of their own are not followed.
    """
    model = onnx.load(path)
    stored = {t.name for t in model.graph.initializer}
    image = next(
        i for i in model.graph.input if i.name not in stored and len(i.type.tensor_type.shape.dim) == 4
    ).type.tensor_type.shape
    first = 1 if image.dim[3].dim_value in (1, 3) else 2  # NHWC, else NCHW
    for axis in (first, first + 1):
        image.dim[axis].dim_value = size
    del model.graph.value_info[:]
    made = folder / f"{path.stem}-{size}.onnx"
    made.write_bytes(model.SerializeToString())
    return made


def write_photographs(source: Path, folder: Path, count: int) -> None:
    """So many different JPEG files of usual sizes, cut from one photograph: the same pixels every time."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    with Image.open(source) as opened:
        photo = opened.convert("RGB")
    for k in range(count):
        width, height = PHOTO_SIZES[k % len(PHOTO_SIZES)]
        scale = random.uniform(0.6, 0.95) * min(photo.width / width, photo.height / height)
        w, h = int(width * scale), int(height * scale)
        left, top = int(random.integers(photo.width - w + 1)), int(random.integers(photo.height - h + 1))
        cut = photo.resize((width, height), Image.Resampling.BICUBIC, (left, top, left + w, top + h))
        ImageEnhance.Brightness(cut).enhance(random.uniform(0.7, 1.2)).save(folder / f"{k:04d}.jpg", quality=90)
