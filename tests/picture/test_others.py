"""Pictures that are read and not written, made by Pillow and libvips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import pyvips
from PIL import Image

pytest.importorskip("av")
from fdat_dense_iso.picture.files import plan_jobs
from fdat_dense_iso.picture.formats import PictureError
from fdat_dense_iso.picture.read import read_picture
from tests.helpers.picture_cases import ICC, samples


@pytest.mark.parametrize("name", ["a.bmp", "a.ppm", "a.pgm", "palette.bmp"])
def test_exact_pixels(tmp_path: Path, name: str) -> None:
    grey = name.endswith(".pgm")
    values = samples(1 if grey else 3, 8)
    picture = Image.fromarray(values.squeeze())
    if name == "palette.bmp":
        picture = picture.quantize(16)
        values = np.asarray(picture.convert("RGB"))
    picture.save(tmp_path / name)
    read = read_picture(tmp_path / name)
    assert (read.bits, read.grey) == (8, grey)
    np.testing.assert_array_equal(np.rint(read.pixels * 255), values.reshape(*values.shape[:2], -1))


@pytest.mark.skipif(not pyvips.type_find("VipsForeignSave", "heifsave_buffer"), reason="no AVIF")
def test_avif(tmp_path: Path) -> None:
    """With its profile; its pixels are those that Pillow decodes."""
    values = samples(3, 8).repeat(8, 0).repeat(8, 1)
    image = pyvips.Image.new_from_array(values)
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", ICC)
    try:
        image.heifsave(str(tmp_path / "a.avif"), compression="av1", Q=90, keep="icc")
    except pyvips.Error:
        pytest.skip("this libvips has no encoder of AV1")
    read = read_picture(tmp_path / "a.avif")
    assert read.pixels.shape == values.shape
    assert read.metadata.profile == ICC
    expected = np.asarray(Image.open(tmp_path / "a.avif").convert("RGB"))
    assert np.abs(read.pixels * 255 - expected).max() <= 2


def test_too_many_pixels_and_broken_ones(tmp_path: Path) -> None:
    Image.fromarray(samples(3, 8)).save(tmp_path / "a.bmp")
    with pytest.raises(PictureError, match="it claims 17x13 pixels; the limit is"):
        read_picture(tmp_path / "a.bmp", max_pixels=100)
    (tmp_path / "b.bmp").write_bytes(b"BM" + bytes(60))
    (tmp_path / "c.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(60))
    for name in ("b.bmp", "c.heic"):
        with pytest.raises(PictureError):
            read_picture(tmp_path / name)


def test_results_in_a_folder_are_png(tmp_path: Path) -> None:
    for name in ("a.bmp", "b.avif", "c.heic"):
        (tmp_path / name).touch()
    jobs = plan_jobs([str(tmp_path)], "new")
    assert [job.target.as_posix() for job in jobs] == ["new/a.png", "new/b.png", "new/c.png"]
