"""``gbp-onnx explain``: maps of photographs, drawn and written."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gbp_onnx.cli.options import (
    PROVIDERS,
    explained_options,
    guard,
    image_options,
    json_option,
    lowering_option,
    rule_option,
)
from gbp_onnx.cli.outputs import Drawn, draw, places
from gbp_onnx.errors import GbpError, InputError
from gbp_onnx.files import write_bytes
from gbp_onnx.imaging.folder import expand
from gbp_onnx.imaging.suffixes import IMAGE_SUFFIXES
from gbp_onnx.pipeline import in_order, shared_out

if TYPE_CHECKING:
    from gbp_onnx.explainer import Explainer
    from gbp_onnx.explanation import Explanation

MODEL_SUFFIXES = (".onnx", ".ort", ".pb", ".onnx_data", ".tflite", ".h5", ".keras", ".pt", ".pth")


@click.command()
@click.argument("model", required=False, type=click.Path())
@click.argument("images", nargs=-1, type=click.Path())
@click.option(
    "-t",
    "--target",
    "targets",
    multiple=True,
    metavar="TARGET",
    help="Class index, label, top1 (default), top5, OUTPUT[0, 17, 3], mask:CLASS@REGION, box:CLASS@NUMBER, "
    "similar:IMAGE, seed.npy. Repeated, or @FILE with one a line: one for each image.",
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
@click.option("--low-memory", is_flag=True, help="No second copy of the weights in a layout that runs faster.")
@lowering_option("auto", "what the provider in use likes")
@click.option(
    "--threads", type=int, default=0, metavar="N", help="Threads for one image. Default: ONNX Runtime's choice."
)
@json_option
@click.option("-q", "--quiet", is_flag=True, help="No progress and no predictions on stderr.")
def explain(
    model: str | None,
    images: tuple[str, ...],
    targets: tuple[str, ...],
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
      gbp-onnx explain detector.onnx street.jpg --target box:dog
    """
    if model is not None and not _is_model(model):
        images, model = (model, *images), None
    from gbp_onnx import bundled
    from gbp_onnx.explainer import Explainer

    paths = expand(images or (str(bundled.photo_path()),))
    explainer = Explainer(
        model,
        rules or None,
        providers=options["providers"],
        preprocess=options["preprocess"],
        labels=options["labels"],
        output=options["output"],
        explain=options["explain_as"],
        rectify=options["rectify"],
        low_memory=options["low_memory"] or None,
        lowering=options["lowering"],
        threads=options["threads"] or shared_out(1 if options["low_memory"] else len(paths))[1],
    )
    jobs = zip(paths, _targets(targets, len(paths)), places(paths, out), strict=True)
    check = guard([*paths, *([] if model is None else [model])])
    failed, said, records = 0, set[str](), []
    results = in_order(partial(_seen, explainer, options, check, quiet), jobs, min(len(paths), explainer.workers))
    with _progress(len(paths), quiet) as (advance, say), closing(results):
        for path, seen in zip(paths, results, strict=True):
            try:
                if isinstance(seen, GbpError):
                    raise seen
                for file, content in seen.drawn.files:
                    write_bytes(file, content)
            except GbpError as error:
                if len(paths) == 1 or error.code[:4] not in ("GBP4", "GBP3") or error.code in _HOPELESS:
                    raise
                say(f"error: {error}")
                records.append({"image": path, "error": {"code": error.code, "what": error.what, "fix": error.fix}})
                failed += 1
            else:
                for line in seen.lines:
                    if line.always or line.text not in said:
                        said.add(line.text)
                        say(line.text)
                if as_json:
                    records += seen.records
                else:
                    for file, _ in seen.drawn.files:
                        click.echo(str(file))
            advance()
    if as_json:
        click.echo(json.dumps(records, indent=2, ensure_ascii=False))
    if failed:
        click.echo(f"{failed} of {len(paths)} images could not be explained", err=True)
    return 2 if failed else 0


_HOPELESS = ("GBP406", "GBP409", "GBP410", "GBP411")
"""Errors that the next image would meet as well."""


@dataclass(frozen=True, slots=True)
class _Line:
    """What is said on stderr: once, or each time."""

    text: str
    always: bool = False


