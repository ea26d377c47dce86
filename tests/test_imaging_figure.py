"""The figure and the files: what is drawn lies where it should, and files appear whole or not at all."""

from __future__ import annotations

import io
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gbp_onnx.errors import InputError
from gbp_onnx.imaging.figure import four_panels, stack
from gbp_onnx.imaging.png import png
from gbp_onnx.imaging.write import save_npz, save_png

RNG = np.random.default_rng(3)
COLOURS = [(200, 30, 30), (30, 160, 60), (40, 70, 200), (220, 180, 40), (120, 40, 160)]


def plain(colour: tuple[int, int, int], height: int = 224, width: int = 224) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


def boxes(figure: Image.Image, count: int) -> list[tuple[int, int, int, int]]:
    """(top, left, bottom, right) of each panel, found by its colour."""
    pixels = np.asarray(figure)
    found = []
    for colour in COLOURS[:count]:
        rows, columns = np.nonzero((pixels == colour).all(axis=2))
        found.append((rows.min(), columns.min(), rows.max() + 1, columns.max() + 1))
        assert len(rows) == (found[-1][2] - found[-1][0]) * (found[-1][3] - found[-1][1])
    return found


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_panels_stand_side_by_side(count: int) -> None:
    panels = [(f"Panel {n}", plain(COLOURS[n])) for n in range(count)]
    figure = four_panels(panels, "Egyptian cat, 38.7 %", "SqueezeNet 1.1")
    assert figure.mode == "RGB"
    found = boxes(figure, count)
    for top, left, bottom, right in found:
        assert bottom - top == right - left == 336
        assert top == found[0][0]
    gaps = [after[1] - before[3] for before, after in itertools.pairwise(found)]
    assert gaps == [14] * (count - 1)
    assert abs(found[0][1] - (figure.width - found[-1][3])) <= 1
    pixels = np.asarray(figure)
    assert (pixels[:8] == 255).all()
    assert (pixels[-8:] == 255).all()
    assert (pixels[: found[0][0] - 40] < 100).any()  # the heading
    assert (pixels[found[0][2] :] < 160).any()  # the footer


def test_every_text_is_drawn() -> None:
    panels = [("Photograph", plain(COLOURS[0]))]
    with_all = np.asarray(four_panels(panels, "Tabby", "note"))
    for fewer in (four_panels([("", panels[0][1])], "Tabby", "note"), four_panels(panels, "Dog", "note")):
        assert fewer.size == with_all.shape[1::-1]
        assert (np.asarray(fewer) != with_all).any()
    assert four_panels(panels, "Tabby").height < with_all.shape[0]
    assert four_panels(panels, "").height < four_panels(panels, "Tabby").height


@pytest.mark.parametrize(
    "words", ["a very long class name " * 20, "x" * 2000, "Ägyptische Katze 猫 \U0001f408", "\n\t"]
)
def test_long_and_strange_texts_stay_inside(words: str) -> None:
    figure = four_panels([(words, plain(COLOURS[0])), (words, plain(COLOURS[1]))], words, words)
    assert figure.width == 2 * 336 + 14 + 48
    assert figure.height < 620
    pixels = np.asarray(figure)
    assert (pixels[:, :20] == 255).all()
    assert (pixels[:, -20:] == 255).all()
    boxes(figure, 2)  # no text over a panel


def test_sizes() -> None:
    small = RNG.integers(0, 256, (28, 28, 3), np.uint8)
    figure = np.asarray(four_panels([("mnist", small)], ""))
    blocks = figure[-24 - 336 : -24, (480 - 336) // 2 : (480 + 336) // 2]
    assert (blocks == small.repeat(12, axis=0).repeat(12, axis=1)).all()  # each pixel a sharp square
    tall = four_panels([("large", plain(COLOURS[0], 2000, 1000))], "")
    assert boxes(tall, 1)[0][2] - boxes(tall, 1)[0][0] == 480
    mixed = four_panels([("a", plain(COLOURS[0])), ("b", plain(COLOURS[1], 100, 200))], "")
    (top, left, bottom, right), (top2, left2, bottom2, right2) = boxes(mixed, 2)
    assert (top, bottom) == (top2, bottom2)
    assert right2 - left2 == 2 * (right - left)
    assert four_panels([("thread", plain(COLOURS[0], 1, 5000))], "").width < 2000
    assert boxes(four_panels([("a", plain(COLOURS[0]))], "", height=100), 1)[0][2] > 100
    grey = four_panels([("grey", small[:, :, 0]), ("grey", small[:, :, :1])], "")
    assert grey.mode == "RGB"


NO_PICTURES = [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4, 3), np.uint8)]


@pytest.mark.parametrize("panels", [[], *([("x", array)] for array in NO_PICTURES)])
def test_panels_that_are_no_pictures(panels: list) -> None:
    with pytest.raises(InputError) as caught:
        four_panels(panels, "heading")
    assert caught.value.code == "GBP405"


def test_stack() -> None:
    figures = [four_panels([("a", plain(COLOURS[n]))] * (n + 1), "") for n in range(2)]
    together = stack(figures)
    assert together.width == max(figure.width for figure in figures)
    assert together.height == sum(figure.height for figure in figures)
    (first, second) = boxes(stack([four_panels([("a", plain(c))], "") for c in COLOURS[:2]]), 2)
    assert first[2] < second[0]
    with pytest.raises(InputError):
        stack([])


