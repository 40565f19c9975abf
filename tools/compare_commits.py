"""Whether two commits make the same pixels: ``python -m tools.compare_commits d928ea9 HEAD``.

Both run the same program, each in a worktree of its own: bundled and seeded random models, on
fixed pictures, with fixed options. Everything is compared as float64 or float32 gives it. Prints one
line per case, with the largest difference and hashes; ends with code 1 where a case differs by more
than 1e-6 of the output's range (which is 1 for pictures) or works in one commit only. Cases that
change on purpose (`ON_PURPOSE`) are shown apart, and count only where they became something else.

Random weights are made here, by the layers that spandrel has and by a seed, so that neither
commit's way to initialise a network matters.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
TOLERANCE = 1e-6
PICTURES, WEIGHTS = "pictures.safetensors", "weights-{}.safetensors"
FAILED = "failed: "
ON_PURPOSE = {
    "dense_iso tiles": "dense_iso exact, odd",
    "dense_iso tiles by default": "dense_iso exact, odd",
    "dense_iso whole": "dense_iso exact, odd",
    "dense_iso tiles, mask": None,
}
"""Cases that change: Dense-Iso-ViT now makes its own windows in every mode. Beside each the case
whose pixels it has from then on, where there is one."""

FDATS = {
    "conv": 1,
    "pixelshuffledirect": 3,
    "pixelshuffle": 4,
    "nearest+conv": 2,
    "dysample": 2,
    "transpose+conv": 4,
    "lda": 2,
    "pa_up": 4,
}
TILES = {"mode": "tile", "tile": 64, "overlap": 16}
DENSE_ISO_OPTIONS = {
    "head without activations": {"head_activation": "none"},
    "head with activations": {"head_activation": "gelu"},
    "other layouts": {"qkv_layout": "h3d", "gated_half": "first"},
}
OPTIONS: dict[str, dict[str, Any]] = {
    "tiles": TILES,
    "tiles, batch 3": TILES | {"batch": 3},
    "tiles by default": {"mode": "tile"},
    "whole": {"mode": "whole"},
    "seamless both": TILES | {"seamless": "both"},
    "seamless horizontal": TILES | {"seamless": "horizontal"},
    "seamless vertical": TILES | {"seamless": "vertical"},
    "ensemble 2": TILES | {"ensemble": 2},
    "ensemble 8": TILES | {"ensemble": 8},
    "colour_fix average": TILES | {"colour_fix": "average"},
    "colour_fix wavelet": TILES | {"colour_fix": "wavelet"},
    "target 1.5x": TILES | {"target": "1.5x"},
    "target 50%": TILES | {"target": "50%"},
    "target 200x120": TILES | {"target": "200x120"},
    "target fit 160x160": TILES | {"target": "fit 160x160"},
    "target 0.02mp": TILES | {"target": "0.02mp"},
    "float16 result": TILES | {"dtype": torch.float16},
    "bf16": TILES | {"precision": "bf16"},
}

Case = tuple[str, Callable[[], Tensor]]


# --- what both commits run; imports nothing of the pack but by `pack_in` ---


def pack_in(worktree: Path) -> SimpleNamespace:
    """The pack's functions of a commit, by the names that it has there."""
    sys.path[0] = str(worktree)
    prefix = "fdat_dense_iso." if (worktree / "fdat_dense_iso.py").exists() else ""
    importlib.import_module(prefix + "cpu_torchvision").make_torchvision_importable()
    arch, upscale = (importlib.import_module(prefix + name) for name in ("arch", "upscale"))
    if not Path(str(arch.__file__)).is_relative_to(worktree):
        raise RuntimeError(f"{arch.__file__} was imported, not that of the commit in {worktree}")
    return SimpleNamespace(load=arch.load_model, upscale=upscale.upscale_image)


def run_network(model: Any, image: Tensor) -> Tensor:
    """(B, H, W, C) through the whole network in float64, at once."""
    return model.model.double()(image.double().movedim(3, 1)).detach()


