"""What is explained: the output, its head, the image input, the seed that a target stands for. Builds the explainer
file.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from gbp_onnx.canonical.head import Head, find_head
from gbp_onnx.canonical.passes import canonical_model
from gbp_onnx.canonical.view import View
from gbp_onnx.errors import GbpWarning, InputError, ModelError, OperatorError, Reason, is_quantised
from gbp_onnx.gradient import as_type, named
from gbp_onnx.graph.assemble import append, set_metadata, value_info
from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.files import ModelFile, ModelSource, read_model
from gbp_onnx.graph.reader import FLOAT_TYPES, INTEGER_TYPES, Graph, Node, Tensor
from gbp_onnx.rules import ACTIVATIONS, Overrides, check_rectify, check_rules, overrides
from gbp_onnx.sweep import backpropagate, live_tensors
from gbp_onnx.version import package_version
from gbp_onnx.vjp import Stop, derivative_of, is_known

__all__ = [
    "Plan",
    "build",
    "build_loaded",
    "is_explainer",
    "notes",
    "plan",
    "reasons_against",
    "ungated",
]

EXPLAIN = ("logit", "output")


def build(
    model: ModelSource,
    rules: Sequence[str] | str = ("guided",),
    *,
    output: str | None = None,
    wrt: Sequence[str] | str | None = None,
    explain: str = "logit",
    rectify: Iterable[str] = (),
) -> onnx.ModelProto:
    """The explainer: a model that returns, beside its own outputs, the attribution of an image under each rule.

    `model`: path, bytes or ModelProto (never modified). `rules`: of "saliency", "deconvnet", "guided"; they share one
    forward pass. `output`: the
    explained output (default: the first float one that comes from a Softmax, LogSoftmax or Sigmoid, else the first
    float one). `wrt`: the image
    input (default: the first of rank 3 or more; several names give ``attribution_<rule>_<input>``). `explain`: "logit"
    puts the
    seed in front of that trailing head, "output" explains the output as it is. `rectify`: "leaky", "smooth" (see
    `rules`).

    Inputs of the result: the source's, then ``target``, int64 [N], one class index or flat index into the image's
    output for each image, -1 for
    the largest value. Outputs: the source's, then ``attribution_<rule>``, float32, in the shape and layout of the
    image input, per unit of that
    input. A name that is taken gets ``_1``, ``_2``...; metadata ``gbp.inputs`` and ``gbp.outputs`` say which is which.
    Warns (GbpWarning) of what should be known about the maps: no rectifier, activations that no rule gates, a deconvnet
    map that is the same for every image. Where the source and its weights are larger than 2 GiB, the weights stay in
    their data file, to which the result refers: write it with `save`.
    Raises ModelError (GBP1xx), or OperatorError (GBP2xx) with every obstacle.
    """
    built = build_loaded(read_model(model), rules, output=output, wrt=wrt, explain=explain, rectify=rectify)
    for note in json.loads(next(e.value for e in built.metadata_props if e.key == "gbp.warnings")):
        warnings.warn(note, GbpWarning, stacklevel=2)
    return built


def build_loaded(
    file: ModelFile,
    rules: Sequence[str] | str,
    *,
    output: str | None = None,
    wrt: Sequence[str] | str | None = None,
    explain: str = "logit",
    rectify: Iterable[str] = (),
) -> onnx.ModelProto:
    """`build` for a model that is read already and may be changed; says nothing. Weights on disk stay there."""
    names, families, where = check_rules(rules), check_rectify(rectify), file.where
    if is_explainer(file.model):
        raise ModelError(
            "GBP111", "this model is a built explainer already", where, "build from the model that it was made of"
        )
    scheme = plan(Graph(canonical_model(file.model, is_known)), output=output, wrt=wrt, explain=explain, where=where)
    try:
        return _emit(scheme, names, families, file.digests())
    except OperatorError as error:
        if error.reasons and error.code != "GBP203":
            raise OperatorError.of(error.reasons, where) from None
        raise


@dataclass(frozen=True, slots=True)
class Plan:
    """What is explained in which graph, and with respect to what. `head` is None where the output is explained as it
    is.
    """

    graph: Graph
    view: View
    output: Tensor
    head: Head | None
    wrt: tuple[Tensor, ...]
    where: str
    form: str  # "logit" or "output", as asked

    @property
    def explained(self) -> Tensor:
        """The tensor whose entry is explained: in front of the head, or the output."""
        before = None if self.head is None else self.head.node.inputs[0]
        return self.output if before is None else before

    def live(self) -> set[str]:
        """Names of the tensors through which the gradient flows."""
        return live_tensors(self.view, [self.output.name], self.wrt)


def plan(graph: Graph, *, output: str | None, wrt: Sequence[str] | str | None, explain: str, where: str) -> Plan:
    """Choose the output, its head and the image input. Raises GBP108, GBP109, GBP110, GBP410."""
    if explain not in EXPLAIN:
        raise InputError("GBP410", f"{explain!r} is no way to explain", "explain", f"choose from {', '.join(EXPLAIN)}")
    chosen = _choose_output(graph, output, where)
    head = find_head(graph, chosen) if explain == "logit" else None
    inputs = named(graph.inputs, wrt, "input", where) if wrt else [_image_input(graph, where)]
    for tensor in inputs:
        if graph.elem_type(tensor) not in FLOAT_TYPES | INTEGER_TYPES:
            raise ModelError(
                "GBP108", f"input {tensor.name!r} does not hold numbers", where, "name a float or integer input"
            )
    return Plan(graph, View(graph, None if head is None else head.node), chosen, head, tuple(inputs), where, explain)


def is_explainer(model: onnx.ModelProto) -> bool:
    """Whether the model was made by `build`."""
    return any(entry.key == "gbp.rules" for entry in model.metadata_props)


def ungated(scheme: Plan, families: Iterable[str] = ()) -> list[Node]:
    """The activations on the way to the image that no rule gates."""
    table, live = overrides("guided", families), scheme.live()
    return [
        n
        for n in scheme.view.nodes
        if ((n.domain, n.op) in ACTIVATIONS or _is_hard_clip(n))
        and (n.domain, n.op) not in table
        and any(t is not None and t.name in live for t in n.inputs)
        and any(t is not None and t.name in live for t in n.outputs)
    ]


def notes(scheme: Plan, rules: Sequence[str], families: Sequence[str]) -> list[str]:
    """What the user should know about the maps of this model before looking at one."""
    live = scheme.live()
    gated = [r for name, r in scheme.view.rectifiers.items() if name in live]
    found, masking = [], [r for r in rules if r != "saliency"]
    loose = ungated(scheme, families)
    kinds = ", ".join(f"{sum(n.op == k for n in loose)} {k}" for k in sorted({n.op for n in loose}))
    if masking and not gated and not families:
        equal = f"{' and '.join(masking)} equal the plain gradient (saliency)"
        found.append(
            f"no rectifier lies on the way to the image: {equal}" + (f"; it has {kinds} (see rectify)" if kinds else "")
        )
    elif masking and loose:
        found.append(
            f"no rule gates these activations, so the map is partly a plain gradient: {kinds} (see inspect, rectify)"
        )
    return found


def reasons_against(scheme: Plan, families: Iterable[str] = ()) -> tuple[Reason, ...]:
    """Every reason why this model cannot be explained; empty where it can."""
    try:
        _emit(scheme, ("saliency",), check_rectify(families), {})
    except OperatorError as error:
        return error.reasons or (Reason(error.code, "", scheme.output.name, error.what),)
    return ()


def _emit(scheme: Plan, rules: Sequence[str], families: Sequence[str], digests: Mapping[str, str]) -> onnx.ModelProto:
    graph, op = scheme.graph, Emitter(scheme.graph)
    if not any(t.name in scheme.live() for t in scheme.wrt):
        raise _independent(scheme)
    target = op.placeholder("target", onnx.TensorProto.INT64)
    seed = _seed(op, scheme, target)
    seeds = {scheme.output.name: seed}
    infos = {i.name: i for i in (*graph.model.graph.input, *graph.model.graph.output)}
    results, roles, said = [], {}, notes(scheme, rules, families)
    for rule in rules:
        table: Overrides = overrides(rule, families)
        cts = backpropagate(scheme.view, op, seeds, scheme.wrt, table, "grad" if len(rules) == 1 else f"grad/{rule}")
        for tensor in scheme.wrt:
            role = f"attribution_{rule}" + (f"_{tensor.name}" if len(scheme.wrt) > 1 else "")
            attribution = as_type(op, cts.get(tensor.name), onnx.TensorProto.FLOAT, tensor)
            if (
                rule == "deconvnet"
                and not op.reads(attribution, stop=[seed]) & scheme.live()
                and not _reads_added(op, attribution, seed)
            ):
                said.append(
                    "deconvnet reads nothing of the forward pass here (no pooling, no gate): "
                    "its map is the same for every image"
                )
            published = op.publish(attribution, role)
            roles[role] = published.name
            results.append((published, value_info(infos[tensor.name], "", onnx.TensorProto.FLOAT)))
    at_explained = seed
    if scheme.head is not None:  # after the rules' sweeps, which report every obstacle
        at_explained = backpropagate(scheme.view, op, seeds, [scheme.explained], {}, "grad")[scheme.explained.name]
    model = append(graph, op, [_target_info(scheme, target.name, infos)], results)
    set_metadata(
        model,
        {
            "gbp.version": package_version(),
            **digests,
            "gbp.rules": json.dumps(list(rules)),
            "gbp.rectify": json.dumps(list(families)),
            "gbp.explain": "logit" if scheme.head is not None else scheme.form,
            "gbp.output": scheme.output.name,
            "gbp.explained": scheme.explained.name,
            "gbp.head": "" if scheme.head is None else scheme.head.node.op,
            "gbp.inputs": json.dumps({"image": scheme.wrt[0].name, "target": target.name}),
            "gbp.outputs": json.dumps(roles),
            "gbp.batched": json.dumps(_batched(scheme)),
            "gbp.seed": seed.name,
            "gbp.seed_at_explained": at_explained.name,
            "gbp.warnings": json.dumps(said),
        },
    )
    return model


def _reads_added(op: Emitter, attribution: Tensor, seed: Tensor) -> bool:
    """Whether a forward node's added output (a MaxPool's Indices) is read."""
    return bool(op.reads(attribution, stop=[seed]) & {t.name for t in op.added_outputs.values()})


def _seed(op: Emitter, scheme: Plan, target: Tensor) -> Tensor:
    """One-hot in the output's shape: 1 at each image's target, the largest value's place where it is -1."""
    output = scheme.output
    kind = op.elem_type(output)
    if _single(scheme):  # the whole output belongs to that image, with or without a batch axis
        rows = op.Reshape(output, [1, -1])
    else:
        rows = op.Reshape(output, [-1, 1] if scheme.graph.rank(output) in (0, 1) else [0, -1])
    largest = op.ArgMax(rows, axis=1, keepdims=0)
    index = op.Where(op.Less(target, 0), largest, target)
    classes = op.Gather(op.Shape(rows), [1], axis=0)
    one_hot = op.OneHot(index, classes, op.constant(np.asarray([0, 1], np.float32)), axis=-1)
    typed = one_hot if kind == onnx.TensorProto.FLOAT else op.Cast(one_hot, to=kind)
    seed: Tensor = op.Reshape(typed, op.Shape(output), allowzero=1)
    op.name(seed, f"grad/seed/{output.name}")
    return seed


