"""Model files: read from path, bytes or ModelProto (never modified), external data opened only where that is safe."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from gbp_onnx.errors import InputError, ModelError
from gbp_onnx.graph.external import data_files, external_tensors, file_sha256, location_of, settle, stamp_of
from gbp_onnx.graph.wire import without_weights

__all__ = [
    "MAX_PROTOBUF",
    "WHOLE_BELOW",
    "ModelFile",
    "ModelSource",
    "load_model",
    "read_model",
    "serialised",
    "source_name",
    "source_sha256",
]

ModelSource = str | os.PathLike[str] | bytes | onnx.ModelProto
"""What every entry point takes for a model: a path, the file's bytes, or a ModelProto."""

OLDEST_OPSET = 7
MAX_PROTOBUF = 2**31 - 1  # protobuf refuses to serialise a message of 2 GiB or more
WHOLE_BELOW = 1 << 24
"""Bytes: a model file that is smaller is read as a whole, and may go away afterwards."""
_ROOM = 1 << 25  # for what an explainer adds to its source


def source_name(source: ModelSource) -> str:
    """How messages call this model: its path, or what it is."""
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    return f"<ModelProto {source.graph.name!r}>" if isinstance(source, onnx.ModelProto) else "<bytes>"


def source_sha256(source: ModelSource) -> str:
    """SHA-256 of the model file's bytes (of the deterministic serialisation for a ModelProto), data files left out."""
    if isinstance(source, onnx.ModelProto):
        return hashlib.sha256(source.SerializeToString(deterministic=True)).hexdigest()
    return hashlib.sha256(source).hexdigest() if isinstance(source, bytes) else file_sha256(Path(source))


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model that was read.

    `model`: a ModelProto of its own, which may be changed. `folder`: where the weights lie that were left on disk, to
    which their locations are relative; None where every weight is inside. `data`: the external data files that the
    model named, by location. `stamps`: of the files in which weights were left, as they were before they were read.
    """

    model: onnx.ModelProto
    source: ModelSource
    where: str
    folder: Path | None
    data: dict[str, Path]
    own: str = ""
    content: bytes | None = None
    stamps: dict[Path, tuple[int, ...] | None] = field(default_factory=dict)

    def fresh(self) -> ModelFile:
        """The model as it was read, from the bytes that were kept: a ModelProto of its own once more."""
        if self.content is None:
            raise ValueError(f"{self.where}: the bytes were not kept")
        return replace(self, model=_parse(self.content, self.where))

    def check_unchanged(self) -> None:
        """Raises GBP106 where a file in which weights were left has changed since it was read, or has gone."""
        for path, stamp in self.stamps.items():
            now = stamp_of(path)
            if now != stamp:
                raise ModelError(
                    "GBP106",
                    f"the weights are read where they lie, and {path.name!r} has {'changed' if now else 'gone'} since",
                    self.where,
                    "leave the file as it is while its explainer lives, or pass the model's bytes",
                )

    def digests(self) -> dict[str, str]:
        """What says which weights these are, as metadata: SHA-256 of the model file and of each data file."""
        whole = self.source if self.content is None else self.content
        found = {"gbp.source_sha256": source_sha256(whole)}
        if self.data:
            found["gbp.data_sha256"] = json.dumps({name: file_sha256(path) for name, path in self.data.items()})
        return found


def load_model(source: ModelSource) -> onnx.ModelProto:
    """Read a model into a ModelProto of its own, with its weights inside wherever that fits (see `read_model`)."""
    return read_model(source).model


def read_model(
    source: ModelSource, *, leave: bool = False, whole_below: int | None = None, hold: bool = False
) -> ModelFile:
    """Read a model; its large weights are read in, or left on disk.

    They stay on disk where `leave` asks for it: those in external data files, and those inside a model file of
    `whole_below` bytes (default 16 MiB) or more. External data also stay there where the model with them is larger
    than the 2 GiB of one protobuf message. `hold`: keep the bytes of a model that is read as a whole. Every
    location is checked before anything is opened. Raises GBP101 (missing), GBP102 (not ONNX), GBP103 (no graph), GBP104
    (opset below 7), GBP105/GBP106 (external data).
    """
    where = source_name(source)
    folder, own = None, ""
    stamps: dict[Path, tuple[int, ...] | None] = {}
    content: bytes | None = None
    if isinstance(source, onnx.ModelProto):
        if hold and source.ByteSize() <= MAX_PROTOBUF:
            content = source.SerializeToString(deterministic=True)  # as digests take it
        model = onnx.ModelProto()
        model.CopyFrom(source)
    elif isinstance(source, bytes):
        content = source
        model = _parse(content, where)
    elif isinstance(source, str | os.PathLike):
        path = Path(source)
        stamps[path] = stamp_of(path)
        light = _light(path, WHOLE_BELOW if whole_below is None else whole_below) if leave else None
        folder, own = (path.parent, "") if light is None else (path.resolve().parent, path.resolve().name)
        content = _read(path) if light is None else None
        model = _parse(content, where) if content is not None else light or onnx.ModelProto()
    else:
        raise InputError(
            "GBP405",
            f"a model is a path, bytes or an onnx.ModelProto, not {type(source).__name__}",
            where="model",
            fix="pass the path of an .onnx file",
        )
    _check_basics(model, where)
    outside = [t for tensors in external_tensors(model) for t in tensors]
    if not outside:
        return ModelFile(model, source, where, None, {}, content=content if hold else None)
    if folder is None:
        raise ModelError(
            "GBP106",
            f"the data of {outside[0].name!r} lie in another file, and bytes have no folder",
            where,
            "pass the model's path",
        )
    data = data_files(model, folder, where)
    stamps |= {path: stamp_of(path) for path in data.values()}
    left = settle(model, folder, where, None if leave else MAX_PROTOBUF - _ROOM)
    data.pop(own, None)
    stamps = stamps if left else {}
    return ModelFile(model, source, where, folder if left else None, data, own, content if hold else None, stamps)


def _light(path: Path, whole_below: int) -> onnx.ModelProto | None:
    """The model file with its large weights left where they lie in it; None where it is to be read as a whole."""
    try:
        real = path.resolve()
        status = real.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1 or status.st_size < max(whole_below, 1):
            return None
        model = onnx.ModelProto.FromString(without_weights(real))
    except (OSError, ValueError, DecodeError):
        return None  # reading it as a whole says what is wrong
    other = {location_of(t) for tensors in external_tensors(model) for t in tensors} - {real.name}
    return None if other and path.is_symlink() else model  # other data files lie beside the link


def serialised(model: onnx.ModelProto, where: str) -> bytes:
    """The model as the bytes of a file. Raises GBP113 where it is larger than protobuf's 2 GiB."""
    if model.ByteSize() > MAX_PROTOBUF:
        raise ModelError(
            "GBP113",
            "the model with its weights is larger than 2 GiB, the limit of one ONNX file",
            where,
            "leave the weights in a data file of their own",
        )
    data: bytes = model.SerializeToString()
    return data


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        why = "no such file" if isinstance(error, FileNotFoundError) else (error.strerror or str(error))
        raise ModelError("GBP101", f"cannot read the model ({why})", str(path), "check the path") from error