def run_engine(model: Any, image: Tensor, **plan_options: Any) -> Tensor:
    """(B, H, W, C) through the exact engine in float64."""
    engine, image = model.model.double().exact_engine, image.double().movedim(3, 1)
    batch, _, height, width = image.shape
    plan_options |= {"dtype": torch.float64, "device": "cpu"}
    parts: list[Tensor] = []
    engine.run(
        image,
        engine.plan(batch, height, width, **plan_options),
        lambda top, rows: parts.append(rows.clone()),
    )
    return torch.cat(parts, 2)


def cases(pack: SimpleNamespace, models: Path, inputs: Path) -> Iterator[Case]:
    """Every case by its name, with what makes its result."""
    pictures = load_file(inputs / PICTURES)
    picture, small, pair = pictures["picture"], pictures["small"], pictures["pair"]
    masks = {name: pictures[name] for name in ("mask", "empty mask", "full mask")}

    def upscaled(source: Path, image: Tensor, load: dict | None = None, **options: Any) -> Any:
        return lambda: pack.upscale(pack.load(source, **(load or {})), image, **options)

    for name in ("fdat_demo_x2", "fdat_demo_x4"):
        source = models / f"{name}.safetensors"
        for what, image in {"odd": picture, "small": small, "pair": pair}.items():
            yield f"{name} exact, {what}", upscaled(source, image, mode="exact")
        yield f"{name} exact, RGBA", upscaled(source, pictures["rgba"], mode="exact")
        yield f"{name} exact, bf16", upscaled(source, small, mode="exact", precision="bf16")
        yield f"{name} exact, ensemble 8", upscaled(source, small, mode="exact", ensemble=8)
        yield f"{name} exact, seamless", upscaled(source, small, mode="exact", seamless="both")
        yield f"{name} auto, mask", upscaled(source, picture, mask=masks["mask"])
        for what in ("tiles", "tiles by default", "whole"):
            yield f"{name} {what}", upscaled(source, picture, **OPTIONS[what])
        yield (
            f"{name} network, float64",
            lambda source=source: run_network(pack.load(source), picture),
        )
        yield (
            f"{name} engine, float64",
            lambda source=source: run_engine(pack.load(source), picture, band=16),
        )
    for upsampler, scale in FDATS.items():
        source, load = inputs / WEIGHTS.format(upsampler), {"scale": scale}
        name = f"random FDAT {upsampler} x{scale}"
        yield f"{name} exact", upscaled(source, pair, load, mode="exact")
        yield (
            f"{name} network, float64",
            lambda source=source, load=load: run_network(pack.load(source, **load), small),
        )
        yield (
            f"{name} engine, float64",
            lambda source=source, load=load: run_engine(pack.load(source, **load), pair, band=8),
        )

    source = models / "dense_iso_demo_x4.safetensors"
    for what, image in {"odd": picture, "small": small, "pair": pair}.items():
        yield f"dense_iso exact, {what}", upscaled(source, image, mode="exact")
    yield "dense_iso exact, ensemble 2", upscaled(source, picture, mode="exact", ensemble=2)
    yield "dense_iso exact, seamless", upscaled(source, small, mode="exact", seamless="both")
    yield "dense_iso exact, RGBA", upscaled(source, pictures["rgba"], mode="exact")
    yield "dense_iso exact, bf16", upscaled(source, small, mode="exact", precision="bf16")
    yield "dense_iso whole", upscaled(source, picture, mode="whole")
    yield "dense_iso own windows, float64", lambda: run_network(pack.load(source), picture)
    yield "dense_iso engine, float64", lambda: run_engine(pack.load(source), picture)
    for what, load in DENSE_ISO_OPTIONS.items():
        yield f"dense_iso {what}", upscaled(source, small, load, mode="exact")
        yield (
            f"dense_iso {what}, float64",
            lambda load=load: run_network(pack.load(source, **load), small),
        )
    yield "dense_iso tiles", upscaled(source, picture, **TILES)
    yield "dense_iso tiles by default", upscaled(source, picture, mode="tile")
    yield "dense_iso tiles, mask", upscaled(source, picture, mask=masks["mask"])

    for name in ("ESRGAN", "Compact"):
        source = inputs / WEIGHTS.format(name)
        for what, options in OPTIONS.items():
            yield f"{name} {what}", upscaled(source, picture, **options)
        for what, mask in masks.items():
            yield f"{name} {what}", upscaled(source, picture, **TILES, mask=mask)
        for alpha in ("model", "resize"):
            yield f"{name} RGBA, {alpha}", upscaled(source, pictures["rgba"], **TILES, alpha=alpha)
        yield f"{name} grey", upscaled(source, picture.mean(3, keepdim=True), **TILES)
        yield f"{name} pair", upscaled(source, pair, **TILES)


