"""Recognises a Dense-Iso-ViT in checkpoints of unknown naming."""
