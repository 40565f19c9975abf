"""Videos in parts, by workers in this process: the same files as from one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("typer")
pytest.importorskip("pyvips")
pytest.importorskip("av")
import av
from rich.console import Console

from fdat_dense_iso.cluster import crew
from fdat_dense_iso.cluster.crew import Crew
from fdat_dense_iso.cluster.places import Place
from fdat_dense_iso.cluster.segments import PIECE, Segments
from fdat_dense_iso.command.many import together
from fdat_dense_iso.command.model import Upscaler, load_upscaler
from fdat_dense_iso.command.run import Bar
from fdat_dense_iso.command.video import VideoOptions
from fdat_dense_iso.command.work import FileOptions, upscale_file
from fdat_dense_iso.command.worker import FileWorker
from fdat_dense_iso.common.upscaling import UPSCALING
from fdat_dense_iso.picture.files import Job
from fdat_dense_iso.video.resume import partial_path
from fdat_dense_iso.video.write import SEGMENT_FRAMES
from tests.helpers.crews import FakeRay, InlineCrew
from tests.helpers.fake_models import save_nearest
from tests.helpers.video_cases import Clip, probe, write_clip

MODEL = Path("nearest.safetensors")
OPTIONS = {option.name: option.default for option in UPSCALING if "command" in option.where}
CONSOLE = Console(quiet=True)


def untold(kind: str, text: str) -> None: ...


def files(**changes) -> FileOptions:
    encoding = {"codec": "auto", "crf": None, "pixel_format": "auto"}
    video = VideoOptions(encoding=encoding, resume=changes.pop("resume", False))
    return FileOptions(
        **{
            "quality": None,
            "overwrite": False,
            "max_pixels": 10**8,
            "video": video,
            "pyramid": False,
        }
        | changes
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    save_nearest(tmp_path / "nearest.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def workers(count: int, kind: type[FileWorker] = FileWorker, **changes) -> list[FileWorker]:
    checkpoint = [{"nearest.safetensors": Path("nearest.safetensors").read_bytes()}]
    arguments = {"model_options": [], "options": OPTIONS, "device": "cpu", "threads": 1}
    return [kind(checkpoint, **arguments, folder=".", files=files(**changes)) for _ in range(count)]


def alone(source: Path, target: Path) -> str:
    upscaler = load_upscaler(Path("nearest.safetensors"), [], "cpu", None, OPTIONS)
    return upscale_file(Job(source, target), upscaler, files(), lambda done, of: None, untold)[0]


def shared_out(source: Path, target: Path, crew: InlineCrew, **changes):
    upscaler = load_upscaler(Path("nearest.safetensors"), [], "cpu", None, OPTIONS)
    bar = Bar(CONSOLE, 1, lambda: None, shown=False)
    return next(together([Job(source, target)], crew, upscaler, files(**changes), bar, CONSOLE))


CLIPS = {
    "sound and reordered frames": (".mp4", Clip(frames=130)),
    "whole segments alone": (".mp4", Clip(frames=2 * SEGMENT_FRAMES, audio=())),
    "shorter than a piece": (".mkv", Clip(frames=PIECE - 1)),
    "no times in packets": (".avi", Clip(frames=60, audio=("mp3",), rate=Fraction(25))),
    "a clock that may jump": (".ts", Clip(frames=60)),
}


@pytest.mark.parametrize("name", CLIPS)
@pytest.mark.parametrize("count", [1, 3])
def test_the_file_is_that_of_one_process(folder: Path, name: str, count: int) -> None:
    suffix, clip = CLIPS[name]
    write_clip(source := Path(f"in{suffix}"), clip)
    line = alone(source, Path("one.mp4"))
    crew = InlineCrew(workers(count))
    outcome = shared_out(source, Path("many.mp4"), crew)
    assert outcome.error is None
    assert outcome.line.replace("many.mp4", "one.mp4") == line
    assert packets(Path("many.mp4")) == packets(Path("one.mp4"))
    if suffix != ".ts":  # whose AAC tells its mean bit rate only to who reads it to the end
        assert Path("many.mp4").read_bytes() == Path("one.mp4").read_bytes()


def packets(path: Path) -> list[tuple]:
    with av.open(str(path)) as container:
        return [
            (one.stream.index, one.pts, one.dts, one.duration, bytes(one))
            for one in container.demux()
        ]


def test_few_segments_are_cut_into_pieces(folder: Path) -> None:
    """Each frame is drawn once, and eight workers get about as many."""
    write_clip(source := Path("in.mp4"), Clip(frames=240, audio=()))
    alone(source, Path("one.mp4"))
    crew = InlineCrew(workers(1) * 8)
    assert shared_out(source, Path("many.mp4"), crew).error is None
    parts = sorted(call[1:3] for call in crew.calls if call[0] == "part")
    assert parts == [(first, PIECE) for first in range(0, 240, PIECE)]
    assert sum(call[0] == "encode" for call in crew.calls) == 240 // SEGMENT_FRAMES
    assert Path("many.mp4").read_bytes() == Path("one.mp4").read_bytes()


class Looking:
    """An upscaler whose every frame is a mean of it and of two on each side."""

    context = 2

    def __init__(self, upscaler: Upscaler) -> None:
        self._upscaler = upscaler

    def __getattr__(self, name: str):
        return getattr(self._upscaler, name)

    def suited_to_videos(self, source: Path):
        return self, ""

    def frames(self, frames, deliver, *, target, progress, lead=0):
        drawn: list = []
        for frame in frames:
            drawn.append(drawn[-1] if frame is None else frame)
        for number in range(lead, len(drawn)):
            seen = drawn[max(number - 2, 0) : number + 3]
            mean = sum(seen) / len(seen)
            deliver(mean.repeat_interleave(2, 0).repeat_interleave(2, 1))


@pytest.mark.parametrize("suffix", [".mp4", ".ts"])
def test_networks_of_several_frames_get_their_neighbours(folder: Path, suffix: str) -> None:
    write_clip(source := Path(f"in{suffix}"), Clip(frames=110, audio=()))
    upscaler = load_upscaler(Path("nearest.safetensors"), [], "cpu", None, OPTIONS)
    job = Job(source, Path("one.mp4"))
    upscale_file(job, Looking(upscaler), files(), lambda done, of: None, untold)
    crew = InlineCrew(workers(2))
    for worker in crew.workers:
        worker.upscaler = Looking(worker.upscaler)
    assert shared_out(source, Path("many.mp4"), crew).error is None
    assert packets(Path("many.mp4")) == packets(Path("one.mp4"))


def test_pieces_that_went_with_a_node_are_made_again(folder: Path) -> None:
    write_clip(source := Path("in.mp4"), Clip(frames=50))
    alone(source, Path("one.mp4"))
    for lost in (9, 1):  # the first encoding, and a piece
        crew = InlineCrew(workers(2), lost=[lost])
        outcome = shared_out(source, Path(f"many{lost}.mp4"), crew)
        assert outcome.error is None
        assert Path(f"many{lost}.mp4").read_bytes() == Path("one.mp4").read_bytes()


def test_frames_that_cannot_be_decoded(folder: Path) -> None:
    """The packets tell of frames that decoding does not give: they are counted as in one process."""
    write_clip(source := Path("in.mp4"), Clip(frames=130, audio=()))
    data = bytearray(source.read_bytes())
    at = data.index(b"mdat") + len(data) // 3
    data[at : at + 400] = bytes(400)
    source.write_bytes(data)
    line = alone(source, Path("one.mp4"))
    outcome = shared_out(source, Path("many.mp4"), InlineCrew(workers(2)))
    assert outcome.line.replace("many.mp4", "one.mp4") == line
    # what FFmpeg makes of damaged frames differs from run to run, in one process too
    assert probe(Path("many.mp4")).times == probe(Path("one.mp4")).times
    assert 100 < len(probe(Path("one.mp4")).times) < 130


def test_content_is_sent_where_the_file_is_not_seen(folder: Path) -> None:
    class Blind(FileWorker):
        def part(self, video, content, *rest):
            return super().part(video | {"stamp": None}, content, *rest)

        def encode(self, video, content, *rest):
            return super().encode(video | {"stamp": None}, content, *rest)

    write_clip(source := Path("in.mp4"), Clip(frames=110))
    alone(source, Path("one.mp4"))
    outcome = shared_out(source, Path("many.mp4"), InlineCrew(workers(2, Blind)))
    assert outcome.error is None
    assert Path("many.mp4").read_bytes() == Path("one.mp4").read_bytes()


def test_an_error_keeps_what_came_before_and_resuming_does_the_rest(folder: Path) -> None:
    class Failing(FileWorker):
        broken = True

        def part(self, video, content, first, count, whole):
            if Failing.broken and first >= 2 * SEGMENT_FRAMES:
                raise RuntimeError("the network is ill")
            return super().part(video, content, first, count, whole)

    write_clip(source := Path("in.mp4"), Clip(frames=200))
    alone(source, Path("one.mp4"))
    outcome = shared_out(source, Path("many.mp4"), InlineCrew(workers(2, Failing)))
    assert str(outcome.error) == "the network is ill"
    assert partial_path(Path("many.mp4")).exists() and not Path("many.mp4").exists()
    Failing.broken = False
    crew = InlineCrew(workers(2, Failing))
    assert shared_out(source, Path("many.mp4"), crew, resume=True).error is None
    assert min(call[1] for call in crew.calls if call[0] == "part") == 2 * SEGMENT_FRAMES
    assert Path("many.mp4").read_bytes() == Path("one.mp4").read_bytes()
    assert not partial_path(Path("many.mp4")).exists()


def test_progress_counts_every_frame_once(folder: Path) -> None:
    write_clip(source := Path("in.mp4"), Clip(frames=100))
    upscaler = load_upscaler(Path("nearest.safetensors"), [], "cpu", None, OPTIONS)
    from fdat_dense_iso.command.video import upscale_video_file

    job, told = Job(source, Path("out.mp4")), []
    upscale_video_file(
        job,
        upscaler,
        files().video,
        lambda done, of: told.append((done, of)),
        untold,
        overwrite=False,
        max_pixels=10**8,
        elsewhere=partial(Segments, InlineCrew(workers(3))),
    )
    assert told == sorted(told)
    assert told[-1] == (100, 100)


class Own(FileWorker):
    """A worker in this process that looks after the others at every frame."""

    broken: type[Exception] | None = None

    def ends(self, error: Exception) -> bool:
        return isinstance(error, InterruptedError)

    def part(self, video, content, first, count, whole):
        self.upscaler = Between(load_upscaler(MODEL, [], "cpu", None, OPTIONS), self.between)
        if self.broken and first >= SEGMENT_FRAMES:
            raise self.broken("the network is ill")
        return super().part(video, content, first, count, whole)


class Between:
    def __init__(self, upscaler: Upscaler, between: Callable[[], None]) -> None:
        self.upscaler, self.between, self.context = upscaler, between, 0

    def frames(self, frames, deliver, **given) -> None:
        def next_one(picture) -> None:
            self.between()
            deliver(picture)

        self.upscaler.frames(frames, next_one, **given)


@pytest.fixture
def beside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Crew:
    """This process and two workers."""
    ray = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(crew, "_BREAK", 0)
    (own,) = workers(1, Own)
    content = {MODEL.name: MODEL.read_bytes()}
    arguments = {"known": {}, "options": {"cuts": "auto"}}
    factory = "fdat_dense_iso.cluster.frames:FrameWorker"
    return Crew(ray, [Place("cpu", 1)] * 2, factory, arguments, [content], own=own)


def test_this_process_and_others(folder: Path, beside: Crew) -> None:
    write_clip(source := Path("in.mp4"), Clip(frames=250))
    alone(source, Path("one.mp4"))
    assert shared_out(source, Path("many.mp4"), beside).error is None
    assert beside.done > 0 and beside.done_here > 0
    assert Path("many.mp4").read_bytes() == Path("one.mp4").read_bytes()


def test_what_this_process_raises(folder: Path, beside: Crew) -> None:
    """A part that fails does so at its turn, and nothing that came before it is lost; what ends all
    work does so at once."""
    write_clip(source := Path("in.mp4"), Clip(frames=250))
    beside._own.broken = RuntimeError
    outcome = shared_out(source, Path("many.mp4"), beside)
    assert isinstance(outcome.error, RuntimeError) and str(outcome.error) == "the network is ill"
    assert probe(partial_path(Path("many.mp4"))).times
    beside._own.broken = InterruptedError
    assert isinstance(shared_out(source, Path("two.mp4"), beside).error, InterruptedError)
