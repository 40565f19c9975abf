"""Writing picture files, whole or not at all, against Pillow, tifffile and a PNG reader of our own."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.picture_cases import (
    CHANNELS,
    expected_pixels,
    read_picture_file,
    samples,
    write_picture_file,
    write_png,
    write_tiff,
)

pytest.importorskip("pyvips")
from fdat_dense_iso.picture.formats import Metadata, Picture, PictureError
from fdat_dense_iso.picture.read import read_picture
from fdat_dense_iso.picture.write import check_writable, write_picture

DEEP = [
    (suffix, kind, bits) for suffix in (".png", ".tif") for kind in CHANNELS for bits in (8, 16)
]
SHALLOW = [(".webp", "rgb", 8), (".webp", "rgba", 8)]


def picture_of(pixels: np.ndarray, bits: int = 8, grey: bool = False) -> Picture:
    """A picture without metadata."""
    return Picture(pixels=pixels, bits=bits, grey=grey, metadata=Metadata())


# pixels


@pytest.mark.parametrize(("suffix", "kind", "bits"), DEEP + SHALLOW)
def test_pixels_survive_reading_and_writing(tmp_path: Path, suffix: str, kind: str, bits: int):
    values = samples(CHANNELS[kind], bits)
    source, target = tmp_path / f"source{suffix}", tmp_path / f"target{suffix}"
    write_picture_file(source, values)
    picture = read_picture(source)
    assert (picture.bits, picture.grey) == (bits, kind.startswith("grey"))
    assert picture.pixels.dtype == np.float32
    np.testing.assert_array_equal(picture.pixels, expected_pixels(values))
    write_picture(picture, target)
    written = read_picture_file(target)
    assert written.dtype == values.dtype
    np.testing.assert_array_equal(written, values)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_every_value_survives(tmp_path: Path, suffix: str, bits: int):
    side = 2 ** (bits // 2)
    values = np.arange(2**bits).astype(f"u{bits // 8}").reshape(side, side, 1)
    write_tiff(tmp_path / "source.tif", values)
    write_picture(read_picture(tmp_path / "source.tif"), tmp_path / f"target{suffix}")
    np.testing.assert_array_equal(read_picture_file(tmp_path / f"target{suffix}"), values)


@pytest.mark.parametrize(
    ("bits", "suffix"), [(8, ".png"), (8, ".tif"), (8, ".webp"), (16, ".png"), (16, ".tif")]
)
def test_halves_are_rounded_up_and_the_rest_is_clamped(tmp_path: Path, bits: int, suffix: str):
    largest = 2**bits - 1
    levels = np.array(
        [-1e9, -0.2, 0.49, 0.5, 1.5, 100.49, 100.5, largest - 0.51, largest - 0.5, largest + 9]
    )
    pixels = np.repeat((levels / largest).astype(np.float32), 3).reshape(1, -1, 3)
    write_picture(picture_of(pixels, bits), tmp_path / f"x{suffix}")
    found = read_picture_file(tmp_path / f"x{suffix}")[0, :, 0]
    assert found.tolist() == [0, 0, 0, 1, 2, 100, 101, largest - 1, largest, largest]


def test_large_pictures_are_written_in_bands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fdat_dense_iso.picture.write._BAND_SAMPLES", 7 * 17 * 4)
    values = samples(4, 16, height=30)
    write_png(tmp_path / "source.png", values)
    write_picture(read_picture(tmp_path / "source.png"), tmp_path / "target.png")
    np.testing.assert_array_equal(read_picture_file(tmp_path / "target.png"), values)


@pytest.mark.parametrize("kind", ["grey", "rgb"])
def test_jpeg_is_read_and_written_like_pillow_does(tmp_path: Path, kind: str):
    smooth = np.linspace(0, 255, 24 * 32 * CHANNELS[kind]).astype(np.uint8).reshape(24, 32, -1)
    write_picture_file(tmp_path / "source.jpg", smooth)
    picture = read_picture(tmp_path / "source.jpg")
    pillow = read_picture_file(tmp_path / "source.jpg")
    assert np.abs(picture.pixels * 255 - pillow).max() <= 2  # decoders differ by rounding
    write_picture(picture, tmp_path / "target.jpg")
    assert Image.open(tmp_path / "target.jpg").mode == {"grey": "L", "rgb": "RGB"}[kind]
    assert np.abs(read_picture_file(tmp_path / "target.jpg").astype(int) - smooth).max() <= 6


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_quality(tmp_path: Path, suffix: str):
    picture = picture_of(np.random.default_rng(0).random((64, 64, 3), np.float32))
    sizes = []
    for quality in (10, 60, 95, None):
        write_picture(picture, tmp_path / f"{quality}{suffix}", quality=quality)
        sizes.append((tmp_path / f"{quality}{suffix}").stat().st_size)
    assert sizes == sorted(sizes) and len(set(sizes[:3])) == 3
    if suffix == ".jpg":
        assert sizes[3] == sizes[2]


# what a format cannot hold


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_16_bits_in_a_format_of_8(tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture):
    write_picture(picture_of(np.full((8, 8, 3), 0.4, np.float32), bits=16), tmp_path / f"x{suffix}")
    assert np.abs(read_picture_file(tmp_path / f"x{suffix}").astype(int) - 102).max() <= 1
    assert "16 bits were rounded to 8" in caplog.text


@pytest.mark.parametrize("grey", [True, False])
def test_jpeg_lays_transparency_on_white(
    tmp_path: Path, grey: bool, caplog: pytest.LogCaptureFixture
):
    pixels = np.zeros((16, 16, 4), np.float32)
    pixels[..., :3], pixels[..., 3] = 0.2, 0.75
    write_picture(picture_of(pixels, grey=grey), tmp_path / "x.jpg")
    found = read_picture_file(tmp_path / "x.jpg")
    assert found.shape[2] == (1 if grey else 3)
    assert np.abs(found - 255 * (0.2 * 0.75 + 0.25)).max() <= 1.5
    assert "the picture is laid on white" in caplog.text


def test_nothing_is_warned_of_where_nothing_is_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    for suffix, bits in ((".png", 16), (".tif", 16), (".webp", 8)):
        write_picture(
            picture_of(np.ones((4, 4, 4), np.float32), bits=bits), tmp_path / f"x{suffix}"
        )
    assert caplog.records == []


def test_grey_with_alpha_as_webp(tmp_path: Path):
    values = samples(2, 8)
    write_png(tmp_path / "x.png", values)
    write_picture(read_picture(tmp_path / "x.png"), tmp_path / "x.webp")
    np.testing.assert_array_equal(
        read_picture_file(tmp_path / "x.webp"), values[:, :, [0, 0, 0, 1]]
    )


def test_grey_with_alpha_is_written_as_the_mean_of_its_colours(tmp_path: Path):
    pixels = np.array([[[0.1, 0.2, 0.6, 0.5]]], np.float32)
    write_picture(picture_of(pixels, bits=16, grey=True), tmp_path / "x.tif")
    assert read_picture_file(tmp_path / "x.tif")[0, 0].tolist() == [
        19661,
        32768,
    ]  # 0.3 and 0.5 of 65535


@pytest.mark.parametrize(
    ("name", "side", "fits"),
    [
        ("x.webp", 16_383, True),
        ("x.webp", 16_384, False),
        ("x.jpg", 65_500, True),
        ("x.jpg", 65_501, False),
        ("x.png", 200_000, True),
        ("x.tif", 200_000, True),
    ],
)
def test_longest_side(name: str, side: int, fits: bool):
    if fits:
        check_writable(Path(name), width=1, height=side)
    else:
        with pytest.raises(PictureError, match=f"1x{side} pixels .* write PNG or TIFF"):
            check_writable(Path(name), width=1, height=side)


# writing whole or not at all


def test_an_existing_file_is_replaced_only_on_demand(tmp_path: Path):
    path = tmp_path / "x.png"
    path.write_bytes(b"mine")
    picture = picture_of(np.zeros((2, 2, 3), np.float32))
    with pytest.raises(PictureError, match="exists and is not to be replaced"):
        write_picture(picture, path)
    assert path.read_bytes() == b"mine"
    write_picture(picture, path, overwrite=True)
    assert read_picture_file(path).shape == (2, 2, 3)
    assert {entry.name for entry in tmp_path.iterdir()} == {"x.png"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_write_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error
):
    def fail(*_: object) -> None:
        raise error

    picture = picture_of(np.zeros((2, 2, 3), np.float32))
    (tmp_path / "x.png").write_bytes(b"mine")
    monkeypatch.setattr("fdat_dense_iso.common.leftovers.os.replace", fail)
    expected = KeyboardInterrupt if error is KeyboardInterrupt else PictureError
    with pytest.raises(expected):
        write_picture(picture, tmp_path / "x.png", overwrite=True)
    assert (tmp_path / "x.png").read_bytes() == b"mine"
    assert {entry.name for entry in tmp_path.iterdir()} == {"x.png"}


def test_folders_are_made_and_names_may_hold_anything(tmp_path: Path):
    path = tmp_path / "new" / "a[b,c]=ü%20.png"
    write_picture(picture_of(np.zeros((2, 2, 3), np.float32)), path)
    assert read_picture(path).pixels.shape == (2, 2, 3)


def test_a_folder_that_cannot_be_made(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(PictureError, match=r"x\.png cannot be written: "):
        write_picture(picture_of(np.zeros((2, 2, 3), np.float32)), tmp_path / "file" / "x.png")


def test_logger_is_named_after_the_module(caplog: pytest.LogCaptureFixture, tmp_path: Path):
    with caplog.at_level(logging.WARNING, logger="fdat_dense_iso.picture.write"):
        write_picture(picture_of(np.zeros((2, 2, 4), np.float32)), tmp_path / "x.jpg")
    assert [record.name for record in caplog.records] == ["fdat_dense_iso.picture.write"]
