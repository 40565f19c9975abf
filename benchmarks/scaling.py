"""How the time of a folder and of a video falls with the number of workers.

    python -m benchmarks.scaling

The network is a stub that sleeps, as a process that waits for its GPU does, so that a machine with
two cores can show eight workers. Everything else is real: files are read and written, videos are
decoded, encoded and joined by the command's own code. Counted is from when all workers are ready.
The overhead per picture is the time with one worker beyond what the stub sleeps.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import av
import numpy as np
import torch
import typer
from PIL import Image
from rich.console import Console

from fdat_dense_iso.cluster.connection import connected
from fdat_dense_iso.cluster.crew import Crew
from fdat_dense_iso.cluster.places import Place
from fdat_dense_iso.command.console import error_console
from fdat_dense_iso.command.many import together
from fdat_dense_iso.command.model import Upscaler
from fdat_dense_iso.command.run import Bar
from fdat_dense_iso.command.video import VideoOptions
from fdat_dense_iso.command.work import FileOptions
from fdat_dense_iso.command.worker import FileWorker, import_files
from fdat_dense_iso.picture.files import Job
from fdat_dense_iso.picture.formats import Picture

SIDE = 96


class Stub(Upscaler):
    """An upscaler that sleeps for every picture or frame, and repeats every pixel."""

    context = 0

    def __init__(self, seconds: float) -> None:
        descriptor: Any = SimpleNamespace(scale=2)
        options = {"target": None, "seconds": seconds}
        super().__init__(model=Path(__file__), descriptor=descriptor, options=options)

    def __call__(self, picture: Picture, progress: Callable[[int, int], None]) -> Picture:
        time.sleep(self.options["seconds"])
        return replace(picture, pixels=picture.pixels.repeat(2, 0).repeat(2, 1))

    def frames(self, frames: Iterator[Any], deliver: Any, **options: Any) -> None:
        """As `Upscaler.frames`; every frame sleeps, also one that is the same as the one before."""
        last = torch.zeros(0)
        for frame in frames:
            time.sleep(self.options["seconds"])
            if frame is not None:
                last = frame.repeat_interleave(2, 0).repeat_interleave(2, 1)
            deliver(last)


class StubWorker(FileWorker):
    """A worker without a model."""

    def __init__(self, *, seconds: float, files: FileOptions, device: str, threads: int) -> None:
        torch.set_num_threads(1)
        import_files()
        self.upscaler = self.by_file = Stub(seconds)
        self.files, self.aliases = files, {}
        self._by_value = False


def main(
    workers: Annotated[
        list[int] | None, typer.Option(help="How many; repeatable [1 2 4 8].")
    ] = None,
    seconds: Annotated[float, typer.Option(help="That the stub sleeps.")] = 0.2,
    pictures: Annotated[int, typer.Option(help="In the folder.")] = 64,
    frames: Annotated[int, typer.Option(help="Of the video.")] = 240,
    repeats: Annotated[int, typer.Option(help="Runs of each; the quickest counts.")] = 1,
) -> None:
    """Measure and print."""
    counts = workers or [1, 2, 4, 8]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        jobs = {
            "pictures": folder_of(folder, pictures),
            "video": [video(folder, frames)],
        }
        units = {"pictures": pictures, "video": frames}
        with connected(None, cpus=max(counts)) as ray:
            for count in counts:
                for what, some in jobs.items():
                    took = min(measure(ray, count, seconds, some) for _ in range(repeats))
                    ideal = units[what] * seconds / count
                    beyond = 1000 * (took * count / units[what] - seconds)
                    print(
                        f"{what:9} {count} workers: {took:6.2f} s, {ideal / took:.3f} of linear, "
                        f"{beyond:5.1f} ms of a worker beyond the stub for each",
                        flush=True,
                    )


def measure(ray: Any, workers: int, seconds: float, jobs: list[Job]) -> float:
    """Seconds that the files take once all workers are ready."""
    encoding = {"codec": "auto", "crf": None, "pixel_format": "auto"}
    files = FileOptions(
        quality=None,
        overwrite=True,
        max_pixels=10**8,
        video=VideoOptions(encoding=encoding, resume=False),
        pyramid=False,
    )
    console = error_console()
    bar = Bar(Console(quiet=True), len(jobs), lambda: None, shown=False)
    arguments = {"seconds": seconds, "files": files}
    with Crew(ray, [Place("cpu", 1)] * workers, "benchmarks.scaling:StubWorker", arguments) as crew:
        crew.wait()
        begun = time.perf_counter()
        outcomes = list(together(jobs, crew, Stub(seconds), files, bar, console))  # type: ignore[arg-type]
        took = time.perf_counter() - begun
    for outcome in outcomes:
        if outcome.error:
            raise outcome.error
    return took


def folder_of(folder: Path, count: int) -> list[Job]:
    """A folder of pictures of noise."""
    (folder / "in").mkdir()
    jobs = []
    for number in range(count):
        source = folder / "in" / f"{number:03}.png"
        noise = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        Image.fromarray(noise).save(source)
        jobs.append(Job(source, folder / "out" / source.name))
    return jobs


def video(folder: Path, count: int) -> Job:
    """A video of moving noise."""
    source = folder / "in.mp4"
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE + count, 3), np.uint8)
    with av.open(str(source), "w") as container:
        stream: Any = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
        for number in range(count):
            frame = np.ascontiguousarray(noise[:, number : number + SIDE])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return Job(source, folder / "out.mp4")


if __name__ == "__main__":
    typer.run(main)
