"""ComfyUI's side: model folders, device memory, progress, interrupts. The only file that imports
the host."""

from __future__ import annotations

import logging
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import comfy.model_management as management
import comfy.model_patcher
import comfy.utils
import folder_paths
import torch
from comfy.cli_args import LatentPreviewMethod, args
from PIL import Image
from server import PromptServer
from server import nodes as host_nodes  # not this pack's
from spandrel import ImageModelDescriptor
from torch import Tensor

from .common.printable import shortened
from .upscale.image import check_model
from .upscale.memory import is_out_of_memory
from .upscale.placement import move
from .upscale.precision import in_precision
from .upscale.preview import thumbnail
from .upscale.throttle import Throttle

logger = logging.getLogger(__name__)

MODEL_FOLDER = "upscale_models"
SHARE_OF_FREE_MEMORY = 0.9
NOTE_EVENT = "fdat-dense-iso.note"
MESSAGE_EVENT = "fdat-dense-iso.message"
KEPT_NOTE = "fdat_dense_iso_note"
"""In a node's output: the host keeps it, and sends it again where it does not run the node again."""

# hosts before 0.29 have ModelPatcher alone
_Patcher = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)


def add_bundled_models(folder: Path) -> None:
    """Offer the checkpoints of ``folder`` beside the user's own."""
    folder_paths.add_model_folder_path(MODEL_FOLDER, str(folder))


def category(sibling: str, otherwise: str) -> str:
    """The menu in which the host has its node ``sibling``, which differs between versions."""
    return getattr(host_nodes.NODE_CLASS_MAPPINGS.get(sibling), "CATEGORY", otherwise)


def model_names() -> list[str]:
    """Files in the host's upscale model folders."""
    return folder_paths.get_filename_list(MODEL_FOLDER)


def model_path(name: str) -> str:
    """Full path of one of `model_names`. Raises FileNotFoundError for others."""
    return folder_paths.get_full_path_or_raise(MODEL_FOLDER, name)


def file_version(name: str) -> tuple[float, int]:
    """Changes when the file of that name does, or the JSON file of options beside it; a missing
    file gives zeros."""
    path = Path(folder_paths.get_full_path(MODEL_FOLDER, name) or name)
    states = [file.stat() for file in (path, path.with_suffix(".json")) if file.is_file()]
    return sum(state.st_mtime for state in states), sum(state.st_size for state in states)


def image_model(model: object) -> ImageModelDescriptor:
    """What a graph connected as UPSCALE_MODEL, if it is an image model. Raises ValueError for
    anything else."""
    check_model(model)
    return model  # type: ignore[return-value]


def attach_patcher(model: ImageModelDescriptor) -> comfy.model_patcher.ModelPatcher:
    """The patcher by which the host moves the model; made and set as ``model.patcher`` where there
    is none.

    Core's loader sets it since about 0.29, and core's upscaler and other packs rely on it.
    """
    patcher = getattr(model, "patcher", None)
    if patcher is None or patcher.model is not model.model:
        patcher = _Patcher(
            model.model,
            load_device=management.get_torch_device(),
            offload_device=management.unet_offload_device(),
        )
        model.patcher = patcher  # type: ignore[attr-defined]
    return patcher


class HostPlacement:
    """An `upscale.protocol.Placement` that lets the host load models and free memory.

    It moves a model itself only where another node has moved it behind the host's back.
    """

    def __init__(self, model: ImageModelDescriptor) -> None:
        self.device: torch.device = attach_patcher(model).load_device

    def auto_dtype(self, model: ImageModelDescriptor) -> torch.dtype:
        if model.supports_half and management.should_use_fp16(self.device):
            return torch.float16
        if model.supports_bfloat16 and management.should_use_bf16(self.device):
            return torch.bfloat16
        return torch.float32

    def prepare(
        self, model: ImageModelDescriptor, dtype: torch.dtype, memory_required: int
    ) -> ImageModelDescriptor:
        ready = in_precision(model, dtype)
        management.load_models_gpu(
            [attach_patcher(ready)], memory_required=memory_required, force_full_load=True
        )
        # dynamic loading may leave parameters behind, and another node may have moved the model
        move(ready.model, self.device)
        return ready.eval()

    def available(self) -> int:
        return int(management.get_free_memory(self.device) * SHARE_OF_FREE_MEMORY)

    def is_out_of_memory(self, error: BaseException) -> bool:
        host_says = getattr(management, "is_oom", None)
        return is_out_of_memory(error) or bool(host_says and host_says(error))

    def release_cache(self) -> None:
        management.soft_empty_cache()


