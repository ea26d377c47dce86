"""Branches and loops. The cotangents come from a branch or loop of the same kind, whose body computes the forward's
again and goes back through it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx

from gbp_onnx.canonical.inner import Inner, bodies
from gbp_onnx.graph.emitter import Emitter, Inside
from gbp_onnx.graph.fragment import place
from gbp_onnx.graph.kinds import cotangent_type, element_type, scalar_type, sequence_type, tensor_type
from gbp_onnx.graph.reader import Node, Tensor
from gbp_onnx.vjp.live import live_tensors
from gbp_onnx.vjp.recompute import forward, pulled_back
from gbp_onnx.vjp.registry import Cotangents, vjp
from gbp_onnx.vjp.sequence import add, zeros_like

_INT64, _BOOL = onnx.TensorProto.INT64, onnx.TensorProto.BOOL


def _at(node: Node, wanted: Sequence[int], made: Sequence[Tensor]) -> Cotangents:
    """Cotangents in the places of the inputs that want one."""
    chosen: list[Tensor | None] = [None] * len(node.inputs)
    for k, ct in zip(wanted, made, strict=True):
        chosen[k] = ct
    return tuple(chosen)


def _captured(body: Inner, node: Node, read: Collection[str], here: Callable[[Tensor], Tensor]) -> list[Tensor | None]:
    """What stands for the captured inputs of a body, `here` where it is placed; None for those that are not `read`."""
    around = [(t.name in read, node.inputs[k]) for t, k in zip(body.inputs[body.formal :], body.places, strict=True)]
    return [here(tensor) if is_read and tensor is not None else None for is_read, tensor in around]


# --- If -----------------------------------------------------------------------------------------------------------


@vjp("If", outputs="all")
def if_(op: Emitter, node: Node, cts: Sequence[Tensor | None]) -> Cotangents:
    """an If on the same condition; each branch goes back through its own"""
    wanted = [k for k, w in enumerate(op.wanted) if w]
    inner, decided = bodies(node), op.value(node.inputs[0])
    if decided is not None:
        taken = inner["then_branch" if decided.all() else "else_branch"]
        return _at(node, wanted, _branch(op, lambda t: t, node, taken, cts, wanted))
    branches = {}
    for name, branch in inner.items():
        inside = op.inside()
        branches[name] = inside.body([], _branch(inside, inside.capture, node, branch, cts, wanted))
    types = [cotangent_type(op.type_of(node.inputs[k])) for k in wanted]
    return _at(node, wanted, op.attach("If", [node.inputs[0]], types, branches))


def _branch(
    op: Emitter,
    here: Callable[[Tensor], Tensor],
    node: Node,
    branch: Inner,
    cts: Sequence[Tensor | None],
    wanted: Sequence[int],
) -> list[Tensor]:
    """The cotangents of the node's inputs `wanted`, if this is the branch that is taken."""
    seeded = [j for j, ct in enumerate(cts) if ct is not None]
    mine = [j for j, k in enumerate(branch.places) if k in wanted]
    back = pulled_back(op, branch.graph, branch.view, seeded, mine)
    arguments = _captured(branch, node, back.reads(), here)
    seeds = [here(ct) for ct in cts if ct is not None]
    made = dict(zip([branch.places[j] for j in mine], place(op, back, [*arguments, *seeds]), strict=True))
    return [made[k] if k in made else zeros_like(op, here(node.inputs[k])) for k in wanted]


# --- what Loop and Scan share -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _State:
    """What a loop hands from iteration to iteration: its place among the body's inputs and outputs, and the node's."""

    input: int
    output: int
    given: int
    final: int


@dataclass(frozen=True, slots=True)
class _Flow:
    """Where cotangents flow: through which states, from which of the body's further outputs (`scanned`), to which of
    the body's further inputs (`slices`, and `captured`).
    """

    carried: list[_State]
    scanned: list[int]
    slices: list[int]
    captured: list[int]


