"""The rules of the house, read off the source of every file by `tools.structure`: who may import
whom, what files are called and how long they are, that public names are documented, and that
nothing runs code from data."""

from __future__ import annotations

import ast
from pathlib import PurePosixPath

import pytest

from tests.helpers.paths import ROOT
from tools.structure import FOLDERS, circles, read_house

HOUSE = read_house()
SHIPPED_FOLDERS = {"common", "arch", "upscale", "video", "picture", "cluster", "command"}
LIBRARY = SHIPPED_FOLDERS | {"cpu_torchvision"}
NODES = {path.stem for path in HOUSE if len(path.parts) == 1 and path.stem.startswith("node")}

# folder or file at the root -> those that it may import beside itself
ALLOWED = {
    "common": set(),
    "arch": {"common"},
    "upscale": {"common"},
    "video": {"common"},
    "picture": {"common"},
    "cluster": {"common", "video", "arch", "upscale", "cpu_torchvision"},
    "command": LIBRARY - {"command"},
    "cpu_torchvision": set(),
    "host": {"upscale", "common"},
    **{name: {"arch", "upscale", "video", "cluster", "common", "host"} | NODES for name in NODES},
    "__init__": {"nodes"},
    "cli": {"command"},
    "fdat_dense_iso": {"command"},
    "tools": LIBRARY,
    "benchmarks": LIBRARY | {"tools"},
    "tests": LIBRARY | {"tools", "benchmarks", "fdat_dense_iso"},
}
HOST_MODULES = {
    "comfy",
    "comfy_api",
    "comfy_extras",
    "execution",
    "folder_paths",
    "nodes",
    "server",
}
MAY_IMPORT_HOST = {
    "host": {"comfy", "folder_paths", "server"},
    **{name: {"comfy_api"} for name in NODES},
}
RUNS_CODE = {"eval", "exec", "compile", "__import__"}
RUNS_PROGRAMS = {"subprocess", "dill", "cloudpickle"}

# what starts ComfyUI, and a pack beside ours in it, run in the host and not in a test
OUTSIDE_HELPERS = {
    "tests/comfyui/launch_host.py",
    "tests/comfyui/graphs.py",
    "tests/comfyui/server.py",
    "tests/comfyui/other_pack/__init__.py",
}


def room(path: PurePosixPath) -> str:
    """The folder at the root that a file is in, or the name of a file at the root."""
    return path.parts[0].removesuffix(".py")


def tree(path: PurePosixPath) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def shipped() -> list[PurePosixPath]:
    """What a user runs: everything but tools, benchmarks and tests."""
    return [path for path in HOUSE if room(path) not in set(FOLDERS) - SHIPPED_FOLDERS]


def test_every_room_has_a_rule() -> None:
    assert {room(path) for path in HOUSE} == set(ALLOWED)
    folders = {path.parent.name for path in ROOT.glob("*/*.py")}
    assert folders - {".venv"} == set(FOLDERS)


def test_no_circle_of_imports() -> None:
    """Lazy imports and those for types count."""
    assert not [" <-> ".join(map(str, circle)) for circle in circles(HOUSE)]


@pytest.mark.parametrize("name", sorted(ALLOWED))
def test_imports_point_one_way(name: str) -> None:
    allowed = ALLOWED[name] | {name}
    wrong = [
        f"{path} imports {target}"
        for path, source in HOUSE.items()
        if room(path) == name
        for target in source.ours
        if room(target) not in allowed
    ]
    assert not wrong, f"{name} may import {sorted(allowed)}"


def test_the_host_is_imported_in_one_place() -> None:
    wrong = [
        f"{path} imports {other}"
        for path in shipped()
        for other in HOUSE[path].others
        if other.split(".")[0] in HOST_MODULES - MAY_IMPORT_HOST.get(room(path), set())
    ]
    assert not wrong


def test_no_prefix_stands_for_a_folder() -> None:
    """``fdat_plan.py`` beside ``fdat/``, or in it, is ``fdat/plan.py``."""
    wrong = []
    for path in HOUSE:
        beside = {one.name for one in (ROOT / path.parent).iterdir() if one.name != path.name}
        taken = {name.removesuffix(".py").removeprefix("test_") for name in beside}
        taken |= {path.parent.name}
        words = path.stem.removeprefix("test_").split("_")
        prefixes = {"_".join(words[:count]) for count in range(1, len(words))} - {""}
        if prefixes & taken:
            wrong.append(f"{path}: {sorted(prefixes & taken)}")
    assert not wrong


def test_files_stay_short() -> None:
    assert not {str(path): source.lines for path, source in HOUSE.items() if source.lines > 400}


def test_tests_mirror_the_sources() -> None:
    wrong = []
    for path in HOUSE:
        inside = path.parts[0] == "tests" and path.name.startswith("test_")
        if inside and path.parts[1] in FOLDERS:
            place = PurePosixPath(*path.parts[1:-1]) / path.stem.removeprefix("test_")
            if place.with_suffix(".py") not in HOUSE and place / "__init__.py" not in HOUSE:
                wrong.append(str(path))
    assert not set(wrong)


def test_helpers_are_in_one_place() -> None:
    """Other files of tests/ are tests; none of the pack imports one."""
    outside = {
        str(path)
        for path in HOUSE
        if path.parts[0] == "tests"
        and path.parts[1] != "helpers"
        and not path.name.startswith("test_")
        and path.name != "conftest.py"
    }
    assert outside == OUTSIDE_HELPERS


def test_nothing_runs_code_from_data() -> None:
    """No eval, exec, subprocess or plain pickle anywhere in what ships."""
    wrong = []
    for path in shipped():
        wrong += [
            f"{path} imports {other}"
            for other in HOUSE[path].others
            if other.split(".")[0] in RUNS_PROGRAMS
        ]
        calls = [node for node in ast.walk(tree(path)) if isinstance(node, ast.Call)]
        wrong += [f"{path}:{call.lineno}" for call in calls if not is_safe(call)]
    assert not wrong


def is_safe(call: ast.Call) -> bool:
    """Neither a call that runs code, nor one that unpickles more than tensors."""
    match call.func:
        case ast.Name(id=name):
            return name not in RUNS_CODE
        case ast.Attribute(value=ast.Name(id="pickle"), attr="load" | "loads"):
            return False
        case ast.Attribute(value=ast.Name(id="torch"), attr="load"):
            keywords = {k.arg: getattr(k.value, "value", None) for k in call.keywords}
            return keywords.get("weights_only") is True
    return True


def test_public_names_are_documented() -> None:
    """Every module, and every public class and function at its top; in tests the module alone."""
    wrong = []
    for path in HOUSE:
        module = tree(path)
        if module.body and not ast.get_docstring(module):
            wrong.append(f"{path} does not say what it is")
        for node in module.body if path.parts[0] != "tests" else ():
            public = (
                isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
                and not node.name.startswith("_")
                and not is_command(node)
            )
            if public and not ast.get_docstring(node):
                wrong.append(f"{path}:{node.lineno} {node.name} has no docstring")
    assert not wrong


def is_command(node: ast.stmt) -> bool:
    """A command of typer whose help stands in its decorator."""
    calls = [d for d in getattr(node, "decorator_list", []) if isinstance(d, ast.Call)]
    return any(keyword.arg == "help" for call in calls for keyword in call.keywords)
