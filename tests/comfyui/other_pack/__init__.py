"""Another node pack, as there are many: its loader knows nothing of patchers, and gives what it
likes.

`Compare` shows what pictures on disk, with their 255 levels, would hide.
"""

from __future__ import annotations

import numpy
import spandrel
import torch


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


NODE_CLASS_MAPPINGS = {"OtherPackLoader": Loader, "OtherPackCompare": Compare}
