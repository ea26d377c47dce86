"""Reading models: every way in gives the same maps, the source stays, and what is unsafe or broken is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from make_tiny import feeds, make, write_external

import gbp_onnx
from gbp_onnx.errors import GbpError
from gbp_onnx.graph.files import load_model

RULES = ("saliency", "deconvnet", "guided")


def maps(model: Any, like: onnx.ModelProto | None = None) -> dict[str, np.ndarray[Any, Any]]:
    """The three maps of a seeded random batch."""
    arrays = feeds(like if like is not None else model, batch=1, size=16, seed=1)
    return gbp_onnx.Explainer(model, RULES, providers="cpu").attribute(arrays, 0)


def same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    for rule in RULES:
        np.testing.assert_allclose(found[rule], wanted[rule], rtol=1e-5, atol=1e-7, err_msg=rule)


def refused(code: str, source: Any) -> GbpError:
    with pytest.raises(GbpError) as error:
        gbp_onnx.build(source)
    assert error.value.code == code, error.value
    return error.value


def test_path_bytes_and_proto_are_the_same_model(tmp_path: Path) -> None:
    model = make("residual")
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    before = model.SerializeToString()
    wanted = maps(model)
    same(maps(path, model), wanted)
    same(maps(str(path), model), wanted)
    same(maps(path.read_bytes(), model), wanted)
    assert model.SerializeToString() == before
    assert path.read_bytes() == before


def test_the_forward_part_is_untouched() -> None:
    """The built file starts with the source's nodes and initializers as they are, but for Indices asked of a pool."""
    source = make("fire")
    built = gbp_onnx.build(source, RULES)
    for mine, theirs in zip(built.graph.node, source.graph.node, strict=False):
        if theirs.op_type == "MaxPool":
            assert list(mine.output)[: len(theirs.output)] == list(theirs.output)
            mine = onnx.NodeProto.FromString(mine.SerializeToString())
            del mine.output[len(theirs.output) :]
        assert mine == theirs
    assert list(built.graph.initializer)[: len(source.graph.initializer)] == list(source.graph.initializer)
    domains = {n.domain for n in built.graph.node[len(source.graph.node) :]}
    assert domains <= {""}


def test_node_names_need_not_be_unique() -> None:
    """ONNX Runtime wants unique names, the ONNX specification does not; derivatives must not mix nodes up by name."""
    model = make("residual")
    wanted = maps(model)
    for node in model.graph.node:
        node.name = "the same"
    built = gbp_onnx.build(model, RULES)
    for node in built.graph.node:
        node.name = ""
    same(maps(built, model), wanted)


def test_nodes_may_be_out_of_order() -> None:
    """ONNX demands an order, ONNX Runtime runs files without it."""
    model = make("residual")
    wanted = maps(model)
    shuffled = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(shuffled)
    same(maps(model), wanted)


def test_a_cycle_is_refused() -> None:
    model = make("plain")
    model.graph.node[0].input[0] = model.graph.node[2].output[0]
    assert "cycle" in refused("GBP103", model).what


@pytest.mark.parametrize(
    "name",
    [
        "initializer_inputs",
        "constant_nodes",
        "shared_identity",
        "functions",
        "unnamed_nodes",
        "names_taken",
        "dropout",
        "nhwc",
    ],
)
def test_every_way_of_writing_a_model_keeps_its_results(name: str) -> None:
    model = make(name)
    built = gbp_onnx.build(model, RULES)
    onnx.checker.check_model(built)
    assert not {i.name for i in built.graph.input} & {t.name for t in built.graph.initializer}
    arrays = feeds(model, batch=1, size=16, seed=1)
    wanted = ort.InferenceSession(model.SerializeToString()).run(None, arrays)
    target = json.loads({e.key: e.value for e in built.metadata_props}["gbp.inputs"])["target"]
    found = ort.InferenceSession(built.SerializeToString()).run(None, {**arrays, target: np.array([0])})
    for value, expected in zip(found, wanted, strict=False):
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)
    assert all(np.isfinite(m).all() and m.any() for m in maps(model).values())


# --- external data ------------------------------------------------------------------------------------------------


@pytest.fixture
def outside(tmp_path: Path) -> tuple[Path, Path]:
    """A model whose weights lie beside it, in a folder of its own; returns its path and that of the weights."""
    folder = tmp_path / "model"
    folder.mkdir()
    path = write_external(make("plain"), folder)
    return path, folder / "weights.bin"


def relocate(path: Path, **entries: str) -> Path:
    """Rewrite where the weights are said to lie."""
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = entries.get(entry.key, entry.value)
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data_is_read(outside: tuple[Path, Path]) -> None:
    same(maps(outside[0], make("plain")), maps(make("plain")))
    built = gbp_onnx.build(outside[0])
    assert all(t.data_location == onnx.TensorProto.DEFAULT for t in built.graph.initializer)


@pytest.mark.parametrize(
    "location", ["../secret.bin", "a/../../secret.bin", "..\\secret.bin", "C:\\secret.bin", "\\\\host\\x", ""]
)
def test_a_location_outside_the_folder_is_refused(outside: tuple[Path, Path], location: str) -> None:
    (outside[0].parent.parent / "secret.bin").write_bytes(outside[1].read_bytes())
    refused("GBP105", relocate(outside[0], location=location))


