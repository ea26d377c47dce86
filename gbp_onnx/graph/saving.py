"""Model files written, whole or not at all: one file where that is enough, else with the weights in a second one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import onnx

from gbp_onnx.errors import InputError, ModelError
from gbp_onnx.files import write_whole
from gbp_onnx.graph.external import LEFT_OUTSIDE, Extent, extent_of, external_tensors, is_external, read_in, refer
from gbp_onnx.graph.files import MAX_PROTOBUF, serialised
from gbp_onnx.graph.wire import joined

__all__ = ["WEIGHTS", "data_path", "save", "write_model"]

WEIGHTS = ("auto", "copy", "inside")
_PAGE = 4096  # weights begin on pages, so that runtimes can map them into memory


def save(
    model: onnx.ModelProto,
    path: str | os.PathLike[str],
    *,
    source: str | os.PathLike[str] | None = None,
    weights: str = "auto",
) -> Path:
    """Write what `build` or `differentiate` made, whole or not at all, and return its path.

    Where the model's weights lie in a data file (they do where they are too large for one ONNX file), `source` is the
    path of the model that they belong to (default: a model in the folder of `path`). `weights`: "auto" shares that data
    file where it lies in the folder of `path` (or below), and copies it to ``<path>.data`` elsewhere; "copy" always
    copies; "inside" puts the weights into the one file. Weights that are inside stay inside, up to 2 GiB in all, beyond
    which "auto" and "copy" move the large ones to ``<path>.data``. Weights on disk are streamed.

    Raises GBP106 (a data file is missing), GBP113 (too large for one file), GBP410, GBP411 (the place takes no file).
    """
    folder = Path(path).parent if source is None else Path(source).parent
    return write_model(model, path, folder, weights=weights)[-1]


def write_model(
    model: onnx.ModelProto,
    path: str | os.PathLike[str],
    folder: Path | None,
    *,
    weights: str = "auto",
    inside: Path | None = None,
) -> list[Path]:
    """`save` for a model whose weights lie in files of `folder`; `inside`: the model file that holds them itself.

    Returns the files that were written, the model last.
    """
    if weights not in WEIGHTS:
        what = f"{weights!r} is no place for weights"
        raise InputError("GBP410", what, "weights", f"choose from {', '.join(WEIGHTS)}")
    out, where = Path(path), os.fspath(path)
    if not any(external_tensors(model)) and model.ByteSize() <= MAX_PROTOBUF:
        with write_whole(out) as temporary:
            temporary.write_bytes(serialised(model, where))
        return [out]
    folder = folder or out.parent
    shell = _shell(model, folder, where)
    extents = {t.name: extent_of(t, folder, where) for t in shell.graph.initializer if is_external(t)}
    here = out.parent.resolve()
    beside = {n: e for n, e in extents.items() if e.path != inside and e.path.is_relative_to(here)}
    shared = beside if weights == "auto" else {}
    joins = {n: e for n, e in extents.items() if weights == "inside" or e.path == inside}
    if shell.ByteSize() + sum(e.length for e in joins.values()) > MAX_PROTOBUF and weights != "inside":
        joins = {}
    moved = {n: e for n, e in extents.items() if n not in shared and n not in joins}
    for tensor in shell.graph.initializer:
        if tensor.name in shared:
            extent = shared[tensor.name]
            refer(tensor, extent.path.relative_to(here).as_posix(), extent.offset, extent.length)
    crowded = shell.ByteSize() > MAX_PROTOBUF and weights != "inside"
    large = [t for t in shell.graph.initializer if crowded and len(t.raw_data) >= LEFT_OUTSIDE]
    if not moved and not large:
        _write_file(shell, joins, out, where)
        return [out]
    second = data_path(out)
    if second.resolve() in {e.path for e in extents.values()} | {inside}:
        raise InputError("GBP411", "this file was read, it is not written over", str(second), "name another with -o")
    with write_whole(out) as temporary, write_whole(second) as data:  # the data come into place first
        _write_data(shell, moved, large, data, second.name)
        _write_file(shell, joins, temporary, where, whole=False)
    return [second, out]


def data_path(path: str | os.PathLike[str]) -> Path:
    """Where the weights of a model file are written that has none to share."""
    out = Path(path)
    return out.with_name(out.name + ".data")


def _shell(model: onnx.ModelProto, folder: Path, where: str) -> onnx.ModelProto:
    """A copy whose only external tensors are initializers: tensors elsewhere (in attributes, subgraphs) are read in."""
    shell = onnx.ModelProto()
    shell.CopyFrom(model)
    for tensor in external_tensors(shell)[1]:
        read_in(tensor, extent_of(tensor, folder, where))
    return shell


def _write_file(
    shell: onnx.ModelProto, joins: Mapping[str, Extent], path: Path, where: str, whole: bool = True
) -> None:
    size, pieces = joined(shell, joins)
    if size > MAX_PROTOBUF:
        raise ModelError(
            "GBP113",
            f"the model with its weights is {size / 2**30:.1f} GiB large, the limit of one ONNX file is 2",
            where,
            "let the weights lie in a data file: weights=auto or copy",
        )
    if whole:
        with write_whole(path) as temporary:
            _write(temporary, pieces)
    else:
        _write(path, pieces)


def _write_data(
    shell: onnx.ModelProto, moved: Mapping[str, Extent], large: list[onnx.TensorProto], path: Path, location: str
) -> None:
    """Write weights one after the other, equal extents once, and let the tensors of `shell` refer to them."""
    inline = {id(t) for t in large}
    placed: dict[Extent, int] = {}
    with path.open("wb") as file:
        for tensor in shell.graph.initializer:
            extent = moved.get(tensor.name)
            if extent is None and id(tensor) not in inline:
                continue
            length = len(tensor.raw_data) if extent is None else extent.length
            offset = placed.get(extent, -1) if extent is not None else -1
            if offset < 0:
                file.write(b"\0" * (-file.tell() % _PAGE))
                offset = file.tell()
                for piece in [tensor.raw_data] if extent is None else extent.pieces():
                    file.write(piece)
            if extent is not None:
                placed[extent] = offset
            refer(tensor, location, offset, length)


def _write(path: Path, pieces: Iterable[bytes]) -> None:
    with path.open("wb") as file:
        file.writelines(pieces)
