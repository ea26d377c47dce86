"""``gbp-onnx audit``: explanations as a check, for people and for CI."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gbp_onnx.cli.options import plain_console, protect
from gbp_onnx.errors import InputError

if TYPE_CHECKING:
    from gbp_onnx.auditing.config import Config
    from gbp_onnx.report.record import AuditReport, CheckResult

FORMATS = ("json", "junit", "sarif", "markdown", "html")


def _file_option(name: str, help_: str) -> Callable[[Any], Any]:
    return click.option(f"--{name}", metavar="FILE", type=click.Path(), help=help_)


@click.command()
@click.argument("config", required=False, type=click.Path())
@_file_option("json", "Write the report as JSON (- for stdout, in place of the table).")
@_file_option("junit", "Write the report as JUnit XML.")
@_file_option("sarif", "Write the report as SARIF 2.1.0.")
@_file_option("markdown", "Write the report as Markdown, for a job summary.")
@_file_option("html", "Write the report as one HTML page, with the maps.")
@click.option(
    "--format",
    "shape",
    type=click.Choice(("table", "github")),
    default="table",
    show_default=True,
    help="What is said on stdout: a table, or annotations for GitHub Actions.",
)
@click.option("--update-baseline", is_flag=True, help="Store the model's maps as the new baseline, and end.")
@click.option("--fresh", is_flag=True, help="Forget what a run that was stopped has kept.")
@click.option("--init", "model", metavar="MODEL", type=click.Path(), help="Write a first configuration for MODEL.")
@click.option("--images", metavar="DIR", type=click.Path(), help="With --init: the folder of images.")
@click.option("--baseline", metavar="MODEL2", type=click.Path(), help="With --init: the model to compare with.")
@click.option("-o", "--out", metavar="CONFIG.toml", type=click.Path(), help="With --init: the file to write.")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
def audit(
    config: str | None,
    shape: str,
    update_baseline: bool,
    fresh: bool,
    model: str | None,
    images: str | None,
    baseline: str | None,
    out: str | None,
    quiet: bool,
    **files: str | None,
) -> int:
    """Check a model's explanations as CONFIG.toml says: coverage, parity, gradient, drift, localisation, forbidden
    regions, faithfulness, sanity, stability.

    Exit status 1 where a gating check fails (or time ran out), 2 where the configuration is wrong, 3 where the model
    cannot be explained.

    \b
    Examples:
      gbp-onnx audit --init model.onnx --images photos -o audit.toml
      gbp-onnx audit audit.toml --html audit.html --junit audit.xml
      gbp-onnx audit audit.toml --format github --sarif audit.sarif
    """
    if model is not None:
        return _init(config, model, images, baseline, out)
    if config is None:
        raise click.UsageError("name a configuration, or write one: gbp-onnx audit --init MODEL --images DIR -o FILE")
    if images is not None or baseline is not None or out is not None:
        raise click.UsageError("--images, --baseline and -o go with --init")
    from gbp_onnx.auditing.config import read_config

    found = read_config(config)
    wanted = {name: path for name in FORMATS if (path := files[name]) is not None}
    _check_places(found, wanted)
    if update_baseline:
        return _update(found, quiet)
    return _run(found, wanted, shape, fresh, quiet)


def _init(config: str | None, model: str, images: str | None, baseline: str | None, out: str | None) -> int:
    if config is not None or images is None or out is None:
        raise click.UsageError("write: gbp-onnx audit --init MODEL --images DIR [--baseline MODEL2] -o CONFIG.toml")
    from gbp_onnx.auditing.starter import write_starter

    protect([model, *([] if baseline is None else [baseline])], [Path(out)])
    for said in write_starter(model, images, baseline, out):
        click.echo(f"note: {said}", err=True)
    click.echo(out)
    return 0


def _update(config: Config, quiet: bool) -> int:
    from gbp_onnx.auditing.run import update_baseline

    with _progress(quiet) as progress:
        folder, count, bad = update_baseline(config, progress)
    for said in bad:
        click.echo(f"error: {said}", err=True)
    click.echo(f"stored the maps of {count} images", err=True)
    click.echo(str(folder))
    return 1 if bad else 0


def _run(config: Config, wanted: dict[str, str], shape: str, fresh: bool, quiet: bool) -> int:
    from gbp_onnx.auditing.run import run_audit
    from gbp_onnx.report import writer

    with _progress(quiet) as progress:
        report, forget = run_audit(config, pictures="html" in wanted, fresh=fresh, progress=progress)
    written = [path for name, path in wanted.items() if writer.write(report, name, path)]
    forget()
    if report.exit_status == 3:
        click.echo(f"error: {report.model['path']} cannot be explained:", err=True)
        for note in report.notes:
            click.echo(f"  - {note}", err=True)
    if wanted.get("json") != "-":
        if shape == "github":
            from gbp_onnx.report.github import commands, job_summary

            click.echo("\n".join(commands(report)))
            job_summary(report)
        else:
            _show(report)
        for path in written:
            click.echo(path)
    else:
        click.echo(writer.text(report, "json"), nl=False)
    return report.exit_status


def _check_places(config: Config, wanted: dict[str, str]) -> None:
    """Refuse to write over what is read, or two reports into one file."""
    paths = [path for name, path in wanted.items() if not (name == "json" and path == "-")]
    protect([config.where, str(config.place(str(config.model.path)))], map(Path, paths))
    twice = {path for path in paths if paths.count(path) > 1}
    if twice:
        raise InputError("GBP411", "two reports go into one file", twice.pop(), "give each a name of its own")


def _show(report: AuditReport) -> None:
    """The table of checks, what failed, and the summary."""
    from rich.table import Table

    from gbp_onnx.report.record import number_text

    console = plain_console()
    table = Table("check", "severity", "result", "measured", box=None, pad_edge=False)
    for check in report.checks:
        measured = ", ".join(f"{name} {number_text(v)}" for name, v in _telling(check).items())
        table.add_row(f"{check.code} {check.name}", check.severity, _word(check), measured)
    console.print(table)
    for check in report.checks:
        if check.status == "skip" and check.message:
            console.print(f"\n{check.name} was left out: {check.message}")
        if check.status != "fail":
            continue
        console.print(f"\n{check.name} {'failed' if check.gates else 'is reported'}: {check.message}")
        for finding in check.failures[:20]:
            if finding.image:
                console.print(f"  {finding.image}: {finding.message}")
        if len(check.failures) > 20:
            console.print(f"  and {len(check.failures) - 20} more")
    for note in report.notes if report.exit_status != 3 else ():
        console.print(f"\nnote: {note}")
    console.print(f"\n{report.summary}")


def _word(check: CheckResult) -> str:
    return "FAILED" if check.gates else {"fail": "reported", "pass": "passed", "skip": "left out"}[check.status]


def _telling(check: CheckResult) -> dict[str, float | bool | None]:
    """The means that thresholds are about, else all."""
    governed = {t.measure for t in check.thresholds}
    telling = {name: value for name, value in check.means.items() if name.rpartition(".")[2] in governed}
    return dict(telling or check.means)


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[int, int, str], None] | None]:
    """A progress bar on stderr, where that is a terminal."""
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = ("auditing", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)

        def progress(done: int, total: int, name: str) -> None:
            bar.update(task, completed=done, total=total, description=name)

        yield progress
