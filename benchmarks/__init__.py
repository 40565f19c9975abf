"""Measures speed, memory and quality; every figure is printed by a command."""

from fdat_dense_iso.cpu_torchvision import make_torchvision_importable

make_torchvision_importable()
