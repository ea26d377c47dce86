"""LSTM, GRU and RNN, written out: the standard's formulas as a graph of Scan, MatMul and activations.

The derivative is that of the written-out graph (`equations`); the node itself stays as it is. So a cell's Relu is a
rectifier like any other, gated in each step. One direction is one Scan
over time, whose body is one step of the cell; the products with the inputs are made for all times at once before it.
Reading backwards is a matter of the scan's direction. A sequence that ends early keeps its state beyond its end, and
its Y is 0 there; read backwards it keeps its initial state until its end comes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from onnx import GraphProto, NodeProto, TensorProto, helper

from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.reader import Node, Tensor
from gbp_onnx.vjp.recompute import by_equivalent
from gbp_onnx.vjp.registry import Cotangents, Refusal, vjp

__all__ = ["cell_activations", "equations", "is_rectifier"]

INPUTS = {
    "LSTM": ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"),
    "GRU": ("X", "W", "R", "B", "sequence_lens", "initial_h"),
    "RNN": ("X", "W", "R", "B", "sequence_lens", "initial_h"),
}
ACTIVATIONS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
"""What each operator uses for f, g and h where the node names nothing."""
STATES = {"LSTM": 2, "GRU": 1, "RNN": 1}


@dataclass
class Lines:
    """Writes the nodes of a graph: ``line.Add(a, b)`` is a node, and the name of its output."""

    prefix: str
    elem_type: int
    opset: int
    nodes: list[NodeProto] = field(default_factory=list)

    def __getattr__(self, op_type: str) -> Callable[..., Any]:
        if not op_type[0].isupper():
            raise AttributeError(op_type)

        def write(*inputs: str, outputs: int = 1, **attrs: Any) -> Any:
            place = f"{self.prefix}{op_type.lower()}_{len(self.nodes)}"
            names = [place] if outputs == 1 else [f"{place}_{k}" for k in range(outputs)]
            self.nodes.append(helper.make_node(op_type, inputs, names, place, **attrs))
            return names[0] if outputs == 1 else names

        return write

    def number(self, value: float) -> str:
        """A constant of the element type."""
        return str(self.Constant(value=helper.make_tensor("value", self.elem_type, [], [value])))

    def integers(self, *values: int) -> str:
        """A constant int64 vector."""
        return str(self.Constant(value=helper.make_tensor("value", TensorProto.INT64, [len(values)], values)))

    def split(self, tensor: str, parts: int, axis: int) -> list[str]:
        """Equal parts along an axis."""
        more = {"num_outputs": parts} if self.opset >= 18 else {}
        return [tensor] if parts == 1 else list(self.Split(tensor, axis=axis, outputs=parts, **more))


# --- derivatives --------------------------------------------------------------------------------------------------


@vjp("RNN", since=7, outputs="all")
def rnn(op: Emitter, node: Node, cts: tuple[Tensor | None, ...]) -> Cotangents:
    """that of h' = f(x W^T + h R^T + b), through a Scan over time"""
    return by_equivalent(op, node, cts, equations(node, op.elem_type(node.inputs[0]), op.graph.opset))


@vjp("GRU", since=7, outputs="all")
def gru(op: Emitter, node: Node, cts: tuple[Tensor | None, ...]) -> Cotangents:
    """that of h' = (1 - z) * n + z * h, through a Scan over time"""
    return by_equivalent(op, node, cts, equations(node, op.elem_type(node.inputs[0]), op.graph.opset))


@vjp("LSTM", since=7, outputs="all")
def lstm(op: Emitter, node: Node, cts: tuple[Tensor | None, ...]) -> Cotangents:
    """that of c' = f * c + i * g, h' = o * tanh(c'), through a Scan over time"""
    return by_equivalent(op, node, cts, equations(node, op.elem_type(node.inputs[0]), op.graph.opset))


# --- activations --------------------------------------------------------------------------------------------------

Activation = Callable[[Lines, str], str]


def _affine(line: Lines, x: str, alpha: float, beta: float) -> str:
    """alpha * x + beta"""
    return str(line.Add(line.Mul(x, line.number(alpha)), line.number(beta)))


def _scaled_tanh(line: Lines, x: str, alpha: float, beta: float) -> str:
    """alpha * tanh(beta * x)"""
    return str(line.Mul(line.Tanh(line.Mul(x, line.number(beta))), line.number(alpha)))


