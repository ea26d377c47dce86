"""The explainer of a model file, built or from the cache, its weights left where they are: in the file's bytes, or on
disk.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from gbp_onnx.cache import MOST_OF_ONE, Cache, code_digest
from gbp_onnx.graph.external import external_tensors, let_lie, lies_in, location_of
from gbp_onnx.graph.files import ModelFile
from gbp_onnx.graph.wire import weights_in
from gbp_onnx.target import build_loaded

__all__ = ["HELD", "built_or_kept", "is_held", "key_of", "location_in", "parsed", "without_weights_of"]

HELD = "the bytes of the source"
"""The location of weights that lie in the bytes of a model file that was read as a whole."""


def is_held(file: ModelFile) -> bool:
    """Whether the file's own bytes are at hand, and all of its weights in them."""
    return file.content is not None and file.folder is None and not file.data


def without_weights_of(file: ModelFile, built: onnx.ModelProto) -> onnx.ModelProto:
    """The built explainer, in place, its large weights taken out that lie in the bytes of the file."""
    if is_held(file) and file.content is not None:
        let_lie(built, file.content, weights_in(file.content), HELD)
    return built


def key_of(file: ModelFile, *facts: Any) -> str:
    """What stands for a model file and `facts`; empty where nothing of it may be kept.

    That is what is in memory only, and a file that names others, whose places and contents may change.
    """
    on_disk = file.own != "" and not file.data
    if not isinstance(file.source, str | os.PathLike) or not (is_held(file) or on_disk):
        return ""
    location = HELD if is_held(file) else file.own
    return json.dumps([code_digest(), file.digests(), location, *facts], default=list)


def built_or_kept(
    file: ModelFile, rules: Sequence[str], options: Mapping[str, Any], cache: Cache
) -> tuple[onnx.ModelProto, str]:
    """The explainer of a source model, and the key under which more may be kept of it; empty where nothing may."""
    key = key_of(file, list(rules), options)
    kept = parsed(cache.get(key), HELD if is_held(file) else file.own) if key else None
    if kept is None:
        kept = without_weights_of(file, build_loaded(file, rules, **options))
        if key and kept.ByteSize() <= MOST_OF_ONE:
            cache.put(key, kept.SerializeToString())
    return kept, key


def parsed(data: bytes | None, location: str) -> onnx.ModelProto | None:
    """The model in what was kept; None where it is none, or reads a data file besides `location`."""
    if data is None:
        return None
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        return None
    return model if model.graph.node and lies_in(model, location) else None


def location_in(built: onnx.ModelProto) -> str:
    """The one data file of an explainer that may be kept; empty where no weight is outside."""
    return next((location_of(tensor) for tensor in external_tensors(built)[0]), "")
