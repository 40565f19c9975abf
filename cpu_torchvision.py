"""Makes torchvision importable if its compiled operators don't load (a CUDA build, a CPU torch).

spandrel imports torchvision, and torchvision registers shape functions for operators of its own
compiled library. Where that library does not load, the import ends in "operator torchvision::nms
does not exist". The operators are never called here, so declaring them is enough.

For the command line, tests, tools and benchmarks only: call it before the first import of spandrel.
Inside ComfyUI the torchvision of the host is left alone.
"""

from __future__ import annotations

import importlib
import sys

_OPERATORS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_MISSING_OPERATOR = "operator torchvision::nms does not exist"

# a torch.library.Library removes its operators when it is garbage-collected
_declarations: list[object] = []


def make_torchvision_importable() -> None:
    """Import torchvision; where it fails for missing operators, declare them and import it again.

    Calling it again does nothing. Every other error of the import (torchvision is not installed,
    say) is raised as it is.
    """
    try:
        importlib.import_module("torchvision")
        return
    except RuntimeError as error:
        if _MISSING_OPERATOR not in str(error):
            raise

    import torch

    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")
    _declarations.append(library)
    for operator, signature in _OPERATORS.items():
        if not hasattr(torch.ops.torchvision, operator):
            library.define(operator + signature)
    importlib.import_module("torchvision")
