"""Colour that stands beside ICC profiles: kept in PNG, elsewhere a profile that LittleCMS (through
Pillow) reads as what the file meant; closed forms of the curves."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.helpers.picture_cases import ICC, samples, write_png, write_tiff

pytest.importorskip("pyvips")
from fdat_dense_iso.picture.colour import StatedColour
from fdat_dense_iso.picture.container import png_chunk, png_chunks
from fdat_dense_iso.picture.profile import D65, SRGB_PRIMARIES, grey_profile, matrix_profile
from fdat_dense_iso.picture.read import read_picture
from fdat_dense_iso.picture.write import write_picture

ADOBE = (0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
BT2020 = (0.708, 0.292, 0.17, 0.797, 0.131, 0.046)


def chromaticities(white: tuple[float, float], primaries: tuple[float, ...]) -> bytes:
    return struct.pack(">8I", *(round(value * 1e5) for value in (*white, *primaries)))


ADOBE_CHUNKS = {b"gAMA": struct.pack(">I", 45475), b"cHRM": chromaticities(D65, ADOBE)}
PQ_CHUNKS = {
    b"cICP": bytes([9, 16, 0, 1]),
    b"mDCV": bytes(24),
    b"cLLI": struct.pack(">II", 10_000_000, 4_000_000),
}


def xyz_to_srgb(linear: np.ndarray, primaries: tuple[float, ...]) -> np.ndarray:
    """Linear light of these primaries and D65 as sRGB codes in [0, 1], by the definitions."""

    def to_xyz(points: tuple[float, ...]) -> np.ndarray:
        columns = [(x / y, 1, (1 - x - y) / y) for x, y in zip(points[::2], points[1::2])]
        matrix = np.array(columns).T
        white = np.array([D65[0] / D65[1], 1, (1 - D65[0] - D65[1]) / D65[1]])
        return matrix * np.linalg.solve(matrix, white)

    light = linear @ (np.linalg.inv(to_xyz(SRGB_PRIMARIES)) @ to_xyz(primaries)).T
    light = light.clip(0, 1)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def shown(path: Path) -> np.ndarray:
    """What a colour-managed program shows: (H, W, 3) in [0, 255], by LittleCMS."""
    image = Image.open(path)
    profile = image.info.get("icc_profile")
    if profile is None:
        return np.asarray(image.convert("RGB")).astype(float)
    converted = ImageCms.profileToProfile(
        image, io.BytesIO(profile), ImageCms.createProfile("sRGB"), 1, "RGB"
    )
    return np.asarray(converted).astype(float)


def chunks_of(path: Path) -> dict[bytes, bytes]:
    return dict(png_chunks(path.read_bytes()))


@pytest.mark.parametrize("chunks", [ADOBE_CHUNKS, PQ_CHUNKS, {b"sRGB": b"\1"}], ids=str)
def test_png_keeps_its_chunks(
    tmp_path: Path, chunks: dict[bytes, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    write_png(tmp_path / "x.png", samples(3, 16), chunks)
    write_picture(read_picture(tmp_path / "x.png"), tmp_path / "y.png")
    found = chunks_of(tmp_path / "y.png")
    assert {kind: found.get(kind) for kind in chunks} == chunks
    assert b"iCCP" not in found and caplog.records == []


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".tif"])
def test_gamma_and_primaries_become_a_profile(
    tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Colours within sRGB, as Adobe RGB: LittleCMS shows what the definitions say."""
    codes = np.array([[[120, 150, 90], [200, 190, 180], [60, 70, 80]]], np.uint8)
    large = codes.repeat(16, 0).repeat(16, 1)
    write_png(tmp_path / "x.png", large, ADOBE_CHUNKS)
    write_picture(
        read_picture(tmp_path / "x.png"),
        tmp_path / f"x{suffix}",
        quality=100 if suffix == ".jpg" else None,
    )
    expected = 255 * xyz_to_srgb((codes[0] / 255) ** (1 / 0.45475), ADOBE)
    found = shown(tmp_path / f"x{suffix}")[8, 8::16]
    assert np.abs(found - expected).max() <= (3 if suffix == ".jpg" else 1.01)
    assert np.abs(codes[0] - expected).max() > 5
    assert caplog.records == []


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".tif"])
def test_gamma_of_a_grey_picture(tmp_path: Path, suffix: str) -> None:
    write_png(
        tmp_path / "x.png",
        np.full((16, 16, 1), 98, np.uint8),
        {b"gAMA": struct.pack(">I", 100_000)},
    )
    write_picture(read_picture(tmp_path / "x.png"), tmp_path / f"x{suffix}")
    expected = 255 * xyz_to_srgb(np.full(3, 98 / 255), SRGB_PRIMARIES)[0]
    assert np.abs(shown(tmp_path / f"x{suffix}") - expected).max() <= 1.5
    assert expected > 160


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_hdr_becomes_a_profile_and_the_rest_is_named(
    tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    write_png(tmp_path / "x.png", samples(3, 8), PQ_CHUNKS)
    write_picture(read_picture(tmp_path / "x.png"), tmp_path / f"x{suffix}")
    (line,) = [record.getMessage() for record in caplog.records]
    for word in ("not kept", "PQ", "mDCV", "cLLI"):
        assert word in line
    profile = Image.open(tmp_path / f"x{suffix}").info["icc_profile"]
    assert b"cicp" + bytes(4) + bytes([9, 16, 0, 1]) in profile
    name = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile)))
    assert name.strip() == "H.273 9/16"


