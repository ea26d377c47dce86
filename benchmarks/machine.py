"""The machine that numbers were measured on, in words."""

from __future__ import annotations

import os
import platform
from datetime import date
from pathlib import Path

NOTABLE = (
    "avx2",
    "fma",
    "f16c",
    "avx_vnni",
    "avx512f",
    "avx512vl",
    "avx512_vnni",
    "avx512_bf16",
    "amx_tile",
    "amx_bf16",
)
ARM = ("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme")
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def machine(threads: int) -> list[tuple[str, str]]:
    """Rows (what, value): processor, cores, caches, instruction sets, memory, versions, threads, date."""
    import onnxruntime as ort

    facts = _cpuinfo()
    flags = (facts.get("flags") or facts.get("Features") or "").split()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else 0.0
    rows = [
        ("processor", facts.get("model name") or platform.processor() or platform.machine()),
        ("cores", str(usable_cores())),
        ("caches", ", ".join(_caches())),
        ("instruction sets", " ".join(f for f in (*NOTABLE, *ARM) if f in flags)),
        ("memory", f"{memory:.0f} GiB" if memory else ""),
        ("system", f"{platform.system()} {platform.release()}, Python {platform.python_version()}"),
        ("onnxruntime", f"{ort.__version__}, CPU provider"),
        ("threads", str(threads) if threads else f"each library's default for {usable_cores()} cores"),
        ("date", date.today().isoformat()),
    ]
    return [(what, value) for what, value in rows if value]


def usable_cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpuinfo() -> dict[str, str]:
    """The first processor's entry; empty where the system has no /proc."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    first = path.read_text().split("\n\n")[0].splitlines()
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first)}


def _caches() -> list[str]:
    """ "L1d 48K" and the like, of one core."""
    found = []
    for folder in sorted(CACHES.glob("index*")):
        level, kind, size = ((folder / name).read_text().strip() for name in ("level", "type", "size"))
        if kind != "Instruction":
            found.append(f"L{level}{'d' if kind == 'Data' else ''} {size}")
    return found