@dataclass(frozen=True, slots=True)
class _Seen:
    """What is said and written of one image. The maps themselves are forgotten: they may be large, and wait."""

    lines: list[_Line]
    records: list[dict[str, Any]]
    drawn: Drawn


def _seen(
    explainer: Explainer,
    options: dict[str, Any],
    check: Callable[[Iterable[Path]], None],
    quiet: bool,
    job: tuple[str, Any, Path],
) -> _Seen | GbpError:
    """One image from its file to the content of the files that show it; nothing is written."""
    path, target, place = job
    try:
        found = explainer.explain(path, target)
        drawn = draw(found, place, options, check)
    except GbpError as error:
        return error
    several = found if isinstance(found, list) else [found]
    lines = [line for one in several for line in _lines(one, explainer, quiet)]
    names = [[str(path) for path, _ in (*files, drawn.figure)] for files in drawn.parts]
    records = [{**one.to_dict(), "files": files} for one, files in zip(several, names, strict=True)]
    return _Seen(lines, records, drawn)


def _is_model(name: str) -> bool:
    """Whether the first argument is a model: by its suffix, else by the content; what is missing counts as one."""
    path, suffix = Path(name), Path(name).suffix.lower()
    if suffix in MODEL_SUFFIXES or suffix in IMAGE_SUFFIXES or path.is_dir():
        return suffix in MODEL_SUFFIXES and not path.is_dir()
    if not path.is_file():
        return True
    from gbp_onnx.imaging.photo import is_picture

    return not is_picture(path)


def _targets(texts: Sequence[str], count: int) -> list[Any]:
    """One target for each of `count` images: one for all, or as many as there are images; @FILE is one a line."""
    lines: list[str] = []
    for text in texts or ("top1",):
        lines.extend(_lines_of(text[1:]) if text.startswith("@") else [text])
    if len(lines) not in (1, count):
        what = f"{len(lines)} targets for {count} image{'s' if count > 1 else ''}"
        raise InputError("GBP407", what, "target", "pass one for all, or one for each")
    found = [_target(line) for line in lines]
    return found if len(found) == count else found * count


def _lines_of(path: str) -> list[str]:
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        fix = "name a text file with one target a line"
        raise InputError("GBP407", f"the targets cannot be read ({why})", path, fix) from error
    return [line.strip() for line in lines if line.strip()]


def _target(text: str) -> Any:
    """A class index, an index into the output ("3,17,40"), or what the explainer reads: a label, mask:dog, ..."""
    if not text.strip():
        raise InputError("GBP407", "the target is empty", "target", "pass a class index, a label, top1 or top5")
    parts = text.split(",")
    if all(re.fullmatch(r"\s*-?\d+\s*", part) for part in parts):
        numbers = tuple(int(part) for part in parts)
        return numbers[0] if len(numbers) == 1 else numbers
    return text


def _lines(one: Explanation, explainer: Explainer, quiet: bool) -> Iterator[_Line]:
    """What is said of an explanation on stderr: where it ran, predictions, warnings."""
    provider = f"running on {explainer.providers[0].removesuffix('ExecutionProvider')} ({explainer.provider_note})"
    summary = f"{one.source}: {one.heading}" + (f"  [{one.seen}]" if one.seen else "")
    if not quiet:
        yield _Line(provider)
        yield _Line(summary, always=True)
    yield from (_Line(f"warning: {warning}") for warning in one.warnings)


@contextmanager
def _progress(total: int, quiet: bool) -> Iterator[tuple[Callable[[], None], Callable[[str], None]]]:
    """A progress bar over several images, where stderr is a terminal; gives what advances it and what prints a line."""
    if total < 2 or quiet or sys.stderr is None or not sys.stderr.isatty():
        yield (lambda: None), partial(click.echo, err=True)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = ("explaining", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shared = sys.stdout is not None and sys.stdout.isatty()  # paths on the same terminal go above the bar
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=shared) as bar:
        task = bar.add_task("", total=total)
        say = partial(bar.console.print, markup=False, highlight=False, soft_wrap=True)
        yield (lambda: bar.advance(task)), say
