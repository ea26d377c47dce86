"""The passes that rewrite the file: functions on a ModelProto that they may change in place, in one ordered tuple."""

from __future__ import annotations

from collections.abc import Callable
from graphlib import CycleError, TopologicalSorter

import onnx
import onnx.inliner

from gbp_onnx.canonical.bodies import Known, expand_bodies
from gbp_onnx.canonical.lift import lift_opset
from gbp_onnx.canonical.lower import lower_opset
from gbp_onnx.canonical.signedness import unsigned_activations
from gbp_onnx.errors import ModelError
from gbp_onnx.graph.reader import STANDARD_DOMAINS, captured_names, opset_of

__all__ = ["canonical_model"]

DEFAULT_OPSET = 17  # for a model that names none
DEFAULT_IR = 10  # node metadata needs it, and onnxruntime reads it since 1.18


def canonical_model(model: onnx.ModelProto, known: Known | None = None) -> onnx.ModelProto:
    """Make `model` plain, in place, and return it. Its results, metadata and names stay; refuses where that cannot be
    had. Operators that are not `known` are replaced by their function bodies, where the standard defines one.
    """
    for step in PASSES:
        model = step(model)
    if known is not None:
        model = expand_bodies(model, known)  # after the lift: bodies are written for the opset that the model has now
    return lower_opset(model)  # after the bodies: operators that are too new may have one


def inline_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """Call(x) -> y  =>  the function's nodes. torch's dynamo exporter writes local functions."""
    if not model.functions:
        return model
    kept = [(e.key, e.value) for e in model.metadata_props]
    versions = {_domain(o.domain): o.version for o in model.opset_import}
    own = {(f.domain, f.name) for f in model.functions}
    for function in model.functions:
        for opset in function.opset_import:
            mine = versions.get(_domain(opset.domain))
            if mine is None:
                model.opset_import.add(domain=opset.domain, version=opset.version)
                versions[_domain(opset.domain)] = opset.version
            elif mine != opset.version and _meaning_differs(function, opset, mine):
                raise ModelError(
                    "GBP103",
                    f"function {function.name!r} uses opset {opset.version} of {opset.domain or 'ai.onnx'!r} "
                    f"and the model {mine}, between which its operators differ",
                    fix="export with one opset, or inline the functions while exporting",
                )
            else:
                opset.version = mine  # the inliner leaves functions of another opset alone, silently
    inlined: onnx.ModelProto = onnx.inliner.inline_local_functions(model)
    del inlined.metadata_props[:]
    for key, value in kept:
        inlined.metadata_props.add(key=key, value=value)
    left = [n.name for n in inlined.graph.node if (n.domain, n.op_type) in own]
    if left:
        raise ModelError("GBP103", f"function calls that could not be inlined: {', '.join(left)}")
    return inlined


def drop_initializer_inputs(model: onnx.ModelProto) -> onnx.ModelProto:
    """input W, initializer W  =>  initializer W. IR 3 lists weights as inputs; left there, they count as overridable
    from IR 4 on.
    """
    weights = {t.name for t in model.graph.initializer} | {t.values.name for t in model.graph.sparse_initializer}
    kept = [i for i in model.graph.input if i.name not in weights]
    if len(kept) < len(model.graph.input):
        del model.graph.input[:]
        model.graph.input.extend(kept)
    return model


def import_standard_operators(model: onnx.ModelProto) -> onnx.ModelProto:
    """imports ai.onnx.ml alone  =>  imports the standard operators too, of which derivatives are made."""
    if opset_of(model) == 0:
        model.opset_import.add(domain="", version=DEFAULT_OPSET)
    return model


def check_tensors(model: onnx.ModelProto) -> onnx.ModelProto:
    """Refuse a graph that reads what nothing makes (ONNX IR: names and SSA)."""
    graph = model.graph
    made = {i.name for i in graph.input} | {t.name for t in graph.initializer}
    made |= {t.values.name for t in graph.sparse_initializer} | {name for node in graph.node for name in node.output}
    for node in graph.node:
        for name in sorted({*node.input, *captured_names(node)} - made - {""}):
            called = f"node {node.name!r}" if node.name else f"a {node.op_type} node"
            raise ModelError("GBP103", f"it reads {name!r}, which nothing makes", called, "export the model again")
    for output in graph.output:
        if output.name not in made:
            raise ModelError("GBP103", f"output {output.name!r} is made by nothing", fix="export the model again")
    return model


def sort_nodes(model: onnx.ModelProto) -> onnx.ModelProto:
    """b = f(a), a = g(x)  =>  a, b. ONNX demands that order; ONNX Runtime runs files without it, so they exist."""
    nodes = list(model.graph.node)
    maker = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    needs = [{maker[n] for n in {*node.input, *captured_names(node)} if n in maker} for node in nodes]
    if all(earlier < index for index, before in enumerate(needs) for earlier in before):
        return model
    try:
        order = list(TopologicalSorter(dict(enumerate(needs))).static_order())
    except CycleError as error:
        loop = ", ".join(repr(nodes[index].name or nodes[index].op_type) for index in error.args[1])
        raise ModelError("GBP103", f"the graph has a cycle: {loop}", fix="export the model again") from None
    del model.graph.node[:]
    model.graph.node.extend(nodes[index] for index in order)
    return model


def set_ir_version(model: onnx.ModelProto) -> onnx.ModelProto:
    """The lowest version that the content allows, 10 by default: what runtimes read most widely."""
    newest = max((_MIN_IR_OF_TYPE.get(t.data_type, DEFAULT_IR) for t in model.graph.initializer), default=DEFAULT_IR)
    model.ir_version = max(DEFAULT_IR, newest)
    return model


def _domain(domain: str) -> str:
    return "" if domain in STANDARD_DOMAINS else domain


def _meaning_differs(function: onnx.FunctionProto, opset: onnx.OperatorSetIdProto, other: int) -> bool:
    """Whether any operator that the function takes from `opset` is defined anew between the two versions."""
    for node in function.node:
        if _domain(node.domain) == _domain(opset.domain) and onnx.defs.has(node.op_type, _domain(opset.domain)):
            versions = {
                onnx.defs.get_schema(node.op_type, v, _domain(opset.domain)).since_version
                for v in (opset.version, other)
            }
            if len(versions) > 1:
                return True
    return False


_MIN_IR_OF_TYPE = {
    getattr(onnx.TensorProto, name): ir
    for name, ir in {"FLOAT4E2M1": 11, "FLOAT8E8M0": 12, "INT2": 13, "UINT2": 13}.items()
    if hasattr(onnx.TensorProto, name)
}

PASSES: tuple[Callable[[onnx.ModelProto], onnx.ModelProto], ...] = (
    inline_functions,  # first: the other passes look at one flat graph
    import_standard_operators,  # after what functions import
    check_tensors,
    sort_nodes,  # before all that looks at constants or shapes
    drop_initializer_inputs,  # before the lift: which reads weights as constants
    lift_opset,
    unsigned_activations,
    set_ir_version,  # last: by what the others left
)
