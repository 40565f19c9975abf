"""Dense-Iso-ViT: the network, its checkpoints, and how it runs quickly on windows."""
