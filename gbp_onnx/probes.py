"""Ways into a built explainer that its file does not offer: what is explained, any seed in place of a target, and
the forward pass alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Set

import onnx

from gbp_onnx.errors import InputError
from gbp_onnx.graph.reader import captured_names

__all__ = ["forward_of", "forward_part", "probe_names", "with_probes", "with_seed_input"]


def probe_names(props: Mapping[str, str]) -> tuple[str, str]:
    """The explained tensor and the seed in front of it: their product, summed, is the explained scalar."""
    return props["gbp.explained"], props["gbp.seed_at_explained"]


def with_probes(explainer: onnx.ModelProto) -> tuple[str, str]:
    """Make a built explainer return, besides, the explained tensor, the seed in front of it, and what targets point
    into (in place); the names of the first two.
    """
    props = {e.key: e.value for e in explainer.metadata_props}
    probes = probe_names(props)
    present = {o.name for o in explainer.graph.output}
    for name in dict.fromkeys((*probes, props["gbp.output"])):
        if name not in present:
            explainer.graph.output.append(onnx.ValueInfoProto(name=name))  # ONNX Runtime infers the type
    return probes


def with_seed_input(explainer: onnx.ModelProto, double: bool) -> tuple[onnx.ModelProto, str]:
    """A built explainer that takes any seed of the output's shape in place of the target, and that input's name.

    The seed is float32 as the backward graph is; float64 where the output is (`double`). Raises GBP407 for a lowered
    explainer that looks the target's weights up, and has no place for a seed.
    """
    props = {e.key: e.value for e in explainer.metadata_props}
    seed, target = props["gbp.seed"], json.loads(props["gbp.inputs"])["target"]
    model = onnx.ModelProto()
    model.CopyFrom(explainer)
    kind = onnx.TensorProto.DOUBLE if double else onnx.TensorProto.FLOAT
    info = onnx.helper.make_tensor_value_info(seed, kind, None)
    inputs = [i for i in model.graph.input if i.name != target]
    del model.graph.input[:]
    model.graph.input.extend([*inputs, info])
    _prune(model, {seed})
    if any(target in node.input for node in model.graph.node):
        what = f"this explainer takes classes only: its {props.get('gbp.lowering', '')} form looks their weights up"
        raise InputError("GBP407", what, "target", "pass class indices, or build it with lowering='portable'")
    return model, seed


def forward_part(explainer: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """The explainer with these outputs alone, which depend on no target: a forward pass, without any derivative."""
    props, wanted = {e.key: e.value for e in explainer.metadata_props}, set(names)
    target = json.loads(props["gbp.inputs"])["target"]
    model = onnx.ModelProto()
    model.CopyFrom(explainer)
    outputs = [o for o in model.graph.output if o.name in wanted]
    inputs = [i for i in model.graph.input if i.name != target]
    del model.graph.output[:], model.graph.input[:]
    model.graph.output.extend(outputs)
    model.graph.input.extend(inputs)
    _prune(model)
    return model


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
    """Leave out, in place, the nodes and weights that no output needs; `given`: tensors that have become inputs."""
    needed, kept = {o.name for o in model.graph.output}, []
    for node in reversed(model.graph.node):
        if any(name in needed and name not in given for name in node.output):
            kept.append(node)
            needed.update(node.input)
            needed.update(captured_names(node))
    nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in reversed(kept)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    unused = [k for k, t in enumerate(model.graph.initializer) if t.name not in needed]
    for index in reversed(unused):
        del model.graph.initializer[index]
