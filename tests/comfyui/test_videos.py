"""Videos in a real ComfyUI, over HTTP."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy
import pytest

from tests.comfyui.server import PACK_NAME, Client, Graph, Outcome, PromptRejected, notes

pytest.importorskip("av")
from tests.helpers.fake_models import save_nearest
from tests.helpers.video_cases import TURNED, Clip, Probe, probe, write_clip

pytestmark = pytest.mark.comfyui

UPSCALER = "FDATDenseIsoUpscaleVideo"


@pytest.fixture(scope="session")
def nearest(client: Client) -> str:
    """The file name of a model that repeats every pixel twice."""
    save_nearest(client.host.models / "nearest.safetensors")
    return "nearest.safetensors"


def graph(client: Client, clip: Clip, model: str, name: str = "in.mp4", **options: object) -> Graph:
    write_clip(client.host.base / "input" / name, clip)
    return {
        "loader": {"class_type": "FDATDenseIsoLoader", "inputs": {"model_name": model}},
        "video": {"class_type": "LoadVideo", "inputs": {"file": name}},
        "upscaler": {
            "class_type": UPSCALER,
            "inputs": {"upscale_model": ["loader", 0], "video": ["video", 0], **options},
        },
        "save": {
            "class_type": "SaveVideo",
            "inputs": {
                "video": ["upscaler", 0],
                "filename_prefix": "test",
                "format": "auto",
                "codec": "auto",
            },
        },
    }


def source_of(client: Client, name: str = "in.mp4") -> Probe:
    return probe(client.host.base / "input" / name)


def saved(client: Client, outcome: Outcome) -> Probe:
    assert outcome.status == "success", outcome.error
    (entry,) = outcome.images["save"]
    path = client.host.base / "result.mp4"
    path.write_bytes(client.get("/view", **entry))
    return probe(path)


def assert_doubled(after: Probe, source: list[numpy.ndarray]) -> None:
    for frame, expected in zip(after.luma, source, strict=True):
        expected = expected.repeat(2, 0).repeat(2, 1)
        assert frame.shape == expected.shape
        assert abs(frame - expected).mean() < 1


@pytest.mark.parametrize(
    "clip",
    [
        Clip(frames=60, pts=[number * 1001 + number % 7 * 131 for number in range(60)]),
        Clip(matrix=TURNED, audio=()),
        Clip(pixel_format="yuv420p10le", codec="libx265", colour=(9, 16, 9, 1)),
    ],
    ids=["variable frame rate", "turned", "10 bit"],
)
def test_video_through_the_node(client: Client, nearest: str, clip: Clip) -> None:
    after = saved(client, client.run(graph(client, clip, nearest, crf=4)))
    before = source_of(client)
    assert (after.times, after.packets, after.colour) == (
        before.times,
        before.packets,
        before.colour,
    )
    assert after.end == pytest.approx(before.end, abs=1e-6)
    assert (after.rotation, after.matrix) == (before.rotation, before.matrix)
    assert after.codec == ("hevc" if "10le" in clip.pixel_format else "h264")
    assert_doubled(after, before.luma)


def test_defaults_need_no_touching(client: Client, nearest: str) -> None:
    after = saved(client, client.run(graph(client, Clip(), nearest)))
    assert (after.codec, after.pixel_format, after.size) == ("h264", "yuv420p", (96, 128))
    assert after.times == source_of(client).times


def test_options_of_the_image_node_work(client: Client, nearest: str) -> None:
    options = {
        "mode": "tile",
        "tile": 32,
        "overlap": 8,
        "target": "90x70",
        "codec": "hevc",
        "pixel_format": "yuv444p",
    }
    after = saved(client, client.run(graph(client, Clip(frames=2), nearest, **options)))
    assert (after.codec, after.pixel_format, after.size) == ("hevc", "yuv444p", (70, 90))


def test_video_of_pictures_and_sound(client: Client, nearest: str) -> None:
    """CreateVideo holds tensors and no file."""
    workflow = graph(client, Clip(rate=Fraction(25)), nearest, crf=4)
    workflow["parts"] = {"class_type": "GetVideoComponents", "inputs": {"video": ["video", 0]}}
    workflow["create"] = {
        "class_type": "CreateVideo",
        "inputs": {"images": ["parts", 0], "audio": ["parts", 1], "fps": ["parts", 2]},
    }
    workflow["upscaler"]["inputs"]["video"] = ["create", 0]
    after = saved(client, client.run(workflow))
    before = source_of(client)
    assert after.times == before.times
    assert after.end == pytest.approx(before.end, abs=0.05)
    assert len(after.packets) == 1
    assert (
        numpy.mean(
            [abs(a - b.repeat(2, 0).repeat(2, 1)).mean() for a, b in zip(after.luma, before.luma)]
        )
        < 4
    )


def test_a_part_of_a_video(client: Client, nearest: str) -> None:
    if "Video Slice" not in client.get_json("/object_info"):
        pytest.skip("this ComfyUI cuts no videos")
    workflow = graph(client, Clip(frames=60, rate=Fraction(30)), nearest, crf=4)
    part = {"video": ["video", 0], "start_time": 0.5, "duration": 1.0, "strict_duration": False}
    workflow["part"] = {"class_type": "Video Slice", "inputs": part}
    workflow["upscaler"]["inputs"]["video"] = ["part", 0]
    after = saved(client, client.run(workflow))
    assert after.times == [Fraction(number, 30) for number in range(30)]
    assert_doubled(after, source_of(client).luma[15:45])


@pytest.mark.parametrize("edit", ["crop", "crop without a word", "mirror"])
def test_edits_are_applied(client: Client, nearest: str, edit: str) -> None:
    """Newer hosts crop, scale and cut a video when it is read; its stream is the whole file.

    The host writes the edited video first: without loss, and the copy is gone afterwards.
    """
    workflow = graph(client, Clip(frames=40, rate=Fraction(25)), nearest, crf=4)
    edited = {"video": ["video", 0], "edit": edit, "start": 0.4}
    workflow["edited"] = {"class_type": "OtherPackEditVideo", "inputs": edited}
    workflow["upscaler"]["inputs"]["video"] = ["edited", 0]
    before = set((client.host.base / "temp").iterdir())
    after = saved(client, client.run(workflow))
    luma = source_of(client).luma[10:]
    expected = [one[:, ::-1] if edit == "mirror" else one[8:32, 16:48] for one in luma]
    assert after.times == [Fraction(number, 25) for number in range(30)]
    assert_doubled(after, expected)
    assert len(set((client.host.base / "temp").iterdir()) - before) == 1  # the result


@pytest.mark.parametrize(
    ("space", "depth", "channels", "colour"),
    [
        ("sRGB", 8, 3, (1, 13, 1, 1)),
        ("sRGB", 10, 1, (1, 13, 1, 1)),
        ("HDR", 10, 3, (9, 18, 9, 1)),
        ("HDR PQ", 10, 4, (9, 16, 9, 1)),
    ],
)
def test_depth_and_colours_of_pictures(
    client: Client,
    nearest: str,
    space: str,
    depth: int,
    channels: int,
    colour: tuple[int, int, int, int],
) -> None:
    """Grey pictures, too; that transparency is left out is told on the node."""
    workflow = graph(client, Clip(frames=1), nearest, crf=0)
    inputs = {"channels": channels, "colour_space": space, "depth": depth}
    workflow["created"] = {"class_type": "OtherPackCreateVideo", "inputs": inputs}
    workflow["upscaler"]["inputs"]["video"] = ["created", 0]
    del workflow["video"]
    events = list(client.events(workflow))
    after = saved(client, client.wait(events[-1]["data"]["prompt_id"]))
    assert after.colour == colour
    assert after.pixel_format == ("yuv420p10le" if depth == 10 else "yuv420p")
    ramp = 16 + 219 * numpy.linspace(0.4, 0.6, 256).repeat(2)  # in levels of 8 bits
    rounding = 0.25 if depth == 8 else 0.25 / 4  # on the mean
    assert all(abs(frame - ramp).mean() < 1.6 * rounding for frame in after.luma)
    texts = notes(events)
    said = "the video of pictures: left out: alpha channel"
    assert texts == ([("upscaler", said)] if channels == 4 else [])


def test_equal_frames_are_computed_once(client: Client, nearest: str) -> None:
    workflow = graph(
        client, Clip(codec="ffv1", frames=60, still=30, audio=()), nearest, name="in.mkv"
    )
    events = [
        event["data"]["value"] for event in client.events(workflow) if event["type"] == "progress"
    ]
    assert_doubled(probe(newest(client, "test")), source_of(client, "in.mkv").luma)
    assert len(events) <= 60 + 2


def newest(client: Client, start: str) -> Path:
    """Of the videos in the output folder."""
    found = (client.host.base / "output").rglob(f"{start}*.mp4")
    return max(found, key=lambda path: path.stat().st_mtime)


# Errors and interrupts
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crf": 60, "codec": "h264"}, "crf is 60; h264 takes 0 (best) to 51"),
        ({"codec": "av1", "pixel_format": "yuv444p"}, "libsvtav1 does not encode yuv444p"),
        ({"codec": "mpeg2"}, "codec 'mpeg2' is not known; use one of auto, h264"),
        ({"target": "as large as possible"}, "as large as possible"),
    ],
)
def test_bad_options_are_refused_before_any_work(
    client: Client, nearest: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(PromptRejected) as refusal:
        client.queue(graph(client, Clip(frames=1), nearest, **options))
    assert any(message in error for error in refusal.value.node_errors["upscaler"])


def test_options_from_other_nodes(client: Client, nearest: str) -> None:
    """Linked values are unknown when the host validates a graph."""
    workflow = graph(client, Clip(frames=1), nearest, crf=["number", 0])
    workflow["number"] = {"class_type": "PrimitiveInt", "inputs": {"value": 60}}
    outcome = client.run(workflow)
    assert outcome.error_node == "upscaler"
    assert "crf is 60; h264 takes 0 (best) to 51" in outcome.error


def test_interrupt_leaves_what_was_done(client: Client, nearest: str) -> None:
    workflow = graph(client, Clip(frames=300, height=96, width=128, rate=Fraction(30)), nearest)
    start, events, messages = len(client.host.log()), [], []
    for event in client.events(workflow):
        if event["type"] == "fdat-dense-iso.message":
            messages.append(event["data"])
        if (
            event["type"] == "progress"
            and event["data"]["value"] > 0.3 * event["data"]["max"]
            and not events
        ):
            client.interrupt()
            events.append(event)
    assert event["type"] == "execution_interrupted"
    kept = newest(client, "unfinished")
    part, source = probe(kept), source_of(client)
    assert 60 < len(part.times) < 300
    assert part.times == source.times[: len(part.times)]
    assert (
        abs(part.luma[-1] - source.luma[len(part.times) - 1].repeat(2, 0).repeat(2, 1)).mean() < 3
    )
    said = f"{kept} holds the first {len(part.times)} frames"
    assert said in client.host.log(start)
    assert {"node": "upscaler", "text": said} in messages  # the interface shows it until closed
    assert client.run(graph(client, Clip(frames=2), nearest)).status == "success"


def test_the_interface_shows_messages(client: Client) -> None:
    script = client.get(f"/extensions/{PACK_NAME}/js/messages.js").decode()
    assert '"fdat-dense-iso.message"' in script and "toast.add" in script
    assert '"fdat-dense-iso.note"' in script and "addDOMWidget" in script


def test_frames_are_shown_while_a_video_grows(client: Client, nearest: str) -> None:
    if tuple(map(int, client.host.version.split(".")[:2])) < (0, 8):
        pytest.skip("the host takes no choice of previews with a prompt")
    workflow = graph(client, Clip(frames=700, height=96, width=128), nearest, name="shown.mp4")
    shown = {}
    for choice in ("auto", "none"):
        workflow["upscaler"]["inputs"]["crf"] = len(shown) + 10  # not from the cache
        events = list(client.events(workflow, preview_method=choice))
        assert events[-1]["type"] == "execution_success"
        shown[choice] = [event["data"] for event in events if event["type"] == "preview"]
    assert len(shown["auto"]) >= 2 and not shown["none"]
    luma = numpy.array([0.2126, 0.7152, 0.0722])
    frames = [(one - 16) / 219 * 255 for one in source_of(client, "shown.mp4").luma]
    for picture in shown["auto"]:  # each is a frame, enlarged
        small = picture[::2, ::2] @ luma
        assert min(abs(small - frame).mean() for frame in frames) < 3


def test_a_fault_leaves_what_was_done(client: Client, nearest: str) -> None:
    """Here of the video: its size changes in the middle."""
    workflow = graph(client, Clip(frames=1), nearest, name="changing.ts")
    parts = []
    for width in (64, 96):
        write_clip(
            client.host.base / "input" / "part.ts",
            Clip(frames=10, width=width, audio=(), rate=Fraction(25)),
        )
        parts.append((client.host.base / "input" / "part.ts").read_bytes())
    (client.host.base / "input" / "changing.ts").write_bytes(b"".join(parts))
    outcome = client.run(workflow)
    assert outcome.error_node == "upscaler"
    kept = newest(client, "unfinished")
    assert "frame 11 has 96x48 pixels where the video began with 64x48" in outcome.error
    assert f"{kept} holds the first 10 frames" in outcome.error
    assert len(probe(kept).times) == 10


def test_a_file_that_is_no_video(client: Client, nearest: str) -> None:
    workflow = graph(client, Clip(frames=1), nearest, name="broken.mp4")
    (client.host.base / "input" / "broken.mp4").write_bytes(b"not a video")
    outcome = client.run(workflow)
    assert outcome.error_node == "upscaler"
    assert "it is no video that FFmpeg can read" in outcome.error


# What the interface shows
# -----------------------------------------------------------------------------------


def test_node_describes_itself(client: Client) -> None:
    description = client.get_json(f"/object_info/{UPSCALER}")[UPSCALER]
    assert description["display_name"] == "Upscale Video (Tiled)"
    inputs = {**description["input"]["required"], **description["input"]["optional"]}
    assert [
        name
        for name, (_, *options) in inputs.items()
        if not (options and options[0].get("tooltip"))
    ] == []
    assert {"mode", "target", "codec", "crf"} < set(inputs)
    assert not {"image", "alpha"} & set(inputs)
    assert client.get(f"/extensions/{PACK_NAME}/docs/{UPSCALER}.md").decode().startswith("# ")


# Memory
# -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_ten_seconds_take_the_memory_of_two(client: Client, nearest: str) -> None:
    """640x360 with sound, beside what the host takes with its model; two seconds twice, for its
    heap to settle."""

    def run(clip: Clip) -> Outcome:
        return client.wait(client.queue(graph(client, clip, nearest)), 900)

    peaks = {}
    for seconds in (0, 2, 2, 10):
        frames = 24 * seconds or 1
        size = {"height": 360, "width": 640} if seconds else {}
        client.host.peak_memory()
        after = saved(client, run(Clip(frames=frames, rate=Fraction(24), **size)))
        peaks[seconds] = client.host.peak_memory()
    before = source_of(client)
    assert (after.times, after.packets, after.end) == (before.times, before.packets, before.end)
    assert after.size == (720, 1280)
    assert peaks[10] - peaks[0] <= 1.15 * (peaks[2] - peaks[0])
