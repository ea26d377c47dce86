"""``gbp-onnx``: the commands, and how errors become messages and exit statuses."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import click

from gbp_onnx.cli.audit import audit
from gbp_onnx.cli.build import build
from gbp_onnx.cli.compare import compare
from gbp_onnx.cli.explain import explain
from gbp_onnx.cli.inspect import inspect
from gbp_onnx.cli.ops import ops
from gbp_onnx.errors import GbpError, OperatorError
from gbp_onnx.version import package_version

__all__ = ["cli", "main"]

DONE, FAILED, BAD_INPUT, NOT_EXPLAINABLE, INTERRUPTED = 0, 1, 2, 3, 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_version(), prog_name="gbp-onnx")
def cli() -> None:
    """Explain an image CNN from its exported ONNX file alone: Guided Backpropagation, Deconvnet and Saliency.

    \b
    Examples:
      gbp-onnx explain                          the bundled photograph and model
      gbp-onnx explain model.onnx dog.jpg       your own
      gbp-onnx inspect model.onnx               what would be gated, and what stands in the way
      gbp-onnx build model.onnx -o explainer.onnx
      gbp-onnx compare model.onnx int8.onnx photos/   do both give the same maps?
      gbp-onnx audit audit.toml                 explanations as a check, for CI

    \b
    Exit status: 0 done, 1 a check failed, 2 usage or bad input, 3 the model cannot be explained.
    """


for command in (explain, build, inspect, audit, compare, ops):
    cli.add_command(command)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def run(argv: Sequence[str]) -> int:
    """Run the command line; returns the exit status."""
    warnings.showwarning = _show_warning
    try:
        result = cli.main(list(argv), prog_name="gbp-onnx", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
        return int(result or DONE)
    except SystemExit:  # click's way to end where the reader of our output has gone (head, less)
        return DONE
    except GbpError as error:
        return _report(error, as_json="--json" in argv and argv[0] != "audit")
    except click.exceptions.Abort:
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BrokenPipeError:  # the reader of our output has gone (head, less)
        _discard_stdout()
        return DONE
    except OSError as error:  # stdout on a full disk
        _discard_stdout()
        click.echo(f"error: cannot write the output ({error.strerror or error})", err=True)
        return BAD_INPUT


def _discard_stdout() -> None:
    """Let the interpreter's last flush go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _report(error: GbpError, as_json: bool) -> int:
    click.echo(f"error: {error}", err=True)
    status = NOT_EXPLAINABLE if isinstance(error, OperatorError) else BAD_INPUT
    if as_json:
        click.echo(json.dumps({"error": describe(error), "exit_status": status}, indent=2))
    return status


def describe(error: GbpError) -> dict[str, Any]:
    """An error as plain JSON values."""
    reasons = [{"code": r.code, "op": r.op, "node": r.node, "why": r.why} for r in getattr(error, "reasons", ())]
    what = error.what.split("\n")[0]
    return {"code": error.code, "what": what, "where": error.where, "fix": error.fix} | (
        {"reasons": reasons} if reasons else {}
    )


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    click.echo(f"warning: {message}", err=True)
