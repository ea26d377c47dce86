"""Write gbp_onnx/vjp/kernels.json, the kernels that ONNX Runtime has on CPU and CUDA: ``python docs/make_kernels.py``.

From docs/kernels.txt, which was written down from ``get_all_opkernel_def()`` of onnxruntime 1.32.0 (CPU) and
onnxruntime-gpu 1.31.1 (CUDA 13 build, its kernel list; nothing was run). That function needs the CUDA libraries, so
the list is kept as text: ``| operator | newest version | CPU | CUDA | note |``, of each provider the opset ranges and
the float types of the newest one. Of com.microsoft, the CPU's kernels alone are listed (from onnxruntime 1.31.1).
"""

from __future__ import annotations

import json
import re
from pathlib import Path

SOURCE = Path(__file__).with_name("kernels.txt")
TARGET = Path(__file__).parents[1] / "gbp_onnx" / "vjp" / "kernels.json"


def kernels(text: str) -> dict[str, dict[str, str]]:
    """By operator, the opset ranges and float types on "cpu" and "cuda"; a provider without a kernel is left out."""
    found = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) < 4 or not re.fullmatch(r"(com\.microsoft::)?[A-Z]\w+", cells[0]):
            continue
        pairs = zip(("cpu", "cuda"), cells[2:4], strict=True)
        found[cells[0]] = {provider: cell.removesuffix(" []") for provider, cell in pairs if cell != "—"}
    return found


def written() -> str:
    """The whole text of kernels.json."""
    made = {
        "cpu": "onnxruntime 1.32.0",
        "cuda": "onnxruntime-gpu 1.31.1",
        "kernels": kernels(SOURCE.read_text("utf-8")),
    }
    return json.dumps(made, indent=1) + "\n"


if __name__ == "__main__":
    TARGET.write_text(written(), encoding="utf-8")
    print(TARGET)
