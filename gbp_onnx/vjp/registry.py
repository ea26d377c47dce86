"""The derivative table: operator -> vector-Jacobian product, keyed by domain, operator and opset.

Three states, never two: **differentiable** (`@vjp`), **stops the gradient on purpose** (`stops_gradient`: one line
why), and refused: known to have no derivative that could be computed (`refuses`: one line why), or unknown.

Names in scope of every entry
    op      the emitter: ``op.Mul(a, b)`` is a new node and its output
    node    the forward node: ``node.inputs[i]``, ``node.outputs[i]``, ``node.attrs["alpha"]`` (defaults filled in)
    ct      the cotangent of ``node.outputs[0]``; with ``outputs="all"`` a tuple, None where no cotangent arrives
returns     one entry per input, None = no gradient flows there (missing entries at the end are None); an entry that is
            costly or may be refused can be a function, called only where that input's cotangent is wanted
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.reader import GBP_DOMAIN, Node, Tensor

__all__ = [
    "GBP_DOMAIN",
    "Cotangents",
    "Derivative",
    "Refusal",
    "Refused",
    "Stop",
    "UnknownShape",
    "derivative_of",
    "entries",
    "is_known",
    "refuses",
    "stops_gradient",
    "vjp",
]

Cotangents = tuple[Tensor | Callable[[], Tensor] | None, ...]
"""One entry per input; a function is called only where that input's cotangent is wanted."""
Rule = Callable[[Emitter, Node, Any], Cotangents]


class Refusal(Exception):  # noqa: N818 - it becomes a Reason in an OperatorError
    """Raised by a derivative for a form of its operator that it does not cover; the text says why."""


class UnknownShape(Refusal):
    """A rank or size is not known. Behind an operator that is refused itself, this follows and is not reported."""


@dataclass(frozen=True, slots=True)
class Derivative:
    """A differentiable operator, as defined from opset `since` on."""

    op: str
    domain: str
    since: int
    rule: Rule
    all_outputs: bool

    @property
    def formula(self) -> str:
        """The first line of the rule's docstring."""
        return (self.rule.__doc__ or "").strip().splitlines()[0]


@dataclass(frozen=True, slots=True)
class Stop:
    """An operator that stops the gradient on purpose."""

    op: str
    domain: str
    since: int
    why: str


@dataclass(frozen=True, slots=True)
class Refused:
    """An operator whose derivative is asked for in vain, whatever its form."""

    op: str
    domain: str
    since: int
    why: str


_TABLE: dict[tuple[str, str], list[Derivative | Stop | Refused]] = {}


def vjp(*ops: str, since: int = 1, domain: str = "", outputs: str = "first") -> Callable[[Rule], Rule]:
    """Register a derivative for `ops` from opset `since` on. A second entry for the same key is an error."""

    def register(rule: Rule) -> Rule:
        for name in ops:
            _add(Derivative(name, domain, since, rule, outputs == "all"))
        return rule

    return register


def stops_gradient(*ops: str, why: str, since: int = 1, domain: str = "") -> None:
    """Register operators through which no gradient flows, and the reason."""
    for name in ops:
        _add(Stop(name, domain, since, why))


def refuses(*ops: str, why: str, since: int = 1, domain: str = "") -> None:
    """Register operators that have no derivative to compute, and the reason."""
    for name in ops:
        _add(Refused(name, domain, since, why))


def derivative_of(node: Node) -> Derivative | Stop | Refused | None:
    """The newest entry that is not newer than the node's own definition; None where the operator is unknown."""
    versions = _TABLE.get((node.domain, node.op), ())
    return next((entry for entry in reversed(versions) if entry.since <= node.version), None)


def is_known(domain: str, op: str, version: int) -> bool:
    """Whether the table has an entry for an operator; `version`: the opset that defines its meaning."""
    return any(entry.since <= version for entry in _TABLE.get((domain, op), ()))


def entries() -> Iterator[Derivative | Stop | Refused]:
    """Every entry, by domain and operator."""
    for key in sorted(_TABLE):
        yield from _TABLE[key]


def _add(entry: Derivative | Stop | Refused) -> None:
    versions = _TABLE.setdefault((entry.domain, entry.op), [])
    if any(other.since == entry.since for other in versions):
        raise ValueError(f"{entry.domain}::{entry.op} since {entry.since} is registered twice")
    versions.append(entry)
    versions.sort(key=lambda e: e.since)
