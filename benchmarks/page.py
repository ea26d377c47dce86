"""The page of results: Markdown from what was measured, and nothing else."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.measure import Series, Spread, ratio, spread

NONE = "-"
TOOLS = ("guided", "guided, portable", "captum", "onnx2torch + captum", "onnx-ad")
"""What is compared with plain inference, in the order of the table."""
HOW = """Each number is a median over {rounds} rounds. In each round every variant runs once, in its own process, one
after the other; a ratio is taken within its round, and its range over the rounds stands in brackets. Batch 1, float32.
*Guided* is `Explainer.attribute` in the form that suits the machine, *portable* in the plain form. captum explains
torchvision's network of the same name; *onnx2torch + captum* what onnx2torch makes of the same file; onnx-ad writes a
plain vector-Jacobian product, which ONNX Runtime runs, and knows no rules. captum gates modules of the type ReLU alone:
its maps of mobilenet_v2 (ReLU6) and googlenet (functional ReLUs) are plain gradients, that of densenet121 in part."""

LOADING = """*graph* writes the gradient graph and is a part of *load*, which ends with something that runs. captum
loads torch's own file of the same weights; for the bundled network it takes random ones."""
YOURS = """`make bench` measures the bundled model, `make bench-zoo` seven of torchvision's networks, too;
`ARGS=--write` renews this page. `python -m benchmarks model.onnx --parts costs` measures your own model.

`python -m benchmarks.profile model.onnx` says where the time of an explanation goes: by operator, by forward or
backward beside inference alone, the slowest nodes, what is spent outside of nodes, and which nodes change the layout
of tensors for whom; `--lowering`, `--rule`, `--threads`, `--json`."""


