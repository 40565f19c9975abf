"""Turns descriptors of spandrel's own FDAT, as other loaders return them, into ours."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

from spandrel import ImageModelDescriptor
from torch import Tensor, nn

from ..common.fingerprint import Fingerprint, fingerprint
from .errors import ModelLoadError
from .fdat.architecture import FDATArch
from .fdat.network import FDAT
from .guards import is_hooked, usual_defaults

logger = logging.getLogger(__name__)

_adopted: WeakKeyDictionary[nn.Module, tuple[Fingerprint, ImageModelDescriptor[FDAT]]] = (
    WeakKeyDictionary()
)


def adopt(descriptor: Any) -> Any:
    """Rebuild a foreign FDAT from its state dict; return everything else as it is.

    The result has the tensors' values and precision, and uses their memory as long as nobody moves
    it elsewhere. It is kept as long as the foreign model lives, and built again only after weights
    of that model were written to, replaced, cast or moved.

    Also returned as they are: an FDAT whose tensors are not those of any FDAT known here, and a
    model whose tensors don't determine its result, because it has hooks or an ``img_range`` other
    than 1.
    """
    if not isinstance(descriptor, ImageModelDescriptor) or descriptor.architecture.id != "FDAT":
        return descriptor
    model = descriptor.model
    if isinstance(model, FDAT):
        return descriptor
    if getattr(model, "img_range", 1) != 1 or any(map(is_hooked, model.modules())):
        return descriptor
    state = fingerprint([*model.parameters(), *model.buffers()])
    known, adopted = _adopted.get(model, (None, None))
    if adopted is None or known != state:
        state_dict = model.state_dict()
        architecture = FDATArch()
        try:
            if not architecture.detect(state_dict):
                return descriptor
            with usual_defaults():
                adopted = architecture.load(state_dict).to(descriptor.device, descriptor.dtype)
        except (ModelLoadError, RuntimeError, KeyError, ValueError) as error:
            logger.info("running %s by its own code: %s", type(model).__name__, error)
            return descriptor
        adopted.model.train(model.training).requires_grad_(False)
        _adopted[model] = state, adopted
    _share(adopted.model, model.state_dict())
    return adopted


def _share(ours: nn.Module, theirs: Mapping[str, Tensor]) -> None:
    """Let our network use the memory of the foreign one's tensors, where that is on our device.

    The parameters themselves stay two, so that a host may move either network without the other.
    """
    for name, tensor in (*ours.named_parameters(), *ours.named_buffers()):
        shared = theirs.get(name)
        alike = shared is not None and (shared.device, shared.dtype, shared.shape) == (
            *(tensor.device, tensor.dtype, tensor.shape),
        )
        if alike and shared.data_ptr() != tensor.data_ptr():
            tensor.data = shared.detach()
