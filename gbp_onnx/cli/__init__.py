"""The command line: argv -> api call -> exit status. Light at start-up: each command loads what it needs when it runs."""

from gbp_onnx.cli.main import main

__all__ = ["main"]
