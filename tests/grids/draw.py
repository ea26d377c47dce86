"""One drawn configuration: a node, its inputs, which of them are differentiated, stored, or of unknown size."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.vjp_check import session

__all__ = ["Draw", "Given", "Random", "spread"]

Random = np.random.RandomState


@dataclass
class Given:
    """One input. `wrt`: differentiated; `stored`: an initializer."""

    value: np.ndarray
    wrt: bool = False
    stored: bool = False


@dataclass
class Draw:
    """A model of one node. `free`: sizes of differentiated inputs are unknown; `linear`: in each input alone.

    `coarse`: ONNX Runtime computes it in float32 alone, so that the differences are coarse.
    """

    op: str
    inputs: list[Given | None]
    attrs: dict[str, Any] = field(default_factory=dict)
    opset: int = 17
    outputs: int = 1
    linear: bool = False
    coarse: bool = False
    free: bool = False
    domain: str = ""
    alike: list[int] = field(default_factory=list)  # inputs that are the first one, read again

    def name(self, index: int) -> str:
        return "a" if index in self.alike else "abcdefghijkl"[index]

    @property
    def feeds(self) -> dict[str, np.ndarray]:
        return {self.name(k): i.value for k, i in enumerate(self.inputs) if i is not None and not i.stored}

    @property
    def wrt(self) -> list[str]:
        named = {self.name(k): k for k, i in enumerate(self.inputs) if i is not None and i.wrt and not i.stored}
        return list(named)

    def model(self) -> onnx.ModelProto:
        """The model, its outputs declared as ONNX Runtime finds them; raises what ONNX Runtime raises."""
        names = ["" if i is None else self.name(k) for k, i in enumerate(self.inputs)]
        while names and not names[-1]:
            names.pop()
        results = [f"y{k}" for k in range(self.outputs)]
        node = helper.make_node(self.op, names, results, domain=self.domain, **self.attrs)
        inputs, stored = [], []
        for name, given in {n: g for n, g in zip(names, self.inputs, strict=False) if g is not None}.items():
            if given.stored:
                stored.append(numpy_helper.from_array(given.value, name))
                continue
            free = self.free and given.wrt
            shape = [f"{name}{k}" if free else d for k, d in enumerate(given.value.shape)]
            kind = helper.np_dtype_to_tensor_dtype(given.value.dtype)
            inputs.append(helper.make_tensor_value_info(name, kind, shape))
        outputs = [onnx.ValueInfoProto(name=r) for r in results]
        graph = helper.make_graph([node], "drawn", inputs, outputs, stored)
        opsets = [helper.make_opsetid("", self.opset)]
        if self.domain:
            opsets.append(helper.make_opsetid(self.domain, 1))
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8 if self.opset < 20 else 10)
        made = session(model).run(None, self.feeds)
        for output, value in zip(model.graph.output, made, strict=True):
            kind = helper.np_dtype_to_tensor_dtype(value.dtype)
            shape = [None] * value.ndim if self.free else value.shape
            output.CopyFrom(helper.make_tensor_value_info(output.name, kind, shape))
        return model


def spread(random: Random, shape: tuple[int, ...], dtype: Any = np.float32, low: float = -1, high: float = 1) -> Any:
    """Distinct values, evenly spread and shuffled: no two on the kink of a maximum, none at 0."""
    count = int(np.prod(shape))
    steps = (random.permutation(count) + random.uniform(0.3, 0.7)) / max(count, 1)
    return np.asarray((low + (high - low) * steps).reshape(shape), dtype)
