"""Makes the C library's heap keep the memory of freed tensors."""

from __future__ import annotations

import torch

LARGEST_KEPT = 3 * 2**23
"""24 MiB: more than any tensor of FDAT's bands, unless the image is very wide. glibc keeps no block
above 32 MiB."""


def keep_freed_memory() -> None:
    """Let CPU tensors of up to `LARGEST_KEPT` bytes reuse the memory of freed tensors.

    glibc maps a block above a threshold from the system and gives it back when it is freed, so the
    system clears the pages of the next block again; and it trims a heap whose end is free. Both
    thresholds follow the largest mapped block that was freed so far, up to 32 MiB (mallopt(3),
    M_MMAP_THRESHOLD), so they depend on what the process did before. Allocating and freeing one
    block of this size raises them. With other C libraries the call has no effect.
    """
    torch.empty(LARGEST_KEPT, dtype=torch.uint8, device="cpu")
