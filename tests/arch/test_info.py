"""What is said of models, against figures known from elsewhere and against spandrel's own
descriptors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from fdat_dense_iso.arch import describe, load_model
from fdat_dense_iso.arch.dense_iso.config import DenseIsoViTConfig
from fdat_dense_iso.arch.dense_iso.meta import META_KEY
from fdat_dense_iso.arch.dense_iso.network import DenseIsoViT
from fdat_dense_iso.arch.fdat.config import PRESETS
from fdat_dense_iso.arch.fdat.network import FDAT
from tests.helpers.fdat_cases import SMALL, random_fdat, small
from tests.helpers.paths import ROOT

DEMO = ROOT / "models" / "fdat_demo_x2.safetensors"


def facts(text: str) -> dict[str, str]:
    """The lines that are not part of a list."""
    return dict(
        line.split(": ", 1)
        for line in text.splitlines()
        if not line.startswith(" ") and ": " in line
    )


def listed(text: str, title: str) -> list[str]:
    """The indented lines below ``title``."""
    lines = iter(text.splitlines())
    assert any(line == f"{title}:" for line in lines), text
    found = []
    for line in lines:
        if not line.startswith("  "):
            break
        found.append(line.removeprefix("  "))
    return found


@pytest.mark.parametrize(
    ("preset", "parameters"),  # as traiNNer-redux reports them for x3 with transpose+conv
    [("tiny", "859,779"), ("light", "1,720,467"), ("medium", "3,797,583")],
)
def test_presets(preset: str, parameters: str) -> None:
    config = replace(PRESETS[preset], scale=3)
    found = facts(describe(load_model(FDAT(config).state_dict())))
    assert found["Architecture"] == "FDAT"
    assert found["Scale"] == "x3"
    assert found["Parameters"] == parameters
    assert preset in found["Tags"].split(", ")
    mebibytes = int(parameters.replace(",", "")) * 4 / 2**20  # the buffers are a few bytes
    assert found["Size"] == f"{mebibytes:.2f} MiB in memory, as float32"
    assert found["Precision"] == "fp32, fp16, bf16"
    assert found["Modes"].startswith("exact")


def test_bundled_model() -> None:
    text = describe(load_model(DEMO))
    found = facts(text)
    assert found["File"] == f"{DEMO.name}, {DEMO.stat().st_size / 2**20:.2f} MiB"
    assert (found["Scale"], found["Channels"], found["Input"]) == ("x2", "3 (RGB)", "any size")
    with safe_open(DEMO, "pt") as file:
        metadata = file.metadata()
        names = [name for name in file.keys() if "MetaUpsample" not in name]  # noqa: SIM118
        weights = sum(file.get_tensor(name).numel() for name in names)
    assert int(found["Parameters"].replace(",", "")) == weights
    entries = listed(text, "Training metadata")
    assert f"training steps: {metadata['training_steps']}" in entries
    scores = json.loads(metadata["scores_psnr_ssim_y"])
    assert (
        f"scores psnr ssim y: set5 x2 {scores['set5 x2']}, set14 x2 {scores['set14 x2']}" in entries
    )
    assert entries[-1] == "for programs: config, scores spoilt, training loss l1"
    assert not any("{" in entry or "[[" in entry or len(entry) > 200 for entry in entries)
    assert "Assumed" not in text


@pytest.fixture(scope="module")
def dense_iso_vit() -> dict[str, torch.Tensor]:
    """The published sizes."""
    with torch.device("meta"):
        shapes = DenseIsoViT(DenseIsoViTConfig()).state_dict()
    return {key: torch.zeros(value.shape) for key, value in shapes.items() if key != META_KEY}


def test_dense_iso_vit_says_what_was_assumed(
    tmp_path: Path, dense_iso_vit: dict[str, torch.Tensor]
) -> None:
    path = tmp_path / "vit.safetensors"
    save_file(dense_iso_vit, path)
    path.with_suffix(".json").write_text(json.dumps({"norm_eps": 1e-6, "heads": [6, 8, 6, 8]}))
    text = describe(load_model(path))
    found = facts(text)
    assert found["Architecture"] == "Dense-Iso-ViT"
    assert found["Parameters"] == "23,845,507"  # published: 23.8M, and 90.99 MB for the file
    assert found["Size"].startswith("90.96 MiB")
    assert found["File"].startswith("vit.safetensors, 90.9")
    assert found["Input"] == "any size, in windows of 64x64"
    assert found["Training metadata"] == "none in the file"
    assumed = listed(text, "Assumed")
    assert "assumed gated_half=second" in assumed
    assert not any(
        "norm_eps" in line or "heads" in line for line in assumed
    )  # the sidecar says them
    assert "assumed" not in found["Tags"]


def test_models_of_other_loaders() -> None:
    """A restoration model with one channel and no fp16, which never had a file."""
    from spandrel import ImageModelDescriptor
    from spandrel.architectures.SwinIR import SwinIR, SwinIRArch

    network = SwinIR(
        img_size=8,
        in_chans=1,
        embed_dim=12,
        depths=[1],
        num_heads=[2],
        window_size=4,
        upsampler="",
        upscale=1,
    )
    descriptor = SwinIRArch().load(network.state_dict())
    assert isinstance(descriptor, ImageModelDescriptor)
    text = describe(descriptor)
    found = facts(text)
    assert found["File"] == "not known (from another loader or a state dict)"
    assert found["Training metadata"] == "not known without the file"
    assert (found["Architecture"], found["Purpose"], found["Scale"]) == (
        "SwinIR",
        "restoration",
        "x1",
    )
    assert found["Channels"] == "1 (grey)"
    assert int(found["Parameters"].replace(",", "")) == sum(p.numel() for p in network.parameters())
    assert found["Precision"] == "fp32, bf16 (not fp16)"
    assert found["Tags"] == ", ".join(descriptor.tags)
    assert found["Modes"] == "tile, whole"


@pytest.mark.parametrize(
    ("scale", "metadata", "deed", "training"),
    [
        (2, {}, "enlarges pictures 2 times", "not known; the file does not say"),
        (1, {}, "restores pictures, and does not enlarge them", "not known; the file does not say"),
        (
            4,
            {
                "purpose": "enlarges drawings of 1994",
                "training_data": "one.png, two.png",
                "degradation": "made smaller",
            },
            "enlarges drawings of 1994; enlarges pictures 4 times",
            "2 pictures, made smaller",
        ),
        (
            2,
            {
                "purpose": "enlarges noisy pictures 2 times",
                "training_data": "DIV2K",
                "training_data_licence": "CC0-1.0",
                "degradation": "blur",
            },
            "enlarges noisy pictures 2 times",
            "DIV2K (CC0-1.0), degradation: blur",
        ),
    ],
)
def test_the_first_two_lines_are_for_everyone(
    scale: int, metadata: dict[str, str], deed: str, training: str, tmp_path: Path
) -> None:
    path = tmp_path / "net.safetensors"
    save_file(random_fdat(small("pixelshuffledirect", scale)).state_dict(), path, metadata or None)
    first, second = describe(load_model(path)).splitlines()[:2]
    assert (first, second) == (f"What it does: {deed}", f"Trained on: {training}")


def test_what_holds_now_is_described() -> None:
    descriptor = load_model(random_fdat(small("pixelshuffledirect", 1)).state_dict())
    full = facts(describe(descriptor))
    half = facts(describe(descriptor.half()))
    assert half["Size"].endswith("as float16")
    assert float(half["Size"].split()[0]) == pytest.approx(
        float(full["Size"].split()[0]) / 2, abs=0.02
    )
    assert (full["Purpose"], full["Scale"]) == ("restoration", "x1")


def test_inpainting_models() -> None:
    from spandrel import MaskedImageModelDescriptor

    masked = MaskedImageModelDescriptor(
        torch.nn.Conv2d(4, 3, 3),
        torch.nn.Conv2d(4, 3, 3).state_dict(),
        architecture=load_model(random_fdat(SMALL).state_dict()).architecture,
        purpose="Inpainting",
        tags=[],
        supports_half=False,
        supports_bfloat16=False,
        input_channels=4,
        output_channels=3,
    )
    found = facts(describe(masked))
    assert (found["Purpose"], found["Tags"]) == ("inpainting", "none")
    assert found["Channels"] == "4 (RGBA) in, 3 (RGB) out"
    assert found["Precision"] == "fp32 (not fp16, bf16)"


def test_hostile_metadata_stays_short_and_on_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "hostile.safetensors"
    metadata = {f"k{i:04}": "x" for i in range(500)} | {
        "a\nb\x1b[31m": "first\nsecond\r\x00",
        "b": "é" * 100_000,
    }
    save_file(random_fdat(SMALL).state_dict(), path, metadata)
    text = describe(load_model(path))
    entries = listed(text, "Training metadata")
    assert len(entries) == 51 and entries[-1] == "… 452 more"
    assert entries[0] == r"a\nb\x1b[31m: first\nsecond\r\x00"
    assert entries[1].endswith("é… (100,000 characters)") and len(entries[1]) < 200
    assert all(c.isprintable() or c == "\n" for c in text)
    entries = listed(describe(load_model(path), whole=True), "Training metadata")
    assert len(entries) == 502 and entries[1] == "b: " + "é" * 100_000


def test_something_else() -> None:
    with pytest.raises(
        ValueError, match=r"the model is a str; a model of an upscale model loader was expected"
    ):
        describe("engine.trt")  # type: ignore[arg-type]
