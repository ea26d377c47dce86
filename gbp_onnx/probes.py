"""Ways into a built explainer that its file does not offer: what is explained, and any seed in place of a target."""

from __future__ import annotations

import json
from collections.abc import Mapping, Set

import onnx

from gbp_onnx.graph.reader import captured_names

__all__ = ["forward_of", "probe_names", "with_probes", "with_seed_input"]


def probe_names(props: Mapping[str, str]) -> tuple[str, str]:
    """The explained tensor and the seed in front of it: their product, summed, is the explained scalar."""
    return props["gbp.explained"], props["gbp.seed_at_explained"]


def with_probes(explainer: onnx.ModelProto) -> tuple[str, str]:
    """Make a built explainer return, besides, the explained tensor and the seed in front of it (in place); their
    names.
    """
    props = {e.key: e.value for e in explainer.metadata_props}
    probes = probe_names(props)
    present = {o.name for o in explainer.graph.output}
    for name in dict.fromkeys(probes):
        if name not in present:
            explainer.graph.output.append(onnx.ValueInfoProto(name=name))  # ONNX Runtime infers the type
    return probes


def with_seed_input(explainer: onnx.ModelProto) -> tuple[onnx.ModelProto, str]:
    """A built explainer that takes any seed of the output's shape in place of the target, and that input's name."""
    props = {e.key: e.value for e in explainer.metadata_props}
    seed, target, output = props["gbp.seed"], json.loads(props["gbp.inputs"])["target"], props["gbp.output"]
    model = onnx.ModelProto()
    model.CopyFrom(explainer)
    like = next(o for o in model.graph.output if o.name == output)
    info = onnx.helper.make_tensor_value_info(seed, like.type.tensor_type.elem_type, None)
    inputs = [i for i in model.graph.input if i.name != target]
    del model.graph.input[:]
    model.graph.input.extend([*inputs, info])
    _prune(model, {seed})
    return model, seed


def forward_of(explainer: onnx.ModelProto) -> onnx.ModelProto:
    """The forward part of a built explainer: the same inputs, and the two probes as its only outputs."""
    props = {e.key: e.value for e in explainer.metadata_props}
    model = onnx.ModelProto()
    model.CopyFrom(explainer)
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(probe_names(props)))
    _prune(model)
    return model


def _prune(model: onnx.ModelProto, given: Set[str] = frozenset()) -> None:
    """Drop the nodes that no output needs; what is `given` comes from outside."""
    needed, kept = {o.name for o in model.graph.output}, []
    for node in reversed(model.graph.node):
        if any(name in needed and name not in given for name in node.output):
            kept.append(node)
            needed.update(node.input)
            needed.update(captured_names(node))
    nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in reversed(kept)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
