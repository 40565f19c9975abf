"""For tests of checkpoints that torch.save wrote."""

from __future__ import annotations

import pytest
import torch

from fdat_dense_iso.arch.files import SAFE_PICKLES

pickles = pytest.mark.skipif(
    torch.__version__ < SAFE_PICKLES,  # type: ignore[operator]
    reason="this torch can be made to run code by them, so they are refused",
)