def test_an_absolute_location_is_refused(outside: tuple[Path, Path]) -> None:
    refused("GBP105", relocate(outside[0], location=str(outside[1].resolve())))


def test_a_link_out_of_the_folder_is_refused(outside: tuple[Path, Path]) -> None:
    path, weights = outside
    elsewhere = path.parent.parent / "elsewhere.bin"
    weights.rename(elsewhere)
    weights.symlink_to(elsewhere)
    assert "link" in refused("GBP105", path).what
    weights.unlink()
    os.link(elsewhere, weights)
    assert "link" in refused("GBP105", path).what
    weights.unlink()
    (path.parent / "sub").symlink_to(path.parent.parent, target_is_directory=True)
    refused("GBP105", relocate(path, location="sub/elsewhere.bin"))


def test_a_link_inside_the_folder_is_followed(outside: tuple[Path, Path]) -> None:
    path, weights = outside
    weights.rename(weights.with_name("blob"))
    weights.symlink_to("blob")
    same(maps(path, make("plain")), maps(make("plain")))


@pytest.mark.parametrize(
    "entries", [{"offset": "100000000"}, {"length": "99999999"}, {"offset": "-4"}, {"length": "x"}, {"length": "3"}]
)
def test_external_data_that_do_not_fit_are_refused(outside: tuple[Path, Path], entries: dict[str, str]) -> None:
    refused("GBP106", relocate(outside[0], **entries))


def test_external_data_that_are_missing_or_have_no_folder_are_refused(outside: tuple[Path, Path]) -> None:
    path, weights = outside
    refused("GBP106", path.read_bytes())
    refused("GBP106", onnx.load(path, load_external_data=False))
    weights.unlink()
    assert "weights.bin" in refused("GBP106", path).what


# --- files that are no models -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "GBP102"),
        (b"hello, this is a text file\n" * 50, "GBP102"),
        (b"\x00" * 100, "GBP102"),
        (b"\x08\x00\x00\x00ORTM" + b"\x00" * 64, "GBP102"),
        (b"\x89PNG\r\n\x1a\n" + b"\x00" * 64, "GBP102"),
    ],
)
def test_what_is_no_model_is_refused(tmp_path: Path, content: bytes, code: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    assert str(path) in str(refused(code, path))
    refused(code, content)


def test_a_truncated_model_is_refused(tmp_path: Path) -> None:
    data = make("fire").SerializeToString()
    for size in (1, len(data) // 3, len(data) - 7):
        with pytest.raises(GbpError) as error:
            gbp_onnx.build(data[:size])
        assert error.value.code in ("GBP102", "GBP103")


def test_missing_files_folders_and_wrong_types_are_refused(tmp_path: Path) -> None:
    refused("GBP101", tmp_path / "none.onnx")
    refused("GBP101", tmp_path)
    refused("GBP405", 7)


@pytest.mark.parametrize("opset", [1, 6, 99])
def test_opsets_out_of_range_are_refused(opset: int) -> None:
    model = make("plain")
    model.opset_import[0].version = opset
    assert str(opset) in refused("GBP104", model).what


def test_weights_whose_data_do_not_fit_their_shape_are_refused() -> None:
    model = make("plain")
    tensor = next(t for t in model.graph.initializer if len(t.dims) == 4)
    tensor.raw_data = tensor.raw_data[:-4]
    with pytest.raises(GbpError):
        gbp_onnx.Explainer(model)


def test_metadata_names_and_odd_types_survive() -> None:
    model = make("plain")
    model.producer_name, model.domain, model.model_version, model.doc_string = "me", "my.domain", 7, "words"
    model.metadata_props.add(key="mine", value="kept")
    model.graph.doc_string = "graph words"
    model.graph.node[0].doc_string = "node words"
    model.graph.metadata_props.add(key="g", value="kept")
    model.graph.quantization_annotation.add(tensor_name="image")
    odd = onnx.helper.make_tensor("odd", onnx.TensorProto.FLOAT8E4M3FN, [2], b"\x10\x20", raw=True)
    nibble = onnx.helper.make_tensor("nibble", onnx.TensorProto.INT4, [2], b"\x21", raw=True)
    model.graph.initializer.extend([odd, nibble])
    built = gbp_onnx.build(model)
    for field in ("producer_name", "domain", "model_version", "doc_string"):
        assert getattr(built, field) == getattr(model, field)
    assert {e.key: e.value for e in built.metadata_props}["mine"] == "kept"
    assert built.graph.doc_string == "graph words"
    assert built.graph.node[0].doc_string == "node words"
    assert list(built.graph.metadata_props) == list(model.graph.metadata_props)
    assert list(built.graph.quantization_annotation) == list(model.graph.quantization_annotation)
    kept = {t.name: t for t in built.graph.initializer}
    assert kept["odd"] == odd
    assert kept["nibble"] == nibble
    assert built.ir_version == 10


def test_loading_makes_a_model_of_its_own() -> None:
    model = make("plain")
    loaded = load_model(model)
    loaded.graph.node[0].name = "changed"
    assert model.graph.node[0].name != "changed"