def _flow(body: Inner, states: Sequence[_State], seeded: Collection[int], wanted: Collection[int]) -> _Flow:
    """`seeded`: outputs of the body with a cotangent from outside; `wanted`: inputs of the body that want one."""
    own = {s.input for s in states}
    carried = _carried(body, states, seeded, wanted)
    return _Flow(
        carried,
        sorted(set(seeded) - {s.output for s in states}),
        sorted(k for k in wanted if k not in own and k < body.formal),
        sorted(k for k in wanted if k >= body.formal),
    )


def _carried(body: Inner, states: Sequence[_State], seeded: Iterable[int], wanted: Iterable[int]) -> list[_State]:
    """The states that hand a cotangent on: something wanted reaches them, and they something seeded, be it iterations
    away.
    """
    sources, targets = set(wanted), set(seeded)
    while True:
        forth = live_tensors(body.view, [t.name for t in body.outputs], [body.inputs[k] for k in sources])
        back = live_tensors(body.view, [body.outputs[k].name for k in targets], body.inputs)
        reached = {s.input for s in states if body.outputs[s.output].name in forth}
        reaching = {s.output for s in states if body.inputs[s.input].name in back}
        if reached <= sources and reaching <= targets:
            return [s for s in states if s.input in sources and s.output in targets]
        sources, targets = sources | reached, targets | reaching


def _cotangent(inside: Inside, body: Inner, k: int, name: str) -> Tensor:
    """A formal input of a reverse body: a cotangent of the body's input `k`."""
    return inside.placeholder(name, cotangent_type(body.graph.type_of(body.inputs[k])))


# --- Loop ---------------------------------------------------------------------------------------------------------


@vjp("Loop", outputs="all")
def loop(op: Emitter, node: Node, cts: Sequence[Tensor | None]) -> Cotangents:
    """a Loop over the iterations in reverse; its states: those of ct, and the sums at what the body captures"""
    body = bodies(node)["body"]
    count = node.attrs["formal"] - 2
    states = [_State(2 + k, 1 + k, 2 + k, k) for k in range(count)]
    places = [*range(node.attrs["formal"]), *body.places]  # of the body's inputs among the node's
    flow = _flow(
        body,
        states,
        [1 + k for k, ct in enumerate(cts) if ct is not None],
        [j for j, k in enumerate(places) if j > 1 and op.wanted[k]],
    )
    back = pulled_back(
        op,
        body.graph,
        body.view,
        [*(s.output for s in flow.carried), *flow.scanned],
        [*(s.input for s in flow.carried), *flow.captured],
    )
    read = back.reads()
    saved = [s for s in states if body.inputs[s.input].name in read]
    past = _past(op, node, body, states, saved, [s for s in flow.carried if node.output(s.final) is None])

    inside = op.inside()
    step, go = inside.placeholder("step", scalar_type(_INT64)), inside.placeholder("go", scalar_type(_BOOL))
    before = [_cotangent(inside, body, s.input, "ct") for s in flow.carried]
    sums = [_cotangent(inside, body, j, "sum") for j in flow.captured]
    at = inside.Sub(inside.Sub(inside.capture(past.trips), 1), step)
    formal: list[Tensor | None] = [at, _true(inside), *([None] * count)]
    for state in saved:
        formal[state.input] = past.state(inside, state, at)
    made = place(
        inside,
        back,
        [
            *formal,
            *_captured(body, node, read, inside.capture),
            *before,
            *(inside.Gather(inside.capture(cts[j - 1]), at, axis=0) for j in flow.scanned),
        ],
    )
    totals = [add(inside, total, part) for total, part in zip(sums, made[len(before) :], strict=True)]
    reverse = inside.body([step, go, *before, *sums], [go, *made[: len(before)], *totals])

    starts = [zeros_like(op, past.final(s)) if (ct := cts[s.final]) is None else ct for s in flow.carried]
    zeros = [zeros_like(op, node.inputs[places[j]]) for j in flow.captured]
    targets = [*(s.input for s in flow.carried), *flow.captured]
    types = [cotangent_type(body.graph.type_of(body.inputs[j])) for j in targets]
    results = op.attach("Loop", [past.trips, _true(op), *starts, *zeros], types, {"body": reverse})
    return _at(node, [places[j] for j in targets], results)


