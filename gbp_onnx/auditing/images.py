"""The images of an audit: from a folder, a list, a table or a COCO file, in one order."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gbp_onnx.auditing.annotations import Annotation, coco_annotations, csv_boxes, mask_files, row_box, voc_boxes
from gbp_onnx.auditing.config import Config
from gbp_onnx.auditing.item import Item, spread
from gbp_onnx.extras import extra
from gbp_onnx.imaging.suffixes import IMAGE_SUFFIXES

__all__ = ["find_images"]


def find_images(config: Config) -> tuple[Item, ...]:
    """The images that a configuration names. Raises GBP503 where there are none, or a file about them is broken."""
    section = config.images
    if section.folder is not None:
        items = _folder(config, config.place(section.folder), section.recursive)
    elif section.list is not None:
        items = _list(config, config.place(section.list))
    elif section.table is not None:
        items = _table(config, config.place(section.table))
    else:
        items = _coco(config, config.place(str(section.coco)))
    if not items:
        raise config.error("GBP503", "there are no images", "images", fix="check the path")
    return spread(tuple(_annotated(config, items)), section.limit)


def _folder(config: Config, folder: Path, recursive: bool) -> list[Item]:
    if not folder.is_dir():
        raise config.error("GBP503", f"there is no folder {str(folder)!r}", "images", "folder", fix="check the path")
    paths = folder.rglob("*") if recursive else folder.iterdir()
    found = sorted(p for p in paths if p.suffix.lower() in IMAGE_SUFFIXES and p.name[0] != "." and p.is_file())
    return [Item(p.relative_to(folder).as_posix(), p) for p in found]


def _list(config: Config, path: Path) -> list[Item]:
    lines = [line.strip() for line in _read(config, path, "list").splitlines()]
    root = _root(config, path)
    found = []
    for line in lines:
        if line and not line.startswith("#"):
            name, _, label = line.partition("\t")
            found.append(Item(name.strip(), root / name.strip(), label.strip() or None))
    return found


def _table(config: Config, path: Path) -> list[Item]:
    """Rows with one path are one image, with all their boxes."""
    section, root = config.images, _root(config, path)
    items: dict[str, Item] = {}
    for row in _rows(config, path):
        name = row.get(section.path_column)
        if not name:
            there = ", ".join(map(str, row))
            what = f"{path}: there is no column {section.path_column!r}"
            raise config.error("GBP503", what, "images", "path_column", fix=f"its columns are {there}")
        label = row.get(section.label_column)
        item = items.setdefault(str(name), Item(str(name), root / str(name)))
        box = row_box(row)
        if box is not None:
            item = replace(item, annotation=(item.annotation or Annotation()).with_box(box))
        items[str(name)] = replace(item, label=item.label if label in (None, "") else str(label))
    return list(items.values())


def _rows(config: Config, path: Path) -> Iterable[Mapping[str, Any]]:
    if path.suffix.lower() in (".parquet", ".pq"):
        with extra("audit"):
            import pyarrow
            from pyarrow import parquet
        try:
            rows: list[Mapping[str, Any]] = parquet.read_table(path).to_pylist()
        except (OSError, pyarrow.ArrowException) as error:
            what = f"cannot read {str(path)!r} ({error})"
            raise config.error("GBP503", what, "images", "table", fix="check the file") from error
        return rows
    return list(csv.DictReader(_read(config, path, "table").splitlines()))


def _coco(config: Config, path: Path) -> list[Item]:
    text, root = _read(config, path, "coco"), _root(config, path)
    try:
        found = coco_annotations(json.loads(text))
    except (ValueError, KeyError, TypeError, IndexError) as error:
        what = f"{path}: not a COCO file of instances ({type(error).__name__}: {error})"
        raise config.error("GBP503", what, "images", "coco", fix="it has images, annotations and categories") from error
    return [Item(name, root / name, label, annotation) for name, label, annotation in found]


def _annotated(config: Config, items: list[Item]) -> Iterable[Item]:
    """The items with the boxes and masks that files beside them hold."""
    section = config.images
    boxes: dict[str, Annotation] = {}
    if section.boxes is not None:
        place = config.place(section.boxes)
        try:
            boxes = voc_boxes(place) if place.is_dir() else csv_boxes(place.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError, SyntaxError) as error:
            what = f"cannot read the boxes in {str(place)!r} ({error})"
            raise config.error("GBP503", what, "images", "boxes", fix="VOC XML files in a folder, or a CSV") from error
    masks: dict[str, Path] = {}
    if section.masks is not None:
        masks = mask_files(config.place(section.masks))
        if not masks:
            raise config.error("GBP503", "there are no masks", "images", "masks", fix="check the path")
    for item in items:
        stem = Path(item.name).stem
        found = boxes.get(item.name) or boxes.get(Path(item.name).name) or boxes.get(stem) or item.annotation
        if stem in masks:
            found = replace(found or Annotation(), mask_file=masks[stem])
        yield replace(item, annotation=found)


def _root(config: Config, path: Path) -> Path:
    return path.parent if config.images.root is None else config.place(config.images.root)


def _read(config: Config, path: Path, key: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = "no such file" if isinstance(error, FileNotFoundError) else getattr(error, "strerror", None) or error
        what = f"cannot read {os.fspath(path)!r} ({why})"
        raise config.error("GBP503", what, "images", key, fix="check the path") from error
