"""Branches, and what the derivatives of loops share. The cotangents come from a branch or loop of the same kind, whose
body computes the forward's again and goes back through it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from gbp_onnx.canonical.inner import Inner, bodies
from gbp_onnx.canonical.view import View
from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.fragment import place
from gbp_onnx.graph.inside import Inside
from gbp_onnx.graph.kinds import cotangent_type
from gbp_onnx.graph.reader import Node, Tensor
from gbp_onnx.vjp.live import live_tensors
from gbp_onnx.vjp.recompute import pulled_back
from gbp_onnx.vjp.registry import Cotangents, vjp
from gbp_onnx.vjp.sequence import zeros_like

__all__ = ["Flow", "State", "captured", "cotangent_of", "flow_of", "in_places", "live_nodes"]


@vjp("If", outputs="all")
def if_(op: Emitter, node: Node, cts: Sequence[Tensor | None]) -> Cotangents:
    """an If on the same condition; each branch goes back through its own"""
    wanted = [k for k, w in enumerate(op.wanted) if w]
    inner, decided = bodies(node), op.value(node.inputs[0])
    if decided is not None:
        taken = inner["then_branch" if decided.all() else "else_branch"]
        return in_places(node, wanted, _branch(op, lambda t: t, node, taken, cts, wanted))
    branches = {}
    for name, branch in inner.items():
        inside = Inside(op)
        branches[name] = inside.body([], _branch(inside, inside.capture, node, branch, cts, wanted))
    types = [cotangent_type(op.type_of(node.inputs[k])) for k in wanted]
    return in_places(node, wanted, op.attach("If", [node.inputs[0]], types, branches))


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
    arguments = captured(branch, node, back.reads(), here)
    seeds = [here(ct) for ct in cts if ct is not None]
    made = dict(zip([branch.places[j] for j in mine], place(op, back, [*arguments, *seeds]), strict=True))
    return [made[k] if k in made else zeros_like(op, here(node.inputs[k])) for k in wanted]


# --- what Loop and Scan share -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class State:
    """What a loop hands from iteration to iteration: its place among the body's inputs and outputs, and the node's."""

    input: int
    output: int
    given: int
    final: int


@dataclass(frozen=True, slots=True)
class Flow:
    """Where cotangents flow through a body, by places among its inputs and outputs: the states that carry one, the
    further outputs where one arrives, and the further inputs and captured tensors that want one.

    `places`: of the body's inputs among the node's. `back`: what goes backwards, from which outputs to which inputs.
    """

    places: list[int]
    states: list[State]
    carried: list[State]
    scanned: list[int]
    slices: list[int]
    captured: list[int]

    @property
    def sources(self) -> list[int]:
        """The body's outputs where cotangents arrive: of the states, then the others."""
        return [*(s.output for s in self.carried), *self.scanned]

    @property
    def targets(self) -> list[int]:
        """The body's inputs that get one: the states, what is captured, what is scanned."""
        return [*(s.input for s in self.carried), *self.captured, *self.slices]


def flow_of(node: Node, body: Inner, seeded: Collection[int], wanted: Collection[int]) -> Flow:
    """`seeded`: the node's outputs with a cotangent; `wanted`: the node's inputs that want one."""
    places = [*range(body.formal), *body.places]
    states, first = _states(node)
    sources = {first + k for k in seeded}
    targets = {j for j, k in enumerate(places) if k in wanted and not (node.op == "Loop" and j < 2)}
    carried = _carried(body, states, sources, targets)
    own = {s.input for s in states}
    return Flow(
        places,
        states,
        carried,
        sorted(sources - {s.output for s in states}),
        sorted(j for j in targets - own if j < body.formal),
        sorted(j for j in targets if j >= body.formal),
    )


def _states(node: Node) -> tuple[list[State], int]:
    """The states of a Loop or Scan (an If has none), and the place of the body's output that is the node's first."""
    formal = int(node.attrs["formal"])
    if node.op == "Loop":  # iteration and condition come first, and the condition is returned
        return [State(2 + k, 1 + k, 2 + k, k) for k in range(formal - 2)], 1
    if node.op == "Scan":
        return [State(k, k, k, k) for k in range(formal - int(node.attrs["num_scan_inputs"]))], 0
    return [], 0


def _carried(body: Inner, states: Sequence[State], seeded: Collection[int], wanted: Collection[int]) -> list[State]:
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


def cotangent_of(inside: Inside, body: Inner, k: int, name: str) -> Tensor:
    """A formal input of a reverse body: a cotangent of the body's input `k`."""
    return inside.placeholder(name, cotangent_type(body.graph.type_of(body.inputs[k])))


def in_places(node: Node, wanted: Sequence[int], made: Sequence[Tensor]) -> Cotangents:
    """Cotangents in the places of the inputs that want one."""
    chosen: list[Tensor | None] = [None] * len(node.inputs)
    for k, ct in zip(wanted, made, strict=True):
        chosen[k] = ct
    return tuple(chosen)


def captured(body: Inner, node: Node, read: Collection[str], here: Callable[[Tensor], Tensor]) -> list[Tensor | None]:
    """What stands for the captured inputs of a body, `here` where it is placed; None for those that are not `read`."""
    around = [(t.name in read, node.inputs[k]) for t, k in zip(body.inputs[body.formal :], body.places, strict=True)]
    return [here(tensor) if is_read and tensor is not None else None for is_read, tensor in around]


# --- what is on the way -------------------------------------------------------------------------------------------


def live_nodes(view: View, seeds: Sequence[str], wrt: Sequence[Tensor]) -> Iterator[Node]:
    """The nodes through which a gradient flows from the seeded tensors to `wrt`, those inside bodies after the node
    that holds them.
    """
    live = live_tensors(view, seeds, wrt)
    for node in view.nodes:
        seeded = [k for k, t in enumerate(node.outputs) if t is not None and t.name in live]
        if not seeded:
            continue
        yield node
        wanted = [k for k, t in enumerate(node.inputs) if t is not None and t.name in live]
        for body in bodies(node).values():
            flow = flow_of(node, body, seeded, wanted)
            names = [body.outputs[k].name for k in flow.sources]
            yield from live_nodes(body.view, names, [body.inputs[k] for k in flow.targets])
