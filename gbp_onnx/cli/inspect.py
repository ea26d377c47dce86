"""``gbp-onnx inspect``: what the tool sees in a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from gbp_onnx.cli.options import explained_options, json_option, plain_console

if TYPE_CHECKING:
    from gbp_onnx.inspection import Inspection


@click.command()
@click.argument("model", type=click.Path())
@click.option("--wrt", metavar="NAME", help="The image input. Default: the first of rank 3 or more.")
@explained_options
@json_option
def inspect(
    model: str, wrt: str | None, output: str | None, explain_as: str, rectify: tuple[str, ...], as_json: bool
) -> int:
    """Show what would be explained in MODEL: inputs, the head, every gated rectifier, activations that no rule gates,
    and what stands in the way.

    Exit status 3 where the model cannot be explained.

    \b
    Examples:
      gbp-onnx inspect model.onnx
      gbp-onnx inspect model.onnx --json | jq '.rectifiers | length'
    """
    from gbp_onnx.inspection import inspect as look

    found = look(model, output=output, wrt=wrt, explain=explain_as, rectify=rectify)
    click.echo(found.to_json()) if as_json else _show(found)
    return 3 if found.unsupported else 0


def _show(found: Inspection) -> None:
    from rich.table import Table

    console = plain_console()

    def tensors(entries: tuple[dict[str, Any], ...]) -> str:
        return "\n".join(
            f"{e['name']}  {e['type']} {[d if d is not None else '?' for d in e['shape']]}" for e in entries
        )

    facts = Table(show_header=False, box=None, pad_edge=False)
    facts.add_row("inputs", tensors(found.inputs))
    facts.add_row("outputs", tensors(found.outputs))
    head = (
        "none: the output is explained as it is"
        if found.head is None
        else f"{found.head['op']} (node {found.head['node']}) of output {found.head['output']}"
    )
    facts.add_row("head", head)
    facts.add_row("explained", f"{found.explained}, with respect to {', '.join(found.wrt)}")
    facts.add_row("rectifiers", ", ".join(f"{count} {kind}" for kind, count in found.counts.items()) or "none")
    facts.add_row("preprocessing", "not in the metadata" if found.preprocess is None else str(found.preprocess["name"]))
    console.print(facts)
    for title, rows, columns in (
        ("gated rectifiers", found.rectifiers, ("name", "kind")),
        ("activations that no rule gates", found.ungated, ("name", "kind")),
        ("in the way", found.unsupported, ("code", "op", "node", "why")),
    ):
        if rows:
            table = Table(*columns, title=title, title_justify="left", box=None, pad_edge=False)
            for row in rows:
                table.add_row(*(row[c] for c in columns))
            console.print()
            console.print(table)
    for warning in found.warnings:
        click.echo(f"warning: {warning}", err=True)