def run_cases(worktree: Path, inputs: Path, results: Path) -> None:
    """Store the result of every case, or what was raised instead of it, under its name."""
    found, names = {}, []
    for name, compute in cases(pack_in(worktree), worktree / "models", inputs):
        names.append(name)
        try:
            found[name] = compute().contiguous()
        except Exception as error:  # what one commit refuses is a result, too
            text = bytearray(f"{type(error).__name__}: {error}", "utf-8")
            found[FAILED + name] = torch.frombuffer(text, dtype=torch.uint8)
    save_file(found, results, metadata={"names": "\n".join(names)})


# --- what is made once, for both ---


@torch.no_grad()
def randomise(network: nn.Module, seed: int) -> None:
    """Give a network weights of unit gain, small biases, norms near 1 and sharp attention."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(network.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith("attn.temp"):
            parameter.copy_(2 + noise.abs())
        elif parameter.ndim < 2:
            is_norm = ".n1.weight" in name or ".n2.weight" in name or "norm" in name
            parameter.copy_(0.1 * noise + (1.0 if is_norm else 0.0))
        else:
            parameter.copy_(noise / parameter[0].numel() ** 0.5)


@torch.no_grad()
def give_contrast(network: nn.Module, output: Tensor) -> None:
    """Change the last convolution, so that a network that made ``output`` makes pictures of mean
    0.5 and deviation 0.15: hardly a value is clamped, and every difference shows."""
    last = [
        layer
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Conv2d) and not name.endswith(("offset", "scope"))
    ][-1]
    gain = 0.15 / output.std()
    last.weight *= gain
    if last.bias is not None:
        last.bias.copy_((last.bias - output.mean()) * gain + 0.5)


def write_inputs(worktree: Path, folder: Path) -> None:
    """Pictures, masks and random weights for both commits.

    The networks run by the old commit's code, because spandrel's ``dysample`` needs a GPU; that has
    a say in nothing but the contrast of the weights.
    """
    pack = pack_in(worktree)
    from PIL import Image
    from spandrel.architectures.Compact import Compact
    from spandrel.architectures.ESRGAN import ESRGAN
    from spandrel.architectures.FDAT import FDAT

    with Image.open(ROOT / "samples" / "coffee.png") as file:
        raw = torch.tensor(list(file.convert("RGB").tobytes()), dtype=torch.uint8)
        coffee = raw.view(1, file.height, file.width, 3).float() / 255
    picture = coffee[:, 150:247, 200:331].clone()  # odd sides, larger than one window
    down = torch.linspace(0, 1, 97).view(1, 97, 1, 1).expand(1, 97, 131, 1)
    mask = torch.zeros(1, 97, 131)
    mask[:, 20:60, 30:90], mask[:, 60:70, 30:90] = 1.0, 0.5
    pictures = {
        "picture": picture,
        "small": coffee[:, 100:137, 300:353].clone(),
        "pair": torch.cat([coffee[:, 30:78, 40:96], coffee[:, 230:278, 340:396]]),
        "rgba": torch.cat([picture, down], 3),
        "mask": mask,
        "empty mask": torch.zeros_like(mask),
        "full mask": torch.ones_like(mask),
    }
    save_file(pictures, folder / PICTURES)
    image = pictures["small"].movedim(3, 1)
    sizes = {"embed_dim": 24, "num_groups": 2, "depth_per_group": 1, "num_heads": 3, "mid_dim": 16}
    networks: dict[str, nn.Module] = {
        name: FDAT(**sizes, ffn_expansion_ratio=1.5, upsampler_type=name, scale=scale)  # type: ignore[arg-type]
        for name, scale in FDATS.items()
    }
    networks["ESRGAN"] = ESRGAN(num_filters=16, num_blocks=2, scale=4)
    networks["Compact"] = Compact(num_feat=16, num_conv=3, upscale=2)
    for seed, (name, network) in enumerate(networks.items()):
        randomise(network, seed)
        scale = {"scale": FDATS[name]} if name in FDATS else {}
        with torch.inference_mode():
            output = pack.load(network.state_dict(), **scale).model(image)
        give_contrast(network, output)
        save_file(network.state_dict(), folder / WEIGHTS.format(name))


# --- the two runs, and their comparison ---


def git(*arguments: str) -> str:
    """What git prints, run at the root."""
    line = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(line, check=True, capture_output=True, text=True).stdout.strip()


@contextmanager
def worktrees(commits: list[str], folder: Path) -> Iterator[list[Path]]:
    """Each commit's files in a folder of its own."""
    paths = [folder / f"{index}" for index in range(len(commits))]
    try:
        for path, commit in zip(paths, commits, strict=True):
            git("worktree", "add", "--quiet", "--detach", str(path), commit)
        yield paths
    finally:
        for path in paths:
            if path.exists():
                git("worktree", "remove", "--force", str(path))


