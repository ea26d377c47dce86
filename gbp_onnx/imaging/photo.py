"""Any picture that Pillow reads, brought to upright 8-bit RGB."""

from __future__ import annotations

import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from gbp_onnx.errors import InputError

__all__ = ["IMAGE_SUFFIXES", "is_picture", "read_photo"]

IMAGE_SUFFIXES = tuple(
    ".avif .bmp .gif .jfif .jpeg .jpg .mpo .pgm .png .ppm .tif .tiff .webp".split()  # noqa: SIM905
)
"""What counts as an image in a folder."""

ORIENTATION = 0x0112  # EXIF 2.32, 4.6.4 A
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Pillow would hand these to another program (Ghostscript) or to the window system.
NOT_DECODED_HERE = ("EPS", "WMF")

logging.getLogger("PIL").addHandler(logging.NullHandler())


def read_photo(source: str | os.PathLike[str] | Image.Image | NDArray[Any]) -> Image.Image:
    """The picture as an upright 8-bit RGB image, detached from its file and without metadata.

    `source`: a file; a PIL image (its current frame); a uint8 array [H, W], [H, W, 1], [H, W, 3] or [H, W, 4].
    Orientation (EXIF) is applied; alpha and transparent colours lie over white; 16-bit and wider integers are
    scaled by the 16-bit range, floats by the smallest of the ranges 0..1, 0..255, 0..65535 that holds them (else by
    their own); of an animation or a multi-page file the first frame counts; colour profiles are not applied,
    except that CIE L*a*b* becomes sRGB.

    Raises GBP401 (missing, unreadable, a folder), GBP402 (not an image), GBP403 (damaged or truncated), GBP404 (more
    pixels than PIL.Image.MAX_IMAGE_PIXELS, or none), GBP405 (an array of another shape or type), each with the
    file's name. Thread-safe; Pillow's own warnings do not come through.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, Image.Image):
        where = str(getattr(source, "filename", "") or "the PIL image")
        with _quiet():
            return _decode(source, where)
    if not isinstance(source, str | os.PathLike):
        raise InputError(
            "GBP405",
            f"a picture cannot be read from {type(source).__name__}",
            fix="pass a path, a PIL image or a uint8 array [H, W, 3]",
        )
    path = Path(source)
    if path.is_dir():
        raise InputError("GBP401", "it is a folder", str(path), "name an image file")
    if path.exists() and not path.is_file():
        raise InputError("GBP401", "it is not a regular file", str(path), "save the picture to a file first")
    try:
        handle = path.open("rb")
    except (OSError, ValueError) as error:
        why = "there is no such file" if isinstance(error, FileNotFoundError) else f"cannot read it ({error})"
        raise InputError("GBP401", why, str(path), "check the path and its permissions") from error
    with handle, _quiet():
        return _decode(_open(handle, path), str(path))


def is_picture(path: str | os.PathLike[str]) -> bool:
    """Whether Pillow knows the file's format; nothing is decoded."""
    try:
        with _quiet(), Image.open(path):
            return True
    except Exception:  # plugins raise many kinds for what is none of theirs
        return False


def _open(handle: Any, path: Path) -> Image.Image:
    try:
        return Image.open(handle)
    except Image.DecompressionBombError as error:
        raise _bomb(str(error), str(path)) from error
    except UnidentifiedImageError as error:
        what = "the file is empty" if path.stat().st_size == 0 else "not an image in any format that Pillow reads"
        raise InputError("GBP402", what, str(path), "convert it to PNG or JPEG") from error
    except OSError as error:
        raise InputError("GBP401", f"cannot read it ({error})", str(path), "check the file") from error
    except Exception as error:  # a plugin that stumbles over the header: struct.error, ValueError, ...
        raise _damaged(error, str(path)) from error


