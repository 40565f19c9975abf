"""An accelerator without hardware, for tests: separate memory, streams, late copies, counted waits.

    with pretended_device() as pretended:
        result = upscale_image(model, image, device=pretended.device)
    print(pretended.places())

It is one process's only device of torch's kind "privateuseone", and is registered at the first use.
"""

from .clocks import DeviceFault as DeviceFault
from .clocks import Wait as Wait
from .device import pretended_device as pretended_device
from .state import Pretended as Pretended
