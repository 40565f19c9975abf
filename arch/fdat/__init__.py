"""FDAT (FastDAT): the network, its checkpoints, and how it runs exactly on images of any size."""
