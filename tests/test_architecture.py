"""The house: which file may import which, what is public, and how light a start is."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import gbp_onnx

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "gbp_onnx"

FLOORS: dict[str, int] = {
    **dict.fromkeys(
        ("cache", "collection", "errors", "extras", "types", "files", "metrics", "version", "bundled", "labels"), 0
    ),
    "pipeline": 0,
    **dict.fromkeys(("graph", "runtime", "imaging"), 1),
    "canonical": 2,
    **dict.fromkeys(("vjp", "rules"), 3),
    **dict.fromkeys(("sweep", "gradient", "lowering", "outputs", "several", "target", "probes"), 4),
    "report": 5,
    **dict.fromkeys(("auditing", "batch", "comparison", "explainer", "explanation", "inspection", "many"), 6),
    **dict.fromkeys(("looks", "on_device", "opened", "ready", "seeds", "stored", "targets", "together", "variants"), 6),
    **dict.fromkeys(("cli", "pytest_plugin"), 7),
    **dict.fromkeys(("__init__", "__main__"), 8),
}
TOWERS = ("graph", "runtime", "imaging")
ONLY_IN = {
    "onnx_graphsurgeon": "graph",
    "onnxruntime": "runtime",
    "PIL": "imaging",
    "cmap": "imaging",
    "click": "cli",
    "rich": "cli",
}
FRAMEWORKS = {"torch", "torchvision", "tensorflow", "keras", "jax", "captum"}


@dataclass(frozen=True)
class Import:
    """One import: of `module` ("gbp_onnx.graph.reader", "numpy"), by the file `of`."""

    of: Path
    module: str
    typing_only: bool

    @property
    def unit(self) -> str:
        """The importing file's folder or module within the package."""
        return unit_of(self.of)

    @property
    def target(self) -> str | None:
        """The imported folder or module of the package; None for others' modules."""
        parts = self.module.split(".")
        return None if parts[0] != "gbp_onnx" else parts[1] if len(parts) > 1 else "__init__"

    def __str__(self) -> str:
        return f"{self.of.relative_to(ROOT)} imports {self.module}"


def unit_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


@cache
def imports() -> tuple[Import, ...]:
    return tuple(found for path in sources() for found in imports_of(path))


def imports_of(path: Path) -> Iterator[Import]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(path, alias.name, id(node) in typing_only)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            inside = module == "gbp_onnx"  # from gbp_onnx import bundled: the submodule is what is imported
            for name in [f"{module}.{a.name}" for a in node.names] if inside else [module]:
                yield Import(path, name, id(node) in typing_only)


def test_every_file_stands_on_a_floor() -> None:
    assert {unit_of(path) for path in sources()} == set(FLOORS)


def test_imports_go_down() -> None:
    wrong = [
        str(found)
        for found in imports()
        if found.target is not None and FLOORS.get(found.target, 99) > FLOORS[found.unit]
    ]
    assert not wrong


def test_the_table_does_not_know_the_rules() -> None:
    """vjp/ and rules.py share a floor; the rules override the table, never the other way round."""
    assert not [str(found) for found in imports() if found.unit == "vjp" and found.target == "rules"]


def test_towers_do_not_import_each_other() -> None:
    wrong = [
        str(found)
        for found in imports()
        if found.unit in TOWERS and found.target in TOWERS and found.target != found.unit
    ]
    assert not wrong


@pytest.mark.parametrize("module", ONLY_IN)
def test_one_folder_knows(module: str) -> None:
    users = {found.unit for found in imports() if found.module.split(".")[0] == module and not found.typing_only}
    assert users == {ONLY_IN[module]}


def test_derivatives_neither_run_nor_draw() -> None:
    engine = ("graph", "canonical", "vjp", "rules", "sweep", "gradient", "target")
    wrong = [str(f) for f in imports() if f.unit in engine and f.target in ("runtime", "imaging")]
    assert not wrong