@pytest.mark.parametrize(
    ("transfer", "code", "light"),
    [
        (16, 0.5081, 0.01),  # ST 2084: 100 candela per square metre of 10,000
        (18, 0.5, 1 / 12),  # BT.2100: half the signal
        (1, 0.5, ((0.5 + 0.099) / 1.099) ** (1 / 0.45)),
        (8, 0.25, 0.25),
        (4, 0.5, 0.5**2.2),
    ],
)
def test_curves_of_cicp(transfer: int, code: float, light: float) -> None:
    stated = StatedColour({b"cICP": bytes([9, transfer, 0, 1])})
    profile, _ = stated.as_profile(None, grey=False)
    assert profile is not None
    at = profile.index(b"para" if transfer in (4, 8) else b"curv")
    if transfer in (4, 8):
        found = code ** (struct.unpack(">i", profile[at + 12 : at + 16])[0] / 65536)
    else:
        (count,) = struct.unpack(">I", profile[at + 8 : at + 12])
        table = np.frombuffer(profile, ">u2", count, at + 12) / 65535
        found = np.interp(code, np.linspace(0, 1, count), table)
    assert found == pytest.approx(light, abs=2e-4)


def test_cicp_without_a_profile_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_png(tmp_path / "x.png", samples(3, 8), {b"cICP": bytes([9, 16, 0, 0])})
    write_picture(read_picture(tmp_path / "x.png"), tmp_path / "x.webp")
    assert "its cICP chunk (9/16/0/0), for which there is no ICC profile" in caplog.text
    assert "icc_profile" not in Image.open(tmp_path / "x.webp").info


