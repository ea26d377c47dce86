"""How like another image's output this one is: the cosine between the two."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gbp_onnx.errors import InputError
from gbp_onnx.targets.scalar import Scalar
from gbp_onnx.targets.scene import Scene

__all__ = ["cosine_and_gradient", "similar_to"]

Vector = NDArray[np.float64]


def cosine_and_gradient(e: Vector, r: Vector) -> tuple[float, Vector]:
    """c = e.r / (|e| |r|), and dc/de = (r / |r| - c e / |e|) / |e|. Raises GBP407 where a vector is zero."""
    lengths = np.linalg.norm(e), np.linalg.norm(r)
    if not min(lengths) > 0 or not np.isfinite(lengths).all():
        what = "an embedding is zero or not finite: it has no direction to compare"
        raise InputError("GBP407", what, "target", "compare other images")
    c = float(np.vdot(e, r) / (lengths[0] * lengths[1]))
    return c, np.asarray((r / lengths[1] - c * e / lengths[0]) / lengths[0])


def similar_to(scene: Scene, reference: Scene, name: str) -> Scalar:
    """The scalar of a similarity target: the cosine of the whole outputs of the two images.

    The cosine of an embedding with itself is at its maximum, where the derivative is zero.
    """
    own, other = scene.values, reference.values
    if own.shape != other.shape:
        what = f"the two images' outputs have shapes {list(own.shape)} and {list(other.shape)}"
        raise InputError("GBP407", what, "target", "compare images that the model sees at one size")
    value, gradient = cosine_and_gradient(own.ravel(), other.ravel())
    same = "the two outputs are equal: the cosine is at its maximum, and its derivative is rounding noise"
    return Scalar(
        output=scene.output,
        seed=gradient.reshape(own.shape),
        target=f"similar:{name}",
        label=None,
        name=f"similarity to {name}",
        score=value,
        value=value,
        as_it_is=True,
        notes=(same,) if value > 1 - 1e-6 else (),
    )
