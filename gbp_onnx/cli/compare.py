"""``gbp-onnx compare``: do two forms of one model give the same maps?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gbp_onnx.cli.options import PROVIDERS, image_options, json_option, plain_console, protect, rule_option
from gbp_onnx.cli.outputs import places
from gbp_onnx.imaging.folder import expand

if TYPE_CHECKING:
    from gbp_onnx.comparison import Comparison

MINIMUMS = ("cosine", "spearman", "ssim", "top_overlap", "agreement")
"""What a threshold can be set for: as in `metrics.METRICS`, and the agreement of the best class."""

Command = Callable[..., Any]


def minimums(command: Command) -> Command:
    """An option for each least value."""
    for name in reversed(MINIMUMS):
        what = "share of images with the same best class" if name == "agreement" else f"mean {name.replace('_', ' ')}"
        flag = f"--min-{name.replace('_', '-')}"
        command = click.option(flag, f"min_{name}", type=float, metavar="X", help=f"Fail where the {what} is less.")(
            command
        )
    return command


@click.command()
@click.argument("a", type=click.Path())
@click.argument("b", type=click.Path())
@click.argument("images", nargs=-1, required=True, type=click.Path())
@click.option(
    "-t", "--target", default="top1", metavar="TARGET", help="Class index or label of A; top1 (default): A's best."
)
@rule_option
@click.option(
    "-o",
    "--out",
    metavar="PATH",
    type=click.Path(),
    help="The figure's file (one image), or a folder. Default: gbp-out/compare/.",
)
@click.option("--style", default="color", metavar="NAME", show_default=True, help="How maps are drawn.")
@image_options
@click.option("--preprocess-b", metavar="SPEC", help="The same for B. Default: as for A, where B's input takes it.")
@click.option("--labels-b", metavar="FILE", type=click.Path(), help="The same for B.")
@minimums
@click.option("--providers", type=click.Choice(PROVIDERS), default="auto", show_default=True, help="Where to run.")
@json_option
def compare(
    a: str, b: str, images: tuple[str, ...], rules: tuple[str, ...], out: str | None, as_json: bool, **options: Any
) -> int:
    """Explain IMAGES with the models A and B, for the same class, and measure how alike the maps are.

    A and B are forms of one model: float and int8, before and after an optimiser, two exports. Exit status 1 where a
    mean lies below a --min option.

    \b
    Examples:
      gbp-onnx compare model.onnx model-int8.onnx photos/
      gbp-onnx compare model.onnx model-fp16.onnx dog.jpg --rule guided --min-cosine 0.999
    """
    from gbp_onnx.comparison import compare as measure
    from gbp_onnx.imaging.write import save_png

    paths = expand(images)
    figures = places(paths, out or "gbp-out/compare")
    protect([a, b, *paths], figures)
    target = int(options["target"]) if options["target"].strip().isdecimal() else options["target"]
    found = measure(
        a,
        b,
        paths,
        rules or None,
        target=target,
        preprocess=options["preprocess"],
        preprocess_b=options["preprocess_b"],
        labels=options["labels"],
        labels_b=options["labels_b"],
        providers=options["providers"],
    )
    names = (Path(a).name, Path(b).name)
    for pair, place in zip(found.pairs, figures, strict=True):
        save_png(pair.figure(names, style=options["style"]), place)
    failures = found.failures({n: options[f"min_{n}"] for n in MINIMUMS if options[f"min_{n}"] is not None})
    if as_json:
        files = [str(place) for place in figures]
        click.echo(json.dumps({**found.to_dict(), "failures": failures, "files": files}, indent=2, ensure_ascii=False))
    else:
        _show(found)
        for place in figures:
            click.echo(str(place))
    for line in (*(f"note: {n}" for n in found.notes), *_degenerate(found), *(f"failed: {f}" for f in failures)):
        click.echo(line, err=True)
    return 1 if failures else 0


def _degenerate(found: Comparison) -> list[str]:
    if not found.undefined:
        return []
    return [f"warning: {found.undefined} values are missing (-): a map is zero, constant, not finite or very small"]


def _show(found: Comparison) -> None:
    from rich.table import Table

    from gbp_onnx.metrics import METRICS

    console = plain_console()
    table = Table("image", "best class", "top 5", "score", "rule", *(m.title for m in METRICS.values()), box=None)
    for pair in found.pairs:
        facts = pair.to_dict()
        change = facts["score"]["difference"]
        same = "same" if pair.same_top1 else f"{_name(pair.a)} / {_name(pair.b)}"
        first = [Path(pair.image).name, same, f"{pair.top5_overlap:.1f}", "-" if change is None else f"{change:+.4f}"]
        for rule, values in pair.metrics.items():
            table.add_row(*first, rule, *(_number(v) for v in values.values()))
            first = [""] * 4
    agreement, rows = found.agreement, found.mean
    first = [f"mean of {len(found.pairs)}", f"{agreement['top1']:.0%} same", f"{agreement['top5_overlap']:.2f}"]
    first.append(f"±{agreement['score_difference']:.4f}")
    for rule, values in rows.items():
        table.add_row(*first, rule, *(_number(v) for v in values.values()), style="bold")
        first = [""] * 4
    console.print(table)


def _name(explanation: Any) -> str:
    best = explanation.predictions[0]
    return best.label or str(best.index)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
