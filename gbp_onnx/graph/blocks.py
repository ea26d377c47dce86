"""ONNX Runtime's blocked layout NCHWc (domain com.microsoft.nchwc), as far as the file tells it.

A blocked tensor has the shape [N, C, H, W], C rounded up to whole blocks, and lies in memory as [N, C/b, H, W, b]. The
block size b is that of the machine that optimised the file, and it must be that of the machine that runs it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import onnx

__all__ = ["BLOCKED", "BLOCK_SIZES", "block_size", "blocked_tensors"]

BLOCKED = "com.microsoft.nchwc"
BLOCK_SIZES = (8, 16)


def blocked_tensors(nodes: Sequence[onnx.NodeProto]) -> set[str]:
    """Names of the tensors in blocked layout: made by blocked operators, or by others from such tensors (Concat...)."""
    found: set[str] = set()
    for node in nodes:
        if node.op_type == "ReorderOutput" and node.domain == BLOCKED:
            continue
        if node.domain == BLOCKED or not found.isdisjoint(node.input):
            found.update(node.output)
    return found


def block_size(
    nodes: Sequence[onnx.NodeProto], dims: Mapping[str, Sequence[int]], blocked: Collection[str]
) -> int | None:
    """The block size that the weights' shapes (`dims`, by name) leave; None where they leave several."""
    possible = list(BLOCK_SIZES)
    for node in nodes:
        if node.domain != BLOCKED or node.op_type != "Conv" or len(node.input) < 2 or node.input[1] not in dims:
            continue
        made, read = dims[node.input[1]][:2]
        group = next((a.i for a in node.attribute if a.name == "group"), 1)
        possible = [
            b
            for b in possible
            if made % b == 0 and (group > 1 or (read % b == 0 if node.input[0] in blocked else read < b))
        ]
    return possible[0] if len(possible) == 1 else None
