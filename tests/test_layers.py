"""The lint rule of the layers: who may import whom, read off the source of every file."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HOST_MODULES = {"comfy", "folder_paths", "comfy_api", "comfy_extras", "nodes", "server", "execution"}

# file or folder -> the pack's own modules that it may import
ALLOWED = {
    "arch": {"arch"},
    "upscale": {"upscale"},
    "host.py": {"upscale"},
    "nodes.py": {"arch", "upscale", "host"},
    "__init__.py": {"nodes"},
    "cli.py": {"arch", "upscale", "cli_console", "cpu_torchvision", "picture", "picture_files"},
    "cli_console.py": set(),
    "picture.py": {"picture_exif"},
    "picture_exif.py": set(),
    "picture_files.py": {"picture"},
    "cpu_torchvision.py": set(),
}
MAY_IMPORT_HOST = {"host.py": {"comfy", "folder_paths"}, "nodes.py": {"comfy_api"}}
OWN = {name.removesuffix(".py") for name in ALLOWED} | {"tools", "benchmarks", "tests"}

FILES = sorted(
    path.relative_to(ROOT).as_posix()
    for name in ALLOWED
    for path in ([ROOT / name] if name.endswith(".py") else (ROOT / name).rglob("*.py"))
)


def imports(path: Path) -> set[str]:
    """Absolute names of everything that a file imports, relative imports resolved against the root of the pack."""
    package = path.relative_to(ROOT).parent.parts
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {module} if module else {alias.name for alias in node.names}
    return found


def test_every_python_file_at_the_root_has_a_rule() -> None:
    assert {path.name for path in ROOT.glob("*.py")} == {name for name in ALLOWED if name.endswith(".py")}


@pytest.mark.parametrize("file", FILES)
def test_layers_point_one_way(file: str) -> None:
    layer = file.split("/")[0]
    for name in imports(ROOT / file):
        top = name.split(".")[0]
        if top in OWN:
            assert top in ALLOWED[layer], (
                f"{file} imports {name}; it may import {sorted(ALLOWED[layer]) or 'none of ours'}"
            )
        elif top in HOST_MODULES:
            assert top in MAY_IMPORT_HOST.get(layer, set()), f"{file} imports {name} of the host; only host.py may"


@pytest.mark.parametrize("file", FILES)
def test_nothing_runs_code_from_data(file: str) -> None:
    """No eval, exec, subprocess or plain pickle anywhere in what ships."""
    tree = ast.parse((ROOT / file).read_text())
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert not called & {"eval", "exec", "compile", "__import__"}
    assert not {name.split(".")[0] for name in imports(ROOT / file)} & {"subprocess", "dill", "cloudpickle"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("load", "loads"):
            owner = node.func.value
            if isinstance(owner, ast.Name) and owner.id in ("torch", "pickle"):
                keywords = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
                assert owner.id == "torch" and keywords.get("weights_only") is True, f"{file}:{node.lineno}"


def test_files_stay_short() -> None:
    """400 lines, or a reason said at the top."""
    for file in FILES:
        lines = (ROOT / file).read_text().splitlines()
        assert len(lines) <= 400 or "400 lines" in "\n".join(lines[:30]), f"{file} has {len(lines)} lines"
