"""Pictures in: every kind of file becomes upright RGB or an error with the file's name."""

from __future__ import annotations

import io
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gbp_onnx.errors import InputError
from gbp_onnx.imaging.photo import read_photo
from tests.corpus import CORPUS, needs_corpus

NASTY = sorted((CORPUS / "nasty").glob("*")) if CORPUS.is_dir() else []
REFUSED = {
    "broken.png": {"GBP402"},
    "broken_data_stream.png": {"GBP403"},
    "crash-0e16d3bfb83be87356d026d66919deaefca44dac.tif": {"GBP403"},
    "decompression_bomb.gif": {"GBP404"},
    "decompression_bomb.ico": {"GBP404"},
    "oom-225817ca0f8c663be7ab4b9e717b02c661e66834.tif": {"GBP402", "GBP403"},
    "truncated_image.png": {"GBP403"},
    "zero_width.gif": {"GBP402", "GBP404"},
}


def pixels(source: object) -> np.ndarray:
    return np.asarray(read_photo(source)).astype(int)  # type: ignore[arg-type]


def nasty(name: str) -> np.ndarray:
    return pixels(CORPUS / "nasty" / f"pillow_{name}")


def gradient(height: int = 24, width: int = 40) -> Image.Image:
    rows, columns = np.mgrid[0:height, 0:width]
    image = np.stack([rows * 255 // (height - 1), columns * 255 // (width - 1), 0 * rows + 60], axis=2)
    return Image.fromarray(image.astype(np.uint8))


def code(source: object) -> str:
    with pytest.raises(InputError) as caught:
        read_photo(source)  # type: ignore[arg-type]
    if isinstance(source, Path):
        assert source.name in str(caught.value)
    return caught.value.code


@needs_corpus
@pytest.mark.parametrize("path", NASTY, ids=lambda path: path.name)
def test_every_hostile_file_is_a_picture_or_a_named_error(path: Path) -> None:
    name = path.name.removeprefix("pillow_")
    if name in REFUSED:
        assert code(path) in REFUSED[name]
        return
    image = read_photo(path)
    assert type(image) is Image.Image
    assert image.mode == "RGB"
    assert image.info == {}
    again = read_photo(image)
    assert again.size == image.size
    assert again.tobytes() == image.tobytes()


@needs_corpus
def test_the_list_of_refused_files_is_there() -> None:
    assert {f"pillow_{name}" for name in REFUSED} <= {path.name for path in NASTY}
    assert len(NASTY) >= 60


@needs_corpus
def test_orientations_agree() -> None:
    upright = nasty("hopper.jpg")
    turned = [nasty(f"hopper_orientation_{n}.jpg") for n in range(2, 9)] + [nasty("hopper_orientation_6.webp")]
    for image in turned:
        # the files were compressed anew, at another size of the sides: alike, not equal
        assert np.abs(image - upright).mean() < 6
        assert np.abs(image - upright[:, ::-1]).mean() > 40
    assert nasty("orientation_rectangle.jpg").shape == (2, 1, 3)
    avif = nasty("avif_exif.avif")
    assert np.abs(nasty("exif_imagemagick_orientation.png")[::-1, ::-1] - avif).mean() < 3


@needs_corpus
def test_colour_spaces_and_depths() -> None:
    hopper, grey = nasty("hopper.jpg"), nasty("hopper_gray.jpg")
    assert np.abs(nasty("hopper.Lab.tif") - hopper).mean() < 3
    assert np.abs(nasty("hopper_16bit.pgm") - grey).mean() < 1
    assert (nasty("lab.tif") >= 253).all()
    cmyk = nasty("pil_sample_cmyk.jpg")  # Adobe-inverted: red in the first corner, black in the last
    assert cmyk[0, 0, 0] > 220
    assert cmyk[0, 0, 1:].max() < 60
    assert cmyk[-1, -1].max() < 30
    assert nasty("16bit.cropped.tif").max() == round(694 / 257)
    assert set(np.unique(nasty("hopper_1bit.pbm"))) == {0, 255}
    assert nasty("10ct_32bit_128.tiff").min() == 0
    assert nasty("10ct_32bit_128.tiff").max() == 255


@needs_corpus
def test_transparency_lies_over_white() -> None:
    for name in ("1_trns.png", "l_trns.png", "i_trns.png", "p_trns_single.png", "rgb_trns.png"):
        assert (nasty(name)[32, 32] == 255).all(), name
    for name in ("pil123rgba.png", "pil123p.png"):
        assert (nasty(name)[0, 0] == 255).all(), name
    assert np.abs(nasty("pil123rgba.png") - nasty("pil123p.png")).mean() < 8
    assert (nasty("rgba.psd")[50, 50] == (255, 0, 0)).all()
    assert (nasty("rgba.psd")[0, 0] == 255).all()


@needs_corpus
def test_animations_give_their_first_frame() -> None:
    assert (nasty("dispose_bgnd.gif")[50, 50] == (30, 144, 255)).all()
    assert (nasty("apng_split_fdat.png")[0, 0] == (255, 0, 0)).all()
    assert nasty("iss634.gif").shape == (245, 245, 3)
    assert np.abs(nasty("sugarshack.mpo") - nasty("sugarshack_bad_mpo_header.jpg")).mean() < 1


@pytest.mark.parametrize("suffix", ["png", "webp", "jpg", "tif", "avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_in_every_container(tmp_path: Path, suffix: str, orientation: int) -> None:
    upright = gradient()
    forward = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # PIL.Image.Transpose that undoes the reader's
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(forward[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{suffix}"
    options = {} if suffix in ("png", "tif") else {"quality": 95}
    stored.save(path, exif=exif, **options)
    found = pixels(path)
    assert found.shape == (24, 40, 3)
    assert np.abs(found - np.asarray(upright).astype(int)).mean() < 4


def test_broken_exif_leaves_the_picture(tmp_path: Path) -> None:
    for bad in (b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x09"):
        path = tmp_path / "bad.jpg"
        gradient().save(path, exif=bad, quality=95)
        assert pixels(path).shape == (24, 40, 3)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I;16", "I", "F", "LAB"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    grey = np.linspace(0, 255, 256, dtype=np.uint8).reshape(16, 16)
    image = Image.fromarray(grey)
    if mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    elif mode == "I":
        image = Image.fromarray(grey.astype(np.int32) * 257)
    elif mode == "F":
        image = Image.fromarray(grey.astype(np.float32) / 255)
    elif mode == "LAB":
        image = Image.merge("LAB", [image, *[Image.new("L", image.size, 128)] * 2])
    elif mode == "1":
        image = image.convert("1", dither=Image.Dither.NONE)
    elif mode != "P":
        image = image.convert("RGB").convert(mode)
    else:
        image = image.convert("P")
    found = pixels(image)
    wanted = np.repeat(grey[:, :, None], 3, axis=2).astype(int)
    if mode == "1":
        wanted = np.where(wanted > 127, 255, 0)
    if mode == "LAB":
        assert (np.diff(found[:, :, 0].ravel()) >= 0).all()
        assert np.ptp(found, axis=2).max() <= 2
        return
    assert np.abs(found - wanted).max() <= (1 if mode in ("YCbCr", "CMYK", "HSV") else 0)


def test_wide_values_use_the_range_that_holds_them() -> None:
    assert pixels(Image.fromarray(np.array([[0, 70000]], np.int32))).max() == 255
    assert pixels(Image.fromarray(np.array([[0, 514]], np.int32)))[0, 1, 0] == 2
    assert pixels(Image.fromarray(np.array([[-1.0, 0.0, 3.0]], np.float32)))[0, :, 0].tolist() == [0, 64, 255]
    assert pixels(Image.fromarray(np.array([[0.0, 200.0]], np.float32)))[0, 1, 0] == 200
    assert pixels(Image.fromarray(np.array([[np.nan, np.inf, 1.0]], np.float32)))[0, :, 0].tolist() == [0, 0, 255]
    assert pixels(Image.fromarray(np.full((2, 2), -7.0, np.float32))).max() == 0


def test_alpha_over_white() -> None:
    image = Image.new("RGBA", (3, 1), (200, 0, 0, 255))
    image.putpixel((1, 0), (200, 0, 0, 0))
    image.putpixel((2, 0), (200, 0, 0, 128))
    assert pixels(image)[0].tolist() == [[200, 0, 0], [255, 255, 255], [227, 127, 127]]


def test_arrays() -> None:
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (5, 7, 3), np.uint8)
    assert (pixels(rgb) == rgb).all()
    assert (pixels(rgb[::-1, ::2]) == rgb[::-1, ::2]).all()
    assert (pixels(rgb[:, :, 0]) == rgb[:, :, :1]).all()
    assert (pixels(rgb[:, :, :1]) == rgb[:, :, :1]).all()
    alpha = np.zeros((5, 7, 1), np.uint8)
    assert (pixels(np.concatenate([rgb, alpha], axis=2)) == 255).all()
    for bad in (rgb.astype(np.float32), rgb[:, :, :2], rgb[None], rgb[0, 0], rgb > 3):
        assert code(bad) == "GBP405"
    assert code(rgb[:0]) == "GBP404"
    assert code(42) == "GBP405"
    assert code(None) == "GBP405"


def test_a_pil_image_is_not_changed_and_keeps_its_frame(tmp_path: Path) -> None:
    path = tmp_path / "two.gif"
    Image.new("RGB", (4, 4), "red").save(path, save_all=True, append_images=[Image.new("RGB", (4, 4), "blue")])
    assert pixels(path)[0, 0].tolist() == [255, 0, 0]
    with Image.open(path) as image:
        image.seek(1)
        assert pixels(image)[0, 0].tolist() == [0, 0, 255]
        assert image.tell() == 1


def test_what_is_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, empty, cut = tmp_path / "text.jpg", tmp_path / "empty.png", tmp_path / "cut.png"
    text.write_text("no picture at all")
    empty.write_bytes(b"")
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(buffer, "PNG")
    cut.write_bytes(buffer.getvalue()[:5000])
    assert code(text) == "GBP402"
    assert code(empty) == "GBP402"
    assert code(cut) == "GBP403"
    assert code(tmp_path / "missing.png") == "GBP401"
    assert code(tmp_path) == "GBP401"
    assert code("a\0b") == "GBP401"
    script = tmp_path / "program.eps"
    gradient().save(script, "EPS")
    assert code(script) == "GBP402"


def test_bombs_are_refused_without_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.png"
    Image.new("L", (50, 30)).save(path)
    for limit in (1499, 700):  # Pillow warns above the limit and raises above twice the limit
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert code(path) == "GBP404"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1500)
    assert read_photo(path).size == (50, 30)


def test_a_png_of_the_16_bit_kind(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    Image.fromarray(np.array([[0, 257 * 100, 65535]], np.uint16)).save(path)
    assert pixels(path)[0, :, 0].tolist() == [0, 100, 255]


def test_threads_read_at_once_and_leave_the_filters_alone(tmp_path: Path) -> None:
    path = tmp_path / "bad.jpg"
    gradient().save(path, exif=b"Exif\0\0II*\0\xff\xff\xff\xff", quality=95)
    before, failures = list(warnings.filters), []

    def work() -> None:
        try:
            for _ in range(20):
                read_photo(path)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert list(warnings.filters) == before
    with pytest.raises(UserWarning):
        warnings.warn("mine", UserWarning, stacklevel=1)
