"""Upscales pictures that are larger than memory: rows in, finished rows out, from the top."""
