"""Another node pack, as there are many: its loader knows nothing of patchers, and gives what it likes."""

from __future__ import annotations

import spandrel


class Loader:
    RETURN_TYPES = ("UPSCALE_MODEL",)
    FUNCTION = "load"
    CATEGORY = "loaders"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, object]:
        return {"required": {"path": ("STRING", {}), "gives": (["model", "half model", "path"], {})}}

    def load(self, path: str, gives: str) -> tuple[object]:
        if gives == "path":
            return (path,)
        model = spandrel.ModelLoader().load_from_file(path)
        return (model.half() if gives == "half model" else model,)


NODE_CLASS_MAPPINGS = {"OtherPackLoader": Loader}
