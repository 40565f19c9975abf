"""Samples of TIFF pictures that are not what they seem to be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fdat_dense_iso.picture.formats import PictureError
from fdat_dense_iso.picture.large.spool import read_header
from fdat_dense_iso.picture.read import read_picture
from tests.helpers.picture_cases import samples


def test_y_cb_cr_that_nothing_decodes_is_refused(tmp_path: Path) -> None:
    """Its samples would be taken for red, green and blue. In JPEG they are decoded."""
    picture = Image.fromarray(samples(3, 8))
    picture.convert("YCbCr").save(tmp_path / "raw.tif")
    with pytest.raises(PictureError, match="it holds Y'CbCr colours"):
        read_picture(tmp_path / "raw.tif")
    with pytest.raises(PictureError, match="it holds Y'CbCr colours"):
        read_header(tmp_path / "raw.tif")
    picture.save(tmp_path / "jpeg.tif", compression="jpeg", quality=100)
    expected = np.asarray(Image.open(tmp_path / "jpeg.tif").convert("RGB"))
    assert np.abs(read_picture(tmp_path / "jpeg.tif").pixels * 255 - expected).max() <= 2
