"""``gbp-onnx explain``: maps of photographs, drawn and written."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gbp_onnx.cli.options import (
    PROVIDERS,
    RULE_NAMES,
    explained_options,
    image_options,
    json_option,
    protect,
    rule_option,
)
from gbp_onnx.errors import GbpError, InputError

if TYPE_CHECKING:
    from gbp_onnx.explainer import Explainer
    from gbp_onnx.explanation import Explanation

FIGURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
OTHER_SUFFIXES = (
    ".avif",
    ".bmp",
    ".eps",
    ".gif",
    ".html",
    ".json",
    ".npy",
    ".npz",
    ".onnx",
    ".pdf",
    ".svg",
    ".tif",
    ".tiff",
)
MODEL_SUFFIXES = (".onnx", ".ort", ".pb", ".onnx_data", ".tflite", ".h5", ".keras", ".pt", ".pth")
IMAGE_SUFFIXES = (
    ".avif",
    ".bmp",
    ".gif",
    ".jfif",
    ".jpeg",
    ".jpg",
    ".mpo",
    ".pgm",
    ".png",
    ".ppm",
    ".tif",
    ".tiff",
    ".webp",
)


@click.command()
@click.argument("model", required=False, type=click.Path())
@click.argument("images", nargs=-1, type=click.Path())
@click.option(
    "-t",
    "--target",
    default="top1",
    metavar="TARGET",
    help="Class index, label, top1 (default), top5, or an index like 3,17,40.",
)
@rule_option
@click.option(
    "-o",
    "--out",
    metavar="PATH",
    type=click.Path(),
    help="A figure's file (one image), or a folder. Default: gbp-out/.",
)
@click.option(
    "--style",
    default="color",
    metavar="NAME",
    show_default=True,
    help="How maps are drawn: color, gray, signed, positive, negative, captum-abs, pair-gray...",
)
@click.option("--percentile", type=float, metavar="P", help="Clip the map's values at this percentile while drawing.")
@click.option("--colormap", metavar="NAME", help="Colour map, for the styles that have one.")
@click.option("--maps", is_flag=True, help="Also write each map as a picture of its own.")
@click.option("--overlay", is_flag=True, help="Also write each map laid over the whole photograph.")
@click.option("--raw", is_flag=True, help="Also write the float maps (.npz) and the record (.json).")
@image_options
@explained_options
@click.option("--providers", type=click.Choice(PROVIDERS), default="auto", show_default=True, help="Where to run.")
@json_option
@click.option("-q", "--quiet", is_flag=True, help="No progress and no predictions on stderr.")
def explain(
    model: str | None,
    images: tuple[str, ...],
    target: str,
    rules: tuple[str, ...],
    out: str | None,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Explain IMAGES with MODEL (an .onnx file, or an explainer that was built from one).

    Without arguments: the bundled photograph with the bundled SqueezeNet 1.1. A folder stands for the images in it.
    Each file that is written is a line on stdout, the figure last.

    \b
    Examples:
      gbp-onnx explain
      gbp-onnx explain dog.jpg --target Weimaraner
      gbp-onnx explain model.onnx photos/ --preprocess imagenet --labels labels.txt -o maps/
      gbp-onnx explain explainer.onnx dog.jpg --style captum-abs --raw --overlay
    """
    if model is not None and not _is_model(model):
        images, model = (model, *images), None
    from gbp_onnx import bundled
    from gbp_onnx.explainer import Explainer

    paths = _expand(images or (str(bundled.photo_path()),))
    explainer = Explainer(
        model,
        rules or RULE_NAMES,
        providers=options["providers"],
        preprocess=options["preprocess"],
        labels=options["labels"],
        output=options["output"],
        explain=options["explain_as"],
        rectify=options["rectify"],
    )
    places = _places(paths, out)
    protected = [*paths, *([] if model is None else [model])]
    failed, said, records = 0, set[str](), []
    with _progress(len(paths), quiet) as advance:
        for path, place in zip(paths, places, strict=True):
            try:
                found = explainer.explain(path, _target(target, explainer.output))
                written = _write(found, place, options, protected)
            except GbpError as error:
                if len(paths) == 1 or error.code[:4] not in ("GBP4", "GBP3") or error.code in _HOPELESS:
                    raise
                click.echo(f"error: {error}", err=True)
                records.append({"image": path, "error": {"code": error.code, "what": error.what, "fix": error.fix}})
                failed += 1
            else:
                for one in found if isinstance(found, list) else [found]:
                    _announce(one, explainer, said, quiet)
                    records.append({**one.to_dict(), "files": [str(f) for f in written]})
                if not as_json:
                    for file in written:
                        click.echo(str(file))
            advance()
    if as_json:
        click.echo(json.dumps(records, indent=2, ensure_ascii=False))
    if failed:
        click.echo(f"{failed} of {len(paths)} images could not be explained", err=True)
    return 2 if failed else 0


_HOPELESS = ("GBP406", "GBP409", "GBP410", "GBP411")
"""Errors that the next image would meet as well."""


def _is_model(name: str) -> bool:
    """Whether the first argument is a model; what looks like neither is taken for one, and its error says so."""
    suffix = Path(name).suffix.lower()
    return suffix in MODEL_SUFFIXES or (suffix not in IMAGE_SUFFIXES and not Path(name).is_dir())


