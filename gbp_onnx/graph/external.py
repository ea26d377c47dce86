"""Weights that lie in a file of their own: found, checked before anything is opened, read in or left where they are."""

from __future__ import annotations

import hashlib
import itertools
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx

from gbp_onnx.errors import ModelError

__all__ = [
    "LEFT_OUTSIDE",
    "Extent",
    "bytes_outside",
    "data_files",
    "extent_of",
    "external_tensors",
    "file_sha256",
    "is_external",
    "let_lie",
    "lies_in",
    "location_of",
    "read_in",
    "refer",
    "settle",
    "stamp_of",
]

LEFT_OUTSIDE = 1 << 16
"""Bytes: a weight of this size or more may stay on disk. Smaller ones are read: shapes and constants come from them."""
_PIECE = 1 << 24


@dataclass(frozen=True, slots=True)
class Extent:
    """Where a tensor's raw data lie: `length` bytes from `offset` on of a plain file."""

    path: Path
    offset: int
    length: int

    def pieces(self) -> Iterator[bytes]:
        """The bytes, a few at a time. Raises GBP106."""
        try:
            # The path was checked with every link followed; O_NOFOLLOW closes the gap between that and the opening.
            flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
            with os.fdopen(os.open(self.path, flags), "rb") as file:
                file.seek(self.offset)
                left = self.length
                while left:
                    piece = file.read(min(left, _PIECE))
                    if not piece:
                        raise OSError(5, "the file ends too early")
                    left -= len(piece)
                    yield piece
        except OSError as error:
            what = f"cannot read the external data ({error.strerror or error})"
            raise ModelError("GBP106", what, str(self.path), "put the data file beside the model") from error


def is_external(tensor: onnx.TensorProto) -> bool:
    """Whether the tensor's data lie in another file."""
    return bool(tensor.data_location == onnx.TensorProto.EXTERNAL)


def external_tensors(model: onnx.ModelProto) -> tuple[list[onnx.TensorProto], list[onnx.TensorProto]]:
    """The tensors whose data lie in another file: the graph's initializers; those in attributes and subgraphs."""
    others: list[onnx.TensorProto] = []

    def visit_graph(graph: onnx.GraphProto) -> None:
        for sparse in graph.sparse_initializer:
            others.extend(t for t in (sparse.values, sparse.indices) if is_external(t))
        visit_nodes(graph.node)

    def visit_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
        for node in nodes:
            for attribute in node.attribute:
                if attribute.HasField("t") and is_external(attribute.t):
                    others.append(attribute.t)
                others.extend(filter(is_external, attribute.tensors))
                if attribute.HasField("g"):
                    visit_body(attribute.g)
                for graph in attribute.graphs:
                    visit_body(graph)

    def visit_body(graph: onnx.GraphProto) -> None:
        others.extend(filter(is_external, graph.initializer))
        visit_graph(graph)

    visit_graph(model.graph)
    for function in model.functions:
        visit_nodes(function.node)
    return [t for t in model.graph.initializer if is_external(t)], others


def bytes_outside(model: onnx.ModelProto) -> int:
    """How many bytes of the model's tensors were left on disk."""
    return sum(int(_entry(tensor, "length", "0")) for tensor in external_tensors(model)[0])


def settle(model: onnx.ModelProto, folder: Path, where: str, most: int | None) -> bool:
    """Check every external tensor of `model` and read it in, in place; returns whether weights were left on disk.

    Large initializers stay where they are, if the model with them would be larger than `most` bytes (None: always).
    Raises GBP105, GBP106.
    """
    initializers, others = external_tensors(model)
    for tensor in others:
        read_in(tensor, extent_of(tensor, folder, where))
    extents = [extent_of(tensor, folder, where) for tensor in initializers]
    leave = most is None or model.ByteSize() + sum(e.length for e in extents) > most
    left = False
    for tensor, extent in zip(initializers, extents, strict=True):
        if leave and extent.length >= LEFT_OUTSIDE:
            refer(tensor, location_of(tensor), extent.offset, extent.length)
            left = True
        else:
            read_in(tensor, extent)
    return left


def refer(tensor: onnx.TensorProto, location: str, offset: int, length: int) -> None:
    """Say, in place, where the tensor's data lie."""
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))


def let_lie(model: onnx.ModelProto, data: bytes, extents: Mapping[str, tuple[int, int]], location: str) -> None:
    """Take out, in place, the initializers whose bytes lie in `data` under their name: they are said to lie in
    `location`, at those offsets.
    """
    for tensor in model.graph.initializer:
        offset, length = extents.get(tensor.name, (0, -1))
        if (
            tensor.HasField("raw_data")
            and len(raw := tensor.raw_data) == length
            and raw == data[offset : offset + length]
        ):
            refer(tensor, location, offset, length)


def lies_in(model: onnx.ModelProto, location: str) -> bool:
    """Whether no tensor's data lie in another file than `location`."""
    return all(location_of(tensor) == location for tensors in external_tensors(model) for tensor in tensors)


def read_in(tensor: onnx.TensorProto, extent: Extent) -> None:
    """Read the tensor's data into it, in place. Raises GBP106."""
    tensor.raw_data = b"".join(extent.pieces())
    tensor.ClearField("external_data")
    tensor.data_location = onnx.TensorProto.DEFAULT


def extent_of(tensor: onnx.TensorProto, folder: Path, where: str) -> Extent:
    """Where the tensor's data lie, checked: a plain file inside `folder` that is large enough. GBP105, GBP106."""
    path = _safe_location(folder, location_of(tensor), tensor.name, where)
    try:
        offset, length = int(_entry(tensor, "offset", "0")), int(_entry(tensor, "length", "-1"))
        size = path.stat().st_size
        if length < 0:
            length = size - offset
        if offset < 0 or length < 0 or offset + length > size:
            raise ValueError(f"bytes {offset}..{offset + length} of a file of {size}")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        what = f"cannot read the external data of {tensor.name!r} from {path.name!r} ({why})"
        raise ModelError("GBP106", what, where, "put the data file beside the model") from error
    expected = _byte_length(tensor)
    if expected is not None and length != expected:
        raise ModelError(
            "GBP106",
            f"the external data of {tensor.name!r} are {length} bytes long, not {expected}",
            where,
            "copy the data file again",
        )
    return Extent(path, offset, length)


def data_files(model: onnx.ModelProto, folder: Path, where: str) -> dict[str, Path]:
    """The data files that the model names, by location, each checked. Raises GBP105, GBP106."""
    found: dict[str, Path] = {}
    for tensor in itertools.chain(*external_tensors(model)):
        location = location_of(tensor)
        if location not in found:
            found[location] = _safe_location(folder, location, tensor.name, where)
    return dict(sorted(found.items()))


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, read a piece at a time."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stamp_of(path: Path) -> tuple[int, ...] | None:
    """What changes with a file: which one it is, its size and the time of its last change; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def location_of(tensor: onnx.TensorProto) -> str:
    """The data file that the tensor names; empty where it names none."""
    return _entry(tensor, "location")


def _entry(tensor: onnx.TensorProto, key: str, default: str = "") -> str:
    return next((entry.value for entry in tensor.external_data if entry.key == key), default)


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
