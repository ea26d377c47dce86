"""Where the time of an explanation goes: by operator, by forward or backward, by node, and what moves layouts.

    python -m benchmarks.profile                                 the bundled model, guided, the form of this machine
    python -m benchmarks.profile MODEL --rule saliency --lowering portable --threads 1
    python -m benchmarks.profile MODEL --json > profile.json

What is profiled is the session that `Explainer.attribute` runs, as ONNX Runtime has optimised it. A node is forward
where the source's own outputs need it, backward where only the maps do: that follows the data, not names, and holds for
nodes that were fused, renamed or inserted. Times are medians over runs; "overhead" is what a run takes beside its
nodes, measured without the profiler, which itself takes about a microsecond for each node.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import onnx
from rich.console import Console
from rich.table import Table

from benchmarks.ours import RULES, explainer, image_for
from gbp_onnx import bundled

SIDES = ("forward", "backward")
COLUMNS = ("inference", *SIDES)


@dataclass(frozen=True)
class Ran:
    """A node of the optimised graph, and its milliseconds. `form`: the operator with what is fused into it."""

    name: str
    op: str
    form: str
    side: str
    ms: float
    shape: tuple[int, ...]
    moves: str = ""  # a layout node: what makes the tensor and what reads it


@dataclass(frozen=True)
class Profile:
    """One explanation. `nodes` in the order in which they ran; all times in milliseconds."""

    model: str
    rule: str
    lowering: str
    threads: int
    inference: float
    explanation: float
    profiled: float
    nodes: tuple[Ran, ...]
    plain: tuple[Ran, ...] = ()  # of inference alone

    def sum(self, side: str | None = None) -> float:
        return sum(n.ms for n in self.nodes if side in (None, n.side))

    def count(self, side: str | None = None) -> int:
        return sum(side in (None, n.side) for n in self.nodes)

    @property
    def overhead(self) -> float:
        return self.explanation - self.sum()

    @property
    def reorders(self) -> list[Ran]:
        return [n for n in self.nodes if n.moves]

    def by_form(self) -> list[tuple[str, dict[str, tuple[int, float]]]]:
        """(form, {"inference", "forward", "backward": (count, ms)}), the most expensive in the explanation first."""
        found: dict[str, dict[str, tuple[int, float]]] = defaultdict(lambda: dict.fromkeys(COLUMNS, (0, 0.0)))
        for column, node in [(n.side, n) for n in self.nodes] + [("inference", n) for n in self.plain]:
            count, ms = found[node.form][column]
            found[node.form][column] = count + 1, ms + node.ms
        return sorted(found.items(), key=lambda item: -sum(item[1][side][1] for side in SIDES))

    def to_json(self, slowest: int) -> dict[str, Any]:
        ranked = sorted(self.nodes, key=lambda n: -n.ms)
        return {
            "model": self.model,
            "rule": self.rule,
            "lowering": self.lowering,
            "threads": self.threads,
            "inference_ms": self.inference,
            "explanation_ms": self.explanation,
            "times_inference": self.explanation / self.inference,
            "profiled_ms": self.profiled,
            "nodes_ms": self.sum(),
            "overhead_ms": self.overhead,
            **{f"{side}_ms": self.sum(side) for side in SIDES},
            "inference_nodes_ms": sum(n.ms for n in self.plain),
            "nodes": {"inference": len(self.plain), **{side: self.count(side) for side in SIDES}},
            "by_form": [
                {"form": form, **{s: {"count": c, "ms": ms} for s, (c, ms) in sides.items()}}
                for form, sides in self.by_form()
            ],
            "slowest": [asdict(n) for n in ranked[:slowest]],
            "reorders": [asdict(n) for n in self.reorders],
        }


# --- reading what ONNX Runtime wrote ------------------------------------------------------------------------------


def forward_nodes(graph: onnx.GraphProto, outputs: Sequence[str]) -> set[str]:
    """The names of the nodes that these outputs need."""
    makers = {name: node for node in graph.node for name in node.output if name}
    found, open_ = set(), list(outputs)
    while open_:
        node = makers.get(open_.pop())
        if node is not None and node.name not in found:
            found.add(node.name)
            open_ += [*node.input, *_captured(node)]
    return found


def form_of(node: onnx.NodeProto) -> str:
    """A node's operator with what tells a cheap one from an expensive one: "Conv dw 3x3 s2 +Sum +Relu"."""
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type not in ("Conv", "FusedConv", "ConvTranspose"):
        return node.op_type
    parts = [node.op_type]
    if attributes.get("group", 1) > 1:
        parts.append("dw" if node.op_type != "ConvTranspose" else "grouped")
    if not node.domain.endswith("nchwc"):
        parts.append("plain")
    if len(node.input) > 3 and node.input[3]:
        parts.append("+Sum")
    if activation := attributes.get("activation"):
        parts.append(f"+{activation.decode()}")
    return " ".join(parts)


