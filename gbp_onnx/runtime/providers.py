"""Which execution providers are used, and why: CUDA where it truly works, else the CPU, said once, never silently."""

from __future__ import annotations

import contextlib
import ctypes
import io
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import ModuleType
from typing import Any

from gbp_onnx.errors import GbpWarning, RuntimeFailure

__all__ = ["CPU", "CUDA", "Choice", "Providers", "choose_providers", "onnxruntime", "runtime_version"]

Providers = str | Sequence[str | tuple[str, dict[str, Any]]]
"""What callers pass: "auto", "cpu", "cuda", or ONNX Runtime's own list of provider names (with options)."""

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_EXACT = (CUDA, {"use_tf32": "0"})
"""CUDA with float32 products in float32: ONNX Runtime's own default rounds their factors to 10 bits."""
_INSTALL_CUDA = "install CUDA 13 and cuDNN 9, for example: pip install 'onnxruntime-gpu[cuda,cudnn]'"


@dataclass(frozen=True, slots=True)
class Choice:
    """The providers for a session, and the reason where it is not the obvious one."""

    providers: tuple[str | tuple[str, dict[str, Any]], ...]
    why: str

    @property
    def names(self) -> tuple[str, ...]:
        """The providers' names, in order of preference."""
        return tuple(p if isinstance(p, str) else p[0] for p in self.providers)

    def option(self, name: str) -> str:
        """An option of the first provider, as text; empty where it is not given."""
        first = self.providers[0] if self.providers else ""
        return "" if isinstance(first, str) else str(first[1].get(name, ""))

    @property
    def captures(self) -> bool:
        """Whether the first provider captures CUDA graphs."""
        return self.option("enable_cuda_graph").lower() in ("1", "true")


@lru_cache(maxsize=1)
def onnxruntime() -> ModuleType:
    """The onnxruntime module.

    Raises GBP301 where it is missing; warns (GBP302) where two builds lie over each other.
    """
    try:
        import onnxruntime as ort

        ort.InferenceSession  # noqa: B018 - a half-removed package imports as an empty folder
    except (ImportError, AttributeError, OSError) as error:
        fix = "pip install onnxruntime-gpu (Linux and Windows x86-64), or pip install onnxruntime"
        if _both_installed():
            raise _two_builds() from error
        raise RuntimeFailure("GBP301", f"onnxruntime does not load ({error})", fix=fix) from error
    if _both_installed():
        warnings.warn(str(_two_builds()), GbpWarning, stacklevel=2)
    ort.set_default_logger_severity(3)  # its warnings about nodes on the CPU and shapes are ours to report
    module: ModuleType = ort
    return module


def runtime_version() -> str:
    """The version of onnxruntime in use."""
    return str(onnxruntime().__version__)


def choose_providers(wanted: Providers = "auto") -> Choice:
    """Resolve what the caller asked for. Raises GBP303 where an explicit wish cannot be met; "auto" falls back and
    says why.
    """
    ort = onnxruntime()
    available = ort.get_available_providers()
    if wanted == "auto":
        problem = cuda_problem()
        if problem is None:
            return Choice((_EXACT, CPU), "CUDA works")
        expected = "no NVIDIA driver" in problem or "CPU build" in problem
        if not expected:
            _warn_once(
                f"GBP303: CUDA is there but cannot be used, running on the CPU: {problem}\n  fix: {_INSTALL_CUDA}"
            )
        return Choice((CPU,), problem)
    if isinstance(wanted, str):
        names = {"cpu": (CPU,), "cuda": (_EXACT, CPU)}
        if wanted.lower() not in names:
            raise RuntimeFailure(
                "GBP303",
                f"{wanted!r} is no provider",
                "providers",
                f"choose auto, cpu or cuda, or a list of {', '.join(available)}",
            )
        asked: tuple[str | tuple[str, dict[str, Any]], ...] = names[wanted.lower()]
    else:
        asked = tuple(wanted)
    choice = Choice(asked, "as asked")
    for name in choice.names:
        if name not in available:
            raise RuntimeFailure(
                "GBP303", f"{name} is not in this build of onnxruntime", "providers", f"it has {', '.join(available)}"
            )
        if name == CUDA and (problem := cuda_problem()) is not None:
            fix = (
                "run on a machine with an NVIDIA GPU and its driver, or use --providers cpu"
                if "driver" in problem
                else _INSTALL_CUDA
            )
            raise RuntimeFailure("GBP303", f"{name} cannot be used: {problem}", "providers", fix)
    return choice


@lru_cache(maxsize=1)
def cuda_problem() -> str | None:
    """Why CUDA cannot be used here; None where a session has really run on it.

    ONNX Runtime lists the provider whenever it was compiled in and falls back in silence: the list says nothing.
    """
    ort = onnxruntime()
    if CUDA not in ort.get_available_providers():
        return "the installed onnxruntime is a CPU build"
    driver = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        ctypes.CDLL(driver)
    except OSError:
        return "no NVIDIA driver on this machine"
    if hasattr(ort, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find
            ort.preload_dlls()  # CUDA and cuDNN from torch's or pip's nvidia packages, which no search path names
    before = ort.get_default_logger_severity() if hasattr(ort, "get_default_logger_severity") else 3
    try:
        ort.set_default_logger_severity(4)
        session = ort.InferenceSession(_PROBE, providers=[CUDA])
        if CUDA in session.get_providers():
            import numpy as np

            session.run(None, {"x": np.ones(1, np.float32)})
            return None
    except Exception as error:
        return str(error).strip().splitlines()[0]
    finally:
        ort.set_default_logger_severity(before)
    return _loader_says(ort)


def _loader_says(ort: ModuleType) -> str:
    """Why the provider's library does not load, in the loader's own words."""
    folder = Path(str(ort.__file__)).parent / "capi"
    for name in ("libonnxruntime_providers_shared.so", "libonnxruntime_providers_cuda.so"):
        if (folder / name).exists():
            try:
                ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL)
            except OSError as error:
                return str(error)
    return "its session fell back to the CPU without a reason"


def _both_installed() -> bool:
    found = 0
    for name in ("onnxruntime", "onnxruntime-gpu"):
        try:
            distribution(name)
            found += 1
        except PackageNotFoundError:
            continue
    return found == 2


def _two_builds() -> RuntimeFailure:
    return RuntimeFailure(
        "GBP302",
        "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files",
        fix="pip uninstall -y onnxruntime onnxruntime-gpu, then pip install onnxruntime-gpu",
    )


@lru_cache(maxsize=8)
def _warn_once(text: str) -> None:
    warnings.warn(text, GbpWarning, stacklevel=4)


# y = Relu(x) on one float: opset 13, IR 8. Written out, so that this tower needs no ONNX objects.
_PROBE = bytes.fromhex(
    "08083a370a0c0a0178120179220452656c75120570726f62655a0f0a0178120a0a08080112040a020801620f0a0179120a0a"
    "08080112040a02080142040a00100d"
)
