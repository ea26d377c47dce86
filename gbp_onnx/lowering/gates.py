"""A gate over a sum of cotangents, as one chain of convolutions that take the mask and each other in.

    Where(y > 0, Relu(ConvTranspose(c, W) + s), 0)  ->  Relu(Conv(c, W turned) + (s + Z))

Terms that come from windows of a stride are computed phase by phase (each with its part of the mask), and put together
once; where other terms stand beside them, the sum is made at full size.
"""

from __future__ import annotations

import math
from dataclasses import replace

import onnx

from gbp_onnx.lowering.blocked import fits, interleave, is_blocked, pointwise, relu, total
from gbp_onnx.lowering.draft import Draft
from gbp_onnx.lowering.image import as_shuffled
from gbp_onnx.lowering.masks import Gated, additive, can_fold, factor
from gbp_onnx.lowering.patterns import Gate, Pool, Transposed, gate_of, pool_of, terms_of, transposed_of
from gbp_onnx.lowering.pools import Zero, pool_phases
from gbp_onnx.lowering.turned import as_conv, as_phases, as_spread

__all__ = ["fuse_gate", "lower_sum"]

Phases = dict[tuple[int, int], str]

_LARGE = 1 << 18  # elements: beyond, a pass over them costs more than a few nodes


def fuse_gate(g: Draft, node: onnx.NodeProto) -> bool:
    """Where(mask(y), Relu(sum), 0)  ->  Relu(sum + Z(y));  Where(mask(y), sum, 0)  ->  sum * M(y);  Relu(sum) alike.

    Where the tensor is whole blocks of channels and of fixed sizes.
    """
    gate, end = gate_of(g, node), node.output[0]
    inner = node.op_type == "Relu" and all(r.op_type == "Where" and gate_of(g, r) for r in g.readers(end))
    if gate is None or (inner and g.readers(end)) or not fits(g, end) or not can_fold(gate.cap):
        return False
    if gate.y is not None and g.space(gate.y) != g.space(end):
        return False
    terms = terms_of(g, gate.ct)
    made = _by_phases(g, gate, terms, end) or _at_full_size(g, gate, terms)
    g.replace(end, made)
    return True


def lower_sum(g: Draft, node: onnx.NodeProto) -> bool:
    """ConvTranspose(c, W), or a sum that such a one ends  ->  convolutions, the later ones taking the earlier ones in.

    What no gate follows: linear bottlenecks, the image itself.
    """
    end = node.output[0]
    if g.is_forward(end) or g.space(end) is None:
        return False
    readers = g.readers(end)
    whole = readers[0].output[0] if g.only_read_by_one(end) and readers[0].op_type == "Add" else None
    if whole is not None and g.alike(whole, end) and not g.is_forward(whole):
        return False  # a term of a sum, which is lowered as a whole
    terms = terms_of(g, end)
    if not any(transposed_of(g, t) or pool_of(g, t) for t in terms):
        return False
    made = _by_phases(g, Gate(end, None, None, False), terms, end) or _summed(g, terms, None, Zero.FIRST)
    if made == g.now(end):
        return False
    g.replace(end, made)
    return True


def _by_phases(g: Draft, gate: Gate, terms: list[str], end: str) -> str | None:
    """The gated sum, where every term comes from windows of one stride."""
    size = g.space(end)
    if size is None or not fits(g, end):
        return None
    pool = pool_of(g, terms[0]) if len(terms) == 1 else None
    if pool is not None:
        return _pool_by_phases(g, gate, pool, size)
    windows = [transposed_of(g, t) for t in terms]
    narrow = _narrows(g, end)
    known = [w for w in windows if w is not None and w.strides != (1, 1) and (w.group == 1 or narrow)]
    if len(known) != len(terms) or len({w.strides for w in known}) != 1:
        return None
    large = [p for w in known if (p := as_phases(g, w)) is not None]
    small = [w for w in known if w.kernel == (1, 1) and w.begins == (0, 0) and w.group == 1]
    if len(large) + len(small) != len(terms) or not large:
        return None
    found: Phases = {}
    for at in large[0]:
        sums = [p[at] for p in large]
        if at == (0, 0):
            for w in small:  # its only tap reaches the first phase
                source = g.space(w.ct) or (0, 0, 0)
                plain = as_conv(g, replace(w, strides=(1, 1), size=(w.size[0], *source[1:])))
                if plain is None or g.shape(plain) != g.shape(sums[0]):
                    return None
                sums.append(plain)
        found[at] = _gated_phase(g, gate, sums, at, known[0].strides)
    return _joined(g, found, size, clear=gate.y is not None and gate.cap is None)  # y counts as 0 there: shut


def _narrows(g: Draft, name: str) -> bool:
    """Whether the one reader of a tensor is the transpose of a 1 x 1 convolution to fewer channels.

    Then that is computed phase by phase too, and what is put together is small: the first half of a bottleneck. Only
    for tensors that are large: every phase has nodes of its own.
    """
    if not g.only_read_by_one(name) or math.prod(g.space(name) or (0,)) < _LARGE:
        return False
    window = transposed_of(g, g.readers(name)[0].output[0])
    return window is not None and _is_narrowing(window, g)


def _is_narrowing(window: Transposed, g: Draft) -> bool:
    wide = (g.space(window.ct) or (0, 0, 0))[0]
    plain = window.kernel == (1, 1) and window.strides == (1, 1) and window.begins == (0, 0) and window.group == 1
    return plain and 2 * window.size[0] <= wide


