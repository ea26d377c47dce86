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

from gbp_onnx.canonical.head import Head, find_head, open_quantizers
from gbp_onnx.canonical.inner import read_graph
from gbp_onnx.canonical.passes import canonical_model
from gbp_onnx.canonical.quantizers import Quantizer
from gbp_onnx.canonical.view import View
from gbp_onnx.collection import collection_put_off
from gbp_onnx.errors import GbpWarning, InputError, ModelError, OperatorError, Reason
from gbp_onnx.gradient import as_type, named
from gbp_onnx.graph.assemble import append, set_metadata, value_info
from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.files import ModelFile, ModelSource, read_model
from gbp_onnx.graph.reader import FLOAT_TYPES, INTEGER_TYPES, Graph, Node, Tensor
from gbp_onnx.lowering import check_lowering, lower
from gbp_onnx.outputs import Chosen, choose_output, labels_in
from gbp_onnx.rules import ACTIVATIONS, RECTIFIER, Overrides, check_rectify, check_rules, overrides
from gbp_onnx.several import largest_or, ranked, stacked, stacked_info
from gbp_onnx.sweep import backpropagate
from gbp_onnx.version import package_version
from gbp_onnx.vjp import Stop, derivative_of, is_known
from gbp_onnx.vjp.careful import careful_emitter
from gbp_onnx.vjp.control import live_nodes
from gbp_onnx.vjp.live import live_tensors
from gbp_onnx.vjp.quantized import dequantised, rescaled
from gbp_onnx.vjp.recurrent import cell_activations, is_rectifier

