"""Makes maps.json: what the engine's maps looked like when a person last looked at them.

    python tests/golden/make_golden.py

Run it only after a change that is meant to move numbers, look at the pictures, and say so in the commit. For each model
and rule: the map's norm, its extremes, and its magnitude summed over a grid of blocks.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from make_tiny import feeds, make

from gbp_onnx import Explainer, bundled

HERE = Path(__file__).parent
RULES = ("saliency", "deconvnet", "guided")
TINY = ("plain", "residual", "preact_skip", "mobilenet", "fire", "nhwc", "rectifiers")


def summary(attribution: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Norm, extremes and block sums of a map (any rank; blocks over the flattened map)."""
    flat = np.asarray(attribution, np.float64).reshape(-1)
    blocks = [float(np.abs(part).sum()) for part in np.array_split(flat, 64)]
    return {"norm": float(np.linalg.norm(flat)), "min": float(flat.min()), "max": float(flat.max()), "blocks": blocks}


def current() -> dict[str, Any]:
    """The summaries of the maps that the engine makes now."""
    explanation = Explainer(None, RULES, providers="cpu").explain(str(bundled.photo_path()), "Egyptian cat")
    found = {f"squeezenet1_1/{rule}": summary(explanation.attributions[rule]) for rule in RULES}
    for name in TINY:
        model = make(name)
        explainer = Explainer(model, RULES, providers="cpu")
        arrays = feeds(model, batch=1, size=16, seed=0)
        maps = explainer.attribute(arrays[explainer.image_input], 0)
        found |= {f"{name}/{rule}": summary(maps[rule]) for rule in RULES}
    return found


if __name__ == "__main__":
    (HERE / "maps.json").write_text(json.dumps(current(), indent=1) + "\n")
