"""Ways into a built explainer that its file does not offer: what is explained, and any seed in place of a target."""

from __future__ import annotations

import json

import onnx

from gbp_onnx.graph.reader import FLOAT_TYPES, captured_names

__all__ = ["with_probes", "with_seed_input"]


def with_probes(explainer: onnx.ModelProto) -> tuple[str, str]:
    """Make a built explainer return, besides, the explained tensor and the seed in front of it (in place); their names.

    The product of the two, summed, is the explained scalar.
    """
    props = {e.key: e.value for e in explainer.metadata_props}
    probes = (props["gbp.explained"], props["gbp.seed_at_explained"])
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
    kind = like.type.tensor_type.elem_type
    info = onnx.helper.make_tensor_value_info(seed, kind if kind in FLOAT_TYPES else onnx.TensorProto.FLOAT, None)
    inputs = [i for i in model.graph.input if i.name != target]
    del model.graph.input[:]
    model.graph.input.extend([*inputs, info])
    needed, kept = {o.name for o in model.graph.output}, []
    for node in reversed(model.graph.node):
        if any(name in needed and name != seed for name in node.output):
            kept.append(node)
            needed.update(node.input)
            needed.update(captured_names(node))
    nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in reversed(kept)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model, seed
