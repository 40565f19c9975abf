"""Dense-Iso-ViT for inference: the same output with less work."""
