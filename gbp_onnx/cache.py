"""What a second start of a model need not compute again, in a folder of files: bounded, and never needed.

The folder is ``$GBP_CACHE``, else ``gbp-onnx`` in ``$XDG_CACHE_HOME`` (``~/.cache``; ``%LOCALAPPDATA%`` on Windows);
``GBP_CACHE=off`` switches it off; ``GBP_CACHE_SIZE`` is the MiB that all entries may take together. An entry is a
digest and the bytes that it is of, or a folder of files and a note of their checksums: one that is damaged is passed
over and written anew. A folder that cannot be read or written is no cache, and no error.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from gbp_onnx.errors import GbpError, InputError
from gbp_onnx.files import write_whole
from gbp_onnx.version import package_version

__all__ = ["MOST_OF_ONE", "Cache", "cache_folder", "code_digest"]

MOST_BYTES = 1 << 30
"""Of all entries, unless the environment says otherwise; beyond, those that were not used for longest go."""
MOST_OF_ONE = 1 << 25
"""Of an entry that is read as a whole."""
_SUFFIX, _FOLDERS = ".gbp", ".files"
_CHECKSUMS = "checksums.json"
_PIECE = 1 << 22
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


def most_bytes() -> int:
    """The bytes that all entries may take together. Raises GBP410 where the environment names no size."""
    named = os.environ.get("GBP_CACHE_SIZE", "").strip()
    if not named:
        return MOST_BYTES
    if not (named.isascii() and named.isdigit()):
        raise InputError("GBP410", f"{named!r} is no number of MiB", "GBP_CACHE_SIZE", "set it to a whole number")
    return int(named) << 20


class Cache:
    """Bytes and folders of files by key, in a folder (None: nowhere). Several processes may use it at once.

    Raises GBP410 (see `most_bytes`).
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._most = 0 if folder is None else most_bytes()

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

    def takes(self, size: int) -> bool:
        """Whether a folder of `size` bytes leaves room for others."""
        return 4 * size <= self._most

    def files(self, key: str) -> Path | None:
        """The folder that was kept under a key; None where there is none, or where files in it are damaged."""
        if self._folder is None:
            return None
        path = self._path(key, _FOLDERS)
        try:
            sums = json.loads((path / _CHECKSUMS).read_bytes())
            if sums != _checksums(path):
                return None
            os.utime(path)  # used now: it goes last
        except (OSError, ValueError):
            return None
        return path

    @contextmanager
    def filling(self, key: str) -> Iterator[Path | None]:
        """Give a new folder to write files to, for its owner alone; keep it under the key where the block ends well.

        None where there is no place for one.
        """
        temporary = None
        if self._folder is not None:
            with suppress(OSError):
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                temporary = Path(tempfile.mkdtemp(prefix=".", suffix=_FOLDERS, dir=self._folder))
        try:
            yield temporary
            if temporary is not None:
                with suppress(OSError):
                    self._keep(temporary, self._path(key, _FOLDERS))
        finally:
            if temporary is not None:
                shutil.rmtree(temporary, ignore_errors=True)

    def _keep(self, temporary: Path, path: Path) -> None:
        """Move a folder into place, with the checksums of its files."""
        (temporary / _CHECKSUMS).write_text(json.dumps(_checksums(temporary)))
        for file in temporary.iterdir():
            file.chmod(0o600)
        shutil.rmtree(path, ignore_errors=True)  # it is damaged, or another process was quicker
        temporary.rename(path)
        self._make_room()

    def _path(self, key: str, suffix: str = _SUFFIX) -> Path:
        assert self._folder is not None
        return self._folder / (hashlib.sha256(key.encode()).hexdigest() + suffix)

    def _make_room(self) -> None:
        assert self._folder is not None
        paths = [p for suffix in (_SUFFIX, _FOLDERS) for p in self._folder.glob(f"*{suffix}")]
        entries = sorted(((p.stat().st_mtime_ns, _size(p), p) for p in paths), reverse=True)
        total = 0
        for _, size, path in entries:
            total += size
            if total > self._most:
                _remove(path)


def _size(path: Path) -> int:
    """The bytes of a file, or of those in a folder."""
    return sum(f.stat().st_size for f in path.iterdir()) if path.is_dir() else path.stat().st_size


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _checksums(folder: Path) -> dict[str, list[int]]:
    """Size and CRC-32 of each file of a folder, their own list left out, by name: against accidents, not against hands.

    Weights are hundreds of megabytes, which a digest would take longer over than what is kept saves.
    """
    found = {}
    for path in sorted(folder.iterdir()):
        if path.name != _CHECKSUMS:
            size = crc = 0
            with path.open("rb") as file:
                while piece := file.read(_PIECE):
                    size, crc = size + len(piece), zlib.crc32(piece, crc)
            found[path.name] = [size, crc]
    return found


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
