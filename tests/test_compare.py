"""Two forms of one model, compared: by equal maps, matched classes, other layouts, other frames."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from make_tiny import make
from onnx import TensorProto, helper, numpy_helper

import gbp_onnx
from gbp_onnx import bundled
from gbp_onnx.cli.main import run
from gbp_onnx.errors import GbpError
from gbp_onnx.metrics import METRICS

pytest.importorskip("scipy", reason="gbp-onnx[compare] is not installed")
pytest.importorskip("skimage", reason="gbp-onnx[compare] is not installed")

PHOTO = np.random.default_rng(5).integers(0, 256, (40, 60, 3), dtype=np.uint8)
ONES = {name: pytest.approx(1, abs=1e-6) for name in METRICS}
CLASSES = ["one", "two", "three", "four", "five"]


def tiny(name: str = "plain") -> onnx.ModelProto:
    """A tiny network for images of 16 x 16, which fit no window but SSIM's."""
    return make(name)


def with_background() -> onnx.ModelProto:
    """The same network with a sixth class in front."""
    model = tiny()
    head = next(n for n in model.graph.node if n.op_type == "Gemm")
    for tensor in model.graph.initializer:
        if tensor.name in head.input[1:]:
            array = numpy_helper.to_array(tensor)
            row = np.full((1, *array.shape[1:]), -1.0 if array.ndim == 1 else 0.0, np.float32)
            tensor.CopyFrom(numpy_helper.from_array(np.concatenate([row, array]), tensor.name))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 6
    return model


def with_grey_levels() -> onnx.ModelProto:
    """The same network behind uint8 NHWC pixels in BGR: Cast, Div, Gather and Transpose inside."""
    model = tiny()
    graph = model.graph
    image = graph.input[0].name
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.float32(255), "levels"),
            numpy_helper.from_array(np.array([2, 1, 0]), "order"),
        ]
    )
    front = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["floats", "levels"], ["units"]),
        helper.make_node("Gather", ["units", "order"], ["rgb"], axis=3),
        helper.make_node("Transpose", ["rgb"], [image], perm=[0, 3, 1, 2]),
    ]
    nodes = [*front, *graph.node]
    del graph.node[:], graph.input[:]
    graph.node.extend(nodes)
    graph.input.append(helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", 16, 16, 3]))
    return model


def test_a_model_equals_itself() -> None:
    found = gbp_onnx.compare(tiny(), tiny(), [PHOTO, PHOTO[::-1]], providers="cpu", preprocess="unit")
    assert found.rules == ("saliency", "deconvnet", "guided")
    assert len(found.pairs) == 2 and not found.notes and not found.undefined
    assert all(found.mean[rule] == ONES for rule in found.rules)
    assert found.agreement == {"top1": 1.0, "top5_overlap": 1.0, "score_difference": 0.0}
    assert all(pair.frame == "model" for pair in found.pairs)
    json.dumps(found.to_dict(), allow_nan=False)


def test_another_model_is_another_one() -> None:
    found = gbp_onnx.compare(tiny(), tiny("residual"), [PHOTO], "guided", providers="cpu", preprocess="unit")
    assert abs(found.mean["guided"]["cosine"] or 0) < 0.9
    assert found.failures({"cosine": 0.9}) and not found.failures({"cosine": -1})
    assert (found.pairs[0].a.target, found.pairs[0].b.target) == (found.pairs[0].a.predictions[0].index,) * 2


def test_a_background_class_is_looked_past() -> None:
    for a, b, shift in ((tiny(), with_background(), 1), (with_background(), tiny(), -1)):
        found = gbp_onnx.compare(a, b, [PHOTO], providers="cpu", preprocess="unit")
        (pair,) = found.pairs
        assert pair.b.target == pair.a.target + shift  # type: ignore[operator]
        assert "background" in found.notes[0]
        assert all(found.mean[rule] == ONES for rule in found.rules)
        assert pair.same_top1
    with pytest.raises(GbpError) as error:
        gbp_onnx.compare(with_background(), tiny(), [PHOTO], providers="cpu", preprocess="unit", target=0)
    assert error.value.code == "GBP407"


def test_classes_are_matched_by_their_labels() -> None:
    model = tiny()
    head = next(n for n in model.graph.node if n.op_type == "Gemm")
    for tensor in model.graph.initializer:
        if tensor.name in head.input[1:]:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor)[::-1].copy(), tensor.name))
    found = gbp_onnx.compare(
        tiny(), model, [PHOTO], providers="cpu", preprocess="unit", labels=CLASSES, labels_b=CLASSES[::-1]
    )
    (pair,) = found.pairs
    assert pair.b.target == 4 - pair.a.target and pair.a.label == pair.b.label  # type: ignore[operator]
    assert "matched by their labels" in found.notes[0]
    assert all(found.mean[rule] == ONES for rule in found.rules)
    assert pair.same_top1 and pair.top5_overlap == 1


def test_models_without_common_classes_are_refused() -> None:
    with pytest.raises(GbpError) as error:
        gbp_onnx.compare(tiny(), bundled.model_path(), [PHOTO], providers="cpu", preprocess="unit")
    assert error.value.code == "GBP407"


