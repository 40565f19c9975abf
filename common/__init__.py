"""What `arch` and `upscale` both need, which know nothing of each other."""
