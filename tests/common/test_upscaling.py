"""The options of upscaling: the engine takes what is declared, and a new declaration reaches every
place where users meet options."""

from __future__ import annotations

import dataclasses
import inspect
import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fdat_dense_iso.common.encoding import ENCODING
from fdat_dense_iso.common.option import offered_in
from fdat_dense_iso.common.upscaling import UPSCALING
from fdat_dense_iso.upscale import upscale_image
from fdat_dense_iso.upscale.options import Options
from fdat_dense_iso.upscale.precision import DTYPES
from tests.helpers.paths import MODELS, ROOT

DECLARED = {option.name: option.default for option in offered_in("command", UPSCALING)}
ONLY_PYTHON = {"device", "progress", "placement", "dtype", "output_device", "preview"}


def test_the_engine_has_the_declared_options_and_defaults() -> None:
    parameters = inspect.signature(upscale_image).parameters
    found = {name: parameter.default for name, parameter in parameters.items()}
    assert {name: found[name] for name in found.keys() - ONLY_PYTHON - {"model", "image"}} == (
        DECLARED
    )
    checked = {field.name for field in dataclasses.fields(Options)}
    assert checked == {*DECLARED, "dtype"} - {"mask"}


def test_precisions_are_those_that_the_engine_knows() -> None:
    (precision,) = (option for option in UPSCALING if option.name == "precision")
    assert precision.choices == ("auto", *DTYPES)


def test_encodings_are_those_that_are_written() -> None:
    video = pytest.importorskip("fdat_dense_iso.video", exc_type=ImportError)
    fields = {field.name: field.default for field in dataclasses.fields(video.Encoding)}
    assert fields.pop("preset") is None  # of Python alone, because each encoder has its own names
    assert fields == {option.name: option.default for option in ENCODING}


TOY = """
from fdat_dense_iso.common import option, upscaling
upscaling.UPSCALING += (option.Option(name="toy", choices=("calm", "wild"), default="calm", text="How playful it is."),)
"""

EVERYWHERE = """
import json, sys
from fdat_dense_iso.cpu_torchvision import make_torchvision_importable
make_torchvision_importable()
from typer.testing import CliRunner
from fdat_dense_iso import upscale
from fdat_dense_iso.command import main
from tools import node_schemas, texts

handed = {}
def upscale_image(model, image, **options):
    handed["command"] = options["toy"]
    return image.repeat_interleave(2, 1).repeat_interleave(2, 2)
upscale.upscale_image = upscale_image

picture, result, model = sys.argv[1:]
runner = CliRunner()
ran = runner.invoke(main.app, [picture, result, "--model", model, "--device", "cpu", "--toy", "wild"])
refused = runner.invoke(main.app, [picture, result, "--model", model, "--toy", "tame"])

with node_schemas.imported_nodes() as nodes:
    nodes.adopt, nodes.host.output = (lambda model: model), (lambda dtype: {})
    nodes.upscale_image = lambda model, image, **options: handed.update(node=options["toy"])
    nodes.UpscaleImage.execute("model", "image", toy="wild")
    schemas = {one.__name__: one.define_schema() for one in (nodes.UpscaleImage, nodes.UpscaleVideo)}
    inputs = {name: [vars(one) for one in schema.inputs if one.id == "toy"] for name, schema in schemas.items()}

print(json.dumps({
    "handed": handed, "inputs": inputs, "ran": [ran.exit_code, ran.stderr], "refused": refused.stderr,
    "help": runner.invoke(main.app, ["--help"], env={"COLUMNS": "200"}).output,
    "locale": {node: found["inputs"].get("toy") for node, found in json.loads(texts.locale()).items()},
    "tables": {str(page.name): list(found.values()) for page, found in texts.tables().items()},
}))
"""


@pytest.fixture(scope="module")
def with_toy(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a process finds in which one more option is declared, in one line, and nothing else."""
    pytest.importorskip("typer")
    pytest.importorskip("pyvips")
    pytest.importorskip("av")
    folder = tmp_path_factory.mktemp("toy")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "in.png")
    files = [folder / "in.png", folder / "out.png", MODELS / "fdat_demo_x2.safetensors"]
    done = subprocess.run(
        [sys.executable, "-c", TOY + EVERYWHERE, *map(str, files)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_new_option_is_an_input_of_both_nodes(with_toy: dict[str, Any]) -> None:
    expected = {"options": ["calm", "wild"], "default": "calm", "optional": True}
    expected |= {"id": "toy", "tooltip": "How playful it is."}
    assert with_toy["inputs"] == {"UpscaleImage": [expected], "UpscaleVideo": [expected]}


def test_a_new_option_is_a_flag(with_toy: dict[str, Any]) -> None:
    assert with_toy["ran"] == [0, ""]
    assert "'tame' is not one of 'calm', 'wild'" in " ".join(with_toy["refused"].split())
    (line,) = (line for line in with_toy["help"].splitlines() if "--toy" in line)
    assert "<calm|wild>" in line and "How playful it is." in line


def test_a_new_option_is_handed_to_the_engine(with_toy: dict[str, Any]) -> None:
    assert with_toy["handed"] == {"command": "wild", "node": "wild"}


def test_a_new_option_has_its_texts(with_toy: dict[str, Any]) -> None:
    text = {"name": "toy", "tooltip": "How playful it is."}
    nodes = {node for node, found in with_toy["locale"].items() if found == text}
    assert nodes == {"FDATDenseIsoUpscale", "FDATDenseIsoUpscaleVideo"}
    told = {
        "cli.md": "`calm`, `wild` | `calm` | How playful it is. |",
        "FDATDenseIsoUpscale.md": "| How playful it is. (values `calm`, `wild`; default `calm`) |",
    }
    told["FDATDenseIsoUpscaleVideo.md"] = told["FDATDenseIsoUpscale.md"]
    rows = {
        page: [table.count(told.get(page, "How playful")) for table in tables]
        for page, tables in with_toy["tables"].items()
    }
    assert rows["FDATDenseIsoUpscale.md"] == rows["FDATDenseIsoUpscaleVideo.md"] == [1]
    assert rows["cli.md"] == [1, 0]
