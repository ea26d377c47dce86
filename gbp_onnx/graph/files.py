"""Model files: read from path, bytes or ModelProto (never modified), external data opened only where that is safe."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from gbp_onnx.errors import InputError, ModelError
from gbp_onnx.files import write_whole

__all__ = ["ModelSource", "external_tensors", "load_model", "save_model", "serialised", "source_name", "source_sha256"]

ModelSource = str | os.PathLike[str] | bytes | onnx.ModelProto
"""What every entry point takes for a model: a path, the file's bytes, or a ModelProto."""

OLDEST_OPSET = 7
MAX_PROTOBUF = 2**31 - 1  # protobuf refuses to serialise a message of 2 GiB or more


def source_name(source: ModelSource) -> str:
    """How messages call this model: its path, or what it is."""
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    return f"<ModelProto {source.graph.name!r}>" if isinstance(source, onnx.ModelProto) else "<bytes>"


def source_sha256(source: ModelSource) -> str:
    """SHA-256 of the model file's bytes (of the deterministic serialisation for a ModelProto)."""
    if isinstance(source, onnx.ModelProto):
        return hashlib.sha256(source.SerializeToString(deterministic=True)).hexdigest()
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    with Path(source).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_model(source: ModelSource) -> onnx.ModelProto:
    """Read a model into a ModelProto of its own, external data included.

    Raises GBP101 (missing), GBP102 (not ONNX), GBP103 (no graph), GBP104 (opset below 7), GBP105/GBP106 (external
    data).
    """
    where = source_name(source)
    if isinstance(source, onnx.ModelProto):
        model = onnx.ModelProto()
        model.CopyFrom(source)
        folder = None
    elif isinstance(source, bytes):
        model, folder = _parse(source, where), None
    elif isinstance(source, str | os.PathLike):
        model, folder = _parse(_read(Path(source)), where), Path(source).parent
    else:
        raise InputError(
            "GBP405",
            f"a model is a path, bytes or an onnx.ModelProto, not {type(source).__name__}",
            where="model",
            fix="pass the path of an .onnx file",
        )
    _check_basics(model, where)
    _load_external_data(model, folder, where)
    return model


def save_model(model: onnx.ModelProto, path: str | os.PathLike[str]) -> None:
    """Write a model, whole or not at all. Raises GBP113 (too large for one file), GBP411 (the place takes no file)."""
    data = serialised(model, os.fspath(path))
    with write_whole(path) as temporary:
        temporary.write_bytes(data)


def serialised(model: onnx.ModelProto, where: str) -> bytes:
    """The model as the bytes of a file. Raises GBP113 where it is larger than protobuf's 2 GiB."""
    if model.ByteSize() > MAX_PROTOBUF:
        raise ModelError(
            "GBP113", "the model is larger than 2 GiB, the limit of one ONNX file", where, "use a smaller model"
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


def external_tensors(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    """Every tensor of the model, subgraphs included, whose data lie in another file."""
    found: list[onnx.TensorProto] = []

    def visit_graph(graph: onnx.GraphProto) -> None:
        found.extend(t for t in graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL)
        for sparse in graph.sparse_initializer:
            found.extend(t for t in (sparse.values, sparse.indices) if t.data_location == onnx.TensorProto.EXTERNAL)
        visit_nodes(graph.node)

    def visit_nodes(nodes: list[onnx.NodeProto]) -> None:
        for node in nodes:
            for attribute in node.attribute:
                tensors = [attribute.t, *attribute.tensors]
                found.extend(t for t in tensors if t.data_location == onnx.TensorProto.EXTERNAL)
                for graph in (attribute.g, *attribute.graphs):
                    visit_graph(graph)

    visit_graph(model.graph)
    for function in model.functions:
        visit_nodes(function.node)
    return found


def _load_external_data(model: onnx.ModelProto, folder: Path | None, where: str) -> None:
    """Read external data into the model, each location checked before anything is opened."""
    for tensor in external_tensors(model):
        if folder is None:
            raise ModelError(
                "GBP106",
                f"the data of {tensor.name!r} lie in another file, and bytes have no folder",
                where,
                "pass the model's path",
            )
        _load_external_tensor(tensor, folder, where)


def _load_external_tensor(tensor: onnx.TensorProto, folder: Path, where: str) -> None:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    path = _safe_location(folder, entries.get("location", ""), tensor.name, where)
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", -1))
        # The path was checked with every link followed; O_NOFOLLOW closes the gap between that check and the opening.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(descriptor, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if length < 0:
                length = size - offset
            if offset < 0 or length < 0 or offset + length > size:
                raise ValueError(f"bytes {offset}..{offset + length} of a file of {size}")
            file.seek(offset)
            tensor.raw_data = file.read(length)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise ModelError(
            "GBP106",
            f"cannot read the external data of {tensor.name!r} from {path.name!r} ({why})",
            where,
            "put the data file beside the model",
        ) from error
    expected = _byte_length(tensor)
    if expected is not None and len(tensor.raw_data) != expected:
        raise ModelError(
            "GBP106",
            f"the external data of {tensor.name!r} are {len(tensor.raw_data)} bytes long, not {expected}",
            where,
            "copy the data file again",
        )
    tensor.ClearField("external_data")
    tensor.data_location = onnx.TensorProto.DEFAULT


def _safe_location(folder: Path, location: str, tensor: str, where: str) -> Path:
    """The file that `location` names, inside `folder` even after every link is followed; else GBP105."""

    def refuse(why: str) -> ModelError:
        return ModelError(
            "GBP105",
            f"the external data location {location!r} of {tensor!r} {why}",
            where,
            "only files in the model's own folder are opened",
        )

    if not location:
        raise refuse("is empty")
    if "\0" in location:
        raise refuse("holds a NUL")
    posix, windows = PurePosixPath(location), PureWindowsPath(location)
    if posix.is_absolute() or windows.is_absolute() or windows.drive or windows.root:
        raise refuse("is absolute")
    if ".." in posix.parts or ".." in windows.parts:
        raise refuse("leaves the folder (..)")
    path = (folder / location).resolve()  # through every link
    if not path.is_relative_to(folder.resolve()):
        raise refuse("is a link out of the folder")
    try:
        status = path.lstat()
    except OSError as error:
        raise ModelError(
            "GBP106",
            f"the external data file {location!r} of {tensor!r} is missing",
            where,
            "put the data file beside the model",
        ) from error
    if not stat.S_ISREG(status.st_mode):
        raise refuse("is not a plain file")
    if status.st_nlink > 1:
        raise refuse("is a hard link, which may lead out of the folder (copy the file)")
    return path


def _byte_length(tensor: onnx.TensorProto) -> int | None:
    """Bytes that the raw data of `tensor` must have; None for strings."""
    if tensor.data_type == onnx.TensorProto.STRING:
        return None
    bits = _BITS.get(tensor.data_type)
    if bits is None:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        bits = dtype.itemsize * 8
    count = 1
    for dim in tensor.dims:
        count *= dim
    return (count * bits + 7) // 8


_BITS = {
    getattr(onnx.TensorProto, name): bits
    for name, bits in {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}.items()
    if hasattr(onnx.TensorProto, name)
}
