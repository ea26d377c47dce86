"""The rules: what happens at a rectifier on the way back. A rule is a partial override of the derivative table.

`g` is the cotangent that arrives at the rectifier's output, `x` its input:

    saliency    g * f'(x)              Simonyan, Vedaldi & Zisserman 2013, "Deep Inside Convolutional Networks"
    deconvnet   max(g, 0)              Zeiler & Fergus 2013, "Visualizing and Understanding Convolutional Networks"
    guided      max(g, 0) * f'(x)      Springenberg et al. 2014, "Striving for Simplicity: The All Convolutional Net"

The masks apply at every rectifier on the way down. Leaky and smooth activations keep their true derivative unless
`rectify`
asks for them to be treated alike: the arriving cotangent is clamped at 0 and multiplied with the true local derivative
(under deconvnet, only clamped).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from gbp_onnx.errors import InputError
from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.reader import Node, Tensor
from gbp_onnx.vjp import GBP_DOMAIN, Derivative, derivative_of
from gbp_onnx.vjp.activation import gate
from gbp_onnx.vjp.common import masked
from gbp_onnx.vjp.registry import Cotangents, Rule

__all__ = [
    "ACTIVATIONS",
    "LEAKY",
    "RECTIFIER",
    "RULES",
    "SMOOTH",
    "Overrides",
    "check_rectify",
    "check_rules",
    "overrides",
]

Overrides = Mapping[tuple[str, str], Rule]
"""(domain, operator) -> the derivative that replaces the table's."""

RECTIFIER = (GBP_DOMAIN, "Rectifier")
LEAKY = (
    *(("", op) for op in ("LeakyRelu", "PRelu", "Elu", "Selu", "Celu")),
    ("com.microsoft", "QLinearLeakyRelu"),
)
SMOOTH = (
    *(("", op) for op in ("Gelu", "Swish", "HardSwish", "Mish", "Softplus")),
    *((GBP_DOMAIN, op) for op in ("Silu", "Softplus")),
    *(("com.microsoft", op) for op in ("Gelu", "BiasGelu", "FastGelu", "QuickGelu")),
)
ACTIVATIONS = frozenset(
    (
        *LEAKY,
        *SMOOTH,
        ("com.microsoft", "QLinearSigmoid"),
        *(("", op) for op in ("Sigmoid", "HardSigmoid", "Tanh", "Softsign", "Erf", "Clip", "Shrink")),
        *((GBP_DOMAIN, op) for op in ("Clip", "Softsign")),
    )
)
"""Activations that no rule gates by itself; they are reported, because the map is then partly a plain gradient."""


def deconvnet(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """max(g, 0), whatever x was"""
    return (op.Relu(ct),)


def guided(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """max(g, 0) * f'(x)"""
    return (masked(op, gate(op, node), op.Relu(ct)),)


def clamped(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """max(g, 0) times the true local derivative; what reaches a slope stays the true gradient"""
    rule = _tables_own(node)
    return (*rule(op, node, op.Relu(ct))[:1], *rule(op, node, ct)[1:])


def passed(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """max(g, 0), whatever x was; what reaches a slope stays the true gradient"""
    return (op.Relu(ct), *_tables_own(node)(op, node, ct)[1:])


def _tables_own(node: Node) -> Rule:
    entry = derivative_of(node)
    if not isinstance(entry, Derivative):
        raise TypeError(f"{node!r} has no derivative")
    return entry.rule


RULES: Mapping[str, Overrides] = MappingProxyType(
    {"saliency": {}, "deconvnet": {RECTIFIER: deconvnet}, "guided": {RECTIFIER: guided}}
)

_RECTIFY = {"leaky": LEAKY, "smooth": SMOOTH}


def overrides(rule: str, rectify: Iterable[str] = ()) -> Overrides:
    """The override table of a rule; `rectify` ("leaky", "smooth") extends it to those activations."""
    table = RULES[check_rules((rule,))[0]]
    if not table:
        return table
    extra = passed if rule == "deconvnet" else clamped
    return {**table, **{key: extra for family in check_rectify(rectify) for key in _RECTIFY[family]}}


def check_rules(rules: Iterable[str] | str) -> tuple[str, ...]:
    """The rules as a tuple without repetitions; GBP410 for a name that is no rule."""
    return _check((rules,) if isinstance(rules, str) else tuple(rules), RULES, "rule", "rules")


def check_rectify(families: Iterable[str] | str) -> tuple[str, ...]:
    """The activation families as a tuple; GBP410 for a name that is none."""
    if not families:
        return ()
    return _check(
        (families,) if isinstance(families, str) else tuple(families), _RECTIFY, "activation family", "rectify"
    )


def _check(names: tuple[str, ...], known: Iterable[str], what: str, option: str) -> tuple[str, ...]:
    choices = ", ".join(known)
    if not names:
        raise InputError("GBP410", f"no {what} is named", option, f"choose from {choices}")
    for name in names:
        if name not in known:
            raise InputError("GBP410", f"{name!r} is no {what}", option, f"choose from {choices}")
    return tuple(dict.fromkeys(names))