def test_grey_levels_inside_and_outside_are_one_unit() -> None:
    """A float NCHW RGB model and its uint8 NHWC BGR form: the maps differ by layout, order and a factor of 255."""
    a = gbp_onnx.Explainer(tiny(), None, providers="cpu", preprocess="unit")
    b = gbp_onnx.Explainer(with_grey_levels(), None, providers="cpu", preprocess="raw,channels=BGR")
    found = gbp_onnx.compare(a, b, [PHOTO])
    assert all(found.mean[rule] == ONES for rule in found.rules)
    one, two = found.pairs[0].maps["guided"]
    np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-7 * float(np.abs(one).max()))
    assert found.pairs[0].frame == "model"


def test_an_integer_input_takes_its_own_preprocessing() -> None:
    found = gbp_onnx.compare(tiny(), with_grey_levels(), [PHOTO], "guided", providers="cpu", preprocess="unit")
    assert "'raw'" in found.notes[0]
    assert found.pairs[0].b.preprocess.name == "raw"


def test_other_pixels_are_compared_on_the_photograph() -> None:
    crop, pad = "unit,resize=crop", "unit,resize=pad"
    found = gbp_onnx.compare(tiny(), tiny(), [PHOTO], "guided", providers="cpu", preprocess=crop, preprocess_b=pad)
    (pair,) = found.pairs
    assert pair.frame == "photograph" and "photograph" in found.notes[0]
    one, two = pair.maps["guided"]
    assert one.shape == two.shape and one.shape[0] < 40 and one.shape[1] < 60  # what the crop sees
    assert pair.metrics["guided"]["cosine"] is not None and pair.metrics["guided"]["cosine"] < 0.999


def test_maps_of_zeros_are_counted_not_averaged() -> None:
    model = tiny()
    for tensor in model.graph.initializer:
        if len(tensor.dims) == 4:
            tensor.CopyFrom(numpy_helper.from_array(np.zeros(tensor.dims, np.float32), tensor.name))
    found = gbp_onnx.compare(tiny(), model, [PHOTO], "guided", providers="cpu", preprocess="unit")
    assert found.mean == {"guided": dict.fromkeys(METRICS)}
    assert found.undefined == len(METRICS)
    assert found.failures({"cosine": -1}) == ["guided: mean cosine has no value, less than -1"]


def test_seeds_and_several_targets_are_refused() -> None:
    for target in ("top5", np.zeros((1, 5), np.float32)):
        with pytest.raises(GbpError) as error:
            gbp_onnx.compare(tiny(), tiny(), [PHOTO], providers="cpu", preprocess="unit", target=target)
        assert error.value.code == "GBP407"


def test_a_broken_model_gives_json_all_the_same() -> None:
    model = tiny()
    head = next(n for n in model.graph.node if n.op_type == "Gemm")
    for tensor in model.graph.initializer:
        if tensor.name == head.input[2]:
            tensor.CopyFrom(numpy_helper.from_array(np.full(tensor.dims, np.nan, np.float32), tensor.name))
    found = gbp_onnx.compare(tiny(), model, [PHOTO], "guided", providers="cpu", preprocess="unit")
    facts = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert facts["images"][0]["score"]["b"] is None
    assert facts["images"][0]["warnings"]["b"]


def test_a_missing_package_is_said_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage.metrics", None)
    with pytest.raises(GbpError) as error:
        gbp_onnx.compare("none.onnx", "none.onnx", [PHOTO])
    assert error.value.code == "GBP412"


# --- the command --------------------------------------------------------------------------------------------------


@pytest.fixture
def models(tmp_path: Path) -> list[str]:
    """The bundled model, and its explainer: two files of one model."""
    out = tmp_path / "explainer.onnx"
    assert run(["build", str(bundled.model_path()), "-o", str(out)]) == 0
    return [str(bundled.model_path()), str(out)]


def compared(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    status = run(["compare", *arguments])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_the_command_writes_a_table_and_a_figure(
    models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figure = tmp_path / "both.png"
    status, out, _ = compared(capsys, *models, str(bundled.photo_path()), "-o", str(figure), "--min-cosine", "0.999")
    assert status == 0
    assert out.splitlines()[-1] == str(figure)
    assert "mean of 1" in out and out.count("guided") == 2 and "nan" not in out.lower()
    assert figure.stat().st_size > 10_000


def test_the_command_as_json_and_below_a_minimum(
    models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = compared(
        capsys, *models, str(bundled.photo_path()), "-o", str(tmp_path), "-r", "guided", "--json", "--min-ssim", "1.5",
        "--min-agreement", "1",
    )  # fmt: skip
    found: dict[str, Any] = json.loads(out)
    assert status == 1
    assert found["mean"]["guided"]["cosine"] == pytest.approx(1)
    assert found["failures"] == ["guided: mean SSIM is 1.0000, less than 1.5"] and found["failures"][0] in err
    assert [Path(f).name for f in found["files"]] == ["chelsea.png"]


def test_minimums_are_the_metrics() -> None:
    from gbp_onnx.cli.compare import MINIMUMS

    assert (*METRICS, "agreement") == MINIMUMS


def test_what_cannot_be_read_ends_with_2(models: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert compared(capsys, *models, "none.png")[0] == 2
    assert compared(capsys, models[0], "none.onnx", str(bundled.photo_path()))[0] == 2
    assert compared(capsys, *models)[0] == 2
