"""Concats that grow, as DenseNet's: every layer reads all before it, every Concat begins as the one before.

Their cotangents come back in pieces, one for every Concat that holds a tensor, and are summed piece by piece: of L
layers, L * L / 2 additions. Taken as Concat(the one before, what is new), each needs one cut and one addition:

    T_j = own_j + head(T_j+1);   head(T_j), the new tensors' cotangents = Split(T_j)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx

from gbp_onnx.graph.nodes import attributes
from gbp_onnx.lowering.draft import Draft, is_backward, origin_of
from gbp_onnx.lowering.patterns import terms_of

__all__ = ["nest_concats"]

_FEWEST = 3  # Concats in a chain: below, nothing is saved


@dataclass(frozen=True, slots=True)
class _Level:
    """A Concat of a chain: its inputs, their channels, and the Split of its cotangent."""

    parts: tuple[str, ...]
    channels: tuple[int, ...]
    split: onnx.NodeProto


def nest_concats(g: Draft, node: onnx.NodeProto) -> bool:
    """Split(own_1), Split(own_2), ... of Concats that grow  ->  Split(own_1 + head(own_2 + ...)).

    `node`: the Split of the longest Concat of a chain.
    """
    chain = _chain(g, node)
    if len(chain) < _FEWEST:
        return False
    sums = _sums(g, chain)
    if sums is None:
        return False
    total, news = g.now(chain[-1].split.input[0]), dict[str, str]()
    for below, level in reversed(list(zip([None, *chain[:-1]], chain, strict=True))):
        kept = 0 if below is None else len(below.parts)
        new = level.channels[kept:]
        sizes = [*([sum(level.channels[:kept])] if below is not None else []), *new]
        shape = g.shape(total) or ()
        pieces = [total]
        if len(sizes) > 1:
            shapes = [(shape[0], size, *shape[2:]) for size in sizes]
            pieces = g.emit_many("Split", [total, g.constant(sizes, "int64")], shapes, axis=1)
        if below is not None:
            head, *pieces = pieces
            total = g.emit("Add", [below.split.input[0], head], g.shape(head))
        news.update(zip(level.parts[kept:], pieces, strict=True))
    for part, (root, others) in sums.items():
        made = news[part]
        for other in others:
            made = g.emit("Add", [other, made], g.shape(made))
        g.replace(root, made)
    return True


def _chain(g: Draft, node: onnx.NodeProto) -> list[_Level]:
    """The levels from the shortest Concat to that of `node`, each beginning with all of the one before.

    Those of one sweep: what they send to the first part is one sum.
    """
    last = _level(g, node)
    if last is None:
        return []
    makers = [g.node(term, "Split") for term in terms_of(g, _sum_with(g, node.output[0]))]
    splits = {id(n): n for n in makers if n is not None and is_backward(n)}
    levels = sorted((v for n in splits.values() if (v := _level(g, n)) is not None), key=lambda v: len(v.parts))
    chain = [v for v in levels if last.parts[: len(v.parts)] == v.parts]
    lengths = [len(v.parts) for v in chain]
    longer = any(v.parts[: len(last.parts)] == last.parts and len(v.parts) > len(last.parts) for v in levels)
    return chain if not longer and len(set(lengths)) == len(lengths) else []


def _sum_with(g: Draft, name: str) -> str:
    """The whole sum that a term belongs to."""
    root = g.now(name)
    while g.only_read_by_one(root) and (reader := g.readers(root)[0]).op_type == "Add":
        root = reader.output[0]
    return root


def _level(g: Draft, node: onnx.NodeProto) -> _Level | None:
    concat = g.named.get(origin_of(node))
    if concat is None or concat.op_type != "Concat" or attributes(concat)["axis"] != 1 or node.op_type != "Split":
        return None
    spaces = [g.space(o) for o in node.output]
    if len(spaces) != len(concat.input) or g.space(node.input[0]) is None or attributes(node)["axis"] != 1:
        return None
    channels = tuple(s[0] for s in spaces if s is not None)
    whole = len(channels) == len(spaces) and len(set(concat.input)) == len(concat.input)
    return _Level(tuple(concat.input), channels, node) if whole else None


def _sums(g: Draft, chain: Sequence[_Level]) -> dict[str, tuple[str, list[str]]] | None:
    """For each part the sum of its cotangents, and the terms of it that come from elsewhere; None where one is not a
    sum of its own.
    """
    found: dict[str, tuple[str, list[str]]] = {}
    for index, part in enumerate(chain[-1].parts):
        pieces = {g.now(level.split.output[index]) for level in chain if index < len(level.parts)}
        root = _sum_with(g, next(iter(sorted(pieces))))
        terms = terms_of(g, root)
        if len(terms) != len(set(terms)) or not pieces <= set(terms):
            return None
        found[part] = root, [t for t in terms if t not in pieces]
    return found
