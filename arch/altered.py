"""Whether a network still computes what its class says, so that engines may read its weights in place of calling it."""

from __future__ import annotations

from torch import nn

_OWN_CODE = ("torch.nn.", f"{__name__.rpartition('.')[0]}.")


def is_hooked(module: nn.Module) -> bool:
    """Whether this module (not those inside) was made to do something else, by hooks or by a ``forward`` of its own."""
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))


def is_altered(network: nn.Module) -> bool:
    """Whether any part of a network is hooked, or of a class that neither PyTorch nor this package wrote."""
    return any(is_hooked(m) or not type(m).forward.__module__.startswith(_OWN_CODE) for m in network.modules())