def moves(graph: onnx.GraphProto, node: onnx.NodeProto) -> str:
    """What makes the tensor that a layout node moves, and what reads the result: one of the two is the cause."""
    if not node.op_type.startswith("Reorder"):
        return ""
    maker = next((n for n in graph.node if node.input[0] in n.output), None)
    readers = [n for n in graph.node if node.output[0] in (*n.input, *_captured(n))]
    source = "the input" if maker is None else f"{maker.op_type} {maker.name}"
    if node.output[0] in {o.name for o in graph.output}:
        source_readers = ["the output", *(f"{n.op_type} {n.name}" for n in readers)]
    else:
        source_readers = [f"{n.op_type} {n.name}" for n in readers]
    return f"{source} -> {', '.join(source_readers)}"


def read_events(events: Sequence[dict[str, Any]], runs: int) -> dict[str, tuple[float, tuple[int, ...], str]]:
    """{node's name: (median ms over the last so many runs, shape of its first output, operator)} in running order.

    Nodes inside bodies of If, Loop and Scan are counted with the node that holds them.
    """
    whole = sorted((e for e in events if e["name"] == "model_run"), key=lambda e: e["ts"])[-runs:]
    kernels = sorted((e for e in events if e["name"].endswith("_kernel_time")), key=lambda e: (e["ts"], -e["dur"]))
    times: dict[str, list[float]] = {}
    about: dict[str, tuple[tuple[int, ...], str]] = {}
    for run in whole:
        until = 0
        for event in kernels:
            if event["ts"] < max(until, run["ts"]) or event["ts"] > run["ts"] + run["dur"]:
                continue
            until = event["ts"] + event["dur"]
            name, given = event["name"].removesuffix("_kernel_time"), event["args"]
            shapes = [tuple(v) for entry in given.get("output_type_shape", ()) for v in entry.values()]
            times.setdefault(name, []).append(event["dur"] / 1e3)
            about[name] = (shapes[0] if shapes else (), given["op_name"])
    # A node that several events bear the name of in each run (no names in the file) takes their sum.
    return {n: (statistics.median(t) * max(1, round(len(t) / len(whole))), *about[n]) for n, t in times.items()}


def ran(events: Sequence[dict[str, Any]], graph: onnx.GraphProto, outputs: Sequence[str], runs: int) -> tuple[Ran, ...]:
    """Each node that ran, with its side, from the events and the optimised graph."""
    nodes = {n.name: n for n in graph.node}
    forward = forward_nodes(graph, outputs)
    found = []
    for name, (ms, shape, op) in read_events(events, runs).items():
        node = nodes.get(name)
        side = SIDES[name.startswith("grad/") if node is None else name not in forward]
        form, moved = (op, "") if node is None else (form_of(node), moves(graph, node))
        found.append(Ran(name, op, form, side, ms, shape, moved))
    return tuple(found)


def _captured(node: onnx.NodeProto) -> list[str]:
    """Names that bodies of control flow read, their own included."""
    bodies = [a.g for a in node.attribute if a.HasField("g")]
    return [name for body in bodies for inner in body.node for name in (*inner.input, *_captured(inner))]


# --- running ------------------------------------------------------------------------------------------------------


@contextmanager
def sessions(threads: int, folder: Path | None = None) -> Iterator[list[Any]]:
    """Every session that is started inside with options of its own takes so many threads; with a folder it profiles
    itself and writes its optimised graph there.
    """
    import onnxruntime as ort

    started: list[Any] = []
    start = ort.InferenceSession

    def altered(*arguments: Any, **named: Any) -> Any:
        options = named.get("sess_options") or next((a for a in arguments if isinstance(a, ort.SessionOptions)), None)
        if options is None:
            return start(*arguments, **named)
        options.intra_op_num_threads = threads
        options.log_severity_level = 4
        if folder is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(folder / f"profile{len(started)}")
            options.optimized_model_filepath = str(folder / f"optimised{len(started)}.onnx")
        started.append(start(*arguments, **named))
        return started[-1]

    with mock.patch.object(ort, "InferenceSession", altered):
        yield started