_WRITTEN_OUT = {"Affine": _affine, "ScaledTanh": _scaled_tanh}
_OPERATORS = ("Relu", "Tanh", "Sigmoid", "LeakyRelu", "ThresholdedRelu", "HardSigmoid", "Elu", "Softsign", "Softplus")
_NAMES = {name.lower(): name for name in (*_OPERATORS, *_WRITTEN_OUT)}
_ALPHA = {"Affine": 0.0, "LeakyRelu": 0.01, "ThresholdedRelu": 0.0, "ScaledTanh": 0.0, "HardSigmoid": 0.2, "Elu": 1.0}
_BETA = {"Affine": 0.0, "ScaledTanh": 0.0, "HardSigmoid": 0.5}
"""Values where the node gives none, as ONNX Runtime has them (the standard has none for Affine and ScaledTanh, and 1
for ThresholdedRelu's alpha).
"""


def cell_activations(node: Node) -> list[tuple[str, float | None, float | None]]:
    """Name, alpha and beta of the node's activations, in its order; those that take one share out what is given.

    Empty for other operators.
    """
    if node.domain != "" or node.op not in ACTIVATIONS:
        return []
    directions = 2 if node.attrs.get("direction") == "bidirectional" else 1
    named = node.attrs.get("activations") or ACTIVATIONS[node.op] * directions
    alphas, betas = (iter(node.attrs.get(f"activation_{which}") or ()) for which in ("alpha", "beta"))
    made = []
    for written in named[: len(ACTIVATIONS[node.op]) * directions]:
        text = written.decode() if isinstance(written, bytes) else written
        name = _NAMES.get(text.lower(), text)
        alpha = next(alphas, _ALPHA[name]) if name in _ALPHA else None
        made.append((name, alpha, next(betas, _BETA[name]) if name in _BETA else None))
    return made


def is_rectifier(name: str, alpha: float | None) -> bool:
    """Whether an activation of a cell computes max(x, 0); so the rules gate it."""
    return name in ("Relu", "ThresholdedRelu") or (name in ("LeakyRelu", "Elu") and alpha == 0)


def _activation(name: str, alpha: float | None, beta: float | None) -> Activation:
    if name in _WRITTEN_OUT:
        return lambda line, x: _WRITTEN_OUT[name](line, x, alpha or 0.0, beta or 0.0)
    if name not in _NAMES.values():
        raise Refusal(f"its activation {name!r} is not one of the standard's")
    attrs = {key: value for key, value in (("alpha", alpha), ("beta", beta)) if value is not None}
    return lambda line, x: str(getattr(line, name)(x, **attrs))


# --- one step of a cell -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """What one direction's steps have in common. `matrices`: R transposed, and `biases`: Rb, for a GRU gate by gate."""

    attrs: dict[str, Any]
    chosen: Sequence[Activation]
    matrices: Sequence[str]
    biases: Sequence[str] = ()
    peepholes: Sequence[str] = ()  # of i, o and f

    def product(self, line: Lines, h: str, gate: int = 0) -> str:
        """h R^T + Rb"""
        through = line.MatMul(h, self.matrices[gate])
        return str(line.Add(through, self.biases[gate]) if self.biases else through)

    def clipped(self, line: Lines, x: str) -> str:
        """x within +-clip, in front of an activation"""
        bound = self.attrs.get("clip")
        return str(line.Clip(x, line.number(-bound), line.number(bound))) if bound else x


def rnn_step(line: Lines, cell: Cell, x: str, states: Sequence[str]) -> tuple[str, ...]:
    """h' = f(x W^T + Wb + h R^T + Rb)"""
    (h,), (f,) = states, cell.chosen
    return (f(line, cell.clipped(line, line.Add(x, cell.product(line, h)))),)


