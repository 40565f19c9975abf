"""Turns descriptors of spandrel's own FDAT, as other loaders return them, into ours."""

from __future__ import annotations

import logging
from weakref import WeakKeyDictionary

from spandrel import ImageModelDescriptor
from torch import nn

from ..common.fingerprint import Fingerprint, fingerprint
from .errors import ModelLoadError
from .fdat.architecture import FDATArch
from .fdat.network import FDAT
from .guards import is_hooked, usual_defaults

logger = logging.getLogger(__name__)

_adopted: WeakKeyDictionary[nn.Module, tuple[Fingerprint, ImageModelDescriptor[FDAT]]] = (
    WeakKeyDictionary()
)


def adopt(descriptor: ImageModelDescriptor) -> ImageModelDescriptor:
    """Rebuild a foreign FDAT from its state dict; return every other descriptor as it is.

    The result has the tensors' values, precision and device. It is kept as long as the foreign
    model lives, and built again only after weights of that model were written to, replaced, cast
    or moved.

    Also returned as they are: an FDAT whose tensors are not those of any FDAT known here, and a
    model whose tensors don't determine its result, because it has hooks or an ``img_range`` other
    than 1.
    """
    model = descriptor.model
    if descriptor.architecture.id != "FDAT" or isinstance(model, FDAT):
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
        adopted.model.train(model.training)
        _adopted[model] = state, adopted
    if adopted.device != descriptor.device or adopted.dtype != descriptor.dtype:
        adopted.to(descriptor.device, descriptor.dtype)
    return adopted
