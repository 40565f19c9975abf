"""The command in this process, on a stand-in for the model that repeats every pixel."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from tests.helpers.picture_cases import (
    samples,
    write_picture_file,
    write_png,
)

pytest.importorskip("typer")
pytest.importorskip("pyvips")
from typer.testing import CliRunner

from fdat_dense_iso.command import main as cli


class Model:
    """Stand-in for arch and upscale: a model of scale 2 that repeats every pixel, in four tiles."""

    scale = 2
    device = torch.device("cpu")

    def __init__(self) -> None:
        self.calls: list[dict] = []
        self.loaded: list[Path] = []
        self.errors: dict[int, BaseException] = {}

    def load_model(self, source: Path, **options: str) -> Model:
        self.loaded.append(source)
        self.options = options
        return self

    def to(self, device: torch.device) -> None:
        if device.type != "cpu":
            raise RuntimeError(f"no {device}\nat all")

    def upscale_image(self, model, image, *, target=None, progress=None, **options):
        assert model is self and image.dtype == torch.float32 and image.ndim == 4
        self.calls.append(options | {"target": target, "shape": tuple(image.shape)})
        for done in range(1, 5):
            progress(done, 4)
            if done == 2 and len(self.calls) in self.errors:
                raise self.errors[len(self.calls)]
        factor = 2 if target is None else target.factor
        return image.repeat_interleave(factor, 1).repeat_interleave(factor, 2)

    def upscale_frames(self, model, frames, deliver, **options):
        for frame in frames:
            deliver(self.upscale_image(model, frame[None], **options)[0])

    @staticmethod
    def parse_options(texts: list[str]) -> dict[str, str]:
        if not all("=" in text for text in texts):
            raise ValueError(f"{texts[0]!r} is no option")
        return dict(text.split("=") for text in texts)  # type: ignore[misc]

    @staticmethod
    def parse_target(text: str):
        if text != "3x":
            raise ValueError(f"the target {text!r} is not understood")
        return SimpleNamespace(factor=3, size=lambda height, width: (height * 3, width * 3))


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Model:
    model = Model()
    arch, upscale = ModuleType("arch"), ModuleType("upscale")
    arch.load_model, arch.parse_options = model.load_model, model.parse_options  # type: ignore[attr-defined]
    upscale.upscale_image = model.upscale_image  # type: ignore[attr-defined]
    upscale.upscale_frames = model.upscale_frames  # type: ignore[attr-defined]
    upscale.parse_target = model.parse_target  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fdat_dense_iso.arch", arch)
    monkeypatch.setitem(sys.modules, "fdat_dense_iso.upscale", upscale)
    return model


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Model) -> Path:
    """The working directory: a.png (grey with alpha, 16 bit) and b.jpg in `in`, and one.png."""
    (tmp_path / "in").mkdir()
    write_png(tmp_path / "one.png", samples(3, 8))
    write_png(tmp_path / "in" / "a.png", samples(2, 16))
    write_picture_file(tmp_path / "in" / "b.jpg", samples(3, 8))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: object, model: str = "net.safetensors"):
    result = CliRunner().invoke(cli.app, [*map(str, arguments), "--model", model])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


def doubled(values: np.ndarray) -> np.ndarray:
    return values.repeat(2, axis=0).repeat(2, axis=1)


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
