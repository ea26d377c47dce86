"""The command line: argv -> api call -> exit status. Light at start-up: a command loads what it needs when it runs."""

from gbp_onnx.cli.main import main

__all__ = ["main"]
