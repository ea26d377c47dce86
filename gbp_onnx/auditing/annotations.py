"""Where the object is: boxes, polygons and masks from COCO, VOC and CSV files. Photograph pixels throughout."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from gbp_onnx.imaging.regions import polygon_mask, read_mask
from gbp_onnx.imaging.suffixes import IMAGE_SUFFIXES

__all__ = ["Annotation", "coco_annotations", "csv_boxes", "mask_files", "row_box", "voc_boxes"]

Box = tuple[float, float, float, float]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Annotation:
    """The object of an image: boxes (left, top, right, bottom), polygons, run lengths (COCO), a mask's file. Where
    there is something finer, boxes do not count.
    """

    boxes: tuple[Box, ...] = ()
    polygons: tuple[tuple[float, ...], ...] = ()
    runs: tuple[tuple[tuple[int, int], tuple[int, ...]], ...] = ()
    mask_file: Path | None = None

    def with_box(self, box: Box) -> Annotation:
        """The same with one more box."""
        return replace(self, boxes=(*self.boxes, box))

    def mask(self, size: tuple[int, int]) -> Mask | None:
        """Bool [H, W] for a photograph of this (height, width); None where nothing is annotated."""
        if self.mask_file is not None:
            return read_mask(self.mask_file, size)
        if self.polygons or self.runs:
            whole = polygon_mask(size, self.polygons)
            for shape, counts in self.runs:
                if shape == size:
                    whole = whole | _from_runs(shape, counts)
            return whole
        if not self.boxes:
            return None
        whole = np.zeros(size, bool)
        for left, top, right, bottom in self.boxes:
            rows = slice(max(0, round(top)), max(0, round(bottom)))
            whole[rows, max(0, round(left)) : max(0, round(right))] = True
        return whole


def coco_annotations(data: Mapping[str, Any]) -> list[tuple[str, str | None, Annotation]]:
    """(file name, label, annotation) of each image of a COCO file. The label: its category, where it has only one."""
    names = {c["id"]: str(c["name"]) for c in data.get("categories", ())}
    found = {i["id"]: Annotation() for i in data["images"]}
    labels: dict[Any, set[str]] = {i["id"]: set() for i in data["images"]}
    for entry in data.get("annotations", ()):
        key = entry["image_id"]
        if key not in found:
            continue
        left, top, width, height = map(float, entry["bbox"])
        one = found[key].with_box((left, top, left + width, top + height))
        shape = entry.get("segmentation")
        if isinstance(shape, Mapping):
            one = replace(one, runs=(*one.runs, _runs(shape)))
        elif shape:
            one = replace(one, polygons=(*one.polygons, *(tuple(map(float, p)) for p in shape)))
        found[key] = one
        labels[key].add(names.get(entry.get("category_id"), ""))
    return [
        (
            str(i["file_name"]),
            next(iter(labels[i["id"]])) or None if len(labels[i["id"]]) == 1 else None,
            found[i["id"]],
        )
        for i in data["images"]
    ]


def _runs(shape: Mapping[str, Any]) -> tuple[tuple[int, int], tuple[int, ...]]:
    height, width = (int(side) for side in shape["size"])
    counts = shape["counts"]
    return (height, width), tuple(_decoded(counts) if isinstance(counts, str) else map(int, counts))


def _decoded(text: str) -> list[int]:
    """COCO's compressed run lengths: 5 bits a character, the 6th goes on; from the third, differences to two before."""
    counts: list[int] = []
    at = 0
    while at < len(text):
        value, shift, more = 0, 0, True
        while more:
            code = ord(text[at]) - 48
            value |= (code & 0x1F) << shift
            more, at, shift = bool(code & 0x20), at + 1, shift + 5
        if code & 0x10:
            value |= -1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
    return counts


def _from_runs(size: tuple[int, int], counts: tuple[int, ...]) -> Mask:
    """Runs of outside and inside by turns, down the columns."""
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    whole: Mask = np.resize(flat, size[0] * size[1]).reshape(size[::-1]).T
    return whole


def voc_boxes(folder: Path) -> dict[str, Annotation]:
    """The boxes of the VOC XML files in a folder, by the file's stem."""
    found = {}
    for path in sorted(folder.glob("*.xml")):
        one = Annotation()
        for box in ElementTree.parse(path).iterfind("object/bndbox"):
            left, top, right, bottom = (float(box.findtext(side, "nan")) for side in ("xmin", "ymin", "xmax", "ymax"))
            one = one.with_box((left - 1, top - 1, right, bottom))  # VOC counts pixels from 1, both ends included
        found[path.stem] = one
    return found


def csv_boxes(text: str) -> dict[str, Annotation]:
    """The boxes of a CSV with the columns path, left, top, right, bottom (or xmin, ymin, xmax, ymax)."""
    found: dict[str, Annotation] = {}
    for count, row in enumerate(csv.DictReader(text.splitlines()), start=2):
        name, box = row.get("path") or row.get("filename"), row_box(row)
        if not name or box is None:
            raise ValueError(f"line {count}: the columns are path, left, top, right, bottom")
        found[name] = found.get(name, Annotation()).with_box(box)
    return found


def row_box(row: Mapping[str, Any]) -> Box | None:
    """The box in a row of a table; None where it has none."""
    for columns in (("left", "top", "right", "bottom"), ("xmin", "ymin", "xmax", "ymax")):
        sides = [row.get(column) for column in columns]
        if all(side not in (None, "") for side in sides):
            left, top, right, bottom = (float(str(side)) for side in sides)
            return left, top, right, bottom
    return None


def mask_files(folder: Path) -> dict[str, Path]:
    """The pictures of a folder by their stems."""
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    return {path.stem: path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES}