__all__ = [
    "Plan",
    "build",
    "build_loaded",
    "gated",
    "is_explainer",
    "notes",
    "plan",
    "reasons_against",
    "remarks",
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
    lowering: str = "portable",
) -> onnx.ModelProto:
    """The explainer: a model that returns, beside its own outputs, the attribution of an image under each rule.

    `model`: path, bytes or ModelProto (never modified). `rules`: of "saliency", "deconvnet", "guided"; they share one
    forward pass. `output`: the
    explained output (default: the first float one that comes from a Softmax, LogSoftmax or Sigmoid, else the first
    float one). `wrt`: the image
    input (default: the first of rank 3 or more; several names give ``attribution_<rule>_<input>``). `explain`: "logit"
    puts the
    seed in front of that trailing head, "output" explains the output as it is. `rectify`: "leaky", "smooth" (see
    `rules`). `lowering`: the form of the backward part: "portable" (plain, for any runtime), "cpu" or "cuda" (faster in
    that provider of ONNX Runtime, the same maps), "auto" (what suits this machine); see `lowering.lower`.

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
    form = check_lowering(lowering)
    built = build_loaded(read_model(model), rules, output=output, wrt=wrt, explain=explain, rectify=rectify)
    lower(built, form)
    for note in json.loads(next(e.value for e in built.metadata_props if e.key == "gbp.warnings")):
        warnings.warn(note, GbpWarning, stacklevel=2)
    return built


@collection_put_off()
def build_loaded(
    file: ModelFile,
    rules: Sequence[str] | str,
    *,
    output: str | None = None,
    wrt: Sequence[str] | str | None = None,
    explain: str = "logit",
    rectify: Iterable[str] = (),
    several: int = 0,
) -> onnx.ModelProto:
    """`build` for a model that is read already and may be changed; says nothing. Weights on disk stay there.

    `several`: so many targets of one image share its forward pass. The result, which is no file to ship, takes one
    image and ``target``, int64 [several] (-1: the largest value, -2: the second largest...); each attribution, and the
    seed in front of the explained tensor, has a leading axis of that size, in place of a batch axis.
    """
    names, families, where = check_rules(rules), check_rectify(rectify), file.where
    if is_explainer(file.model):
        raise ModelError(
            "GBP111", "this model is a built explainer already", where, "build from the model that it was made of"
        )
    graph = read_graph(canonical_model(file.model, is_known), is_known)
    scheme = plan(graph, output=output, wrt=wrt, explain=explain, where=where)
    try:
        return _emit(scheme, names, families, file.digests(), several)
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
    chosen: Chosen
    head: Head | None
    wrt: tuple[Tensor, ...]
    where: str
    form: str  # "logit" or "output", as asked
    last: Quantizer | None = None  # the quantiser nearest to the output, where nothing computes in between

    @property
    def output(self) -> Tensor:
        """The tensor that targets point into: an output of the model, or what stands in front of its tail."""
        return self.chosen.output

    @property
    def explained(self) -> Tensor:
        """The tensor whose entry is explained: in front of the head, or the output."""
        before = None if self.head is None else self.head.node.inputs[0]
        return self.output if before is None else before

    def live(self) -> set[str]:
        """Names of the tensors through which the gradient flows."""
        return live_tensors(self.view, [self.output.name], self.wrt)

    def nodes(self) -> list[Node]:
        """The nodes through which the gradient flows, those inside bodies too."""
        return list(live_nodes(self.view, [self.output.name], self.wrt))


def plan(graph: Graph, *, output: str | None, wrt: Sequence[str] | str | None, explain: str, where: str) -> Plan:
    """Choose the output, its head and the image input. Raises GBP108, GBP109, GBP110, GBP410."""
    if explain not in EXPLAIN:
        raise InputError("GBP410", f"{explain!r} is no way to explain", "explain", f"choose from {', '.join(EXPLAIN)}")
    inputs = named(graph.inputs, wrt, "input", where) if wrt else [_image_input(graph, where)]
    for tensor in inputs:
        if graph.elem_type(tensor) not in FLOAT_TYPES | INTEGER_TYPES:
            raise ModelError(
                "GBP108", f"input {tensor.name!r} does not hold numbers", where, "name a float or integer input"
            )
    chosen = choose_output(graph, inputs, output, where, as_it_is=explain == "output")
    head = find_head(graph, chosen.output) if explain == "logit" else None
    last = open_quantizers(graph, chosen.output, head)
    view = View(graph, None if head is None else head.node, is_known, last.keys())
    return Plan(graph, view, chosen, head, tuple(inputs), where, explain, next(iter(last.values()), None))


def is_explainer(model: onnx.ModelProto) -> bool:
    """Whether the model was made by `build`."""
    return any(entry.key == "gbp.rules" for entry in model.metadata_props)


def gated(scheme: Plan) -> list[tuple[str, str]]:
    """Name and kind of the rectifiers on the way to the image: "Relu", or "RNN[Relu]" for one that is in every step of
    a cell.
    """
    found = []
    for node in scheme.nodes():
        if (node.domain, node.op) == RECTIFIER:
            found.append((node.name, str(node.attrs["kind"])))
        elif kinds := dict.fromkeys(name for name, alpha, _ in cell_activations(node) if is_rectifier(name, alpha)):
            found.append((node.name, f"{node.op}[{', '.join(kinds)}]"))
    return found


def ungated(scheme: Plan, families: Iterable[str] = ()) -> list[Node]:
    """The activations on the way to the image that no rule gates, and the cells that hold one."""
    table = overrides("guided", families)

    def is_loose(node: Node) -> bool:
        if (node.domain, node.op) in ACTIVATIONS or _is_hard_clip(node):
            return (node.domain, node.op) not in table
        return any(not is_rectifier(n, alpha) and ("", n) not in table for n, alpha, _ in cell_activations(node))

    return [node for node in scheme.nodes() if is_loose(node)]


def notes(scheme: Plan, rules: Sequence[str], families: Sequence[str]) -> list[str]:
    """What the user should know about the maps of this model before looking at one."""
    note = scheme.chosen.note(scheme.graph)
    found, masking = [] if note is None else [note], [r for r in rules if r != "saliency"]
    loose = ungated(scheme, families)
    kinds = ", ".join(f"{sum(n.op == k for n in loose)} {k}" for k in sorted({n.op for n in loose}))
    if masking and not gated(scheme) and not families:
        equal = f"{' and '.join(masking)} equal the plain gradient (saliency)"
        found.append(
            f"no rectifier lies on the way to the image: {equal}" + (f"; it has {kinds} (see rectify)" if kinds else "")
        )
    elif masking and loose:
        found.append(
            f"no rule gates these activations, so the map is partly a plain gradient: {kinds} (see inspect, rectify)"
        )
    return found


def remarks(scheme: Plan) -> list[str]:
    """What counts as what, where the input or the output holds integers."""
    said = []
    if not scheme.graph.is_float(scheme.output):
        said.append(f"output {scheme.output.name!r} holds integers: the real numbers that they stand for are explained")
    for tensor in scheme.wrt:
        if not scheme.graph.is_float(tensor):
            said.append(f"input {tensor.name!r} holds integers: its map counts per unit of the integer")
    return said


def reasons_against(scheme: Plan, families: Iterable[str] = ()) -> tuple[Reason, ...]:
    """Every reason why this model cannot be explained; empty where it can."""
    try:
        _emit(scheme, ("saliency",), check_rectify(families), {})
    except OperatorError as error:
        return error.reasons or (Reason(error.code, "", scheme.output.name, error.what),)
    return ()


def _emit(
    scheme: Plan, rules: Sequence[str], families: Sequence[str], digests: Mapping[str, str], several: int = 0
) -> onnx.ModelProto:
    graph, op = scheme.graph, careful_emitter(scheme.graph)
    if not any(t.name in scheme.live() for t in scheme.wrt):
        raise _independent(scheme)
    target = op.placeholder("target", onnx.TensorProto.INT64)
    rows = _rows(op, scheme)
    indices = ranked(op, rows, target, several) if several else [largest_or(op, rows, target)]
    plain = [_seed(op, scheme, rows, index) for index in indices]
    seed, seeds = plain[0], [{scheme.output.name: _at_output(op, scheme, one)} for one in plain]
    infos = {i.name: i for i in (*graph.model.graph.input, *graph.model.graph.output)}
    results, roles, said = [], {}, notes(scheme, rules, families)
    for rule in rules:
        table: Overrides = overrides(rule, families)
        prefix = "grad" if len(rules) == 1 else f"grad/{rule}"
        sweeps = [backpropagate(scheme.view, op, one, scheme.wrt, table, prefix) for one in seeds]
        for tensor in scheme.wrt:
            role = f"attribution_{rule}" + (f"_{tensor.name}" if len(scheme.wrt) > 1 else "")
            maps = [as_type(op, cts.get(tensor.name), onnx.TensorProto.FLOAT, tensor) for cts in sweeps]
            attribution = stacked(op, maps, _batched(scheme)) if several else maps[0]
            if (
                rule == "deconvnet"
                and not op.reads(maps[0], stop=[seed]) & scheme.live()
                and not _reads_added(op, maps[0], seed)
            ):
                said.append(
                    "deconvnet reads nothing of the forward pass here (no pooling, no gate): "
                    "its map is the same for every image"
                )
            published = op.publish(attribution, role)
            roles[role] = published.name
            info = value_info(infos[tensor.name], "", onnx.TensorProto.FLOAT)
            results.append((published, stacked_info(info, several, _batched(scheme)) if several else info))
    explained, at = scheme.explained, plain
    if scheme.head is not None:  # after the rules' sweeps, which report every obstacle
        at = [backpropagate(scheme.view, op, one, [explained], {}, "grad")[explained.name] for one in seeds]
    tail, labels = scheme.chosen.tail, labels_in(graph)
    if labels is not None and not any(e.key == "gbp.labels" for e in graph.model.metadata_props):
        set_metadata(graph.model, {"gbp.labels": json.dumps(labels)})
    kept: tuple[Tensor, ...] = ()
    if not graph.is_float(explained):
        scale, zero = _terms(scheme)
        explained = op.publish(dequantised(op, explained, scale, zero), f"grad/real/{explained.name}")
        if scheme.head is not None:
            at = [op.publish(rescaled(op, one, None, scale), f"grad/at/{explained.name}") for one in at]
        kept = (explained, *at)
    at_explained = at[0]
    if several:
        at_explained = op.publish(stacked(op, at, False), f"grad/at/{scheme.explained.name}")
        kept = (*kept, at_explained)
    model = append(graph, op, [_target_info(scheme, target.name, infos, several)], results, kept)
    set_metadata(
        model,
        {
            "gbp.version": package_version(),
            **digests,
            "gbp.rules": json.dumps(list(rules)),
            "gbp.rectify": json.dumps(list(families)),
            "gbp.explain": "logit" if scheme.head is not None else scheme.form,
            "gbp.output": scheme.output.name,
            "gbp.output_terms": json.dumps(_output_terms(scheme)),
            "gbp.explained": explained.name,
            "gbp.head": "" if scheme.head is None else scheme.head.node.op,
            "gbp.tail": "{}" if tail is None else json.dumps({"op": tail.node.op, "axis": tail.axis}),
            "gbp.inputs": json.dumps({"image": scheme.wrt[0].name, "target": target.name}),
            "gbp.outputs": json.dumps(roles),
            "gbp.batched": json.dumps(_batched(scheme)),
            "gbp.seed": seed.name,
            "gbp.seed_at_explained": at_explained.name,
            "gbp.warnings": json.dumps(said),
        },
    )
    return model


def _terms(scheme: Plan) -> tuple[Tensor, Tensor | None]:
    """The scale and zero point of the quantised tensor that is explained."""
    if scheme.head is not None and (scale := scheme.head.node.input(1)) is not None:
        return scale, scheme.head.node.input(2)
    if scheme.last is None:
        what = f"the type of the explained tensor {scheme.explained.name!r} cannot be found out"
        raise ModelError("GBP103", what, scheme.where, "check that the model runs: a size may not fit where it is made")
    return scheme.last.scale, scheme.last.zero


def _output_terms(scheme: Plan) -> tuple[float, float]:
    """Scale and zero point of the real numbers that the output stands for; (1, 0) where it holds them."""
    last, graph = scheme.last, scheme.graph
    if last is None or graph.is_float(scheme.output):
        return 1.0, 0.0
    scale, zero = graph.constant(last.scale), last.zero_value(graph)
    if scale is None or zero is None or scale.size != 1 or zero.size != 1:
        return 1.0, 0.0
    return float(scale.reshape(-1)[0]), float(zero.reshape(-1)[0])


def _reads_added(op: Emitter, attribution: Tensor, seed: Tensor) -> bool:
    """Whether a forward node's added output (a MaxPool's Indices) is read."""
    return bool(op.reads(attribution, stop=[seed]) & {t.name for t in op.added_outputs.values()})


def _rows(op: Emitter, scheme: Plan) -> Tensor:
    """The output as one row of values for each image."""
    output = scheme.output
    if _single(scheme):  # the whole output belongs to that image, with or without a batch axis
        rows: Tensor = op.Reshape(output, [1, -1])
    else:
        rows = op.Reshape(output, [-1, 1] if scheme.graph.rank(output) in (0, 1) else [0, -1])
    return rows


def _seed(op: Emitter, scheme: Plan, rows: Tensor, index: Tensor) -> Tensor:
    """One-hot in the output's shape: 1 at each image's index."""
    output = scheme.output
    kind = op.elem_type(output)
    classes = op.Gather(op.Shape(rows), [1], axis=0)
    one_hot = op.OneHot(index, classes, op.constant(np.asarray([0, 1], np.float32)), axis=-1)
    typed = one_hot if kind == onnx.TensorProto.FLOAT or kind not in FLOAT_TYPES else op.Cast(one_hot, to=kind)
    seed: Tensor = op.Reshape(typed, op.Shape(output), allowzero=1)
    op.name(seed, f"grad/seed/{output.name}")
    return seed


def _at_output(op: Emitter, scheme: Plan, seed: Tensor) -> Tensor:
    """The seed per unit of the real number that an integer output stands for."""
    if scheme.last is None or scheme.graph.is_float(scheme.output):
        return seed
    return rescaled(op, seed, scheme.last.scale, None)


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


def _target_info(scheme: Plan, name: str, infos: dict[str, onnx.ValueInfoProto], several: int) -> onnx.ValueInfoProto:
    """int64 [N], N as the image input calls it; 1 for an image input without batch axis; `several` of one image."""
    info = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, [several or None])
    if several:
        return info
    dims = infos[scheme.wrt[0].name].type.tensor_type.shape.dim
    if not _batched(scheme):
        info.type.tensor_type.shape.dim[0].dim_value = 1
    elif dims and (dims[0].dim_param or dims[0].dim_value > 0):
        info.type.tensor_type.shape.dim[0].CopyFrom(dims[0])
    return info


def _image_input(graph: Graph, where: str) -> Tensor:
    for tensor in graph.inputs:
        if (graph.rank(tensor) or 0) >= 3 and graph.elem_type(tensor) in FLOAT_TYPES | INTEGER_TYPES:
            return tensor
    choose_output(graph, (), None, where)  # where there are no scores either, that is said first
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
