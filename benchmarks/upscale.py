"""Memory and overhead of `upscale_image`'s tile mode and of live previews, on the CPU.

    python -m benchmarks.upscale [--repeats 5] [--threads 2] [--json FILE]

- memory: peak for 1024x1024, against output + working set of one batch of tiles + 64 MiB;
- requirement: bytes asked from the host against bytes used, for networks of several kinds;
- overhead: time outside the network, tiny FDAT at 512x512; and the ratio to ComfyUI's `tiled_scale`
  on the same tiles, in the same process (where COMFYUI_ROOT or ~/ComfyUI is a checkout whose
  modules import here);
- preview: the cost of live previews at the rate of the node, including the JPEG that the host makes
  of each.
"""

from __future__ import annotations

import contextlib
import io
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from PIL import Image
from spandrel import ImageModelDescriptor

from benchmarks.measure import (
    MIB,
    interleaved,
    machine,
    median_ratio,
    peak_above_base,
    spread,
    write_figures,
)
from fdat_dense_iso.arch import load_model
from fdat_dense_iso.arch.fdat.config import PRESETS
from fdat_dense_iso.arch.fdat.network import FDAT
from fdat_dense_iso.upscale import upscale_image
from fdat_dense_iso.upscale.placement import DirectPlacement
from fdat_dense_iso.upscale.runner import Runner
from fdat_dense_iso.upscale.throttle import Throttle

ALLOWANCE = 64 * MIB


def tiny_fdat(scale: int = 2, **fields: int) -> ImageModelDescriptor:
    """The preset tiny with random weights; ``fields`` change its configuration."""
    torch.manual_seed(0)
    return load_model(FDAT(replace(PRESETS["tiny"], scale=scale, **fields)).state_dict())


def picture(height: int, width: int) -> torch.Tensor:
    """Noise (1, height, width, RGB) in [0, 1], the same at every call."""
    return torch.rand(1, height, width, 3, generator=torch.Generator().manual_seed(0))


def measure_memory(tile: int, scale: int) -> dict[str, float]:
    """Peak of tile mode on 1024x1024, and the bound that it must not exceed."""
    model, image = tiny_fdat(scale, embed_dim=48, depth_per_group=1), picture(1024, 1024)
    part = image[:, :tile, :tile].movedim(-1, 1).contiguous()
    with torch.inference_mode():
        working_set = peak_above_base(lambda: model(part))
    peak = peak_above_base(lambda: upscale_image(model, image, mode="tile", tile=tile, batch=1))
    output = image.nbytes * scale**2
    return {
        "tile": tile,
        "scale": scale,
        "peak": peak,
        "bound": output + working_set + ALLOWANCE,
        "output": output,
    }


def kinds_of_models() -> dict[str, ImageModelDescriptor]:
    """Networks of several architectures with random weights, by name."""
    from spandrel.architectures.Compact import Compact
    from spandrel.architectures.DAT import DAT
    from spandrel.architectures.ESRGAN import ESRGAN
    from spandrel.architectures.SPAN import SPAN
    from spandrel.architectures.SwinIR import SwinIR

    networks = {
        "Compact": Compact(num_in_ch=3, num_out_ch=3, num_feat=64, num_conv=16, upscale=4),
        "ESRGAN": ESRGAN(in_nc=3, out_nc=3, num_filters=64, num_blocks=3, scale=4),
        "SPAN": SPAN(num_in_ch=3, num_out_ch=3, feature_channels=48, upscale=4),
        "SwinIR": SwinIR(
            window_size=8,
            depths=[2],
            embed_dim=60,
            num_heads=[6],
            upscale=2,
            upsampler="pixelshuffledirect",
        ),
        "DAT": DAT(
            upscale=2,
            depth=[2],
            num_heads=[4],
            embed_dim=60,
            split_size=[8, 16],
            upsampler="pixelshuffledirect",
        ),
    }
    models = {name: load_model(network.state_dict()) for name, network in networks.items()}
    return {"FDAT tiny x2": tiny_fdat(2), "FDAT tiny x4": tiny_fdat(4), **models}


