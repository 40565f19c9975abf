"""Running out of memory: how it is recognised, and the error that says what to do."""

from __future__ import annotations

import torch

OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "could not allocate",
    "alloc_failed",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out.

    CUDA has a type for that; the CPU, MPS and cuBLAS only say so in the message.
    """
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        text in str(error).lower() for text in OUT_OF_MEMORY
    )


class OutOfMemoryError(RuntimeError):
    """Memory ran out, and nothing smaller is left to try; the message says what to do."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message; its type if it has no message."""
    return str(error).split("\n")[0] or type(error).__name__
