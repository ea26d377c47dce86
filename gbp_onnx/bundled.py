"""Where the bundled model, photograph and class names lie.

A wheel carries them in `gbp_onnx/_bundled/`; in a checkout (also an editable install) they are in `models/`, beside
the package.
"""

from __future__ import annotations

from pathlib import Path

from gbp_onnx.errors import ModelError

__all__ = ["labels_path", "model_path", "notice_path", "photo_path"]

_PACKAGE = Path(__file__).resolve().parent
_FOLDERS = (_PACKAGE / "_bundled", _PACKAGE.parent / "models")


def model_path() -> Path:
    """The bundled model: SqueezeNet 1.1, ImageNet, with preprocessing and labels in its metadata.

    Raises ModelError GBP101 where the installation lacks it.
    """
    return _find("squeezenet1_1.onnx")


def photo_path() -> Path:
    """The bundled photograph: Chelsea the cat, PNG, 451 x 300 pixels. Raises GBP101 where it is missing."""
    return _find("chelsea.png")


def labels_path() -> Path:
    """The 1000 ImageNet class names, UTF-8, one a line, in the order of the output. Raises GBP101 if missing."""
    return _find("imagenet_labels.txt")


def notice_path() -> Path:
    """The notices and licences of the bundled files. Raises GBP101 where it is missing."""
    return _find("NOTICE")


def _find(name: str) -> Path:
    for folder in _FOLDERS:
        if (folder / name).is_file():
            return folder / name
    places = " or ".join(str(folder) for folder in _FOLDERS)
    raise ModelError(
        "GBP101", f"the bundled file is missing (looked in {places})", name, "install gbp-onnx again, or name a file"
    )
