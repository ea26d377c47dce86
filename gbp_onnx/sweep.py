"""The reverse sweep. It knows no operator, no rule and no runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from gbp_onnx.canonical.view import View
from gbp_onnx.errors import OperatorError, Reason
from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.reader import FLOAT_TYPES, Node, Tensor
from gbp_onnx.rules import Overrides
from gbp_onnx.vjp import Refusal, Refused, Stop, UnknownShape, derivative_of
from gbp_onnx.vjp.live import live_tensors
from gbp_onnx.vjp.sequence import add

__all__ = ["backpropagate"]


def backpropagate(
    view: View, op: Emitter, seeds: Mapping[str, Tensor], wrt: Sequence[Tensor], rules: Overrides, prefix: str = "grad"
) -> dict[str, Tensor]:
    """Emit the cotangents of `wrt`, given those of the tensors named in `seeds`; a tensor that none depends on is left
    out.

    `rules` overrides the derivative table. New tensors are called ``<prefix>/<forward tensor>``. Raises OperatorError
    with every obstacle.
    """
    op.sweep = partial(backpropagate, rules=rules)
    live = live_tensors(view, seeds, wrt)
    arrived: dict[str, list[Tensor]] = {name: [ct] for name, ct in seeds.items()}
    reasons: list[tuple[Reason, bool]] = []  # and whether it may only follow from another one
    for node in reversed(view.nodes):
        cts = [
            None if t is None else _accumulate(op, arrived.get(t.name, ()), f"{prefix}/{t.name}") for t in node.outputs
        ]
        wanted = [t is not None and t.name in live for t in node.inputs]
        if not any(ct is not None for ct in cts) or not (any(wanted) or node.captures & live):
            continue
        op.vjp_of, op.wanted = node.name, tuple(wanted)
        try:
            contributions = _contributions(op, node, cts, wanted, rules)
        except Refusal as why:
            reasons.append((_reason(node, str(why)), isinstance(why, UnknownShape)))
            # The sweep goes on with a stand-in, so that every obstacle is reported at once.
            stand_in = next(ct for ct in cts if ct is not None)
            contributions = [stand_in if w else None for w in wanted]
        except OperatorError as inside:  # obstacles in a body
            reasons += [(reason, False) for reason in reversed(inside.reasons)]
            stand_in = next(ct for ct in cts if ct is not None)
            contributions = [stand_in if w else None for w in wanted]
        for tensor, ct in zip(node.inputs, contributions, strict=True):
            if tensor is not None and ct is not None:
                arrived.setdefault(tensor.name, []).append(ct)
    op.vjp_of = ""
    if reasons:
        causes = [reason for reason, follows in reversed(reasons) if not follows]
        raise OperatorError.of(tuple(causes or [reason for reason, _ in reversed(reasons)]))
    sums = {t.name: _accumulate(op, arrived.get(t.name, ()), f"{prefix}/{t.name}") for t in wrt}
    return {name: ct for name, ct in sums.items() if ct is not None}


def _contributions(
    op: Emitter, node: Node, cts: Sequence[Tensor | None], wanted: Sequence[bool], rules: Overrides
) -> list[Tensor | None]:
    """The cotangents that `node` sends to those of its inputs that want one."""
    entry = derivative_of(node)
    if entry is None:
        raise Refusal("no derivative is known for this operator")
    if isinstance(entry, Refused):
        raise Refusal(entry.why)
    if isinstance(entry, Stop):
        return [None] * len(node.inputs)
    further = [t for t, ct in zip(node.outputs[1:], cts[1:], strict=True) if t is not None and ct is not None]
    if not entry.all_outputs and any(op.elem_type(t) in FLOAT_TYPES for t in further):
        raise Refusal(f"the gradient through its further output {further[0].name!r} is not known")
    if not entry.all_outputs and cts[0] is None:
        return [None] * len(node.inputs)  # only a further output is used, and it carries no gradient
    rule = rules.get((node.domain, node.op), entry.rule)
    made = rule(op, node, tuple(cts) if entry.all_outputs else cts[0])
    chosen: list[Tensor | None] = [None] * len(wanted)
    for index, ct in enumerate(made[: len(wanted)]):  # optional inputs at the end may be left out
        if wanted[index]:
            chosen[index] = ct() if callable(ct) else ct
    return chosen


def _accumulate(op: Emitter, contributions: Sequence[Tensor], name: str) -> Tensor | None:
    """The sum of what arrived at a tensor, under its final name."""
    if not contributions:
        return None
    total, *others = contributions
    for other in others:
        total = add(op, total, other)
    op.name(total, name)
    return total


def _reason(node: Node, why: str) -> Reason:
    code = "GBP201" if derivative_of(node) is None else "GBP202"
    return Reason(code, f"{node.domain}::{node.op}" if node.domain else node.op, node.name, why)