def measure_requirement(side: int) -> list[dict[str, float | str]]:
    """The memory that tile mode asks the host for, for one tile, against what it uses.

    The latter is the peak of upscaling two such tiles, less the result.
    """
    rows = []
    for name, model in kinds_of_models().items():
        asked = Runner(model, torch.float32, DirectPlacement(model, "cpu")).memory_required(
            1, side, side
        )
        image = picture(side, 2 * side - 32)
        options = {"mode": "tile", "tile": side, "overlap": 32, "batch": 1}
        peak = peak_above_base(lambda m=model, i=image, o=options: upscale_image(m, i, **o))
        used = peak - image.nbytes * model.scale**2
        rows.append(
            {"model": name, "tile": side, "asked": asked, "used": used, "ratio": asked / used}
        )
    return rows


def import_tiled_scale() -> Callable[..., torch.Tensor] | None:
    """ComfyUI's own function, or None where its modules can't be imported here."""
    root = Path(os.environ.get("COMFYUI_ROOT", "~/ComfyUI")).expanduser()
    if not (root / "comfy" / "utils.py").exists():
        return None
    # ComfyUI parses the command line when it is imported, so it is given one of its own
    arguments, sys.argv = (sys.argv, [sys.argv[0], "--cpu"])
    sys.path.insert(0, str(root))
    try:
        from comfy.utils import tiled_scale  # type: ignore[import-not-found]

        return tiled_scale
    except ImportError as error:
        print(f"ComfyUI in {root} does not import here ({error}): its tiled_scale is left out")
        return None
    finally:
        sys.path.remove(str(root))
        sys.argv = arguments


