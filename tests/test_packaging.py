"""What `comfy node pack` ships (files that git tracks, less .comfyignore) is a whole pack; its
metadata is in order."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from PIL import Image

from tests.helpers.paths import ROOT

DEVELOPMENT = {"tests", "benchmarks", "tools", "samples", "assets", "runs", "demo"}


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
    for folder in ("arch", "upscale", "web", "locales", "example_workflows", "models"):
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


def test_works_where_nothing_else_is(pack: Path) -> None:
    """Python, engine and command line of the installed files alone, with the bundled checkpoint."""
    code = (
        "from fdat_dense_iso import command, cpu_torchvision; cpu_torchvision.make_torchvision_importable(); "
        "import torch; from fdat_dense_iso import arch, upscale; "
        "from pathlib import Path; model = arch.load_model(next(Path('models').glob('*.safetensors'))); "
        "result = upscale.upscale_image(model, torch.rand(1, 9, 11, 3)); "
        "print(arch.__file__, *result.shape, model.scale)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=pack, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    file, frames, height, width, channels, scale = done.stdout.split()
    assert Path(file).is_relative_to(pack)
    assert (int(frames), int(height), int(width), int(channels)) == (
        1,
        9 * int(scale),
        11 * int(scale),
        3,
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
