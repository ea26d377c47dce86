"""The benchmarks say what they measured: sides of a profile, ratios within rounds, what is left out. None is timed."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from make_tiny import make
from onnx import TensorProto, helper
from PIL import Image

from benchmarks.measure import Series, Spread, Task, alternate, ratio, whole_process
from benchmarks.models import resized, write_photographs
from benchmarks.ours import prepare
from benchmarks.page import Results, page, table
from benchmarks.profile import Profile, Ran, form_of, forward_nodes, moves, profile, ran, read_events
from benchmarks.worker import OURS, Settings, measured
from gbp_onnx import Explainer, bundled


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.onnx"
    onnx.save(make("plain"), path)
    return path


# --- the profile --------------------------------------------------------------------------------------------------


def optimised() -> onnx.GraphProto:
    """As ONNX Runtime leaves a graph: names of its own, a layout node for the mask alone, a body that reads outside."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["blocked"], ["inner"], name="inside")],
        "body",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)],
    )
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["blocked"], name="relu_nchwc", domain="com.microsoft.nchwc"),
        helper.make_node("ReorderOutput", ["blocked"], ["y"], name="ReorderOutput", domain="com.microsoft.nchwc"),
        helper.make_node("If", ["yes"], ["scores"], name="head", then_branch=body, else_branch=body),
        helper.make_node("Greater", ["y", "zero"], ["mask"], name="grad/relu/Greater"),
        helper.make_node("Where", ["mask", "seed", "zero"], ["map"], name=""),
    ]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("scores", "map")]
    return helper.make_graph(nodes, "optimised", [], outputs)


def kernel(name: str, op: str, ts: int, dur: int, shape: tuple[int, ...] = (1,)) -> dict[str, Any]:
    arguments = {"op_name": op, "output_type_shape": [{"float": list(shape)}]}
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": ts, "dur": dur, "args": arguments}


def test_forward_is_what_the_outputs_need_and_bodies_count_as_reading() -> None:
    assert forward_nodes(optimised(), ["scores"]) == {"head", "relu_nchwc"}
    assert "ReorderOutput" in forward_nodes(optimised(), ["map"])


def test_a_layout_node_names_both_of_its_ends() -> None:
    graph = optimised()
    assert moves(graph, graph.node[1]) == "Conv relu_nchwc -> Greater grad/relu/Greater"
    assert moves(graph, graph.node[0]) == ""


def test_a_convolution_says_what_is_fused_into_it() -> None:
    blocked, names = "com.microsoft.nchwc", ["x", "w", "b", "skip"]
    assert form_of(helper.make_node("Conv", names, ["y"], domain=blocked, activation="Relu")) == "Conv +Sum +Relu"
    assert form_of(helper.make_node("Conv", names[:3], ["y"], domain=blocked, group=8)) == "Conv dw"
    assert form_of(helper.make_node("ConvTranspose", names[:2], ["y"])) == "ConvTranspose plain"
    assert form_of(helper.make_node("Relu", ["x"], ["y"])) == "Relu"


def test_events_are_medians_of_the_last_runs_and_bodies_belong_to_their_node() -> None:
    events = [{"cat": "Session", "name": "model_run", "ts": start, "dur": 99} for start in (0, 100, 200, 300)]
    for start, took in ((0, 90), (100, 10), (200, 30), (300, 20)):
        events += [kernel("head", "If", start, took), kernel("inside", "Identity", start + 1, 5)]
    found = read_events(events, runs=3)
    assert found == {"head": (0.02, (1,), "If")}


def test_each_node_that_ran_has_a_side() -> None:
    events = [{"cat": "Session", "name": "model_run", "ts": 0, "dur": 99}]
    names = ("relu_nchwc", "ReorderOutput", "head", "grad/relu/Greater", "grad/gone")
    events += [kernel(name, "Op", 10 * k, 5) for k, name in enumerate(names)]
    sides = {n.name: n.side for n in ran(events, optimised(), ["scores"], 1)}
    assert sides == dict(zip(names, ("forward", "backward", "forward", "backward", "backward"), strict=True))


def test_a_profile_of_a_real_explanation(tiny: Path) -> None:
    """The forward side is the model's own; the backward side has one transposed convolution for each convolution."""
    found = profile(tiny, "guided", "portable", threads=1, runs=2)
    plain = {n.name for n in found.plain}
    assert plain and found.count("forward") >= len(plain)
    assert {n.side for n in found.nodes if n.name.startswith("grad/")} == {"backward"}
    convs = sum(n.op_type == "Conv" for n in make("plain").graph.node)
    assert sum(n.op == "Conv" for n in found.nodes if n.side == "forward") == convs
    assert sum(n.op == "ConvTranspose" for n in found.nodes if n.side == "backward") == convs
    assert len({n.name for n in found.nodes}) == found.count()
    data = json.loads(json.dumps(found.to_json(3)))
    assert data["lowering"] == "portable" and len(data["slowest"]) == 3
    counts = [(row["forward"]["count"], row["backward"]["count"]) for row in data["by_form"]]
    assert [sum(c) for c in zip(*counts, strict=True)] == [data["nodes"]["forward"], data["nodes"]["backward"]]


