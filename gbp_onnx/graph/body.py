"""Graphs inside nodes and pieces of graphs: how their names are kept apart when they are put into another graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx

from gbp_onnx.graph.names import bodies_of
from gbp_onnx.graph.reader import Tensor

__all__ = ["Body", "renamed"]


@dataclass(frozen=True, slots=True)
class Body:
    """A graph for a node's attribute. `captures`: names that it reads -> the tensors around it that they stand for."""

    proto: onnx.GraphProto
    captures: Mapping[str, Tensor]

    def captured_values(self) -> list[Tensor]:
        """The captured tensors of which more than the shape is read."""
        read = _values_read(self.proto)
        return [tensor for name, tensor in self.captures.items() if name in read]


def _values_read(graph: onnx.GraphProto) -> set[str]:
    read = {output.name for output in graph.output}
    for node in graph.node:
        if node.op_type not in ("Shape", "Size"):
            read.update(node.input)
        for inner in bodies_of(node):
            read |= _values_read(inner)
    return read


def renamed(graph: onnx.GraphProto, captures: Mapping[str, str], fresh: Callable[[str], str]) -> onnx.GraphProto:
    """A copy in which what it captures is called as in `captures`, and all that it makes has a `fresh` name.

    ONNX wants names that are unique across a graph and the bodies in it.
    """
    made = onnx.GraphProto()
    made.CopyFrom(graph)
    del made.value_info[:]
    names = {**captures, "": ""}
    for value in (*made.input, *made.initializer):
        names[value.name] = value.name = fresh(value.name)
    for node in made.node:
        for name in node.output:
            if name:
                names[name] = fresh(name)
    for node in made.node:
        node.name = fresh(node.name or node.op_type)
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names[name] for name in node.output]
        for inner in bodies_of(node):
            inner.CopyFrom(renamed(inner, names, fresh))
    for value in made.output:
        value.name = names.get(value.name, value.name)
    return made