def test_the_icc_profile_precedes_gamma(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image = Image.fromarray(samples(3, 8))
    image.save(tmp_path / "x.png", icc_profile=ICC)
    data = (tmp_path / "x.png").read_bytes()
    gamma = struct.pack(">I", 100_000)
    (tmp_path / "x.png").write_bytes(data[:33] + png_chunk(b"gAMA", gamma) + data[33:])
    write_picture(read_picture(tmp_path / "x.png"), tmp_path / "x.webp")
    assert Image.open(tmp_path / "x.webp").info["icc_profile"] == ICC
    assert caplog.records == []


@pytest.mark.parametrize("alpha", [False, True])
def test_a_grey_profile_is_applied_for_webp(tmp_path: Path, alpha: bool) -> None:
    """Code 98 of linear light means 167 of sRGB; WebP has no grey, so nothing that fits the
    profile."""
    profile = grey_profile(1.0, "linear")
    values = np.full((16, 16, 2 if alpha else 1), 98, np.uint8)
    Image.fromarray(values if alpha else values[..., 0], "LA" if alpha else "L").save(
        tmp_path / "x.png", icc_profile=profile
    )
    picture = read_picture(tmp_path / "x.png")
    assert picture.metadata.profile == profile
    write_picture(picture, tmp_path / "x.webp")
    written = Image.open(tmp_path / "x.webp")
    assert "icc_profile" not in written.info
    found = np.asarray(written)
    assert (found[..., :3] == 167).all() and (not alpha or (found[..., 3] == 98).all())
    write_picture(picture, tmp_path / "x.tif")
    assert Image.open(tmp_path / "x.tif").info["icc_profile"] == profile


def test_a_profile_for_rgb_on_a_grey_picture(tmp_path: Path) -> None:
    """PNG forbids it: the picture becomes sRGB. WebP has no grey, so that it fits there."""
    profile = matrix_profile(D65, SRGB_PRIMARIES, 1.0, "linear")
    write_tiff(tmp_path / "x.tif", np.full((16, 16, 1), 98, np.uint8), iccprofile=profile)
    picture = read_picture(tmp_path / "x.tif")
    write_picture(picture, tmp_path / "x.png")
    written = Image.open(tmp_path / "x.png")
    assert written.mode == "L" and (np.asarray(written) == 167).all()
    assert "icc_profile" not in written.info
    write_picture(picture, tmp_path / "x.webp")
    assert Image.open(tmp_path / "x.webp").info["icc_profile"] == profile


def test_gif_takes_no_profile(tmp_path: Path) -> None:
    write_png(
        tmp_path / "x.png",
        np.full((16, 16, 3), 98, np.uint8),
        {b"gAMA": struct.pack(">I", 100_000)},
    )
    write_picture(read_picture(tmp_path / "x.png"), tmp_path / "x.gif")
    assert (np.asarray(Image.open(tmp_path / "x.gif").convert("RGB")) == 167).all()


def test_a_profile_of_other_colours_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lab = ICC[:16] + b"Lab " + ICC[20:]
    write_tiff(tmp_path / "x.tif", samples(3, 8), iccprofile=lab)
    write_picture(read_picture(tmp_path / "x.tif"), tmp_path / "x.jpg")
    assert "its ICC profile is for Lab and does not fit" in caplog.text
    assert "icc_profile" not in Image.open(tmp_path / "x.jpg").info


def test_transfer_function_and_primaries_of_tiff(tmp_path: Path) -> None:
    codes = np.array([[[120, 150, 90], [200, 190, 180], [60, 70, 80]]], np.uint8)
    table = np.rint(65535 * (np.arange(256) / 255) ** 1.8).astype(int).tolist()
    white = [3127, 10000, 3290, 10000]
    primaries = [number for value in ADOBE for number in (round(value * 1000), 1000)]
    tags = [(301, 3, 768, table * 3, True), (318, 5, 2, white, True), (319, 5, 6, primaries, True)]
    write_tiff(tmp_path / "x.tif", codes, extratags=tags)
    write_picture(read_picture(tmp_path / "x.tif"), tmp_path / "x.png")
    expected = 255 * xyz_to_srgb((codes[0] / 255) ** 1.8, ADOBE)
    assert np.abs(shown(tmp_path / "x.png")[0] - expected).max() <= 1.01


def test_primaries_that_are_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number, values in enumerate([(0.3,) * 6, (0.64, 0, 0.3, 0.6, 0.15, 0.06)]):
        chunks = {b"gAMA": ADOBE_CHUNKS[b"gAMA"], b"cHRM": chromaticities(D65, values)}
        write_png(tmp_path / "x.png", samples(3, 8), chunks)
        write_picture(read_picture(tmp_path / "x.png"), tmp_path / f"{number}.jpg")
        assert "not kept: what it says of its colours" in caplog.text
        caplog.clear()


@pytest.mark.parametrize(
    "profile",
    [matrix_profile(D65, SRGB_PRIMARIES, 2.2, "by hand"), grey_profile(2.2, "by hand")],
    ids=["rgb", "grey"],
)
def test_made_profiles_say_what_they_are(profile: bytes) -> None:
    read = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    assert ImageCms.getProfileDescription(read).strip() == "by hand"
