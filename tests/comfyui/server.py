"""A real ComfyUI on CPU for tests: finding a checkout, running it, talking to it over HTTP.

The host runs in a folder of its own, with this pack and `other_pack`: the checkout stays as it was.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy
from PIL import Image

PACK = Path(__file__).resolve().parents[2]
PACK_NAME = "fdat-dense-iso"
CUSTOM_NODES = {PACK_NAME: PACK, "other-pack": Path(__file__).with_name("other_pack")}
LAUNCHER = Path(__file__).with_name("launch_host.py")
START_SECONDS = 180
RUN_SECONDS = 600
PREVIEW_IMAGE = 1  # the first number of a binary websocket message says what it holds

Graph = dict[str, dict[str, Any]]


class HostUnavailable(Exception):
    """There is no ComfyUI to test with; the message says what is missing."""


class HostFailed(Exception):
    """ComfyUI did not start, or died; the message holds the end of its log."""


class PromptRejected(Exception):
    """The host refused a graph before running it; `node_errors` maps node ids to messages."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self.node_errors: dict[str, list[str]] = {
            node: [f"{error['message']}: {error['details']}" for error in entry["errors"]]
            for node, entry in answer["node_errors"].items()
        }
        super().__init__(json.dumps(answer, indent=1))


# Finding a host
# ---------------------------------------------------------------------------------------------


def find_checkout() -> Path:
    """The checkout in COMFYUI_ROOT, or `~/ComfyUI`."""
    root = Path(os.environ.get("COMFYUI_ROOT") or Path.home() / "ComfyUI").expanduser()
    if not (root / "main.py").is_file() or not (root / "comfy").is_dir():
        raise HostUnavailable(f"{root} is not a ComfyUI checkout; set COMFYUI_ROOT to one")
    return root.resolve()


def find_python(checkout: Path) -> str:
    """COMFYUI_PYTHON, or the checkout's own virtual environment, or the interpreter that runs the
    tests."""
    candidates = [
        checkout / environment / program
        for environment in ("venv", ".venv")
        for program in ("bin/python", "Scripts/python.exe")
    ]
    own = next((str(path) for path in candidates if path.is_file()), sys.executable)
    python = os.environ.get("COMFYUI_PYTHON") or own
    missing = _missing_distributions(python, checkout)
    if missing:
        raise HostUnavailable(
            f"{python} lacks what {checkout} needs: {', '.join(missing)}; "
            "set COMFYUI_PYTHON to the interpreter that runs this ComfyUI"
        )
    return python


