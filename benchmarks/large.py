"""Peak memory of the command line on a picture that is larger than memory, and what it makes of it.

    python -m benchmarks.large stub --size 20000 --out DIR       every pixel twice, known in advance
    python -m benchmarks.large demo --size 6000 --out DIR        the bundled FDAT x2, exact
    python -m benchmarks.large same --size 1000 --out DIR        streamed and in memory: equal files

The picture is made first: waves and noise in 8 bit RGB, which shrinks badly. The command runs in a
process of its own, whose peak is what the system has counted (ru_maxrss). Then the file is read
again by libvips, as a whole, and by tifffile, in parts.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import pyvips
import torch
from safetensors.torch import save_file

from benchmarks.measure import MIB, machine

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "models/fdat_demo_x2.safetensors"
GB = 10**9


def make_picture(path: Path, size: int) -> None:
    """Write a picture of this side, in bands."""
    xy = pyvips.Image.xyz(size, size)
    waves = [
        (xy[0] / (11 + 3 * k)).sin() * (xy[1] / (17 - 2 * k)).cos() * 90 + 128 for k in range(3)
    ]
    noise = pyvips.Image.gaussnoise(size, size, sigma=8, mean=0, seed=1)
    picture = waves[0].bandjoin(waves[1:]) + noise
    picture.cast("uchar").copy(interpretation="srgb").write_to_file(str(path))


STREAMED = """
import sys
from fdat_dense_iso.command import large, main
large.free_memory = lambda: 0
main.app()
"""
"""The command on a machine that has no memory for the picture, whatever this one has."""


def run_command(
    source: Path, target: Path, model: Path, flags: list[str], *, streamed: bool
) -> tuple[float, int, float]:
    """Run the command; seconds, peak bytes of its process, and most GB in the partial folder."""
    flags = [str(source), str(target), "-m", str(model), "--max-megapixels", "10000", *flags]
    print("python cli.py", *flags, "(streamed)" if streamed else "(in memory)", flush=True)
    program = ["-c", STREAMED] if streamed else [str(ROOT / "cli.py")]
    started, most = time.perf_counter(), 0
    process = subprocess.Popen([sys.executable, *program, *flags, "--overwrite"], cwd=ROOT)
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        most = max(most, _bytes_below(target.with_name(f"{target.name}.partial")))
        time.sleep(1)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(process.returncode)
    return time.perf_counter() - started, usage.ru_maxrss * 1024, most / GB


def _bytes_below(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*") if folder.exists() else ():
        try:
            total += path.stat().st_blocks * 512
        except FileNotFoundError:
            continue
    return total


def save_stub(path: Path) -> None:
    """A checkpoint of the Compact architecture that repeats every pixel: it adds nothing to that."""
    shapes = {"0": (4, 3, 3, 3), "2": (4, 4, 3, 3), "4": (12, 4, 3, 3)}
    state = {f"body.{number}.weight": torch.zeros(shape) for number, shape in shapes.items()}
    state |= {f"body.{number}.bias": torch.zeros(shape[0]) for number, shape in shapes.items()}
    state |= {f"body.{number}.weight": torch.zeros(4) for number in ("1", "3")}
    save_file(state, path)


def check_stub(source: Path, target: Path) -> str:
    """Whether the result is the picture with every pixel twice along each side."""
    picture, result = (
        pyvips.Image.new_from_file(str(path), access="sequential") for path in (source, target)
    )
    differing = (picture.zoom(2, 2) - result).abs().max()
    return f"libvips: every pixel is the one expected (largest difference {differing:g})"


def check_opens(target: Path, size: int) -> list[str]:
    """Read the file by libvips, all of it, and by tifffile, its directory and its first segment."""
    result = pyvips.Image.new_from_file(str(target), access="sequential")
    assert (result.width, result.height) == (2 * size, 2 * size)
    lines = [f"libvips: {result.width}x{result.height}, mean {result.avg():.3f}"]
    if target.suffix == ".tif":
        import tifffile

        with tifffile.TiffFile(target) as file:
            page = file.pages[0]
            data, *_ = next(page.segments())
            part = data[0] if data.ndim == 4 else data
            again = pyvips.Image.new_from_file(str(target)).crop(0, 0, part.shape[1], len(part))
            assert (again.numpy() == part).all()
            lines.append(
                f"tifffile: {page.shape}, {'BigTIFF' if file.is_bigtiff else 'TIFF'}, "
                f"{len(page.dataoffsets)} segments, {len(file.pages)} pages; the first segment is libvips's"
            )
    return lines


def main() -> None:
    """Make a picture, upscale it by the command line in a process of its own, print its peak."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("stub", "demo", "same"))
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--format", choices=("png", "tif", "pyramid"), default="tif")
    parser.add_argument("--keep", action="store_true", help="do not remove picture and result")
    arguments = parser.parse_args()
    size, out = arguments.size, arguments.out
    out.mkdir(parents=True, exist_ok=True)
    print(machine())
    source = out / f"picture-{size}.tif"
    make_picture(source, size)
    suffix = "png" if arguments.format == "png" else "tif"
    target = out / f"{arguments.what}-{size}.{suffix}"
    model, flags = DEMO, []
    if arguments.what == "stub":
        model = out / "stub.safetensors"
        save_stub(model)
    if arguments.format == "pyramid":
        flags += ["--format", "pyramid"]
    seconds, peak, disk = run_command(source, target, model, flags, streamed=True)
    print(
        f"{arguments.what} {size}x{size} -> {2 * size}x{2 * size}, {arguments.format}: {seconds:.0f} s, peak of the "
        f"process {peak / MIB:.0f} MiB, {disk:.1f} GB at most beside the result, file "
        f"{target.stat().st_size / GB:.2f} GB"
    )
    for line in check_opens(target, size):
        print(line)
    if arguments.what == "stub":
        print(check_stub(source, target))
    if arguments.what == "same":
        other = target.with_name(f"in-memory.{suffix}")
        run_command(source, other, model, flags, streamed=False)
        assert other.read_bytes() == target.read_bytes()
        print("the file is, byte by byte, the one that is made in memory")
        other.unlink()
    if not arguments.keep:
        source.unlink()
        target.unlink()


if __name__ == "__main__":
    main()
