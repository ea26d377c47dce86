"""Forward values and attribution maps of an ONNX network in float64, by torch's autograd.

An interpreter of the ONNX graph, node by node; rectifiers become a `torch.autograd.Function` that carries the rule.
Nothing here is shared with the package: it reads the file with plain `onnx` and knows the contract only.

The rules (g the cotangent at a rectifier's output, f its function): saliency g * f', deconvnet max(g, 0),
guided max(g, 0) * f'; f' is 1 strictly between the rectifier's corner and its cap, else 0.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from tests.oracle.torch_ops import OPS, Tensor, Unsupported, attribute_value, to_tensor
from tests.oracle.weights import randomise_weights

__all__ = [
    "Comparison",
    "OracleResult",
    "Unsupported",
    "compare",
    "float32_activations",
    "forward",
    "oracle",
    "randomise_weights",
]

Rule = Literal["saliency", "deconvnet", "guided"]
Source = onnx.ModelProto | str | Path
HEADS = {"Softmax", "LogSoftmax", "Sigmoid"}
MOVES = {"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Dropout", "Cast"}


# ------------------------------------------------------------------------------------------------ rectifiers


class _Rectified(torch.autograd.Function):
    """Hands on y as the value of the rectifier and lets `rule` decide what x receives."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, mask: Tensor, rule: str) -> Tensor:
        ctx.save_for_backward(mask)
        ctx.rule = rule
        return y.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None, None]:
        (mask,) = ctx.saved_tensors
        if ctx.rule != "saliency":
            g = torch.clamp(g, min=0)
        if ctx.rule != "deconvnet":
            g = torch.where(mask, g, torch.zeros_like(g))
        return g, None, None, None


@dataclass(frozen=True)
class Rectifier:
    """max(x, 0), zero up to `threshold`, at most `cap`; x is the tensor named `source`."""

    source: str
    kind: str
    threshold: float = 0.0
    cap: Any = math.inf


# ------------------------------------------------------------------------------------------------ interpreter


@dataclass
class Frame:
    """One graph or function body that is being evaluated."""

    nodes: Sequence[onnx.NodeProto]
    opsets: dict[str, int]
    env: dict[str, Any]
    constant: set[str]  # tensors that no graph input's values reach (their shapes may)
    bound: dict[str, onnx.AttributeProto] = field(default_factory=dict)  # a function's attributes
    outputs: Sequence[str] = ()
    top: bool = False
    producer: dict[str, onnx.NodeProto] = field(init=False)
    uses: Counter[str] = field(init=False)

    def __post_init__(self) -> None:
        self.producer = {o: n for n in self.nodes for o in n.output if o}
        self.uses = Counter(i for n in self.nodes for i in n.input if i)
        self.uses.update(self.outputs)

    def attr(self, node: onnx.NodeProto, name: str, default: Any = None) -> Any:
        for a in node.attribute:
            if a.name == name:
                if not a.ref_attr_name:
                    return attribute_value(a)
                if a.ref_attr_name in self.bound:
                    return attribute_value(self.bound[a.ref_attr_name])
        return default

    def alias(self, name: str) -> str:
        """The tensor that `name` is a mere copy of."""
        while name in self.producer and self.producer[name].op_type == "Identity":
            name = self.producer[name].input[0]
        return name

    def made_by(self, name: str, *ops: str) -> onnx.NodeProto | None:
        node = self.producer.get(self.alias(name))
        return node if node is not None and node.domain in ("", "ai.onnx") and node.op_type in ops else None

    def value(self, name: str) -> Tensor | None:
        """The tensor if it is a constant of the model."""
        return self.env.get(name) if name in self.constant and isinstance(self.env.get(name), Tensor) else None

    def is_zero(self, name: str) -> bool:
        v = self.value(name)
        return v is not None and not bool((v != 0).any())


