"""Dense-Iso-ViT's reader: how large it is, what comes of the variants, how long many keys take.

    python -m tests.helpers.dense_iso_variants table
    python -m tests.helpers.dense_iso_variants keys

The first prints a column of the table in docs/dense-iso-vit.md for this checkout; the second the
seconds that each of the files in tests/helpers/dense_iso_variants/key_sets.py takes.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import torch
import typer
from rich.console import Console
from rich.table import Table

from fdat_dense_iso.cpu_torchvision import make_torchvision_importable

make_torchvision_importable()

from fdat_dense_iso.arch.dense_iso.reading.options import OPTIONS  # noqa: E402
from tests.helpers.dense_iso_variants import VARIANTS, RandomAuthor, build, randomise  # noqa: E402
from tests.helpers.dense_iso_variants.key_sets import measured  # noqa: E402
from tests.helpers.dense_iso_variants.outcomes import ORDERS, grounds, outcome  # noqa: E402

app = typer.Typer(add_completion=False, help=__doc__)
console = Console(width=140)
SOURCES = Path(__file__).resolve().parents[3] / "arch/dense_iso/reading"


def kind(result: str, remarked: bool) -> str:
    """An outcome as the table has it."""
    return {"wrong": "wrong, remarked" if remarked else "wrong, silent"}.get(result, result)


@app.command()
def table() -> None:
    """Lines, files, options; variants and random authors, each in three file orders."""
    files = list(SOURCES.glob("*.py"))
    lines = sum(len(file.read_text().splitlines()) for file in files)
    counts: dict[str, Counter[str]] = {"with options": Counter(), "without": Counter()}
    for name in VARIANTS:
        module, options = build(name)
        state_dict = dict(module.state_dict())
        for order in ORDERS.values():
            for what, given in (("with options", options), ("without", {})):
                result, remarks = outcome(order(state_dict), module, given)
                counts[what][kind(result, bool(remarks))] += 1
    authors: Counter[str] = Counter()
    for seed in range(30):
        torch.manual_seed(seed)
        module = RandomAuthor(seed).eval()
        randomise(module)
        for order in ORDERS.values():
            state_dict = order(module.state_dict())
            result, remarks = outcome(state_dict, module, module.my.answers, module.my.window)
            authors[kind(result, bool(grounds(remarks)))] += 1
    shown = Table("of the reader", "this checkout")
    shown.add_row("lines, files, options", f"{lines:,}, {len(files)}, {len(OPTIONS)}")
    for what, found in (
        {f"variants {k}": v for k, v in counts.items()} | {"random authors": authors}
    ).items():
        text = ", ".join(f"{number} {name}" for name, number in sorted(found.items()))
        shown.add_row(f"{what}, of {found.total()} files", text)
    console.print(shown)


@app.command()
def keys() -> None:
    """Seconds for files of many keys."""
    shown = Table("seconds", "keys", "file", "outcome")
    for name, number, seconds, result in measured():
        shown.add_row(f"{seconds:.2f}", f"{number:,}", name, result[:80])
    console.print(shown)


if __name__ == "__main__":
    app()
