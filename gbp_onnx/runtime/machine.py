"""What ONNX Runtime's optimised graphs depend on besides the model: its build, and the processor, whose vector width
the layout of convolutions follows.
"""

from __future__ import annotations

import json
import platform
import sys
from functools import lru_cache
from pathlib import Path

from gbp_onnx.runtime.providers import onnxruntime

__all__ = ["machine"]

_PROCESSOR = {"vendor_id", "cpu family", "model", "model name", "flags"}  # x86
_PROCESSOR |= {"Features", "CPU implementer", "CPU architecture", "CPU variant", "CPU part"}  # ARM


@lru_cache(maxsize=1)
def machine() -> str:
    """The build of ONNX Runtime, the first processor's kind and instruction sets; empty where these are not known."""
    if sys.platform != "linux":
        return ""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as file:
            first = file.read(1 << 14).split("\n\n")[0]  # all processors would take a while to list
    except OSError:
        return ""
    facts = dict(line.split(":", 1) for line in first.splitlines() if ":" in line)
    known = {name.strip(): value.split() for name, value in facts.items() if name.strip() in _PROCESSOR}
    if not {"flags", "Features"} & set(known):
        return ""
    ort = onnxruntime()
    return json.dumps([ort.__version__, ort.get_build_info(), platform.machine(), known], sort_keys=True)
