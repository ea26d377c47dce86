"""Scan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gbp_onnx.canonical.inner import Inner, bodies
from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.fragment import place
from gbp_onnx.graph.inside import Inside
from gbp_onnx.graph.kinds import element_type, with_ranks, without_sizes
from gbp_onnx.graph.reader import Node, Tensor
from gbp_onnx.vjp.control import State, captured, cotangent_of, flow_of, in_places
from gbp_onnx.vjp.recompute import forward, pulled_back
from gbp_onnx.vjp.registry import Cotangents, Refusal, vjp
from gbp_onnx.vjp.sequence import add, zeros_like


@vjp("Scan", since=9, outputs="all")
def scan(op: Emitter, node: Node, cts: Sequence[Tensor | None]) -> Cotangents:
    """a Scan in the other direction; its states: those of ct, and the sums at what the body captures"""
    body = bodies(node)["body"]
    flow = flow_of(
        node, body, [k for k, ct in enumerate(cts) if ct is not None], [k for k, w in enumerate(op.wanted) if w]
    )
    inputs, count = int(node.attrs["num_scan_inputs"]), len(flow.states)
    if any(element_type(body.graph.type_of(body.inputs[j]))[1] for j in flow.targets):
        raise Refusal("its body captures a sequence, and a Scan has no sequences as states")
    back = pulled_back(op, body.graph, body.view, flow.sources, flow.targets)
    read = back.reads()
    saved = [s for s in flow.states if body.inputs[s.input].name in read]
    ways = _ways(node, inputs, len(body.outputs) - count)
    past = _scanned_again(op, node, body, flow.states, saved) if saved else []

    inside = Inside(op)
    before = [cotangent_of(inside, body, s.input, "ct") for s in flow.carried]
    sums = [cotangent_of(inside, body, j, "sum") for j in flow.captured]
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
    made = place(inside, back, [*formal, *captured(body, node, read, inside.capture), *before, *seeds])
    seam = len(before), len(before) + len(sums)
    totals = [add(inside, total, part) for total, part in zip(sums, made[seam[0] : seam[1]], strict=True)]
    taken = [t for t in formal if t is not None]
    kinds = [with_ranks(body.graph.type_of(body.inputs[j]), cotangent=True) for j in flow.targets]
    reverse = inside.body([*before, *sums, *taken, *seeds], [*made[: seam[0]], *totals, *made[seam[1] :]], kinds)

    starts = [zeros_like(op, node.inputs[s.given]) if (ct := cts[s.final]) is None else ct for s in flow.carried]
    zeros = [zeros_like(op, node.inputs[flow.places[j]]) for j in flow.captured]
    results = op.attach(
        "Scan",
        [*starts, *zeros, *(tensor for tensor, _, _ in scans)],
        [without_sizes(kind) for kind in kinds],
        {"body": reverse},
        attrs={
            "num_scan_inputs": len(scans),
            "scan_input_axes": [axis for _, axis, _ in scans],
            "scan_input_directions": [direction for _, _, direction in scans],
            **_along([ways[j].axis for j in flow.slices], [1 - ways[j].direction for j in flow.slices]),
        },
    )
    return in_places(node, [flow.places[j] for j in flow.targets], results)


def _scanned_again(op: Emitter, node: Node, body: Inner, states: list[State], saved: list[State]) -> list[Tensor]:
    """The forward Scan once more: the states `saved` before each iteration, stacked."""
    inside = Inside(op)
    formal = [inside.placeholder("in", body.graph.type_of(t)) for t in body.inputs[: body.formal]]
    again = forward(body.graph)
    made = place(inside, again, [*formal, *captured(body, node, again.reads(), inside.capture)])
    kinds = [body.graph.type_of(body.inputs[s.input]) for s in (*states, *saved)]
    step = inside.body(
        formal, [*made[: len(states)], *(formal[s.input] for s in saved)], [with_ranks(kind) for kind in kinds]
    )
    kept = {k: v for k, v in node.attrs.items() if k in ("num_scan_inputs", "scan_input_axes", "scan_input_directions")}
    types = [without_sizes(kind) for kind in kinds]
    results = op.attach("Scan", node.inputs[: node.attrs["formal"]], types, {"body": step}, attrs=kept)
    return list(results[len(states) :])


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
