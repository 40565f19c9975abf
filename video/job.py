"""Upscales a video into a file, frame by frame, by a function that the caller passes."""

from __future__ import annotations

import heapq
import io
import json
import logging
import secrets
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

import av
from torch import Tensor

from ..common.leftovers import clear_away, put_in_place
from ..common.lock import check_free, held
from .assembly import Assembly, EncodedSegment, decoding_time
from .colour import VideoError
from .drawing import check_picture, pictures_of
from .encoding import EncodingThread
from .form import ResultForm
from .resume import STATE, lock_path, old_path, partial_path, unfinished
from .source import SourceFrame, VideoSource
from .streams import StreamWriter, template_stream
from .write import CONTAINERS, GROWING, SEGMENT_FRAMES, UNDECODED, Encoding, bits_of

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""``progress(done, total)``; an exception that it raises ends the work."""
Upscale = Callable[..., None]
"""``upscale(frames, deliver, progress=progress)`` draws frames, (H, W, 3) float32 in [0, 1], or None for one
that is the same as the one before. It may draw some ahead, and in another thread. For each, in
their order and in the thread that called it, it calls ``deliver(picture)``: (*size, 3) floating
point on the CPU, for None the same tensor as before. Between, it reports ``progress(done, total)``:
``total`` are the steps of one frame, ``done`` those of all frames until now. After an exception it
delivers what is ready, and raises it. With ``lead=N`` the first N frames are only there to be looked
at, for those after them, and are not delivered."""
Elsewhere = Callable[[int, Progress], Iterator[EncodedSegment]]
"""``encoded(first, progress)`` gives the segments from that number on, in their order. Progress is
that of frames."""

# metadata that describe the source's file format, which are not copied
_OF_THE_FORMAT = ("major_brand", "minor_version", "compatible_brands", "encoder", STATE.lower())


class VideoJob:
    """One video to upscale into one file.

    Args:
        source: the video; open, and left open.
        target: the file, with one of the suffixes in `write.CONTAINERS`. It appears when it is
            complete; until then the result is in ``partial`` beside it, which is kept if the work
            ends early.
        size: height and width of the upscaled pictures, as displayed. An odd one is made even by
            repeating the last row or column where the pixel format needs it.
        encoding: codec, quality and pixel format.
        settings: what else the frames depend on; resuming with other settings is refused.
        context: how many frames before a frame ``upscale`` looks at. When a run is resumed, so many
            of those that were done come first, as its ``lead``.
        resume: continue ``partial`` if there is one.
        overwrite: replace ``target``, and without ``resume`` also ``partial``.

    Raises VideoError for what cannot be done, before anything is written, and InUseError where
    another run writes ``target``; `run` does so, too.
    """

    def __init__(
        self,
        source: VideoSource,
        target: Path,
        *,
        size: tuple[int, int],
        encoding: Encoding | None = None,
        settings: dict[str, Any] | None = None,
        context: int = 0,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        self.source, self.target, self.partial = source, target, partial_path(target)
        if target.exists() and not overwrite:
            raise VideoError(f"{target} exists and is not to be replaced")
        check_free(lock_path(target), target)
        self.encoding = (encoding or Encoding()).resolved(source.bits, target.suffix)
        self.upscaled_size = size
        self._context = context
        form = ResultForm(source, self.encoding, size)
        self.size = form.size
        """Height and width of the result as displayed."""
        if self.size != size:
            logger.warning(
                "%s: %s needs even sizes: %dx%d becomes %dx%d by repeating the last row or column",
                *(target, self.encoding.pixel_format, *size[::-1], *self.size[::-1]),
            )
        self._make_frame, self._encoder, self._aspect = (
            form.make_frame,
            form.encoder,
            form.pixel_aspect,
        )
        if self._aspect != 1 and not self.encoding.keeps_aspect(target.suffix):
            logger.warning(
                "%s: %s does not keep the shape of pixels (%s) in %s; write MP4, or give a target of "
                "both sides for square ones",
                *(target, self.encoding.codec, self._aspect, target.suffix),
            )
        bits = bits_of(self.encoding.pixel_format)
        if bits < source.bits:
            logger.warning("%s: %d bits a sample become %d", source, source.bits, bits)
        lost = source.lost + ([] if self.encoding.keeps(source.hdr) else [*source.hdr.named])
        if lost:
            logger.warning("%s: left out: %s", source, ", ".join(lost))
        self._template = template_stream(self._encoder.sample, source.orientation.matrix)
        self._metadata = {
            k: v for k, v in source.metadata.items() if k.lower() not in _OF_THE_FORMAT
        }
        # a file in memory shows whether the format can hold all streams
        with self._final_writer(io.BytesIO()) as writer:
            if writer.left_out:
                logger.warning(
                    "%s cannot hold and leaves out: %s", target, ", ".join(writer.left_out)
                )
            if writer.converted:
                logger.warning("%s: converted: %s", target, ", ".join(writer.converted))

        self.frames = 0
        """Frames in ``partial``, and in the end in ``target``."""
        self.computed = 0
        """Frames that were upscaled in this run; those that repeat the one before are not."""
        # pts of the first and the last frame, and where the latter ends
        self.damage: list[str] = []
        """In the end, what was broken or missing in the source, in words."""
        self._begin = self._last = self._end = 0
        state = {
            "source": source.identity(),
            "size": list(size),
            "libraries": av.__version__,
            **(settings or {}),
        }
        self._state = json.loads(json.dumps(state | asdict(self.encoding)))
        self._kept = unfinished(target)
        if self._kept and resume:
            self._kept.check(self._state)
        elif self._kept and not overwrite:
            raise VideoError(
                f"{self._kept.path} holds the first {self._kept.frames} frames of an earlier run; resume it, or "
                "overwrite it"
            )
        else:
            self._kept = None

    def run(self, upscale: Upscale, progress: Progress | None = None) -> None:
        """Upscale the video and write the file.

        After an exception ``partial`` holds the first ``frames`` frames of the result, and can be
        played and resumed; without frames it is removed.
        """
        self._locked(lambda writer, told: self._write_frames(writer, upscale, told), progress)

    def run_elsewhere(self, encoded: Elsewhere, progress: Progress | None = None) -> None:
        """The same, of segments that are decoded, upscaled and encoded elsewhere."""
        self._locked(lambda writer, told: self._write_segments(writer, encoded, told), progress)

    def _locked(
        self, write: Callable[[StreamWriter, Progress], None], progress: Progress | None
    ) -> None:
        self.target.parent.mkdir(parents=True, exist_ok=True)
        with held(lock_path(self.target), self.target):
            self._run(write, progress)

    def _run(
        self, write: Callable[[StreamWriter, Progress], None], progress: Progress | None
    ) -> None:
        kept, old = self._kept, old_path(self.target)
        try:
            if kept and kept.path != old:
                put_in_place(kept.path, old)
                kept.path = old
            with StreamWriter(
                self.partial,
                GROWING,
                self._template,
                self.source.beside,
                pixel_aspect=self._aspect,
                time_base=self.source.time_base,
                metadata=self._metadata | {STATE: json.dumps(self._state)},
                lenient=True,
            ) as writer:
                write(writer, progress or (lambda done, total: None))
            self._complete()
        except BaseException:
            if kept and kept.path.exists():  # not all of it was copied
                put_in_place(kept.path, self.partial)
                self.frames = kept.frames
            elif not self.frames:
                clear_away(self.partial)
            raise

    def _write_frames(self, writer: StreamWriter, upscale: Upscale, progress: Progress) -> None:
        """Write all frames to ``partial``.

        Decoding runs ahead, in the thread of ``upscale`` that draws frames, and encoding behind, in
        a thread of its own, so that the model waits for neither, and so that Ctrl-C can't interrupt
        encoding between packets.
        """
        assembly = Assembly(writer, self.source, self._encoder, self._make_frame, self._kept)
        source = self._frames(assembly)
        drawn: deque[SourceFrame] = deque()
        before: deque[SourceFrame] = deque(maxlen=self._context)
        last: Tensor | None = None

        def noted() -> Iterator[SourceFrame]:
            for item in source:
                drawn.append(item)
                yield item

        def deliver(picture: Tensor) -> None:
            nonlocal last
            item, same = drawn.popleft(), picture is last
            if not same:
                check_picture(picture, self.upscaled_size)
                self.computed += 1
            last = picture
            encoder.add(item, None if same else self.source.orientation.stored(picture))

        def report(done: int, total: int) -> None:
            begun = assembly.skipped + -(-done // total)
            progress(assembly.skipped * total + done, max(self.source.frame_count, begun) * total)

        try:
            with EncodingThread(assembly) as encoder:
                for item in islice(source, assembly.skipped):
                    encoder.add(item, None)
                    before.append(item)
                    progress(encoder.added, max(self.source.frame_count, encoder.added))
                lead = {"lead": len(before)} if before else {}
                upscale(pictures_of(chain(before, noted())), deliver, progress=report, **lead)
        finally:
            self.frames = assembly.frames

    def _write_segments(self, writer: StreamWriter, encoded: Elsewhere, progress: Progress) -> None:
        """Write all segments to ``partial``, and what is played beside them."""
        assembly = Assembly(writer, self.source, self._encoder, self._make_frame, self._kept)
        played = {stream.index for stream in self.source.beside.played}
        packets = (one for one in self.source.packets() if one.stream.index in played)
        beside, done, expected = next(packets, None), 0, self.source.frame_count
        try:
            first = assembly.skipped // SEGMENT_FRAMES
            kept = (assembly.add_kept() for _ in range(first))
            for segment in chain(kept, encoded(first, progress)):
                times = segment
                if isinstance(segment, EncodedSegment):
                    times = segment.times
                    assembly.add_segment(segment)
                    self.computed += len(times)
                else:
                    progress(done + len(times), max(expected, done + len(times)))
                self._begin = times[0][0] if done == 0 else self._begin
                self._last, self._end = times[-1][0], sum(times[-1])
                done += len(times)
                while beside and decoding_time(beside) < self._end * self.source.time_base:
                    assembly.hold(beside)
                    beside = next(packets, None)
            while beside:
                assembly.hold(beside)
                beside = next(packets, None)
        finally:
            assembly.end()
            self.frames = assembly.frames

    def _frames(self, assembly: Assembly) -> Iterator[SourceFrame]:
        """The frames of the source, noting where the video begins and ends."""
        number = 0
        for item in self.source:
            if isinstance(item, av.Packet):
                assembly.hold(item)
                continue
            self._begin = item.pts if number == 0 else self._begin
            self._last, self._end = item.pts, item.pts + item.duration
            number += 1
            yield item

    def _complete(self) -> None:
        """Write the final file, with the video's packets from ``partial``, and move it in place."""
        written = self.target.with_name(f".{secrets.token_hex(8)}.part")
        try:
            with (
                av.open(str(self.partial), options=UNDECODED) as container,
                self._final_writer(written) as to,
            ):
                pictures = ((packet, None) for packet in self._pictures(container))
                others = ((packet, packet.stream.index) for packet in self.source.packets())
                for packet, stream in heapq.merge(
                    pictures, others, key=lambda pair: decoding_time(pair[0])
                ):
                    to.write(packet, stream)
            put_in_place(written, self.target)
            self.damage = list(self.source.damage)
            if to.broken:
                self.damage.append(f"{to.broken} packets of sound or subtitles are broken")
                logger.warning("%s: left out: %s", self.source, self.damage[-1])
        finally:
            clear_away(written)
        clear_away(self.partial)
        clear_away(old_path(self.target))

    def _final_writer(self, file: Path | BinaryIO) -> StreamWriter:
        container = CONTAINERS[self.target.suffix.lower()]
        return StreamWriter(
            file,
            container if isinstance(file, Path) else replace(container, options={}),
            self._template,
            self.source.beside,
            pixel_aspect=self._aspect,
            time_base=self.source.time_base,
            metadata=self._metadata,
            chapters=self.source.chapters,
        )

    def _pictures(self, container: Any) -> Iterator[av.Packet]:
        """The packets of ``partial``.

        The duration of the last one in decoding order makes the video as long as the source.
        """
        first = 0
        for number, packet in enumerate(container.demux(container.streams.video[0]), 1):
            if packet.dts is None:
                return
            first = packet.dts if number == 1 else first
            if number == self.frames:
                end = self._end if self.source.end is None else max(self.source.end, self._last + 1)
                length = round((end - self._begin) * self.source.time_base / packet.time_base)
                packet.duration = max(length - (packet.dts - first), 1)
            yield packet