def _missing_distributions(python: str, checkout: Path) -> list[str]:
    required = []
    for line in (checkout / "requirements.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("#non essential"):
            break
        if name := re.match(r"[\w.-]+", line):
            required.append(name.group())
    required = [name for name in required if name != "torchaudio"] + ["spandrel"]
    program = (
        "import sys\n"
        "from importlib.metadata import PackageNotFoundError, distribution\n"
        "for name in sys.argv[1:]:\n"
        "    try: distribution(name)\n"
        "    except PackageNotFoundError: print(name)\n"
    )
    result = subprocess.run(
        [python, "-c", program, *required], capture_output=True, text=True, check=True
    )
    return result.stdout.split()


# The process
# ------------------------------------------------------------------------------------------------


class Host:
    """ComfyUI as a child process, serving on a free loopback port while the context is open."""

    def __init__(self, checkout: Path, python: str, base: Path) -> None:
        self.checkout = checkout
        self.base = base
        self.models = base / "models" / "upscale_models"
        self._python = python
        self._log = base / "host.log"
        self._process: subprocess.Popen[bytes] | None = None
        for folder in ("custom_nodes", "models/upscale_models", "input", "output", "temp", "user"):
            (base / folder).mkdir(parents=True, exist_ok=True)
        for name, pack in CUSTOM_NODES.items():
            (base / "custom_nodes" / name).symlink_to(pack, target_is_directory=True)

    @property
    def version(self) -> str:
        text = (self.checkout / "comfyui_version.py").read_text(encoding="utf-8")
        match = re.search(r'__version__ = "(.+)"', text)
        return match.group(1) if match else "unknown"

    def __enter__(self) -> Client:
        port = _free_port()
        self._start(port)
        client = Client(self, f"http://127.0.0.1:{port}")
        try:
            self._wait_until_ready(client)
        except BaseException:
            self._stop()
            raise
        return client

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    def peak_memory(self) -> int:
        """Bytes of main memory that the host has taken at most since the last call."""
        assert self._process is not None
        process = Path(f"/proc/{self._process.pid}")
        match = re.search(r"VmHWM:\s+(\d+) kB", (process / "status").read_text())
        (process / "clear_refs").write_text("5")
        assert match is not None
        return int(match.group(1)) * 1024

    def log(self, start: int = 0) -> str:
        """What the host has printed since its log had `start` characters."""
        return self._log.read_text(encoding="utf-8", errors="replace")[start:]

    def check_alive(self) -> None:
        assert self._process is not None
        if self._process.poll() is not None:
            code = self._process.returncode
            raise HostFailed(f"ComfyUI ended with exit code {code}:\n{self.log()[-4000:]}")

    def _start(self, port: int) -> None:
        command = [self._python, str(LAUNCHER), str(self.checkout), "--cpu", "--port", str(port)]
        command += ["--base-directory", str(self.base), "--database-url", "sqlite:///:memory:"]
        command += ["--disable-auto-launch", "--disable-api-nodes"]
        command += ["--disable-all-custom-nodes", "--whitelist-custom-nodes", *CUSTOM_NODES]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.checkout,
                env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _wait_until_ready(self, client: Client) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            self.check_alive()
            try:
                client.get_json("/system_stats")
                return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.2)
        raise HostFailed(
            f"ComfyUI did not answer in {START_SECONDS} seconds:\n{self.log()[-4000:]}"
        )

    def _stop(self) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdin.close()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


# The HTTP interface
# -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a prompt ended, from the host's history."""

    status: str  # "success" or "error" (an interrupt is an "error" with `interrupted` set)
    interrupted: bool
    error: str  # what the interface shows: the exception's message, empty when there was none
    error_node: str  # the node's id
    cached: frozenset[str]  # ids of the nodes that were not run again
    images: dict[str, list[dict[str, str]]]  # node id -> what /view needs
    texts: dict[str, list[str]]  # node id -> what it shows as text


