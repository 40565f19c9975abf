"""What tests share: networks, pictures, videos and checkpoints to test with."""
