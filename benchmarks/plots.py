"""Plots of the results as SVG: what an explanation costs, and how cost grows with images and batches."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.measure import Series, ratio, spread
from benchmarks.page import TOOLS, Results

COLORS = {
    "inference": "#888888",
    "guided": "#0072b2",
    "guided, portable": "#56b4e9",
    "captum": "#d55e00",
    "onnx2torch + captum": "#e69f00",
    "onnx-ad": "#009e73",
}
NAMES = {"costs": "benchmarks-costs.svg", "sizes": "benchmarks-sizes.svg", "batches": "benchmarks-batches.svg"}


def write_plots(results: Results, folder: Path) -> dict[str, str]:
    """Write a plot of each part that was measured; {part: file name}. Needs matplotlib (the extra `bench`)."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "gbp-onnx", "svg.fonttype": "none", "font.size": 9})
    folder.mkdir(parents=True, exist_ok=True)
    drawings = {
        "costs": lambda: _bars(results.costs),
        "sizes": lambda: _lines(results.sizes, "pixels", each=False),
        "batches": lambda: _lines(results.batches, "images in a batch", each=True),
    }
    written = {}
    for part, draw in drawings.items():
        if getattr(results, part):
            figure = draw()
            figure.savefig(folder / NAMES[part], metadata={"Date": None}, bbox_inches="tight", facecolor="white")
            written[part] = NAMES[part]
    return written


def _bars(costs: Mapping[str, Mapping[str, Series]]) -> Any:
    """Multiples of plain inference: a group of bars for each model, the range as a whisker."""
    from matplotlib.figure import Figure

    tools = [t for t in TOOLS if any(t in row and row[t].rounds for row in costs.values())]
    figure = Figure(figsize=(7, 0.6 + 0.2 * len(costs) * (len(tools) + 1)))
    axes = figure.subplots()
    for k, tool in enumerate(tools):
        for j, row in enumerate(costs.values()):
            found = ratio(row[tool], row["inference"]) if tool in row else None
            if found is not None:
                place = j * (len(tools) + 1) + k
                error = [[found.median - found.low], [found.high - found.median]]
                axes.barh(place, found.median, 0.9, xerr=error, color=COLORS[tool], ecolor="#333333")
                axes.annotate(f" {found.median:.1f}", (found.high, place), va="center", fontsize=7)
        axes.barh(0, 0, color=COLORS[tool], label=tool)
    middles = [j * (len(tools) + 1) + (len(tools) - 1) / 2 for j in range(len(costs))]
    axes.set_yticks(middles, list(costs))
    axes.invert_yaxis()
    axes.axvline(2, color="#333333", linestyle=":", linewidth=1)
    axes.set_xlabel("time of an explanation over one inference (dotted: 2, forward and backward arithmetic)")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _lines(models: Mapping[str, Mapping[int, Mapping[str, Series]]], what: str, *, each: bool) -> Any:
    """ms (for each image) over the step, a panel for each model."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(5.0, 3.5 * len(models)), 3.2))
    for axes, (model, steps) in zip(figure.subplots(1, len(models), squeeze=False)[0], models.items(), strict=True):
        for variant in dict.fromkeys(v for row in steps.values() for v in row):
            found = {n: spread(row[variant]) for n, row in steps.items() if variant in row}
            points = [(n, s, n if each else 1) for n, s in found.items() if s is not None]
            if points:
                xs, ys = [n for n, _, _ in points], [s.median / by for _, s, by in points]
                axes.plot(xs, ys, "o-", color=COLORS[variant], label=variant, markersize=3)
                low, high = ([getattr(s, end) / by for _, s, by in points] for end in ("low", "high"))
                axes.fill_between(xs, low, high, color=COLORS[variant], alpha=0.2, linewidth=0)
        axes.set_title(model)
        axes.set_xlabel(what)
        axes.set_ylabel("ms for each image" if each else "ms")
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False)
    figure.tight_layout()
    return figure
