"""Mutations of the derivatives of branches, loops and sequences: each must make a named check fail."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import tests.test_control_flow as flow_tests
import tests.vjp_cases_control  # noqa: F401 - adds its cases to the table
from gbp_onnx import sweep, target
from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.vjp import control, loop, recompute, scan, sequence
from tests.test_mutations import noticed
from tests.vjp_cases import CASES
from tests.vjp_check import check

Patch = pytest.MonkeyPatch
MUTATIONS: dict[str, tuple[Callable[[Patch], None], Callable[[], None]]] = {}


def fails(must_fail: str | Callable[[], None]) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    """Register a mutation that a case of the table, by name, or another check must notice."""
    case = next((c for c in CASES if c.name == must_fail), None)

    def register(mutate: Callable[[Patch], None]) -> Callable[[Patch], None]:
        MUTATIONS[mutate.__name__] = (mutate, (lambda: check(case)) if case is not None else must_fail)  # type: ignore[assignment]
        return mutate

    return register


def attached(patch: Patch, op_type: str, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    """Change the bodies and attributes of every emitted node of a kind."""
    attach = Emitter.attach

    def other(self: Emitter, op: str, inputs: Any, types: Any, bodies: Any = None, *more: Any, **named: Any) -> Any:
        if op == op_type and bodies and not more:
            bodies, named["attrs"] = dict(bodies), dict(named.get("attrs") or {})
            change(bodies, named["attrs"])
        return attach(self, op, inputs, types, bodies, *more, **named)

    patch.setattr(Emitter, "attach", other)


@fails("If/branches that read different tensors, True")
def the_branches_change_places(patch: Patch) -> None:
    def swap(bodies: dict[str, Any], attrs: dict[str, Any]) -> None:
        bodies["then_branch"], bodies["else_branch"] = bodies["else_branch"], bodies["then_branch"]

    attached(patch, "If", swap)


@fails("If/branches that read different tensors, False")
def a_branch_without_a_tensor_gives_it_ones(patch: Patch) -> None:
    patch.setattr(control, "zeros_like", lambda op, t: op.Add(sequence.zeros_like(op, t), 1.0))


@fails("If/stored condition False")
def the_other_branch_is_taken_where_the_file_decides(patch: Patch) -> None:
    branch = control.bodies

    def swapped(node: Any) -> Any:
        found = branch(node)
        return (
            {"then_branch": found["else_branch"], "else_branch": found["then_branch"]}
            if "else_branch" in found
            else found
        )

    patch.setattr(control, "bodies", swapped)


@fails("Loop/4 iterations")
def sums_at_what_a_loop_captures_keep_the_last_part(patch: Patch) -> None:
    patch.setattr(loop, "add", lambda op, a, b: b)


@fails("Loop/4 iterations")
def iterations_are_gone_through_forwards(patch: Patch) -> None:
    emit = Emitter.emit

    def other(self: Emitter, op: str, inputs: Any, attrs: Any, outputs: int = 1) -> Any:
        if op == "Sub" and self.vjp_of == "" and getattr(inputs[1], "name", "").startswith("step"):
            return (inputs[1],)
        return emit(self, op, inputs, attrs, outputs)

    patch.setattr(Emitter, "emit", other)


@fails("Loop/what is explained comes from another state")
def only_states_with_a_seed_hand_it_on(patch: Patch) -> None:
    def carried(body: Any, states: Any, seeded: Any, wanted: Any) -> Any:
        return [s for s in states if s.output in seeded and s.input in wanted]

    patch.setattr(control, "_carried", carried)


@fails("Loop/stops before its limit")
def a_loop_runs_to_its_limit(patch: Patch) -> None:
    patch.setattr(
        loop, "_known_trips", lambda op, node, body: op.Max(op.Reshape(node.inputs[0], loop.np.zeros(0, "i8")), 0)
    )


@fails("Loop/a state that grows")
def a_size_of_the_first_iteration_holds_in_all(patch: Patch) -> None:
    patch.setattr(loop, "_same_size", lambda kind: True)


@fails("Scan/directions 0 and 0")
def a_scan_goes_back_in_the_same_direction(patch: Patch) -> None:
    attached(patch, "Scan", lambda bodies, attrs: attrs.pop("scan_input_directions", None))


@fails("Scan/directions 1 and 0")
def what_a_scan_gives_back_is_in_the_other_order(patch: Patch) -> None:
    attached(patch, "Scan", lambda bodies, attrs: attrs.pop("scan_output_directions", None))


@fails("Scan/along other axes")
def a_scan_gives_back_along_the_first_axis(patch: Patch) -> None:
    patch.setattr(scan, "_along", lambda axes, directions: {"scan_output_directions": directions} if axes else {})


@fails("Scan/without state")
def sums_at_what_a_scan_captures_keep_the_last_part(patch: Patch) -> None:
    patch.setattr(scan, "add", lambda op, a, b: b)


@fails("SequenceInsert/at -1, all positions read")
def sequences_are_not_added(patch: Patch) -> None:
    patch.setattr(sweep, "add", lambda op, a, b: a if op.is_sequence(a) else op.Add(a, b))


@fails("SequenceInsert/at -1, all positions read")
def a_position_from_the_end_is_one_in_the_longer_sequence(patch: Patch) -> None:
    patch.setattr(sequence, "_counted", lambda op, position, length, last: position)


@fails("SequenceErase/the last")
def what_was_erased_comes_back_first(patch: Patch) -> None:
    patch.setattr(sequence, "_counted", lambda op, position, length, last: op.Mul(length, 0))


@fails("SplitToSequence/one by one, the axis dropped")
def a_dropped_axis_stays_dropped(patch: Patch) -> None:
    emit = Emitter.emit

    def other(self: Emitter, op: str, inputs: Any, attrs: Any, outputs: int = 1) -> Any:
        return emit(self, op, inputs, {**attrs, "new_axis": 0} if op == "ConcatFromSequence" else attrs, outputs)

    patch.setattr(Emitter, "emit", other)


@fails(partial(flow_tests.test_a_rule_masks_in_every_iteration, "guided", 3))
def the_rule_ends_at_a_body(patch: Patch) -> None:
    patch.setattr(sweep, "partial", lambda function, rules: partial(function, rules={}))


@fails(flow_tests.test_inspect_lists_what_lies_in_bodies)
def bodies_are_not_looked_into(patch: Patch) -> None:
    patch.setattr(control, "bodies", lambda node: {})
    patch.setattr(target, "live_nodes", control.live_nodes)


@fails(flow_tests.test_random_numbers_in_a_loop_would_be_others)
def random_numbers_are_drawn_again(patch: Patch) -> None:
    patch.setattr(recompute, "_RANDOM", frozenset())


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutation(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutate, must_fail = MUTATIONS[name]
    noticed(name, mutate, must_fail, monkeypatch)
