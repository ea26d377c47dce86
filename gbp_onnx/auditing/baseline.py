"""What a model is compared with: another model, or maps that were stored when it was last as it should be."""

from __future__ import annotations

import hashlib
import io
import json
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gbp_onnx.auditing.case import Case, Past
from gbp_onnx.auditing.subject import Subject
from gbp_onnx.errors import AuditError
from gbp_onnx.files import write_whole

__all__ = ["ModelBaseline", "StoredBaseline", "store_maps"]

INDEX, SCHEMA = "index.json", 1
LEVELS = 255


class ModelBaseline:
    """Another model, explained beside the audited one."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject

    def past(self, case: Case, target: int | None) -> Past:
        """Explain the image with the other model."""
        x, frame = (case.x, case.frame) if self._sees_alike(case.subject) else self.subject.see(case.photo)
        run = self.subject.explain(x, frame, -1 if target is None else target)
        shares = self.subject.probabilities(run.values)
        top1 = int(np.argmax(np.where(np.isnan(run.values), -np.inf, run.values)))
        return Past(top1, run.target, float(shares[run.target]), run.maps)

    def _sees_alike(self, other: Subject) -> bool:
        return self.subject.fitted == other.fitted and self.subject.runner.dtype == other.runner.dtype


class StoredBaseline:
    """Maps in a folder: an index by the images' content, and one file for each map, named by its content."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.index: dict[str, Any] = json.loads((folder / INDEX).read_text(encoding="utf-8"))
            if self.index["schema"] != SCHEMA or not isinstance(self.index["images"], dict):
                raise ValueError(f"schema {self.index['schema']}, this program reads {SCHEMA}")
        except (OSError, ValueError, KeyError, TypeError) as error:
            missing = isinstance(error, FileNotFoundError)
            what = "no maps are stored there yet" if missing else f"the stored maps cannot be used ({error})"
            fix = "store them: gbp-onnx audit CONFIG.toml --update-baseline"
            raise AuditError("GBP504", what, str(folder), fix) from error

    def past(self, case: Case, target: int | None) -> Past | None:
        """What was stored of the image's content, for this target."""
        entry = self.index["images"].get(case.digest)
        if entry is None or (target is not None and entry["target"] != target):
            return None
        maps = {rule: self._map(name) for rule, name in entry["maps"].items()}
        return Past(entry["top1"], entry["target"], entry["score"], maps)

    def _map(self, name: str) -> NDArray[np.float32]:
        path = self.folder / "maps" / name[:2] / f"{name}.map"
        try:
            data = path.read_bytes()
            if _digest(data) != name:
                raise ValueError("its content is not what its name says")
            return unpacked(data)
        except (OSError, ValueError, zlib.error) as error:
            fix = "store the maps again: gbp-onnx audit CONFIG.toml --update-baseline"
            raise AuditError("GBP504", f"a stored map cannot be used ({error})", str(path), fix) from error


def store_maps(folder: Path, cases: Iterable[Case], rules: Sequence[str], subject: Subject) -> int:
    """Store the maps of a model as the new baseline; the number of images. Files that did not change stay untouched,
    those that nothing needs any more go.
    """
    images: dict[str, Any] = {}
    used = set[Path]()
    for case in cases:
        run = case.run
        names = {}
        for rule in rules:
            data = packed(run.maps[rule])
            names[rule] = _digest(data)
            path = folder / "maps" / names[rule][:2] / f"{names[rule]}.map"
            used.add(path)
            if not path.is_file():
                with write_whole(path) as temporary:
                    temporary.write_bytes(data)
        shares = subject.probabilities(run.values)
        images[case.digest] = {
            "name": case.item.name,
            "top1": int(np.argmax(run.values)),
            "target": run.target,
            "score": float(shares[run.target]),
            "maps": names,
        }
    index = {"schema": SCHEMA, "model_sha256": subject.sha256, "rules": list(rules), "images": images}
    with write_whole(folder / INDEX) as temporary:
        temporary.write_text(json.dumps(index, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    for path in (folder / "maps").glob("*/*.map"):
        if path not in used:
            path.unlink()
    return len(images)


def packed(attribution: NDArray[np.float32]) -> bytes:
    """A map in few bytes: each value as a sign and a square root in LEVELS steps up to the peak's, the high and the low
    bytes apart, compressed. About 0.9 bytes a value; the map that comes back has a cosine above 0.9999 with the first.
    """
    clean = np.nan_to_num(attribution.astype(np.float64), posinf=0.0, neginf=0.0)
    peak = float(np.abs(clean).max())
    levels = np.rint(np.sqrt(np.abs(clean) / (peak or 1.0)) * LEVELS).astype(np.uint16)
    code = ((levels << 1) | (clean < 0)).astype("<u2")
    planes = code.reshape(-1).view(np.uint8).reshape(-1, 2).T
    head = json.dumps({"shape": attribution.shape, "peak": peak}).encode()
    memory = io.BytesIO()
    memory.write(len(head).to_bytes(4, "little") + head)
    memory.write(zlib.compress(np.ascontiguousarray(planes).tobytes(), 9))
    return memory.getvalue()


def unpacked(data: bytes) -> NDArray[np.float32]:
    """What `packed` stored."""
    size = int.from_bytes(data[:4], "little")
    head = json.loads(data[4 : 4 + size])
    planes = np.frombuffer(zlib.decompress(data[4 + size :]), np.uint8).reshape(2, -1)
    code = np.ascontiguousarray(planes.T).view("<u2").reshape(-1)
    values = ((code >> 1) / LEVELS) ** 2 * head["peak"]
    signed = np.where(code & 1, -values, values).astype(np.float32)
    restored: NDArray[np.float32] = signed.reshape(head["shape"])
    return restored


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