@dataclass
class Results:
    """What was measured. `costs`: {model: {variant: series}}; `sizes`, `batches`: {model: {pixels or images: {variant:
    series}}}; the others as `starts` returns them.
    """

    machine: list[tuple[str, str]]
    rounds: int
    notes: list[str] = field(default_factory=list)
    costs: dict[str, dict[str, Series]] = field(default_factory=dict)
    sizes: dict[str, dict[int, dict[str, Series]]] = field(default_factory=dict)
    batches: dict[str, dict[int, dict[str, Series]]] = field(default_factory=dict)
    cold: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    starts: dict[str, dict[str, Any]] = field(default_factory=dict)
    folders: dict[str, dict[str, Any]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Results:
        """What `to_json` gave, back from a file."""
        known = dict(data)
        known["machine"] = [(what, value) for what, value in data["machine"]]
        known["costs"] = {m: {v: Series(**s) for v, s in row.items()} for m, row in data["costs"].items()}
        for key in ("sizes", "batches"):
            known[key] = {
                m: {int(n): {v: Series(**s) for v, s in row.items()} for n, row in rows.items()}
                for m, rows in data[key].items()
            }
        return cls(**known)


def page(results: Results, images: Mapping[str, str]) -> str:
    """The Markdown. `images`: {name of a plot: path from the page}; see `plots`."""
    sections: Sequence[tuple[Any, str, Callable[[Results], list[str]], str]] = (
        (results.costs, "An explanation over one inference", costs, "costs"),
        (results.costs, "Several maps, batches, memory", shared, ""),
        (results.costs, "Time, memory and start of each", details, ""),
        (results.sizes, "As images grow", lambda r: grown(r.sizes, "pixels"), "sizes"),
        (results.batches, "An image of growing batches", lambda r: grown(r.batches, "images", each=True), "batches"),
        (results.cold, "From cold", cold, ""),
        (results.starts, "The second start", second_start, ""),
        (results.folders, "A folder of photographs", folders, ""),
    )
    lines = ["# Benchmarks", "", *(f"- {what}: {value}" for what, value in results.machine)]
    lines += ["", *HOW.format(rounds=results.rounds).splitlines()]
    for measured, title, write, plot in sections:
        if measured:
            lines += ["", f"## {title}", "", *write(results)]
            lines += ["", f"![{title}]({images[plot]})"] if plot in images else []
    lines += ["", "## On your machine", "", *YOURS.splitlines()]
    if results.notes:
        lines += ["", "## Left out", "", *(f"- {note}" for note in results.notes)]
    return "\n".join(lines) + "\n"


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """A Markdown table; columns but the first to the right."""
    names = list(heads)
    lines = [f"| {' | '.join(names)} |", f"|---|{'---:|' * (len(names) - 1)}"]
    return lines + [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]


def costs(results: Results) -> list[str]:
    rows, seen = [], dict[str, list[float]]()
    present = [t for t in TOOLS if any(t in row and row[t].rounds for row in results.costs.values())]
    for model, row in results.costs.items():
        found = {tool: ratio(row[tool], row["inference"]) if tool in row else None for tool in present}
        beside = ratio(row["captum"], row["guided"]) if "captum" in row else None
        plain = spread(row["inference"])
        rows.append([model, _text(plain, 1), *(_text(found[tool]) for tool in present), _text(beside)])
        for tool, value in (*found.items(), ("beside", beside)):
            seen.setdefault(tool, []).extend([] if value is None else [value.median])
    if len(rows) > 1:
        means = [f"{statistics.geometric_mean(seen[t]):.2f}" if seen[t] else NONE for t in (*present, "beside")]
        rows.append(["geometric mean", "", *means])
    heads = ("model", "inference, ms", *(f"{tool}, times" for tool in present), "captum over guided")
    return table(heads, rows)


def shared(results: Results) -> list[str]:
    """Several maps from one forward pass and batches, as multiples of one; memory, of captum's."""
    rows = []
    for model, row in results.costs.items():
        three, five = _over(row, "three rules", "guided"), _over(row, FIVE, ONE)
        eight = _over(row, "guided, batch 8", "guided", by=8.0)
        memory = _over(row, "guided", "captum", key="peak")
        rows.append([model, *map(_text, (three, five, eight, memory))])
    heads = ("three rules over one", "five classes over one", "an image of a batch of 8 over one")
    return table(("model", *heads, "peak memory over captum's"), rows)


ONE, FIVE = "explain, one class", "explain, five classes"


def details(results: Results) -> list[str]:
    lines: list[str] = []
    for model, row in results.costs.items():
        rows = []
        for variant, series in row.items():
            if series.why:
                rows.append([variant, *[NONE] * 7])
                continue
            load, first, build, importing = (
                _text(_maybe(series, key), 0, short=True) for key in ("load_ms", "first_ms", "build_ms", "import_ms")
            )
            memory = _maybe(series, "peak")
            mega = NONE if memory is None else f"{memory.median / 1e6:.0f}"
            times = _text(ratio(series, row["inference"]))
            rows.append([variant, _text(spread(series)), times, mega, importing, build, load, first])
        heads = ("variant", "ms", "times inference", "peak, MB", "imports, ms", "graph, ms", "load, ms", "first, ms")
        lines += ["", f"### {model}", "", *table(heads, rows)]
        lines += [f"\n{variant}: {series.why}" for variant, series in row.items() if series.why]
    return [*LOADING.splitlines(), *lines]


def grown(models: Mapping[str, Mapping[int, Mapping[str, Series]]], what: str, *, each: bool = False) -> list[str]:
    """ms by size; for each image of it where `each`."""
    lines: list[str] = []
    for model, steps in models.items():
        variants = list(dict.fromkeys(v for row in steps.values() for v in row))
        rows = []
        for step, row in steps.items():
            by = step if each else 1
            cells = []
            for variant in variants:
                ms = spread(row[variant]) if variant in row else None
                times = ratio(row[variant], row["inference"]) if variant in row else None
                cell = NONE if ms is None else f"{ms.median / by:.1f}"
                cells.append(cell if times is None or variant == "inference" else f"{cell} ({times.median:.2f}x)")
            rows.append([str(step), *cells])
        lines += ["", f"### {model}", "", *table((what, *(f"{v}, ms" for v in variants)), rows)]
    return lines[1:]


def cold(results: Results) -> list[str]:
    rows = []
    for command, rounds in results.cold.items():
        seconds, memory = (Spread.of([facts[key] for facts in rounds]) for key in ("s", "peak"))
        rows.append([f"`{command}`", seconds.text(), f"{memory.median / 1e6:.0f}"])
    said = (
        "One photograph, three rules, as whole processes with a warm file cache; gbp-onnx writes its figure, captum's "
    )
    return [said + "script the maps.", "", *table(("", "s", "peak, MB"), rows)]


def second_start(results: Results) -> list[str]:
    rows = []
    for model, found in results.starts.items():
        if "why" in found:
            rows.append([model, found["why"], *[NONE] * 3])
            continue
        columns = {key: Spread.of([r[key] for r in found["rounds"]]) for key in ("session", "first", "second")}
        beyond = Spread.of([r["second"] - r["session"] for r in found["rounds"]])
        rows.append([model, *(c.text(0) for c in columns.values()), beyond.text(0)])
    said = (
        "From the start of a process, imports included, to the first map; and what the second start of a model takes "
    )
    heads = ("model", "ONNX Runtime's session, ms", "first start, ms", "second start, ms", "beyond the session, ms")
    return [said + "beyond ONNX Runtime's session of the model itself.", "", *table(heads, rows)]


def folders(results: Results) -> list[str]:
    rows = []
    for model, found in results.folders.items():
        if "why" in found:
            rows.append([model, found["why"], *[NONE] * 4])
            continue
        count, few = found["count"], found["few"]
        bare = Spread.of([1e3 / r["bare_ms"] for r in found["rounds"]])
        whole = Spread.of([count / r["s"] for r in found["rounds"]])
        share = Spread.of([count / r["s"] * r["bare_ms"] / 1e3 for r in found["rounds"]])
        steady = Spread.of([(count - few) / (r["s"] - r["few_s"]) * r["bare_ms"] / 1e3 for r in found["rounds"]])
        rows.append([model, str(count), bare.text(1), whole.text(1), share.text(), steady.text()])
    heads = (
        "model",
        "photographs",
        "bare explainer, images/s",
        "folder, images/s",
        "of the bare rate",
        "without the start",
    )
    said = "`gbp-onnx explain FOLDER -r guided` reads JPEG files of about 500 x 375 and writes a figure of each."
    return [said, "", *table(heads, rows)]


def _over(row: Mapping[str, Series], variant: str, base: str, key: str = "ms", by: float = 1.0) -> Spread | None:
    return ratio(row[variant], row[base], key, by) if variant in row and base in row else None


def _maybe(series: Series, key: str) -> Spread | None:
    return spread(series, key) if all(key in facts for facts in series.rounds) else None


def _text(value: Spread | None, digits: int = 2, *, short: bool = False) -> str:
    return NONE if value is None else f"{value.median:.{digits}f}" if short else value.text(digits)
