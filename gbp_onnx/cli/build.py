"""``gbp-onnx build``: the explainer as an ONNX file to ship."""

from __future__ import annotations

import json
from pathlib import Path

import click

from gbp_onnx.cli.options import (
    RULE_NAMES,
    explained_options,
    image_options,
    json_option,
    lowering_option,
    protect,
    rule_option,
)
from gbp_onnx.errors import InputError


@click.command()
@click.argument("model", type=click.Path())
@click.option("-o", "--out", required=True, metavar="OUT.onnx", type=click.Path(), help="The explainer's file.")
@rule_option
@click.option(
    "--wrt",
    multiple=True,
    metavar="NAME",
    help="The image input; may be repeated. Default: the first of rank 3 or more.",
)
@explained_options
@image_options
@click.option(
    "--weights",
    type=click.Choice(("auto", "copy", "inside")),
    default="auto",
    show_default=True,
    help="Where MODEL has a data file: share it beside OUT.onnx and else copy it, always copy it, or put all into OUT.",
)
@lowering_option("portable", "what suits this machine")
@json_option
def build(
    model: str,
    out: str,
    rules: tuple[str, ...],
    wrt: tuple[str, ...],
    output: str | None,
    explain_as: str,
    rectify: tuple[str, ...],
    preprocess: str | None,
    labels: str | None,
    weights: str,
    lowering: str,
    as_json: bool,
) -> None:
    """Write MODEL's explainer: an ONNX file that returns the attributions beside MODEL's own outputs, in any ONNX
    Runtime.

    \b
    Examples:
      gbp-onnx build model.onnx -o explainer.onnx
      gbp-onnx build model.onnx -o explainer.onnx -r guided --preprocess imagenet --labels labels.txt
    """
    from gbp_onnx.graph.assemble import set_metadata
    from gbp_onnx.graph.files import read_model
    from gbp_onnx.graph.saving import write_model
    from gbp_onnx.imaging.preprocess import parse_preprocess
    from gbp_onnx.labels import read_labels
    from gbp_onnx.lowering import check_lowering, lower
    from gbp_onnx.target import build_loaded

    protect([model], [Path(out)])
    if Path(out).suffix.lower() != ".onnx":
        raise InputError("GBP411", "an explainer is an .onnx file", out, "give it a name that ends in .onnx")
    extra = {}
    if preprocess is not None:
        extra["gbp.preprocess"] = json.dumps(parse_preprocess(preprocess).to_dict())
    if labels is not None:
        extra["gbp.labels"] = json.dumps(list(read_labels(labels)), ensure_ascii=False)
    form = check_lowering(lowering)
    file = read_model(model, leave=True)
    protect(map(str, file.data.values()), [Path(out)])
    explainer = build_loaded(
        file, rules or RULE_NAMES, output=output, wrt=wrt or None, explain=explain_as, rectify=rectify
    )
    lower(explainer, form)
    set_metadata(explainer, extra)
    props = {e.key: e.value for e in explainer.metadata_props}
    for note in json.loads(props["gbp.warnings"]):
        click.echo(f"warning: {note}", err=True)
    written = write_model(explainer, out, file.folder, weights=weights, inside=Path(model).resolve())
    if as_json:
        facts = {key.removeprefix("gbp."): props[key] for key in ("gbp.output", "gbp.explained", "gbp.source_sha256")}
        parsed = {
            key.removeprefix("gbp."): json.loads(props[key])
            for key in ("gbp.rules", "gbp.inputs", "gbp.outputs", "gbp.warnings")
        }
        click.echo(json.dumps({"file": out, "files": [str(path) for path in written], **facts, **parsed}, indent=2))
    else:
        for path in written:
            click.echo(str(path))