def test_a_profile_adds_up() -> None:
    node = Ran("a", "Conv", "Conv", "forward", 2.0, (1,))
    nodes = (node, replace(node, name="b", ms=3.0), replace(node, name="c", side="backward", ms=5.0, moves="a -> b"))
    found = Profile("m", "guided", "cpu", 1, 4.0, 12.0, 13.0, nodes, (node,))
    assert found.sum() == 10.0 and found.sum("backward") == 5.0 and found.overhead == 2.0
    assert found.by_form() == [("Conv", {"inference": (1, 2.0), "forward": (2, 5.0), "backward": (1, 5.0)})]
    assert [n.name for n in found.reorders] == ["c"] and found.to_json(1)["slowest"][0]["name"] == "c"


# --- what is measured ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", OURS)
def test_variants_do_what_their_names_say(variant: str, tiny: Path) -> None:
    found = prepare(Settings(variant, tiny, batch=2, size=16))[0]()
    if variant == "session":
        assert found is None
    elif variant == "inference":
        assert found[0].shape == (2, 5)
    elif variant.startswith("explain"):
        maps = found if variant == "explain, five classes" else [found]
        assert len({m.target for m in maps}) == (5 if "five" in variant else 1)
    else:
        rules = {"three rules": {"guided", "deconvnet", "saliency"}, "saliency": {"saliency"}}
        rules["deconvnet"] = {"deconvnet"}
        assert set(found) == rules.get(variant, {"guided"})
        assert all(m.shape == (2, 3, 16, 16) and m.any() for m in found.values())


def test_a_worker_reports_its_start_without_repeating(tiny: Path) -> None:
    facts = measured(Settings("first map", tiny, size=16), seconds=0.0)
    assert facts["start_ms"] == pytest.approx(facts["import_ms"] + facts["load_ms"] + facts["first_ms"])
    assert facts["peak"] > 2**20 and "ms" not in facts
    assert measured(Settings("guided", tiny, size=16), seconds=1e-3).keys() >= {"ms", "build_ms"}


@pytest.mark.skipif(sys.platform == "win32", reason="a script stands for an interpreter")
def test_rounds_alternate_and_what_fails_is_not_tried_again(tmp_path: Path) -> None:
    log, script = tmp_path / "log", tmp_path / "python"
    script.write_text(
        f"#!{sys.executable}\nimport sys\nopen({str(log)!r}, 'a').write(sys.argv[3] + ' ')\n"
        "if sys.argv[3] == 'broken':\n    sys.exit('GBP999: it broke\\n  fix: none')\nprint('{\"ms\": 2.0}')\n"
    )
    script.chmod(0o755)
    tasks = {name: Task(name, Path("m.onnx"), python=str(script)) for name in ("a", "broken", "b")}
    found = alternate(tasks, 2)
    assert log.read_text().split() == ["a", "broken", "b", "a", "b"]
    assert found["a"].rounds == [{"ms": 2.0}] * 2
    assert found["broken"] == Series([], "GBP999: it broke")


def test_a_process_that_fails_is_no_measurement() -> None:
    with pytest.raises(RuntimeError, match="on purpose"):
        whole_process([sys.executable, "-c", "raise SystemExit('on purpose')"])
    assert whole_process([sys.executable, "-c", ""]).keys() == {"s", "peak"}


def test_ratios_are_taken_within_rounds() -> None:
    """A machine that slows down between rounds changes no ratio; medians over medians would say 1.0."""
    base, other = (Series([{"ms": v} for v in values]) for values in ((1.0, 4.0, 2.0), (2.0, 8.0, 2.0)))
    assert ratio(other, base) == Spread(2.0, 1.0, 2.0)
    assert ratio(other, base, by=2.0) == Spread(1.0, 0.5, 1.0)
    assert ratio(Series([], "no"), base) is None
    assert Spread(2.0, 1.0, 2.5).text() == "2.00 [1.00-2.50]"


def test_a_model_for_larger_images_runs(tmp_path: Path, tiny: Path) -> None:
    onnx.save(make("residual"), tiny)
    path = resized(tiny, 24, tmp_path)
    image = np.random.default_rng(0).normal(size=(1, 3, 24, 24)).astype(np.float32)
    assert Explainer(path, providers="cpu").attribute(image)["guided"].shape == image.shape


