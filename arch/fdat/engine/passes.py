"""The order of the passes over one image, whatever computes their bands.

A pass reads and writes each row of a map once. A block's attention needs a statistic of the whole
map; the pass before the block collects it from the rows that it writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from .bands import split_rows
from .image import ImageRows
from .maps import AnyMap
from .weights import Weights


class Passes:
    """All passes over one image; ``tick`` is called after every band of every pass.

    Subclasses compute them: ``shallow(image, statistic)`` and ``close_group(convolution,
    statistic)`` write the trunk, ``block(block, folded, source, statistic)`` the branch,
    ``deep_features(image)`` yields what the upsampler gets. ``collector(block)`` makes the
    statistic that a block, or None, needs of the map before it.
    """

    collector: Callable[[Any], Any]
    shallow: Callable[..., None]
    block: Callable[..., None]
    close_group: Callable[..., None]
    deep_features: Callable[[ImageRows], Iterator[tuple[int, Tensor]]]

    def __init__(
        self,
        weights: Weights,
        trunk: AnyMap,
        branch: AnyMap,
        height: int,
        band: int,
        tick: Callable[[], None],
    ) -> None:
        self.weights = weights
        self.trunk, self.branch = trunk, branch
        self.height, self.band = height, band
        self.bands = split_rows(height, band)
        self.with_halo = [(max(0, start - 1), min(height, stop + 1)) for start, stop in self.bands]
        self.tick = tick

    @staticmethod
    def fold(statistic: Any) -> Any:
        """The small matrices of a block, which need the whole pass before it."""
        return statistic.result()

    def run(self, image: ImageRows) -> Iterator[tuple[int, Tensor]]:
        """Run all passes on an image.

        Yields ``(start, rows)``, the features for the upsampler, band by band.
        """
        groups = self.weights.groups
        # the statistic of a group's first block is collected by the pass before the group
        opening = [blocks[0] for blocks, _ in groups]
        statistic = self.collector(opening[0])
        self.shallow(image, statistic)
        for (blocks, convolution), next_group in zip(groups, [*opening[1:], None]):
            source = self.trunk
            for block, next_block in zip(blocks, [*blocks[1:], None]):
                folded, statistic = self.fold(statistic), self.collector(next_block)
                self.block(block, folded, source, statistic)
                source = self.branch
            statistic = self.collector(next_group)
            self.close_group(convolution, statistic)
        yield from self.deep_features(image)
