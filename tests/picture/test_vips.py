"""Reading and writing picture files, against Pillow, tifffile and a PNG reader of our own.

More than 400 lines, because every format is read and written by the same few helpers.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from tests.helpers.picture_cases import (
    CHANNELS,
    claiming,
    encoded,
    exif_block,
    expected_pixels,
    png_of_chunks,
    read_picture_file,
    samples,
    write_picture_file,
    write_png,
    write_tiff,
)

pytest.importorskip("pyvips")
from fdat_dense_iso.picture.vips import (
    Metadata,
    Picture,
    PictureError,
    check_writable,
    format_of_name,
    read_picture,
    write_picture,
)

DEEP = [
    (suffix, kind, bits) for suffix in (".png", ".tif") for kind in CHANNELS for bits in (8, 16)
]
SHALLOW = [(".webp", "rgb", 8), (".webp", "rgba", 8)]


def picture_of(pixels: np.ndarray, bits: int = 8, grey: bool = False) -> Picture:
    """A picture without metadata."""
    return Picture(pixels=pixels, bits=bits, grey=grey, metadata=Metadata())


@pytest.fixture
def read_bytes(tmp_path: Path) -> Callable[[bytes], Picture]:
    """Reads what a file of these bytes holds."""

    def read(data: bytes) -> Picture:
        path = tmp_path / "bytes"
        path.write_bytes(data)
        return read_picture(path)

    return read


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
    monkeypatch.setattr("fdat_dense_iso.picture.vips._BAND_SAMPLES", 7 * 17 * 4)
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


# what files can hold besides


def as_palette(image: Image.Image) -> Image.Image:
    return image.quantize(16)


@pytest.mark.parametrize(
    ("kind", "options", "convert", "mode"),
    [
        ("PNG", {}, as_palette, "RGB"),
        ("PNG", {"transparency": 3}, as_palette, "RGBA"),
        ("PNG", {"bits": 2}, lambda image: image.quantize(4), "RGB"),
        ("PNG", {}, lambda image: image.convert("1"), "L"),
        ("PNG", {"transparency": (9, 9, 9)}, lambda image: image, "RGBA"),
        ("TIFF", {}, as_palette, "RGB"),
        ("TIFF", {}, lambda image: image.convert("1"), "L"),
        ("TIFF", {"compression": "group4"}, lambda image: image.convert("1"), "L"),
        ("TIFF", {"compression": "tiff_lzw"}, lambda image: image, "RGB"),
        ("WEBP", {"lossless": True}, lambda image: image.convert("L"), "RGB"),
    ],
    ids=lambda value: str(value) if isinstance(value, str | dict) else "",
)
def test_other_encodings_are_read_as_pillow_shows_them(read_bytes, kind, options, convert, mode):
    image = convert(Image.fromarray(samples(3, 8)))
    data = encoded(image, kind, **options)
    shown = np.asarray(Image.open(io.BytesIO(data)).convert(mode))
    picture = read_bytes(data)
    assert picture.grey == (mode == "L")
    np.testing.assert_array_equal(
        picture.pixels, expected_pixels(shown.reshape(*shown.shape[:2], -1))
    )


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_png_of_few_bits_is_spread_over_the_range(read_bytes, bits: int):
    levels = np.arange(8) % 2**bits
    packed = np.packbits(
        ((levels[:, None] >> np.arange(bits)[::-1]) & 1).astype(np.uint8)
    ).tobytes()
    header = struct.pack(">IIBBBBB", 8, 1, bits, 0, 0, 0, 0)
    picture = read_bytes(
        png_of_chunks({b"IHDR": header, b"IDAT": zlib.compress(b"\0" + packed), b"IEND": b""})
    )
    np.testing.assert_allclose(picture.pixels[0, :, 0], levels / (2**bits - 1), atol=1e-6)
    assert picture.grey


@pytest.mark.parametrize("bits", [8, 16])
def test_tiff_layouts(tmp_path: Path, bits: int):
    values = samples(3, bits, height=40, width=50)
    for number, options in enumerate(
        [{"byteorder": ">"}, {"bigtiff": True}, {"planarconfig": "separate"}, {"tile": (16, 16)}]
    ):
        path = tmp_path / f"{number}.tif"
        if "planarconfig" in options:
            tifffile.imwrite(
                path, values.transpose(2, 0, 1), photometric="rgb", metadata=None, **options
            )
        else:
            write_tiff(path, values, **options)
        np.testing.assert_array_equal(read_picture(path).pixels, expected_pixels(values))


def test_tiff_with_white_as_zero(tmp_path: Path):
    values = samples(1, 8)
    write_tiff(tmp_path / "x.tif", 255 - values, photometric="miniswhite")
    np.testing.assert_array_equal(read_picture(tmp_path / "x.tif").pixels, expected_pixels(values))


@pytest.mark.parametrize("bits", [8, 16])
def test_premultiplied_tiff(tmp_path: Path, bits: int):
    """Associated alpha is undone: colour comes back up to the rounding of what was stored."""
    largest = 2**bits - 1
    values = samples(4, bits)
    alpha = values[:, :, 3:].astype(np.float64) / largest
    stored = np.concatenate(
        [np.round(values[:, :, :3] * alpha).astype(values.dtype), values[:, :, 3:]], axis=2
    )
    write_tiff(tmp_path / "x.tif", stored, extrasamples=["assocalpha"])
    pixels = read_picture(tmp_path / "x.tif").pixels
    visible = alpha[:, :, 0] > 0.1
    assert (
        np.abs(pixels[visible] * largest - values[visible]).max() <= 11
    )  # half a level / 0.1, then rounded
    np.testing.assert_array_equal(pixels[:, :, 3], expected_pixels(values)[:, :, 3])


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_becomes_srgb(read_bytes, kind: str, caplog: pytest.LogCaptureFixture):
    inks = {
        "none": (0, 0, 0, 0),
        "all": (255, 255, 255, 255),
        "cyan": (255, 0, 0, 0),
        "red": (0, 255, 255, 0),
    }
    values = np.repeat(np.array(list(inks.values()), np.uint8), 16, axis=0)[None].repeat(16, axis=0)
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    picture = read_bytes(encoded(Image.fromarray(values, "CMYK"), kind, **options))
    none, full, cyan, red = picture.pixels[8, 8::16]
    assert none.min() > 0.97 and full.max() < 0.15
    assert cyan[0] < 0.35 and cyan[2] > 0.8
    assert red[0] > 0.8 and red[1:].max() < 0.35
    profile = ImageCms.ImageCmsProfile(io.BytesIO(picture.metadata.profile or b""))
    assert "sRGB" in ImageCms.getProfileDescription(profile)
    assert "CMYK is converted to sRGB" in caplog.text


def test_first_page_of_many_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    pages = [samples(3, 8, seed=seed) for seed in range(3)]
    first, *others = [Image.fromarray(page) for page in pages]
    for name in ("x.tif", "x.webp"):
        options = {"lossless": True} if name.endswith("webp") else {}
        first.save(tmp_path / name, save_all=True, append_images=others, **options)
        caplog.clear()
        picture = read_picture(tmp_path / name)
        np.testing.assert_array_equal(picture.pixels[:, :, :3], expected_pixels(pages[0]))
        assert (picture.pixels[:, :, 3:] == 1).all()  # animated WebP has alpha
        assert f"{name}: the first of its 3 pages is upscaled" in caplog.text
        write_picture(picture, tmp_path / f"written-{name}")
        assert getattr(Image.open(tmp_path / f"written-{name}"), "n_frames", 1) == 1


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
        ("x.jpg", 65_535, True),
        ("x.jpg", 65_536, False),
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


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.PNG", "PNG"),
        ("a.b.jpeg", "JPEG"),
        ("a.JPG", "JPEG"),
        ("a.webp", "WebP"),
        ("a.TIFF", "TIFF"),
        ("png", None),
        ("a.gif", None),
        ("a.png.txt", None),
    ],
)
def test_format_of_name(name: str, expected: str | None):
    found = format_of_name(Path(name))
    assert (found.name if found else None) == expected


# bad files


def whole(kind: str) -> bytes:
    return encoded(
        Image.fromarray(samples(3, 8, height=64, width=64)),
        kind,
        **({"lossless": True} if kind == "WEBP" else {}),
    )


def cut(data: bytes, part: float) -> bytes:
    return data[: int(len(data) * part)]


def tiff_of(dtype: type, channels: int = 3) -> bytes:
    buffer = io.BytesIO()
    extra = ["unspecified"] * (channels - 3) or None
    tifffile.imwrite(
        buffer, np.zeros((8, 8, channels), dtype), photometric="rgb", extrasamples=extra
    )
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"", "the file is empty", id="empty"),
        pytest.param(b"hello, I am no picture", "neither PNG, JPEG, WebP nor TIFF", id="text"),
        pytest.param(b"<svg/>", "neither PNG, JPEG, WebP nor TIFF", id="svg"),
        pytest.param(
            encoded(Image.new("RGB", (4, 4)), "GIF"), "convert it to one of these", id="gif"
        ),
        *(
            pytest.param(cut(whole(kind), part), "broken or cut off", id=f"{kind} {part}")
            for kind in ("PNG", "JPEG", "WEBP", "TIFF")
            for part in (0.01, 0.5, 0.95)
        ),
        pytest.param(whole("PNG")[:12], "broken or cut off", id="PNG start"),
        pytest.param(whole("WEBP")[:12], "broken or cut off", id="WebP start"),
        pytest.param(claiming(0, 5), "broken or cut off", id="no width"),
        pytest.param(
            claiming(100_000, 100_000), "100000x100000 pixels; the limit is 200 million", id="bomb"
        ),
        pytest.param(claiming(2**31 - 1, 2**31 - 1), "broken or cut off", id="impossible size"),
        pytest.param(tiff_of(np.float32), "float samples; supported are 8 and 16 bit", id="float"),
        pytest.param(tiff_of(np.int16), "short samples", id="signed"),
        pytest.param(tiff_of(np.uint8, 5), "5 channels where 3 or 4", id="5 channels"),
        pytest.param(
            encoded(Image.new("RGB", (4, 4)).convert("LAB"), "TIFF"), "TIFF|lab", id="Lab"
        ),
    ],
)
def test_bad_files_are_named_for_what_they_are(read_bytes, data: bytes, message: str):
    with pytest.raises(PictureError, match=message) as raised:
        read_bytes(data)
    assert "\n" not in str(raised.value)


def test_limit_of_pixels(tmp_path: Path):
    write_png(tmp_path / "x.png", samples(1, 8, height=10, width=10))
    read_picture(tmp_path / "x.png", max_pixels=100)
    with pytest.raises(PictureError, match=r"10x10 pixels; the limit is 9\.9e-05 million"):
        read_picture(tmp_path / "x.png", max_pixels=99)


def test_missing_and_folder(tmp_path: Path):
    for path in (tmp_path / "none.png", tmp_path):
        with pytest.raises(OSError):
            read_picture(path)


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root reads everything")
def test_unreadable(tmp_path: Path):
    write_png(tmp_path / "x.png", samples(1, 8))
    (tmp_path / "x.png").chmod(0)
    with pytest.raises(PermissionError):
        read_picture(tmp_path / "x.png")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_damaged_bytes_raise_nothing_else(read_bytes, kind: str):
    random = np.random.default_rng(1)
    data = encoded(
        Image.fromarray(samples(3, 8)),
        kind,
        exif=exif_block() if kind == "TIFF" else exif_block().tobytes(),
    )
    read = 0
    for _ in range(60):
        damaged = bytearray(data)
        for at in random.integers(8, len(data), 4):
            damaged[at] = random.integers(256)
        with contextlib.suppress(PictureError):
            read += read_bytes(bytes(damaged)).pixels.size > 0
    assert read < 60


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
    monkeypatch.setattr("fdat_dense_iso.picture.vips.os.replace", fail)
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
    with caplog.at_level(logging.WARNING, logger="fdat_dense_iso.picture.vips"):
        write_picture(picture_of(np.zeros((2, 2, 4), np.float32)), tmp_path / "x.jpg")
    assert [record.name for record in caplog.records] == ["fdat_dense_iso.picture.vips"]
