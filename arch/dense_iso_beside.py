"""A network beside others in one file: the state dict of a training module, with its loss, discriminator or copies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .dense_iso_evidence import AmbiguousCheckpointError, NotDenseIsoViTError
from .dense_iso_match import Match
from .dense_iso_read import Notes, parts, words
from .errors import ModelLoadError

MOST_PARTS = 12
TRAINING_WORDS = {
    "loss", "losses", "criterion", "criteria", "perceptual", "vgg", "lpips", "dists", "gan", "adversarial",
    "discriminator", "disc", "critic", "d", "metric", "metrics", "psnr", "ssim", "fid",
}  # fmt: skip


def network_beside_others(source: Mapping[str, Any], container: str | None, read: Callable[[str, Notes], Match],
                          refused: ModelLoadError) -> Match:  # fmt: skip
    """The part of a file, by the first component in which names differ, that is the network.

    Args:
        source: as for `read_checkpoint`.
        container: option of that name.
        read: the network under a prefix.
        refused: why the file as a whole is none.

    Raises:
        ModelLoadError: ``refused``, or that only the user can say which part it is.
        AmbiguousCheckpointError: a part is one, but nothing tells its equal layers apart.
    """
    prefixes = parts(source, container)
    found: dict[str, Match] = {}
    for prefix in prefixes if 1 < len(prefixes) <= MOST_PARTS else ():
        try:
            found[prefix] = read(prefix, Notes())
        except AmbiguousCheckpointError:
            raise
        except ModelLoadError:
            continue
    if not found:
        raise refused
    averaged = [prefix for prefix in found if "ema" in prefix.lower()]
    chosen = averaged if len(averaged) == 1 else list(found)
    unknown = [p for p in prefixes if p not in found and not set(words(tuple(p.split(".")[-1:]))) & TRAINING_WORDS]
    if len(chosen) > 1 or unknown:
        raise NotDenseIsoViTError(
            f"{refused}. On their own, the tensors under {' or '.join(map(repr, chosen))} are a Dense-Iso-ViT: the "
            f"option prefix takes them, for example prefix={chosen[0]!r}, and leaves out "
            f"{', '.join(repr(p) for p in prefixes if p != chosen[0])}"
        ) from refused
    return found[chosen[0]]
