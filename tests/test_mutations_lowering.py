"""Mutations of the lowered forms: each must make a named check fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

import tests.test_lowering as maps_tests
import tests.test_lowering_limits as limit_tests
from gbp_onnx.lowering import (
    blocked,
    cuda,
    gates,
    growing,
    heads,
    image,
    masks,
    patterns,
    pieces,
    pools,
    scales,
    turned,
)
from gbp_onnx.lowering.draft import Draft
from gbp_onnx.lowering.patterns import Gate
from tests.lowering_nets import RULES, agree, lowered, portable
from tests.test_mutations import noticed

Patch = pytest.MonkeyPatch
MUTATIONS: dict[str, tuple[Callable[[Patch], None], Callable[[], None]]] = {}


def maps(name: str, form: str = "cpu", rules: Any = RULES) -> Callable[[], None]:
    """The maps of a network of the table, by name."""
    case = next(c for c in maps_tests.CASES if c.name == name)

    def check() -> None:
        net = case.make()
        built = portable(net.model(), rules)
        agree(built, lowered(built, form), maps_tests.images(net, levels=case.levels), ("all",))

    return check


def fails(must_fail: Callable[[], None]) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    def register(mutate: Callable[[Patch], None]) -> Callable[[Patch], None]:
        assert mutate.__name__ not in MUTATIONS
        MUTATIONS[mutate.__name__] = (mutate, must_fail)
        return mutate

    return register


# --- masks --------------------------------------------------------------------------------------------------------


@fails(maps("conv/3x3, 13 x 11", rules="guided"))
def a_shut_gate_is_open(patch: Patch) -> None:
    patch.setattr(masks, "SHUT", 0.0)


@fails(maps("conv/3x3, 13 x 11", rules="saliency"))
def a_gate_that_does_not_clamp_is_shut(patch: Patch) -> None:
    patch.setattr(masks, "_STEEP", 0.0)


@fails(maps("cap/1.0"))
def the_cap_is_forgotten(patch: Patch) -> None:
    keep, times = masks.additive, masks.factor
    patch.setattr(gates, "additive", lambda g, gated: keep(g, replace(gated, cap=None)))
    patch.setattr(gates, "factor", lambda g, gated: times(g, replace(gated, cap=None)))


@fails(partial(limit_tests.test_values_at_the_ends_of_a_cap, 6.0))
def the_cap_itself_lies_inside(patch: Patch) -> None:
    below = masks._below
    patch.setattr(masks, "_below", lambda cap: (float(np.float32(cap)), below(cap)[1]))


@fails(limit_tests.test_a_cap_that_the_fold_cannot_hold_keeps_its_gate)
def every_cap_is_folded(patch: Patch) -> None:
    patch.setattr(gates, "can_fold", lambda cap: True)


@fails(maps("conv/3x3, stride 2, 13 x 11"))
def every_phase_has_the_mask_of_the_first(patch: Patch) -> None:
    keep = masks.additive
    patch.setattr(gates, "additive", lambda g, gated: keep(g, replace(gated, at=(0, 0))))


@fails(partial(limit_tests.test_lookalikes, "LeakyRelu"))
def any_tensor_is_cast_to_a_mask(patch: Patch) -> None:
    patch.setattr(cuda, "never_negative", lambda g, name: True)


# --- convolutions -------------------------------------------------------------------------------------------------


def unturned(g: Draft, t: Any, cuts: Any) -> str:
    o, i, kh, kw = g.shape(t.weight) or (0, 0, 0, 0)
    return g.emit("Transpose", [t.weight], (i, o, kh, kw), perm=[1, 0, 2, 3])


@fails(maps("conv/3x3, 13 x 11"))
def taps_are_not_turned(patch: Patch) -> None:
    patch.setattr(turned, "_turned", unturned)


@fails(maps("conv/3x3, 13 x 11", form="cuda"))
def taps_are_not_turned_for_cuda(patch: Patch) -> None:
    patch.setattr(turned, "_turned", unturned)


@fails(maps("conv/5x5, stride 2, 12 x 12"))
def phases_are_taken_from_the_next_tap(patch: Patch) -> None:
    keep = turned.phase_taps
    patch.setattr(turned, "phase_taps", lambda phase, kernel, stride, begin: keep(phase + 1, kernel, stride, begin))


@fails(maps("conv/3x3, stride 2, 13 x 11"))  # odd: else the image reads the phases themselves
def rows_and_columns_of_phases_change_places(patch: Patch) -> None:
    keep = blocked.interleave
    patch.setattr(gates, "interleave", lambda g, p, *rest: keep(g, {(b, a): t for (a, b), t in p.items()}, *rest))


@fails(maps("image/7x7, stride 2, then stride, 27 x 25", rules="deconvnet"))
def phases_reach_over_the_edge(patch: Patch) -> None:
    keep = gates._joined

    def joined(g: Draft, phases: Any, size: Any, clear: bool = False) -> str:
        whole = keep(g, phases, size, clear)
        g.phases[whole] = phases
        return whole

    patch.setattr(gates, "_joined", joined)


@fails(maps("conv/depthwise, stride 2, 12 x 12"))
def zeros_are_put_in_front(patch: Patch) -> None:
    def pad(g: Draft, x: str, axis: int, amount: int, shape: Any) -> str:
        pads = [0] * (2 * len(shape))
        pads[axis] = amount
        return g.emit("Pad", [x, g.constant(pads, np.int64)], shape)

    patch.setattr(blocked, "_pad_end", pad)


@fails(maps("image/7x7, stride 2, then pool, 24 x 24"))
def squares_of_the_image_are_shifted(patch: Patch) -> None:
    keep = image._places
    patch.setattr(image, "_places", lambda *of: [((place + 1) % of[0], tap, at) for place, tap, at in keep(*of)])


@fails(maps("conv/asymmetric pads, 13 x 11"))
def what_a_slice_cuts_off_is_forgotten(patch: Patch) -> None:
    patch.setattr(patterns, "_cut", lambda g, node: (0, 0))


@fails(maps("residual/identity"))
def a_term_of_a_sum_is_lost(patch: Patch) -> None:
    keep = gates.terms_of
    patch.setattr(gates, "terms_of", lambda g, name: keep(g, name)[:1])


# --- pools --------------------------------------------------------------------------------------------------------


@fails(maps("pool/3x3, stride 2, behind Concat, 13 x 11"))
def the_last_maximum_wins(patch: Patch) -> None:
    keep = pools._shares

    def backwards(g: Draft, ct: str, maxima: str, line: Any) -> list[str]:
        turned_round = replace(line, value=lambda i: line.value(line.kernel - 1 - i))
        return keep(g, ct, maxima, turned_round)[::-1]

    patch.setattr(pools, "_shares", backwards)


@fails(maps("pool/3x3, stride 2, behind Relu, 13 x 11"))
def every_maximum_takes_all(patch: Patch) -> None:
    keep = pools.total
    patch.setattr(pools, "total", lambda g, *of: of[0] if of[0] in RESTS else keep(g, *of))
    shares = pools._shares

    def all_of_it(g: Draft, ct: str, maxima: str, line: Any) -> list[str]:
        RESTS.add(ct)
        return shares(g, ct, maxima, line)

    patch.setattr(pools, "_shares", all_of_it)


RESTS: set[str] = set()


@fails(partial(limit_tests.test_what_a_pool_of_nothing_but_zeros_sends_goes_to_the_first, 3, 1))
def zeros_of_the_padding_are_maxima(patch: Patch) -> None:
    patch.setattr(pools, "_LEAST", 0.0)


@fails(maps("pool/3x3, stride 2, padded, of what may be negative"))
def a_pools_input_is_never_negative(patch: Patch) -> None:
    patch.setattr(patterns, "never_negative", lambda g, name: True)


@fails(maps("pool/3x3, stride 2, padded, behind Relu, 12 x 12"))
def taps_are_moved_one_row_further(patch: Patch) -> None:
    keep = pools._phase
    patch.setattr(
        pools, "_phase", lambda g, shares, line, *rest: keep(g, shares, replace(line, begin=line.begin + 1), *rest)
    )


# --- pieces, growing, factors -------------------------------------------------------------------------------------


@fails(maps("concat/fire"))
def every_piece_has_the_first_ones_weights(patch: Patch) -> None:
    keep = pieces.cut_channels
    patch.setattr(pieces, "cut_channels", lambda g, weight, begin, end: keep(g, weight, 0, end - begin))


@fails(maps("concat/fire and pool"))
def pieces_are_gated_in_another_order(patch: Patch) -> None:
    keep = pieces._gates

    def turned_round(g: Draft, node: Any) -> Any:
        found = keep(g, node)
        return None if found is None else replace(found, ends=found.ends[::-1])

    patch.setattr(pieces, "_gates", turned_round)


@fails(maps("growing/4 layers", rules="guided"))
def what_comes_from_elsewhere_is_lost(patch: Patch) -> None:
    keep = Draft.emit

    def without_own(self: Draft, op: str, inputs: Any, *rest: Any, **attrs: Any) -> str:
        inside = growing.__name__ in CALLERS and op == "Add"
        return str(inputs[1]) if inside else keep(self, op, inputs, *rest, **attrs)

    nest = growing.nest_concats

    def nested(g: Draft, node: Any) -> bool:
        CALLERS.append(growing.__name__)
        try:
            return nest(g, node)
        finally:
            CALLERS.pop()

    patch.setattr(Draft, "emit", without_own)
    from gbp_onnx import lowering

    changed = tuple(replace(r, rule=nested) if r.name == "growing" else r for r in lowering.REWRITES["cpu"])
    patch.setitem(lowering.REWRITES, "cpu", changed)


CALLERS: list[str] = []


@fails(maps("norm/with negative and zero factors"))
def factors_lose_their_sign(patch: Patch) -> None:
    value = Draft.value
    patch.setattr(scales, "fits", lambda g, x: patch.setattr(Draft, "value", _positive(value)) or blocked.fits(g, x))


def _positive(value: Callable[..., Any]) -> Callable[..., Any]:
    def read(self: Draft, name: str) -> Any:
        found = value(self, name)
        return np.abs(found) if found is not None and found.dtype == np.float32 and found.size > 1 else found

    return read


# --- heads --------------------------------------------------------------------------------------------------------


@fails(maps("head/transB 0"))
def the_first_class_is_looked_up(patch: Patch) -> None:
    keep = heads._one_hot

    def first(g: Draft, name: str, classes: int) -> str | None:
        index = keep(g, name, classes)
        return None if index is None else g.emit("Mul", [index, g.constant(0, np.int64)], g.shape(index), 7)

    patch.setattr(heads, "_one_hot", first)


@fails(maps("head/conv, rectified", rules="guided"))
def the_classifiers_rectifier_is_forgotten(patch: Patch) -> None:
    patch.setattr(heads, "gate_of", lambda g, node: Gate(patterns.gate_of(g, node).ct, None, None, True))  # type: ignore[union-attr]


@fails(partial(limit_tests.test_a_classifier_of_several_places_is_no_row, "N"))
def every_seed_has_one_value_for_each_class(patch: Patch) -> None:
    patch.setattr(heads, "_depth", lambda g, name: Anything())


class Anything:
    def __ne__(self, other: object) -> bool:
        return False

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


@fails(partial(limit_tests.test_a_cotangents_name_may_be_that_of_another_tensors, None))
def a_name_tells_a_shape(patch: Patch) -> None:
    patch.setattr(Draft, "_sums_up", lambda self, name, tensor: True)


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutation(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutate, must_fail = MUTATIONS[name]
    noticed(name, mutate, must_fail, monkeypatch)
