"""FDAT & Dense-Iso-ViT Upscale: a ComfyUI node pack.

Everything is imported when the host asks for the nodes, so that importing this package (as test
runners do) is free.
"""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """The host's entry point: the extension with the list of nodes."""
    from .nodes import Extension

    return Extension()
