"""What `comfy node pack` ships (files that git tracks, less .comfyignore) is a whole pack, and so
is the wheel; their metadata is in order."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from PIL import Image

from tests.helpers.paths import MODELS, ROOT

DEVELOPMENT = {"tests", "benchmarks", "tools", "samples", "assets", "runs", "demo"}
PACKAGES = {"arch", "common", "upscale", "video", "picture", "cluster", "command"}

# the root loaded under a name that no import could spell, as ComfyUI does with every pack
AS_COMFYUI_DOES = """
import importlib, importlib.util, sys
root, name = sys.argv[1], "/custom_nodes/fdat-dense-iso_x_1"
spec = importlib.util.spec_from_file_location(
    name, root + "/__init__.py", submodule_search_locations=[root]
)
sys.modules[name] = pack = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pack)
assert pack.WEB_DIRECTORY and pack.comfy_entrypoint
importlib.import_module(name + ".cpu_torchvision").make_torchvision_importable()
arch = importlib.import_module(name + ".arch")
upscale = importlib.import_module(name + ".upscale")
import torch
model = arch.load_model(root + "/models/fdat_demo_x2.safetensors")
print(arch.__file__, *upscale.upscale_image(model, torch.rand(1, 9, 11, 3)).shape)
assert not {"fdat_dense_iso", "arch", "upscale", "common"} & set(sys.modules)
"""

# README's example, then the command with what is left of the command line
AS_INSTALLED = """
import runpy, sys
from pathlib import Path
example = Path(sys.argv.pop(1)).read_text(encoding="utf-8")
exec(example)
print(fdat_dense_iso.__file__, *result.shape)
runpy.run_module("fdat_dense_iso", run_name="__main__", alter_sys=True)
"""


def git(*arguments: str) -> list[str]:
    done = subprocess.run(
        ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip("no checkout of git, which says what ships")
    return [line for line in done.stdout.splitlines() if (ROOT / line).exists()]


@pytest.fixture(scope="module")
def shipped() -> list[str]:
    ignored = git("ls-files", "--cached", "--ignored", "--exclude-from=.comfyignore")
    return sorted(set(git("ls-files")) - set(ignored))


@pytest.fixture(scope="module")
def pack(shipped: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pack as it is installed, in a folder of its own."""
    folder = tmp_path_factory.mktemp("custom_nodes") / "fdat-dense-iso"
    for name in shipped:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 has it")
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_development_files_stay_at_home(shipped: list[str]) -> None:
    assert not {
        name for name in shipped if PurePosixPath(name).parts[0] in DEVELOPMENT | {".ci", ".github"}
    }
    assert sum((ROOT / name).stat().st_size for name in shipped) < 12 * 2**20


def test_everything_for_the_host_ships(shipped: list[str]) -> None:
    """As the host looks for it: entry point, web folder, help pages, texts, templates with
    pictures, checkpoints."""
    needed = {
        "__init__.py",
        "nodes.py",
        "host.py",
        "requirements.txt",
        "pyproject.toml",
        "LICENSE",
        "README.md",
    }
    needed |= {"requirements-cli.txt", "cli.py"}
    for folder in sorted(PACKAGES | {"web", "locales", "example_workflows", "models"}):
        files = [name for name in git("ls-files", folder) if not name.endswith(".pyc")]
        assert files
        needed |= set(files)
    assert needed <= set(shipped)