def gru_step(line: Lines, cell: Cell, x: str, states: Sequence[str]) -> tuple[str, ...]:
    """z, r = f(x W^T + Wb + h R^T + Rb);  n = g(x W^T + Wb + (r * h) R^T + Rb);  h' = (1 - z) * n + z * h

    with linear_before_reset n = g(x W^T + Wb + r * (h R^T + Rb))
    """
    (h,), (f, g) = states, cell.chosen
    to_z, to_r, to_n = line.split(x, 3, 1)
    z = f(line, cell.clipped(line, line.Add(to_z, cell.product(line, h, 0))))
    r = f(line, cell.clipped(line, line.Add(to_r, cell.product(line, h, 1))))
    if cell.attrs.get("linear_before_reset"):
        through = line.Mul(r, cell.product(line, h, 2))
    else:
        through = cell.product(line, line.Mul(r, h), 2)
    n = g(line, cell.clipped(line, line.Add(to_n, through)))
    return (line.Add(line.Mul(line.Sub(line.number(1.0), z), n), line.Mul(z, h)),)


def lstm_step(line: Lines, cell: Cell, x: str, states: Sequence[str]) -> tuple[str, ...]:
    """i, f, o = f(.. + P * c), for o with c';  c' = f * c + i * g(..);  h' = o * h(c');  .. = x W^T + Wb + h R^T + Rb

    with input_forget f = 1 - i
    """
    (h, c), (f, g, last) = states, cell.chosen
    to_i, to_o, to_f, to_c = line.split(line.Add(x, cell.product(line, h)), 4, 1)

    def gate(part: str, k: int, seen: str) -> str:
        peeped = line.Add(part, line.Mul(cell.peepholes[k], seen)) if cell.peepholes else part
        return f(line, cell.clipped(line, peeped))

    i = gate(to_i, 0, c)
    forget = line.Sub(line.number(1.0), i) if cell.attrs.get("input_forget") else gate(to_f, 2, c)
    c = line.Add(line.Mul(forget, c), line.Mul(i, g(line, cell.clipped(line, to_c))))
    return line.Mul(gate(to_o, 1, c), last(line, c)), c


STEPS = {"LSTM": lstm_step, "GRU": gru_step, "RNN": rnn_step}

# --- the whole operator -------------------------------------------------------------------------------------------


def equations(node: Node, elem_type: int, opset: int, prefix: str = "") -> GraphProto:
    """A graph that computes what `node` computes, of standard operators that are each differentiable.

    Its inputs bear the standard's names of those that the node has, its outputs are Y, Y_h (and Y_c); every name starts
    with `prefix`.
    """
    present = [name for k, name in enumerate(INPUTS[node.op]) if node.input(k) is not None]
    given = {name: f"{prefix}{name}" for name in present}
    line = Lines(prefix, elem_type, opset)
    batch_first = bool(node.attrs.get("layout", 0))
    if batch_first:
        given |= {name: line.Transpose(given[name], perm=[1, 0, 2]) for name in present if name.startswith("initial")}
        given["X"] = line.Transpose(given["X"], perm=[1, 0, 2])
    direction = node.attrs.get("direction", "forward")
    count = 2 if direction == "bidirectional" else 1
    chosen, size = [_activation(*a) for a in cell_activations(node)], len(ACTIVATIONS[node.op])
    shared: dict[str, str] = {name: given[name] for name in ("X", "sequence_lens") if name in given}
    parts = {name: line.split(tensor, count, 0) for name, tensor in given.items() if name not in shared}
    made = []
    for k in range(count):
        own: dict[str, str] = {name: line.Squeeze(part[k], line.integers(0)) for name, part in parts.items()}
        backwards = direction == "reverse" or k == 1
        made.append(_direction(line, node, {**shared, **own}, chosen[k * size :][:size], backwards))
    results = []
    for k, pieces in enumerate(zip(*made, strict=True)):
        axis = 1 if k == 0 else 0  # Y is [time, direction, batch, hidden], the states lack the time
        placed = [line.Unsqueeze(part, line.integers(axis)) for part in pieces]
        result = line.Concat(*placed, axis=axis)
        if batch_first:
            result = line.Transpose(result, perm=[2, 0, 1, 3] if k == 0 else [1, 0, 2])
        results.append(line.Identity(result))
        line.nodes[-1].output[0] = results[-1] = f"{prefix}{('Y', 'Y_h', 'Y_c')[k]}"
    kinds = {name: TensorProto.INT32 if name == "sequence_lens" else elem_type for name in present}
    ranks = {"X": 3, "W": 3, "R": 3, "B": 2, "sequence_lens": 1, "initial_h": 3, "initial_c": 3, "P": 2}
    inputs = [helper.make_tensor_value_info(f"{prefix}{n}", kinds[n], [None] * ranks[n]) for n in present]
    outputs = [
        helper.make_tensor_value_info(name, elem_type, [None] * (4 if k == 0 else 3)) for k, name in enumerate(results)
    ]
    return helper.make_graph(line.nodes, f"{prefix}equations", inputs, outputs)


