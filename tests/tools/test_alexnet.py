"""The network of LPIPS from a package of PyPI: a small package of the same form."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tools.alexnet import MEMBER, PLACES, read_alexnet


def package(folder: Path, content: object) -> Path:
    data = pickle.dumps(content, protocol=3)
    path = folder / "package.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo(MEMBER)
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return path


def test_kernels_come_in_the_order_of_torch(tmp_path: Path) -> None:
    kernel = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)  # (H, W, in, out)
    layers = {f"Conv_{i}": {"kernel": kernel + i, "bias": np.full(5, i, "f4")} for i in range(5)}
    weights = read_alexnet(package(tmp_path, {"AlexNet_0": layers}))
    assert list(weights)[:2] == ["slice1.0.weight", "slice1.0.bias"] and len(weights) == 10
    picture = torch.randn(1, 4, 2, 3, generator=torch.Generator().manual_seed(0))
    for index, place in enumerate(PLACES):
        weight, bias = (weights[f"slice{index + 1}.{place}.{name}"] for name in ("weight", "bias"))
        found = F.conv2d(picture, weight, bias).flatten()
        expected = np.einsum("hwio,ihw->o", kernel + index, picture[0].numpy()) + index
        np.testing.assert_allclose(found, expected, rtol=1e-5)


class Harm:
    def __reduce__(self) -> tuple[object, ...]:
        return os.getcwd, ()


def test_what_could_run_code_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(pickle.UnpicklingError, match="getcwd does not belong"):
        read_alexnet(package(tmp_path, {"AlexNet_0": Harm()}))