def _batched(scheme: Plan) -> bool:
    """Whether the first axis of the image input counts images: always in rank 4 and up.

    In rank 3 it does where its size is open, or where an operator reads the input that takes batches only (a signal
    [N, C, L] under Conv); else the input is one picture without a batch axis.
    """
    image = scheme.wrt[0]
    shape = scheme.graph.shape(image)
    if shape is None or len(shape) != 3:
        return True
    return not isinstance(shape[0], int) or any(n.op in _TAKES_BATCHES for n in scheme.graph.readers(image))


_TAKES_BATCHES = ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "BatchNormalization", "InstanceNormalization")


def _single(scheme: Plan) -> bool:
    """Whether the model takes one image only: a batch axis of 1, or none."""
    shape = scheme.graph.shape(scheme.wrt[0])
    return not _batched(scheme) or (shape is not None and shape[0] == 1)


def _target_info(scheme: Plan, name: str, infos: dict[str, onnx.ValueInfoProto]) -> onnx.ValueInfoProto:
    """int64 [N], N as the image input calls it; 1 for an image input without batch axis."""
    info = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, [None])
    dims = infos[scheme.wrt[0].name].type.tensor_type.shape.dim
    if not _batched(scheme):
        info.type.tensor_type.shape.dim[0].dim_value = 1
    elif dims and (dims[0].dim_param or dims[0].dim_value > 0):
        info.type.tensor_type.shape.dim[0].CopyFrom(dims[0])
    return info


