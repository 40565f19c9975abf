"""What the C library's heap does with freed tensors."""

from __future__ import annotations

import torch

LARGEST_KEPT = 3 * 2**23
"""24 MiB: more than a tensor of FDAT's bands where images are not very wide. Of more than 32 MiB
glibc keeps none."""


def keep_freed_memory() -> None:
    """Let tensors of up to `LARGEST_KEPT` bytes on the CPU take the memory of those freed before
    them.

    glibc maps a block above a threshold from the system and gives it back when it is freed, so the
    next one's pages are cleared again; and it trims a heap whose end is free. The thresholds follow
    the largest mapped block that was freed so far, up to 32 MiB (mallopt(3), M_MMAP_THRESHOLD), so
    they depend on what the process did before. One such block, freed untouched, settles them. Other
    C libraries have no such state, and nothing comes of it there.
    """
    torch.empty(LARGEST_KEPT, dtype=torch.uint8, device="cpu")
