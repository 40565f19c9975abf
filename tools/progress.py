"""A training that can be ended at any time: the same command goes on where it was saved."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import nn


class Progress:
    """Saves and loads everything that a training needs in order to go on as if it had not ended.

    Args:
        path: the file; None to keep nothing.
        command: of the training. A file of another command is refused.
        model, average, optimizer, rng: what changes from step to step.
    """

    def __init__(
        self,
        path: Path | None,
        command: str,
        model: nn.Module,
        average: nn.Module,
        optimizer: torch.optim.Optimizer,
        rng: np.random.Generator,
    ) -> None:
        self.path, self.command, self.rng = path, command, rng
        self.parts = {"model": model, "average": average, "optimizer": optimizer}

    def save(self, step: int, curve: list[tuple[int, float]], losses: list[float]) -> None:
        """Write the state after ``step`` steps; the file before it stays until that is done."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(self.path.name + ".part")
        said = {"command": self.command, "step": step, "curve": curve, "losses": losses}
        said["rng"] = json.dumps(self.rng.bit_generator.state)
        torch.save(
            {**said, **{name: part.state_dict() for name, part in self.parts.items()}}, partial
        )
        partial.replace(self.path)

    def load(self, curve: list[tuple[int, float]], losses: list[float]) -> int:
        """Restore what was saved, fill ``curve`` and ``losses``; the steps done, 0 if there is no
        file.

        Raises:
            ValueError: the file is of another command.
        """
        if self.path is None or not self.path.exists():
            return 0
        saved = torch.load(self.path, weights_only=True)
        if saved["command"] != self.command:
            raise ValueError(
                f"{self.path} is the state of another training ({saved['command']}); "
                "name another file with --state, or delete it to begin anew"
            )
        for name, part in self.parts.items():
            part.load_state_dict(saved[name])
        self.rng.bit_generator.state = json.loads(saved["rng"])
        curve[:] = [tuple(point) for point in saved["curve"]]
        losses[:] = saved["losses"]
        return int(saved["step"])
