"""Ways into a built explainer that its file does not offer: what is explained, any seed in place of a target, and
the forward pass alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence, Set

import onnx

from gbp_onnx.graph.reader import captured_names
from gbp_onnx.lowering.draft import PROBES

__all__ = [
    "for_given_classes",
    "forward_of",
    "forward_part",
    "probe_names",
    "prune",
    "takes_seeds",
    "with_probes",
    "with_seed_input",
]


def probe_names(props: Mapping[str, str]) -> tuple[str, str]:
    """The explained tensor and the seed in front of it: their product, summed, is the explained scalar."""
    return props["gbp.explained"], props["gbp.seed_at_explained"]


def with_probes(explainer: onnx.ModelProto) -> tuple[str, str]:
    """Make a built explainer return, besides, the explained tensor, the seed in front of it, and what targets point
    into (in place), as far as a lowered one still has them; the names of the first two.
    """
    props = {e.key: e.value for e in explainer.metadata_props}
    probes = probe_names(props)
    present = {o.name for o in explainer.graph.output}
    made = {name for node in explainer.graph.node for name in node.output}
    for name in dict.fromkeys((*probes, props["gbp.output"])):
        if name not in present and name in made:
            explainer.graph.output.append(onnx.ValueInfoProto(name=name))  # ONNX Runtime infers the type
    return probes


def takes_seeds(explainer: onnx.ModelProto) -> bool:
    """Whether nothing but the seed reads the target, so that any seed may stand in its place; a lowered file may have
    no seed.
    """
    props = {e.key: e.value for e in explainer.metadata_props}
    made = any(props["gbp.seed"] in node.output for node in explainer.graph.node)
    return made and json.loads(props["gbp.inputs"])["target"] not in _needed(explainer, {props["gbp.seed"]})[1]


def with_seed_input(explainer: onnx.ModelProto, double: bool) -> tuple[onnx.ModelProto, str]:
    """A built explainer that takes any seed of the output's shape in place of the target, and that input's name.

    The seed is float32 as the backward graph is; float64 where the output is (`double`). Only for one that takes seeds
    (see `takes_seeds`).
    """
    props = {e.key: e.value for e in explainer.metadata_props}
    seed, target = props["gbp.seed"], json.loads(props["gbp.inputs"])["target"]
    kind = onnx.TensorProto.DOUBLE if double else onnx.TensorProto.FLOAT
    info = onnx.helper.make_tensor_value_info(seed, kind, None)
    model = _copy(explainer, inputs=[*(i for i in explainer.graph.input if i.name != target), info])
    prune(model, {seed})
    return model, seed


def for_given_classes(explainer: onnx.ModelProto) -> onnx.ModelProto | None:
    """A built explainer that takes class indices as they are, from 0 on, and returns the attributions alone: what only
    the scores need is left out. None where the index is not found (a lowered file).
    """
    props = {e.key: e.value for e in explainer.metadata_props}
    target, maps = json.loads(props["gbp.inputs"])["target"], set(json.loads(props["gbp.outputs"]).values())
    made = {name: node for node in explainer.graph.node for name in node.output}
    index = next(
        (
            node.output[0]
            for node in explainer.graph.node
            if node.op_type == "Where"
            and list(node.input[2:]) == [target]
            and (test := made.get(node.input[0])) is not None
            and (test.op_type, test.input[0]) == ("Less", target)
        ),
        None,
    )
    if index is None:
        return None
    model = _copy(explainer, outputs=[o for o in explainer.graph.output if o.name in maps])
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name == index:
                node.input[place] = target
    prune(model)
    for place in reversed([k for k, e in enumerate(model.metadata_props) if e.key in PROBES]):
        del model.metadata_props[place]  # nobody asks for them here: a lowered form may do without
    return model


def forward_part(explainer: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """The explainer with these outputs alone, which depend on no target: a forward pass, without any derivative."""
    props, wanted = {e.key: e.value for e in explainer.metadata_props}, set(names)
    target = json.loads(props["gbp.inputs"])["target"]
    inputs = [i for i in explainer.graph.input if i.name != target]
    model = _copy(explainer, [o for o in explainer.graph.output if o.name in wanted], inputs)
    prune(model)
    return model


def forward_of(explainer: onnx.ModelProto) -> onnx.ModelProto:
    """The forward part of a built explainer: the same inputs, and the two probes as its only outputs."""
    props = {e.key: e.value for e in explainer.metadata_props}
    model = _copy(explainer, [onnx.ValueInfoProto(name=name) for name in dict.fromkeys(probe_names(props))])
    prune(model)
    return model


def _copy(
    explainer: onnx.ModelProto,
    outputs: Sequence[onnx.ValueInfoProto] | None = None,
    inputs: Sequence[onnx.ValueInfoProto] | None = None,
) -> onnx.ModelProto:
    """A copy with these outputs and inputs, or its own."""
    model = onnx.ModelProto()
    model.CopyFrom(explainer)
    for infos, own in ((outputs, model.graph.output), (inputs, model.graph.input)):
        if infos is not None:
            del own[:]
            own.extend(infos)
    return model


def prune(model: onnx.ModelProto, given: Set[str] = frozenset()) -> None:
    """Leave out, in place, the nodes and weights that no output needs; `given`: tensors that have become inputs."""
    kept, needed = _needed(model, given)
    nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in kept]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    unused = [k for k, t in enumerate(model.graph.initializer) if t.name not in needed]
    for index in reversed(unused):
        del model.graph.initializer[index]


def _needed(model: onnx.ModelProto, given: Set[str]) -> tuple[list[onnx.NodeProto], set[str]]:
    """The nodes that some output needs, in order, and the names of all tensors that these nodes and outputs read."""
    needed, kept = {o.name for o in model.graph.output}, []
    for node in reversed(model.graph.node):
        if any(name in needed and name not in given for name in node.output):
            kept.append(node)
            needed.update(node.input)
            needed.update(captured_names(node))
    return kept[::-1], needed
