"""Files of pictures that are streamed are those of pictures in memory."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pyvips
import tifffile
from PIL import Image

from fdat_dense_iso.common.lock import InUseError
from fdat_dense_iso.picture.formats import PictureError
from fdat_dense_iso.picture.large.growing import GrowingRows
from fdat_dense_iso.picture.large.job import LargeJob, partial_folder
from fdat_dense_iso.picture.large.spool import read_header
from fdat_dense_iso.picture.read import read_picture
from fdat_dense_iso.picture.write import write_picture
from tests.helpers.paths import ROOT
from tests.helpers.picture_cases import (
    CHANNELS,
    ICC,
    XMP,
    exif_block,
    samples,
    write_png,
)

BAND = 5


class Stopped(Exception):
    """The upscaling ended early."""


def doubling(stop: int | None = None):
    """Repeats every pixel, in bands of five rows; raises before it reads row ``stop``."""
    calls = []

    def upscale(picture, sink, folder: Path, first: int) -> None:
        calls.append(first)
        assert folder.is_dir()
        for top in range(first // 2, picture.height, BAND):
            if stop is not None and top >= stop:
                raise Stopped
            rows = picture.read(top, min(top + BAND, picture.height), 0, picture.width)
            rows = rows.repeat(2, axis=0).repeat(2, axis=1)
            cut = max(first - 2 * top, 0)
            sink(2 * top + cut, rows[cut:])

    upscale.calls = calls
    return upscale


def job(source: Path, target: Path, **options) -> LargeJob:
    header = read_header(source)
    assert header is not None
    return LargeJob(source, target, header, size=(2 * header.height, 2 * header.width), **options)


def in_memory(source: Path, target: Path, **options) -> None:
    picture = read_picture(source)
    pixels = picture.pixels.repeat(2, axis=0).repeat(2, axis=1)
    write_picture(replace(picture, pixels=pixels), target, **options)


@pytest.fixture
def rich(tmp_path: Path) -> Path:
    """A JPEG that lies on its side, with profile, EXIF, XMP."""
    path = tmp_path / "rich.jpg"
    image = Image.fromarray(samples(3, 8, 60, 44))
    image.save(path, exif=exif_block(6), icc_profile=ICC, xmp=XMP, dpi=(300, 300))
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("kind", CHANNELS)
@pytest.mark.parametrize("read", [".png", ".tif"])
def test_the_file_is_that_of_the_picture_in_memory(tmp_path, read, kind, bits, suffix):
    source = tmp_path / f"in{read}"
    values = samples(CHANNELS[kind], bits, 61, 44)
    if read == ".png":
        write_png(source, values)
    else:
        extra = {"extrasamples": ["unassalpha"]} if CHANNELS[kind] in (2, 4) else {}
        photometric = "rgb" if CHANNELS[kind] > 2 else "minisblack"
        values = values[..., 0] if kind == "grey" else values
        tifffile.imwrite(source, values, photometric=photometric, **extra)
    streamed, whole = tmp_path / f"streamed{suffix}", tmp_path / f"whole{suffix}"
    job(source, streamed).run(doubling())
    in_memory(source, whole)
    assert streamed.read_bytes() == whole.read_bytes()
    assert not partial_folder(streamed).exists()


def test_a_second_run_is_refused_while_one_writes(tmp_path, rich):
    target, whole, refused = tmp_path / "out.png", tmp_path / "whole.png", []
    late = job(rich, target, overwrite=True)

    def upscale(picture, sink, folder: Path, first: int) -> None:
        for options in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(InUseError, match=r"out\.png is being written by another run"):
                job(rich, target, **options)
        with pytest.raises(InUseError):
            late.run(doubling())
        refused.append(True)
        doubling()(picture, sink, folder, first)

    job(rich, target).run(upscale)
    in_memory(rich, whole)
    assert refused and target.read_bytes() == whole.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"rich.jpg", "out.png", "whole.png"}


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_what_lies_beside_the_pixels_is_kept_alike(tmp_path, rich, suffix, caplog):
    streamed, whole = tmp_path / f"streamed{suffix}", tmp_path / f"whole{suffix}"
    job(rich, streamed, quality=90).run(doubling())
    told = [record.getMessage().replace("streamed", "whole") for record in caplog.records]
    caplog.clear()
    in_memory(rich, whole, quality=90)
    assert streamed.read_bytes() == whole.read_bytes()
    assert told == [record.getMessage() for record in caplog.records]
    with Image.open(streamed) as image:
        assert image.size == (120, 88) and image.info["icc_profile"] == ICC


def test_a_pyramid(tmp_path, rich):
    target = tmp_path / "out.tif"
    source = tmp_path / "in.png"
    write_png(source, values := samples(3, 8, 400, 500))
    job(source, target, pyramid=True).run(doubling())
    doubled = values.repeat(2, axis=0).repeat(2, axis=1)
    with tifffile.TiffFile(target) as file:
        assert [page.shape[:2] for page in file.pages] == [(800, 1000), (400, 500), (200, 250)]
        assert file.pages[0].is_tiled and (file.pages[0].asarray() == doubled).all()
    assert (pyvips.Image.new_from_file(str(target)).numpy() == doubled).all()
    assert pyvips.Image.new_from_file(str(target), page=1).width == 500
    target.unlink()
    job(rich, target, pyramid=True).run(doubling())  # its directory is written anew at the end
    with tifffile.TiffFile(target) as file:
        assert file.pages[0].tags[34675].value == ICC


@pytest.mark.parametrize("quality", [None, 90])
def test_deepzoom(tmp_path, quality, caplog):
    source, target = tmp_path / "in.png", tmp_path / "out.dzi"
    write_png(source, values := samples(4, 8, 300, 200))
    (tmp_path / "out_files/old").mkdir(parents=True)
    job(source, target, quality=quality).run(doubling())
    tiles = tmp_path / "out_files"
    assert 'Width="400"' in target.read_text() and not (tiles / "old").exists()
    suffix = "png" if quality is None else "jpg"
    first = np.asarray(Image.open(tiles / f"10/0_0.{suffix}"))
    doubled = values.repeat(2, axis=0).repeat(2, axis=1)[: len(first), : first.shape[1]]
    if quality is None:
        assert (first == doubled).all()
    else:
        assert first.shape[2] == 3
    assert not partial_folder(target).exists()


@pytest.mark.parametrize("suffix", [".png", ".tif", ".dzi"])
def test_a_run_that_ends_early_is_resumed(tmp_path, suffix):
    source, target, whole = (tmp_path / name for name in ("in.png", f"out{suffix}", "whole.png"))
    write_png(source, samples(3, 16, 61, 44))
    with pytest.raises(Stopped):
        job(source, target).run(doubling(stop=30))
    assert not target.exists() and partial_folder(target).is_dir()
    left = {path.name for path in partial_folder(target).iterdir()}
    assert left == {"state", "input", "rows"}
    with pytest.raises(PictureError, match="resume it, or overwrite it"):
        job(source, target)
    work = job(source, target, resume=True)
    assert work.done == 60
    work.run(upscale := doubling())
    assert upscale.calls == [60]
    assert not partial_folder(target).exists()
    if suffix == ".png":
        in_memory(source, whole)
        assert target.read_bytes() == whole.read_bytes()


def test_a_row_that_was_written_half_is_made_again(tmp_path):
    source, target, whole = (tmp_path / name for name in ("in.png", "out.png", "whole.png"))
    write_png(source, samples(3, 8, 61, 44))
    with pytest.raises(Stopped):
        job(source, target).run(doubling(stop=30))
    rows = partial_folder(target) / "rows"
    os.truncate(rows, rows.stat().st_size - 7 - 88 * 3)
    work = job(source, target, resume=True)
    assert work.done == 58
    work.run(doubling())
    in_memory(source, whole)
    assert target.read_bytes() == whole.read_bytes()


def test_other_settings_are_not_resumed(tmp_path):
    source, target = tmp_path / "in.png", tmp_path / "out.png"
    write_png(source, samples(3, 8, 61, 44))
    with pytest.raises(Stopped):
        job(source, target, settings={"mode": "tile"}).run(doubling(stop=30))
    with pytest.raises(PictureError, match=r"other settings \(mode\)"):
        job(source, target, settings={"mode": "exact"}, resume=True)
    write_png(source, samples(3, 8, 61, 44, seed=1))
    with pytest.raises(PictureError, match=r"other settings \(source\)"):
        job(source, target, settings={"mode": "tile"}, resume=True)
    job(source, target, overwrite=True).run(upscale := doubling())
    assert upscale.calls == [0]


def test_without_a_row_nothing_is_left(tmp_path):
    source, target = tmp_path / "in.png", tmp_path / "out.png"
    write_png(source, samples(3, 8, 61, 44))
    with pytest.raises(Stopped):
        job(source, target).run(doubling(stop=0))
    assert [path.name for path in tmp_path.iterdir()] == ["in.png"]


def test_a_disk_that_is_full_before_and_in_between(tmp_path, monkeypatch):
    source, target = tmp_path / "in.png", tmp_path / "out.png"
    write_png(source, samples(3, 8, 61, 44))
    work = job(source, target)
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(work.disk_required + 10))
    work.check_disk(10)
    with pytest.raises(PictureError, match=f"needs .* GB in the folder of the result, {tmp_path}"):
        work.check_disk(11)
    write = GrowingRows.write

    def full(self, top: int, rows: np.ndarray) -> None:
        if top >= 60:
            raise OSError(28, "No space left on device")
        write(self, top, rows)

    monkeypatch.setattr(GrowingRows, "write", full)
    with pytest.raises(OSError, match="No space left"):
        work.run(doubling())
    assert not target.exists() and work.done == 60
    monkeypatch.setattr(GrowingRows, "write", write)
    job(source, target, resume=True).run(doubling())
    assert target.exists()


def test_an_encoder_that_fails_ends_the_work(tmp_path, monkeypatch):
    source, target = tmp_path / "in.png", tmp_path / "out.png"
    write_png(source, samples(3, 8, 61, 44))
    monkeypatch.setattr(
        "fdat_dense_iso.picture.large.encode.embedded", lambda *a, **k: 1 / 0, raising=True
    )
    with pytest.raises(ZeroDivisionError):
        job(source, target).run(doubling())
    assert not target.exists()


def test_what_cannot_be_done_is_told_before(tmp_path):
    source = tmp_path / "in.png"
    write_png(source, samples(3, 8))
    with pytest.raises(PictureError, match="WebP is built in memory"):
        job(source, tmp_path / "out.webp")
    with pytest.raises(PictureError, match="GIF is built in memory"):
        job(source, tmp_path / "out.gif")
    (tmp_path / "out.png").touch()
    with pytest.raises(PictureError, match="exists"):
        job(source, tmp_path / "out.png")
    with pytest.raises(PictureError, match="ends at 65500"):
        LargeJob(source, tmp_path / "out.jpg", read_header(source), size=(70_000, 10))


def test_broken_pictures(tmp_path):
    source, target = tmp_path / "in.png", tmp_path / "out.png"
    write_png(source, samples(3, 8, 200, 200))
    source.write_bytes(source.read_bytes()[:50_000])
    with pytest.raises(PictureError, match="broken or cut off"):
        job(source, target).run(doubling())
    assert [path.name for path in tmp_path.iterdir()] == ["in.png"]
    source.write_bytes(b"")
    with pytest.raises(PictureError, match="empty"):
        read_header(source)
    write_png(source, samples(3, 8))
    with pytest.raises(PictureError, match="it claims 17x13 pixels"):
        read_header(source, max_pixels=100)
    source.write_bytes(b"BM" + bytes(40))
    assert read_header(source) is None
    Image.fromarray(samples(3, 8)).save(tmp_path / "a.gif")
    assert read_header(tmp_path / "a.gif") is None


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("bits", [8, 16])
def test_growing_rows_are_a_tiff(tmp_path, channels, bits):
    path, values = tmp_path / "rows.tif", samples(channels, bits, 700, 900)
    rows = GrowingRows(path, 700, 900, channels, bits)
    for top in range(0, 700, 99):
        rows.write(top, values[top : top + 99])
    assert path.stat().st_size <= GrowingRows.bytes_of(700, 900, channels, bits)
    rows.close()
    with tifffile.TiffFile(path) as file:
        assert file.is_bigtiff and len(file.pages[0].dataoffsets) > 1
        assert (file.pages[0].asarray().reshape(values.shape) == values).all()
    assert (pyvips.Image.new_from_file(str(path)).numpy().reshape(values.shape) == values).all()


def test_the_file_grows_while_the_picture_is_computed(tmp_path):
    source, target = tmp_path / "in.png", tmp_path / "out.png"
    write_png(source, samples(3, 8, 900, 500))
    found = []

    def upscale(picture, sink, folder: Path, first: int) -> None:
        doubling()(picture, lambda top, rows: slow(sink, top, rows), folder, first)

    def slow(sink, top: int, rows: np.ndarray) -> None:
        sink(top, rows)
        if top == 1500:
            written = partial_folder(target) / "result"
            for _ in range(200):
                found.append(written.stat().st_size if written.exists() else 0)
                if found[-1] > 500_000:
                    break
                time.sleep(0.05)

    job(source, target).run(upscale)
    assert found[-1] > 500_000


KILLED = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.picture.large.test_job import doubling, job
work = job(Path(sys.argv[2]), Path(sys.argv[3]))
upscale = doubling()
def until_row_60(picture, sink, folder, first):
    def stop(top, rows):
        sink(top, rows)
        if top >= 60:
            os.kill(os.getpid(), 9)
    upscale(picture, stop, folder, first)
work.run(until_row_60)
"""


@pytest.mark.skipif(os.name != "posix", reason="kills a process")
def test_a_killed_run_leaves_no_result_and_is_resumed(tmp_path):
    source, target, whole = (tmp_path / name for name in ("in.png", "out.png", "whole.png"))
    write_png(source, samples(3, 8, 61, 44))
    killed = subprocess.run([sys.executable, "-c", KILLED, ROOT, source, target], cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL
    assert not target.exists()
    work = job(source, target, resume=True)
    assert work.done == 70
    work.run(upscale := doubling())
    assert upscale.calls == [70]
    in_memory(source, whole)
    assert target.read_bytes() == whole.read_bytes()


def test_nothing_is_said_of_an_ordinary_picture(tmp_path, caplog):
    source = tmp_path / "in.png"
    write_png(source, samples(3, 8))
    with caplog.at_level(logging.WARNING, "fdat_dense_iso"):
        job(source, tmp_path / "out.png").run(doubling())
    assert not [record for record in caplog.records if "pyvips" not in record.name]