def start(what: str, worktree: Path, *paths: Path) -> subprocess.Popen:
    """This file in a Python of its own, that finds the pack in a worktree; one thread, so that both
    run at once and sum in the same order."""
    line = [sys.executable, __file__, what, str(worktree), *map(str, paths)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
    return subprocess.Popen(line, env=environment, cwd=worktree)


def compare(old: dict[str, Tensor], new: dict[str, Tensor], name: str) -> tuple[float, str]:
    """The largest difference of a case, as a share of the old output's range or of 1; and a line
    that says it."""
    failures = [bytes(r[FAILED + name].tolist()).decode() for r in (old, new) if name not in r]
    if failures:
        both = len(failures) == 2
        return (0.0 if both else float("inf")), f"{'both' if both else 'one'} raised {failures[0]}"
    a, b = old[name], new[name]
    if a.shape != b.shape or a.dtype != b.dtype:
        return float("inf"), f"{a.dtype} {tuple(a.shape)} and {b.dtype} {tuple(b.shape)}"
    hashes = [
        hashlib.sha256(t.view(torch.uint8).numpy().tobytes()).hexdigest()[:12] for t in (a, b)
    ]
    difference = (a.double() - b.double()).abs().max().item() / max(1.0, (a.max() - a.min()).item())
    same = f"equal {hashes[0]}" if hashes[0] == hashes[1] else f"unequal {hashes[0]} {hashes[1]}"
    return difference, f"{difference:.1e}  {same}"


def main(commits: list[str]) -> int:
    """Run both commits, print every case, and give the exit code."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        files = [folder / "old.safetensors", folder / "new.safetensors"]
        with worktrees(commits, folder) as paths:
            if start("inputs", paths[0], folder).wait():
                return 2
            pairs = zip(paths, files, strict=True)
            runs = [start("cases", path, folder, file) for path, file in pairs]
            if any([run.wait() for run in runs]):
                return 2
        old, new = (load_file(file) for file in files)
    names = [name.removeprefix(FAILED) for name in old]
    print(f"{commits[0]} is {git('rev-parse', '--short', commits[0])}, ", end="")
    print(f"{commits[1]} is {git('rev-parse', '--short', commits[1])}; {len(names)} cases\n")
    different, changed = [], []
    for name in sorted(names):
        difference, line = compare(old, new, name)
        fails = not difference <= TOLERANCE  # NaN fails, too
        if fails and name in ON_PURPOSE:
            twin = ON_PURPOSE[name]
            fails = name not in new or not (twin is None or torch.equal(new[name], new[twin]))
            verdict = "WRONG, not" if fails else "now"
            changed.append(f"{name:52}{line}; {verdict} {twin or 'a result of its own'}")
        else:
            print(f"{name:52}{line}{'  DIFFERENT' if fails else ''}")
        different += [name] if fails else []
    print("\nChanged on purpose, the new result beside:\n" + ("\n".join(changed) or "none"))
    print(f"\n{len(different)} cases are wrong" + "".join(f"\n  {name}" for name in different))
    return 1 if different else 0


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["inputs", *paths]:
            write_inputs(*map(Path, paths))
        case ["cases", *paths]:
            run_cases(*map(Path, paths))
        case [old_commit, new_commit]:
            sys.exit(main([old_commit, new_commit]))
        case _:
            sys.exit("usage: python -m tools.compare_commits OLD NEW")
