"""No operator is without a state: the standard's, each version of it, and those that ONNX Runtime itself registers."""

from __future__ import annotations

import onnx
import pytest
from onnxruntime.capi import onnxruntime_pybind11_state as ort

from gbp_onnx.canonical.lift import OLDEST_EMITTED
from gbp_onnx.canonical.microsoft_bodies import MICROSOFT, MICROSOFT_BODIES
from gbp_onnx.vjp import is_known
from gbp_onnx.vjp.listing import BY_BODY, rows
from gbp_onnx.vjp.microsoft_refused import FORMS

UNKNOWN = "no derivative is known for this operator"
STANDARD_GAPS = frozenset(
    """
    ConcatFromSequence ConvInteger DFT DequantizeLinear DynamicQuantizeLinear GRU If LSTM LinearAttention Loop
    MatMulInteger Optional OptionalGetElement OptionalHasElement QLinearConv QLinearMatMul QuantizeLinear RNN STFT Scan
    SequenceAt SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceLength SequenceMap SplitToSequence
    """.split()  # noqa: SIM905
)
"""Integers, control flow, recurrences, Fourier transforms and sequences, rare in image classifiers."""
LIFTED = frozenset({"ImageScaler", "Scan", "Scatter", "Upsample"})  # the lift to opset 16 replaces or refuses them


def _versions() -> list[tuple[str, int]]:
    """Every operator and version of opsets 7 to 28, by the version that it has after the lift."""
    found = set()
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "" and schema.since_version <= 28:
            newest = onnx.defs.get_schema(schema.name, max(28, schema.since_version), "")
            if newest.deprecated:
                continue
            since = schema.since_version
            if since < OLDEST_EMITTED:
                lifted = [
                    s.since_version
                    for s in onnx.defs.get_all_schemas_with_history()
                    if s.domain == "" and s.name == schema.name and s.since_version <= OLDEST_EMITTED
                ]
                since = max(lifted)
            found.add((schema.name, since))
    return sorted(found)


def test_every_version_of_a_standard_operator_has_a_state() -> None:
    versions = _versions()
    assert len(versions) > 200
    gaps = {op for op, since in versions if not is_known("", op, since) and op not in BY_BODY and op not in LIFTED}
    assert gaps <= STANDARD_GAPS, sorted(gaps - STANDARD_GAPS)


def test_no_listed_operator_is_unknown_without_a_place_in_the_list() -> None:
    assert {r["op"] for r in rows() if r["form"] == UNKNOWN} <= STANDARD_GAPS


def _integer_or_fused(op: str) -> bool:
    return op.startswith(("Q", "Dequantize", "DynamicQuantize", "MatMulInteger", "MulInteger", "Fused", "Nhwc"))


def test_every_operator_of_com_microsoft_that_onnx_runtime_registers_has_a_state() -> None:
    registered = {s.name for s in ort.get_all_operator_schema() if s.domain == MICROSOFT}
    assert len(registered) > 100
    listed = {r["op"] for r in rows() if r["domain"] == MICROSOFT}
    missing = {op for op in registered - listed if not _integer_or_fused(op)}
    assert not missing, sorted(missing)


@pytest.mark.parametrize("op", sorted(FORMS))
def test_a_form_that_no_body_covers_has_a_reason(op: str) -> None:
    assert op in MICROSOFT_BODIES
    assert is_known(MICROSOFT, op, 1)
