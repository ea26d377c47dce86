"""Loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx

from gbp_onnx.canonical.inner import Inner, bodies
from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.fragment import place
from gbp_onnx.graph.inside import Inside
from gbp_onnx.graph.kinds import cotangent_type, element_type, scalar_type, sequence_type, tensor_type
from gbp_onnx.graph.reader import Node, Tensor
from gbp_onnx.vjp.control import State, captured, cotangent_of, flow_of, in_places
from gbp_onnx.vjp.recompute import forward, pulled_back
from gbp_onnx.vjp.registry import Cotangents, vjp
from gbp_onnx.vjp.sequence import add, zeros_like

_INT64, _BOOL = onnx.TensorProto.INT64, onnx.TensorProto.BOOL


@vjp("Loop", outputs="all")
def loop(op: Emitter, node: Node, cts: Sequence[Tensor | None]) -> Cotangents:
    """a Loop over the iterations in reverse; its states: those of ct, and the sums at what the body captures"""
    body = bodies(node)["body"]
    flow = flow_of(
        node, body, [k for k, ct in enumerate(cts) if ct is not None], [k for k, w in enumerate(op.wanted) if w]
    )
    back = pulled_back(op, body.graph, body.view, flow.sources, flow.targets)
    read = back.reads()
    saved = [s for s in flow.states if body.inputs[s.input].name in read]
    past = _past(op, node, body, flow.states, saved, [s for s in flow.carried if node.output(s.final) is None])

    inside = Inside(op)
    step, go = inside.placeholder("step", scalar_type(_INT64)), inside.placeholder("go", scalar_type(_BOOL))
    before = [cotangent_of(inside, body, s.input, "ct") for s in flow.carried]
    sums = [cotangent_of(inside, body, j, "sum") for j in flow.captured]
    at = inside.Sub(inside.Sub(inside.capture(past.trips), 1), step)
    formal: list[Tensor | None] = [at, _true(inside), *([None] * len(flow.states))]
    for state in saved:
        formal[state.input] = past.state(inside, state, at)
    made = place(
        inside,
        back,
        [
            *formal,
            *captured(body, node, read, inside.capture),
            *before,
            *(inside.Gather(inside.capture(cts[j - 1]), at, axis=0) for j in flow.scanned),
        ],
    )
    totals = [add(inside, total, part) for total, part in zip(sums, made[len(before) :], strict=True)]
    reverse = inside.body([step, go, *before, *sums], [go, *made[: len(before)], *totals])

    starts = [zeros_like(op, past.final(s)) if (ct := cts[s.final]) is None else ct for s in flow.carried]
    zeros = [zeros_like(op, node.inputs[flow.places[j]]) for j in flow.captured]
    types = [cotangent_type(body.graph.type_of(body.inputs[j])) for j in flow.targets]
    results = op.attach("Loop", [past.trips, _true(op), *starts, *zeros], types, {"body": reverse})
    return in_places(node, [flow.places[j] for j in flow.targets], results)


def _true(op: Emitter) -> Tensor:
    return op.constant(np.asarray(True))


@dataclass(frozen=True, slots=True)
class _Past:
    """What the reverse of a Loop has to know of the forward: how often it ran, and its states before each iteration:
    stacked where their size is the same in all, else listed in a sequence.
    """

    node: Node
    body: Inner
    states: list[State]
    trips: Tensor
    finals: dict[State, Tensor] = field(default_factory=dict)
    stacks: dict[State, Tensor] = field(default_factory=dict)
    lists: dict[State, Tensor] = field(default_factory=dict)

    def final(self, state: State) -> Tensor:
        """The state after the last iteration."""
        known = self.node.output(state.final)
        return self.finals[state] if known is None else known

    def state(self, inside: Inside, state: State, at: Tensor) -> Tensor:
        """The state before iteration `at`, for the reverse body."""
        if state in self.stacks:
            kind = element_type(self.body.states[state.input - 2])[0]  # half precision, which the emitter widens
            made: Tensor = inside.Cast(inside.Gather(inside.capture(self.stacks[state]), at, axis=0), to=kind)
        elif state in self.lists:
            made = inside.SequenceAt(inside.capture(self.lists[state]), at)
        else:  # a sequence, and there are none of sequences: the forward up to there, once more
            made = _replay(inside, inside.capture, self.node, self.body, self.states, at).finals[state]
        return made


def _past(op: Emitter, node: Node, body: Inner, states: list[State], saved: list[State], needed: list[State]) -> _Past:
    """`saved`: the states that are read in reverse; `needed`: those whose last value the node does not return."""
    tensors = [s for s in saved if body.states[s.input - 2].HasField("tensor_type")]
    trips = _known_trips(op, node, body)
    if trips is not None and not tensors and not needed:
        return _Past(node, body, states, trips)
    return _replay(op, lambda t: t, node, body, states, node.inputs[0], tensors)


def _replay(
    op: Emitter,
    here: Callable[[Tensor], Tensor],
    node: Node,
    body: Inner,
    states: list[State],
    limit: Tensor | None,
    saved: Sequence[State] = (),
) -> _Past:
    """The forward Loop once more, keeping the states `saved`. `limit`: of its iterations."""
    stacked = [s for s in saved if _same_size(body.states[s.input - 2])]
    listed = [s for s in saved if s not in stacked]
    kinds = [body.graph.type_of(body.inputs[s.input]) for s in states]
    inside = Inside(op)
    at, go = inside.placeholder("at", scalar_type(_INT64)), inside.placeholder("go", scalar_type(_BOOL))
    count = inside.placeholder("count", scalar_type(_INT64))
    formal = [inside.placeholder("state", kind) for kind in kinds]
    so_far = [inside.placeholder("so_far", sequence_type(element_type(kinds[s.input - 2])[0])) for s in listed]
    again = forward(body.graph)
    around = captured(body, node, again.reads(), lambda t: inside.capture(here(t)))
    made = place(inside, again, [at, go, *formal, *around])
    longer = [inside.SequenceInsert(s, formal[k.input - 2]) for s, k in zip(so_far, listed, strict=True)]
    stacks = [formal[s.input - 2] for s in stacked]
    step = inside.body(
        [at, go, *formal, count, *so_far], [*made[: 1 + len(states)], inside.Add(count, 1), *longer, *stacks]
    )

    given = [None if t is None else here(t) for t in node.inputs[1 : node.attrs["formal"]]]
    empty = [op.SequenceEmpty(dtype=element_type(kinds[s.input - 2])[0]) for s in listed]
    types = [*kinds, tensor_type(_INT64)]
    types += [sequence_type(element_type(kinds[s.input - 2])[0]) for s in listed]
    types += [tensor_type(element_type(kinds[s.input - 2])[0]) for s in stacked]
    results = op.attach("Loop", [limit, *given, op.constant(np.int64(0)), *empty], types, {"body": step})
    finals, rest = results[: len(states)], results[len(states) + 1 :]
    return _Past(
        node,
        body,
        states,
        results[len(states)],
        dict(zip(states, finals, strict=True)),
        dict(zip(stacked, rest[len(listed) :], strict=True)),
        dict(zip(listed, rest[: len(listed)], strict=True)),
    )


def _known_trips(op: Emitter, node: Node, body: Inner) -> Tensor | None:
    """The number of iterations, where it is a matter of the first input alone: the condition always holds."""
    limit, condition = node.input(0), node.input(1)
    if limit is None or (condition is not None and ((value := op.value(condition)) is None or not value.all())):
        return None
    after: Tensor | None = body.outputs[0]
    while (maker := body.graph.producer(after)) is not None and maker.op in ("Identity", "Cast"):
        after = maker.inputs[0]
    stays = after is not None and after.name == body.inputs[1].name
    value = body.graph.constant(after)
    if not stays and (value is None or not value.all()):
        return None
    made: Tensor = op.Max(op.Reshape(op.Cast(limit, to=_INT64), np.zeros(0, np.int64)), 0)
    return made


def _same_size(kind: onnx.TypeProto) -> bool:
    """Whether a state has one size in all iterations (a symbol is one size)."""
    return kind.tensor_type.HasField("shape") and all(
        d.HasField("dim_value") or d.dim_param for d in kind.tensor_type.shape.dim
    )
