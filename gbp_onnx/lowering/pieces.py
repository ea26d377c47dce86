"""The cotangent of a Concat goes back in pieces: a Split leaves the blocked layout, so it is avoided, or put off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx

from gbp_onnx.graph.nodes import attributes
from gbp_onnx.lowering.blocked import fits, interleave, relu
from gbp_onnx.lowering.draft import Draft
from gbp_onnx.lowering.patterns import Gate, emit_mask, gate_of, pool_of, terms_of, transposed_of
from gbp_onnx.lowering.pools import Zero, pool_phases
from gbp_onnx.lowering.turned import cut_channels

__all__ = ["cut_split"]


def cut_split(g: Draft, node: onnx.NodeProto) -> bool:
    """Split(ConvTranspose(c, W))  ->  ConvTranspose(c, W[:, piece]) for each piece.

    Split(pool derivative), each piece gated        ->  the gate over the whole, cut in NHWC, where a cut is a copy.
    Split(a + b), each piece gated by its own y     ->  Split(gate of Concat(y) over a + b)
    """
    sizes = [s[1] if (s := g.shape(o)) is not None and len(s) == 4 else None for o in node.output]
    if attributes(node).get("axis") != 1 or not all(isinstance(s, int) and s for s in sizes):
        return False
    if g.space(node.input[0]) is None:
        return False
    terms = terms_of(g, node.input[0])
    windows = [transposed_of(g, t) for t in terms]
    pieces = [int(s) for s in sizes if s is not None]
    if len(terms) == 1 and windows[0] is not None and windows[0].group == 1:
        return _cut_weight(g, node, pieces)
    gates = _gates(g, node)
    if gates is None:
        return False
    if len(terms) == 1 and pool_of(g, terms[0]) is not None:
        return _cut_pool(g, terms[0], gates, pieces)
    return _gate_whole(g, node, gates, pieces)


def _cut_weight(g: Draft, node: onnx.NodeProto, pieces: Sequence[int]) -> bool:
    source = g.node(node.input[0], "ConvTranspose")
    if source is None:
        return False
    begin, attrs = 0, attributes(source)
    for output, size in zip(node.output, pieces, strict=True):
        if g.readers(output) or g.is_kept(output):
            part = cut_channels(g, g.now(source.input[1]), begin, begin + size)
            g.replace(output, g.emit("ConvTranspose", [source.input[0], part], g.shape(output), **attrs))
        begin += size
    return True


@dataclass(frozen=True, slots=True)
class _Gates:
    """The same gate over every piece: together one gate over the Concat `y`, or a clamp without a mask."""

    whole: Gate
    ends: tuple[str, ...]


def _gates(g: Draft, node: onnx.NodeProto) -> _Gates | None:
    """The gates that alone read the pieces of a Split, where they gate on the parts of one forward Concat."""
    found, ends = [], []
    for output in node.output:
        end = _gate_over(g, output)
        gate = None if end is None else gate_of(g, end)
        if end is None or gate is None or gate.ct != g.now(output):
            return None
        found.append(gate)
        ends.append(end.output[0])
    kinds = {(gate.cap, gate.clamps) for gate in found}
    parts = [gate.y for gate in found]
    if len(kinds) == 1 and not any(parts):
        return _Gates(replace(found[0], ct=g.now(node.input[0])), tuple(ends))
    joined = [n for n in g.readers(parts[0] or "") if n.op_type == "Concat" and g.is_forward(n.output[0])]
    whole = next((n.output[0] for n in joined if list(n.input) == parts and attributes(n)["axis"] == 1), None)
    if len(kinds) != 1 or whole is None or g.space(whole) != g.space(node.input[0]):
        return None
    return _Gates(replace(found[0], ct=g.now(node.input[0]), y=whole), tuple(ends))


def _gate_over(g: Draft, piece: str) -> onnx.NodeProto | None:
    """The Where that alone reads a piece, perhaps through its clamp; or the clamp alone."""
    if not g.only_read_by_one(piece):
        return None
    reader = g.readers(piece)[0]
    if reader.op_type == "Relu" and g.only_read_by_one(reader.output[0]):
        last = g.readers(reader.output[0])[0]
        reader = last if last.op_type == "Where" and gate_of(g, last) else reader
    return reader if reader.op_type in ("Where", "Relu") else None


def _cut_pool(g: Draft, term: str, gates: _Gates, pieces: list[int]) -> bool:
    pool, size = pool_of(g, term), g.space(term)
    y = gates.whole.y
    if pool is None or size is None or gates.whole.cap is not None or y not in (None, pool.y) or not fits(g, term):
        return False
    phases = None if pool.strides == (1, 1) else pool_phases(g, pool, Zero.FIRST if y is None else Zero.DROP)
    if phases is None:
        return False
    if gates.whole.clamps:
        phases = {at: relu(g, phase) for at, phase in phases.items()}
    for end, part in zip(gates.ends, interleave(g, phases, size[1:], pieces), strict=True):
        g.replace(end, part)
    return True


def _gate_whole(g: Draft, node: onnx.NodeProto, gates: _Gates, pieces: list[int]) -> bool:
    whole, shape = gates.whole, g.shape(node.input[0])
    if whole.y is None or not fits(g, node.input[0]):
        return False
    ct = g.emit("Relu", [whole.ct], shape) if whole.clamps else whole.ct
    gated = g.emit("Where", [emit_mask(g, whole.y, whole.cap), ct, g.constant(0.0)], shape)
    parts = g.emit_many("Split", [gated, *node.input[1:]], [g.shape(o) for o in node.output], axis=1)
    for end, part in zip(gates.ends, parts, strict=True):
        g.replace(end, part)
    return True
