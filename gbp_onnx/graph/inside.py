"""Writes bodies: the graphs inside an If, Loop or Scan that is emitted."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import helper

from gbp_onnx.graph.body import Body
from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.names import names_in
from gbp_onnx.graph.reader import Tensor, empty_graph

__all__ = ["Inside"]

_COPY_LIMIT = 256  # constants up to so many elements are copied into a body, so that they are known there


class Inside(Emitter):
    """Writes a body: the graph of an If, Loop or Scan that `around` emits. Its names are made unique there."""

    def __init__(self, around: Emitter) -> None:
        super().__init__(empty_graph(around.graph.opset), prefix="")
        self.around, self.sweep = around, around.sweep
        self._captured: dict[int, Tensor] = {}
        self._outer: dict[str, Tensor] = {}  # captured name -> the tensor around

    def capture(self, tensor: Tensor) -> Tensor:
        """A tensor of the graph around, seen from inside; a constant where it is a small one."""
        if id(tensor) not in self._captured:
            value = self.around.value(tensor)
            if value is not None and value.size <= _COPY_LIMIT:
                seen = self.constant(value, self.around.elem_type(tensor))
            else:
                seen = self.placeholder(f"captured/{len(self._outer)}", self.around.type_of(tensor))
                self._outer[seen.name] = tensor
            self._captured[id(tensor)] = seen
        return self._captured[id(tensor)]

    def body(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], types: Sequence[onnx.TypeProto] = ()) -> Body:
        """The body that computes `outputs` from its formal `inputs` and what it captured. `types`: of the outputs,
        where sizes matter (ONNX Runtime's Scan wants to know ranks).
        """
        results = [self.publish(t, f"result/{k}") for k, t in enumerate(outputs)]
        nodes, initializers = self.export(results)
        made = [self._info(t) for t in results]
        for info, kind in zip(made, types, strict=False):
            info.type.CopyFrom(kind)
        graph = helper.make_graph(nodes, "body", [self._info(t) for t in inputs], made, initializers)
        read = names_in(graph)
        return Body(graph, {name: t for name, t in self._outer.items() if name in read})

    def _info(self, tensor: Tensor) -> onnx.ValueInfoProto:
        return helper.make_value_info(tensor.name, self.type_of(tensor))
