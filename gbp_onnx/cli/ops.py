"""``gbp-onnx ops``: the derivative table."""

from __future__ import annotations

import json

import click

from gbp_onnx.cli.options import json_option, plain_console


@click.command()
@json_option
def ops(as_json: bool) -> None:
    """List the operators that the derivative table knows: since which opset, differentiable, stopping the gradient or
    refused, and the formula or the reason.

    \b
    Examples:
      gbp-onnx ops
      gbp-onnx ops --json
    """
    from gbp_onnx.vjp import GBP_DOMAIN, Derivative, Stop, entries

    rows = [
        {
            "op": entry.op,
            "domain": entry.domain,
            "since": entry.since,
            "state": "differentiable"
            if isinstance(entry, Derivative)
            else "stops the gradient"
            if isinstance(entry, Stop)
            else "refused",
            "form": entry.formula if isinstance(entry, Derivative) else entry.why,
        }
        for entry in entries()
        if entry.domain != GBP_DOMAIN
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    from rich.table import Table

    table = Table("operator", "since", "state", "derivative, or why there is none", box=None, pad_edge=False)
    for row in rows:
        table.add_row(
            f"{row['domain']}::{row['op']}" if row["domain"] else str(row["op"]),
            str(row["since"]),
            str(row["state"]),
            str(row["form"]),
        )
    plain_console().print(table)