def timed(call: Callable[[], Any], runs: int) -> float:
    """Median milliseconds, after a tenth as many runs that do not count."""
    times = []
    for _ in range(runs + 1 + runs // 10):
        begin = time.perf_counter()
        call()
        times.append((time.perf_counter() - begin) * 1e3)
    return statistics.median(times[-runs:])


def profile(model: Path, rule: str, lowering: str, threads: int = 0, runs: int = 30, size: int = 224) -> Profile:
    """Profile `Explainer.attribute` of one image, one rule, and plain inference."""
    import onnxruntime as ort

    ort.set_default_logger_severity(4)
    rules = RULES if rule == "all" else (rule,)

    def explanation() -> Callable[[], Any]:
        one = explainer(model, rules, lowering, threads, cache=False)
        images.append(image_for(one._runner.shape, one.dtype, size))
        forms.append(one.lowering)
        return lambda: one.attribute(images[0])  # the largest class: the model's own outputs are computed too

    def inference() -> Callable[[], Any]:
        session = ort.InferenceSession(str(model), ort.SessionOptions(), providers=["CPUExecutionProvider"])
        feeds = {session.get_inputs()[0].name: images[0]}
        outputs.extend(o.name for o in session.get_outputs())
        return lambda: session.run(None, feeds)

    images: list[Any] = []
    forms: list[str] = []
    outputs: list[str] = []
    explanation()  # says what image to feed
    found: list[tuple[float, float, tuple[Ran, ...]]] = []
    for make in (inference, explanation):  # one session at a time: idle threads of another one disturb it
        with sessions(threads):
            usual = timed(make(), runs)
        with tempfile.TemporaryDirectory() as place:
            with sessions(threads, Path(place)) as started:
                slower = timed(make(), runs)
            found.append((usual, slower, read_folder(Path(place), started, outputs, runs)))
    (plain, _, plain_nodes), (usual, slower, nodes) = found
    return Profile(model.name, rule, forms[-1], threads, plain, usual, slower, nodes, plain_nodes)


def read_folder(folder: Path, started: Sequence[Any], outputs: Sequence[str], runs: int) -> tuple[Ran, ...]:
    """The nodes of the session that ran most often."""
    logs = [(k, json.loads(Path(s.end_profiling()).read_text())) for k, s in enumerate(started)]
    k, events = max(logs, key=lambda pair: sum(e["name"] == "model_run" for e in pair[1]))
    graph = onnx.load(folder / f"optimised{k}.onnx", load_external_data=False).graph
    return ran(events, graph, outputs, runs)


# --- showing ------------------------------------------------------------------------------------------------------


def show(found: Profile, console: Console, slowest: int) -> None:
    console.print(
        f"[bold]{found.model}[/], {found.rule}, lowering {found.lowering}: {found.explanation:.2f} ms, inference "
        f"{found.inference:.2f} ms, [bold]{found.explanation / found.inference:.2f}[/] times; "
        f"{found.count()} nodes {found.sum():.2f} ms, overhead {found.overhead:.2f} ms "
        f"(profiled run: {found.profiled:.2f} ms)"
    )
    table = Table("operator", title="by operator; inference is the model alone", title_justify="left")
    for head in (*(h for column in COLUMNS for h in (f"{column} n", "ms")), "share"):
        table.add_column(head, justify="right")
    whole = found.sum() or 1.0
    for form, columns in found.by_form():
        cells = [text for c, ms in columns.values() for text in ((str(c), f"{ms:.3f}") if c else ("", ""))]
        table.add_row(form, *cells, f"{sum(columns[side][1] for side in SIDES) / whole:.1%}")
    table.add_section()
    totals = [text for side in SIDES for text in (str(found.count(side)), f"{found.sum(side):.3f}")]
    table.add_row("sum", str(len(found.plain)), f"{sum(n.ms for n in found.plain):.3f}", *totals, "")
    console.print(table)
    table = Table("ms", "side", "node", "operator", "shape", title=f"the {slowest} slowest", title_justify="left")
    for node in sorted(found.nodes, key=lambda n: -n.ms)[:slowest]:
        table.add_row(f"{node.ms:.3f}", node.side, node.name, node.form, "x".join(map(str, node.shape)))
    console.print(table)
    title = f"{len(found.reorders)} layout nodes, {sum(n.ms for n in found.reorders):.3f} ms"
    table = Table("ms", "side", "kind", "shape", "from -> to", title=title, title_justify="left")
    for node in sorted(found.reorders, key=lambda n: -n.ms):
        table.add_row(f"{node.ms:.3f}", node.side, node.op, "x".join(map(str, node.shape)), node.moves)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path, default=bundled.model_path())
    parser.add_argument("--rule", default="guided", choices=(*RULES, "all"))
    parser.add_argument("--lowering", default="auto", choices=("portable", "cpu", "cuda", "auto"))
    parser.add_argument("--threads", type=int, default=0, help="0 = as ONNX Runtime chooses")
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--size", type=int, default=224, help="pixels, where the model leaves them open")
    parser.add_argument("--slowest", type=int, default=20, help="how many nodes are named")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    found = profile(given.model, given.rule, given.lowering, given.threads, given.runs, given.size)
    if given.json:
        print(json.dumps(found.to_json(given.slowest), indent=2))
        return
    console = Console()
    show(found, console if console.is_terminal else Console(width=200), given.slowest)


if __name__ == "__main__":
    main()
