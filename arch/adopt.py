"""Turns descriptors of spandrel's own FDAT, as other loaders hand them over, into descriptors of our FDAT."""

from __future__ import annotations

import logging
from weakref import WeakKeyDictionary

from spandrel import ImageModelDescriptor
from torch import nn

from .altered import is_hooked
from .defaults import usual_defaults
from .errors import ModelLoadError
from .fdat.network import FDAT, FDATArch

logger = logging.getLogger(__name__)

State = list[tuple[int, int]]

_adopted: WeakKeyDictionary[nn.Module, tuple[State, ImageModelDescriptor[FDAT]]] = WeakKeyDictionary()


def adopt(descriptor: ImageModelDescriptor) -> ImageModelDescriptor:
    """Rebuild a foreign FDAT from its state dict, once per model; return every other descriptor as it is.

    The result has the tensors' values, precision and device. It is kept as long as the foreign model lives, and built
    again once weights of that model were written to or replaced.

    An architecture of that name whose tensors are no FDAT known here is returned as it is, too, and so is a model that
    computes something else than its tensors say: one with hooks, or with an ``img_range`` other than 1.
    """
    model = descriptor.model
    if descriptor.architecture.id != "FDAT" or isinstance(model, FDAT):
        return descriptor
    if getattr(model, "img_range", 1) != 1 or any(map(is_hooked, model.modules())):
        return descriptor
    state = _state(model)
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


def _state(model: nn.Module) -> State:
    """Which weights a model has and how often they were written to; moving them to a device is not writing."""
    return [(id(weight), 0 if weight.is_inference() else weight._version) for weight in model.parameters()]
