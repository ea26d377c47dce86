"""What a second start of a model need not compute again, in a folder of files: bounded, and never needed.

The folder is ``$GBP_CACHE``, else ``gbp-onnx`` in ``$XDG_CACHE_HOME`` (``~/.cache``; ``%LOCALAPPDATA%`` on Windows);
``GBP_CACHE=off`` switches it off. An entry is a digest and the bytes that it is of: one that is damaged is passed over
and written anew. A folder that cannot be read or written is no cache, and no error.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from gbp_onnx.errors import GbpError
from gbp_onnx.files import write_whole
from gbp_onnx.version import package_version

__all__ = ["MOST_OF_ONE", "Cache", "cache_folder", "code_digest"]

MOST_BYTES = 1 << 28
"""Of all entries; beyond, those that were not used for longest go."""
MOST_OF_ONE = 1 << 25
_SUFFIX = ".gbp"
_DIGEST = 32


def cache_folder() -> Path | None:
    """The folder that the environment names; None where the cache is switched off or has no place."""
    named = os.environ.get("GBP_CACHE")
    if named:
        return None if named.lower() in ("off", "0", "no", "none") else Path(named)
    try:
        home = Path.home()
    except RuntimeError:
        return None
    base = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME") or home / ".cache"
    return Path(base) / "gbp-onnx"


class Cache:
    """Bytes by key, in a folder (None: nowhere). Several processes may use it at once."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def of(self, key: str, make: Callable[[], bytes]) -> bytes:
        """The bytes of a key, from the folder or made now and kept there. What `make` raises is raised."""
        found = self.get(key)
        if found is None:
            found = make()
            self.put(key, found)
        return found

    def get(self, key: str) -> bytes | None:
        """The bytes that were kept under a key; None where there are none, or where they are damaged."""
        if self._folder is None:
            return None
        path = self._path(key)
        try:
            stored = path.read_bytes()
            if hashlib.sha256(stored[_DIGEST:]).digest() != stored[:_DIGEST]:
                return None
            os.utime(path)  # used now: it goes last
        except OSError:
            return None
        return stored[_DIGEST:]

    def put(self, key: str, value: bytes) -> None:
        """Keep bytes under a key, if they fit."""
        if self._folder is None or len(value) > MOST_OF_ONE:
            return
        with suppress(OSError, GbpError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with write_whole(self._path(key)) as temporary:
                temporary.write_bytes(hashlib.sha256(value).digest() + value)
            self._make_room()

    def _path(self, key: str) -> Path:
        assert self._folder is not None
        return self._folder / (hashlib.sha256(key.encode()).hexdigest() + _SUFFIX)

    def _make_room(self) -> None:
        assert self._folder is not None
        files = sorted(
            ((f.stat().st_mtime_ns, f.stat().st_size, f) for f in self._folder.glob(f"*{_SUFFIX}")), reverse=True
        )
        total = 0
        for _, size, path in files:
            total += size
            if total > MOST_BYTES:
                path.unlink(missing_ok=True)


@lru_cache(maxsize=1)
def code_digest() -> str:
    """What entries depend on besides their model: the package's version, and its files as they are now."""
    package = Path(__file__).parent
    facts = [package_version(), sys.version]
    for name in ("numpy", "onnx", "onnx-graphsurgeon"):
        with suppress(PackageNotFoundError):
            facts.append(version(name))
    with suppress(OSError):
        for path in sorted(package.rglob("*.py")):
            status = path.stat()
            facts.append(f"{path.relative_to(package)} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()
