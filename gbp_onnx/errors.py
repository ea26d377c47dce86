"""What can go wrong, as one tree of exceptions with stable codes.

    GbpError                 code, what, where, fix
    |-- ModelError           GBP1xx  the model file
    |-- OperatorError        GBP2xx  operators that cannot be differentiated (lists every reason)
    |-- RuntimeFailure       GBP3xx  running on ONNX Runtime
    |-- InputError           GBP4xx  images, arrays, options and the files that are written
    `-- AuditError           GBP5xx  audits

    GbpWarning               a UserWarning: the result stands, but something about it should be known

Every code is listed in CODES and documented in docs/errors.md.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "CODES",
    "AuditError",
    "GbpError",
    "GbpWarning",
    "InputError",
    "ModelError",
    "OperatorError",
    "Reason",
    "RuntimeFailure",
]

CODES: dict[str, str] = {
    "GBP101": "the model file is missing or cannot be read",
    "GBP102": "the file is not an ONNX model",
    "GBP103": "the ONNX graph is not valid",
    "GBP104": "the model's opset is not supported",
    "GBP105": "an external data location is not safe to open",
    "GBP106": "an external data file is missing, too short or unresolvable",
    "GBP107": "an operator of an old opset cannot be lifted exactly",
    "GBP108": "the model has no input that can be explained",
    "GBP109": "the model has no output that can be explained",
    "GBP110": "no input or output of that name",
    "GBP111": "the model is a built explainer already",
    "GBP112": "the model's metadata cannot be used",
    "GBP113": "the model file cannot be written",
    "GBP201": "an operator has no derivative in the table",
    "GBP202": "this form of the operator has no derivative",
    "GBP203": "the explained output does not depend on the image",
    "GBP301": "ONNX Runtime is not installed or does not load",
    "GBP302": "onnxruntime and onnxruntime-gpu are installed side by side",
    "GBP303": "an execution provider cannot be used",
    "GBP304": "ONNX Runtime refuses the model",
    "GBP305": "ONNX Runtime failed while running the model",
    "GBP401": "the image file is missing or cannot be read",
    "GBP402": "the file is not an image that can be decoded",
    "GBP403": "the image is damaged or truncated",
    "GBP404": "the image is too large or has no pixels",
    "GBP405": "the array has the wrong shape or type",
    "GBP406": "the model's input does not fit a photograph",
    "GBP407": "the target is out of range or of the wrong form",
    "GBP408": "no such label, or the labels cannot be read",
    "GBP409": "the preprocessing is not valid",
    "GBP410": "an option has a value that does not exist",
    "GBP411": "an output file cannot be written",
    "GBP412": "an optional package is missing",
    "GBP501": "the audit's configuration cannot be read",
    "GBP502": "a setting of the audit is unknown or not valid",
    "GBP503": "the audit's images or annotations cannot be used",
    "GBP504": "the audit's baseline cannot be used",
}


class GbpError(Exception):
    """An error with a stable code that says what, where and how to fix it.

    Attributes: `code` ("GBP401"), `what` went wrong, `where` (the file, node or option; may be empty),
    `fix` (what the user can do; may be empty).
    """

    def __init__(self, code: str, what: str, where: str = "", fix: str = "") -> None:
        if code not in CODES:
            raise ValueError(f"{code} is not a documented error code")
        self.code, self.what, self.where, self.fix = code, what, where, fix
        text = f"{code}: {f'{where}: ' if where else ''}{what}"
        super().__init__(f"{text}\n  fix: {fix}" if fix else text)

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by the four fields, so that errors cross process boundaries."""
        return (type(self), (self.code, self.what, self.where, self.fix))


class ModelError(GbpError):
    """GBP1xx: the model file."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One operator that stands in the way: its error code, operator, node name and why."""

    code: str
    op: str
    node: str
    why: str

    def __str__(self) -> str:
        return f"{self.code}: {self.op} (node {self.node!r}): {self.why}"


class OperatorError(GbpError):
    """GBP2xx: operators. `reasons` holds every obstacle of the graph, not just the first."""

    def __init__(self, code: str, what: str, where: str = "", fix: str = "", reasons: tuple[Reason, ...] = ()) -> None:
        self.reasons = reasons
        super().__init__(code, what + "".join(f"\n  - {line}" for line in _grouped(reasons)), where, fix)

    @classmethod
    def of(cls, reasons: tuple[Reason, ...], where: str = "") -> OperatorError:
        """The error for a graph with these obstacles (at least one)."""
        count = f"{len(reasons)} node{'s' if len(reasons) > 1 else ''}"
        return cls(reasons[0].code, f"{count} cannot be differentiated:", where, _way_out(reasons), reasons)

    def __reduce__(self) -> tuple[object, ...]:
        what = self.what.split("\n  - ")[0] if self.reasons else self.what
        return (type(self), (self.code, what, self.where, self.fix, self.reasons))


def _is_quantised(op: str) -> bool:
    """Whether an operator without a derivative belongs to quantised models."""
    return op in ("QAttention", "QEmbedLayerNormalization", "QMoE") or op.startswith(
        ("QLinear", "QOrdered", "DynamicQuantize")
    )


def _grouped(reasons: tuple[Reason, ...]) -> list[str]:
    """A line for each operator and reason, with its nodes (the first five, where there are more)."""
    nodes: dict[tuple[str, str, str], list[str]] = {}
    for reason in reasons:
        nodes.setdefault((reason.code, reason.op, reason.why), []).append(repr(reason.node))
    lines = []
    for (code, op, why), names in nodes.items():
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        lines.append(f"{code}: {op} (node{'s' if len(names) > 1 else ''} {shown}): {why}")
    return lines


def _way_out(reasons: tuple[Reason, ...]) -> str:
    operators = {reason.op.rpartition("::")[2] for reason in reasons}
    if any(map(_is_quantised, operators)):
        return "quantise the model without these operators, or explain the float model that it was made from"
    if any(op.startswith("Fused") or op in ("ReorderInput", "ReorderOutput") for op in operators):
        return "ONNX Runtime has fused these operators: explain the model from before it was optimised"
    if any("rank" in reason.why or "run time" in reason.why for reason in reasons):
        return "export with static shapes or another opset, so that ranks and sizes can be inferred"
    return "export without these operators, or explain an output that does not depend on them (output=...)"


class RuntimeFailure(GbpError):  # noqa: N818 - RuntimeError is taken
    """GBP3xx: ONNX Runtime."""


class InputError(GbpError):
    """GBP4xx: images, arrays, options and the files that are written."""


class AuditError(GbpError):
    """GBP5xx: audits."""


class GbpWarning(UserWarning):
    """The result stands, but something about it should be known."""
