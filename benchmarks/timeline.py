"""Draws what device, copies and host did when: one picture in tiles, and one video.

    python -m benchmarks.timeline docs/timeline.png

The device is that of `benchmarks.waits`: a stub that sleeps. Where its bar has gaps, it waited.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Annotated, Any

import torch
import typer
from PIL import Image, ImageDraw, ImageFont

from benchmarks.waits import CASES, Sleeper
from fdat_dense_iso.upscale.frame import FrameUpscaler
from fdat_dense_iso.upscale.session import Session
from fdat_dense_iso.upscale.tiled import TiledUpscaler
from fdat_dense_iso.video.assembly import Assembly
from fdat_dense_iso.video.colour import SampleReader

NAP = 0.05
SHOWN = 1.0  # seconds
WIDTH, LEFT, ROW, GAP = 1500, 190, 26, 8
COLOURS = {"device": "#2f6f4f", "prepare": "#c98a1b", "finish": "#34629a", "encode": "#8b3f6e"}
ROWS = {
    Sleeper.sleep: ("device", "device computes"),
    SampleReader.samples: ("prepare", "decode, prepare"),
    SampleReader.rgb: ("prepare", "decode, prepare"),
    Session._prepared: ("prepare", "decode, prepare"),
    TiledUpscaler._cut: ("prepare", "decode, prepare"),
    TiledUpscaler._add: ("finish", "copy, put together"),
    FrameUpscaler._finish: ("finish", "copy, put together"),
    Assembly.add: ("encode", "encode"),
    Assembly.end: ("encode", "encode"),
}


class Recorder:
    """Notes when the functions in `ROWS` begin and end, in all threads, while it is active."""

    def __init__(self) -> None:
        self.watched: dict[CodeType, tuple[str, str]] = {
            function.__code__: row for function, row in ROWS.items()
        }
        self.spans: list[tuple[str, str, float, float]] = []
        self._begun: dict[int, float] = {}

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        row = self.watched.get(frame.f_code)
        if row is None:
            return
        if event == "call":
            self._begun[id(frame)] = time.perf_counter()
        elif event == "return" and id(frame) in self._begun:
            self.spans.append((*row, self._begun.pop(id(frame)), time.perf_counter()))

    def record(self, work: Callable[[], object]) -> list[tuple[str, str, float, float]]:
        """The spans of one run: kind, row, and both ends in seconds since the beginning."""
        threading.setprofile(self)
        sys.setprofile(self)
        start = time.perf_counter()
        try:
            work()
        finally:
            sys.setprofile(None)
            threading.setprofile(None)  # type: ignore[arg-type]
        return [(kind, row, begin - start, end - start) for kind, row, begin, end in self.spans]


def draw(runs: dict[str, list[tuple[str, str, float, float]]]) -> Image.Image:
    """One block of rows per run."""
    font = ImageFont.load_default(15)
    rows = {name: list(dict.fromkeys(row for _, row in ROWS.values())) for name in runs}
    present = {
        name: [row for row in rows[name] if any(span[1] == row for span in spans)]
        for name, spans in runs.items()
    }
    height = sum((len(rows) + 2) * (ROW + GAP) for rows in present.values()) + GAP
    image = Image.new("RGB", (WIDTH, height), "white")
    pen = ImageDraw.Draw(image)
    scale = (WIDTH - LEFT - 10) / SHOWN
    top = GAP
    for name, spans in runs.items():
        pen.text((10, top), name, fill="black", font=font)
        top += ROW + GAP
        for row in present[name]:
            pen.text((10, top + 4), row, fill="#444444", font=font)
            pen.rectangle((LEFT, top, WIDTH - 10, top + ROW), fill="#f0f0f0")
            for kind, where, begin, end in spans:
                if where == row and begin < SHOWN:
                    left, right = LEFT + begin * scale, LEFT + min(end, SHOWN) * scale
                    pen.rectangle((left, top, max(right - 1, left), top + ROW), fill=COLOURS[kind])
            top += ROW + GAP
        for tenth in range(10):
            at = LEFT + tenth / 10 * SHOWN * scale
            pen.text((at - 14, top - 2), f"{tenth * SHOWN * 100:.0f} ms", fill="#444444", font=font)
        top += ROW + GAP
    return image


def main(path: Annotated[Path, typer.Argument(help="Where to write the PNG.")]) -> None:
    """Draw the timelines of a picture of 2048x2048 x4 in tiles of 512, and of a video 720p x2."""
    torch.set_num_threads(2)
    runs = {}
    for name, case in (
        ("Picture, 2048x2048 x4 in tiles of 512, 50 ms each", "tiles-512"),
        ("Video, 1280x720 x2, 50 ms a frame", "video"),
    ):
        network, work = CASES[case](NAP)
        work()
        network.refill()
        runs[name] = Recorder().record(work)
    draw(runs).save(path, optimize=True)


if __name__ == "__main__":
    typer.run(main)
