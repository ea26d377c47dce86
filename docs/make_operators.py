"""Write docs/operators.md from the derivative table: ``python docs/make_operators.py`` (``make docs``).

A test asserts that the file is current.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gbp_onnx.rules import ACTIVATIONS, LEAKY, SMOOTH
from gbp_onnx.vjp import GBP_DOMAIN
from gbp_onnx.vjp.listing import float_types, rows

TARGET = Path(__file__).with_name("operators.md")

HEAD = """\
# Operators

<!-- Written by docs/make_operators.py from the derivative table; change the table, then run `make docs`. -->

An operator is in one of three states. **Differentiable**: the table below has its vector-Jacobian product. **Stops
the gradient** on purpose: the second table says why. Everything else is unknown, and a model that needs the
derivative of an unknown operator is refused (GBP201), with every such node named; a known operator in a form that its
derivative does not cover is refused as well (GBP202), with the reason. An operator that the gradient does not pass
through may be anything.

"since" is the first opset whose definition the entry covers. Models of opset 7 to 15 are lifted to 16 first, where
that is exact, so that attributes of old opsets that became inputs later need no entry of their own. `gbp-onnx ops`
prints the same tables, `gbp-onnx ops --json` for programs. `ct` is the cotangent of the (first) output `y`, `x` the
first input.

An operator without an entry that the standard defines by a function body ("by its function body") is replaced by
that body first, where the table knows every operator in it. CPU and CUDA: the float types of ONNX Runtime's newest
kernel for the operator (1.32.0, and the CUDA build of 1.31.1, by their kernel lists), "-" where there is none: then
ONNX Runtime runs the body, if there is one, or on the other device. `docs/kernels.txt` has the opset ranges.

`Clip` from 0, `Max(x, 0)`, `Where(x > 0, x, 0)` and the other ways to write a rectifier are recognised before the
table is asked, and treated as one rectifier each (see [the rules](../README.md#the-three-rules)).
"""


SECTIONS = (
    ("Differentiable", "differentiable", "derivative"),
    ("Stops the gradient", "stops the gradient", "why"),
    ("Refused", "refused", "why"),
)


def tables() -> str:
    """The whole text of docs/operators.md."""
    listed = rows()
    parts = [HEAD]
    for title, state, column in SECTIONS:
        inputs = " inputs |" if state == "differentiable" else ""
        parts += [f"## {title}\n", f"| operator | since |{inputs} {column} | CPU | CUDA |"]
        parts += ["|---|---|" + ("---|" if inputs else "") + "---|---|---|"]
        parts += [_line(row, bool(inputs)) for row in listed if row["state"] == state]
        parts.append("")
    parts += [
        "## Activations that no rule gates\n",
        "They keep their true derivative under every rule, and `gbp-onnx inspect` lists them. `--rectify leaky` "
        f"treats {_names(LEAKY)} like rectifiers, `--rectify smooth` {_names(SMOOTH)}: the arriving cotangent is "
        "clamped at 0 and multiplied with the true local derivative (under deconvnet, only clamped). Not affected by "
        f"either: {_names(ACTIVATIONS - {*LEAKY, *SMOOTH})}.\n",
    ]
    return "\n".join(parts)


def _line(row: dict[str, Any], inputs: bool) -> str:
    cells = [_name(row["op"], row["domain"]), str(row["since"]), *([", ".join(row["inputs"])] if inputs else [])]
    cells += [_cell(row["form"]), float_types(row["cpu"]), float_types(row["cuda"])]
    return "| " + " | ".join(cells) + " |"


def _name(op: str, domain: str) -> str:
    return f"`{domain}::{op}`" if domain else f"`{op}`"


def _names(keys: object) -> str:
    named = sorted(f"x * Sigmoid(x) ({op})" if domain == GBP_DOMAIN else op for domain, op in keys)  # type: ignore[attr-defined]
    return ", ".join(f"`{name}`" for name in named)


def _cell(text: str) -> str:
    """Markdown takes a bar for the cell's end, and a star for emphasis."""
    return "`` " + text.replace("|", "\\|") + " ``" if any(c in text for c in "*^|[_") else text


if __name__ == "__main__":
    TARGET.write_text(tables(), encoding="utf-8")
    print(TARGET)
