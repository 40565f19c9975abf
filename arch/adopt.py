"""Turns descriptors of spandrel's own FDAT, as other loaders hand them over, into descriptors of our FDAT."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from spandrel import ImageModelDescriptor
from torch import nn

from .fdat import FDAT, FDATArch

_adopted: WeakKeyDictionary[nn.Module, ImageModelDescriptor[FDAT]] = WeakKeyDictionary()


def adopt(descriptor: ImageModelDescriptor) -> ImageModelDescriptor:
    """Rebuild a foreign FDAT from its state dict, once per model; return every other descriptor as it is.

    The result has the tensors' values, precision and device. It is kept as long as the foreign model lives, so weights
    that are written into that model afterwards are not seen.

    Raises:
        ModelLoadError: an architecture called FDAT whose tensors are no FDAT that this package knows.
    """
    model = descriptor.model
    if descriptor.architecture.id != "FDAT" or isinstance(model, FDAT):
        return descriptor
    adopted = _adopted.get(model)
    if adopted is None:
        adopted = FDATArch().load(model.state_dict()).to(descriptor.device, descriptor.dtype)
        adopted.model.train(model.training)
        _adopted[model] = adopted
    if adopted.device != descriptor.device or adopted.dtype != descriptor.dtype:
        adopted.to(descriptor.device, descriptor.dtype)
    return adopted
