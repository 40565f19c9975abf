"""The command line: upscales pictures and videos."""