class NodeCall:
    """What an operator function sees of its node."""

    def __init__(self, run: Interpreter, frame: Frame, node: onnx.NodeProto) -> None:
        self.run, self.frame, self.node = run, frame, node
        self.opset = frame.opsets.get(node.domain if node.domain != "ai.onnx" else "", 1)
        self.n_outputs = len(node.output)

    def attr(self, name: str, default: Any = None) -> Any:
        return self.frame.attr(self.node, name, default)

    def gate(self, i: int) -> Tensor:
        return self.run.gate(self.frame, self.node.input[i])

    def gate_out(self, computed: Tensor) -> Tensor:
        return self.run.gate(self.frame, self.node.output[0], computed)


class Interpreter:
    """Evaluates a model's nodes in order, in float64."""

    def __init__(self, model: onnx.ModelProto, rule: Rule, gates: Mapping[str, np.ndarray] | None = None) -> None:
        self.model, self.rule = model, rule
        self.gates = gates or {}
        self.functions = {(f.domain, f.name, getattr(f, "overload", "")): f for f in model.functions}
        self.rectifiers: list[tuple[str, str]] = []

    def top(self, feeds: Mapping[str, Tensor]) -> Frame:
        graph = self.model.graph
        opsets = {("" if o.domain == "ai.onnx" else o.domain): o.version for o in self.model.opset_import}
        env: dict[str, Any] = {t.name: to_tensor(numpy_helper.to_array(t)) for t in graph.initializer}
        constant = set(env) - set(feeds)
        env.update(feeds)
        missing = [i.name for i in graph.input if i.name not in env]
        if missing:
            raise ValueError(f"no value for the inputs {missing}")
        return Frame(graph.node, opsets, env, constant, outputs=[o.name for o in graph.output], top=True)

    def gate(self, frame: Frame, name: str, computed: Tensor | None = None) -> Tensor:
        """The values that decide a branch at tensor `name`: the given float32 run's if there is one."""
        value = (frame.env[name] if computed is None else computed).detach()
        if frame.top and name in self.gates:
            forced = torch.from_numpy(np.asarray(self.gates[name]).astype(np.float64))
            if forced.shape != value.shape:
                raise ValueError(f"the gates for {name} have shape {tuple(forced.shape)}, not {tuple(value.shape)}")
            return forced
        return value

    def known(self, node: onnx.NodeProto) -> bool:
        key = (node.domain, node.op_type, getattr(node, "overload", ""))
        return key in self.functions or node.op_type == "If" or (node.domain in ("", "ai.onnx") and node.op_type in OPS)

    def ancestors(self, frame: Frame, names: Sequence[str]) -> set[int]:
        """Ids of the nodes that `names` need."""
        seen: set[int] = set()
        todo = list(names)
        while todo:
            node = frame.producer.get(todo.pop())
            if node is not None and id(node) not in seen:
                seen.add(id(node))
                todo += reads(node)
        return seen

    def run(self, frame: Frame, wanted: set[int] | None = None) -> None:
        for node in frame.nodes:
            if wanted is not None and id(node) not in wanted:
                continue
            results = self.evaluate(frame, node)
            still = all(i in frame.constant for i in reads(node) if i) or node.op_type in ("Shape", "Size")
            for name, value in zip(node.output, results, strict=False):
                if name:
                    frame.env[name] = value
                    if still:
                        frame.constant.add(name)

    def evaluate(self, frame: Frame, node: onnx.NodeProto) -> Sequence[Any]:
        inputs = [frame.env[i] if i else None for i in node.input]
        key = (node.domain, node.op_type, getattr(node, "overload", ""))
        if key in self.functions:
            return self.call_function(frame, node, inputs)
        if node.op_type == "If":
            return self.branch(frame, node, inputs)
        if not self.known(node):
            raise Unsupported(f"{node.domain or 'ai.onnx'}::{node.op_type} (node {node.name or node.output[0]})")
        found = rectifier(frame, node)
        if found is not None and frame.env[found.source].is_floating_point():
            return [self.rectify(frame, node, found)]
        result = OPS[node.op_type](NodeCall(self, frame, node), *inputs)
        return list(result) if isinstance(result, tuple) else [result]

    def rectify(self, frame: Frame, node: onnx.NodeProto, r: Rectifier) -> Tensor:
        x = frame.env[r.source]
        gate = self.gate(frame, r.source)
        cap = torch.as_tensor(r.cap, dtype=torch.float64)
        mask = (gate > r.threshold) & (gate < cap)
        y = x.detach()
        y = torch.minimum(torch.where(y <= r.threshold, torch.zeros_like(y), y), cap)
        self.rectifiers.append((node.name or node.output[0], r.kind))
        out: Tensor = _Rectified.apply(x, y, mask, self.rule)
        return out

    def call_function(self, frame: Frame, node: onnx.NodeProto, inputs: Sequence[Any]) -> Sequence[Any]:
        f = self.functions[(node.domain, node.op_type, getattr(node, "overload", ""))]
        env = dict(zip(f.input, inputs, strict=False))
        env.update({name: None for name in f.input if name not in env})
        constant = {inner for inner, outer in zip(f.input, node.input, strict=False) if outer in frame.constant}
        opsets = {("" if o.domain == "ai.onnx" else o.domain): o.version for o in f.opset_import}
        bound = {a.name: a for a in getattr(f, "attribute_proto", [])}
        for a in node.attribute:
            bound[a.name] = frame.bound.get(a.ref_attr_name, a)
        inner = Frame(f.node, opsets, env, constant, bound, outputs=list(f.output))
        self.run(inner)
        return [inner.env[o] for o in f.output]

    def branch(self, frame: Frame, node: onnx.NodeProto, inputs: Sequence[Any]) -> Sequence[Any]:
        graph = frame.attr(node, "then_branch" if bool(inputs[0]) else "else_branch")
        env = dict(frame.env)
        env.update({t.name: to_tensor(numpy_helper.to_array(t)) for t in graph.initializer})
        constant = frame.constant | {t.name for t in graph.initializer}
        names = [o.name for o in graph.output]
        inner = Frame(graph.node, frame.opsets, env, constant, frame.bound, outputs=names)
        self.run(inner)
        return [inner.env[o] for o in names]