def check_interrupt() -> None:
    """Raise what `is_interrupt` if the user has cancelled."""
    management.throw_exception_if_processing_interrupted()


def progress() -> Callable[[int, int], None]:
    """A callback that moves the node's progress bar and raises when the user interrupts."""
    bar = comfy.utils.ProgressBar(1)

    def report(done: int, total: int) -> None:
        check_interrupt()
        bar.update_absolute(done, total)

    return report


class HostPreview:
    """An `upscale.protocol.Preview` that shows the picture in the node."""

    def __init__(self) -> None:
        self._bar = comfy.utils.ProgressBar(1)
        self._throttle = Throttle()
        self._shown: Tensor | None = None

    def due(self) -> bool:
        return self._throttle.due()

    def show(self, thumbnail: Tensor, done: int, total: int) -> None:
        if self._shown is None or not torch.equal(thumbnail, self._shown):
            self._shown = thumbnail.clone()  # the host encodes it in another thread, later
            image = Image.fromarray(self._shown.numpy())
            largest = (
                args.preview_size if max(image.size) > args.preview_size else None
            )  # it would enlarge, too
            self._bar.update_absolute(done, total, ("JPEG", image, largest))
        self._throttle.done()


class FramePreview:
    """Shows finished frames of a video in the node, where previews are on."""

    def __init__(self, progress: Callable[[int, int], None], preview: HostPreview | None) -> None:
        self._progress, self._preview = progress, preview
        self._reached = 0, 1

    def progress(self, done: int, total: int) -> None:
        """Pass on how far the work is."""
        self._reached = done, total
        self._progress(done, total)

    def show(self, frame: Tensor) -> None:
        """Show (H, W, 3) floating point in [0, 1] as a thumbnail, if one is due."""
        if self._preview and self._preview.due():
            self._preview.show(thumbnail(frame), *self._reached)


def preview() -> HostPreview | None:
    """Shows pictures while they grow, where the user has live previews on (setting or
    ``--preview-method``)."""
    return None if args.preview_method == LatentPreviewMethod.NoPreviews else HostPreview()


def output(dtype: str) -> dict[str, Any]:
    """Where and how `upscale_image` makes pictures: as the host keeps them between nodes, or in the
    ``dtype`` named."""
    found = {
        "auto": getattr(management, "intermediate_dtype", lambda: torch.float32)(),
        "fp32": torch.float32,
        "fp16": torch.float16,
    }
    return {"dtype": found[dtype], "output_device": management.intermediate_device()}


def is_interrupt(error: BaseException) -> bool:
    """Whether the user cancelled."""
    return isinstance(error, management.InterruptProcessingException)


def temporary_path(suffix: str) -> Path:
    """The name of a file that the host removes when it starts or ends."""
    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"upscaled_{secrets.token_hex(8)}{suffix}"


def keep_file(path: Path, name: str) -> Path:
    """Move a file into the host's output folder, as NAME_00001_.mp4 or with the next free number;
    where it is then."""
    folder, stem, number, _, _ = folder_paths.get_save_image_path(
        name, folder_paths.get_output_directory()
    )
    return Path(shutil.move(path, Path(folder) / f"{stem}_{number:05}_{path.suffix}"))


def announce(node: str | None, text: str) -> None:
    """Say something in the log (so on the node that is `telling`), and in a message that stays until the
    user closes it (web/js/messages.js)."""
    logger.warning("%s", text)
    PromptServer.instance.send_sync(MESSAGE_EVENT, {"node": node, "text": shortened(text)})


@contextmanager
def telling(node: str | None) -> Iterator[list[str]]:
    """While this lasts, what this pack warns of in the log is shown on the node, too.

    Gives the list that it is collected in, for `note`. web/js/messages.js shows it until the node
    runs again.
    """
    handler = _Teller(node)
    pack = logging.getLogger(__package__)
    pack.addHandler(handler)
    try:
        yield handler.said
    finally:
        pack.removeHandler(handler)


def note(said: list[str]) -> dict[str, list[str]] | None:
    """What a node gives the interface to show again when its result is taken from the cache."""
    return {KEPT_NOTE: said} if said else None


class _Teller(logging.Handler):
    """Shows warnings on a node, each once and all of them together."""

    def __init__(self, node: str | None) -> None:
        super().__init__(logging.WARNING)
        self.node = node
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = shortened(record.getMessage())
        if text not in self.said:
            self.said.append(text)
            if self.node is None:  # an old host does not say which one runs
                return
            shown = {"node": self.node, "text": "\n".join(self.said)}
            PromptServer.instance.send_sync(NOTE_EVENT, shown)
