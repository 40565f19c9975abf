"""Parts of a video are the frames that one process counts, wherever reading begins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av")
import av

from fdat_dense_iso.video import VideoFile
from fdat_dense_iso.video.parts import PartReader, Times, TimesDifferError, frame_of, samples_of
from tests.helpers.video_cases import Clip, write_clip


def frames(path: Path) -> list[tuple[int, int, bytes]]:
    with VideoFile(path) as source:
        return [seen(item) for item in source if not isinstance(item, av.Packet)]


def seen(frame) -> tuple[int, int, bytes]:
    return frame.pts, frame.duration, frame.samples.tobytes()


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video with a key frame for every 12 frames, and frames that are shown out of order."""
    path = tmp_path_factory.mktemp("keyed") / "in.mp4"
    noise = np.random.default_rng(0).integers(0, 256, (48, 64 + 100, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "12", "bf": "2"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(100):
            picture = np.ascontiguousarray(noise[:, number : number + 64])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def test_parts_in_any_order(keyed: Path) -> None:
    expected = frames(keyed)
    with VideoFile(keyed) as source:
        times = source.times()
        assert times is not None and times.shown == [pts for pts, _, _ in expected]
        assert [number for number, _ in times.keys][:3] == [0, 12, 24]
        reader = PartReader(source, times)
        for first, count in ((30, 10), (0, 7), (7, 7), (90, 48), (60, 1), (61, 30), (12, 12)):
            part = [seen(frame) for frame in reader.read(first, count)]
            assert part == expected[first : first + count]


def test_a_late_part_is_not_decoded_from_the_beginning(keyed: Path) -> None:
    with VideoFile(keyed) as source:
        reader = PartReader(source, source.times())
        begun = []
        original = source.frames_from
        source.frames_from = lambda at, **how: begun.append(at) or original(at, **how)  # type: ignore[method-assign]
        next(reader.read(80, 6))
        assert begun == [reader._times.key_before(80)[1]]


def test_counted_parts_go_forwards(keyed: Path) -> None:
    expected = frames(keyed)
    with VideoFile(keyed) as source:
        reader = PartReader(source, None)
        for first, count in ((0, 10), (50, 10), (96, 48), (200, 48)):
            assert reader.reaches(first)
            part = [seen(frame) for frame in reader.read(first, count)]
            assert part == expected[first : first + count]
        assert not reader.reaches(0)


@pytest.mark.parametrize("change", ["one more", "one fewer", "another"])
def test_packets_that_tell_other_times(keyed: Path, change: str) -> None:
    with VideoFile(keyed) as source:
        times = source.times()
        assert times is not None
        shown = list(times.shown)
        shown = {
            "one more": [*shown, shown[-1] + 512],
            "one fewer": shown[:-1],
            "another": [*shown[:95], shown[95] + 1, *shown[96:]],
        }[change]
        with pytest.raises(TimesDifferError):
            list(PartReader(source, Times(shown, times.keys)).read(90, len(shown) - 90))


@pytest.mark.parametrize("suffix", [".ts"])
def test_what_does_not_tell_its_times(tmp_path: Path, suffix: str) -> None:
    write_clip(tmp_path / f"in{suffix}", Clip(frames=10, audio=("mp3",)))
    with VideoFile(tmp_path / f"in{suffix}") as source:
        assert source.times() is None


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p10le", "yuv444p"])
def test_samples_travel(pixel_format: str) -> None:
    frame = av.VideoFrame(66, 50, pixel_format)
    rng = np.random.default_rng(0)
    for plane in frame.planes:
        plane.update(rng.integers(0, 4, plane.buffer_size, np.uint8).tobytes())
    frame.color_range = 2
    again = frame_of(samples_of(frame), pixel_format)
    assert np.array_equal(again.to_ndarray(), frame.to_ndarray())
    assert (again.format.name, again.color_range) == (pixel_format, frame.color_range)
