"""Which ICC profile a result gets, and pixels in other colours where its format takes none that fits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyvips

from .colour import StatedColour
from .formats import PNG, VIPS_ERRORS, Format, Picture, reason_of

_GREY, _RGB = b"GRAY", b"RGB "


def coloured_for(
    picture: Picture, file_format: Format, tell: Callable[[str], None]
) -> tuple[Picture, bytes | None]:
    """The picture with the ICC profile that the format gets, which may be none; what it says of its
    colours otherwise is kept in PNG alone. ``tell`` gets what cannot be kept."""
    metadata = picture.metadata
    channels = picture.pixels.shape[2]
    grey = (channels == 1 or picture.grey) and file_format.grey
    profile, lost = metadata.profile, []
    if file_format is not PNG:
        profile, lost = metadata.colour.as_profile(profile, grey)
        metadata = replace(metadata, colour=StatedColour())
    elif metadata.colour.curve or metadata.colour.primaries:  # of a TIFF
        profile, lost = metadata.colour.as_profile(profile, grey)
    if lost:
        tell(f"not kept: {', '.join(filter(None, lost))}")
    picture = replace(picture, metadata=metadata)
    if profile is None:
        return picture, None
    described = profile[16:20]
    if described == (_GREY if grey else _RGB) and file_format.profiled:
        return picture, profile
    if described == _RGB or (described == _GREY and (channels == 1 or picture.grey)):
        try:
            return in_srgb(picture, profile), None
        except VIPS_ERRORS as error:
            tell(f"its ICC profile cannot be applied{reason_of(error)} and is left out")
            return picture, None
    kind = described.decode("latin-1").strip()
    tell(f"its ICC profile is for {kind} and does not fit the picture: it is left out")
    return picture, None


def in_srgb(picture: Picture, profile: bytes) -> Picture:
    """The picture in sRGB, of as many channels. Raises pyvips.Error for a broken profile."""
    pixels = picture.pixels
    colours = pixels[..., :3]
    if profile[16:20] == _GREY:
        colours = colours.mean(axis=2, keepdims=True)
    elif colours.shape[2] == 1:
        colours = colours.repeat(3, axis=2)
    codes = np.rint(np.clip(colours, 0, 1) * 65535).astype(np.uint16)
    height, width, bands = codes.shape
    image = pyvips.Image.new_from_memory(codes.tobytes(), width, height, bands, "ushort")
    image = image.copy(interpretation="grey16" if bands == 1 else "rgb16")
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile)  # pyright: ignore[reportArgumentType]
    image = image.icc_transform("srgb", embedded=True, depth=16, intent="relative")
    converted = image.numpy().reshape(height, width, -1)[..., :3] / np.float32(65535)
    if pixels.shape[2] == 1:
        converted = converted.mean(axis=2, keepdims=True)
    converted = np.concatenate([converted, pixels[..., 3:]], axis=2).astype(np.float32)
    metadata = replace(picture.metadata, profile=None, in_srgb=True)
    return replace(picture, pixels=converted, metadata=metadata)
