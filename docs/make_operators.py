"""Write docs/operators.md from the derivative table: ``python docs/make_operators.py`` (``make docs``).

A test asserts that the file is current.
"""

from __future__ import annotations

from pathlib import Path

from gbp_onnx.rules import ACTIVATIONS, LEAKY, SMOOTH
from gbp_onnx.vjp import GBP_DOMAIN, Derivative, Refused, Stop, entries

TARGET = Path(__file__).with_name("operators.md")

HEAD = """\
# Operators

<!-- Written by docs/make_operators.py from the derivative table; change the table, then run `make docs`. -->

An operator is in one of three states. **Differentiable**: the table below has its vector-Jacobian product. **Stops
the gradient** on purpose: the second table says why. Everything else is **refused**, with every such node named: an
operator of the third table, or one in a form that its derivative does not cover (GBP202, with the reason), and an
unknown operator (GBP201). An operator that the gradient does not pass through may be anything.

"since" is the first opset whose definition the entry covers. Models of opset 7 to 15 are lifted to 16 first, where
that is exact, so that attributes of old opsets that became inputs later need no entry of their own. `gbp-onnx ops`
prints the same tables, `gbp-onnx ops --json` for programs. `ct` is the cotangent of the (first) output `y`, `x` the
first input.

`Clip` from 0, `Max(x, 0)`, `Where(x > 0, x, 0)` and the other ways to write a rectifier are recognised before the
table is asked, and treated as one rectifier each (see [the rules](../README.md#the-three-rules)).
"""


def tables() -> str:
    """The whole text of docs/operators.md."""
    known = [entry for entry in entries() if entry.domain != GBP_DOMAIN]
    parts = [HEAD, "## Differentiable\n", "| operator | since | derivative |\n|---|---|---|"]
    parts += [
        f"| {_name(e.op, e.domain)} | {e.since} | {_cell(e.formula)} |" for e in known if isinstance(e, Derivative)
    ]
    parts += ["\n## Stops the gradient\n", "| operator | since | why |\n|---|---|---|"]
    parts += [f"| {_name(e.op, e.domain)} | {e.since} | {_cell(e.why)} |" for e in known if isinstance(e, Stop)]
    parts += ["\n## Refused\n", "| operator | since | why |\n|---|---|---|"]
    parts += [f"| {_name(e.op, e.domain)} | {e.since} | {_cell(e.why)} |" for e in known if isinstance(e, Refused)]
    parts += [
        "\n## Activations that no rule gates\n",
        "They keep their true derivative under every rule, and `gbp-onnx inspect` lists them. `--rectify leaky` "
        f"treats {_names(LEAKY)} like rectifiers, `--rectify smooth` {_names(SMOOTH)}: the arriving cotangent is "
        "clamped at 0 and multiplied with the true local derivative (under deconvnet, only clamped). Not affected by "
        f"either: {_names(ACTIVATIONS - {*LEAKY, *SMOOTH})}.\n",
    ]
    return "\n".join(parts)


def _name(op: str, domain: str) -> str:
    return f"`{domain}::{op}`" if domain else f"`{op}`"


def _names(keys: object) -> str:
    named = sorted(
        f"x * Sigmoid(x) ({op})" if domain == GBP_DOMAIN else f"{domain}::{op}".lstrip(":") for domain, op in keys
    )  # type: ignore[attr-defined]
    return ", ".join(f"`{name}`" for name in named)


def _cell(text: str) -> str:
    """Markdown takes a bar for the cell's end, and a star for emphasis."""
    return "`` " + text.replace("|", "\\|") + " ``" if any(c in text for c in "*^|[_") else text


if __name__ == "__main__":
    TARGET.write_text(tables(), encoding="utf-8")
    print(TARGET)
