"""Networks that take windows of one size, on images of any size."""
