"""What `tools.compare_commits` makes of two commits' results; the commits themselves are too slow
for a test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tools import compare_commits
from tools.compare_commits import FAILED, ON_PURPOSE, PICTURES, compare, main, run_cases

SHAPES = {
    "picture": 3,
    "small": 3,
    "pair": 3,
    "rgba": 4,
    "mask": 1,
    "empty mask": 1,
    "full mask": 1,
}


def results(**changed: Tensor) -> dict[str, Tensor]:
    """Of one commit: every case that changes on purpose, its twin, and one more."""
    names = {"plain", *ON_PURPOSE, *filter(None, ON_PURPOSE.values())}
    return {name: torch.full((2, 3), 0.5) for name in names} | changed


@pytest.mark.parametrize(
    ("new", "difference", "says"),
    [
        (torch.tensor([0.0, 0.5]), 0.0, "equal"),
        (torch.tensor([0.0, 0.75]), 0.25, "unequal"),
        (torch.tensor([0.0, float("nan")]), float("nan"), "unequal"),
        (torch.tensor([0.0]), float("inf"), "torch.float32 (1,)"),
        (torch.tensor([0.0, 0.5]).double(), float("inf"), "torch.float64 (2,)"),
        (None, float("inf"), "one raised ValueError: no"),
    ],
)
def test_two_results(new: Tensor | None, difference: float, says: str) -> None:
    failed = torch.tensor(list(b"ValueError: no"), dtype=torch.uint8)
    found = {FAILED + "case": failed} if new is None else {"case": new}
    got, line = compare({"case": torch.tensor([0.0, 0.5])}, found, "case")
    assert got == pytest.approx(difference, nan_ok=True) and says in line
    assert line.count("unequal") == says.count("unequal")


def test_a_wide_range_counts_as_one() -> None:
    old, new = torch.tensor([-100.0, 100.0]), torch.tensor([-100.0, 101.0])
    assert compare({"case": old}, {"case": new}, "case")[0] == pytest.approx(1 / 200)


@pytest.mark.parametrize(
    ("new", "code", "says"),
    [
        (results(), 0, "0 cases are wrong"),
        (results(plain=torch.full((2, 3), 0.5 + 1e-7)), 0, "0 cases are wrong"),
        (results(plain=torch.full((2, 3), 0.6)), 1, "1 cases are wrong\n  plain"),
        (results(**{"dense_iso tiles": torch.zeros(2, 3)}), 1, "WRONG, not dense_iso exact, odd"),
        (results(**{"dense_iso tiles, mask": torch.zeros(2, 3)}), 0, "now a result of its own"),
    ],
)
def test_verdict(
    new: dict[str, Tensor],
    code: int,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The exit code and what is printed, of results that are given."""

    @contextmanager
    def worktrees(commits: list[str], folder: Path) -> Iterator[list[Path]]:
        yield [folder / commit for commit in commits]

    def start(what: str, worktree: Path, *paths: Path) -> Any:
        if what == "cases":
            save_file(results() if worktree.name == "old" else new, paths[-1])
        return SimpleNamespace(wait=lambda: 0)

    monkeypatch.setattr(compare_commits, "worktrees", worktrees)
    monkeypatch.setattr(compare_commits, "start", start)
    monkeypatch.setattr(compare_commits, "git", lambda *_: "0000000")
    assert main(["old", "new"]) == code
    assert says in capsys.readouterr().out


def test_every_case_leaves_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a pack that resizes nothing and refuses masks: tensors under the cases' names, errors
    as text, no name twice."""
    pictures = {name: torch.zeros(1, 4, 5, channels) for name, channels in SHAPES.items()}
    save_file(pictures, tmp_path / PICTURES)

    def upscale(model: object, image: Tensor, **options: Any) -> Tensor:
        if "mask" in options:
            raise ValueError("no masks here")
        return image.clone()

    pack = SimpleNamespace(load=lambda source, **options: SimpleNamespace(), upscale=upscale)
    monkeypatch.setattr(compare_commits, "pack_in", lambda worktree: pack)
    run_cases(tmp_path, tmp_path, tmp_path / "results.safetensors")
    found = load_file(tmp_path / "results.safetensors")
    names = [name for name, _ in compare_commits.cases(pack, tmp_path, tmp_path)]
    assert len(set(names)) == len(names) == len(found) > 100
    assert {name.removeprefix(FAILED) for name in found} == set(names) >= set(ON_PURPOSE)
    assert torch.equal(found["ESRGAN RGBA, model"], pictures["rgba"])
    assert bytes(found[FAILED + "ESRGAN mask"].tolist()) == b"ValueError: no masks here"
