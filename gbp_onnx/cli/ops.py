"""``gbp-onnx ops``: the derivative table."""

from __future__ import annotations

import json

import click

from gbp_onnx.cli.options import json_option, plain_console


@click.command()
@json_option
def ops(as_json: bool) -> None:
    """List the operators: since which opset, differentiable, stopping the gradient or refused, which inputs, the
    formula or the reason, and the float types of ONNX Runtime's kernels on CPU and CUDA ("-": none, the body is run).

    \b
    Examples:
      gbp-onnx ops
      gbp-onnx ops --json
    """
    from gbp_onnx.vjp.listing import float_types, rows

    listed = rows()
    if as_json:
        click.echo(json.dumps(listed, indent=2, ensure_ascii=False))
        return
    from rich.table import Table

    columns = ("operator", "since", "state", "inputs", "derivative, or why there is none", "CPU", "CUDA")
    table = Table(*columns, box=None, pad_edge=False)
    for row in listed:
        table.add_row(
            f"{row['domain']}::{row['op']}" if row["domain"] else row["op"],
            str(row["since"]),
            row["state"],
            ", ".join(row["inputs"]),
            row["form"],
            float_types(row["cpu"]),
            float_types(row["cuda"]),
        )
    plain_console().print(table)
