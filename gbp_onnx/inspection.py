"""What the tool sees in a model before it explains anything: inputs, head, rectifiers, and what stands in the way."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import onnx

from gbp_onnx.canonical.passes import canonical_model
from gbp_onnx.errors import Reason
from gbp_onnx.graph.files import ModelSource, read_model
from gbp_onnx.graph.reader import Graph, Tensor
from gbp_onnx.imaging.preprocess import from_metadata
from gbp_onnx.rules import RULES, check_rectify
from gbp_onnx.target import is_explainer, notes, plan, reasons_against, ungated
from gbp_onnx.vjp import is_known

__all__ = ["Inspection", "inspect"]


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found. `rectifiers` and `ungated`: {"name", "kind"} of each; `unsupported`: {"code", "op", "node",
    "why"} of each.
    """

    inputs: tuple[dict[str, Any], ...]
    outputs: tuple[dict[str, Any], ...]
    explained: str
    wrt: tuple[str, ...]
    head: dict[str, str] | None
    rectifiers: tuple[dict[str, str], ...]
    ungated: tuple[dict[str, str], ...]
    unsupported: tuple[dict[str, str], ...]
    preprocess: dict[str, Any] | None
    warnings: tuple[str, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Gated rectifiers by kind."""
        return dict(Counter(r["kind"] for r in self.rectifiers))

    def to_json(self) -> str:
        """The findings as JSON: inputs, outputs, head, rectifiers, ungated, unsupported, preprocess, warnings."""
        keys = ("inputs", "outputs", "head", "rectifiers", "ungated", "unsupported", "preprocess", "warnings")
        return json.dumps(
            {key: getattr(self, key) for key in keys} | {"explained": self.explained, "wrt": self.wrt}, indent=2
        )


def inspect(
    model: ModelSource,
    *,
    output: str | None = None,
    wrt: str | None = None,
    explain: str = "logit",
    rectify: Iterable[str] = (),
) -> Inspection:
    """Look at a model as `build` would, without refusing: what cannot be differentiated is listed in `unsupported`.

    Arguments as for `build`; a built explainer is looked at as the model that it was made of.
    Raises ModelError (GBP1xx) where the file cannot be read, or has no image input or float output.
    """
    file, families = read_model(model, leave=True), check_rectify(rectify)
    loaded, where = file.model, file.where
    props = {e.key: e.value for e in loaded.metadata_props}
    if is_explainer(loaded):
        output, wrt = output or props["gbp.output"], wrt or json.loads(props["gbp.inputs"])["image"]
    preprocess = from_metadata(props)
    graph = Graph(canonical_model(loaded, is_known))
    scheme = plan(graph, output=output, wrt=wrt, explain=explain, where=where)
    live, reasons = scheme.live(), reasons_against(scheme, families)
    said = [] if reasons else notes(scheme, tuple(RULES), families)
    infos = {i.name: i for i in (*graph.model.graph.input, *graph.model.graph.output)}
    return Inspection(
        inputs=tuple(_described(graph, t, infos) for t in graph.inputs),
        outputs=tuple(_described(graph, t, infos) for t in graph.outputs),
        explained=scheme.explained.name,
        wrt=tuple(t.name for t in scheme.wrt),
        head=None
        if scheme.head is None
        else {"output": scheme.output.name, "op": scheme.head.node.op, "node": scheme.head.node.name},
        rectifiers=tuple(
            {"name": r.node.name, "kind": r.kind} for name, r in scheme.view.rectifiers.items() if name in live
        ),
        ungated=tuple({"name": n.name, "kind": n.op} for n in ungated(scheme, families)),
        unsupported=tuple(_reason(r) for r in reasons),
        preprocess=None if preprocess is None else preprocess.to_dict(),
        warnings=tuple(said),
    )


def _described(graph: Graph, tensor: Tensor, infos: dict[str, onnx.ValueInfoProto]) -> dict[str, Any]:
    kind = graph.elem_type(tensor)
    declared = infos[tensor.name].type.tensor_type.shape.dim
    dims = [d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in declared]
    return {
        "name": tensor.name,
        "type": onnx.TensorProto.DataType.Name(kind).lower() if kind else "other",
        "shape": dims,
    }


def _reason(reason: Reason) -> dict[str, str]:
    return {"code": reason.code, "op": reason.op, "node": reason.node, "why": reason.why}
