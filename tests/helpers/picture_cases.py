"""Picture files for the tests of picture.py and cli.py, made and read without libvips."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image, ImageCms

CHANNELS = {"grey": 1, "grey-alpha": 2, "rgb": 3, "rgba": 4}
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = (
    b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'>"
    b"<rdf:Description xmlns:tiff='http://ns.adobe.com/tiff/1.0/' tiff:Orientation=\"6\" rdf:about=''/>"
    b"</rdf:RDF></x:xmpmeta>"
)


def samples(
    channels: int, bits: int, height: int = 13, width: int = 17, seed: int = 0
) -> np.ndarray:
    """(H, W, C) random integers with the extreme values among them; what is invisible is black."""
    dtype = np.uint8 if bits == 8 else np.uint16
    values = np.random.default_rng(seed).integers(
        0, 2**bits, (height, width, channels), dtype=dtype
    )
    values[0, 0], values[0, 1] = 0, 2**bits - 1
    if channels in (2, 4):
        values[values[:, :, -1] == 0] = 0
    return values


def exif_block(orientation: int = 1) -> Image.Exif:
    """Entries of every directory and several types, 300 dpi, a picture of 17x13."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = b"S\xf6hne"  # in Latin-1, as some cameras write
    exif[0x011A] = exif[0x011B] = 300.0
    exif[0x0128] = 2
    exif[0x8298] = "(c) somebody"
    photo = exif.get_ifd(0x8769)
    photo[0x9003] = "2020:02:03 04:05:06"
    photo[0x829A] = 0.004
    photo[0xA002], photo[0xA003] = 17, 13
    place = exif.get_ifd(0x8825)
    place[1] = "N"
    place[2] = (52.0, 30.0, 1.5)
    return exif


def write_png(path: Path, values: np.ndarray, chunks: dict[bytes, bytes] | None = None) -> None:
    """A PNG of (H, W, C) uint8 or uint16, rows unfiltered."""
    height, width, channels = values.shape
    header = struct.pack(
        ">IIBBBBB", width, height, 8 * values.itemsize, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0
    )
    rows = values.astype(values.dtype.newbyteorder(">")).reshape(height, -1)
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    path.write_bytes(
        png_of_chunks(
            {b"IHDR": header, **(chunks or {}), b"IDAT": zlib.compress(data), b"IEND": b""}
        )
    )


def png_of_chunks(chunks: dict[bytes, bytes]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks.items()
    )


def read_png(path: Path) -> np.ndarray:
    """(H, W, C) uint8 or uint16 of a PNG that is neither interlaced nor packed."""
    data, chunks, at = path.read_bytes(), {}, 8
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind = data[at + 4 : at + 8]
        chunks[kind] = chunks.get(kind, b"") + data[at + 8 : at + 8 + length]
        at += 12 + length
    width, height, bits, colours, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert bits in (8, 16) and colours in (0, 2, 4, 6) and not interlaced
    channels = {0: 1, 4: 2, 2: 3, 6: 4}[colours]
    step, stride = channels * bits // 8, width * channels * bits // 8
    raw = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, stride + 1)
    above, rows = np.zeros(stride + step, int), []
    for kind, *filtered in raw.tolist():
        row = np.zeros(stride + step, int)
        for i, value in enumerate(filtered, start=step):
            left, up, corner = row[i - step], above[i], above[i - step]
            estimate = left + up - corner
            paeth = min((left, up, corner), key=lambda neighbour: abs(estimate - neighbour))
            row[i] = (value + (0, left, up, (left + up) // 2, paeth)[kind]) % 256
        rows.append(row[step:])
        above = row
    plain = np.array(rows, np.uint8).tobytes()
    return (
        np.frombuffer(plain, f">u{bits // 8}")
        .astype(f"u{bits // 8}")
        .reshape(height, width, channels)
    )


def write_tiff(path: Path, values: np.ndarray, **options) -> None:
    photometric = "rgb" if values.shape[2] >= 3 else "minisblack"
    extra = ["unassalpha"] if values.shape[2] in (2, 4) else None
    plain = values if values.shape[2] > 1 else values[:, :, 0]
    defaults = {"photometric": photometric, "extrasamples": extra, "metadata": None}
    tifffile.imwrite(path, plain, **(defaults | options))


def read_tiff(path: Path) -> np.ndarray:
    values = tifffile.imread(path)
    return values if values.ndim == 3 else values[:, :, None]


def write_picture_file(path: Path, values: np.ndarray, **options) -> None:
    """(H, W, C) integers as the file type that the name stands for: JPEG at best quality, WebP
    lossless."""
    if path.suffix in (".jpg", ".webp"):
        image = Image.fromarray(values if values.shape[2] > 1 else values[:, :, 0])
        best = (
            {"quality": 100, "subsampling": 0}
            if path.suffix == ".jpg"
            else {"lossless": True, "exact": True}
        )
        image.save(path, **best, **options)
    elif path.suffix == ".png":
        write_png(path, values, **options)
    else:
        write_tiff(path, values, **options)


def read_picture_file(path: Path) -> np.ndarray:
    """(H, W, C) integers."""
    if path.suffix in (".jpg", ".webp"):
        values = np.asarray(Image.open(path))
        return values if values.ndim == 3 else values[:, :, None]
    return read_png(path) if path.suffix == ".png" else read_tiff(path)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def expected_pixels(values: np.ndarray) -> np.ndarray:
    """What read_picture makes of the (H, W, C) integers of a file."""
    if values.shape[2] == 2:
        values = values[:, :, [0, 0, 0, 1]]
    return (values / np.iinfo(values.dtype).max).astype(np.float32)


def claiming(width: int, height: int) -> bytes:
    """A PNG that states this size and holds next to nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return png_of_chunks({b"IHDR": header, b"IDAT": zlib.compress(bytes(1000)), b"IEND": b""})
