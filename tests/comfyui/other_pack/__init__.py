"""Another node pack, as there are many: its loader knows nothing of patchers, and gives what it
likes.

`Compare` shows what pictures on disk, with their 255 levels, would hide. `EditVideo` and
`CreateVideo` give videos as hosts from 0.34 on know them, to whichever host runs this.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy
import spandrel
import torch
from comfy_api.latest import InputImpl, Types


class Loader:
    RETURN_TYPES = ("UPSCALE_MODEL",)
    FUNCTION = "load"
    CATEGORY = "loaders"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, object]:
        return {
            "required": {"path": ("STRING", {}), "gives": (["model", "half model", "path"], {})}
        }

    def load(self, path: str, gives: str) -> tuple[object]:
        if gives == "path":
            return (path,)
        model = spandrel.ModelLoader().load_from_file(path)
        return (model.half() if gives == "half model" else model,)


class Compare:
    """Writes the largest difference of every pixel and the deviation of the first picture to an
    .npz file."""

    RETURN_TYPES = ()
    FUNCTION = "compare"
    CATEGORY = "image"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, object]:
        return {"required": {"first": ("IMAGE",), "second": ("IMAGE",), "path": ("STRING", {})}}

    def compare(self, first: torch.Tensor, second: torch.Tensor, path: str) -> dict[str, object]:
        difference = (first.float() - second.float()).abs().amax(-1)[0]
        numpy.savez(path, difference=difference.cpu().numpy(), deviation=first.float().std().item())
        return {}


class EditedVideo:
    """A file with an edit that the host applies when the video is read: a crop, or mirrored."""

    def __init__(self, path: str, crop: tuple[int, int, int, int] | None, start: float) -> None:
        self._path, self._crop, self._start = path, crop, start

    def get_stream_source(self) -> str:
        return self._path

    def get_active_trim_window(self) -> tuple[float, float]:
        return self._start, 0.0

    def get_dimensions(self) -> tuple[int, int]:
        with av.open(self._path) as container:
            return (
                self._crop[2:]
                if self._crop
                else (container.streams.video[0].width, container.streams.video[0].height)
            )

    def save_to(
        self,
        path: str,
        format: Any = "auto",
        codec: Any = "auto",
        metadata: dict[str, str] | None = None,
        bit_depth: int | None = None,
        crf: float | None = None,
        color_space: str | None = None,
        preset: str | None = None,
    ) -> None:
        with av.open(self._path) as source, av.open(path, "w") as target:
            read = source.streams.video[0]
            width, height = self.get_dimensions()
            options = {"crf": str(23 if crf is None else crf)}
            written = target.add_stream("h264", rate=read.average_rate, options=options)
            written.width, written.height, written.pix_fmt = width, height, "yuv420p"
            written.codec_context.time_base = read.time_base
            first = None
            for frame in source.decode(read):
                if frame.time < self._start:
                    continue
                first = frame.pts if first is None else first
                planes = [
                    self._edited(plane, number) for number, plane in enumerate(_planes(frame))
                ]
                made = av.VideoFrame(width, height, "yuv420p")
                for plane, samples in zip(made.planes, planes):
                    rows = numpy.frombuffer(plane, numpy.uint8).reshape(plane.height, -1)
                    rows[:, : samples.shape[1]] = samples
                made.pts, made.time_base = frame.pts - first, frame.time_base
                target.mux(written.encode(made))
            target.mux(written.encode(None))

    def _edited(self, samples: numpy.ndarray, plane: int) -> numpy.ndarray:
        if self._crop is None:
            return samples[:, ::-1]
        left, top, width, height = (side // 2 if plane else side for side in self._crop)
        return samples[top : top + height, left : left + width]


class EditedVideoThatSaysSo(EditedVideo):
    def has_pending_frame_edits(self) -> bool:
        return True


def _planes(frame: av.VideoFrame) -> list[numpy.ndarray]:
    widths = (frame.width, (frame.width + 1) // 2, (frame.width + 1) // 2)
    return [
        numpy.frombuffer(plane, numpy.uint8).reshape(plane.height, -1)[:, :width]
        for plane, width in zip(frame.planes, widths)
    ]


class EditVideo:
    RETURN_TYPES = ("VIDEO",)
    FUNCTION = "edit"
    CATEGORY = "video"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, object]:
        edits = ["crop", "crop without a word", "mirror"]
        return {"required": {"video": ("VIDEO",), "edit": (edits,), "start": ("FLOAT", {})}}

    def edit(self, video: Any, edit: str, start: float) -> tuple[object]:
        kind = EditedVideo if edit == "crop without a word" else EditedVideoThatSaysSo
        crop = None if edit == "mirror" else (16, 8, 32, 24)
        return (kind(str(Path(video.get_stream_source())), crop, start),)


class CreatedVideo(InputImpl.VideoFromComponents):
    """With a choice of colours and depth, which hosts before 0.34 lack."""

    colour_space, depth = "sRGB", 8

    def get_color_space(self) -> str:
        return self.colour_space

    def get_bit_depth(self) -> int:
        return self.depth


class CreateVideo:
    """Three frames of a ramp from 0.4 to 0.6: grey, RGB, or RGBA that is half transparent."""

    RETURN_TYPES = ("VIDEO",)
    FUNCTION = "create"
    CATEGORY = "video"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, object]:
        fields = {"channels": ("INT", {}), "colour_space": ("STRING", {}), "depth": ("INT", {})}
        return {"required": fields}

    def create(self, channels: int, colour_space: str, depth: int) -> tuple[object]:
        ramp = torch.linspace(0.4, 0.6, 256).expand(3, 64, 256)[..., None]
        images = ramp.repeat(1, 1, 1, channels)
        if channels == 4:
            images[..., 3] = 0.5
        video = CreatedVideo(Types.VideoComponents(images=images, frame_rate=Fraction(24)))
        video.colour_space, video.depth = colour_space, depth
        return (video,)


NODE_CLASS_MAPPINGS = {
    "OtherPackLoader": Loader,
    "OtherPackCompare": Compare,
    "OtherPackEditVideo": EditVideo,
    "OtherPackCreateVideo": CreateVideo,
}