def reads(node: onnx.NodeProto) -> list[str]:
    """Tensors that the node reads, also from inside its subgraphs."""
    names = list(node.input)
    for a in node.attribute:
        if a.HasField("g"):
            inner = {o for n in a.g.node for o in n.output} | {t.name for t in a.g.initializer}
            names += [i for n in a.g.node for i in reads(n) if i not in inner]
            names += [o.name for o in a.g.output if o.name not in inner]
    return names


def rectifier(frame: Frame, node: onnx.NodeProto) -> Rectifier | None:
    """The rectifier that this node is, or that it completes."""
    if node.domain not in ("", "ai.onnx") or not node.input:
        return None
    kind, first = node.op_type, node.input[0]
    if kind == "Relu":
        return Rectifier(first, kind)
    if kind == "ThresholdedRelu":
        return Rectifier(first, kind, threshold=frame.attr(node, "alpha", 1.0))
    if kind in ("LeakyRelu", "Elu"):
        return Rectifier(first, kind) if frame.attr(node, "alpha", 1.0) == 0 else None
    if kind == "PRelu":
        return Rectifier(first, kind) if frame.is_zero(node.input[1]) else None
    if kind == "Clip":
        low, high = clip_bounds(frame, node)
        if low == 0 and high is not None and high > 0:
            return Rectifier(first, kind, cap=high)
        return capped(frame, first, high) if low == -math.inf and high is not None else None
    if kind == "Max" and len(node.input) == 2:
        for x, zero in (tuple(node.input), tuple(node.input)[::-1]):
            if frame.is_zero(zero) and same_shape(frame, x, zero):
                return below_cap(frame, x)
    if kind == "Min" and len(node.input) == 2:
        for x, cap in (tuple(node.input), tuple(node.input)[::-1]):
            bound = frame.value(cap)
            if bound is not None and bool((bound > 0).all()):
                return capped(frame, x, bound)
    if kind == "Where":
        return gated_where(frame, node)
    if kind == "Mul":
        return gated_mul(frame, node)
    return None


def same_shape(frame: Frame, x: str, other: str) -> bool:
    a, b = frame.env[x].shape, frame.env[other].shape
    return torch.broadcast_shapes(a, b) == a


