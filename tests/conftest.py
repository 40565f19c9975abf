"""Makes the repository root importable (`arch`, `upscale`) and spandrel importable beside a CPU torch."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

os.environ.setdefault("OMP_NUM_THREADS", "2")

from cpu_torchvision import make_torchvision_importable  # noqa: E402

make_torchvision_importable()
