"""Einsum: every operand's cotangent is an Einsum of the result's and the other operands."""

from __future__ import annotations

import string
from collections.abc import Sequence

from gbp_onnx.graph.emitter import Emitter
from gbp_onnx.graph.reader import Node, Tensor
from gbp_onnx.vjp.common import as_real, masked, rank_of
from gbp_onnx.vjp.registry import Cotangents, Refusal, vjp


@vjp("Einsum", since=12)
def einsum(op: Emitter, node: Node, ct: Tensor) -> Cotangents:
    """operand k: Einsum(ct, the others -> k's indices), repeated along indices that only k has, on k's diagonals"""
    terms, result = _terms(op, node)
    return tuple((lambda k=k: _operand(op, node, ct, terms, result, k)) for k in range(len(terms)))


def _operand(op: Emitter, node: Node, ct: Tensor, terms: Sequence[str], result: str, k: int) -> Tensor:
    x, term = node.inputs[k], terms[k]
    unique = "".join(dict.fromkeys(term))
    others = [(t, s) for i, (t, s) in enumerate(zip(node.inputs, terms, strict=True)) if i != k]
    seen = set(result).union(*(s for _, s in others))
    present = "".join(c for c in unique if c in seen)
    if not others and present == result:
        g = ct
    else:
        equation = f"{','.join([result, *(s for _, s in others)])}->{present}"
        g = op.Einsum(ct, *(as_real(op, t, ct) for t, _ in others), equation=equation)
    missing = [i for i, c in enumerate(unique) if c not in seen]
    if missing:
        g = op.Unsqueeze(g, axes=missing)
    # Sizes of 1 are broadcast: first sum where the operand has 1, then repeat where the others do.
    sizes = [op.dim(x, term.index(c)) for c in unique]
    if not sizes:
        return g
    known = op.known_shape(x)
    unsure = [
        known is None or known[term.index(c)] in (1, None) or isinstance(known[term.index(c)], str) for c in unique
    ]
    target = op.Concat(*sizes, axis=0)
    if any(unsure) and len(node.inputs) > 1:
        ones = op.Reshape(op.NonZero(op.Equal(target, 1)), [-1])
        value = op.value(target)
        if value is not None:
            axes = [i for i, size in enumerate(value.tolist()) if size == 1]
            g = op.ReduceSum(g, axes=axes, keepdims=1) if axes else g
        else:
            g = op.ReduceSum(g, ones, keepdims=1, noop_with_empty_axes=1)
    if missing or len(node.inputs) > 1:
        g = op.Expand(g, target)
    if len(unique) == len(term):
        return g
    return _on_diagonals(op, g, x, term, unique)


def _on_diagonals(op: Emitter, g: Tensor, x: Tensor, term: str, unique: str) -> Tensor:
    """g[i, j...] at every place of x where axes of one letter have one index, 0 elsewhere."""
    first = [term.index(c) for c in unique]
    g = op.Unsqueeze(g, axes=[i for i in range(len(term)) if i not in first])
    for i, letter in enumerate(term):
        if term.index(letter) < i:
            same = op.Equal(_places(op, x, i, len(term)), _places(op, x, term.index(letter), len(term)))
            g = masked(op, same, g)
    return g


def _places(op: Emitter, x: Tensor, axis: int, rank: int) -> Tensor:
    """0, 1, 2... along `axis`."""
    count = op.Range(0, op.Squeeze(op.dim(x, axis), axes=[0]), 1)
    made: Tensor = op.Reshape(count, [-1 if i == axis else 1 for i in range(rank)])
    return made


def _terms(op: Emitter, node: Node) -> tuple[list[str], str]:
    """The operands' indices and the result's, one letter each: the ellipsis written out, the result explicit."""
    equation = node.attrs["equation"]
    equation = (equation.decode() if isinstance(equation, bytes) else equation).replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if not arrow:
        letters = [c for c in left if c.isalpha()]
        once = sorted(c for c in letters if letters.count(c) == 1)
        if len({c.isupper() for c in once}) > 1:
            raise Refusal("its result is implicit and mixes upper and lower case, whose order is not defined")
        right = ("..." if "..." in left else "") + "".join(once)
    if "..." not in left:
        return terms, right
    free = [c for c in string.ascii_letters if c not in equation]
    widths = [
        rank_of(op, x) - len(term.replace("...", "")) if "..." in term else 0
        for x, term in zip(node.inputs, terms, strict=True)
    ]
    width = max(widths)
    if width > len(free):
        raise Refusal("it has more axes than letters")
    dots = "".join(free[:width])
    full = [term.replace("...", dots[width - own :] if own else "") for term, own in zip(terms, widths, strict=True)]
    if "..." not in right and width:  # the standard sums over an ellipsis that the result leaves out
        return full, right
    return full, right.replace("...", dots)
