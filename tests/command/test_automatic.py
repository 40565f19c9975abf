"""``--model auto``: the line that says which model and why, and that it is the one that was used."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("typer")
pytest.importorskip("pyvips")
from typer.testing import CliRunner

from fdat_dense_iso.arch import load_model
from fdat_dense_iso.command import main as cli
from fdat_dense_iso.command.automatic import bundled
from fdat_dense_iso.command.model import UsageError
from fdat_dense_iso.common.bundled import CHOICES
from fdat_dense_iso.upscale import upscale_image
from tests.helpers.paths import MODELS, ROOT


def sample() -> Image.Image:
    picture = Image.open(ROOT / "samples" / "coffee.png").convert("RGB")
    return picture.resize((150, 100), Image.Resampling.LANCZOS)


@pytest.mark.parametrize(
    ("name", "quality", "chosen", "why"),
    [
        ("clean.png", None, "fdat_demo_x2", "no traces of JPEG's blocks are found ("),
        ("web.jpg", 50, "fdat_real_x2", "it is a JPEG of quality 50"),
        ("saved_again.png", 30, "fdat_real_x2", "it shows blocks of compression ("),
        ("camera.jpg", 98, "fdat_demo_x2", "no traces of JPEG's blocks are found ("),
    ],
)
def test_each_file_gets_the_model_that_suits_it(
    tmp_path: Path, name: str, quality: int | None, chosen: str, why: str
) -> None:
    picture, path = sample(), tmp_path / name
    if quality:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality)
        picture = Image.open(file)
    path.write_bytes(file.getvalue()) if path.suffix == ".jpg" else picture.save(path)
    result = CliRunner().invoke(cli.app, [str(path), str(tmp_path / "out.png"), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert f"{name}: {chosen}, because {why}" in said
    pixels = np.array(Image.open(path).convert("RGB"))
    expected = upscale_image(
        load_model(MODELS / f"{chosen}.safetensors"), torch.from_numpy(pixels)[None] / 255
    )
    found = np.asarray(Image.open(tmp_path / "out.png")).astype(int)
    assert np.abs(found - expected[0].numpy() * 255).max() <= 2  # decoders of JPEG differ by 1


def test_streamed_pictures_get_the_same_one(tmp_path: Path) -> None:
    path = tmp_path / "saved_again.png"
    file = io.BytesIO()
    sample().save(file, "JPEG", quality=30)
    Image.open(file).save(path)
    said = []
    for target in ("out.png", "out.dzi"):
        result = CliRunner().invoke(cli.app, [str(path), str(tmp_path / target)])
        assert result.exit_code == 0, result.output
        said.append(" ".join(result.output.split()).split(")")[0])
    assert (
        said[0] == said[1] and "fdat_real_x2, because it shows blocks of compression (" in said[0]
    )


def test_every_choice_is_bundled() -> None:
    for name, stems in CHOICES.items():
        paths = bundled(Path(name))
        assert paths is not None and all(path.is_file() for path in paths)
        assert tuple(path.stem for path in paths) == stems
        assert len({load_model(path).scale for path in paths}) == 1
    assert bundled(Path("net.safetensors")) is None
    with pytest.raises(UsageError, match="auto-x4"):
        bundled(Path("auto-x3"))


def test_quiet_says_nothing(tmp_path: Path) -> None:
    sample().save(tmp_path / "a.png")
    result = CliRunner().invoke(
        cli.app, [str(tmp_path / "a.png"), str(tmp_path / "b.png"), "--model", "auto", "--quiet"]
    )
    assert result.exit_code == 0 and result.output == ""
