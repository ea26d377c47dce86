"""The documentation is true: its examples run; it lists every command, option, code, operator and style, no others."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import shutil
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import click
import onnx
import pytest
from PIL import Image

import gbp_onnx
from gbp_onnx import bundled
from gbp_onnx.cli.main import cli, run
from gbp_onnx.errors import CODES
from gbp_onnx.imaging.preprocess import CHOICES, FIELDS, PIXEL_FORMATS, PIXEL_RANGES, PRESETS
from gbp_onnx.imaging.render import STYLES
from tests.head_models import head_model

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md"), ROOT / "converters" / "README.md"]
)


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def flat(text: str) -> str:
    """One line, so that a phrase may be wrapped."""
    return " ".join(text.split())


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the examples name."""
    shutil.copy(bundled.model_path(), tmp_path / "model.onnx")
    shutil.copy(bundled.model_path(), tmp_path / "int8.onnx")
    onnx.save(head_model("yolov8_seg"), tmp_path / "detector.onnx")
    shutil.copy(bundled.photo_path(), tmp_path / "cat.png")
    shutil.copy(bundled.labels_path(), tmp_path / "labels.txt")
    (tmp_path / "photos").mkdir()
    shutil.copy(bundled.photo_path(), tmp_path / "photos" / "one.png")
    with Image.open(bundled.photo_path()) as photo:
        photo.convert("RGB").save(tmp_path / "photos" / "two.jpg")
        photo.convert("RGB").save(tmp_path / "dog.jpg")
        photo.convert("RGB").save(tmp_path / "street.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    return tmp_path


# --- examples -----------------------------------------------------------------------------------------------------


def test_readme_python_runs(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All blocks in order, in one namespace, as a reader would type them."""
    namespace: dict[str, Any] = {}
    examples = blocks(page("README.md"), "python")
    assert len(examples) >= 6
    for example in examples:
        exec(compile(example, "README.md", "exec"), namespace)
    assert namespace["explanation"].label in ("Egyptian cat", "tabby")
    assert namespace["guided"].shape == (224, 224, 3)
    assert namespace["whole"].shape == (300, 451, 3)
    assert len(namespace["five"]) == 5 and namespace["tabby"].label == "tabby" and namespace["lynx"].label == "lynx"
    assert namespace["attribution"].shape == (1, 3, 224, 224) and namespace["attribution"].any()
    assert "{'Relu': 26}" in capsys.readouterr().out
    for verb in ("Explainer", "attribute", "differentiate", "build", "inspect"):
        assert any(verb in example for example in examples)


def test_explainer_file_python_runs(workplace: Path) -> None:
    assert run(["build", "model.onnx", "-o", "explainer.onnx"]) == 0
    (example,) = blocks(page("docs/explainer-file.md"), "python")
    namespace: dict[str, Any] = {}
    exec(compile(example, "docs/explainer-file.md", "exec"), namespace)
    assert namespace["guided"].shape == namespace["x"].shape and namespace["scores"].shape == (2, 1000)


def test_explainer_file_metadata_are_those_of_a_built_file(tmp_path: Path) -> None:
    onnx.save(onnx.load(bundled.model_path()), tmp_path / "model.onnx", save_as_external_data=True, location="weights")
    model = gbp_onnx.build(tmp_path / "model.onnx")
    keys = {entry.key for entry in model.metadata_props if entry.key.startswith("gbp.")}
    text = page("docs/explainer-file.md")
    documented = {
        key for row in re.findall(r"^\| (`gbp\..*?) \|", text, re.MULTILINE) for key in re.findall(r"`(gbp\.\w+)`", row)
    }
    assert documented == keys
    assert {e.key for n in model.graph.node for e in n.metadata_props} == {"gbp.vjp_of"} and "`gbp.vjp_of`" in text
    assert model.ir_version == 10 and "IR version 10" in text


def command_lines(text: str) -> list[list[str]]:
    lines = [line for block in blocks(text, "sh") for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith("gbp-onnx ")]


@pytest.mark.parametrize("line", command_lines(page("README.md")), ids=" ".join)
def test_readme_commands_run(workplace: Path, capsys: pytest.CaptureFixture[str], line: list[str]) -> None:
    if "explainer.onnx" in line and "build" not in line:
        assert run(["build", "model.onnx", "-o", "explainer.onnx"]) == 0
    if "audit.toml" in line and "--init" not in line:
        assert run(["audit", "--init", "model.onnx", "--images", "photos", "-o", "audit.toml"]) == 0
    capsys.readouterr()
    assert run(line[1:]) == 0
    captured = capsys.readouterr()
    assert captured.out and "error" not in captured.err
    if line[1] in ("explain", "build"):
        assert all(Path(written).is_file() for written in captured.out.splitlines())


def examples_elsewhere() -> list[list[str]]:
    """Of the other pages, and of the commands' own help."""
    found = [line for path in PAGES if path.name != "README.md" for line in command_lines(path.read_text("utf-8"))]
    for command in (cli, *cli.commands.values()):
        for line in (command.help or "").splitlines():
            if line.strip().startswith("gbp-onnx "):
                found.append(shlex.split(re.split(r"\s{2,}|\s\|\s", line.strip())[0]))
    return found


@pytest.mark.parametrize("line", examples_elsewhere(), ids=" ".join)
def test_other_commands_parse(line: list[str]) -> None:
    command = cli.commands[line[1]]
    command.make_context(line[1], line[2:])


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", page("Makefile"), re.MULTILINE))
    assert {"demo", "test", "lint", "bench", "oracle", "clean", "help"} <= targets
    named = {name for path in PAGES for name in re.findall(r"`?\bmake ([a-z]+)\b", " ".join(blocks_and_code(path)))}
    assert named and named <= targets
    phony = set(re.findall(r"^\.PHONY: (\S+)", page("Makefile"), re.MULTILINE))
    assert phony == targets


def blocks_and_code(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return blocks(text, "sh") + re.findall(r"`(make [^`]+)`", text)


# --- completeness -------------------------------------------------------------------------------------------------


def options() -> list[tuple[str, str]]:
    return [
        (name, flag)
        for name, command in cli.commands.items()
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for flag in (*parameter.opts, *parameter.secondary_opts)
    ]


def section(text: str, title: str) -> str:
    return re.split(r"^## ", text.split(f"\n## {title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def test_every_command_and_option_is_documented() -> None:
    text = page("docs/command-line.md")
    for name, flag in options():
        assert re.search(rf"`{re.escape(flag)}[ `]", section(text, name)), f"{name} {flag}"
    for name in cli.commands:
        assert f"gbp-onnx {name}" in page("README.md")


def test_no_stale_option_is_documented() -> None:
    known = {flag for _, flag in options()} | {"--help", "--version"}
    for path in PAGES:
        if path.parent.name == "converters":
            continue
        text = path.read_text(encoding="utf-8")
        code = re.findall(r"`([^`\n]+)`", text) + [" ".join(line) for line in command_lines(text)]
        code = [piece for piece in code if not piece.startswith(("python -m benchmarks", "ARGS="))]  # not ours
        used = {flag for piece in code for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*", piece)}
        assert used <= known, f"{path.name}: {used - known}"


def test_choices_of_options_are_documented() -> None:
    text = page("docs/command-line.md")
    for command in cli.commands.values():
        for parameter in command.params:
            if isinstance(parameter.type, click.Choice):
                assert all(str(choice) in text for choice in parameter.type.choices), parameter.name


def test_every_error_code_is_documented_and_no_other() -> None:
    rows = re.findall(r"^\| (GBP\d{3}) \| (.+?) \|", page("docs/errors.md"), re.MULTILINE)
    assert [code for code, _ in rows] == list(CODES)
    for code, meaning in rows:
        assert set(re.findall(r"\w+", CODES[code])) <= set(re.findall(r"\w+", meaning)), f"{code}: {CODES[code]}"
    for path in PAGES:
        assert set(re.findall(r"GBP\d{3}", path.read_text("utf-8"))) <= set(CODES), path.name


def test_every_code_that_is_raised_is_in_the_table() -> None:
    source = "".join(path.read_text("utf-8") for path in (ROOT / "gbp_onnx").rglob("*.py") if path.name != "errors.py")
    assert set(re.findall(r'"(GBP\d{3})"', source)) == set(CODES), "codes that nothing raises, or that are not listed"


def test_operators_page_is_current() -> None:
    spec = importlib.util.spec_from_file_location("make_operators", ROOT / "docs" / "make_operators.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert page("docs/operators.md") == module.tables(), "run `make docs`"


def test_kernel_list_is_current() -> None:
    spec = importlib.util.spec_from_file_location("make_kernels", ROOT / "docs" / "make_kernels.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = (ROOT / "gbp_onnx" / "vjp" / "kernels.json").read_text(encoding="utf-8")
    assert found == module.written(), "run `make docs`"
    assert len(module.kernels(module.SOURCE.read_text(encoding="utf-8"))) > 190


def test_every_style_is_documented_and_no_other() -> None:
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| (.+?) \| ([\d.]*) \| (.+?) \|$", page("docs/pictures.md"), re.MULTILINE)
    assert [name for name, *_ in rows] == sorted(STYLES, key=[name for name, *_ in rows].index)
    for name, about, percentile, _ in rows:
        assert about.replace("\\|", "|") == STYLES[name].about
        assert percentile == ("" if STYLES[name].percentile is None else f"{STYLES[name].percentile:g}")


def test_every_preset_and_field_is_documented() -> None:
    text = page("docs/preprocessing.md")
    presets = re.findall(r"^\| `([\w-]+)` \| (\w+) \| (\S+) \| ([\d., ]+) \| ([\d., ]+) \|", text, re.MULTILINE)
    assert {name for name, *_ in presets} == set(PRESETS)
    for name, channels, scale, mean, std in presets:
        preset = PRESETS[name]
        top, _, bottom = scale.partition("/")
        assert (channels, float(top) / float(bottom or 1)) == (preset.channels, preset.scale)
        assert tuple(map(float, mean.split(", "))) == preset.mean and tuple(map(float, std.split(", "))) == preset.std
    for name in (*FIELDS, *(choice for values in CHOICES.values() for choice in values)):
        assert f"`{name}`" in text, name
    for name in (*PIXEL_FORMATS, *PIXEL_RANGES):
        assert f"`{name}`" in text.lower(), name


def test_the_rules_stand_in_the_readme_as_the_code_says() -> None:
    from gbp_onnx.rules import RULES

    assert re.findall(r"^\| `(\w+)` \| ", section(page("README.md"), "The three rules"), re.MULTILINE) == list(RULES)


def test_what_the_readme_says_is_refused_is_refused() -> None:
    from gbp_onnx.vjp import Refused, entries

    refused = {entry.op for entry in entries() if isinstance(entry, Refused)}
    names = set(re.findall(r"`([A-Z]\w+)`", section(page("README.md"), "Limits").partition("\n- **A sharp")[0]))
    assert len(names) >= 4
    assert names <= refused


# --- pages --------------------------------------------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for target in re.findall(
        r"\]\(\s*([^)\s]+)\s*\)", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    ):
        if target.startswith("https://"):
            continue
        file, _, anchor = unquote(target).partition("#")
        goal = (path.parent / file).resolve() if file else path
        assert goal.exists(), target
        if anchor:
            assert anchor in anchors(goal.read_text("utf-8")), target


def test_design_notes_are_numbered() -> None:
    notes = sorted((ROOT / "docs" / "design").glob("*.md"))
    assert [note.name[:4] for note in notes] == [f"{k:04d}" for k in range(1, len(notes) + 1)]
    for note in notes:
        assert note.read_text("utf-8").startswith(f"# {note.name[:4]} ")


def test_the_picture_of_the_readme_is_ours_and_small() -> None:
    path = ROOT / "docs" / "images" / "chelsea.png"
    assert path.stat().st_size < 600_000
    with Image.open(path) as picture:
        assert picture.width > 2.5 * picture.height
    assert "docs/images/chelsea.png" in page("README.md")


def test_no_page_names_a_place_on_somebodys_machine() -> None:
    for path in PAGES:
        assert not re.search(r"/(work|home|root|tmp)/", path.read_text("utf-8")), path.name


def test_the_changelog_has_this_version() -> None:
    import tomllib

    version = tomllib.loads(page("pyproject.toml"))["project"]["version"]
    assert f"## {version}" in page("CHANGELOG.md")


def test_json_of_the_converters_page_is_what_the_package_reads() -> None:
    """The metadata recipe there gives a model that needs no flags."""
    model = onnx.load(bundled.model_path())
    found = {e.key: e.value for e in model.metadata_props}
    assert set(json.loads(found["gbp.preprocess"])) == set(FIELDS)
