"""The form of the backward part that an execution provider likes: the same maps from other nodes.

Derivatives know no provider; what they emit is the portable form. A lowering is a list of rewrites of that form, each
with a condition, a before -> after, and a switch; where no condition holds, the portable nodes stay.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx

from gbp_onnx.errors import InputError
from gbp_onnx.graph.assemble import set_metadata
from gbp_onnx.lowering.cpu import CPU
from gbp_onnx.lowering.draft import Draft
from gbp_onnx.lowering.rewriting import Rewrite, apply
from gbp_onnx.runtime.providers import choose_providers

__all__ = ["LOWERINGS", "check_lowering", "liked_by", "lower"]

LOWERINGS = ("portable", "cpu", "cuda", "auto")
REWRITES: dict[str, tuple[Rewrite, ...]] = {"cpu": CPU}


def check_lowering(name: str) -> str:
    """The form that a name stands for here: "auto" is what suits this machine. Raises GBP410."""
    if name not in LOWERINGS:
        raise InputError("GBP410", f"{name!r} is no lowering", "lowering", f"choose from {', '.join(LOWERINGS)}")
    return liked_by(choose_providers("auto").names[0]) if name == "auto" else name


def liked_by(provider: str) -> str:
    """The form that one of ONNX Runtime's providers runs fastest."""
    return {"CPUExecutionProvider": "cpu", "CUDAExecutionProvider": "cuda"}.get(provider, "portable")


def lower(model: onnx.ModelProto, form: str, *, without: Collection[str] = ()) -> onnx.ModelProto:
    """Rewrite the backward part of a model of `build`, in place, to a form; the model. `without`: rewrites to leave
    out.
    """
    if REWRITES.get(form):
        draft = Draft(model)
        apply(draft, REWRITES[form], without)
        draft.finish()
    set_metadata(model, {"gbp.lowering": form})
    return model
