"""Makes the repository importable as `fdat_dense_iso`, and spandrel importable beside a CPU
torch."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

# One thread: most tests are small, and a second thread that waits for them costs as much again.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from fdat_dense_iso.cpu_torchvision import make_torchvision_importable

make_torchvision_importable()
