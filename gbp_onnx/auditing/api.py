"""`gbp_onnx.audit`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from gbp_onnx.auditing.config import read_config
from gbp_onnx.auditing.run import Progress, run_audit
from gbp_onnx.report.record import AuditReport

__all__ = ["audit"]


def audit(
    config: str | os.PathLike[str] | Mapping[str, Any], *, fresh: bool = False, progress: Progress | None = None
) -> AuditReport:
    """Run the checks of a configuration on its model and images.

    `config`: a TOML file, or a mapping of the same form (paths are relative to the current folder). `fresh`: forget the
    results that a run that was stopped has kept. `progress`: called with (images done, images in all, name).

    Returns the report: `.passed`, `.exit_status` (0 passed; 1 a gating check failed or time ran out; 3 the model cannot
    be explained), `.checks`, `.check(name)`, `.images`, `.summary`; `gbp_onnx.report` writes it to files. Raises
    AuditError (GBP5xx), and what models raise (GBP1xx, GBP3xx).
    """
    report, forget = run_audit(read_config(config), fresh=fresh, progress=progress)
    forget()
    return report
