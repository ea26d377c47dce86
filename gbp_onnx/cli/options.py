"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click

from gbp_onnx.errors import InputError

__all__ = [
    "LOWERINGS",
    "PROVIDERS",
    "RULE_NAMES",
    "explained_options",
    "guard",
    "image_options",
    "json_option",
    "lowering_option",
    "plain_console",
    "protect",
    "rule_option",
]

Command = TypeVar("Command", bound=Callable[..., Any])

RULE_NAMES = ("saliency", "deconvnet", "guided")
"""As in `rules.RULES`; written out, so that --help loads nothing (a test compares them)."""

PROVIDERS = ("auto", "cpu", "cuda")
LOWERINGS = ("portable", "cpu", "cuda", "auto")
"""As in `lowering`, likewise."""

rule_option = click.option(
    "-r",
    "--rule",
    "rules",
    multiple=True,
    type=click.Choice(RULE_NAMES),
    help="A rule; may be repeated. Default: all three.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Write the result as JSON to stdout.")


def protect(sources: Iterable[str], outputs: Iterable[Path]) -> None:
    """Refuse to write over what was read (GBP411)."""
    guard(sources)(outputs)


def guard(sources: Iterable[str]) -> Callable[[Iterable[Path]], None]:
    """`protect` for the same sources again and again, which are looked up once."""
    read = {Path(source).resolve() for source in sources}

    def check(outputs: Iterable[Path]) -> None:
        for output in outputs:
            if output.resolve() in read:
                raise InputError(
                    "GBP411", "this file was read, it is not written over", str(output), "name another with -o"
                )

    return check


def plain_console() -> Any:
    """A rich console that wraps at the terminal's width, and not at all into a pipe or file."""
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    return console if console.is_terminal else Console(highlight=False, markup=False, width=400)


def lowering_option(default: str, auto: str) -> Callable[[Command], Command]:
    """The form of the backward part; `auto`: what the word stands for in a command."""
    text = f"The form of the backward part: plain, or faster in a provider of ONNX Runtime; auto: {auto}."
    kinds = click.Choice(LOWERINGS)
    return click.option("--lowering", type=kinds, default=default, show_default=True, help=text)


def explained_options(command: Command) -> Command:
    """What is explained: output, head, leaky and smooth activations."""
    for option in (
        click.option(
            "--rectify",
            multiple=True,
            type=click.Choice(("leaky", "smooth")),
            help="Clamp the arriving gradient at leaky (LeakyRelu, PRelu) or smooth (Gelu, SiLU) activations too.",
        ),
        click.option(
            "--explain",
            "explain_as",
            type=click.Choice(("logit", "output")),
            default="logit",
            help="Explain the value before a trailing Softmax, LogSoftmax or Sigmoid (default), or the output itself.",
        ),
        click.option(
            "--output",
            metavar="NAME",
            help="The model output to explain. Default: the first that comes from a Softmax or Sigmoid.",
        ),
    ):
        command = option(command)
    return command


def image_options(command: Command) -> Command:
    """How photographs are brought to the model, and what its classes are called."""
    for option in (
        click.option(
            "--labels", metavar="FILE", type=click.Path(), help="Class labels: a text file (one a line) or JSON."
        ),
        click.option(
            "--preprocess",
            metavar="SPEC",
            help="imagenet, keras-caffe, tf, lite, unit, raw; with changes: imagenet,resize=stretch; or a .json file. "
            "Default: the model's metadata.",
        ),
    ):
        command = option(command)
    return command
