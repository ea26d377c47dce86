"""Which tensor a target points into: an output of the model, or the last one with a derivative before its tail.

The tail: nodes behind the scores that only decide or repackage and through which no gradient flows (ArgMax, Hardmax,
NonMaxSuppression, ZipMap, LabelEncoder, a Cast to integers, ...), or that only sort (TopK).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx

from gbp_onnx.canonical.head import MOVERS, find_head, open_quantizers
from gbp_onnx.canonical.pixels import PIXEL_TYPES
from gbp_onnx.canonical.quantizers import find_quantizers
from gbp_onnx.errors import ModelError
from gbp_onnx.graph.reader import FLOAT_TYPES, INTEGER_TYPES, Graph, Node, Tensor
from gbp_onnx.vjp import Derivative, Stop, derivative_of

__all__ = ["Chosen", "Tail", "choose_output", "labels_in"]

PICKERS = (
    "Concat",
    "Expand",
    "Gather",
    "GatherElements",
    "GatherND",
    "Resize",
    "Slice",
    "Split",
    "Tile",
    "TopK",
    "Where",
)
"""Operators that pick or repeat what was decided, in a tail."""
COUNTERS = ("Add", "Div", "Max", "Min", "Mod", "Mul", "Sub")
"""Arithmetic on positions, in a tail."""


@dataclass(frozen=True, slots=True)
class Tail:
    """What stands between the tensor that is explained and the model's output. `node`: the one right behind it."""

    node: Node
    output: Tensor

    @property
    def axis(self) -> int | None:
        """The axis over which the tail decides: the classes' one."""
        axis = self.node.attrs.get("axis")
        return int(axis) if axis is not None else None


@dataclass(frozen=True, slots=True)
class Chosen:
    """The tensor that targets point into. `tail` is None where it is an output of the model."""

    output: Tensor
    tail: Tail | None = None

    def note(self, graph: Graph) -> str | None:
        """What the user should know of the choice, in words."""
        if self.tail is None:
            if graph.is_output(self.output):
                return None
            return f"target: {self.output.name!r} is an inner tensor, no output of the model"
        node, output = self.tail.node, self.tail.output
        why = "only sorts" if node.op == "TopK" else "has no derivative"
        return (
            f"target: output {output.name!r} comes out of {node.op} (node {node.name!r}), which {why}; targets are "
            f"places in the tensor in front of it, {self.output.name!r}"
        )


def choose_output(graph: Graph, wrt: Sequence[Tensor], name: str | None, where: str, as_it_is: bool = False) -> Chosen:
    """The output that is explained, or the tensor in front of its tail; `name`: any float tensor of the graph.

    Without a name: the first float output that comes from a Softmax, LogSoftmax or Sigmoid, else the first float
    one that holds no boxes which another output scores, else what stands in front of the tails. `as_it_is`: a
    TopK's values count as an output like any other. Raises GBP109, GBP110.
    """
    carriers = _carriers(graph, wrt)
    if name is not None:
        named = _named(graph, name, where)
        if _holds_scores(graph, named) and (named.name in carriers or not graph.is_output(named)):
            return Chosen(named) if as_it_is else _before_sorting(graph, named)
        found = _before_tail(graph, [named], carriers)
        if found is None and graph.elem_type(named) not in FLOAT_TYPES:
            raise ModelError("GBP109", f"output {name!r} is not float", where, "name a float output")
        return found or Chosen(named)
    floats = [t for t in graph.outputs if graph.elem_type(t) in FLOAT_TYPES]
    live = [t for t in floats if t.name in carriers]
    live = live or [t for t in graph.outputs if t.name in carriers and _holds_scores(graph, t)]
    if live:
        candidates = [Chosen(t) if as_it_is else _before_sorting(graph, t) for t in live]
        scores = [c for c in candidates if not _holds_boxes(graph, c, candidates)] or candidates
        return next((c for c in scores if find_head(graph, c.output) is not None), scores[0])
    found = _before_tail(graph, graph.outputs, carriers)
    if found is not None:
        return found
    if floats:
        return Chosen(floats[0])  # nothing flows from it, and the sweep will say why
    kinds = ", ".join(f"{t.name!r} ({_kind(graph, t)})" for t in graph.outputs)
    raise ModelError(
        "GBP109", f"the model has no float output, only {kinds}", where, "make the scores an output of the model"
    )


def labels_in(graph: Graph) -> tuple[str, ...] | None:
    """The class names that a ZipMap or a decision by position holds; None where the model holds none."""
    for node in graph.nodes:
        names: Sequence[object] | None = node.attrs.get("classlabels_strings") if node.op == "ZipMap" else None
        if names and all(isinstance(n, str | bytes) for n in names):
            return tuple(n.decode("utf-8", "replace") if isinstance(n, bytes) else str(n) for n in names)
    return None


