"""Animations from format to format, against Pillow."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.command import Model, folder, model, run
from tests.helpers.picture_cases import ICC, exif_block, samples

pytest.importorskip("pyvips")
from fdat_dense_iso.picture.animation import (
    Animation,
    is_animation,
    read_animation,
    upscaled,
    write_animation,
)
from fdat_dense_iso.picture.formats import Metadata, PictureError

__all__ = ["folder", "model"]
SUFFIXES = (".gif", ".webp", ".png")
DURATIONS = [40, 70, 100, 200]
PLAYS = 4


def sticker() -> list[np.ndarray]:
    """Frames (20, 24, 4) of few colours, with a hole that moves."""
    frames = []
    for index in range(len(DURATIONS)):
        frame = np.zeros((20, 24, 4), np.uint8)
        frame[2 + index : 8 + index, 3:9] = 200, 30 * index, 10, 255
        frame[12:] = 0, 0, 255, 255
        frames.append(frame)
    return frames


def save(path: Path, **options) -> None:
    first, *others = map(Image.fromarray, sticker())
    if path.suffix == ".gif":
        options |= {"disposal": 2, "loop": PLAYS - 1}  # GIF counts repetitions
    elif path.suffix == ".webp":
        options |= {"lossless": True}
    options = {"loop": PLAYS, "duration": DURATIONS, **options}
    first.save(path, save_all=True, append_images=others, **options)


def shown(path: Path) -> tuple[list[np.ndarray], list[float], int]:
    """Frames, durations and how often they are shown, by Pillow."""
    image, frames, durations = Image.open(path), [], []
    for index in range(image.n_frames):
        image.seek(index)
        image.load()
        frames.append(np.asarray(image.convert("RGBA")))
        durations.append(image.info["duration"])
    plays = image.info.get("loop", 0)
    return frames, durations, plays + (path.suffix == ".gif" and plays > 0)


def visible(frame: np.ndarray) -> np.ndarray:
    """Colours where they can be seen."""
    return np.where(frame[..., 3:] > 0, frame, 0)


@pytest.mark.parametrize("target", SUFFIXES)
@pytest.mark.parametrize("source", SUFFIXES)
def test_frames_durations_and_loops_go_from_format_to_format(
    tmp_path: Path, source: str, target: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path / f"x{source}")
    assert is_animation(tmp_path / f"x{source}", tmp_path / f"y{target}")
    animation = read_animation(tmp_path / f"x{source}")
    write_animation(animation, tmp_path / f"y{target}")
    frames, durations, plays = shown(tmp_path / f"y{target}")
    assert (durations, plays) == (DURATIONS, PLAYS)
    for found, expected in zip(frames, sticker(), strict=True):
        np.testing.assert_array_equal(visible(found), visible(expected))
    said = ["y.gif: GIF holds 256 colours"] if target == ".gif" else []
    assert [text[text.index("y.gif") :][:28] for text in caplog.messages] == said


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_command_upscales_every_frame(
    folder: Path, model: Model, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(folder / f"in/x{suffix}")
    result = run(f"in/x{suffix}", f"y{suffix}")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"in/x{suffix} -> y{suffix} (24x20 -> 48x40, 4 frames)\n"
    frames, durations, plays = shown(folder / f"y{suffix}")
    assert (durations, plays) == (DURATIONS, PLAYS) and len(model.calls) == 4
    for found, expected in zip(frames, sticker(), strict=True):
        larger = expected.repeat(2, 0).repeat(2, 1)
        np.testing.assert_array_equal(visible(found), visible(larger))


def test_a_format_of_one_picture_gets_the_first_frame(folder: Path, model: Model) -> None:
    for suffix in SUFFIXES:
        save(folder / f"x{suffix}")
        result = run(f"x{suffix}", f"{suffix[1:]}.tif")
        assert f"x{suffix}: the first of its 4 pages is upscaled" in result.stderr
        assert Image.open(folder / f"{suffix[1:]}.tif").size == (48, 40)


def test_a_frame_that_equals_the_one_before_is_not_handed_on(tmp_path: Path) -> None:
    save(tmp_path / "x.webp")
    animation = read_animation(tmp_path / "x.webp")
    animation.frames[2] = animation.frames[1]
    given = []

    def upscale(frames, deliver) -> None:
        for frame in frames:
            given.append(frame)
            deliver(given[-2] if frame is None else frame)

    result = upscaled(animation, upscale)
    np.testing.assert_array_equal(result.frames, animation.frames)
    assert [frame is None for frame in given] == [False, False, True, False]


def test_durations_that_a_format_cannot_count_keep_the_time(tmp_path: Path) -> None:
    """30 frames a second in PNG are 1/3 of a hundredth each in GIF: the sum is kept."""
    save(tmp_path / "x.png", duration=[100 / 3] * 4)
    animation = read_animation(tmp_path / "x.png")
    assert sum(animation.durations) == pytest.approx(400 / 3, abs=0.01)
    assert all(isinstance(duration, Fraction) for duration in animation.durations)
    write_animation(animation, tmp_path / "y.gif")
    assert shown(tmp_path / "y.gif")[1] == [30, 40, 30, 30]
    write_animation(animation, tmp_path / "y.webp")
    assert shown(tmp_path / "y.webp")[1] == [33, 34, 33, 33]


def test_opaque_frames_have_no_alpha(tmp_path: Path) -> None:
    frames = [Image.fromarray(samples(3, 8, seed=seed)) for seed in range(3)]
    frames[0].save(tmp_path / "x.webp", save_all=True, append_images=frames[1:], lossless=True)
    animation = read_animation(tmp_path / "x.webp")
    assert animation.opaque and animation.loops == 0
    write_animation(animation, tmp_path / "y.png")
    assert Image.open(tmp_path / "y.png").mode == "RGB"


def test_a_picture_for_programs_without_animations_is_no_frame(tmp_path: Path) -> None:
    first, *others = map(Image.fromarray, sticker())
    first.save(
        tmp_path / "x.png", save_all=True, append_images=others, default_image=True, duration=50
    )
    animation = read_animation(tmp_path / "x.png")
    assert len(animation.frames) == 3
    np.testing.assert_array_equal(visible(animation.frames[0]), visible(sticker()[1]))


def test_metadata_of_animations(tmp_path: Path) -> None:
    save(tmp_path / "x.webp", exif=exif_block().tobytes(), icc_profile=ICC)
    write_animation(read_animation(tmp_path / "x.webp"), tmp_path / "y.png")
    image = Image.open(tmp_path / "y.png")
    assert image.info["icc_profile"] == ICC and image.getexif()[0x8298] == "(c) somebody"
    write_animation(read_animation(tmp_path / "y.png"), tmp_path / "z.webp")
    again = Image.open(tmp_path / "z.webp")
    assert again.info["icc_profile"] == ICC and again.getexif()[0x8298] == "(c) somebody"
    assert again.n_frames == 4


def test_the_limit_is_for_all_frames_together(tmp_path: Path) -> None:
    save(tmp_path / "x.gif")
    read_animation(tmp_path / "x.gif", max_pixels=4 * 480)
    with pytest.raises(PictureError, match="4 frames of 24x20 pixels; the limit is"):
        read_animation(tmp_path / "x.gif", max_pixels=4 * 480 - 1)


def test_pictures_are_no_animations(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        Image.fromarray(samples(3, 8)).save(tmp_path / f"x{suffix}")
        assert not is_animation(tmp_path / f"x{suffix}", Path("y.gif"))
    save(tmp_path / "y.gif")
    assert not is_animation(tmp_path / "y.gif", Path("y.jpg"))
    (tmp_path / "z.gif").write_bytes((tmp_path / "y.gif").read_bytes()[:200])
    with pytest.raises(PictureError, match="GIF data is broken or cut off"):
        read_animation(tmp_path / "z.gif")


def test_short_durations_and_equal_frames_in_webp(tmp_path: Path) -> None:
    """libvips writes 100 ms for 10 and less, and one frame where two are equal."""
    frames = np.zeros((5, 16, 16, 4), np.uint8)
    frames[..., 3] = 255
    frames[[1, 2, 4], :8] = 200
    durations = [Fraction(one) for one in (10, 3, 8, 0, 40)]
    animation = Animation(frames, durations, 0, Metadata())
    write_animation(animation, tmp_path / "x.webp")
    with Image.open(tmp_path / "x.webp") as image:
        found = []
        for index in range(image.n_frames):
            image.seek(index)
            image.load()
            found.append((image.info["duration"], int(np.asarray(image)[0, 0, 0])))
    assert found == [(10, 0), (11, 200), (0, 0), (40, 200)]


def test_frames_that_leave_the_picture_free_are_transparent(tmp_path: Path) -> None:
    """Also where no frame hides a pixel: libwebp asks the frames for the mark of transparency."""
    frames = [Image.new("RGBA", (24, 16)) for _ in range(3)]
    for index, frame in enumerate(frames):
        frame.paste((255, 60 * index, 9, 255), (3 * index, 2 * index, 3 * index + 8, 2 * index + 8))
    options = {"save_all": True, "append_images": frames[1:], "duration": 50, "lossless": True}
    frames[0].save(tmp_path / "a.webp", **options)
    write_animation(read_animation(tmp_path / "a.webp"), tmp_path / "b.webp")
    result = Image.open(tmp_path / "b.webp")
    for index, frame in enumerate(frames):
        result.seek(index)
        np.testing.assert_array_equal(np.asarray(result.convert("RGBA")), np.asarray(frame))