def clip_bounds(frame: Frame, node: onnx.NodeProto) -> tuple[float | None, float | None]:
    """(low, high): infinite where absent, None where they are no constants of the model."""
    bounds: list[float | None] = []
    for i, (name, default) in enumerate((("min", -math.inf), ("max", math.inf)), 1):
        if len(node.input) > i and node.input[i]:
            v = frame.value(node.input[i])
            bounds.append(None if v is None else float(v.reshape(-1)[0]))
        else:
            bounds.append(float(frame.attr(node, name, default)))
    # The attribute's default bounds are the ends of float32.
    low, high = bounds
    if low is not None and low <= np.finfo(np.float32).min:
        low = -math.inf
    if high is not None and high >= np.finfo(np.float32).max:
        high = math.inf
    return low, high


def capped(frame: Frame, x: str, cap: Any) -> Rectifier | None:
    """min(rectifier, cap), where nobody else reads the rectifier: one capped rectifier."""
    inner = frame.producer.get(x)
    if inner is None or frame.uses[x] != 1 or not bool((torch.as_tensor(cap) > 0).all()):
        return None
    found = rectifier(frame, inner)
    if found is None or not same_shape_value(frame, found.source, cap):
        return None
    joined = torch.minimum(torch.as_tensor(found.cap, dtype=torch.float64), torch.as_tensor(cap, dtype=torch.float64))
    return Rectifier(found.source, f"{found.kind}+cap", found.threshold, joined)


def same_shape_value(frame: Frame, x: str, value: Any) -> bool:
    a = frame.env[x].shape
    return torch.broadcast_shapes(a, torch.as_tensor(value).shape) == a


def below_cap(frame: Frame, x: str) -> Rectifier:
    """max(x, 0), or max(min(x', cap), 0) where nobody else reads the inner one."""
    inner = frame.producer.get(x)
    if inner is not None and frame.uses[x] == 1 and inner.domain in ("", "ai.onnx"):
        if inner.op_type == "Min" and len(inner.input) == 2:
            for source, cap in (tuple(inner.input), tuple(inner.input)[::-1]):
                bound = frame.value(cap)
                if bound is not None and bool((bound > 0).all()) and same_shape(frame, source, cap):
                    return Rectifier(source, "Max", cap=bound)
        if inner.op_type == "Clip":
            low, high = clip_bounds(frame, inner)
            if low == -math.inf and high is not None and high > 0:
                return Rectifier(inner.input[0], "Max", cap=high)
    return Rectifier(x, "Max")


