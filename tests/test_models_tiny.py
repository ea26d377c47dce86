"""The tiny networks: valid, reproducible, runnable, and each of the form that it promises."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from make_tiny import REFUSED_BY_ORT, TINY, feeds, make, write_external


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def ops(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


@pytest.mark.parametrize("name", TINY)
def test_valid_and_the_same_on_every_run(name: str) -> None:
    model = make(name)
    onnx.checker.check_model(model, full_check=True)
    assert TINY[name]().SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)
    usual = {"initializer_inputs": (3, 8), "clip_attributes": (5, 10)}.get(name, (8, 17))
    assert (model.ir_version, model.opset_import[0].version) == usual


@pytest.mark.parametrize("name", [name for name in TINY if name not in REFUSED_BY_ORT])
def test_runs_and_depends_on_its_input(name: str) -> None:
    model = make(name)
    runner = session(model)
    first, second = (runner.run(None, feeds(model, seed=seed)) for seed in (1, 2))
    outputs = [value.name for value in model.graph.output]
    for output, a, b in zip(outputs, first, second, strict=True):
        constant = name in {"dead_relu", "infinite"} or output == "best"
        assert constant or not np.array_equal(a, b), f"{output} does not depend on the input"
        assert name == "infinite" or np.isfinite(a).all()


@pytest.mark.parametrize("name", sorted(REFUSED_BY_ORT))
def test_refused_by_the_runtime(name: str) -> None:
    with pytest.raises(Exception, match=r"com\.example"):
        session(make(name))


def test_make_names_what_there_is_and_hands_out_copies() -> None:
    with pytest.raises(KeyError, match="residual"):
        make("resdual")
    make("plain").graph.node[0].name = "changed"
    assert make("plain").graph.node[0].name != "changed"


def test_forms() -> None:
    assert set(ops(make("constant_nodes"))) >= {"Constant"}
    assert not make("constant_nodes").graph.initializer
    assert {i.name for i in make("initializer_inputs").graph.initializer} < {
        i.name for i in make("initializer_inputs").graph.input
    }
    assert {f.name for f in make("functions").functions} == {"Activate", "Block"}
    identities = Counter(
        i for node in make("shared_identity").graph.node if node.op_type == "Identity" for i in node.input
    )
    assert identities == {"kernel": 2, "bias": 2}
    assert not any(node.name for node in make("unnamed_nodes").graph.node)
    assert any("features" in node.input for node in make("inner_output").graph.node)
    assert not ops(make("no_rectifier")).keys() & {"Relu", "Clip", "Max", "Where", "ThresholdedRelu"}
    assert {n.domain for n in make("unknown_op").graph.node} == {"", "com.example"}
    depthwise = [
        a.i for n in make("mobilenet").graph.node if n.op_type == "Conv" for a in n.attribute if a.name == "group"
    ]
    assert 16 in depthwise


def test_the_preactivation_skip_is_what_it_says() -> None:
    """On the wire: the input of the Relu is read a second time, past it."""
    graph = make("preact_skip").graph
    readers = Counter(i for node in graph.node for i in node.input)
    (relu,) = (node for node in graph.node if node.op_type == "Relu")
    assert readers[relu.input[0]] == 2


def test_dead_relu_stays_shut_for_photographs() -> None:
    model = make("dead_relu")
    (relu,) = (node for node in model.graph.node if node.op_type == "Relu")
    model.graph.output.append(onnx.ValueInfoProto(name=relu.output[0]))
    image = np.full((1, 3, 16, 16), 255, np.float32)
    assert not session(model).run([relu.output[0]], {"image": image})[0].any()


def test_dynamic_sizes_run() -> None:
    model = make("dynamic")
    for batch, size in ((1, 16), (3, 21)):
        (scores,) = session(model).run(None, feeds(model, batch=batch, size=size))
        assert scores.shape == (batch, 5)


def test_external_data(tmp_path: Path) -> None:
    model = make("plain")
    path = write_external(model, tmp_path)
    bare = onnx.load(path, load_external_data=False)
    assert all(t.data_location == onnx.TensorProto.EXTERNAL for t in bare.graph.initializer)
    expected = session(model).run(None, feeds(model))
    runner = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(runner.run(None, feeds(model))[0], expected[0])
    assert not any(t.data_location for t in model.graph.initializer), "the model itself must stay as it was"