def _expand(names: Sequence[str]) -> list[str]:
    """Folders become the images in them, in order of their names."""
    found: list[str] = []
    for name in names:
        path = Path(name)
        if not path.is_dir():
            found.append(name)
            continue
        inside = sorted(str(p) for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
        if not inside:
            raise InputError(
                "GBP401", "the folder holds no images", name, f"known suffixes: {' '.join(IMAGE_SUFFIXES)}"
            )
        found += inside
    return found


def _places(images: Sequence[str], out: str | None) -> list[Path]:
    """The figure's path for each image: `out` itself where it names a picture, else a file in that folder; no two the
    same.
    """
    suffix = "" if out is None or Path(out).is_dir() or out.endswith(("/", os.sep)) else Path(out).suffix.lower()
    if out is not None and suffix in (*FIGURE_SUFFIXES, *OTHER_SUFFIXES):
        if suffix in OTHER_SUFFIXES:
            known = ", ".join(FIGURE_SUFFIXES)
            raise InputError("GBP411", f"figures are not written as {suffix}", out, f"use one of {known}, or a folder")
        if len(images) > 1:
            raise InputError("GBP411", f"{len(images)} images do not fit into one file", out, "name a folder with -o")
        return [Path(out)]
    folder, taken, places = Path(out or "gbp-out"), set[str](), []
    for image in images:
        stem = Path(image).stem or "image"
        name, count = stem, 0
        while name.casefold() in taken:
            count += 1
            name = f"{stem}_{count}"
        taken.add(name.casefold())
        places.append(folder / f"{name}.png")
    return places


def _target(text: str, output: str) -> Any:
    """A class index, an index into the output ("3,17,40", or "scores[0, 17, 3]" by its name), or a label."""
    if not text.strip():
        raise InputError("GBP407", "the target is empty", "target", "pass a class index, a label, top1 or top5")
    inner = re.fullmatch(rf"(?:{re.escape(output)})?\s*\[(.*)\]", text.strip())
    parts = (inner.group(1) if inner else text).split(",")
    if all(re.fullmatch(r"\s*-?\d+\s*", part) for part in parts):
        numbers = tuple(int(part) for part in parts)
        return numbers[0] if len(numbers) == 1 and not inner else numbers
    return text


def _write(
    found: Explanation | list[Explanation], place: Path, options: dict[str, Any], protected: Sequence[str]
) -> list[Path]:
    """Write what was asked for, over none of the `protected` files; the figure last, so that its path is the last."""
    from gbp_onnx.imaging.figure import stack
    from gbp_onnx.imaging.write import save_png

    style = {"style": options["style"], "percentile": options["percentile"], "colormap": options["colormap"]}
    several = found if isinstance(found, list) else [found]
    figure = stack([one.figure(**style) for one in several]) if isinstance(found, list) else found.figure(**style)
    planned: list[tuple[Path, Callable[[Path], Path]]] = []
    for rank, one in enumerate(several, start=1):
        base = place.with_suffix("")
        if isinstance(found, list):
            base = place.with_name(f"{place.stem}.{rank}-{_slug(one.name)}")
        if options["raw"]:
            planned += [(_beside(base, suffix), one.save) for suffix in (".npz", ".json")]
        for rule in one.attributions:
            if options["maps"]:
                planned.append((_beside(base, f".{rule}.png"), partial(save_png, one.picture(rule, **style))))
            if options["overlay"]:
                drawn = _over_photo(one, rule, style)
                planned.append((_beside(base, f".{rule}.overlay.png"), partial(save_png, drawn)))
    planned.append((place, partial(save_png, figure)))
    protect(protected, [path for path, _ in planned])
    return [write(path) for path, write in planned]


def _over_photo(one: Explanation, rule: str, style: dict[str, Any]) -> Any:
    import numpy as np

    from gbp_onnx.imaging.photo import read_photo

    return one.overlay(rule, whole_photo=np.asarray(read_photo(one.source)), **style)


def _beside(base: Path, suffix: str) -> Path:
    return base.with_name(base.name + suffix)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "target"


def _announce(one: Explanation, explainer: Explainer, said: set[str], quiet: bool) -> None:
    """Predictions and warnings on stderr; each warning once."""
    from gbp_onnx.explanation import score_text

    if not quiet:
        if "provider" not in said:
            said.add("provider")
            click.echo(
                f"running on {explainer.providers[0].removesuffix('ExecutionProvider')} ({explainer.provider_note})",
                err=True,
            )
        top = ", ".join(f"{p.label or p.index} {score_text(p.score, one.head)}" for p in one.predictions)
        several_axes = isinstance(one.target, tuple)  # flat indices would say nothing
        click.echo(f"{one.source}: {one.heading}" + ("" if several_axes else f"  [{top}]"), err=True)
    for warning in one.warnings:
        if warning not in said:
            said.add(warning)
            click.echo(f"warning: {warning}", err=True)


@contextmanager
def _progress(total: int, quiet: bool) -> Iterator[Any]:
    """A progress bar on stderr over several images."""
    if total < 2 or quiet:
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    with Progress(
        "explaining",
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        redirect_stdout=False,
    ) as bar:
        task = bar.add_task("", total=total)
        yield lambda: bar.advance(task)
