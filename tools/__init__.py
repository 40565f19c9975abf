"""Training, conversion, metrics and the demo: what makes and checks models, outside the node
pack."""

from fdat_dense_iso.cpu_torchvision import make_torchvision_importable

make_torchvision_importable()
