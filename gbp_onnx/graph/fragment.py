"""A piece of a graph: nodes with named inputs and outputs, to be written into another graph.

What a body computes, and what its derivative computes, are fragments: a branch, a step of a loop, or a few nodes among
others once they are placed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import onnx
from onnx import numpy_helper

from gbp_onnx.graph.body import Body
from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.names import bodies_of
from gbp_onnx.graph.reader import Graph, Tensor, captured_names

__all__ = ["Fragment", "fragment", "place"]


@dataclass(frozen=True, slots=True)
class Fragment:
    """Nodes in order. `inputs`, `outputs`: names; `types`: of the outputs."""

    nodes: tuple[onnx.NodeProto, ...]
    initializers: Mapping[str, onnx.TensorProto]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    types: tuple[onnx.TypeProto, ...]

    def needed(self) -> Fragment:
        """Without the nodes that no output needs."""
        wanted, kept = set(self.outputs), list[onnx.NodeProto]()
        for node in reversed(self.nodes):
            if wanted & set(node.output):
                wanted |= {*node.input, *captured_names(node)}
                kept.append(node)
        return replace(self, nodes=tuple(reversed(kept)))

    def reads(self) -> set[str]:
        """The inputs that the nodes read or that are outputs themselves."""
        read = {name for node in self.nodes for name in (*node.input, *captured_names(node))}
        return (read | set(self.outputs)) & set(self.inputs)


def fragment(graph: Graph, op: Emitter, seeds: Sequence[Tensor], outputs: Sequence[Tensor]) -> Fragment:
    """The graph's nodes followed by those emitted for `outputs`; reads the graph's inputs and `seeds`."""
    emitted, initializers = op.export(outputs)
    nodes = [_with_added_outputs(op, index, node) for index, node in enumerate(graph.model.graph.node)]
    constants = {t.name: t for t in (*graph.model.graph.initializer, *initializers)}
    types = [op.type_of(t) for t in outputs]
    names = [t.name for t in outputs]
    inputs = [t.name for t in (*graph.inputs, *seeds)]
    return Fragment((*nodes, *emitted), constants, tuple(inputs), tuple(names), tuple(types)).needed()


def _with_added_outputs(op: Emitter, index: int, node: onnx.NodeProto) -> onnx.NodeProto:
    added = {position: t.name for (place, position), t in op.added_outputs.items() if place == index}
    if not added:
        return node
    made = onnx.NodeProto()
    made.CopyFrom(node)
    for position, name in added.items():
        made.output.extend([""] * (position + 1 - len(made.output)))
        made.output[position] = name
    return made


def place(op: Emitter, what: Fragment, arguments: Sequence[Tensor | None]) -> list[Tensor]:
    """Write the fragment's nodes with `op`; `arguments` stand for its inputs (None for one that it does not read)."""
    seen = {n: t for n, t in zip(what.inputs, arguments, strict=True) if t is not None}
    types = dict(zip(what.outputs, what.types, strict=True))

    def tensor(name: str) -> Tensor | None:
        if name and name not in seen:
            data = what.initializers[name]
            seen[name] = op.constant(numpy_helper.to_array(data), data.data_type)
        return seen.get(name)

    for node in what.nodes:
        bodies = {
            a.name: Body(a.g, {n: t for n in sorted(_captured_by(node, a.name)) if (t := tensor(n)) is not None})
            for a in node.attribute
            if a.HasField("g")
        }
        kinds = [types.get(name, onnx.TypeProto()) if name else None for name in node.output]
        made = op.attach(node.op_type, [tensor(n) for n in node.input], kinds, bodies, node, list(node.output))
        seen |= {name: t for name, t in zip(node.output, made, strict=True) if name}
    return [t for name in what.outputs if (t := tensor(name)) is not None]


def _captured_by(node: onnx.NodeProto, attribute: str) -> set[str]:
    """The names that one of the node's bodies reads from around it."""
    alone = onnx.NodeProto()
    alone.attribute.extend(a for a in node.attribute if a.name == attribute)
    return captured_names(alone) if bodies_of(alone) else set()