def _direction(
    line: Lines, node: Node, given: dict[str, str], chosen: Sequence[Activation], backwards: bool
) -> tuple[str, ...]:
    """One direction: the hidden states of all times [time, batch, hidden], then the last state(s) [batch, hidden]."""
    apart = 3 if node.op == "GRU" else 1  # its reset gate stands between h and one of the products
    x, biases = line.MatMul(given["X"], line.Transpose(given["W"], perm=[1, 0])), list[str]()
    if "B" in given:
        of_w, of_r = line.split(given["B"], 2, 0)
        x, biases = line.Add(x, of_w), line.split(of_r, apart, 0)
    matrices = line.split(line.Transpose(given["R"], perm=[1, 0]), apart, 1)
    peepholes = line.split(given["P"], 3, 0) if "P" in given else ()
    cell = Cell(node.attrs, chosen, matrices, biases, peepholes)
    states = [_initial(line, given, name) for name in ("initial_h", "initial_c")[: STATES[node.op]]]
    scanned = [x]
    if "sequence_lens" in given:
        scanned.append(_running(line, given))
    body = _body(line, node.op, cell, len(states), len(scanned) == 2, f"{line.prefix}{len(line.nodes)}_")
    way = [int(backwards)]
    results = line.Scan(
        *states,
        *scanned,
        outputs=len(states) + 1,
        body=body,
        num_scan_inputs=len(scanned),
        scan_input_directions=way * len(scanned),
        scan_output_directions=way,
    )
    return results[-1], *results[:-1]


def _body(outer: Lines, op: str, cell: Cell, states: int, masked: bool, prefix: str) -> GraphProto:
    """One step: the states and this time's inputs to the new states and h; beyond a sequence's end all stay, h is 0."""
    line = Lines(prefix, outer.elem_type, outer.opset)
    old, x, running = [f"{prefix}state_{k}" for k in range(states)], f"{prefix}x", f"{prefix}running"
    new = STEPS[op](line, cell, x, old)
    h = new[0]
    if masked:
        h = line.Where(running, h, line.number(0.0))
        new = tuple(line.Where(running, after, before) for after, before in zip(new, old, strict=True))
    results = [line.Identity(name) for name in (*new, h)]
    inputs = [helper.make_tensor_value_info(name, line.elem_type, [None, None]) for name in (*old, x)]
    if masked:
        inputs.append(helper.make_tensor_value_info(running, TensorProto.BOOL, [None, 1]))
    outputs = [helper.make_tensor_value_info(name, line.elem_type, [None, None]) for name in results]
    return helper.make_graph(line.nodes, f"{prefix}{op.lower()}", inputs, outputs)


def _initial(line: Lines, given: dict[str, str], name: str) -> str:
    """The initial state [batch, hidden]: zeros where none is given, and for a sequence of length 0 (ONNX Runtime)."""
    if name in given:
        if "sequence_lens" not in given:
            return given[name]
        lengths = line.Unsqueeze(line.Cast(given["sequence_lens"], to=TensorProto.INT64), line.integers(1))
        return str(line.Where(line.Greater(lengths, line.integers(0)), given[name], line.number(0.0)))
    batch, hidden = line.Shape(given["X"], start=1, end=2), line.Shape(given["R"], start=1, end=2)
    zero = helper.make_tensor("value", line.elem_type, [1], [0.0])
    return str(line.ConstantOfShape(line.Concat(batch, hidden, axis=0), value=zero))


def _running(line: Lines, given: dict[str, str]) -> str:
    """Whether each sequence has not ended yet: bool [time, batch, 1]."""
    time = line.Squeeze(line.Shape(given["X"], start=0, end=1), line.integers(0))
    zero, one = (line.Constant(value=helper.make_tensor("value", TensorProto.INT64, [], [v])) for v in (0, 1))
    times = line.Unsqueeze(line.Range(zero, time, one), line.integers(1, 2))
    ends = line.Unsqueeze(line.Cast(given["sequence_lens"], to=TensorProto.INT64), line.integers(0, 2))
    return str(line.Less(times, ends))
