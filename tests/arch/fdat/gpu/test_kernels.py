"""The kernels, where triton is installed: in its interpreter, and compiled for chips not here."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fdat_dense_iso.arch.fdat.config import PRESETS
from fdat_dense_iso.arch.fdat.gpu.launch import has_triton

pytest.importorskip("triton.compiler")
if not has_triton():
    pytest.skip("this triton lacks what the kernels use", allow_module_level=True)

ROOT = Path(__file__).resolve().parents[4]
CASES = ROOT / "tests" / "helpers" / "interpreted_kernels.py"


@pytest.mark.parametrize("chosen", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_kernels_equal_their_twins_in_the_interpreter(chosen: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-m", chosen, "-p", "no:cacheprovider", CASES],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
    assert " passed" in run.stdout and "skipped" not in run.stdout


@pytest.mark.skipif(importlib.util.find_spec("typer") is None, reason="benchmarks need typer")
@pytest.mark.parametrize(
    ("name", "preset", "dtype", "chip", "stack"),
    [
        ("window_half", "medium", torch.float16, "80", 0),
        ("channel_half", "large", torch.float16, "80", 0),
        ("feed_forward", "tiny", torch.float16, "86", 0),
        ("gate_sum", "tiny", torch.float16, "90", 0),
        ("gram", "large", torch.float16, "120", 0),
        ("corners", "tiny", torch.float16, "89", 0),
        ("fold_gate", "tiny", torch.bfloat16, "75", 0),
        ("convolve", "medium", torch.bfloat16, "80", 0),
        ("fold_channel", "large", torch.float16, "86", 0),
        ("feed_forward", "large", torch.bfloat16, "89", 0),
        ("feed_forward", "large", torch.float32, "86", 0),
        ("window_half", "tiny", torch.float32, "gfx90a", 0),
    ],
)
@pytest.mark.every(3)
def test_kernels_compile_ahead_of_time(
    name: str, preset: str, dtype: torch.dtype, chip: str, stack: int
) -> None:
    """One way at least fits the chip's shared memory and leaves no registers in memory."""
    from benchmarks.kernels import SHARED, Compiled, compiled_ways

    ways = compiled_ways(name, PRESETS[preset], dtype, chip)
    assert any(
        isinstance(way, Compiled) and way.shared <= SHARED[chip] and way.stack <= stack
        for way in ways
    )


@pytest.mark.skipif(importlib.util.find_spec("typer") is None, reason="benchmarks need typer")
def test_the_way_that_spills_least_is_one_that_fits() -> None:
    from benchmarks.kernels import SHARED, Compiled, least_spilled

    fits, spills = Compiled(SHARED["75"], 255, 16), Compiled(1024, 255, 40)
    too_large = Compiled(SHARED["75"] + 1, 128, 0)
    assert least_spilled([too_large, spills, fits, "CompilationError"], "75") == 16
    assert least_spilled([too_large, "CompilationError"], "75") is None
