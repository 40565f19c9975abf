"""The lint rule of the layers: who may import whom, read off the source of every file."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

HOST_MODULES = {
    "comfy",
    "folder_paths",
    "comfy_api",
    "comfy_extras",
    "nodes",
    "server",
    "execution",
}

# file or folder -> the pack's own modules that it may import
ALLOWED = {
    "arch": {"arch"},
    "upscale": {"upscale"},
    "video": {"video"},
    "picture": {"picture"},
    "command": {"command", "arch", "upscale", "video", "picture", "cpu_torchvision"},
    "host.py": {"upscale"},
    "nodes.py": {"arch", "upscale", "host", "nodes_video"},
    "nodes_video.py": {"arch", "upscale", "video", "host", "nodes"},
    "__init__.py": {"nodes"},
    "cli.py": {"fdat_dense_iso"},
    "fdat_dense_iso.py": set(),
    "cpu_torchvision.py": set(),
}
MAY_IMPORT_HOST = {
    "host.py": {"comfy", "folder_paths", "server"},
    "nodes.py": {"comfy_api"},
    "nodes_video.py": {"comfy_api"},
}
HOUSE = ("tools", "benchmarks", "tests")
OWN = {name.removesuffix(".py") for name in ALLOWED} | {*HOUSE}

FILES = sorted(
    path.relative_to(ROOT).as_posix()
    for name in ALLOWED
    for path in ([ROOT / name] if name.endswith(".py") else (ROOT / name).rglob("*.py"))
)


def imports(path: Path) -> set[str]:
    """Absolute names of everything that a file imports, relative imports resolved against the root
    of the pack."""
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
    assert {path.name for path in ROOT.glob("*.py")} == {
        name for name in ALLOWED if name.endswith(".py")
    }


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
            assert top in MAY_IMPORT_HOST.get(layer, set()), (
                f"{file} imports {name} of the host; only host.py may"
            )


@pytest.mark.parametrize("file", FILES)
def test_nothing_runs_code_from_data(file: str) -> None:
    """No eval, exec, subprocess or plain pickle anywhere in what ships."""
    tree = ast.parse((ROOT / file).read_text())
    called = {
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not called & {"eval", "exec", "compile", "__import__"}
    assert not {name.split(".")[0] for name in imports(ROOT / file)} & {
        "subprocess",
        "dill",
        "cloudpickle",
    }
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in ("load", "loads")
        ):
            owner = node.func.value
            if isinstance(owner, ast.Name) and owner.id in ("torch", "pickle"):
                keywords = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
                assert owner.id == "torch" and keywords.get("weights_only") is True, (
                    f"{file}:{node.lineno}"
                )


def test_files_stay_short() -> None:
    """400 lines, or a reason said at the top."""
    for path in sorted(
        {ROOT / file for file in FILES} | {p for name in HOUSE for p in (ROOT / name).rglob("*.py")}
    ):
        lines = path.read_text().splitlines()
        assert len(lines) <= 400 or "400 lines" in "\n".join(lines[:30]), (
            f"{path} has {len(lines)} lines"
        )


@pytest.mark.parametrize(
    "file",
    [
        *FILES,
        *sorted(
            p.relative_to(ROOT).as_posix()
            for name in ("tools", "benchmarks")
            for p in (ROOT / name).glob("*.py")
        ),
    ],
)
def test_public_names_are_documented(file: str) -> None:
    """Every module, and every public class and function at its top."""
    tree = ast.parse((ROOT / file).read_text())
    assert ast.get_docstring(tree), f"{file} does not say what it is"
    for node in tree.body:
        if isinstance(
            node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
        ) and not node.name.startswith("_"):
            assert ast.get_docstring(node) or is_command(node), (
                f"{file}:{node.lineno} {node.name} has no docstring"
            )


def is_command(node: ast.stmt) -> bool:
    """A command of typer whose help stands in its decorator."""
    calls = [d for d in getattr(node, "decorator_list", []) if isinstance(d, ast.Call)]
    return any(keyword.arg == "help" for call in calls for keyword in call.keywords)
