"""How long a device waits for the host: wall time against the time that the network takes.

    python -m benchmarks.waits
    python -m benchmarks.waits --naps 50 10 --cases tiles-512 exact video

The network is a stub that sleeps, and lets go of the GIL as a GPU does while it computes; its result
lies ready in memory. A ratio of 1 means that the device never waited. What the host has to do for
every piece (cutting, checking, clamping, laying out, blending, encoding) is the same as with a real
network. "video-alone" is the video job without the network: what decoding and encoding alone take.
The video's stub hands out enlarged frames; "video-noise" hands out white noise, which takes the
encoder four times as long as a picture.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from fdat_dense_iso.cpu_torchvision import make_torchvision_importable

make_torchvision_importable()

from spandrel import MAIN_REGISTRY, ImageModelDescriptor  # noqa: E402

from benchmarks.measure import machine, write_figures  # noqa: E402
from fdat_dense_iso.upscale import upscale_frames, upscale_image  # noqa: E402

console = Console(width=120)
BAND = 64  # rows of the stub of an exact engine
FRAMES, VIDEO_FRAMES = 24, 40
HEIGHT, WIDTH = 720, 1280


class Sleeper(nn.Module):
    """Sleeps in place of computing, and hands out memory that lies ready, each piece once.

    A device would have written its results while the host slept, so `refill` makes them beforehand.
    """

    def __init__(
        self, scale: int, nap: float, content: Callable[[tuple[int, ...]], Tensor] = torch.rand
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.scale, self.nap, self.content = scale, nap, content
        self.busy = 0.0
        self._ready: dict[tuple[int, ...], list[Tensor]] = {}
        self._used: dict[tuple[int, ...], int] = {}

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        shape = batch, channels, height * self.scale, width * self.scale
        if x.is_meta:
            return x.new_empty(shape)
        return self.sleep(shape, batch)

    def sleep(self, shape: tuple[int, ...], naps: int = 1) -> Tensor:
        """A result of this shape, after so many naps."""
        self._used[shape] = self._used.get(shape, 0) + 1
        ready = self._ready.get(shape)
        time.sleep(self.nap * naps)
        self.busy += self.nap * naps
        return ready.pop() if ready else self.content(shape)

    def refill(self) -> None:
        """Make as many results as the last run took."""
        for shape, count in self._used.items():
            ready = self._ready.setdefault(shape, [])
            ready += [self.content(shape) for _ in range(count - len(ready))]
        self._used, self.busy = {}, 0.0


class BandSleeper(Sleeper):
    """Offers an exact engine that sleeps for every band."""

    @property
    def exact_engine(self) -> BandSleeper:
        return self

    def plan(self, batch: int, height: int, width: int, **_: Any) -> SimpleNamespace:
        steps = -(-height // BAND)
        return SimpleNamespace(
            memory_required=0, host_memory_required=0, steps=steps, smaller=lambda: None
        )

    def run(
        self,
        image: Tensor,
        plan: SimpleNamespace,
        write: Callable[[int, Tensor], None],
        progress: Callable[[int, int], None] | None = None,
        touched: Tensor | None = None,
    ) -> None:
        _, channels, height, width = image.shape
        for step, top in enumerate(range(0, height, BAND)):
            rows = min(BAND, height - top) * self.scale
            write(top * self.scale, self.sleep((1, channels, rows, width * self.scale)))
            if progress:
                progress(step + 1, plan.steps)

    def release(self) -> None: ...


def descriptor(network: Sleeper) -> ImageModelDescriptor:
    """A spandrel descriptor around a stub."""
    return ImageModelDescriptor(
        network,
        network.state_dict(),
        architecture=next(iter(MAIN_REGISTRY)).architecture,
        purpose="SR",
        tags=[],
        supports_half=False,
        supports_bfloat16=False,
        scale=network.scale,
        input_channels=3,
        output_channels=3,
    ).eval()


def tiles(side: int) -> Callable[[float], tuple[Sleeper, Callable[[], object]]]:
    """2048 x 2048 pixels x4 in tiles of one size, one tile per call of the network."""

    def case(nap: float) -> tuple[Sleeper, Callable[[], object]]:
        network, image = Sleeper(4, nap), torch.rand(1, 2048, 2048, 3)
        model = descriptor(network)
        return network, lambda: upscale_image(
            model, image, mode="tile", tile=side, batch=1, device="cpu"
        )

    return case


def exact(nap: float) -> tuple[Sleeper, Callable[[], object]]:
    """2048 x 2048 pixels x4 in exact mode, by a stub of an engine that sleeps for every band."""
    network, image = BandSleeper(4, nap), torch.rand(1, 2048, 2048, 3)
    model = descriptor(network)
    return network, lambda: upscale_image(model, image, mode="exact", device="cpu")


def frames(nap: float) -> tuple[Sleeper, Callable[[], object]]:
    """24 frames of 1280x720 x2, each in one call."""
    network, image = Sleeper(2, nap), torch.rand(FRAMES, HEIGHT, WIDTH, 3)
    model = descriptor(network)
    return network, lambda: upscale_image(model, image, mode="whole", device="cpu")


def stripes(shape: tuple[int, ...]) -> Tensor:
    """The next of some pictures (1, 3, height, width) of moving stripes, 97 rows of `HEIGHT` wide."""
    *_, height, width = shape
    unit = height / HEIGHT
    stripes.number = number = getattr(stripes, "number", 0) + 1  # type: ignore[attr-defined]
    sums = torch.arange(height)[:, None] + torch.arange(width) + 9 * number * unit
    return (sums / (97 * unit) % 1).expand(shape).contiguous()


def make_video(path: Path) -> None:
    """40 frames of moving stripes, 1280x720."""
    from fdat_dense_iso.video import Encoding, PictureVideo, VideoJob

    pictures = [stripes((1, 3, HEIGHT, WIDTH))[0].permute(1, 2, 0) for _ in range(VIDEO_FRAMES)]
    with PictureVideo(torch.stack(pictures), 24, None) as source:
        job = VideoJob(source, path, size=(HEIGHT, WIDTH), encoding=Encoding(crf=30))
        job.run(lambda frames, deliver, progress: [deliver(frame) for frame in frames])


def video(
    nap: float, content: Callable[[tuple[int, ...]], Tensor] = stripes
) -> tuple[Sleeper, Callable[[], object]]:
    """A video of 40 frames 1280x720 x2, from file to file, at the encoder's fastest preset."""
    from fdat_dense_iso.video import Encoding, VideoFile, VideoJob

    folder = Path(tempfile.mkdtemp())
    make_video(folder / "in.mp4")
    network = Sleeper(2, nap, content)
    model = descriptor(network)

    def run() -> None:
        with VideoFile(folder / "in.mp4") as source:
            job = VideoJob(
                source,
                folder / "out.mp4",
                size=(2 * HEIGHT, 2 * WIDTH),
                encoding=Encoding(crf=30, preset="ultrafast"),
                overwrite=True,
            )
            job.run(partial(upscale_frames, model, mode="whole", device="cpu"))

    return network, run