def _true(op: Emitter) -> Tensor:
    return op.constant(np.asarray(True))


@dataclass(frozen=True, slots=True)
class _Past:
    """What the reverse of a Loop has to know of the forward: how often it ran, and its states before each iteration:
    stacked where their size is the same in all, else listed in a sequence.
    """

    node: Node
    body: Inner
    states: list[_State]
    trips: Tensor
    finals: dict[_State, Tensor] = field(default_factory=dict)
    stacks: dict[_State, Tensor] = field(default_factory=dict)
    lists: dict[_State, Tensor] = field(default_factory=dict)

    def final(self, state: _State) -> Tensor:
        """The state after the last iteration."""
        known = self.node.output(state.final)
        return self.finals[state] if known is None else known

    def state(self, inside: Inside, state: _State, at: Tensor) -> Tensor:
        """The state before iteration `at`, for the reverse body."""
        if state in self.stacks:
            made: Tensor = inside.Gather(inside.capture(self.stacks[state]), at, axis=0)
        elif state in self.lists:
            made = inside.SequenceAt(inside.capture(self.lists[state]), at)
        else:  # a sequence, and there are none of sequences: the forward up to there, once more
            made = _replay(inside, inside.capture, self.node, self.body, self.states, at).finals[state]
        return made


def _past(
    op: Emitter, node: Node, body: Inner, states: list[_State], saved: list[_State], needed: list[_State]
) -> _Past:
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
    states: list[_State],
    limit: Tensor | None,
    saved: Sequence[_State] = (),
) -> _Past:
    """The forward Loop once more, keeping the states `saved`. `limit`: of its iterations."""
    stacked = [s for s in saved if _same_size(body.states[s.input - 2])]
    listed = [s for s in saved if s not in stacked]
    kinds = [body.graph.type_of(body.inputs[s.input]) for s in states]
    inside = op.inside()
    at, go = inside.placeholder("at", scalar_type(_INT64)), inside.placeholder("go", scalar_type(_BOOL))
    count = inside.placeholder("count", scalar_type(_INT64))
    formal = [inside.placeholder("state", kind) for kind in kinds]
    so_far = [inside.placeholder("so_far", sequence_type(element_type(kinds[s.input - 2])[0])) for s in listed]
    again = forward(body.graph)
    around = _captured(body, node, again.reads(), lambda t: inside.capture(here(t)))
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


# --- Scan ---------------------------------------------------------------------------------------------------------


