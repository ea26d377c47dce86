"""Names that are free."""

from __future__ import annotations

import onnx

__all__ = ["bodies_of", "names_in", "unique_name"]


def unique_name(name: str, taken: set[str]) -> str:
    """`name`, or `name_1`, `name_2`... where it is taken; the result is added to `taken`."""
    candidate, count = name, 0
    while candidate in taken:
        count += 1
        candidate = f"{name}_{count}"
    taken.add(candidate)
    return candidate


def names_in(graph: onnx.GraphProto) -> set[str]:
    """Every name of a tensor or node, those inside bodies included."""
    names = {v.name for v in (*graph.input, *graph.initializer, *graph.output, *graph.value_info)}
    for node in graph.node:
        names.update((*node.input, *node.output, node.name))
        for inner in bodies_of(node):
            names |= names_in(inner)
    return names


def bodies_of(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The graphs inside a node: branches, and what a loop repeats."""
    return [
        graph
        for attribute in node.attribute
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs)
    ]