def _parse(data: bytes, where: str) -> onnx.ModelProto:
    if data[4:8] == b"ORTM":
        raise ModelError(
            "GBP102",
            "this is ONNX Runtime's own format (.ort), not ONNX",
            where,
            "use the .onnx file that it was made from",
        )
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        if data.startswith(_PICTURES):
            raise ModelError("GBP102", "not an ONNX model: it is a picture", where, "name the model first") from error
        if data.startswith(b"version https://git-lfs"):
            raise ModelError("GBP102", "this is a Git LFS pointer, not the model", where, "run git lfs pull") from error
        hint = (
            "it is a text file" if data[:64].isascii() and data[:64].strip() else "it is truncated, or another format"
        )
        raise ModelError("GBP102", f"not an ONNX model: {hint}", where, "pass an .onnx file") from error
    return model


_PICTURES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"RIFF", b"II*\0", b"MM\0*")


def _check_basics(model: onnx.ModelProto, where: str) -> None:
    if not model.HasField("graph") or not (model.graph.node or model.graph.output):
        what = "not an ONNX model: it holds no graph" if model.ByteSize() else "the file is empty"
        raise ModelError("GBP102", what, where, "pass an .onnx file")
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), None)
    uses_standard = any(node.domain in ("", "ai.onnx") for node in model.graph.node)
    if opset is None and uses_standard:
        raise ModelError(
            "GBP104",
            "the model names no ONNX opset (a file from before ONNX 1.0)",
            where,
            f"export it again with opset {OLDEST_OPSET} or newer",
        )
    newest = onnx.defs.onnx_opset_version()
    if opset is not None and not OLDEST_OPSET <= opset <= newest:
        fix = (
            f"export it again with opset {OLDEST_OPSET} or newer" if opset < OLDEST_OPSET else "update the onnx package"
        )
        raise ModelError("GBP104", f"opset {opset} is not supported ({OLDEST_OPSET} to {newest} are)", where, fix)
