"""Exactly FDAT's whole-image result, in bounded memory: plan -> sweeps over the blocks -> tail.

Ordinary tiles change FDAT's result, because every block takes a statistic over the whole image.
Here every block is instead swept over the whole image, band by band, before the next one begins;
see docs/fdat-engine.md.

The plain network in network.py is the reference for every number that comes out of this file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor, nn

from ....common.rows import Rows
from ...guards import without_autocast
from ...kernels.heap import keep_freed_memory
from ..gpu.sweeps import FusedSweeps
from ..gpu.tail import tail_rows
from ..network import FDAT
from ..upsampler import DySample, LDAUpsample
from .bands import split_rows
from .image import ImageRows
from .journal import Journal
from .maps import AnyMap, FeatureMap, FileMap, HostMap
from .plan import Plan, make_plan
from .sampling import dysample_rows, lda_reach, lda_rows
from .sweeps import Sweeps
from .tail import build_stages, run_stages, split_at_sampler
from .weights import Weights, packed_weights, release_packed, residual_dtype


class Maps:
    """Makes the maps of one run where its plan wants them.

    Files are closed with ``cleanup``, but stay, so that a later run goes on with them: `remove` is
    for the end of a run that is complete.
    """

    def __init__(self, plan: Plan, cleanup: ExitStack) -> None:
        self.plan, self.cleanup = plan, cleanup
        self.files: list[FileMap] = []
        self.journal: Journal | None = None
        if plan.folder is not None and plan.spare:
            about = {"size": [plan.rows, plan.columns, plan.config.embed_dim], "band": plan.band}
            self.journal = Journal(
                plan.folder, about | {"types": [str(plan.map_dtype), str(plan.dtype)]}
            )

    def new(self, dim: int, name: str) -> AnyMap:
        """A map (rows, columns, dim), in the file of that name if in a file."""
        plan = self.plan
        about = plan.rows, plan.columns, dim, plan.map_dtype, plan.device
        if plan.folder is None:
            return HostMap(*about) if plan.host_maps else FeatureMap(*about)
        made = FileMap(*about, plan.folder / name)
        self.files.append(made)
        self.cleanup.callback(made.close)
        return made

    def remove(self) -> None:
        """Remove all files."""
        if self.journal:
            self.journal.remove()
        for one in self.files:
            one.remove()


class ExactEngine:
    """Runs an FDAT on whole images, band by band; tiling engines get it as ``exact_engine``.

    Args:
        model: the network; its weights may be on any device and in any precision, and may change
            between runs.
    """

    def __init__(self, model: FDAT) -> None:
        self.model = model

    def plan(
        self,
        batch: int,
        height: int,
        width: int,
        *,
        dtype: torch.dtype,
        device: torch.device | str,
        available: int | None = None,
        band: int | None = None,
        map_dtype: torch.dtype | None = None,
        map_device: torch.device | str | None = None,
        folder: Path | None = None,
        disk: int | None = None,
    ) -> Plan:
        """See `arch.fdat.engine.plan.make_plan`."""
        return make_plan(
            self.model.config,
            batch,
            height,
            width,
            dtype=dtype,
            device=torch.device(device),
            available=available,
            band=band,
            map_dtype=map_dtype,
            map_device=None if map_device is None else torch.device(map_device),
            folder=folder,
            disk=disk,
        )

    @torch.inference_mode()
    def run(
        self,
        image: Tensor | Rows,
        plan: Plan,
        write: Callable[[int, Tensor], None],
        progress: Callable[[int, int], None] | None = None,
        touched: Tensor | None = None,
    ) -> None:
        """Upscale a batch.

        Args:
            image: (B, num_in_ch, H, W) in [0, 1], on any device; or the rows of a single image,
                which is read twice, from the top.
            plan: from `plan`, for this size.
            write: called as ``write(top, rows)`` with the finished output rows in order: ``rows``
                (B, num_out_ch, h, W * scale), unclamped, on the plan's device, in its precision, or
                float32 for bfloat16; ``top`` counts output rows.
            progress: called as ``progress(done, total)`` after every band of every sweep; may raise
                to interrupt.
            touched: mask of the wanted pixels. Ignored: the statistics need the whole image.

        Raises:
            ValueError: the image is not of the size that the plan is for.
            OSError: maps live in files, and the disk is full.
        """
        config = self.model.config
        expected = (plan.batch, config.num_in_ch, plan.height, plan.width)
        if tuple(image.shape) != expected:
            raise ValueError(
                f"FDAT: the image is {tuple(image.shape)}, the plan is for {expected}; plan for the image's size"
            )
        if plan.device.type == "cpu":
            keep_freed_memory()
        with without_autocast(plan.device), ExitStack() as cleanup:
            self._run(cleanup, image, plan, write, progress)

    def _run(
        self,
        cleanup: ExitStack,
        image: Tensor | Rows,
        plan: Plan,
        write: Callable[[int, Tensor], None],
        progress: Callable[[int, int], None] | None,
    ) -> None:
        config, done = self.model.config, 0

        def tick() -> None:
            nonlocal done
            done += 1
            if progress is not None:
                progress(done, plan.steps)

        weights = packed_weights(self.model, plan.dtype, plan.device, plan.fused)
        before, sampler, behind = split_at_sampler(weights.upsampler)
        maps = Maps(plan, cleanup)
        names = maps.journal.files if maps.journal else ["map-1"]
        trunk = maps.new(config.embed_dim, names[0])
        finished = [
            self._features(single, weights, before, sampler, plan, maps, trunk, tick)
            for single in (image if isinstance(image, Tensor) else [image])
        ]
        del trunk

        tails = [self._tail(features, sampler, behind, plan) for features in finished]
        height, width, top = plan.height * config.scale, plan.width * config.scale, 0
        for outputs in zip(*tails, strict=True):
            rows = torch.stack(outputs).permute(0, 3, 1, 2)[
                :, :, : height - top, :width
            ]  # (B, O, h, sW)
            if rows.shape[2]:
                write(top, rows)
                top += rows.shape[2]
            tick()
        maps.remove()

    def _features(
        self,
        image: Tensor | Rows,
        weights: Weights,
        before: list[nn.Module],
        sampler: DySample | LDAUpsample | None,
        plan: Plan,
        maps: Maps,
        trunk: AnyMap,
        tick: Callable[[], None],
    ) -> AnyMap:
        """Run the blocks on one image and return the map that the tail reads.

        It holds the features, or the input of the upsampler's sampling layer if there is one.
        """
        config = self.model.config
        rows = ImageRows(image, config.unshuffle, plan.device, residual_dtype(plan.dtype))
        journal, spare, number = maps.journal, None, len(maps.files)
        names = journal.files if journal else ["", f"map-{number + 1}"]
        branch = maps.new(config.embed_dim, names[1])
        if journal:
            spare = maps.new(config.embed_dim, names[2])
        features = None  # where there is no sampler, those of the branch, whichever file that is
        if isinstance(sampler, DySample):
            features = FeatureMap(
                plan.rows, plan.columns, config.mid_dim, residual_dtype(plan.dtype), plan.device
            )
        elif sampler is not None:
            features = maps.new(config.mid_dim, f"features-{number}")
        stages, top = build_stages(before), 0
        kind = FusedSweeps if plan.fused else Sweeps
        sweeps = kind(weights, trunk, branch, plan.rows, plan.band, tick, spare)
        kept = not isinstance(features, FeatureMap)
        for start, deep in sweeps.run(rows, journal, features_kept=kept):
            features = features or sweeps.branch
            deep = run_stages(
                stages, deep.to(plan.dtype) if stages else deep, start + deep.shape[0] == plan.rows
            )
            features.write(top, deep)
            top += deep.shape[0]
        if journal and kept and top:
            journal.note(sweeps.files)
        return features or sweeps.branch

    def release(self) -> None:
        """Drop the packed weights, unless they are on the CPU: hosts account for device memory."""
        release_packed(self.model)

    @staticmethod
    def _tail(
        features: AnyMap,
        sampler: DySample | LDAUpsample | None,
        behind: list[nn.Module],
        plan: Plan,
    ) -> Iterator[Tensor]:
        """Run the upsampler on the features of one image.

        Yields for every band of the tail the rows finished by then: (h, W * scale, num_out_ch).
        """
        bands = split_rows(plan.rows, plan.tail_band)
        if plan.fused and sampler is None:
            yield from tail_rows(behind, features, bands, plan.dtype)
            return
        stages = build_stages(behind)
        residual = residual_dtype(plan.dtype)
        if sampler is None:
            source = features.read(bands, plan.dtype)
        elif isinstance(sampler, DySample):
            assert isinstance(features, FeatureMap), "it is sampled anywhere, so it is in memory"
            source = (dysample_rows(sampler, features.tensor, *band) for band in bands)
        else:
            targets = [(start * sampler.scale, stop * sampler.scale) for start, stop in bands]
            reach = [lda_reach(sampler, plan.rows, start, stop) for start, stop in targets]
            source = (
                lda_rows(sampler, rows, below, plan.rows, start, stop)
                for (below, _), (start, stop), rows in zip(
                    reach, targets, features.read(reach, residual)
                )
            )
        for (_, stop), rows in zip(bands, source, strict=True):
            yield run_stages(stages, rows, stop == plan.rows)
