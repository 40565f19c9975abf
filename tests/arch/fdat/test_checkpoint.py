"""What tensors leave open of an FDAT's configuration."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fdat_dense_iso.arch.errors import ModelLoadError
from fdat_dense_iso.arch.fdat.architecture import FDATArch
from tests.helpers.fdat_cases import random_fdat, small


@pytest.mark.parametrize(("entering", "leaving"), [(1, 3), (3, 1), (4, 3), (3, 4), (4, 4), (1, 1)])
@pytest.mark.parametrize("scale", [1, 2])
def test_unshuffle_with_other_channels_in_than_out(scale: int, entering: int, leaving: int) -> None:
    config = small(
        "pixelshuffledirect", scale, num_in_ch=entering, num_out_ch=leaving, unshuffle_mod=True
    )
    model = random_fdat(config)
    if (scale, entering, leaving) in [(2, 4, 3), (1, 1, 3)]:  # both are convolutions of 16 channels
        with pytest.raises(ModelLoadError, match=r"16 channels.*option scale="):
            FDATArch().load(dict(model.state_dict()))
    descriptor = FDATArch().load(dict(model.state_dict()), scale=scale)
    if (scale, entering, leaving) not in [(2, 4, 3), (1, 1, 3)]:
        assert FDATArch().load(dict(model.state_dict())).model.config == descriptor.model.config
    assert descriptor.model.config == replace(config, drop_path_rate=0.1)
    image = torch.rand(1, entering, 8, 12)
    with torch.inference_mode():
        assert torch.equal(descriptor.model.eval()(image), model(image))


@pytest.mark.parametrize(
    ("upsampler", "factor"), [("pixelshuffledirect", f) for f in (0, 3, 255)] + [("lda", 0)]
)
def test_a_wrong_scale_in_meta_upsample(upsampler: str, factor: int) -> None:
    """Of lda any other scale is possible; the weights of pixelshuffle tell theirs."""
    state_dict = dict(random_fdat(small(upsampler, 2)).state_dict())
    state_dict["upsampler.MetaUpsample"] = state_dict["upsampler.MetaUpsample"].clone()
    state_dict["upsampler.MetaUpsample"][2] = factor
    with pytest.raises(ModelLoadError, match=r"MetaUpsample.* the checkpoint is damaged"):
        FDATArch().load(state_dict)


def test_weights_tell_the_scale_of_pixelshuffle() -> None:
    state_dict = dict(random_fdat(small("pixelshuffle", 2)).state_dict())
    wrong = torch.tensor([3, 2, 3, 24, 3, 16, 4], dtype=torch.uint8)
    assert FDATArch().load({**state_dict, "upsampler.MetaUpsample": wrong}).scale == 2
