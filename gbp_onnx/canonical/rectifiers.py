"""Rectifiers in all their forms, found in the graph: whatever computes max(x, 0), possibly capped.

    Relu(x)                                           LeakyRelu, PRelu, Elu with slope 0
    Clip(x, 0) and Clip(x, 0, cap)                    ThresholdedRelu(x)
    Max(x, 0)                                         Where(x > 0, x, 0), Where(x < 0, 0, x) and kin
    Mul(x, Cast(x > 0))                               Mul(Add(x, Abs(x)), 0.5), Div(Add(x, Abs(x)), 2)
    Min(Relu(x), cap), Clip(Max(x, 0), max=cap)...    a rectifier with a cap after it, as one
    Relu(Min(x, cap)), Max(Clip(x, max=cap), 0)...    or in front of it

Before -> after: each becomes one stand-in ``Rectifier(x) -> y`` (domain "gbp") under the name of the node that makes y.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gbp_onnx.graph.folding import Array
from gbp_onnx.graph.reader import FLOAT_TYPES, Graph, Node, Tensor

__all__ = ["HUGE", "Rectifier", "find_rectifiers"]

UNKNOWN = 0  # the type of what follows an operator that shape inference does not know
_COMPARISONS = ("Greater", "GreaterOrEqual", "Less", "LessOrEqual")


@dataclass(frozen=True, slots=True)
class Rectifier:
    """One rectifier: `node` makes its output from `x`; `inside`: the indices of the nodes that it spans besides."""

    node: Node
    kind: str
    x: Tensor
    threshold: float = 0.0
    cap: float | None = None
    inside: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _Cap:
    """min(x, cap): the other half of a capped rectifier that is written as two nodes."""

    x: Tensor
    cap: float


def find_rectifiers(graph: Graph) -> dict[str, Rectifier]:
    """Every rectifier of the graph, by the name of its output tensor."""
    found: dict[str, Rectifier] = {}
    for node in graph.nodes:
        if node.domain != "" or not node.outputs or node.outputs[0] is None:
            continue
        y = node.outputs[0]
        if graph.elem_type(y) not in FLOAT_TYPES | {UNKNOWN}:
            continue
        rectifier = _plain(graph, node) or _capped_after(graph, node, found)
        if rectifier is None:
            continue
        if rectifier.x.name not in found:  # else what caps x is a rectifier itself, and stays one
            rectifier = _capped_before(graph, rectifier)
        if len(rectifier.inside) > 0:
            found = {k: r for k, r in found.items() if r.node.index not in rectifier.inside}
        found[y.name] = rectifier
    return found


def _plain(graph: Graph, node: Node) -> Rectifier | None:
    """A rectifier that this node completes by itself."""
    form = _FORMS.get(node.op)
    return None if form is None else form(graph, node)


def _relu(graph: Graph, node: Node) -> Rectifier | None:
    return Rectifier(node, "Relu", _x(node))


def _clip(graph: Graph, node: Node) -> Rectifier | None:
    low, high = node.input(1), node.input(2)
    if _scalar(graph, low) != 0:
        return None
    cap = None if high is None else _scalar(graph, high)
    if high is not None and (cap is None or cap <= 0):
        return None
    return Rectifier(node, "Clip", _x(node), cap=None if cap is None or np.isinf(cap) or cap >= HUGE else cap)


def _thresholded(graph: Graph, node: Node) -> Rectifier | None:
    return Rectifier(node, "ThresholdedRelu", _x(node), threshold=float(node.attrs["alpha"]))


def _zero_slope(graph: Graph, node: Node) -> Rectifier | None:
    if node.op == "PRelu":
        slope = graph.constant(node.inputs[1])
        zero = slope is not None and not slope.any()
    else:
        zero = node.attrs["alpha"] == 0
    return Rectifier(node, node.op, _x(node)) if zero else None


def _max(graph: Graph, node: Node) -> Rectifier | None:
    x = _beside(graph, node, lambda value: bool((value == 0).all()))
    return None if x is None else Rectifier(node, "Max", x)


def _where(graph: Graph, node: Node) -> Rectifier | None:
    condition, chosen, other = node.inputs
    if _is_zero(graph, other):
        x, sign = chosen, _sign_test(graph, condition, chosen)
    else:
        x, sign = other, -_sign_test(graph, condition, other)
    zero = other if x is chosen else chosen
    if x is None or not _is_zero(graph, zero) or sign <= 0 or _widens(graph, zero, x):
        return None
    return Rectifier(node, "Where", x)


def _mul(graph: Graph, node: Node) -> Rectifier | None:
    """x * [x > 0], and (x + |x|) * 1/2"""
    for x, mask in (node.inputs, node.inputs[::-1]):
        cast = graph.producer(mask)
        if x is not None and cast is not None and cast.op == "Cast" and _sign_test(graph, cast.inputs[0], x) > 0:
            return Rectifier(node, "Mul", x)
        inner = _x_plus_abs(graph, x)
        if inner is not None and _scalar(graph, mask) == 0.5 and not _widens(graph, mask, inner):
            return Rectifier(node, "Abs", inner)
    return None


def _div(graph: Graph, node: Node) -> Rectifier | None:
    inner, two = _x_plus_abs(graph, node.inputs[0]), node.inputs[1]
    taken = inner is not None and _scalar(graph, two) == 2 and not _widens(graph, two, inner)
    return Rectifier(node, "Abs", inner) if inner is not None and taken else None


_FORMS: dict[str, Callable[[Graph, Node], Rectifier | None]] = {
    "Relu": _relu,
    "Clip": _clip,
    "ThresholdedRelu": _thresholded,
    "LeakyRelu": _zero_slope,
    "PRelu": _zero_slope,
    "Elu": _zero_slope,
    "Max": _max,
    "Where": _where,
    "Mul": _mul,
    "Div": _div,
}


def _capped_after(graph: Graph, node: Node, found: dict[str, Rectifier]) -> Rectifier | None:
    """min(max(x, 0), cap), where nothing else reads the uncapped value."""
    cap = _cap(graph, node)
    if cap is None:
        return None
    inner = found.get(cap.x.name)
    if inner is None or inner.cap is not None or inner.threshold or cap.cap <= 0 or not _only_reader(graph, cap.x):
        return None
    return Rectifier(node, inner.kind, inner.x, cap=cap.cap, inside=(*inner.inside, inner.node.index))


def _capped_before(graph: Graph, rectifier: Rectifier) -> Rectifier:
    """max(min(x, cap), 0), where nothing else reads the half-way value."""
    before = graph.producer(rectifier.x)
    cap = None if before is None else _cap(graph, before)
    if before is None or cap is None or rectifier.cap is not None or rectifier.threshold or cap.cap <= 0:
        return rectifier
    if not _only_reader(graph, rectifier.x):
        return rectifier
    return Rectifier(rectifier.node, rectifier.kind, cap.x, cap=cap.cap, inside=(*rectifier.inside, before.index))


def _cap(graph: Graph, node: Node) -> _Cap | None:
    """min(x, cap) as Min or as Clip with an upper bound, and a lower one that is absent or below every cap."""
    if node.domain != "":
        return None
    if node.op == "Min" and len(node.inputs) == 2:
        x = _beside(graph, node, lambda value: bool((value == value.flat[0]).all()))
        bound = node.inputs[1] if x is node.inputs[0] else node.inputs[0]
        value = None if x is None else graph.constant(bound)
        return None if x is None or value is None else _Cap(x, float(value.flat[0]))
    if node.op == "Clip" and node.input(2) is not None:
        low, high = node.input(1), _scalar(graph, node.input(2))
        lowest = -np.inf if low is None else _scalar(graph, low)
        if high is not None and lowest is not None and lowest <= -HUGE:
            return _Cap(_x(node), high)
    return None


HUGE = 3.4028234e38  # exporters write the largest float32 for "no bound"


def _only_reader(graph: Graph, tensor: Tensor) -> bool:
    return len(graph.readers(tensor)) == 1 and not graph.is_output(tensor)


def _x(node: Node) -> Tensor:
    x = node.inputs[0]
    if x is None:
        raise ValueError(f"{node!r} has no input")
    return x


def _y(node: Node) -> Tensor:
    y = node.outputs[0]
    if y is None:
        raise ValueError(f"{node!r} has no output")
    return y


def _scalar(graph: Graph, tensor: Tensor | None) -> float | None:
    """The value of a constant with one element."""
    value = graph.constant(tensor)
    return float(value.reshape(-1)[0]) if value is not None and value.size == 1 and value.dtype.kind in "fiu" else None


def _is_zero(graph: Graph, tensor: Tensor | None) -> bool:
    value = graph.constant(tensor)
    return value is not None and value.size > 0 and not value.any()


def _beside(graph: Graph, node: Node, accept: Callable[[Array], bool]) -> Tensor | None:
    """The other input of a node of two, where one is an acceptable constant that does not widen the result."""
    if len(node.inputs) != 2:
        return None
    for x, bound in (node.inputs, node.inputs[::-1]):
        value = graph.constant(bound)
        if x is None or value is None or value.size == 0 or not accept(value):
            continue
        if not _widens(graph, bound, x):
            return x
    return None


def _widens(graph: Graph, bound: Tensor | None, x: Tensor | None) -> bool:
    """Whether a constant beside `x` may broadcast it to a larger shape (or to more axes)."""
    value, shape = graph.constant(bound), None if x is None else graph.shape(x)
    if value is None:
        return True
    if shape is None:
        return value.ndim > 1 or value.size != 1
    tail = shape[len(shape) - value.ndim :] if value.ndim else ()
    return value.ndim > len(shape) or any(b not in (1, d) for b, d in zip(value.shape, tail, strict=True))


def _sign_test(graph: Graph, condition: Tensor | None, x: Tensor | None) -> int:
    """1 where `condition` is x > 0 (or x >= 0), -1 where it is x < 0 (or x <= 0), else 0."""
    test = graph.producer(condition)
    if test is None or x is None or test.domain != "":
        return 0
    if test.op == "Not":
        return -_sign_test(graph, test.inputs[0], x)
    if test.op not in _COMPARISONS:
        return 0
    left, right = test.inputs
    if left is not None and left.name == x.name and _is_zero(graph, right) and not _widens(graph, right, x):
        return 1 if test.op.startswith("Greater") else -1
    if right is not None and right.name == x.name and _is_zero(graph, left) and not _widens(graph, left, x):
        return 1 if test.op.startswith("Less") else -1
    return 0


def _x_plus_abs(graph: Graph, tensor: Tensor | None) -> Tensor | None:
    """x, where `tensor` is x + |x|"""
    total = graph.producer(tensor)
    if total is None or total.op != "Add":
        return None
    for x, magnitude in (total.inputs, total.inputs[::-1]):
        absolute = graph.producer(magnitude)
        if x is not None and absolute is not None and absolute.op == "Abs" and _x(absolute).name == x.name:
            return x
    return None