class Client:
    """What the browser does with the host, over HTTP."""

    def __init__(self, host: Host, address: str) -> None:
        self.host = host
        self.address = address
        self.id = uuid.uuid4().hex

    def get(self, path: str, **query: str) -> bytes:
        url = self.address + urllib.parse.quote(path)
        if query:
            url += "?" + urllib.parse.urlencode(query)
        with urllib.request.urlopen(url, timeout=RUN_SECONDS) as answer:
            return answer.read()

    def get_json(self, path: str, **query: str) -> Any:
        return json.loads(self.get(path, **query))

    def post(self, path: str, body: dict[str, Any]) -> bytes:
        return self._post(path, json.dumps(body).encode(), "application/json")

    def _post(self, path: str, body: bytes, content_type: str) -> bytes:
        request = urllib.request.Request(self.address + path, body, {"Content-Type": content_type})
        with urllib.request.urlopen(request, timeout=RUN_SECONDS) as answer:
            return answer.read()

    def upload(self, name: str, pixels: numpy.ndarray) -> str:
        """Upload an (H, W, C) uint8 picture as PNG; returns the name for LoadImage."""
        png = io.BytesIO()
        Image.fromarray(pixels).save(png, "PNG")
        boundary = uuid.uuid4().hex
        body = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="overwrite"\r\n\r\ntrue\r\n'
            f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
            "Content-Type: image/png\r\n\r\n"
        ).encode()
        body += png.getvalue() + f"\r\n--{boundary}--\r\n".encode()
        answer = json.loads(
            self._post("/upload/image", body, f"multipart/form-data; boundary={boundary}")
        )
        return answer["name"]

    def queue(self, graph: Graph, **extra_data: str) -> str:
        """Queue an API-format graph with what the interface sends beside it; returns the prompt's
        id."""
        try:
            answer = self.post(
                "/prompt", {"prompt": graph, "client_id": self.id, "extra_data": extra_data}
            )
        except urllib.error.HTTPError as error:
            if error.code != 400:
                raise
            raise PromptRejected(json.loads(error.read())) from None
        return json.loads(answer)["prompt_id"]

    def wait(self, prompt: str, seconds: float = RUN_SECONDS) -> Outcome:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.host.check_alive()
            history = self.get_json(f"/history/{prompt}")
            if prompt in history:
                return _outcome(history[prompt])
            time.sleep(0.05)
        raise HostFailed(f"the prompt did not end in {seconds} seconds:\n{self.host.log()[-4000:]}")

    def run(self, graph: Graph) -> Outcome:
        return self.wait(self.queue(graph))

    def interrupt(self) -> None:
        self.post("/interrupt", {})

    def idle(self) -> bool:
        queue = self.get_json("/queue")
        return not queue["queue_running"] and not queue["queue_pending"]

    def image(self, entry: dict[str, str]) -> numpy.ndarray:
        """The (H, W, C) uint8 pixels of one of an outcome's images."""
        return numpy.asarray(Image.open(io.BytesIO(self.get("/view", **entry))))

    def events(self, graph: Graph, **extra_data: str) -> Iterator[dict[str, Any]]:
        """Queue a graph and yield the host's websocket messages about it, until it has ended.

        A preview becomes a message of the type "preview"; its data are (H, W, 3) uint8 pixels.
        """
        from websocket import create_connection

        address = self.address.replace("http", "ws", 1) + f"/ws?clientId={self.id}"
        connection = create_connection(address, timeout=RUN_SECONDS)
        try:
            prompt = self.queue(graph, **extra_data)
            while True:
                message = connection.recv()
                if isinstance(message, bytes):
                    (kind,) = struct.unpack(">I", message[:4])
                    if kind == PREVIEW_IMAGE:
                        picture = Image.open(io.BytesIO(message[8:]))  # 4 bytes: PNG or JPEG
                        yield {"type": "preview", "data": numpy.asarray(picture)}
                    continue
                event = json.loads(message)
                if event["data"].get("prompt_id", prompt) != prompt:
                    continue
                yield event
                if event["type"] in (
                    "execution_success",
                    "execution_error",
                    "execution_interrupted",
                ):
                    return
        finally:
            connection.close()


def notes(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """What the events of a run make nodes of this pack show: (node, text)."""
    shown = (event["data"] for event in events if event["type"] == "fdat-dense-iso.note")
    return [(note["node"], note["text"]) for note in shown]


def _outcome(entry: dict[str, Any]) -> Outcome:
    messages = dict(entry["status"]["messages"])
    failure = messages.get("execution_error", {})
    interruption = messages.get("execution_interrupted", {})
    return Outcome(
        status=entry["status"]["status_str"],
        interrupted="execution_interrupted" in messages,
        error=failure.get("exception_message", ""),
        error_node=failure.get("node_id", interruption.get("node_id", "")),
        cached=frozenset(messages["execution_cached"]["nodes"]),
        images={
            node: output["images"]
            for node, output in entry["outputs"].items()
            if "images" in output
        },
        texts={
            node: output["text"] for node, output in entry["outputs"].items() if "text" in output
        },
    )


def main() -> None:
    """`python server.py FILE...`: serve this pack's nodes with these checkpoints and pictures.

    The checkout's `input/example.png`, which the example workflows load, is always there.
    """
    checkout = find_checkout()
    with tempfile.TemporaryDirectory() as folder:
        host = Host(checkout, find_python(checkout), Path(folder))
        example = checkout / "input" / "example.png"
        for file in [*([example] if example.is_file() else []), *map(Path, sys.argv[1:])]:
            target = (
                host.base / "input"
                if file.suffix in (".png", ".jpg", ".jpeg", ".webp")
                else host.models
            )
            shutil.copy(file, target)
        with host as client:
            print(f"ComfyUI {host.version} at {client.address}; Enter ends it", flush=True)
            sys.stdin.readline()


if __name__ == "__main__":
    main()
