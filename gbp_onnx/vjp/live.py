"""Where gradients flow: past no operator that stops them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gbp_onnx.canonical.view import View
from gbp_onnx.graph.reader import Tensor
from gbp_onnx.vjp.registry import Stop, derivative_of

__all__ = ["live_tensors"]


def live_tensors(view: View, seeds: Iterable[str], wrt: Sequence[Tensor]) -> set[str]:
    """Names of the tensors through which a gradient flows from the seeded ones to `wrt`."""
    stops = [n.index for n in view.nodes if isinstance(derivative_of(n), Stop)]
    return view.between(wrt, [view.graph.tensors[name] for name in seeds], stops)
