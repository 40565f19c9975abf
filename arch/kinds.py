"""What kind of file a checkpoint is: its first bytes tell, its name does not.

People rename files, and programs write several kinds under one ending. Two kinds are read here;
of the others is said what they are and what to do.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

SAFETENSORS = "safetensors"
PICKLED = "pickled"  # what torch.save writes: a zip archive around a pickle, or a bare one

_HEAD = 512
_LONGEST_HEADER = 100 * 2**20  # the limit of the safetensors library

_CONVERT = "models for PyTorch are read here: get the .safetensors or .pth that it was made from"
_DOWNLOAD = "download the file it stands for"
_UNPACK = "unpack it and use the checkpoint in it"

# first bytes, what that is, what to do
_STARTS: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, not the checkpoint itself", _DOWNLOAD),
    (b"7767517", "a network for ncnn (.param, text)", _CONVERT),
    ((7767517).to_bytes(4, "little"), "a network for ncnn (.param.bin)", _CONVERT),
    (b"\x47\x6b\x30\x01", "weights for ncnn (half precision)", _CONVERT),
    (b"\x38\x4b\x0d\x00", "weights for ncnn (8 bits)", _CONVERT),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes it", _CONVERT),
    (b"GGUF", "a GGUF file of quantised weights", _CONVERT),
    (b"ftrt", "a TensorRT engine", _CONVERT),
    (b"\x93NUMPY", "a NumPy array", "save a state dict of torch tensors instead"),
    (b"\x1f\x8b", "a gzip archive", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    (b"Rar!", "a RAR archive", _UNPACK),
    (b"\xfd7zXZ", "an xz archive", _UNPACK),
    (b"BZh", "a bzip2 archive", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", _UNPACK),
    (b"\x89PNG", "a PNG picture", "choose a model"),
    (b"\xff\xd8\xff", "a JPEG picture", "choose a model"),
    (b"RIFF", "a picture or sound (RIFF)", "choose a model"),
    (b"%PDF", "a PDF document", "choose a model"),
    (b"MZ", "a program for Windows", "choose a model"),
    (b"\x7fELF", "a program for Linux", "choose a model"),
)
_WEB = (b"<!doctype", b"<html", b"<head", b"<script")


def kind_of(path: Path) -> str:
    """`SAFETENSORS`, `PICKLED`, or what else the file is and what to do, as half a sentence.

    Raises:
        OSError: the file can't be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_HEAD)
    for start, what, advice in _STARTS:
        if head.startswith(start):
            return f"{what}; {advice}"
    if head[:4] == b"PK\x03\x04" or head[:4] == b"PK\x05\x06":
        return _kind_of_zip(path)
    # the length of a JSON header, and the header
    if head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= _LONGEST_HEADER:
        return SAFETENSORS
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return PICKLED
    if head[4:8] == b"TFL3":
        return f"a TensorFlow Lite model; {_CONVERT}"
    if head[257:262] == b"ustar":
        return f"a tar archive; {_UNPACK}"
    if head[:4] == bytes(4) and path.suffix.lower() == ".bin":
        return f"weights for ncnn (.bin), it seems; {_CONVERT}"
    if _is_onnx(head, size) and head[2] == 0x12 and head[4 + head[3] // 128 :][:1] == b"\n":
        return f"a model of TensorFlow or Core ML, it seems; {_CONVERT}"  # ONNX has a name there
    if _is_onnx(head, size):
        return f"an ONNX model; {_CONVERT}"
    return _kind_of_text(head) or (
        "of no kind known here: neither safetensors nor what torch.save writes; it is "
        "truncated, damaged or of another program: download it again"
    )


def _kind_of_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return PICKLED  # truncated, which torch.load then says
    if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
        return (
            "a TorchScript archive; TorchScript archives hold code and are not loaded: save the "
            "state_dict() of its model as .safetensors"
        )
    if any(name.endswith("data.pkl") for name in names):
        return PICKLED
    if names and all(name.endswith(".npy") for name in names):
        return "NumPy arrays (.npz); save a state dict of torch tensors instead"
    if "config.json" in names and "model.weights.h5" in names:
        return f"a Keras model; {_CONVERT}"
    return f"a zip archive without a checkpoint of torch.save; it is truncated, or: {_UNPACK}"


def _is_onnx(head: bytes, size: int) -> bool:
    """A protobuf message that begins with its first field, a small version, and goes on with
    another field of ONNX's ModelProto: a text or a message (2 to 8, 14, 20), or version 5."""
    if size < 8 or head[:1] != b"\x08" or not 1 <= head[1] <= 20:
        return False
    return head[2] in (0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42, 0x72)


def _kind_of_text(head: bytes) -> str | None:
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith(_WEB):
        return f"a web page, not the checkpoint itself; {_DOWNLOAD}"
    if start.startswith(b"<?xml"):
        page = b"html" in start
        what = "a web page, not the checkpoint itself" if page else "an XML file (OpenVINO?)"
        return f"{what}; {_DOWNLOAD if page else _CONVERT}"
    text = start and all(byte >= 32 or byte in b"\t\n\r\f" for byte in start)
    try:
        start.decode("utf-8", "strict") if text else None
    except UnicodeDecodeError as error:
        text = error.start > len(start) - 4  # cut within a letter
    return "a text; choose the model that it belongs to" if text else None