def _decode(image: Image.Image, where: str) -> Image.Image:
    if image.format in NOT_DECODED_HERE:
        raise InputError("GBP402", f"{image.format} files are programs, not pixels", where, "convert it to PNG")
    if image.width < 1 or image.height < 1:
        raise InputError("GBP404", f"the image has no pixels ({image.width} x {image.height})", where)
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise _bomb(f"{image.width} x {image.height} pixels, the limit is {limit}", where)
    try:
        image.load()
    except Image.DecompressionBombError as error:
        raise _bomb(str(error), where) from error
    except Exception as error:  # OSError, SyntaxError, struct.error, EOFError, zlib.error, ... by plugin
        raise _damaged(error, where) from error
    turn = UPRIGHT.get(_orientation(image))
    try:
        rgb = _to_rgb(image)
    except Exception as error:
        what = f"pixels of the kind {image.mode!r} cannot be turned into RGB ({error})"
        raise InputError("GBP402", what, where, "convert it to PNG or JPEG") from error
    if turn is not None:
        rgb = rgb.transpose(turn)
    rgb.info = {}  # an orientation that stays behind would be applied again by the next reader
    return rgb


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # broken EXIF raises whatever its bytes lead to; the picture is still there
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB, with whatever is transparent over white."""
    mode = image.mode
    if mode == "LAB":
        return _lab_to_rgb(image)
    if mode == "F" or mode.startswith("I"):
        return _wide_to_rgb(image)
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours).convert("RGB")
    return image.convert("RGB")


def _wide_to_rgb(image: Image.Image) -> Image.Image:
    """Grey with more than 8 bits: by the 16-bit range where that holds the values."""
    values = np.nan_to_num(np.asarray(image).astype(np.float64), posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    tops = (1.0, 255.0, 65535.0) if image.mode == "F" else (65535.0,)
    top = next((top for top in tops if low >= 0.0 and high <= top), None)
    grey = values / top if top else (values - low) / ((high - low) or 1.0)
    pixels = np.rint(grey * 255.0).astype(np.uint8)
    clear = image.info.get("transparency")  # PNG: one grey value that stands for "nothing here"
    if isinstance(clear, int):
        pixels[values == clear] = 255
    return Image.fromarray(pixels).convert("RGB")


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, *profiles, outputMode="RGB")
    if converted is None:
        raise ValueError("no colour transform")
    return converted


def _from_array(array: NDArray[Any]) -> Image.Image:
    fix = "pass uint8 [H, W], [H, W, 1], [H, W, 3] (RGB) or [H, W, 4] (RGBA)"
    shape = "x".join(str(n) for n in array.shape)
    if array.dtype != np.uint8:
        raise InputError("GBP405", f"a picture array must be uint8, this one is {array.dtype} [{shape}]", fix=fix)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise InputError("GBP405", f"a picture array has one of the shapes below, not [{shape}]", fix=fix)
    if array.size == 0:
        raise InputError("GBP404", f"the array has no pixels [{shape}]", fix=fix)
    pixels = array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array
    return _to_rgb(Image.fromarray(np.ascontiguousarray(pixels)))


def _bomb(what: str, where: str) -> InputError:
    return InputError("GBP404", f"the image is too large: {what.rstrip('.')}", where, "scale it down first")


def _damaged(error: Exception, where: str) -> InputError:
    what = f"the image is damaged or truncated ({error or type(error).__name__})"
    return InputError("GBP403", what, where, "fetch or export the file again")


_lock = threading.Lock()
_readers = 0


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the warnings of Pillow's modules, and only those, while any thread is inside.

    `warnings.catch_warnings` alone would not do: it swaps the whole process's filters, and two threads that overlap
    put each other's back.
    """
    global _readers
    if getattr(sys.flags, "context_aware_warnings", False):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            yield
        return
    with _lock:
        _readers += 1
        warnings.filterwarnings("ignore", module=r"PIL\.")  # first in the list again, never in it twice
        ours = warnings.filters[0]
    try:
        yield
    finally:
        with _lock:
            _readers -= 1
            if _readers == 0:
                with suppress(ValueError):  # another catch_warnings may have put its own list in place
                    warnings.filters.remove(ours)  # type: ignore[attr-defined]
