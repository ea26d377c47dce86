"""The protobuf wire format of a model file, as far as weights need it: a file taken apart and put together again with
its weights never in memory (https://protobuf.dev/programming-guides/encoding).

Concatenated messages are merged by whoever parses them, so a field is replaced by leaving it out and appending another.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import onnx

from gbp_onnx.graph.external import LEFT_OUTSIDE, Extent, refer

__all__ = ["joined", "weights_in", "without_weights"]

_GRAPH = onnx.ModelProto.DESCRIPTOR.fields_by_name["graph"].number
_INITIALIZER = onnx.GraphProto.DESCRIPTOR.fields_by_name["initializer"].number
_NAME = onnx.TensorProto.DESCRIPTOR.fields_by_name["name"].number
_EXTERNAL_DATA = onnx.TensorProto.DESCRIPTOR.fields_by_name["external_data"].number
_RAW_DATA = onnx.TensorProto.DESCRIPTOR.fields_by_name["raw_data"].number
_DELIMITED = 2  # the wire type of strings, bytes and messages
_Data = mmap.mmap | bytes
_Field = tuple[int, int, int, int]  # number, and where the field, its content and the next field begin


def without_weights(path: Path) -> bytes:
    """The model file `path` with its large initializers left out, each said to lie in `path` itself.

    Raises OSError, and ValueError where the bytes are no such message.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _replaced(data, 0, len(data), _GRAPH, lambda a, b: _graph(data, a, b, path.name))


def weights_in(data: bytes) -> dict[str, tuple[int, int]]:
    """Where the raw data of the large initializers lie in a model file's bytes: offset and length, by name.

    Raises ValueError where the bytes are no such message.
    """
    found: dict[str, tuple[int, int]] = {}
    graphs = (f for f in _fields(data, 0, len(data)) if f[0] == _GRAPH)
    tensors = (f for g in graphs for f in _fields(data, g[2], g[3]) if f[0] == _INITIALIZER)
    for _, _, content, after in tensors:
        fields = {f[0]: f for f in _fields(data, content, after)}
        if _NAME in fields and _RAW_DATA in fields and fields[_RAW_DATA][3] - fields[_RAW_DATA][2] >= LEFT_OUTSIDE:
            name = data[fields[_NAME][2] : fields[_NAME][3]].decode(errors="replace")
            found[name] = fields[_RAW_DATA][2], fields[_RAW_DATA][3] - fields[_RAW_DATA][2]
    return found


def joined(model: onnx.ModelProto, extents: Mapping[str, Extent]) -> tuple[int, Iterator[bytes]]:
    """The size and the bytes, in pieces, of the file of `model` with the data of the initializers in `extents` inside.

    `extents`: where the data of an initializer lie, by its name.
    """
    rest = onnx.ModelProto()
    rest.CopyFrom(model)
    rest.ClearField("graph")
    graph = onnx.GraphProto()
    graph.CopyFrom(model.graph)
    del graph.initializer[:]
    heads: list[tuple[bytes, Extent | None]] = [(graph.SerializeToString(), None)]
    size = len(heads[0][0])
    for tensor in model.graph.initializer:
        extent = extents.get(tensor.name)
        plain = onnx.TensorProto()
        plain.CopyFrom(tensor)
        if extent is None:
            content, length = plain.SerializeToString(), 0
        else:
            for field in ("external_data", "data_location"):
                plain.ClearField(field)
            content = plain.SerializeToString() + _tag(_RAW_DATA) + _varint(extent.length)
            length = extent.length
        head = _tag(_INITIALIZER) + _varint(len(content) + length) + content
        heads.append((head, extent))
        size += len(head) + length
    first = rest.SerializeToString() + _tag(_GRAPH) + _varint(size)

    def pieces() -> Iterator[bytes]:
        yield first
        for head, extent in heads:
            yield head
            if extent is not None:
                yield from extent.pieces()

    return len(first) + size, pieces()


def _graph(data: _Data, begin: int, end: int, location: str) -> bytes:
    return _replaced(data, begin, end, _INITIALIZER, lambda a, b: _tensor(data, a, b, location))


def _tensor(data: _Data, begin: int, end: int, location: str) -> bytes:
    """A TensorProto, its raw data replaced by where they lie, if they are large."""
    found = [f for f in _fields(data, begin, end) if f[0] in (_RAW_DATA, _EXTERNAL_DATA)]
    if len(found) != 1 or found[0][0] != _RAW_DATA or found[0][3] - found[0][2] < LEFT_OUTSIDE:
        return data[begin:end]
    _, before, content, after = found[0]
    reference = onnx.TensorProto()
    refer(reference, location, content, after - content)
    place: bytes = reference.SerializeToString()
    return data[begin:before] + data[after:end] + place


def _replaced(data: _Data, begin: int, end: int, number: int, change: Callable[[int, int], bytes]) -> bytes:
    """The message in data[begin:end] with the content of each field `number` changed."""
    parts: list[bytes] = []
    for field, start, content, after in _fields(data, begin, end):
        if field == number:
            changed = change(content, after)
            parts += [_tag(number), _varint(len(changed)), changed]
        else:
            parts.append(data[start:after])
    return b"".join(parts)


def _fields(data: _Data, begin: int, end: int) -> Iterator[_Field]:
    """The fields of the message in data[begin:end]. Raises ValueError where it is none."""
    at = begin
    while at < end:
        start = at
        key, at = _read_varint(data, at, end)
        match key & 7:
            case 0:
                content = at
                _, at = _read_varint(data, at, end)
            case 1:
                content, at = at, at + 8
            case 2:
                length, content = _read_varint(data, at, end)
                at = content + length
            case 5:
                content, at = at, at + 4
            case _:
                raise ValueError(f"wire type {key & 7}")
        if at > end:
            raise ValueError("a field ends too late")
        yield key >> 3, start, content, at


def _read_varint(data: _Data, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 64:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ValueError("a number without end")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _tag(number: int) -> bytes:
    return _varint(number << 3 | _DELIMITED)
