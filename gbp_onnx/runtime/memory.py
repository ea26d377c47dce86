"""Memory that was freed goes back to the system: the GNU C library keeps what ONNX Runtime frees as it loads."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress

__all__ = ["give_back"]


def give_back() -> None:
    """Give the memory that was freed back to the system. Does nothing where there is another C library."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # musl has no such function, and keeps less
            ctypes.CDLL(None).malloc_trim(0)
