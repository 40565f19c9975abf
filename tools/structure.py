"""Counts the house: files, lines, circles of imports, floors, and what each package imports.

    python -m tools.structure

An import counts wherever it stands: at the top of a file, inside a function, under
``TYPE_CHECKING``; relative, or by the name ``fdat_dense_iso``. It leads to a file: ``from ..arch
import load_model`` to ``arch/__init__.py``, ``from ..arch import load`` to ``arch/load.py``.
"""

from __future__ import annotations

import ast
import statistics
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent
PACK = "fdat_dense_iso"  # the name that the root has where it is not loaded by ComfyUI
FOLDERS = (
    *("common", "arch", "upscale", "video", "picture", "cluster", "command"),
    *("tools", "benchmarks", "tests"),
)
SHOWN = {".": "the root", "tests": "tests and below"}


@dataclass(frozen=True)
class Source:
    """One file: its number of lines, the files of ours that it imports, and the full names of the
    modules of others."""

    lines: int
    ours: frozenset[PurePosixPath]
    others: frozenset[str]


House = dict[PurePosixPath, Source]
"""Every Python file, by its path from the root."""


def read_house(root: Path = ROOT) -> House:
    """Every Python file at the root and in its `FOLDERS`, with what it imports."""
    found = [
        *root.glob("*.py"),
        *(path for name in FOLDERS for path in (root / name).rglob("*.py")),
    ]
    paths = sorted(PurePosixPath(path.relative_to(root).as_posix()) for path in found)
    files, house = frozenset(paths), {}
    for path in paths:
        text = (root / path).read_text(encoding="utf-8")
        ours, others = set(), set()
        for name in imported_names(ast.parse(text), path):
            target = file_of(name, files)
            if target is None:
                others.add(".".join(name))
            elif target != path:
                ours.add(target)
        house[path] = Source(text.count("\n"), frozenset(ours), frozenset(others))
    return house


def imported_names(tree: ast.Module, path: PurePosixPath) -> Iterator[tuple[str, ...]]:
    """What a file imports, as seen from the root: ("arch", "load", "load_model") for ``from .load
    import load_model`` in ``arch/info.py``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            base, names = (), [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            folder = path.parent.parts
            base = folder[: len(folder) - node.level + 1] if node.level else ()
            module = node.module.split(".") if node.module else []
            names = [[*module, alias.name] for alias in node.names]
        else:
            continue
        for name in names:
            parts = (*base, *name)
            yield parts[1:] if parts[0] == PACK and len(parts) > 1 else parts


def file_of(name: tuple[str, ...], files: frozenset[PurePosixPath]) -> PurePosixPath | None:
    """The file of ours that a name leads to: a module, or the module that holds the name."""
    for parts in (name, name[:-1]):
        for ending in (".py", "/__init__.py"):
            path = PurePosixPath("/".join(parts) + ending)
            if parts and path in files:
                return path
    return None


def reachable(house: House) -> dict[PurePosixPath, set[PurePosixPath]]:
    """All files that each file leads to, over any number of imports."""
    reach = {}
    for start in house:
        seen: set[PurePosixPath] = set()
        waiting = [start]
        while waiting:
            new = house[waiting.pop()].ours - seen
            seen |= new
            waiting += new
        reach[start] = seen
    return reach


def circles(house: House) -> list[list[PurePosixPath]]:
    """The groups of files that lead to each other; there must be none."""
    reach = reachable(house)
    groups = {frozenset(b for b in reach[a] if a in reach[b]) for a in house}
    return sorted(sorted(group) for group in groups if group)


def longest_chain(house: House, folder: str = "arch") -> list[PurePosixPath]:
    """The longest way down from import to import within a folder, one file on each floor. A circle
    is walked through once at most."""
    reach = reachable(house)
    inside = [path for path in house if path.parts[0] == folder]
    chains: dict[PurePosixPath, list[PurePosixPath]] = {}
    # a file reaches strictly more than whatever lies below it
    for path in sorted(inside, key=lambda path: (len(reach[path]), path)):
        below = [chains[target] for target in sorted(house[path].ours) if target in chains]
        chains[path] = [path, *max(below, key=len, default=[])]
    return max(chains.values(), key=len, default=[])


def packages(house: House) -> dict[str, dict[PurePosixPath, Source]]:
    """The files of every folder, without those of the folders in it; all of tests together."""
    found: dict[str, dict[PurePosixPath, Source]] = defaultdict(dict)
    for path, source in house.items():
        found["tests" if path.parts[0] == "tests" else str(path.parent)][path] = source
    return dict(found)


def main() -> None:
    """Print the figures."""
    house = read_house()
    for title, tests in (("sources", False), ("tests", True)):
        lines = {
            path: source.lines
            for path, source in house.items()
            if (path.parts[0] == "tests") == tests
        }
        largest = max(lines, key=lambda path: lines[path])
        print(
            f"{title}: {len(lines)} files, {sum(lines.values())} lines, median "
            f"{statistics.median(lines.values()):.0f}, largest {lines[largest]} ({largest})"
        )
    found = circles(house)
    print(f"circles of imports: {len(found) or 'none'}")
    for circle in found:
        print("  " + " <-> ".join(map(str, circle)))
    chain = longest_chain(house)
    print(f"longest chain of floors in arch/: {len(chain)}\n  " + "\n  ".join(map(str, chain)))
    print(f"\n{'package':26}{'files':>6}{'lines':>7}  imports of ours")
    for folder, files in packages(house).items():
        ours = {target for source in files.values() for target in source.ours} - set(files)
        names = sorted({str(path.parent if path.parent.parts else path) for path in ours})
        count = sum(source.lines for source in files.values())
        name = SHOWN.get(folder, folder)
        print(f"{name:26}{len(files):6}{count:7}  {', '.join(names) or 'nothing'}")


if __name__ == "__main__":
    main()
