"""Small records that several floors share. No ONNX, no runtime, no pixels."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Prediction", "Preprocess"]


@dataclass(frozen=True, slots=True)
class Preprocess:
    """How a photograph becomes the model's input: ``x = (pixels * scale - mean) / std``.

    `pixels` are 0..255, resized and cropped; `mean` and `std` are per channel **in the order of `channels`**
    (one number serves all channels). `resize`: "crop" scales the short side to size / `crop_fraction` and takes the
    centre, "stretch" ignores the aspect ratio, "pad" fits the whole photograph and fills up with `fill`.
    """

    name: str
    channels: str = "RGB"  # "RGB", "BGR", "L", "RGBA"
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    resize: str = "crop"  # "crop", "stretch", "pad"
    crop_fraction: float = 0.875
    interpolation: str = "bilinear"  # "nearest", "bilinear", "bicubic", "lanczos"
    fill: int = 0
    layout: str | None = None  # "NCHW", "NHWC"; None: read off the model's input
    size: tuple[int, int] | None = None  # (height, width); None: read off the model's input

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Prediction:
    """One class of the output: its index, label (or None) and value in the output."""

    index: int
    label: str | None
    score: float
