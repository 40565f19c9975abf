"""Reading picture files, against Pillow, tifffile and a PNG reader of our own."""

from __future__ import annotations

import contextlib
import io
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
    claiming,
    encoded,
    exif_block,
    expected_pixels,
    png_of_chunks,
    samples,
    write_png,
    write_tiff,
)

pytest.importorskip("pyvips")
from fdat_dense_iso.picture.formats import Picture, PictureError
from fdat_dense_iso.picture.read import read_picture
from fdat_dense_iso.picture.write import write_picture


@pytest.fixture
def read_bytes(tmp_path: Path) -> Callable[[bytes], Picture]:
    """Reads what a file of these bytes holds."""

    def read(data: bytes) -> Picture:
        path = tmp_path / "bytes"
        path.write_bytes(data)
        return read_picture(path)

    return read


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
        pytest.param(b"hello, I am no picture", "neither PNG, JPEG, WebP, TIFF nor GIF", id="text"),
        pytest.param(b"<svg/>", "neither PNG, JPEG, WebP, TIFF nor GIF", id="svg"),
        pytest.param(b"\0\0\1\0" + bytes(60), "convert it to one of these", id="icon"),
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
            encoded(Image.new("RGB", (4, 4)).convert("LAB"), "TIFF"), "holds Lab colours", id="Lab"
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
