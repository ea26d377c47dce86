"""The wheel carries the bundled files, and an installation of it finds them away from the checkout."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BUNDLED = ("squeezenet1_1.onnx", "chelsea.png", "imagenet_labels.txt", "NOTICE", "manifest.json")

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("hatchling") is None, reason="hatchling is not installed (pip install hatchling)"
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the checkout's files (nothing is written into the checkout)."""
    source, out = tmp_path_factory.mktemp("source") / "tree", tmp_path_factory.mktemp("wheel")
    left_out = (".git", ".venv", "venv", "build", "dist", "demo", "gbp-out", "__pycache__", ".*_cache")
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*left_out))
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(out)]
    done = subprocess.run([*command, str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("*.whl")
    return path


def test_contents(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        for name in BUNDLED:
            assert archive.read(f"gbp_onnx/_bundled/{name}") == (ROOT / "models" / name).read_bytes()
    assert len(names) == len(set(names))
    licences = [name for name in names if ".dist-info/licenses/" in name]
    assert {name.rsplit("/", 1)[1] for name in licences} == {"LICENSE", "NOTICE"}
    others = [name for name in names if not name.startswith("gbp_onnx/") and ".dist-info/" not in name]
    assert not others, "only the package belongs into the wheel"
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "gbp_onnx").rglob("*.py")}
    assert sources <= set(names)
    assert not [name for name in names if "make_tiny" in name or "__pycache__" in name]


def test_an_installed_wheel_finds_its_files(wheel: Path, tmp_path: Path) -> None:
    """Installed elsewhere, without dependencies; its files are found with nothing of the checkout in sight."""
    target, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", str(target), str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    code = (
        "import json; from gbp_onnx.bundled import labels_path, model_path, notice_path, photo_path; "
        "print(json.dumps([str(path()) for path in (model_path, photo_path, labels_path, notice_path)]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(target)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=elsewhere, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    folder = target / "gbp_onnx" / "_bundled"
    assert json.loads(done.stdout) == [str(folder / name) for name in BUNDLED[:4]]


def test_explain_runs_from_an_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    """A clean environment (dependencies lent by this one), away from the checkout: ``gbp-onnx explain`` runs."""
    import sysconfig

    environment, elsewhere = tmp_path / "env", tmp_path / "elsewhere"
    elsewhere.mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    scripts = environment / ("Scripts" if os.name == "nt" else "bin")
    python = scripts / Path(sys.executable).name
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    site = next(environment.rglob("site-packages"))
    # A plain path: the .pth files in that folder (this checkout's editable installation) are not followed.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    command = [str(scripts / "gbp-onnx"), "explain", "--json", "-o", "out"]
    done = subprocess.run(command, cwd=elsewhere, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (record,) = json.loads(done.stdout)
    assert record["label"] in ("Egyptian cat", "tabby")
    assert Path(record["model"]).is_relative_to(environment)
    assert (elsewhere / record["files"][-1]).read_bytes().startswith(b"\x89PNG")