@vjp("Scan", since=9, outputs="all")
def scan(op: Emitter, node: Node, cts: Sequence[Tensor | None]) -> Cotangents:
    """a Scan in the other direction; its states: those of ct, and the sums at what the body captures"""
    body = bodies(node)["body"]
    inputs = int(node.attrs["num_scan_inputs"])
    count = node.attrs["formal"] - inputs
    states = [_State(k, k, k, k) for k in range(count)]
    places = [*range(node.attrs["formal"]), *body.places]
    flow = _flow(
        body,
        states,
        [k for k, ct in enumerate(cts) if ct is not None],
        [j for j, k in enumerate(places) if op.wanted[k]],
    )
    back = pulled_back(
        op,
        body.graph,
        body.view,
        [*(s.output for s in flow.carried), *flow.scanned],
        [*(s.input for s in flow.carried), *flow.captured, *flow.slices],
    )
    read = back.reads()
    saved = [s for s in states if body.inputs[s.input].name in read]
    ways = _ways(node, inputs, len(body.outputs) - count)
    past = _scanned_again(op, node, body, states, saved) if saved else []

    inside = op.inside()
    before = [_cotangent(inside, body, s.input, "ct") for s in flow.carried]
    sums = [_cotangent(inside, body, j, "sum") for j in flow.captured]
    formal: list[Tensor | None] = [None] * body.formal
    scans: list[tuple[Tensor, int, int]] = []  # what is scanned in reverse: along which axis, in which direction
    for state, kept in zip(saved, past, strict=True):
        formal[state.input] = inside.placeholder("state", body.graph.type_of(body.inputs[state.input]))
        scans.append((kept, 0, 1))
    for k in range(count, body.formal):
        if body.inputs[k].name in read or (k == body.formal - 1 and not scans):  # a Scan has at least one
            formal[k] = inside.placeholder("slice", body.graph.type_of(body.inputs[k]))
            scans.append((node.inputs[k], ways[k].axis, 1 - ways[k].direction))
    seeds = []
    for j in flow.scanned:
        seeds.append(inside.placeholder("seed", op.elem_type(cts[j])))
        scans.append((cts[j], ways[inputs + j].axis, 1 - ways[inputs + j].direction))
    made = place(inside, back, [*formal, *_captured(body, node, read, inside.capture), *before, *seeds])
    seam = len(before), len(before) + len(sums)
    totals = [add(inside, total, part) for total, part in zip(sums, made[seam[0] : seam[1]], strict=True)]
    taken = [t for t in formal if t is not None]
    reverse = inside.body([*before, *sums, *taken, *seeds], [*made[: seam[0]], *totals, *made[seam[1] :]])

    starts = [zeros_like(op, node.inputs[s.given]) if (ct := cts[s.final]) is None else ct for s in flow.carried]
    zeros = [zeros_like(op, node.inputs[places[j]]) for j in flow.captured]
    targets = [*(s.input for s in flow.carried), *flow.captured, *flow.slices]
    results = op.attach(
        "Scan",
        [*starts, *zeros, *(tensor for tensor, _, _ in scans)],
        [cotangent_type(body.graph.type_of(body.inputs[j])) for j in targets],
        {"body": reverse},
        attrs={
            "num_scan_inputs": len(scans),
            "scan_input_axes": [axis for _, axis, _ in scans],
            "scan_input_directions": [direction for _, _, direction in scans],
            **_along([ways[j].axis for j in flow.slices], [1 - ways[j].direction for j in flow.slices]),
        },
    )
    return _at(node, [places[j] for j in targets], results)


def _scanned_again(op: Emitter, node: Node, body: Inner, states: list[_State], saved: list[_State]) -> list[Tensor]:
    """The forward Scan once more: the states `saved` before each iteration, stacked."""
    inside = op.inside()
    formal = [inside.placeholder("in", body.graph.type_of(t)) for t in body.inputs[: body.formal]]
    again = forward(body.graph)
    made = place(inside, again, [*formal, *_captured(body, node, again.reads(), inside.capture)])
    step = inside.body(formal, [*made[: len(states)], *(formal[s.input] for s in saved)])
    kept = {k: v for k, v in node.attrs.items() if k in ("num_scan_inputs", "scan_input_axes", "scan_input_directions")}
    kinds = [body.graph.type_of(body.inputs[s.input]) for s in (*states, *saved)]
    types = [tensor_type(element_type(kind)[0]) for kind in kinds]
    return list(
        op.attach("Scan", node.inputs[: node.attrs["formal"]], types, {"body": step}, attrs=kept)[len(states) :]
    )


@dataclass(frozen=True, slots=True)
class _Way:
    """How a Scan takes a tensor apart or puts one together: along which axis, from the end (direction 1) or not."""

    axis: int = 0
    direction: int = 0


def _ways(node: Node, inputs: int, outputs: int) -> dict[int, _Way]:
    """Those of the scanned inputs, at their places, and of the scanned outputs, at the inputs' number + theirs."""
    states = node.attrs["formal"] - inputs
    made = {}
    for first, many, what in ((states, inputs, "input"), (inputs + states, outputs, "output")):
        axes = node.attrs.get(f"scan_{what}_axes") or [0] * many
        directions = node.attrs.get(f"scan_{what}_directions") or [0] * many
        made.update({first + k: _Way(int(axes[k]), int(directions[k])) for k in range(many)})
    return made


def _along(axes: list[int], directions: list[int]) -> dict[str, list[int]]:
    return {"scan_output_axes": axes, "scan_output_directions": directions} if axes else {}