# --- files


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.png", "PNG"),
        ("a.JPG", "JPEG"),
        ("a.jpeg", "JPEG"),
        ("a.webp", "WEBP"),
        ("plain", "PNG"),
        ("new/a.png", "PNG"),
    ],
)
def test_save(tmp_path: Path, name: str, kind: str) -> None:
    picture = plain(COLOURS[0], 20, 30)
    path = save_png(picture, tmp_path / name)
    assert path == tmp_path / name
    with Image.open(path) as image:
        assert image.format == kind
        found = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(found - picture).max() <= (0 if kind == "PNG" else 4)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    path = save_png(Image.fromarray(picture), str(tmp_path / name))
    assert path.is_file()


def test_save_refuses(tmp_path: Path) -> None:
    picture = plain(COLOURS[0], 20, 30)
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_text("x")
    large = np.zeros((2, 20000, 3), np.uint8)
    for image, name in (
        (picture, "a.tiff"),
        (picture, "a.txt"),
        (picture, "folder.png"),
        (picture, "file/a.png"),
        (large, "large.webp"),
    ):
        with pytest.raises(InputError) as caught:
            save_png(image, tmp_path / name)
        assert caught.value.code == "GBP411", name
        assert name.split("/")[0] in str(caught.value)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "folder.png"]


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.webp"
    save_png(plain(COLOURS[0], 4, 4), path)
    before = path.read_bytes()
    with pytest.raises(InputError):
        save_png(np.zeros((2, 20000, 3), np.uint8), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.webp"]


@pytest.mark.parametrize(
    "shape", [(1, 1, 3), (1, 7), (5, 1, 3), (485, 731, 3), (3, 100_000, 3), (4, 300_000), (700, 400)]
)
@pytest.mark.parametrize("kind", ["noise", "smooth", "flat", "grey"])
def test_png_is_read_as_it_was(shape: tuple[int, ...], kind: str) -> None:
    """Lines shorter and longer than what is compressed at a time, and pictures that ask for either way to search."""
    rows, columns = np.indices(shape[:2])
    values = {"noise": RNG.integers(0, 256, shape), "smooth": rows + 2 * columns, "flat": 77 + 0 * rows}
    pixels = values["noise" if kind == "grey" else kind]
    if kind == "grey" and len(shape) == 3:
        pixels = pixels[..., 0]
    pixels = np.broadcast_to(pixels if pixels.shape == shape else pixels[..., None], shape).astype(np.uint8)
    data = png(pixels)
    with Image.open(io.BytesIO(data)) as found:
        found.load()
        assert (found.format, found.mode) == ("PNG", "RGB" if len(shape) == 3 else "L")
        np.testing.assert_array_equal(np.asarray(found), pixels)
    assert png(np.asfortranarray(pixels)) == data


def test_png_is_about_as_small_as_pillows() -> None:
    """Noise over smooth contours, as maps are; and the same in grey, which has everything three times."""
    rows, columns = np.indices((300, 400))
    contours = 128 + 60 * np.sin(rows / 19) * np.cos(columns / 23)
    colours = (contours[..., None] + RNG.normal(0, 8, (300, 400, 3))).clip(0, 255).astype(np.uint8)
    for pixels in (colours, np.repeat(colours[..., :1], 3, axis=2)):
        memory = io.BytesIO()
        Image.fromarray(pixels).save(memory, "PNG", compress_level=4)
        assert len(png(pixels)) < 1.15 * len(memory.getvalue())


def test_png_has_pixels() -> None:
    for shape in ((0, 4, 3), (4, 0)):
        with pytest.raises(ValueError, match="pixels"):
            png(np.zeros(shape, np.uint8))


def test_npz(tmp_path: Path) -> None:
    arrays = {"attribution_guided": RNG.standard_normal((4, 5, 3)).astype(np.float32), "target": np.array([281])}
    path = save_npz(tmp_path / "maps.npz", arrays)
    with np.load(path) as found:
        assert set(found) == set(arrays)
        for name, array in arrays.items():
            assert found[name].dtype == array.dtype
            assert (found[name] == array).all()
    assert path.read_bytes() == save_npz(tmp_path / "again.npz", arrays).read_bytes()
    assert save_npz(tmp_path / "maps.dat", arrays).name == "maps.dat"
    assert not (tmp_path / "maps.dat.npz").exists()
    with pytest.raises(InputError) as caught:
        save_npz(tmp_path, arrays)
    assert caught.value.code == "GBP411"


# --- weight


def test_imports_are_light() -> None:
    """Preprocessing loads no Pillow; rendering the signed colours loads no colour maps."""
    script = (
        "import sys\n"
        "import gbp_onnx.imaging.preprocess\n"
        "assert not any(name.split('.')[0] in ('PIL', 'cmap') for name in sys.modules)\n"
        "import gbp_onnx.imaging.render as render, numpy as np\n"
        "render.render(np.ones((2, 2, 3)))\n"
        "assert not any(name.split('.')[0] in ('PIL', 'cmap', 'onnx', 'onnxruntime') for name in sys.modules)\n"
        "import gbp_onnx.imaging.photo, gbp_onnx.imaging.figure, gbp_onnx.imaging.write\n"
        "assert 'cmap' not in sys.modules and 'PIL.ImageCms' not in sys.modules\n"
        "assert 'PIL.JpegImagePlugin' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).resolve().parents[1])
