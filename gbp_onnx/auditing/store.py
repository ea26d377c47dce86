"""Results of finished images, kept on disk until the run is complete, so that a second run goes on from there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from gbp_onnx.errors import InputError

__all__ = ["Store"]


class Store:
    """One folder for each combination of model, baseline, settings and versions; one line of JSON for each result.

    A line is written whole and flushed; a last line that a kill cut off is not read.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder / key
        self._top = folder
        self._file = self.folder / "results.jsonl"
        self._known: dict[str, Any] = {}
        try:
            (self.folder / "pictures").mkdir(parents=True, exist_ok=True)
            (folder / ".gitignore").write_text("*\n", encoding="utf-8")
            if self._file.is_file():
                self._read()
            self._handle = self._file.open("a", encoding="utf-8")
        except OSError as error:
            what = f"cannot keep results there ({error.strerror or error})"
            raise InputError("GBP411", what, str(folder), "set state under [run]") from error

    def _read(self) -> None:
        whole = 0
        with self._file.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                entry = json.loads(line)
                self._known[entry["key"]] = entry["result"]
                whole += len(line)
        if whole != self._file.stat().st_size:
            with self._file.open("r+b") as file:
                file.truncate(whole)

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: str) -> Any:
        """A result that is known; None where it is not."""
        return self._known.get(key)

    def put(self, key: str, result: Mapping[str, Any], pictures: Mapping[str, bytes]) -> None:
        """Keep a result and its pictures; the pictures are there when the result is."""
        for kind, data in pictures.items():
            self._picture(key, kind).write_bytes(data)
        self._known[key] = result
        self._handle.write(json.dumps({"key": key, "result": result}, ensure_ascii=False) + "\n")
        self._handle.flush()

    def picture(self, key: str, kind: str) -> bytes | None:
        """A picture that was kept."""
        path = self._picture(key, kind)
        return path.read_bytes() if path.is_file() else None

    def _picture(self, key: str, kind: str) -> Path:
        return self.folder / "pictures" / f"{key}-{kind}.jpg"

    def close(self) -> None:
        """Let go of the file; everything stays."""
        self._handle.close()

    def clear(self) -> None:
        """Forget everything: the run is complete, and its reports are written."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):
            if {p.name for p in self._top.iterdir()} == {".gitignore"}:
                (self._top / ".gitignore").unlink()
                self._top.rmdir()
