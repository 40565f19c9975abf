"""The import of torchvision beside a torch that lacks its operators, each case in a fresh
interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

# Fails as the CUDA torchvision does beside a CPU torch: on its first use of an operator that nobody
# defined, when a sub-module is in sys.modules already.
HALF_IMPORTED = """
import torch
from torchvision import extension
@torch.library.register_fake("torchvision::nms")
def nms(dets, scores, iou_threshold): return dets.new_empty(0)
@torch.library.register_fake("torchvision::qnms")
def qnms(dets, scores, iou_threshold): return dets.new_empty(0)
"""
WORKING = """
import torch
library = torch.library.Library("torchvision", "FRAGMENT")
library.define("nms(Tensor dets, Tensor scores, float iou_threshold, int own=0) -> Tensor")
"""
CALL = "from cpu_torchvision import make_torchvision_importable as make; "


def python(code: str, first_on_path: Path | None = None) -> subprocess.CompletedProcess[str]:
    path = [str(folder) for folder in (first_on_path, ROOT) if folder is not None]
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def fake_torchvision(folder: Path, code: str) -> Path:
    package = folder / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(code)
    (package / "extension.py").write_text("imports = 0")
    return folder


def test_missing_operators_are_declared_and_stay(tmp_path: Path):
    fake_torchvision(tmp_path, HALF_IMPORTED)
    code = CALL + (
        "make(); make(); import gc, torch, torchvision; gc.collect(); "
        "print(torch.ops.torchvision.nms.default._schema); print(torchvision.extension.imports)"
    )
    result = python(code, tmp_path)
    assert result.stdout.splitlines() == [
        "torchvision::nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        "0",
    ], result.stderr


def test_a_working_torchvision_is_left_alone(tmp_path: Path):
    fake_torchvision(tmp_path, WORKING)
    code = CALL + (
        "make(); import torch; print('own' in str(torch.ops.torchvision.nms.default._schema), "
        "hasattr(torch.ops.torchvision, 'qnms'))"
    )
    result = python(code, tmp_path)
    assert result.stdout.split() == ["True", "False"], result.stderr


@pytest.mark.parametrize(
    "error", ["RuntimeError('something else')", "ImportError('no such module')"]
)
def test_other_errors_are_not_swallowed(tmp_path: Path, error: str):
    fake_torchvision(tmp_path, f"raise {error}")
    result = python(CALL + "make()", tmp_path)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == error.replace("('", ": ").replace("')", "")