def positive_test(frame: Frame, name: str) -> tuple[str, bool] | None:
    """(x, True) if the tensor is x > 0 or x >= 0, (x, False) if it is x < 0 or x <= 0."""
    node = frame.made_by(name, "Not", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
    if node is None:
        return None
    if node.op_type == "Not":
        inner = positive_test(frame, node.input[0])
        return None if inner is None else (inner[0], not inner[1])
    greater = node.op_type.startswith("Greater")
    a, b = node.input
    if frame.is_zero(b) and frame.value(a) is None:
        return frame.alias(a), greater
    if frame.is_zero(a) and frame.value(b) is None:
        return frame.alias(b), not greater
    return None


def gated_where(frame: Frame, node: onnx.NodeProto) -> Rectifier | None:
    test = positive_test(frame, node.input[0])
    if test is None:
        return None
    kept, other = (node.input[1], node.input[2]) if test[1] else (node.input[2], node.input[1])
    if frame.is_zero(other) and frame.alias(kept) == test[0] and same_shape(frame, kept, other):
        return Rectifier(kept, "Where")
    return None


def gated_mul(frame: Frame, node: onnx.NodeProto) -> Rectifier | None:
    for x, mask in (tuple(node.input), tuple(node.input)[::-1]):
        made = frame.made_by(mask, "Cast")
        test = positive_test(frame, made.input[0]) if made is not None else None
        if test is not None and test[1] and frame.alias(x) == test[0]:
            return Rectifier(x, "Mul")
    return None


# ------------------------------------------------------------------------------------------------ the public part


@dataclass(frozen=True)
class OracleResult:
    """`outputs`: the float outputs, float64. `attribution`: float64, the input's shape. `target`: one flat index for
    each image. `rectifiers`: (node, kind) in the order of evaluation. `explained`: the scalars that were derived."""

    outputs: dict[str, np.ndarray]
    attribution: np.ndarray
    target: list[int]
    output: str
    explained: np.ndarray
    rectifiers: list[tuple[str, str]]


def load(model: Source) -> onnx.ModelProto:
    return model if isinstance(model, onnx.ModelProto) else onnx.load(str(model))


def forward(model: Source, feeds: Mapping[str, np.ndarray], names: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """All outputs that the oracle can evaluate, and the inner tensors `names`, in float64 (integers int64)."""
    proto = load(model)
    run = Interpreter(proto, "saliency")
    frame = run.top({k: to_tensor(v) for k, v in feeds.items()})
    with torch.no_grad():
        return _outputs(run, frame, names)


def _outputs(run: Interpreter, frame: Frame, extra: Sequence[str] = ()) -> dict[str, np.ndarray]:
    names = []
    wanted: set[int] = set()
    by_id = {id(n): n for n in frame.nodes}
    for name in dict.fromkeys([*(o.name for o in run.model.graph.output), *extra]):
        needed = run.ancestors(frame, [name])
        if all(run.known(by_id[i]) for i in needed):
            wanted |= needed
            names.append(name)
    if not names:
        unknown = sorted({n.op_type for n in frame.nodes if not run.known(n)})
        raise Unsupported(f"no output can be evaluated; unknown operators: {unknown}")
    run.run(frame, wanted)
    return {n: frame.env[n].detach().numpy() for n in names if isinstance(frame.env[n], Tensor)}


def _find_head(frame: Frame, name: str) -> tuple[onnx.NodeProto, list[onnx.NodeProto]] | None:
    """(head node, the moves between it and `name`, head first)."""
    moves: list[onnx.NodeProto] = []
    while name in frame.producer:
        node = frame.producer[name]
        if node.domain not in ("", "ai.onnx"):
            return None
        if node.op_type in HEADS:
            return node, moves[::-1]
        if node.op_type not in MOVES:
            return None
        moves.append(node)
        name = node.input[0]
    return None


def _float_outputs(model: onnx.ModelProto, available: Mapping[str, np.ndarray]) -> list[str]:
    return [o.name for o in model.graph.output if o.name in available and available[o.name].dtype == np.float64]


def _image_input(model: onnx.ModelProto) -> str:
    known = {t.name for t in model.graph.initializer}
    free = [i for i in model.graph.input if i.name not in known]
    for i in free:
        if len(i.type.tensor_type.shape.dim) >= 3:
            return str(i.name)
    return str(free[0].name)


def oracle(
    model: Source,
    feeds: Mapping[str, np.ndarray],
    *,
    rule: Rule = "saliency",
    target: int | Sequence[int] | None = None,
    output: str | None = None,
    explain: Literal["logit", "output"] = "logit",
    wrt: str | None = None,
    gates_from: Mapping[str, np.ndarray] | None = None,
) -> OracleResult:
    """Outputs and the attribution map of `wrt`, in float64.

    `target`: flat index into each image's output, one for all or one for each; None and -1 are the largest value of
    the output. `output`: by default the first float output that comes from a Softmax, LogSoftmax or Sigmoid, else the
    first float output; any tensor of the graph may be named. `explain="logit"` leaves that head out. `wrt`: by default
    the first input of rank 3 or more; an integer input is taken as real numbers. `gates_from`: tensor name -> values
    (see `float32_activations`) that take every branch (rectifiers, maxima, bounds) in place of the float64 values.
    Raises `Unsupported` for an operator that the oracle does not know, ValueError for wrong inputs.
    """
    proto = load(model)
    wrt = wrt or _image_input(proto)
    if wrt not in feeds:
        raise ValueError(f"no value for {wrt!r}, the input to explain")
    run = Interpreter(proto, rule, gates_from)
    tensors = {k: to_tensor(v) for k, v in feeds.items()}
    tensors[wrt] = tensors[wrt].to(torch.float64).requires_grad_()
    frame = run.top(tensors)
    outputs = _outputs(run, frame, [output] if output else [])
    floats = _float_outputs(proto, outputs)
    if output is None:
        if not floats:
            raise Unsupported("the model has no float tensor output")
        output = next((n for n in floats if _find_head(frame, n)), floats[0])
    elif output not in outputs:
        raise ValueError(f"no tensor {output!r} that the oracle can evaluate")

    explained = frame.env[output]
    head = _find_head(frame, output) if explain == "logit" else None
    if head is not None:
        explained = frame.env[head[0].input[0]]
        for node in head[1]:
            rest = [frame.env[i] if i else None for i in node.input[1:]]
            moved = OPS[node.op_type](NodeCall(run, frame, node), explained, *rest)
            explained = moved[0] if isinstance(moved, tuple) else moved

    images = tensors[wrt].shape[0]
    if explained.numel() % images:
        raise ValueError(f"output {output!r} of shape {tuple(explained.shape)} is not one result for each image")
    values = frame.env[output].detach().reshape(images, -1).numpy()
    rows = explained.reshape(images, -1)
    wished = [target] * images if target is None or isinstance(target, int | np.integer) else list(target)
    if len(wished) != images:
        raise ValueError(f"{len(wished)} targets for {images} images")
    chosen = [int(values[i].argmax()) if t is None or t == -1 else int(t) for i, t in enumerate(wished)]
    picked = rows[torch.arange(images), torch.tensor(chosen)]
    grad = torch.zeros_like(tensors[wrt])
    if picked.requires_grad:
        (got,) = torch.autograd.grad(picked.sum(), tensors[wrt], allow_unused=True)
        grad = grad if got is None else got
    return OracleResult(
        outputs=outputs,
        attribution=grad.detach().numpy(),
        target=chosen,
        output=output,
        explained=picked.detach().numpy(),
        rectifiers=run.rectifiers,
    )


def session(model: onnx.ModelProto | str | Path, *, optimise: bool = True) -> Any:
    """An ONNX Runtime CPU session; without optimisation, node by node as the graph says."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else str(model)
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def float32_activations(model: Source, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every float tensor of a run in ONNX Runtime without optimisation, by name (graph inputs and outputs too)."""
    copy = onnx.ModelProto()
    copy.CopyFrom(load(model))
    have = {o.name for o in copy.graph.output}
    for name in dict.fromkeys(o for n in copy.graph.node for o in n.output if o and o not in have):
        copy.graph.output.append(onnx.ValueInfoProto(name=name))
    run = session(copy, optimise=False)
    names = list(dict.fromkeys(o.name for o in run.get_outputs() if o.type.startswith("tensor(")))
    values = dict(zip(names, run.run(names, dict(feeds)), strict=True))
    values.update(feeds)
    return {k: v for k, v in values.items() if isinstance(v, np.ndarray) and v.dtype.kind == "f"}


@dataclass(frozen=True)
class Comparison:
    """max |a - b| / max |b|, cosine and |a| / |b| of a map and its reference."""

    max_rel: float
    cosine: float
    norm_ratio: float

    @property
    def agrees(self) -> bool:
        """Equal to 1e-4, or, where gates on zero flipped, the same direction and length."""
        return self.max_rel <= 1e-4 or (self.cosine >= 0.9999 and abs(self.norm_ratio - 1) <= 1e-3)


def compare(actual: np.ndarray, reference: np.ndarray) -> Comparison:
    """Compares two maps of one shape; two maps of zeros agree, NaN and other infinities never do."""
    if actual.shape != reference.shape:
        raise ValueError(f"shapes differ: {actual.shape} and {reference.shape}")
    a, b = actual.astype(np.float64).ravel(), reference.astype(np.float64).ravel()
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return Comparison(math.nan, math.nan, math.nan)
    difference, scale = np.abs(a - b).max(initial=0.0), np.abs(b).max(initial=0.0)
    if scale == 0:
        return Comparison(0.0, 1.0, 1.0) if difference == 0 else Comparison(math.inf, 0.0, math.inf)
    # Scaled first, so that a map of very small numbers does not vanish when squared.
    a, b = a / scale, b / scale
    na, nb = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    return Comparison(float(difference / scale), float(a @ b / (na * nb)) if na else 0.0, na / nb)
