"""Attributes of NodeProtos, as Python values."""

from __future__ import annotations

from typing import Any

import onnx
from onnx import helper

__all__ = ["attribute_of", "attributes"]


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """A node's attributes by name; strings as bytes."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def attribute_of(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """One attribute, or the default where the node leaves it out."""
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)
