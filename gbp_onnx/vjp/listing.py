"""The derivative table as rows, for `gbp-onnx ops` and docs/operators.md."""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from functools import cache
from importlib.resources import files
from typing import Any

import onnx

from gbp_onnx.canonical.microsoft_bodies import MICROSOFT, MICROSOFT_BODIES
from gbp_onnx.vjp.registry import GBP_DOMAIN, Derivative, Stop, entries, is_known

__all__ = ["BY_BODY", "float_types", "rows"]

BY_BODY = (
    "Attention",
    "CastLike",
    "CausalConvWithState",
    "CenterCropPad",
    "LinearAttention",
    "NegativeLogLikelihoodLoss",
    "RMSNormalization",
    "RotaryEmbedding",
    "SequenceMap",
    "SoftmaxCrossEntropyLoss",
    "SwiGLU",
)
"""Operators that `canonical.bodies` makes differentiable; what the table has an entry for is not taken from here."""


_BODY_INPUTS = {
    "Attention": ["input", "weights", "bias", "attention_bias"],
    "BiasAdd": ["X", "bias", "skip"],
    "BiasDropout": ["data", "bias", "residual"],
    "BiasSoftmax": ["data", "bias"],
    "BiasSplitGelu": ["X", "bias"],
    "BitmaskBiasDropout": ["data", "bias", "residual"],
    "CDist": ["A", "B"],
    "ConvTransposeWithDynamicPads": ["X", "W", "B"],
    "GroupNorm": ["X", "gamma", "beta"],
    "MultiHeadAttention": ["query", "key", "value", "bias", "attention_bias"],
    "NhwcConv": ["X", "W", "B"],
    "Pad": ["data", "value"],
    "Range": ["start", "delta"],
    "SkipGroupNorm": ["X", "gamma", "beta", "skip", "bias"],
}
"""Of bodies that differentiate more than their first input; onnx has no schema of com.microsoft to ask."""
_THROUGH_BODIES = {
    "If": ["what its branches read"],
    "Loop": ["v_initial", "what its body reads"],
    "Scan": ["initial_state_and_scan_inputs", "what its body reads"],
}
"""What is differentiated of operators with bodies, which no schema lists."""


def rows() -> list[dict[str, Any]]:
    """One for each entry of the table, and for each standard operator that has none. Keys: op, domain, since, state
    ("differentiable", "stops the gradient", "refused"), inputs (those that are differentiated), form (the formula, or
    why there is none), cpu and cuda (opset ranges and float types of ONNX Runtime's kernels; "" = no kernel, None =
    not known).
    """
    made = []
    for entry in entries():
        if entry.domain == GBP_DOMAIN:
            continue
        derivative = isinstance(entry, Derivative)
        state = "differentiable" if derivative else "stops the gradient" if isinstance(entry, Stop) else "refused"
        inputs = _differentiated(entry) if isinstance(entry, Derivative) else []
        form = entry.formula if isinstance(entry, Derivative) else entry.why
        if entry.domain == MICROSOFT and entry.op in MICROSOFT_BODIES:
            continue  # its reason is about the forms that have no body
        made.append(_row(entry.op, entry.domain, entry.since, state, inputs, form))
    for op, body in MICROSOFT_BODIES.items():
        form = f"by the standard operators it stands for: {(body.__doc__ or '').splitlines()[0]}"
        made.append(_row(op, MICROSOFT, 1, "differentiable", _BODY_INPUTS.get(op, ["input 0"]), form))
    for schema in _standard():
        if is_known("", schema.name, schema.since_version):
            continue
        if schema.name in BY_BODY:
            inputs = [i.name for i in schema.inputs if _is_float(schema, i.type_str) and i.name != "target_type"]
            row = (_first(schema.name), "differentiable", inputs, "by its function body")
        else:
            row = (_first(schema.name), "refused", [], "no derivative is known for this operator")
        made.append(_row(schema.name, "", *row))
    return sorted(made, key=lambda r: (r["domain"], r["op"], r["since"]))


def float_types(kernel: str | None) -> str:
    """The float types of the newest kernel ("f16,f32"), "yes" for one without, "-" for none, "" where not known."""
    if not kernel:
        return "" if kernel is None else "-"
    return kernel.partition("[")[2].rstrip("]") or "yes"


def _row(op: str, domain: str, since: int, state: str, inputs: list[str], form: str) -> dict[str, Any]:
    found = _kernels().get(f"{domain}::{op}" if domain else op, {})
    cpu, cuda = found.get("cpu", ""), None if domain else found.get("cuda", "")
    return {
        "op": op,
        "domain": domain,
        "since": since,
        "state": state,
        "inputs": inputs,
        "form": form,
        "cpu": cpu,
        "cuda": cuda,
    }


@cache
def _kernels() -> dict[str, dict[str, str]]:
    text = files("gbp_onnx.vjp").joinpath("kernels.json").read_text(encoding="utf-8")
    found: dict[str, dict[str, str]] = json.loads(text)["kernels"]
    return found


def _standard() -> list[onnx.defs.OpSchema]:
    found = [s for s in onnx.defs.get_all_schemas() if s.domain == "" and not s.deprecated]
    return sorted(found, key=lambda s: str(s.name))


def _first(op: str) -> int:
    versions = [s.since_version for s in onnx.defs.get_all_schemas_with_history() if s.domain == "" and s.name == op]
    return int(min(versions))


def _is_float(schema: onnx.defs.OpSchema, kind: str) -> bool:
    allowed = next((list(c.allowed_type_strs) for c in schema.type_constraints if c.type_param_str == kind), [kind])
    return "tensor(float)" in allowed or "seq(tensor(float))" in allowed


def _differentiated(entry: Derivative) -> list[str]:
    """The inputs that the rule returns something for, by what its return statements say."""
    if entry.domain == "" and entry.op in _THROUGH_BODIES:
        return _THROUGH_BODIES[entry.op]
    places = _returned(entry)
    try:
        schema = onnx.defs.get_schema(entry.op, domain=entry.domain)
    except onnx.defs.SchemaError:
        return ["inputs"] if places is None else [f"input {place}" for place in sorted(places)]
    formal = list(schema.inputs)
    if places is None:
        return [i.name for i in formal if _is_float(schema, i.type_str)]
    variadic = onnx.defs.OpSchema.FormalParameterOption.Variadic
    return [formal[p].name for p in sorted(places) if p < len(formal)] + [
        i.name
        for i in formal[-1:]
        if i.option == variadic and len(formal) - 1 not in places and max(places) >= len(formal)
    ]


def _returned(entry: Derivative) -> set[int] | None:
    """Places of the returned entries that are not None; None where there is one for every input."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(entry.rule)))
    rule = tree.body[0]
    found: set[int] = set()
    for statement in _own_returns(rule):
        value = statement.value
        if not isinstance(value, ast.Tuple) or any(isinstance(e, ast.Starred) for e in value.elts):
            every = isinstance(value, ast.Tuple) or any(_is_call_of(value, name) for name in ("tuple", "by_equivalent"))
            return None if every else found or {0}
        found |= {
            place
            for place, e in enumerate(value.elts)
            if not (isinstance(e, ast.Constant) and e.value is None)
            and not (isinstance(e, ast.Name) and e.id.startswith("refuse"))
        }
    return found


def _own_returns(node: ast.AST) -> list[ast.Return]:
    found: list[ast.Return] = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Return):
            found.append(child)
        elif not isinstance(child, ast.FunctionDef | ast.Lambda):
            found += _own_returns(child)
    return found


def _is_call_of(value: ast.expr | None, name: str) -> bool:
    return isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == name
