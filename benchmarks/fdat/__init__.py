"""The exact engine against spandrel's FDAT: ``python -m benchmarks.fdat --help``."""

from fdat_dense_iso.cpu_torchvision import make_torchvision_importable

make_torchvision_importable()
