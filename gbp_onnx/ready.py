"""Sessions of graphs that ONNX Runtime has optimised before: what it wrote then, to the cache, runs as it is, its
weights mapped into memory in the layouts that run.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from gbp_onnx.cache import Cache
from gbp_onnx.errors import RuntimeFailure
from gbp_onnx.runtime.machine import machine
from gbp_onnx.runtime.session import OPTIMISED, Session
from gbp_onnx.stored import parsed

__all__ = ["session_of"]


def session_of(new: Callable[..., Session], make: Callable[[], bytes], cache: Cache, key: str) -> Session:
    """The session `new(make())`; the graph that ONNX Runtime makes of it is kept under the key, weights and all.

    `new`: takes `folder`, `held`, `optimised` and `into` as `Session` does. `key`: stands for the model and how it is
    loaded; empty where nothing is to be kept. The session runs from the cache at its first start too, where it can.
    """
    if key and machine():
        key = json.dumps([key, machine()])
        folder = cache.files(key) or _filled(new, make, cache, key)
        found = None if folder is None else _opened(new, folder)
        if found is not None:
            return found
    return new(make())


def _filled(new: Callable[..., Session], make: Callable[[], bytes], cache: Cache, key: str) -> Path | None:
    """The folder with the optimised graph, made now; an empty one, so that it is not tried again, where ONNX Runtime
    cannot write it.
    """
    with cache.filling(key) as folder:
        if folder is None:
            return None
        try:
            new(make(), into=folder)
        except RuntimeFailure:
            for file in folder.iterdir():
                file.unlink()
    return cache.files(key)


def _opened(new: Callable[..., Session], folder: Path) -> Session | None:
    """The session of what was kept; None where it is no model, or reads a file besides its own weights."""
    try:
        data = (folder / OPTIMISED[0]).read_bytes()
        if parsed(data, OPTIMISED[1]) is None:
            return None
        return new(data, folder=folder, held=None, optimised=True)
    except (OSError, RuntimeFailure):
        return None
