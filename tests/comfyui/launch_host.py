"""Runs a ComfyUI checkout's `main.py` as the tests need it: `python launch_host.py CHECKOUT [its
arguments]`.

- torchvision and torchaudio are often builds that do not load beside a CPU torch. torchvision is
  made importable; torchaudio, which the host imports at start and no upscaling uses, becomes an
  empty package.
- The host ends when its standard input closes, so it never outlives the test run that started it.
"""

from __future__ import annotations

import importlib.util
import os
import runpy
import sys
import threading
from importlib.machinery import ModuleSpec
from pathlib import Path

PACK = Path(__file__).resolve().parents[2]


def make_torchvision_importable() -> None:
    # Loaded by path: with the pack's folder in sys.path its nodes.py would hide the host's.
    spec = importlib.util.spec_from_file_location("cpu_torchvision", PACK / "cpu_torchvision.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    module.make_torchvision_importable()


def make_torchaudio_importable() -> None:
    try:
        importlib.import_module("torchaudio")
    except (ImportError, OSError, RuntimeError):
        for name in ("torchaudio", "torchaudio.functional"):
            spec = ModuleSpec(name, loader=None, is_package=True)
            sys.modules[name] = importlib.util.module_from_spec(spec)


def exit_when_input_closes() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


def main() -> None:
    checkout = Path(sys.argv[1])
    threading.Thread(target=exit_when_input_closes, daemon=True).start()
    make_torchvision_importable()
    make_torchaudio_importable()
    sys.path[0] = str(checkout)
    sys.argv = [str(checkout / "main.py"), *sys.argv[2:]]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
