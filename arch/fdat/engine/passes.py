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
from .journal import Journal
from .maps import AnyMap, FileMap
from .weights import Weights


class Passes:
    """All passes over one image; ``tick`` is called after every band of every pass.

    Subclasses compute them: ``shallow(image, statistic)`` and ``close_group(source, convolution,
    statistic)`` write the trunk, ``block(block, folded, source, statistic)`` the branch,
    ``deep_features(image)`` yields what the upsampler gets. ``collector(block)`` makes the
    statistic that a block, or None, needs of the map before it. ``again(map, statistic, lagging)``
    collects it from a map that is complete. ``source`` is the map that is read; it may be the one
    that is written.
    """

    collector: Callable[[Any], Any]
    shallow: Callable[..., None]
    block: Callable[..., None]
    close_group: Callable[..., None]
    again: Callable[..., None]
    deep_features: Callable[[ImageRows], Iterator[tuple[int, Tensor]]]

    def __init__(
        self,
        weights: Weights,
        trunk: AnyMap,
        branch: AnyMap,
        height: int,
        band: int,
        tick: Callable[[], None],
        spare: AnyMap | None = None,
    ) -> None:
        self.weights = weights
        self.trunk, self.branch, self.spare = trunk, branch, spare
        self.height, self.band = height, band
        self.bands = split_rows(height, band)
        self.with_halo = [(max(0, start - 1), min(height, stop + 1)) for start, stop in self.bands]
        self.tick = tick

    @staticmethod
    def fold(statistic: Any) -> Any:
        """The small matrices of a block, which need the whole pass before it."""
        return statistic.result()

    def run(
        self, image: ImageRows, journal: Journal | None = None, *, features_kept: bool = False
    ) -> Iterator[tuple[int, Tensor]]:
        """Run all passes on an image.

        Yields ``(start, rows)``, the features for the upsampler, band by band. With a ``journal``,
        what that says is done is passed over, and the maps trade places with the spare one, so that
        a pass which ends early can be run again. ``features_kept``: if it says that even the last
        pass is done, nothing is yielded.
        """
        opening = [blocks[0] for blocks, _ in self.weights.groups]
        # the statistic of a group's first block is collected by the pass before the group
        passes: list[tuple[str, Any, Any]] = [("shallow", None, opening[0])]
        for (blocks, convolution), next_group in zip(self.weights.groups, [*opening[1:], None]):
            kinds = ["first block", *["block"] * (len(blocks) - 1)]
            passes += zip(kinds, blocks, [*blocks[1:], None])
            passes.append(("close", convolution, next_group))
        done = journal.done if journal else 0
        statistic = None
        for number, (kind, operator, following) in enumerate(passes):
            before, statistic = statistic, self.collector(following)
            if number >= done:
                self._run_one(kind, operator, before, statistic, image)
                if journal:
                    journal.note(self.files)
                continue
            for _ in self.bands:
                self.tick()
            if number == done - 1 and following is not None:
                written = self.branch if "block" in kind else self.trunk
                self.again(written, statistic, lagging="block" in kind)
        if done <= len(passes) or not features_kept:
            yield from self.deep_features(image)
        else:
            for _ in self.bands:
                self.tick()

    def _run_one(
        self, kind: str, operator: Any, before: Any, statistic: Any, image: ImageRows
    ) -> None:
        if kind == "shallow":
            self.shallow(image, statistic)
        elif kind == "close":
            trunk = self.trunk
            if self.spare is not None:
                self.trunk, self.spare = self.spare, self.trunk
            self.close_group(trunk, operator, statistic)
        else:
            source = self.trunk if kind == "first block" else self.branch
            if source is self.branch and self.spare is not None:
                self.branch, self.spare = self.spare, self.branch
            self.block(operator, self.fold(before), source, statistic)

    @property
    def files(self) -> list[str]:
        """Names of the files of trunk, branch and the spare map."""
        maps = (self.trunk, self.branch, self.spare)
        return [one.path.name for one in maps if isinstance(one, FileMap)]
