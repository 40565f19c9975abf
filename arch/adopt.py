"""Turns descriptors of spandrel's own FDAT, as other loaders hand them over, into descriptors of our FDAT."""

from __future__ import annotations

import logging
from weakref import WeakKeyDictionary

import torch
from spandrel import ImageModelDescriptor
from torch import nn

from .errors import ModelLoadError
from .fdat import FDAT, FDATArch

logger = logging.getLogger(__name__)

_adopted: WeakKeyDictionary[nn.Module, ImageModelDescriptor[FDAT]] = WeakKeyDictionary()


def adopt(descriptor: ImageModelDescriptor) -> ImageModelDescriptor:
    """Rebuild a foreign FDAT from its state dict, once per model; return every other descriptor as it is.

    The result has the tensors' values, precision and device. It is kept as long as the foreign model lives, so weights
    that are written into that model afterwards are not seen.

    An architecture of that name whose tensors are no FDAT known here is returned as it is, too.
    """
    model = descriptor.model
    if descriptor.architecture.id != "FDAT" or isinstance(model, FDAT):
        return descriptor
    adopted = _adopted.get(model)
    if adopted is None:
        state_dict = model.state_dict()
        architecture = FDATArch()
        try:
            if not architecture.detect(state_dict):
                return descriptor
            with torch.inference_mode(False):  # inference tensors don't count their changes
                adopted = architecture.load(state_dict).to(descriptor.device, descriptor.dtype)
        except (ModelLoadError, RuntimeError, KeyError, ValueError) as error:
            logger.info("running %s by its own code: %s", type(model).__name__, error)
            return descriptor
        adopted.model.train(model.training)
        _adopted[model] = adopted
    if adopted.device != descriptor.device or adopted.dtype != descriptor.dtype:
        adopted.to(descriptor.device, descriptor.dtype)
    return adopted
