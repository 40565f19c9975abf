"""An accelerator without hardware, for tests: separate memory, streams, late copies, counted waits.

    with pretended_device() as pretended:
        result = upscale_image(model, image, device=pretended.device)
    print(pretended.places())

It takes the process's only place for a device that torch does not know ("privateuseone"), at the
first use and for good; outside of the context it is there by name and not available. Modules that
import this are skipped where torch can't register a device from Python.
"""

import pytest
import torch

if not hasattr(torch._C, "_acc") or not hasattr(torch.accelerator, "get_memory_info"):
    pytest.skip(
        f"torch {torch.__version__} can't register a device from Python", allow_module_level=True
    )

from .clocks import DeviceFault as DeviceFault
from .clocks import Wait as Wait
from .device import pretended_device as pretended_device
from .state import Pretended as Pretended
