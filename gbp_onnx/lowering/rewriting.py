"""A rewrite: what it turns into what, where, and its switch. A lowering is a tuple of them, applied in order."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import onnx

from gbp_onnx.lowering.draft import Draft, is_backward, origin_of

__all__ = ["Rewrite", "apply"]


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A rewrite of the nodes that end in one operator.

    `rule(draft, node)` puts something in place of the node's outputs and returns True, or returns False where its
    condition does not hold; its docstring says before -> after.
    """

    name: str
    ops: tuple[str, ...]
    rule: Callable[[Draft, onnx.NodeProto], bool]


def apply(g: Draft, rewrites: Sequence[Rewrite], without: Collection[str] = ()) -> dict[str, int]:
    """Apply rewrites in order, each to the backward nodes from the output towards the image; how often each did."""
    done: dict[str, int] = {}
    for rewrite in rewrites:
        if rewrite.name in without:
            continue
        for node in [n for n in g.nodes if n.op_type in rewrite.ops and is_backward(n)]:
            if not any(g.readers(o) or g.is_kept(o) for o in node.output if o and g.now(o) == o):
                continue  # nothing needs it any more
            g.origin = origin_of(node)
            if rewrite.rule(g, node):
                done[rewrite.name] = done.get(rewrite.name, 0) + 1
        g.origin = ""
    return done