CASES = {
    "tiles-512": tiles(512),
    "tiles-256": tiles(256),
    "exact": exact,
    "frames": frames,
    "video": video,
    "video-alone": lambda nap: video(0),
    "video-noise": partial(video, content=torch.rand),
    "video-noise-alone": lambda nap: video(0, torch.rand),
}


def main(
    naps: Annotated[
        list[int] | None, typer.Option(help="Milliseconds per call of the network [50 10].")
    ] = None,
    cases: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(CASES)} [all].")] = None,
    repeats: Annotated[int, typer.Option(help="Runs of each; the median counts.")] = 3,
    threads: Annotated[int, typer.Option(help="CPU threads of the host's own work.")] = 2,
    output: Annotated[Path | None, typer.Option("--json", help="Also write the figures.")] = None,
) -> None:
    """Measure wall time / device time."""
    torch.set_num_threads(threads)
    table, rows = Table("case", "nap", "wall", "device", "wall / device"), []
    for name in cases or CASES:
        for nap in naps or (50, 10):
            network, work = CASES[name](nap / 1000)
            work()
            walls = []
            for _ in range(repeats):
                network.refill()
                start = time.perf_counter()
                result = work()
                walls.append(time.perf_counter() - start)
                del result
            wall = statistics.median(walls)
            ratio = wall / network.busy if network.busy else math.nan
            rows.append(
                {"case": name, "nap_ms": nap, "wall": wall, "device": network.busy, "ratio": ratio}
            )
            table.add_row(
                name, f"{nap} ms", f"{wall:.2f} s", f"{network.busy:.2f} s", f"{ratio:.2f}"
            )
            console.print(f"{name}, {nap} ms: {ratio:.2f}")
    console.print(table)
    console.print(machine())
    write_figures(output, "benchmarks.waits", {"what": "waits", "machine": machine(), "rows": rows})


if __name__ == "__main__":
    typer.run(main)