def test_runtime_and_imaging_know_no_onnx() -> None:
    wrong = [str(f) for f in imports() if f.unit in ("runtime", "imaging") and f.module.split(".")[0] == "onnx"]
    assert not wrong


def test_no_framework() -> None:
    assert not [str(found) for found in imports() if found.module.split(".")[0] in FRAMEWORKS]


def test_the_sweep_knows_no_operator() -> None:
    """It does not even add cotangents: those of a sequence are sequences."""
    tree = ast.parse((PACKAGE / "sweep.py").read_text(encoding="utf-8"))
    emitted = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "op"
        and node.attr[0].isupper()
    }  # fmt: skip
    assert not emitted


def test_third_party_modules_are_dependencies() -> None:
    """Whatever the package imports is declared in pyproject.toml, or comes with something that is."""
    declared = {"click", "cmap", "numpy", "onnx", "onnx_graphsurgeon", "PIL", "rich", "onnxruntime"}
    extras = {"jinja2", "junitparser", "pyarrow", "pytest", "scipy", "skimage"}
    comes_with_onnx = {"google"}
    used = {found.module.split(".")[0] for found in imports()} - set(sys.stdlib_module_names) - {"gbp_onnx"}
    assert used == declared | extras | comes_with_onnx


def test_public_names() -> None:
    assert gbp_onnx.__all__ == [
        "Comparison", "Explainer", "Explanation", "GbpError", "GbpWarning", "Inspection", "Prediction", "Preprocess",
        "__version__", "audit", "build", "compare", "differentiate", "inspect", "save",
    ]  # fmt: skip
    for name in gbp_onnx.__all__:
        value = getattr(gbp_onnx, name)
        assert name == "__version__" or (value.__name__ == name and value.__doc__)
    assert set(gbp_onnx.__all__) <= set(dir(gbp_onnx))
    with pytest.raises(AttributeError, match="no attribute 'explode'"):
        _ = gbp_onnx.explode


def loaded_by(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after `code`."""
    tail = "\nimport sys; print(); print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", code + tail], capture_output=True, text=True, check=True, cwd=ROOT, timeout=60
    )
    return set(done.stdout.splitlines()[-1].split())


def test_import_is_light() -> None:
    heavy = {"onnx", "onnxruntime", "PIL", "numpy", "onnx_graphsurgeon", "click", "rich", "cmap"} | FRAMEWORKS
    assert not loaded_by("import gbp_onnx") & heavy


@pytest.mark.parametrize("argv", [["--help"], ["explain", "--help"], ["--version"]])
def test_help_is_light(argv: list[str]) -> None:
    code = f"from gbp_onnx.cli.main import run\nassert run({argv!r}) == 0"
    assert not loaded_by(code) & {"onnx", "onnxruntime", "PIL", "numpy", "onnx_graphsurgeon", "rich", "cmap"}


def test_the_whole_job_loads_no_framework(tmp_path: Path) -> None:
    figure = tmp_path / "figure.png"
    loaded = loaded_by(f"from gbp_onnx.cli.main import run\nassert run(['explain', '-q', '-o', {str(figure)!r}]) == 0")
    assert {"onnx", "onnxruntime", "PIL"} <= loaded
    assert not loaded & FRAMEWORKS
    assert figure.stat().st_size > 10_000


def test_inspecting_does_not_run_the_model() -> None:
    code = "import gbp_onnx\nfrom gbp_onnx import bundled\ngbp_onnx.inspect(bundled.model_path())"
    assert "onnxruntime" not in loaded_by(code)


def test_constants_that_are_written_out_twice_agree() -> None:
    """--help loads nothing, so the command line spells some names out."""
    from gbp_onnx import lowering
    from gbp_onnx.cli.options import LOWERINGS, RULE_NAMES
    from gbp_onnx.explanation import TITLES
    from gbp_onnx.rules import RULES

    assert tuple(RULES) == RULE_NAMES
    assert lowering.LOWERINGS == LOWERINGS
    assert set(TITLES) == set(RULES)
