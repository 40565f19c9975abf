"""Networks and checkpoints: FDAT, Dense-Iso-ViT, and through spandrel every other architecture it knows."""