def test_every_import_of_the_pack_is_in_it(pack: Path, shipped: list[str]) -> None:
    own = {PurePosixPath(name).parts[0].removesuffix(".py") for name in git("ls-files", "*.py")}
    for name in (name for name in shipped if name.endswith(".py")):
        folder = pack / PurePosixPath(name).parent
        for node in ast.walk(ast.parse((pack / name).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                base = folder.joinpath(*[".."] * (node.level - 1)).resolve()
                modules = [
                    base.joinpath(*(node.module or alias.name).split(".")) for alias in node.names
                ]
            elif isinstance(node, ast.Import | ast.ImportFrom):
                names = (
                    [node.module or ""]
                    if isinstance(node, ast.ImportFrom)
                    else [a.name for a in node.names]
                )
                names = [found.removeprefix("fdat_dense_iso.") for found in names]
                modules = [pack.joinpath(*n.split(".")) for n in names if n.split(".")[0] in own]
            else:
                continue
            for module in modules:
                assert module.with_suffix(".py").is_file() or module.is_dir(), (
                    f"{name} imports {module.name}"
                )


@pytest.mark.parametrize(
    "page", ["README.md", *(f"docs/{file.name}" for file in sorted((ROOT / "docs").glob("*.md")))]
)
def test_files_that_pages_show_are_there(pack: Path, page: str) -> None:
    """Pictures ship; of linked files those for development need not."""
    text = (pack / page).read_text(encoding="utf-8")
    links = re.findall(r"(!?)\[[^\]]*\]\(([^)#:]+)(?:#[^)]*)?\)", text)
    assert links or page != "README.md"
    for picture, target in links:
        place = PurePosixPath(page).parent / target
        assert (ROOT / place).exists(), f"{page} links to {target}"
        left_out = target == "CONTRIBUTING.md" or place.parts[0] in DEVELOPMENT
        assert (pack / place).exists() or (left_out and not picture), f"{place} does not ship"


def run(code: str, *arguments: object, **options: Any) -> list[str]:
    """The words that a Python of its own prints, which finds no checkout by itself."""
    line = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_works_as_the_folder_that_comfyui_loads(pack: Path, tmp_path: Path) -> None:
    """Loading and upscaling by the shipped files alone, under a name of the host's."""
    file, *shape = run(AS_COMFYUI_DOES, pack, cwd=tmp_path)
    assert Path(file).is_relative_to(pack)
    assert shape == ["1", "18", "22", "3"]


@pytest.mark.parametrize("start", [["cli.py"], ["-m", "fdat_dense_iso"]])
def test_the_command_starts_in_a_checkout(
    pack: Path, project: dict[str, Any], start: list[str]
) -> None:
    """And says the version that pyproject.toml has there."""
    pytest.importorskip("typer", reason="requirements-cli.txt has it")
    line = [sys.executable, *start, "--version"]
    done = subprocess.run(line, cwd=pack, capture_output=True, text=True, check=False)
    assert done.stdout.startswith(f"fdat-dense-iso {project['project']['version']}"), done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built without a network by what is installed here."""
    pytest.importorskip("hatchling", reason="requirements-test.txt has it; it builds the wheel")
    folder = tmp_path_factory.mktemp("wheel")
    line = [sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*line, "-w", str(folder)], capture_output=True, text=True, check=False, cwd=folder
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = folder.glob("*.whl")
    return zipfile.ZipFile(file)


def test_the_wheel_holds_one_package(wheel: zipfile.ZipFile) -> None:
    """Everything that command and library need, and nothing that would hide modules of others."""
    files = {PurePosixPath(name) for name in wheel.namelist()}
    assert {file.parts[0].partition("-")[0] for file in files} == {"fdat_dense_iso"}
    package = {
        file.relative_to("fdat_dense_iso") for file in files if file.parts[0] == "fdat_dense_iso"
    }
    assert {file.parts[0] for file in package if len(file.parts) > 1} == PACKAGES | {"models"}
    top = {str(file) for file in package if len(file.parts) == 1}
    assert top == {"__init__.py", "__main__.py", "cpu_torchvision.py"}
    source = {path.relative_to(ROOT) for name in PACKAGES for path in (ROOT / name).rglob("*.py")}
    models = {path.relative_to(ROOT) for path in MODELS.glob("*.safetensors")}
    assert {Path(file) for file in package if len(file.parts) > 1} == source | models and models


def test_the_wheel_says_what_it_needs(wheel: zipfile.ZipFile, project: dict[str, Any]) -> None:
    """What the command and GPUs need are extras, and which torch to have is the user's choice."""
    (metadata,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    lines = wheel.read(metadata).decode().splitlines()
    needed = [line.split(": ", 1)[1] for line in lines if line.startswith("Requires-Dist: ")]
    always = {re.split(r"[<>=!~ ;\[]", line)[0] for line in needed if "extra ==" not in line}
    assert always == {"filelock", "numpy", "psutil", "safetensors", "spandrel"}
    extras = project["project"]["optional-dependencies"]
    assert len(needed) == len(always) + sum(map(len, extras.values()))
    assert {line for line in lines if line.startswith("Provides-Extra")} == {
        *("Provides-Extra: cli", "Provides-Extra: cluster", "Provides-Extra: gpu")
    }


def test_the_wheel_works_where_nothing_else_is(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    """README's example and the command, from an empty folder with the unpacked wheel alone on the
    path."""
    for package in ("typer", "rich", "pyvips", "av"):
        pytest.importorskip(package, reason="requirements-cli.txt has it")
    installed, folder = tmp_path / "site-packages", tmp_path / "empty"
    wheel.extractall(installed)
    folder.mkdir()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    (tmp_path / "example.py").write_text(example, encoding="utf-8")
    Image.new("RGB", (11, 9), "teal").save(tmp_path / "picture.png")
    model = installed / "fdat_dense_iso" / "models" / "fdat_demo_x2.safetensors"
    arguments = [tmp_path / "example.py", tmp_path / "picture.png", "out.png", "--model", model]
    environment = os.environ | {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    words = run(AS_INSTALLED, *arguments, cwd=folder, env=environment)
    where = words.index(str(installed / "fdat_dense_iso" / "__init__.py"))
    assert words[where + 1] == "1" and words[where + 4] == "3"
    with Image.open(folder / "out.png") as picture:
        assert picture.size == (22, 18)


def test_the_wheel_has_the_names_that_readme_says(wheel: zipfile.ZipFile) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"{Path(str(wheel.filename)).name}[cli]" in readme
    (entry_points,) = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert wheel.read(entry_points).decode().split("\n", 1)[1].strip() == (
        "fdat-dense-iso = fdat_dense_iso.command.main:app"
    )


def test_registry_metadata(project: dict[str, Any]) -> None:
    """The rules of docs.comfy.org/registry/specifications."""
    about, comfy = project["project"], project["tool"]["comfy"]
    assert (
        re.fullmatch(r"(?i)(?!.*comfyui)[a-z][a-z0-9]*([-_.][a-z0-9]+)*", about["name"])
        and len(about["name"]) < 100
    )
    assert re.fullmatch(r"\d+\.\d+\.\d+", about["version"])
    assert (ROOT / about["license"]["file"]).is_file() and (ROOT / about["readme"]).is_file()
    assert about["description"] and about["urls"]["Repository"].startswith("https://github.com/")
    assert any(classifier.startswith("Operating System :: ") for classifier in about["classifiers"])
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", comfy["PublisherId"]) and comfy["DisplayName"]
    assert re.fullmatch(r">=\d+\.\d+\.\d+", comfy["requires-comfyui"])


def test_requirements_agree(project: dict[str, Any]) -> None:
    """The registry reads pyproject.toml, git clones read requirements.txt."""

    def names(lines: list[str]) -> set[str]:
        return {
            re.split(r"[<>=!~ ;\[]", line)[0].lower()
            for line in lines
            if line and not line.startswith("#")
        }

    for group, file in (("dependencies", "requirements.txt"), ("cli", "requirements-cli.txt")):
        about = project["project"]
        listed = about[group] if group in about else about["optional-dependencies"][group]
        assert names(listed) == names((ROOT / file).read_text(encoding="utf-8").splitlines()), file


@pytest.mark.parametrize(
    ("key", "ratio", "largest"), [("Icon", 1, (400, 400)), ("Banner", 21 / 9, (2100, 900))]
)
def test_artwork(project: dict[str, Any], key: str, ratio: float, largest: tuple[int, int]) -> None:
    url, repository = project["tool"]["comfy"][key], project["project"]["urls"]["Repository"]
    prefix = repository.replace("github.com", "raw.githubusercontent.com") + "/main/"
    assert url.startswith(prefix)
    file = ROOT / url.removeprefix(prefix)
    assert file.stat().st_size < 300_000
    with Image.open(file) as picture:
        assert picture.format == "PNG" and picture.width / picture.height == pytest.approx(
            ratio, rel=0.01
        )
        assert picture.width <= largest[0] and picture.height <= largest[1]


def test_changelog(project: dict[str, Any]) -> None:
    """The form of Keep a Changelog: newest first, dated, the version of now among them."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert text.index("## [") == text.index("## [Unreleased]")
    releases = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d{2}-\d{2})$", text, re.MULTILINE)
    assert releases[0][0] == project["project"]["version"]
    assert all(newer[1] >= older[1] for newer, older in pairwise(releases))
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.+)$", text, re.MULTILINE)) <= kinds
