"""Prints the metadata of a checkpoint, and adds to them.

    python -m tools.metadata models/fdat_demo_x2.safetensors
    python -m tools.metadata models/fdat_demo_x2.safetensors --training-log runs/train_x2.log

The second command adds the loss curve that `tools.train` printed, for checkpoints that are older
than its own record of the curve.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated

import typer
from safetensors import safe_open
from safetensors.torch import load_file, save_file

LOSS_CURVE = "training_loss_l1"
"""[[step, mean L1 of the steps since the last entry], ...]"""

LOG_LINE = re.compile(r"^step (\d+)/\d+  L1 ([\d.]+)  \d+ s$", re.MULTILINE)


def read_metadata(checkpoint: Path) -> dict[str, str]:
    """The metadata entries of a .safetensors file; empty if there are none."""
    with safe_open(checkpoint, framework="pt") as file:
        return dict(file.metadata() or {})


def add_metadata(checkpoint: Path, entries: dict[str, str]) -> None:
    """Add or replace entries; the tensors stay as they are."""
    metadata = read_metadata(checkpoint)
    save_file(load_file(checkpoint), checkpoint, {**metadata, **entries})


def read_curve(log: str, until: int) -> list[tuple[int, float]]:
    """The loss curve in a log of `tools.train`, up to step ``until``.

    Raises:
        ValueError: the log has no line for that step.
    """
    curve = [(int(step), float(loss)) for step, loss in LOG_LINE.findall(log) if int(step) <= until]
    if not curve or curve[-1][0] != until:
        found = (
            f"has no line between the steps {curve[-1][0]} and"
            if curve
            else "holds no line of a training to step"
        )
        raise ValueError(f"the log {found} {until}; give the log of the checkpoint's own training")
    return curve


def main(
    checkpoint: Annotated[Path, typer.Argument(help="A .safetensors file.")],
    training_log: Annotated[
        Path | None, typer.Option(help="Add the loss curve of this log of tools.train.")
    ] = None,
    log_until: Annotated[
        int | None,
        typer.Option(help="Only to this step, where another training went on; its points stay."),
    ] = None,
) -> None:
    """Print the metadata; add a loss curve."""
    if training_log is not None:
        metadata = read_metadata(checkpoint)
        if "training_steps" not in metadata:
            raise typer.BadParameter(
                f"{checkpoint} does not say of how many steps it is (training_steps)"
            )
        steps = int(metadata["training_steps"])
        recorded = [] if log_until is None else json.loads(metadata.get(LOSS_CURVE, "[]"))
        try:
            curve = read_curve(training_log.read_text(), steps if log_until is None else log_until)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--training-log") from error
        later = [point for point in recorded if point[0] > curve[-1][0]]
        add_metadata(checkpoint, {LOSS_CURVE: json.dumps([*curve, *later])})
    for name, value in sorted(read_metadata(checkpoint).items()):
        print(f"{name}: {value}")


if __name__ == "__main__":
    typer.run(main)
