"""Two Ray nodes on this machine, by Ray's own test utilities, with workers and nodes that die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fdat_dense_iso.cluster.connection import ClusterError, import_ray

try:
    import_ray()  # with this pack's settings
except ClusterError as error:
    pytest.skip(str(error), allow_module_level=True)
pytest.importorskip("typer")
pytest.importorskip("pyvips")
pytest.importorskip("av")
import av
from ray.cluster_utils import Cluster
from typer.testing import CliRunner

from fdat_dense_iso.cluster.crew import Crew
from fdat_dense_iso.command import main as cli
from fdat_dense_iso.command import many
from fdat_dense_iso.video.resume import partial_path
from fdat_dense_iso.video.write import SEGMENT_FRAMES
from tests.helpers.crews import FAULTY
from tests.helpers.fake_models import save_nearest
from tests.helpers.paths import ROOT
from tests.helpers.picture_cases import samples, write_png
from tests.helpers.video_cases import Clip, write_clip

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    """A head with two CPUs and another node with as many; workers of one thread each."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    cluster.add_node(num_cpus=2)
    yield cluster
    cluster.shutdown()


class Gathered(Crew):
    """Begins when all are there, so that every node has work, however slow the machine is."""

    def __enter__(self) -> Crew:
        self.wait()
        return self


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the model, some pictures and a video; workers that misbehave."""
    save_nearest(tmp_path / "nearest.safetensors")
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    for number in range(6):
        side = int(rng.integers(8, 40))
        noise = rng.integers(0, 256, (side, side, 3), np.uint8)
        write_picture(tmp_path / "in" / f"{number}.png", noise)
    write_clip(tmp_path / "in" / "clip.mp4", Clip(frames=250))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(many, "WORKER", FAULTY)
    monkeypatch.setattr(many, "Crew", Gathered)
    return tmp_path


def write_picture(path: Path, pixels: np.ndarray) -> None:
    from PIL import Image

    Image.fromarray(pixels).save(path)


def run(*arguments: object):
    options = ["--model", "nearest.safetensors", "--threads", "1"]
    result = CliRunner().invoke(cli.app, [*map(str, arguments), *options])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(one.relative_to(folder)): one.read_bytes() for one in folder.rglob("*.*")}


def calls() -> list[list[str]]:
    return [line.split() for line in Path("calls").read_text().splitlines()]


def test_the_same_files_whoever_dies(folder: Path, nodes: Cluster) -> None:
    """Workers are killed by a picture and by a part of the video, a picture kills every worker, one
    is broken, and one node cannot write: what can be done is done, the rest is told, as from one
    process."""
    (folder / "in" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    single = run("in", "one")
    write_png(folder / "in" / "poison.png", samples(3, 8))
    write_png(folder / "in" / "unlucky.png", samples(3, 8))
    unlucky = run("in/unlucky.png", "one/")
    for name in ("spared", "kill-part"):
        Path(name).touch()
    Path("full").write_text(nodes.head_node.node_id)

    result = run("in", "many", "--cluster", nodes.address, "--devices", "cpu:4")
    assert result.exit_code == single.exit_code == 1
    expected = single.stdout + unlucky.stdout
    assert sorted(result.stdout.replace("many/", "one/").splitlines()) == sorted(
        expected.splitlines()
    )
    errors = single.stderr.splitlines()
    poison = "error: in/poison.png: 2 workers died while they worked on it"
    assert sorted(result.stderr.splitlines()) == sorted(
        [*errors[:-1], poison, "finished: 8 done, 0 skipped, 2 failed"]
    )
    assert files_in(folder / "many") == files_in(folder / "one")
    noted = calls()
    assert any(call[0] == "full" for call in noted)
    assert len([call for call in noted if call[1] == "poison.png"]) == 2
    assert len({call[-1] for call in noted}) == 2  # both nodes had work
    again = run("in", "many", "--cluster", nodes.address, "--devices", "cpu:4")
    assert again.stderr.endswith("finished: 0 done, 8 skipped, 2 failed\n")


def test_a_node_that_goes(folder: Path) -> None:
    """It takes two of four workers with it, which Ray cannot place elsewhere: the others do all."""
    single = run("in", "one")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    leaving = cluster.add_node(num_cpus=2)
    Path("slow").write_text("0.3")
    result = None
    try:
        import threading

        def leave() -> None:
            begun = time.monotonic()
            while time.monotonic() - begun < 120 and not any(
                call[0] == "part" and call[-1] == leaving.node_id
                for call in (calls() if Path("calls").exists() else ())
            ):
                time.sleep(0.05)
            cluster.remove_node(leaving, allow_graceful=False)

        thread = threading.Thread(target=leave)
        thread.start()
        result = run("in", "many", "--cluster", cluster.address, "--devices", "cpu:4")
        thread.join()
    finally:
        cluster.shutdown()
    assert (result.exit_code, result.stderr) == (0, single.stderr)
    assert files_in(folder / "many") == files_in(folder / "one")


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT])
def test_a_driver_that_ends_is_resumed(folder: Path, sign: signal.Signals) -> None:
    """Killed or interrupted with whole segments behind it; --resume does the others alone."""
    run("in", "one")
    script = (
        "import sys; from fdat_dense_iso.command import main, many; "
        f"many.WORKER = {FAULTY!r}; sys.argv[0] = {str(ROOT / 'cli.py')!r}; main.app()"
    )
    options = ["in", "many", "--model", "nearest.safetensors", "--devices", "cpu:2"]
    command = [sys.executable, "-c", script, *options, "--threads", "1"]
    Path("slow").write_text("0.3")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with open("log", "w") as log:
        driver = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        partial = partial_path(Path("many/clip.mp4"))
        begun = time.monotonic()
        while frames_of(partial) < 2 * SEGMENT_FRAMES and time.monotonic() - begun < 240:
            assert driver.poll() is None, Path("log").read_text()
            time.sleep(0.05)
        driver.send_signal(sign)
        code = driver.wait(60)
    text = Path("log").read_text()
    assert code == (130 if sign == signal.SIGINT else -signal.SIGKILL), text
    if sign == signal.SIGINT:
        assert "kept: " in text and "interrupted: the results written so far are complete" in text
        assert "Traceback" not in text
    kept = frames_of(partial) // SEGMENT_FRAMES * SEGMENT_FRAMES
    assert not Path("many/clip.mp4").exists()
    Path("slow").unlink()
    Path("calls").unlink()
    result = subprocess.run(
        [*command, "--resume"], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert min(int(call[1]) for call in calls() if call[0] == "part") == kept
    assert not [call for call in calls() if call[0] == "picture"]
    assert files_in(folder / "many") == files_in(folder / "one")


def frames_of(path: Path) -> int:
    try:
        with av.open(str(path)) as container:
            return sum(packet.dts is not None for packet in container.demux(video=0))
    except (OSError, av.error.FFmpegError):
        return 0
