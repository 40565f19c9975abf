"""The option by which the node for videos uses more than the host's own device, declared once."""

from __future__ import annotations

from .option import Option

SPREADING: tuple[Option, ...] = (
    Option(
        name="devices",
        kind="text",
        unset="",
        where=("video",),
        advanced=True,
        appended=True,
        text="Other GPUs of this machine that help, through Ray: {unset} for none, all, or "
        "cuda:1,cuda:2. ComfyUI's own GPU always works too.",
        more="Each GPU gets parts of the video, which are joined: the result is that of one GPU of the "
        "same kind. This needs the package ray (`python -m pip install -r requirements-cluster.txt` in "
        "the folder of this pack), and is worth it for long videos: starting takes about ten seconds, "
        "and each GPU holds the model. cpu:2: two workers on the CPU, to try it without GPUs.",
    ),
)
