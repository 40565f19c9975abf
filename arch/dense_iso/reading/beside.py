"""Files that hold more than one network once: beside others (loss, discriminator, average), or
under two names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...errors import ModelLoadError
from .evidence import AmbiguousCheckpointError, NotDenseIsoViTError
from .layers import Checkpoint, Layer, Notes, containers, prefixes, words
from .match import Asked, Match, match

MOST_PARTS = 12
TRAINING_WORDS = {
    "loss", "losses", "criterion", "criteria", "perceptual", "vgg", "lpips", "dists", "gan", "adversarial",
    "discriminator", "disc", "critic", "d", "metric", "metrics", "psnr", "ssim", "fid",
}  # fmt: skip


def network_beside_others(source: Mapping[str, Any], container: str | None, read: Callable[..., Match],
                          refused: ModelLoadError) -> Match:  # fmt: skip
    """The network in another state dict of a file, or in a part of one, by the first component in
    which names differ.

    Args:
        source: as for `read_checkpoint`.
        container: option of that name.
        read: the network in a container under a prefix.
        refused: why the file as a whole is none.

    Raises:
        ModelLoadError: ``refused``, or that only the user can say which part it is.
        AmbiguousCheckpointError: a part is one, but nothing tells its equal layers apart.
    """

    def attempt(container: str | None, prefix: str | None) -> Match | None:
        try:
            return read(container, prefix, Notes())
        except AmbiguousCheckpointError:
            raise
        except ModelLoadError:
            return None

    for other in containers(source)[1:] if container is None else ():
        if result := attempt(other, None):
            return result
    starts = prefixes(source, container)
    tried = {
        start: attempt(container, start)
        for start in (starts if 1 < len(starts) <= MOST_PARTS else ())
    }
    found = {start: result for start, result in tried.items() if result is not None}
    if not found:
        raise refused
    averaged = [prefix for prefix in found if "ema" in prefix.lower()]
    chosen = averaged if len(averaged) == 1 else list(found)
    unknown = [
        p
        for p in starts
        if p not in found and not set(words(tuple(p.split(".")[-1:]))) & TRAINING_WORDS
    ]
    if len(chosen) > 1 or unknown:
        raise NotDenseIsoViTError(
            f"{refused}. On their own, the tensors under {' or '.join(map(repr, chosen))} are a Dense-Iso-ViT: the "
            f"option prefix takes them, for example prefix={chosen[0]!r}, and leaves out "
            f"{', '.join(repr(p) for p in starts if p != chosen[0])}"
        ) from refused
    return found[chosen[0]]


def match_stored(checkpoint: Checkpoint, notes: Notes, asked: Asked) -> Match:
    """`match`, also where a file holds layers under two names or matrices as (in, out)."""
    if asked.matrices == "in_out":
        checkpoint = Checkpoint(_transposed(checkpoint.layers)[0], checkpoint.definition_order)
    try:
        result = match(checkpoint, notes, asked)
    except ModelLoadError:
        changes = (
            [_without_repeats, _transposed] if asked.matrices == "out_in" else [_without_repeats]
        )
        for change in changes:
            changed, remark = change(checkpoint.layers)
            if remark:
                try:
                    result = match(Checkpoint(changed, checkpoint.definition_order), notes, asked)
                except ModelLoadError:
                    continue
                notes.chosen.append(remark)
                return result
        raise
    in_blocks = " ".join(names for role, names in result.found if "blocks" in role)
    bare = [
        e
        for e in checkpoint.layers
        if e.bare_matrix and len(set(e.shape)) == 1 and repr(e) in in_blocks
    ]
    if bare and asked.matrices == "out_in":
        notes.guessed.add(
            f"square matrices like {bare[0]} are (out, in), as those of nn.Linear (option matrices)"
        )
    return result


def _without_repeats(layers: list[Layer]) -> tuple[list[Layer], str]:
    """Layers of equal numbers once, and what was left out; "" where there are none."""
    seen: dict[tuple, list[Layer]] = {}
    twins: list[tuple[Layer, Layer]] = []
    for layer in layers:
        if layer.weight.is_meta or layer.weight.numel() == 0:
            return layers, ""
        ends = layer.weight.flatten()[[0, -1]].tolist()
        same = seen.setdefault((layer.kind, layer.shape, *ends), [])
        twin = next(
            (e for e in same if _equal(e.weight, layer.weight) and _equal(e.bias, layer.bias)), None
        )
        same.append(layer) if twin is None else twins.append((twin, layer))
    if not twins:
        return layers, ""
    repeated = {id(layer) for _, layer in twins}
    kept = [layer for layer in layers if id(layer) not in repeated]
    return (
        kept,
        f"{len(twins)} layers that are there twice taken once: {twins[0][0].name}, not {twins[0][1].name} ...",
    )


def _equal(one: Tensor | None, other: Tensor | None) -> bool:
    return one is other or (one is not None and other is not None and torch.equal(one, other))


def _transposed(layers: list[Layer]) -> tuple[list[Layer], str]:
    """Bare matrices the other way round."""
    bare = [layer for layer in layers if layer.bare_matrix]
    turned = [
        replace(layer, weight=layer.weight.T) if layer.bare_matrix else layer for layer in layers
    ]
    return turned, f"matrices like {bare[0]} taken as (in, out)" if bare else ""