def _carriers(graph: Graph, wrt: Sequence[Tensor]) -> set[str]:
    """Names of the tensors to which a gradient could flow from `wrt`'s side, whether or not it is known how.

    Integers that are made of floats carry none (a TopK's places), unless they are quantised or cast floats; those that
    are made of integers do (the pixels of an integer input).
    """
    found, quantised = {t.name for t in wrt}, find_quantizers(graph).keys()
    for node in graph.nodes:
        if _only_decides(node):
            continue
        arriving = [t for t in node.inputs if t is not None and t.name in found]
        if not arriving and not found & node.captures:
            continue
        keeps = any(graph.elem_type(t) in INTEGER_TYPES for t in arriving)
        for made in node.outputs:
            if made is None:
                continue
            rounded = node.op == "Cast" and graph.elem_type(made) in PIXEL_TYPES
            if keeps or rounded or made.name in quantised or not _is_whole(graph, made):
                found.add(made.name)
    return found


def _holds_scores(graph: Graph, tensor: Tensor) -> bool:
    """Whether a tensor is float, or integers that a quantiser made and that stand for real numbers."""
    return graph.elem_type(tensor) in FLOAT_TYPES or bool(open_quantizers(graph, tensor, find_head(graph, tensor)))


def _is_whole(graph: Graph, tensor: Tensor) -> bool:
    return graph.elem_type(tensor) not in FLOAT_TYPES | {0}


def _named(graph: Graph, name: str, where: str) -> Tensor:
    """The output, or else the inner tensor, of that name."""
    outputs = {t.name: t for t in graph.outputs}
    if name in outputs:
        return outputs[name]
    tensor = graph.tensors.get(name)
    if tensor is not None and graph.producer(tensor) is not None and graph.elem_type(tensor) in FLOAT_TYPES:
        return tensor
    known = ", ".join(f"{t.name!r} {list(graph.shape(t) or ())}" for t in graph.outputs) or "none"
    raise ModelError("GBP110", f"the model has no output {name!r}", where, f"its outputs are {known}")


def _before_sorting(graph: Graph, output: Tensor) -> Chosen:
    """TopK(scores) -> values -> output  =>  scores: a class has one place there, whatever its rank."""
    node = graph.producer(output)
    while node is not None and node.domain == "" and node.op in MOVERS:
        node = graph.producer(node.inputs[0])
    if node is None or node.domain != "" or node.op != "TopK" or node.inputs[0] is None:
        return Chosen(output)
    return Chosen(node.inputs[0], Tail(node, output))


def _before_tail(graph: Graph, outputs: Sequence[Tensor], carriers: set[str]) -> Chosen | None:
    """The last float tensor that carries a gradient on the ways back from `outputs`; one with a head before others."""
    found = [c for output in outputs for c in _frontier(graph, output, carriers)]
    order = {id(n): k for k, n in enumerate(graph.nodes)}

    def place(chosen: Chosen) -> tuple[bool, int]:
        producer = graph.producer(chosen.output)
        return find_head(graph, chosen.output) is not None, -1 if producer is None else order[id(producer)]

    return max((c for c in found if graph.producer(c.output) is not None), key=place, default=None)


def _frontier(graph: Graph, output: Tensor, carriers: set[str]) -> Iterator[Chosen]:
    """The carriers that are met first on the ways back from `output`."""
    waiting, seen = [output], {output.name}
    while waiting:
        node = graph.producer(waiting.pop())
        if node is None or not _is_tail(node):
            continue
        # of NonMaxSuppression's inputs, the scores are what a class has a place in
        inputs = node.inputs[1:2] if node.op == "NonMaxSuppression" else node.inputs
        for tensor in inputs:
            if tensor is None or tensor.name in seen:
                continue
            seen.add(tensor.name)
            if tensor.name in carriers and _holds_scores(graph, tensor):
                yield Chosen(tensor, Tail(node, output))
            else:
                waiting.append(tensor)


def _is_tail(node: Node) -> bool:
    """Whether a node only decides, repackages or counts; a layer behind a decision makes the model undifferentiable."""
    return _only_decides(node) or (node.domain == "" and node.op in (*MOVERS, *PICKERS, *COUNTERS))


def _only_decides(node: Node) -> bool:
    """Whether no gradient flows through it: it stops there, or it is of ai.onnx.ml and has no derivative."""
    entry = derivative_of(node)
    return isinstance(entry, Stop) or (node.domain == "ai.onnx.ml" and not isinstance(entry, Derivative))


def _holds_boxes(graph: Graph, chosen: Chosen, candidates: Sequence[Chosen]) -> bool:
    """Whether these are the boxes of a detector (four numbers each) whose scores are another candidate."""
    shape = graph.shape(chosen.output)
    if shape is None or len(shape) < 2 or shape[-1] != 4:
        return False
    name = chosen.output.name.lower()
    for other in candidates:
        theirs = graph.shape(other.output)
        if other is chosen or theirs is None:
            continue
        rows = theirs == shape[:-1]  # one score for each box
        classes = len(shape) > 2 and len(theirs) == len(shape) and theirs[:-1] == shape[:-1] and theirs[-1] != 4
        named = ("box" in name or "loc" in name) and ("score" in other.output.name.lower())
        if named or ((rows or classes) and isinstance(shape[-2], int)):
            return True
    return False


def _kind(graph: Graph, tensor: Tensor) -> str:
    name: str = onnx.TensorProto.DataType.Name(graph.elem_type(tensor)).lower()
    return name