def test_photographs_differ_and_are_the_same_each_time(tmp_path: Path) -> None:
    source = bundled.photo_path()
    for folder in ("one", "two"):
        write_photographs(source, tmp_path / folder, 6)
    first, second = ([p.read_bytes() for p in sorted((tmp_path / f).iterdir())] for f in ("one", "two"))
    assert first == second and len(set(first)) == 6
    with Image.open(tmp_path / "one" / "0000.jpg") as photo:
        assert photo.size == (500, 375) and photo.format == "JPEG"


# --- the page -----------------------------------------------------------------------------------------------------


def series(*ms: float) -> Series:
    names = ("import_ms", "load_ms", "first_ms", "peak")
    return Series([{"ms": v, **dict.fromkeys(names, 10e6)} for v in ms])


def results() -> Results:
    row = {
        "inference": series(1.0, 2.0),
        "guided": series(2.5, 5.0),
        "three rules": series(5.0, 10.0),
        "guided, batch 8": series(16.0, 32.0),
        "captum": Series([], "ValueError: no such | network"),
        "onnx-ad": series(4.0, 10.0),
    }
    slower = {**row, "guided": series(10.0, 20.0), "captum": series(20.0, 40.0)}
    steps = {n: {"inference": series(2.0 * n), "guided": series(8.0 * n)} for n in (1, 4)}
    return Results(
        [("processor", "a | b")],
        2,
        ["onnx2torch: not installed"],
        {"small": row, "large": slower},
        {"small": steps},
        {"small": steps},
        {"gbp-onnx explain": [{"s": 0.5, "peak": 2e8}, {"s": 0.7, "peak": 2e8}]},
        {"small": {"rounds": [{"session": 100.0, "first": 900.0, "second": 400.0}]}, "large": {"why": "GBP304: no"}},
        {"small": {"count": 100, "few": 10, "rounds": [{"s": 2.0, "few_s": 1.1, "bare_ms": 8.0}]}},
    )


def test_the_page_says_what_was_measured() -> None:
    text = page(results(), {"costs": "images/costs.svg"})
    assert "| small | 1.5 [1.0-2.0] | 2.50 [2.50-2.50] | - | 4.50 [4.00-5.00] | - |" in text
    assert "| large | 1.5 [1.0-2.0] | 10.00 [10.00-10.00] | 20.00 [20.00-20.00] | 4.50 [4.00-5.00] | 2.00" in text
    assert "| geometric mean |  | 5.00 | 20.00 | 4.50 | 2.00 |" in text
    assert "| small | 2.00 [2.00-2.00] | - | 0.80 [0.80-0.80] | - |" in text  # three rules, five classes, a batch of 8
    assert "captum: ValueError: no such | network" in text
    assert "| 4 | 8.0 | 32.0 (4.00x) |" in text and "| 4 | 2.0 | 8.0 (4.00x) |" in text  # pixels; images, for each
    assert "| small | 100 [100-100] | 900 [900-900] | 400 [400-400] | 300 [300-300] |" in text
    assert "| large | GBP304: no | - | - | - |" in text
    assert "| small | 100 | 125.0 [125.0-125.0] | 50.0 [50.0-50.0] | 0.40 [0.40-0.40] | 0.80 [0.80-0.80] |" in text
    assert "| `gbp-onnx explain` | 0.60 [0.50-0.70] | 200 |" in text
    assert "![An explanation over one inference](images/costs.svg)" in text and "sizes" not in text
    assert "- onnx2torch: not installed" in text


def test_every_row_of_a_table_has_all_columns() -> None:
    for block in page(results(), {}).split("\n\n"):
        rows = [line.replace("\\|", "") for line in block.splitlines() if line.startswith("|")]
        assert len({row.count("|") for row in rows}) <= 1, block
    assert table(("a", "b"), [("1|2", "3")]) == ["| a | b |", "|---|---:|", "| 1\\|2 | 3 |"]


def test_results_survive_their_file() -> None:
    again = Results.from_json(json.loads(json.dumps(results().to_json())))
    assert again == results() and page(again, {}) == page(results(), {})


def test_parts_that_were_not_measured_are_not_on_the_page() -> None:
    text = page(Results([("processor", "one")], 1), {})
    assert text.count("## ") == 1 and "## On your machine" in text and "- processor: one" in text


def test_plots_show_each_part_that_was_measured(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots need the extra bench")
    from benchmarks.plots import write_plots

    names = write_plots(replace(results(), batches={}), tmp_path)
    assert set(names) == {"costs", "sizes"}
    drawn = {part: (tmp_path / name).read_text() for part, name in names.items()}
    assert "onnx-ad" in drawn["costs"] and "large" in drawn["costs"] and "pixels" in drawn["sizes"]
    assert write_plots(replace(results(), batches={}), tmp_path / "again") == names
    assert all((tmp_path / "again" / name).read_text() == drawn[part] for part, name in names.items())
