"""Descriptors of spandrel's FDAT become ours: same tensors, same pixels, once."""

from __future__ import annotations

import copy
import gc
import importlib
import weakref
from dataclasses import fields

import pytest
import torch
from spandrel import MAIN_REGISTRY, ImageModelDescriptor, ModelLoader
from spandrel.architectures.SPAN import SPAN

from fdat_dense_iso.arch.adopt import adopt
from fdat_dense_iso.arch.fdat.architecture import FDATArch
from fdat_dense_iso.arch.fdat.network import FDAT
from tests.helpers.fdat_cases import randomise, small
from tests.helpers.spandrels_fdat import spandrels_fdat


def foreign(upsampler: str = "pixelshuffledirect", scale: int = 2) -> ImageModelDescriptor:
    """An FDAT as spandrel loads it."""
    config = small(upsampler, scale)
    values = {f.name: getattr(config, f.name) for f in fields(config)}
    values["group_block_pattern"] = list(config.group_block_pattern)
    theirs = spandrels_fdat().FDAT
    state_dict = dict(randomise(theirs(**values)).state_dict())
    descriptor = ModelLoader(registry=MAIN_REGISTRY).load_from_state_dict(state_dict)
    assert isinstance(descriptor, ImageModelDescriptor) and isinstance(descriptor.model, theirs)
    return descriptor.eval()


@pytest.mark.parametrize(
    ("upsampler", "scale"), [("pixelshuffledirect", 2), ("transpose+conv", 4), ("lda", 2)]
)
def test_same_pixels(upsampler: str, scale: int) -> None:
    theirs = foreign(upsampler, scale)
    ours = adopt(theirs)
    assert isinstance(ours.model, FDAT) and ours.model is not theirs.model
    assert (ours.scale, ours.input_channels, ours.output_channels) == (scale, 3, 3)
    assert not ours.model.training
    for name, tensor in theirs.model.state_dict().items():
        assert torch.equal(ours.model.state_dict()[name], tensor)
    image = torch.rand(1, 3, 17, 12)
    with torch.inference_mode():
        assert (ours(image) - theirs(image)).abs().max() <= 1e-5


def test_rebuilt_once_and_forgotten_with_the_model() -> None:
    theirs = foreign()
    ours = adopt(theirs)
    assert adopt(theirs) is ours and adopt(foreign()) is not ours
    adopted = importlib.import_module(
        "fdat_dense_iso.arch.adopt"
    )._adopted  # the package exports the function of that name
    known, rebuilt = len(adopted), weakref.ref(ours.model)
    del theirs, ours
    gc.collect()
    assert len(adopted) < known and rebuilt() is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_precision_is_kept_and_followed(dtype: torch.dtype) -> None:
    theirs = foreign()
    before = {name: tensor.clone() for name, tensor in theirs.model.state_dict().items()}
    assert adopt(theirs).dtype == torch.float32
    theirs.to(dtype)
    assert adopt(theirs).dtype == dtype
    theirs.to(torch.float32)
    assert adopt(theirs).dtype == torch.float32
    assert list(theirs.model.state_dict()) == list(before)


def test_everything_else_is_returned_unchanged() -> None:
    ours = FDATArch().load(dict(foreign().model.state_dict()))
    assert adopt(ours) is ours
    other = ModelLoader().load_from_state_dict(
        dict(SPAN(num_in_ch=3, num_out_ch=3, feature_channels=8).state_dict())
    )
    assert adopt(other) is other


@pytest.mark.parametrize("change", ["in place", "load_state_dict", "replaced"])
def test_weights_that_change_afterwards_are_seen(change: str) -> None:
    theirs = foreign()
    first = adopt(theirs)
    weight = theirs.model.conv_after.weight
    with torch.no_grad():
        if change == "in place":
            weight.neg_()
        elif change == "load_state_dict":
            other = randomise(copy.deepcopy(theirs.model), seed=1)
            theirs.model.load_state_dict(other.state_dict())
        else:
            theirs.model.conv_after.weight = torch.nn.Parameter(weight * 2)
    image = torch.rand(1, 3, 17, 12)
    with torch.inference_mode():
        assert (adopt(theirs)(image) - theirs(image)).abs().max() <= 1e-5
    assert adopt(theirs) is adopt(theirs) is not first


@pytest.mark.parametrize("change", ["hook", "hook inside", "forward", "img_range"])
def test_a_model_that_is_more_than_its_tensors_runs_by_its_own_code(change: str) -> None:
    theirs = foreign()
    model = theirs.model
    if change == "hook":
        model.register_forward_hook(lambda module, inputs, output: output / 2)
    elif change == "hook inside":
        model.conv_after.register_forward_pre_hook(lambda module, inputs: (inputs[0] / 2,))
    elif change == "forward":
        model.forward = lambda x: type(model).forward(model, x) / 2
    else:
        model.img_range = 255.0
    assert adopt(theirs) is theirs


@pytest.mark.parametrize("made", ["as usual", "as the host does"])
def test_weights_are_held_once(made: str) -> None:
    """Also after one of the two was away on another device; either moves alone."""
    with torch.inference_mode(made == "as the host does"):
        theirs = foreign()
        image = torch.rand(1, 3, 17, 12)
        expected = theirs(image)
    for _ in range(2):
        ours = adopt(theirs)
        held = {tensor.data_ptr() for tensor in theirs.model.state_dict().values()}
        assert {tensor.data_ptr() for tensor in ours.model.state_dict().values()} == held
        with torch.inference_mode():
            assert (ours(image) - expected).abs().max() <= 1e-5
        ours.model._apply(torch.clone)  # as a device and back
        assert {tensor.data_ptr() for tensor in theirs.model.state_dict().values()} == held
