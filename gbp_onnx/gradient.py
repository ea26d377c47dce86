"""The plain vector-Jacobian product of a model, as a model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx

from gbp_onnx.canonical.inner import read_graph
from gbp_onnx.canonical.passes import canonical_model
from gbp_onnx.canonical.view import View
from gbp_onnx.collection import collection_put_off
from gbp_onnx.errors import ModelError, OperatorError
from gbp_onnx.graph.assemble import append, correct_shape, value_info
from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.files import ModelSource, load_model, source_name
from gbp_onnx.graph.reader import FLOAT_TYPES, INTEGER_TYPES, Graph, Tensor
from gbp_onnx.rules import overrides
from gbp_onnx.sweep import backpropagate
from gbp_onnx.vjp import is_known
from gbp_onnx.vjp.careful import careful_emitter

__all__ = ["as_type", "differentiate", "gradient_type", "named"]


@collection_put_off()
def differentiate(
    model: ModelSource,
    *,
    wrt: Sequence[str] | str | None = None,
    outputs: Sequence[str] | str | None = None,
    rule: str = "saliency",
    rectify: Iterable[str] = (),
) -> onnx.ModelProto:
    """The model followed by its vector-Jacobian product.

    `model`: path, bytes or ModelProto (never modified). `wrt`: input names (default: every float input that is no
    initializer; an integer
    input that is named is taken as real numbers). `outputs`: names of float outputs (default: every float one).
    `rule`: "saliency" (the true
    gradient), "deconvnet" or "guided"; `rectify` extends the latter two to "leaky" and "smooth" activations.

    The result has the source's inputs, then ``<output>_seed`` for each differentiated output (its type and shape), and
    the source's outputs,
    then ``<input>_grad`` for each `wrt` (its shape and type, float32 for integers): the sum over outputs of J^T seed,
    zeros
    where nothing depends on the input. Weights that do not fit into one file stay in theirs (see `build`). Raises
    ModelError (GBP1xx), or OperatorError (GBP2xx) with every obstacle.
    """
    where = source_name(model)
    table = overrides(rule, rectify)
    graph = read_graph(canonical_model(load_model(model), is_known), is_known)
    chosen_wrt = (
        named(graph.inputs, wrt, "input", where) if wrt else _float_tensors(graph, graph.inputs, "input", where)
    )
    chosen_out = (
        named(graph.outputs, outputs, "output", where)
        if outputs
        else _float_tensors(graph, graph.outputs, "output", where)
    )
    for tensor in chosen_out:
        if graph.elem_type(tensor) not in FLOAT_TYPES:
            raise ModelError("GBP109", f"output {tensor.name!r} is not float", where, "name float outputs only")
    op = careful_emitter(graph)
    infos = {i.name: i for i in (*graph.model.graph.input, *graph.model.graph.output)}
    seeds = {t.name: op.placeholder(f"{t.name}_seed", graph.elem_type(t)) for t in chosen_out}
    wide = {t.name: as_type(op, seeds[t.name], op.elem_type(t), t) for t in chosen_out}
    try:
        cts = backpropagate(View(graph, known=is_known), op, wide, chosen_wrt, table)
    except OperatorError as error:
        raise OperatorError.of(error.reasons, where) from None
    results = []
    for tensor in chosen_wrt:
        kind = gradient_type(graph, tensor)
        gradient = as_type(op, cts.get(tensor.name), kind, tensor)
        results.append((op.publish(gradient, f"{tensor.name}_grad"), value_info(infos[tensor.name], "", kind)))
    inputs = [_seed_info(graph, infos[t.name], t, seeds[t.name].name) for t in chosen_out]
    return append(graph, op, inputs, results)


def _seed_info(graph: Graph, declared: onnx.ValueInfoProto, output: Tensor, name: str) -> onnx.ValueInfoProto:
    """The output's declared type and shape, as far as it is true."""
    info = value_info(declared, name)
    correct_shape(info, graph.shape(output))
    return info


def gradient_type(graph: Graph, tensor: Tensor) -> int:
    """The type of a gradient: the input's own, float32 for integers."""
    kind = graph.elem_type(tensor)
    return onnx.TensorProto.FLOAT if kind in INTEGER_TYPES else kind


def as_type(op: Emitter, ct: Tensor | None, kind: int, like: Tensor) -> Tensor:
    """A cotangent in the given type; zeros of the shape of `like` where there is none."""
    if ct is None:
        ct = op.ConstantOfShape(op.Shape(like), value=np.zeros(1, np.float32))
    made: Tensor = ct if op.elem_type(ct) == kind else op.Cast(ct, to=kind)
    return made


def named(tensors: Sequence[Tensor], names: Sequence[str] | str, what: str, where: str) -> list[Tensor]:
    """The graph's inputs (or outputs) of these names, each once; GBP108/GBP110 for a name that is none."""
    known = {t.name: t for t in tensors}
    wanted = [names] if isinstance(names, str) else list(names)
    for name in wanted:
        if name not in known:
            raise ModelError(
                "GBP110",
                f"the model has no {what} {name!r}",
                where,
                f"its {what}s are {', '.join(map(repr, known)) or 'none'}",
            )
    return [known[name] for name in dict.fromkeys(wanted)]


def _float_tensors(graph: Graph, tensors: Sequence[Tensor], what: str, where: str) -> list[Tensor]:
    found = {t.name: t for t in tensors if graph.elem_type(t) in FLOAT_TYPES}
    if not found:
        code = "GBP108" if what == "input" else "GBP109"
        raise ModelError(
            code,
            f"the model has no float {what}",
            where,
            f"its {what}s are {', '.join(repr(t.name) for t in tensors) or 'none'}",
        )
    return list(found.values())
