"""Architectures that spandrel lacks, one file for each.

`MODULES` alone says which there are: registration, `load_model`, its options, messages, the table
of docs/architectures.md and the common tests follow from it.
"""

from __future__ import annotations

from importlib import import_module

from .member import Member

MODULES = (
    "mosrv2",
    "spanplus",
    "rtmosr",
    "dis",
    "cfsr",
    "catanet",
    "srresnet",
    "srgan",
    "espcn",
    "sesr",
    "gaterv3",
    "mirnet",
    "dlgsanet",
    "pcsr",
    "tfdat",
    "tscunet",
    "temporalspan",
)
"""The files, in the order in which their architectures are asked."""

MEMBERS: tuple[type[Member], ...] = tuple(
    import_module(f"{__name__}.{name}").ARCHITECTURE for name in MODULES
)
