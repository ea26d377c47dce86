"""Activations inside fused nodes of ONNX Runtime's optimiser, taken out of them.

FusedConv(x, W, b, z; activation=Relu) -> y     =>     FusedConv(x, W, b, z) -> t; Rectifier(t) -> y
FusedGemm(A, B, C; activation=Tanh) -> y        =>     FusedGemm(A, B, C) -> t; Tanh(t) -> y

Both keep the node's own name. The forward part of the file stays fused, so that t exists nowhere: the stand-ins'
derivatives read y alone, and an activation whose derivative y does not tell is left inside (and refused).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gbp_onnx.canonical.rectifiers import HUGE, Rectifier
from gbp_onnx.graph.reader import GBP_DOMAIN, Graph, Node, Tensor, imaginary

__all__ = ["Fused", "split_fused"]

MICROSOFT, BLOCKED = "com.microsoft", "com.microsoft.nchwc"


@dataclass(frozen=True, slots=True)
class Fused:
    """A fused node as two: what it computes before its activation, and the activation."""

    linear: Node
    activation: Node | Rectifier


def split_fused(graph: Graph) -> dict[str, Fused]:
    """The two halves of every fused node with an activation, by the name of what it makes."""
    found: dict[str, Fused] = {}
    for node in graph.nodes:
        read = _READERS.get((node.domain, node.op))
        y = node.output(0)
        name = str(node.attrs.get("activation", ""))
        if read is None or y is None or not name:
            continue
        before = imaginary(f"{y.name}/before {name}", y.shape, y.dtype)
        activation = _activation(node, name, read(node.attrs, name), before)
        if activation is not None:
            attrs = {k: v for k, v in node.attrs.items() if not k.startswith("activation")}
            linear = Node(node.op, node.name, node.inputs, [before], attrs, node.domain, node.version, index=node.index)
            found[y.name] = Fused(linear, activation)
    return found


def _activation(node: Node, name: str, given: Mapping[str, float], x: Tensor) -> Node | Rectifier | None:
    """The activation as a rectifier or a node that reads `x`; None where the output does not tell its derivative."""
    kind = f"{node.op}[{name}]"
    alpha = given.get("alpha", _ALPHA.get(name, 0.0))
    match name:
        case "Relu":
            return Rectifier(node, kind, x)
        case "LeakyRelu" | "Elu" if alpha == 0:
            return Rectifier(node, kind, x)
        case "ThresholdedRelu" if alpha >= 0:
            return Rectifier(node, kind, x, threshold=alpha)
        case "Clip":
            low, high = given.get("min", -HUGE), given.get("max", HUGE)
            if low == 0 < high:
                return Rectifier(node, kind, x, cap=high if high < HUGE else None)
            return Node("Clip", node.name, [x], node.outputs, {"min": low, "max": high}, GBP_DOMAIN, index=node.index)
        case "Softplus" | "Softsign":
            return Node(name, node.name, [x], node.outputs, {}, GBP_DOMAIN, index=node.index)
        case "LeakyRelu" | "Elu" | "Selu" if alpha > 0 and given.get("gamma", _SELU_GAMMA) > 0:
            attrs = {"alpha": alpha, "gamma": given.get("gamma", _SELU_GAMMA)}
            return Node(name, node.name, [x], node.outputs, attrs, index=node.index)
        case "Tanh" | "Sigmoid":
            return Node(name, node.name, [x], node.outputs, {}, index=node.index)
        case "HardSigmoid":
            attrs = {"alpha": alpha, "beta": given.get("beta", 0.5)}
            return Node(name, node.name, [x], node.outputs, attrs, index=node.index)
    return None


_SELU_GAMMA = 1.0507009873554805  # the defaults of ONNX Selu, HardSigmoid, LeakyRelu, Elu, ThresholdedRelu
_ALPHA = {"LeakyRelu": 0.01, "Elu": 1.0, "Selu": 1.6732632423543772, "ThresholdedRelu": 1.0, "HardSigmoid": 0.2}
_PARAMS = {"LeakyRelu": ("alpha",), "Clip": ("min", "max"), "HardSigmoid": ("alpha", "beta")}


def _of_conv(attrs: Mapping[str, Any], name: str) -> dict[str, float]:
    """activation_params, by name."""
    return dict(zip(_PARAMS.get(name, ()), map(float, attrs.get("activation_params") or ()), strict=False))


def _of_gemm(attrs: Mapping[str, Any], name: str) -> dict[str, float]:
    """activation_alpha, activation_beta, activation_gamma."""
    prefix = "activation_"
    return {k.removeprefix(prefix): float(v) for k, v in attrs.items() if k.startswith(prefix)}


_READERS: dict[tuple[str, str], Callable[[Mapping[str, Any], str], dict[str, float]]] = {
    (MICROSOFT, "FusedConv"): _of_conv,
    (BLOCKED, "Conv"): _of_conv,
    (MICROSOFT, "FusedGemm"): _of_gemm,
}