@contextlib.contextmanager
def timed_network(model: ImageModelDescriptor) -> Iterator[list[float]]:
    """Collects the seconds of every call of the network, except dry runs on the meta device."""
    seconds: list[float] = []
    started: list[float] = []

    def stop(module: object, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        elapsed = time.perf_counter() - started.pop()
        if not output.is_meta:
            seconds.append(elapsed)

    hooks = [
        model.model.register_forward_pre_hook(lambda *_: started.append(time.perf_counter())),
        model.model.register_forward_hook(stop),
    ]
    try:
        yield seconds
    finally:
        for hook in hooks:
            hook.remove()


def measure_overhead(tile: int, overlap: int, repeats: int) -> dict[str, Any]:
    """Share of the time outside the network; and time relative to ComfyUI's tiles of that size."""
    image = picture(512, 512)
    shares = []
    for _ in range(repeats):
        model = tiny_fdat(2)  # a new one, since plans are kept per model
        with timed_network(model) as network_seconds:
            started = time.perf_counter()
            upscale_image(
                model, image, mode="tile", tile=tile, overlap=overlap, batch=1, precision="fp32"
            )
            total = time.perf_counter() - started
        shares.append(1 - sum(network_seconds) / total)
    result: dict[str, Any] = {
        "tile": tile,
        "overlap": overlap,
        "share": statistics.median(shares),
        "ratio": None,
        "spread": {"share": spread(shares)},
    }
    tiled_scale = import_tiled_scale()
    if tiled_scale:
        planes, model = image.movedim(-1, 1), tiny_fdat(2)

        def core() -> None:
            with torch.inference_mode():
                tiled_scale(
                    planes, model, tile_x=tile, tile_y=tile, overlap=overlap, upscale_amount=2
                )

        def ours() -> None:
            upscale_image(
                model, image, mode="tile", tile=tile, overlap=overlap, batch=1, precision="fp32"
            )

        seconds = interleaved({"ours": ours, "core": core}, repeats)
        result["ratio"] = median_ratio(seconds["ours"], seconds["core"])
        result["spread"]["ratio"] = spread(
            [ours / core for ours, core in zip(seconds["ours"], seconds["core"])]
        )
    return result


class EncodedPreview:
    """A preview at the rate of the node, encoded like the host does.

    It is encoded in the same thread, so that all of it is counted. Processor time is counted, as in
    `Throttle`, so that time that other programs take does not matter.
    """

    def __init__(self) -> None:
        self.throttle = Throttle()
        self.costs: list[float] = []

    def due(self) -> bool:
        """As `Throttle.due`; counts the time from here on."""
        self._started = time.thread_time()
        return self.throttle.due()

    def show(self, thumbnail: torch.Tensor, done: int, total: int) -> None:
        """Encode (h, w, RGB) uint8 as the host does, and add up what it cost."""
        image = Image.fromarray(thumbnail.numpy())
        self.throttle.done()
        image.save(io.BytesIO(), "JPEG", quality=95)
        self.costs.append(time.thread_time() - self._started)


def measure_preview(mode: str, height: int, width: int) -> dict[str, float | str]:
    """Number of previews, and their share of this thread's time, with the bundled model."""
    model = load_model(Path(__file__).parent.parent / "models" / "fdat_demo_x2.safetensors")
    preview = EncodedPreview()
    started, started_work = time.perf_counter(), time.thread_time()
    upscale_image(
        model,
        picture(height, width),
        mode=mode,
        tile=256 if mode == "tile" else None,
        preview=preview,
    )
    seconds, work = time.perf_counter() - started, time.thread_time() - started_work
    return {
        "mode": mode,
        "size": f"{width}x{height}",
        "seconds": seconds,
        "pictures": len(preview.costs),
        "share": sum(preview.costs) / work,
    }


def main(
    repeats: Annotated[int, typer.Option(help="Counted runs; medians are printed.")] = 5,
    threads: Annotated[int, typer.Option(help="CPU threads of torch.")] = 2,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the figures here.")
    ] = None,
) -> None:
    """Print the tables."""
    torch.set_num_threads(threads)
    print(machine())
    memory = [measure_memory(tile, scale) for tile, scale in ((256, 2), (256, 4), (512, 2))]
    print("\nPeak memory of tile mode, FDAT of width 48, 1024x1024, MiB above base")
    for row in memory:
        print(
            f"  x{row['scale']} tile {row['tile']}: peak {row['peak'] / MIB:.0f}, bound {row['bound'] / MIB:.0f} "
            f"(output {row['output'] / MIB:.0f}): {'kept' if row['peak'] <= row['bound'] else 'EXCEEDED'}"
        )
    requirement = measure_requirement(384)
    print("\nMemory asked from the host for one tile against memory used, MiB")
    for row in requirement:
        print(
            f"  {row['model']:14s} {row['tile']}: asked {row['asked'] / MIB:6.0f}  used {row['used'] / MIB:6.0f}  "  # type: ignore[operator]
            f"ratio {row['ratio']:.2f}"
        )
    overhead = [measure_overhead(256, 32, repeats), measure_overhead(512, 32, repeats)]
    print("\nOverhead, tiny FDAT, 512x512 (everything but the network), median")
    for row in overhead:
        ratio = "left out (no ComfyUI here)" if row["ratio"] is None else f"{row['ratio']:.3f}"
        print(
            f"  tile {row['tile']}: {row['share']:.1%} of the time; time relative to ComfyUI's tiled_scale: {ratio}"
        )
    preview = [
        measure_preview(mode, *size)
        for mode in ("exact", "tile")
        for size in ((400, 600), (800, 1200))
    ]
    print("\nLive previews, bundled model x2; at most 2 a second and 2.0% of the time")
    for row in preview:
        print(
            f"  {row['mode']:5s} {row['size']:9s}: {row['pictures']} in {row['seconds']:.1f} s, {row['share']:.2%}"  # type: ignore[str-format]
        )
    figures = {
        "what": "upscale",
        "memory": memory,
        "requirement": requirement,
        "overhead": overhead,
    }
    write_figures(json_file, "benchmarks.upscale", {**figures, "preview": preview})


if __name__ == "__main__":
    typer.run(main)