def _choose_output(graph: Graph, output: str | None, where: str) -> Tensor:
    if output is not None:
        chosen = named(graph.outputs, output, "output", where)[0]
        if graph.elem_type(chosen) not in FLOAT_TYPES:
            raise ModelError("GBP109", f"output {output!r} is not float", where, "name a float output")
        return chosen
    floats = [t for t in graph.outputs if graph.elem_type(t) in FLOAT_TYPES]
    if not floats:
        _refuse_quantised(graph, where)
        kinds = ", ".join(
            f"{t.name!r} ({onnx.TensorProto.DataType.Name(graph.elem_type(t)).lower()})" for t in graph.outputs
        )
        raise ModelError(
            "GBP109", f"the model has no float output, only {kinds}", where, "make the scores an output of the model"
        )
    return next((t for t in floats if find_head(graph, t) is not None), floats[0])


def _refuse_quantised(graph: Graph, where: str) -> None:
    """Say that a model without float outputs is a quantised one, where it is; every quantising node is a reason."""
    why = "no derivative is known for this operator"
    reasons = tuple(Reason("GBP201", n.op, n.name, why) for n in graph.nodes if is_quantised(n.op))
    if reasons:
        raise OperatorError.of(reasons, where)


def _image_input(graph: Graph, where: str) -> Tensor:
    for tensor in graph.inputs:
        if (graph.rank(tensor) or 0) >= 3 and graph.elem_type(tensor) in FLOAT_TYPES | INTEGER_TYPES:
            return tensor
    kinds = ", ".join(f"{t.name!r} {list(graph.shape(t) or ())}" for t in graph.inputs) or "none"
    raise ModelError(
        "GBP108",
        f"the model has no numeric input of rank 3 or more (its inputs: {kinds})",
        where,
        "name the input with wrt",
    )


def _independent(scheme: Plan) -> OperatorError:
    """GBP203, naming the operators that stop the gradient on the way, if any do."""
    on_the_way = scheme.view.between(scheme.wrt, [scheme.output])
    stops = tuple(
        Reason("GBP203", n.op, n.name, f"stops the gradient: {entry.why}")
        for n in scheme.view.nodes
        if isinstance(entry := derivative_of(n), Stop)
        and any(t is not None and t.name in on_the_way for t in n.outputs)
    )
    names = ", ".join(t.name for t in scheme.wrt)
    return OperatorError(
        "GBP203",
        f"no gradient flows from output {scheme.output.name!r} to {names}" + (":" if stops else ""),
        scheme.where,
        "choose another output with output=...",
        stops,
    )


def _is_hard_clip(node: Node) -> bool:
    return node.op == "Clip" and node.domain == ""