def _pool_by_phases(g: Draft, gate: Gate, pool: Pool, size: tuple[int, int, int]) -> str | None:
    masked = gate.y is not None and gate.cap is None and gate.y == pool.y
    phases = pool_phases(g, pool, Zero.DROP if masked else Zero.FIRST)
    if phases is None:
        return None
    rest = replace(gate, y=None) if masked else gate
    # A window that reaches over the edge has found its maximum before.
    return _joined(g, {at: _gated_phase(g, rest, [p], at, pool.strides) for at, p in phases.items()}, size, clear=True)


def _gated_phase(g: Draft, gate: Gate, sums: list[str], at: tuple[int, int], strides: tuple[int, int]) -> str:
    """The gate over one phase of a sum."""
    _, height, width = g.space(sums[0]) or (0, 0, 0)
    if gate.y is None:
        made = total(g, *sums)
        return relu(g, made) if gate.clamps else made
    place = Gated(gate.y, gate.cap, at, strides, (height, width))
    if not gate.clamps:
        return _times(g, total(g, *sums), factor(g, place))
    if not _takes_in(g, sums[-1]):
        sums = [*sums[:-1], pointwise(g, sums[-1], 1.0)]
    return relu(g, total(g, additive(g, place), *sums))


def _joined(g: Draft, phases: Phases, size: tuple[int, int, int], clear: bool = False) -> str:
    """The phases put together. `clear`: they hold zeros where they reach over the edge of an odd tensor."""
    if len(phases) == 1:
        return phases[0, 0]
    whole = interleave(g, phases, size[1:])[0]
    _, height, width = g.space(phases[0, 0]) or (0, 0, 0)
    last = max(phases)
    if clear or ((last[0] + 1) * height, (last[1] + 1) * width) == size[1:]:
        g.phases[whole] = phases
    return whole


def _at_full_size(g: Draft, gate: Gate, terms: list[str]) -> str:
    zero = Zero.FIRST if gate.y is None else Zero.ANYWHERE
    if gate.clamps:
        mask = None if gate.y is None else additive(g, Gated(gate.y, gate.cap))
        return relu(g, _summed(g, terms, mask, zero))
    made = _summed(g, terms, None, zero)
    return made if gate.y is None else _times(g, made, factor(g, Gated(gate.y, gate.cap)))


def _times(g: Draft, ct: str, mask: str) -> str:
    return g.emit("Mul", [ct, mask], g.shape(ct))


def _one_phase(g: Draft, window: Transposed, phase: str) -> str:
    """A 1 x 1 convolution's transpose, of one phase of what it reads."""
    _, height, width = g.space(phase) or (0, 0, 0)
    made = as_conv(g, replace(window, ct=phase, size=(window.size[0], height, width)))
    if made is None:
        raise AssertionError("a 1 x 1 convolution without pads fits every size")
    return made


def _summed(g: Draft, terms: list[str], mask: str | None, zero: Zero) -> str:
    """The sum of terms and a mask: what is there already, then what a convolution makes, each taking in the sum."""
    rest = []
    for term in terms:
        pool = pool_of(g, term)
        plain = pool is not None and pool.strides == (1, 1)
        whole = pool_phases(g, pool, zero, mask) if pool is not None and plain else None
        if whole is None:
            rest.append(term)
        else:
            mask = whole[0, 0]  # which began with the mask, or with the pool before
    lowered = [_lower_term(g, t, zero) for t in rest]
    late = [t for t in lowered if _takes_in(g, t)]
    ready = [t for t in lowered if t not in late]
    if not late and ready and mask is not None and fits(g, ready[-1]):
        late = [pointwise(g, ready.pop(), 1.0)]
    # A tensor that is born in the plain layout would draw the whole sum into it.
    ready = [t if is_blocked(g, t) or not fits(g, t) or not late else pointwise(g, t, 1.0) for t in ready]
    return total(g, *([] if mask is None else [mask]), *sorted(ready, key=lambda t: _takes_in(g, t)), *late)


def _takes_in(g: Draft, name: str) -> bool:
    """Whether a convolution that nothing else reads makes a tensor: it may begin with a sum."""
    node = g.node(name, "Conv")
    readers = g.readers(name)
    alone = not readers or (len(readers) == 1 and readers[0].op_type == "Add")
    return node is not None and not g.is_forward(name) and not g.is_kept(name) and alone


def _lower_term(g: Draft, name: str, zero: Zero) -> str:
    """One term of a sum, at full size; as it is where there is no better form."""
    window: Transposed | None = transposed_of(g, name)
    if window is not None:
        if window.size[0] <= 4 and (shuffled := as_shuffled(g, window)) is not None:
            return shuffled
        phases = g.phases.get(g.now(window.ct))
        if phases is not None and _is_narrowing(window, g):
            narrow = {at: _one_phase(g, window, phase) for at, phase in phases.items()}
            return _joined(g, narrow, window.size, clear=True)  # as those that they are made of
        if window.strides == (1, 1):
            return as_conv(g, window) or name
        if window.group == 1 and window.kernel != (1, 1) and window.size[0] > 4:
            phases = as_phases(g, window)
            if phases is not None:
                return _joined(g, phases, window.size)
        return as_spread(g, window) or name
    pool = pool_of(g, name)
    if pool is not None:
        phases = pool_phases(g, pool, zero)
        if phases is not None:
            size = g.space(pool.y) or (0, 0, 0)
            return _joined(g, phases, size)
    return name
