"""The form of the backward part that an execution provider likes: the same maps from other nodes.

Derivatives know no provider; what they emit is the portable form. A lowering is a list of rewrites of that form, each
with a condition, a before -> after, and a switch; where no condition holds, the portable nodes stay.
"""

from __future__ import annotations

import json
from collections.abc import Collection

import onnx

from gbp_onnx.errors import InputError
from gbp_onnx.graph.assemble import set_metadata
from gbp_onnx.lowering.cpu import CPU
from gbp_onnx.lowering.cuda import CUDA
from gbp_onnx.lowering.draft import Draft
from gbp_onnx.lowering.rewriting import Rewrite, apply
from gbp_onnx.runtime.providers import CPU as CPU_PROVIDER
from gbp_onnx.runtime.providers import CUDA as CUDA_PROVIDER
from gbp_onnx.runtime.providers import choose_providers

__all__ = ["LOWERINGS", "REWRITES", "check_lowering", "liked_by", "lower"]

LOWERINGS = ("portable", "cpu", "cuda", "auto")
"""What callers may name."""
REWRITES: dict[str, tuple[Rewrite, ...]] = {"cpu": CPU, "cuda": CUDA}
"""The rewrites of each form, in order."""


def check_lowering(name: str) -> str:
    """The form that a name stands for here: "auto" is what suits this machine. Raises GBP410."""
    if name not in LOWERINGS:
        raise InputError("GBP410", f"{name!r} is no lowering", "lowering", f"choose from {', '.join(LOWERINGS)}")
    return liked_by(choose_providers("auto").names[0]) if name == "auto" else name


def liked_by(provider: str) -> str:
    """The form that one of ONNX Runtime's providers runs fastest."""
    return {CPU_PROVIDER: "cpu", CUDA_PROVIDER: "cuda"}.get(provider, "portable")


def lower(model: onnx.ModelProto, form: str, *, without: Collection[str] = ()) -> onnx.ModelProto:
    """Rewrite the backward part of a portable model of `build`, in place, to a form; the model.

    `form`: "portable", "cpu" or "cuda". `without`: names of rewrites to leave out (see `REWRITES`). Metadata
    ``gbp.lowering`` says the form, ``gbp.rewrites`` how often each rewrite found its place (a JSON object), and how
    many elements of weights are turned or cut copies of the source's (``weights``), which a session makes for itself.

    The maps are those of the portable form within float32 rounding, in float32 and while cotangents are smaller than
    2^60 and no activation is infinite or NaN; values of rectifiers below 2^-66 (2^-40 beneath a cap) may count as 0,
    and those of a pool that lie below 2^-66 as equal. Shapes that are open, but for the batch, leave the portable nodes
    where they are. Where a row of a classifier is looked up ("rows", "classifiers"), a target out of range is an error
    of the runtime and no map of zeros, and no seed can stand in the target's place.
    """
    done: dict[str, int] = {}
    if form in REWRITES:
        draft = Draft(model)
        done = apply(draft, REWRITES[form], without)
        draft.finish()
        done["weights"] = draft.copies
    set_metadata(model, {"gbp.lowering": form, "gbp.rewrites": json.dumps(done)})
    return model
