"""Dense-Iso-ViT: size, configuration round trips, equations in float64, any image size, the
descriptor."""

# pyright: reportOperatorIssue=false, reportCallIssue=false, reportAttributeAccessIssue=false,
# reportGeneralTypeIssues=false

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from spandrel import MAIN_REGISTRY, ImageModelDescriptor, ModelTiling
from torch import Tensor

from fdat_dense_iso.arch.dense_iso.architecture import DenseIsoViTArch
from fdat_dense_iso.arch.dense_iso.checkpoint import infer_config
from fdat_dense_iso.arch.dense_iso.config import DenseIsoViTConfig, HeadLayer, pixel_shuffle_head
from fdat_dense_iso.arch.dense_iso.meta import META_KEY
from fdat_dense_iso.arch.dense_iso.network import GDFN, Attention, DenseIsoViT
from fdat_dense_iso.arch.errors import ModelLoadError
from fdat_dense_iso.arch.windowed.geometry import plan_windows

HEAD = pixel_shuffle_head(fusion_width=8, widths=(8, 8, 8, 8))
SMALL = {
    "window": 16,
    "dims": (8, 12),
    "depths": (1, 2),
    "heads": (2, 3),
    "hidden": (16, 20),
    "head": HEAD,
}
UP2 = (
    HeadLayer(channels=10, kernel=1),
    HeadLayer(channels=36, shuffle=2),
    HeadLayer(channels=48, kernel=5, shuffle=4),
)

CONFIGS = {
    "published": {},
    "small": SMALL,
    "hidden ratio 4": {**SMALL, "hidden": ()},
    "no biases": {**SMALL, "patch_bias": False, "qkv_bias": False, "projection_bias": False,
                  "g_proj_bias": False, "path_bias": False, "out_proj_bias": False, "transition_bias": False},
    "no output projection": {**SMALL, "projection": False},
    "no position embedding": {**SMALL, "window": 64, "position_embedding": False},
    "all norms": {**SMALL, "patch_norm": True, "stage_norms": (True,), "fusion_norm": True,
                  "transition_norm": "after"},
    "final norm": {**SMALL, "stage_norms": (False, True), "transition_norm": "before"},
    "layer scale": {**SMALL, "layer_scale": True},
    "one stage": {**SMALL, "dims": (8,), "depths": (3,), "heads": (2,), "hidden": (8,)},
    "equal widths": {**SMALL, "dims": (8, 8, 8), "depths": (1,), "heads": (2, 2, 2), "hidden": (8, 9, 10),
                     "transitions": (True, False)},
    "x2": {**SMALL, "head": UP2},
    "one convolution": {**SMALL, "head": (HeadLayer(channels=3 * 16**2, shuffle=16, bias=False),)},
    "patch 2": {**SMALL, "patch_size": 2, "head": pixel_shuffle_head(fusion_width=4, widths=(4, 6, 8))},
    "x1, patch 8": {**SMALL, "patch_size": 8, "head": (HeadLayer(channels=3 * 8**2, shuffle=8),)},
}  # fmt: skip


def randomised(config: DenseIsoViTConfig, seed: int = 0) -> DenseIsoViT:
    """A network in eval mode, every parameter random, so that nothing hides behind a zero or a
    one."""
    network = DenseIsoViT(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            fan = max(parameter[0].numel(), 1) if parameter.ndim > 1 else 4
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / math.sqrt(fan))
    return network


def small(**changes: object) -> DenseIsoViTConfig:
    return DenseIsoViTConfig(**{**SMALL, **changes})  # type: ignore[arg-type]


def test_published_size() -> None:
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in DenseIsoViT().parameters()) == 23_845_507


@pytest.mark.parametrize("name", CONFIGS)
def test_configuration_is_recovered_from_the_tensors(name: str) -> None:
    config = DenseIsoViTConfig(**CONFIGS[name])
    with torch.device("meta"):
        state_dict = DenseIsoViT(config).state_dict()
    del state_dict[META_KEY]  # with it: test_meta.py
    heads_are_not_in_the_tensors = DenseIsoViTConfig(**{**CONFIGS[name], "heads": ()})
    assert infer_config(state_dict) == heads_are_not_in_the_tensors
    assert (
        infer_config({"network." + key: tensor for key, tensor in state_dict.items()})
        == heads_are_not_in_the_tensors
    )
    assert DenseIsoViTArch().detect(state_dict)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": (2, 5)}, "5 heads do not divide"),
        ({"depths": (1, 2, 3)}, "depths has 3 entries for 2 stages"),
        ({"transitions": (False,)}, "no transition between the widths 8 and 12"),
        ({"window": 18}, "no multiple of patch"),
        ({"gated_half": "both"}, "gated_half is one of"),
        ({"head": (HeadLayer(channels=4),)}, "ends in 4 channels"),
        ({"head": (HeadLayer(channels=12, shuffle=2),)}, "no multiple of the patch size"),
        ({"value_range": "8 bit"}, "value_range is one of"),
        ({"norm_eps": 0.0}, "norm_eps is positive"),
    ],
)
def test_impossible_configurations_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**changes)


@pytest.mark.parametrize(
    "layer",
    [
        {"channels": 8, "kernel": 2},
        {"channels": 6, "shuffle": 2},
        {"channels": 8, "activation": "tanh"},
    ],
)
def test_impossible_head_layers_are_refused(layer: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="Dense-Iso-ViT configuration"):
        HeadLayer(**layer)  # type: ignore[arg-type]


def test_attention_equals_its_formula() -> None:
    torch.manual_seed(0)
    attention = Attention(small(), 12, 3).double()
    x = torch.randn(2, 16, 12, dtype=torch.float64)
    weight, bias = attention.qkv.weight, attention.qkv.bias
    heads = []
    for head in range(3):
        rows = slice(4 * head, 4 * head + 4)
        q, k, v = (
            x @ weight[12 * i : 12 * i + 12][rows].T + bias[12 * i : 12 * i + 12][rows]
            for i in range(3)
        )
        logits = torch.einsum("bic,bjc->bij", q, k) / 2  # 2 = sqrt(4)
        weights = logits.exp() / logits.exp().sum(-1, keepdim=True)
        heads.append(weights @ v)
    assert attention.projection is not None
    expected = torch.cat(heads, -1) @ attention.projection.weight.T + attention.projection.bias
    torch.testing.assert_close(attention(x), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("gated_half", ["first", "second"])
def test_gdfn_equals_its_formula(gated_half: str) -> None:
    torch.manual_seed(0)
    gdfn = GDFN(small(gated_half=gated_half), 8, 6).double()
    x = torch.randn(1, 16, 8, dtype=torch.float64)
    expanded = (x @ gdfn.g_proj.weight.T + gdfn.g_proj.bias).reshape(4, 4, 12)
    gelu = [lambda t: t, lambda t: t * 0.5 * (1 + torch.erf(t / math.sqrt(2)))]
    if gated_half == "first":
        gelu.reverse()
    out = torch.ones(4, 4, 6, dtype=torch.float64)
    for path, part, function in zip((gdfn.path_1, gdfn.path_2), expanded.split(6, -1), gelu):
        bordered = torch.zeros(6, 6, 6, dtype=torch.float64)
        bordered[1:5, 1:5] = part
        result = torch.zeros(4, 4, 6, dtype=torch.float64)
        for i in range(3):
            for j in range(3):
                result += bordered[i : i + 4, j : j + 4] * path.weight[:, 0, i, j]
        out = out * function(result + path.bias)
    expected = out.reshape(1, 16, 6) @ gdfn.out_proj.weight.T + gdfn.out_proj.bias
    torch.testing.assert_close(gdfn(x), expected, rtol=0, atol=1e-13)


def test_whole_network_equals_its_sketch() -> None:
    config = small(
        stage_norms=(True,),
        stage_norm_routing="head",
        layer_scale=True,
        value_range="-1..1",
        patch_norm=True,
    )
    network = randomised(config).double()
    image = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    x = 2 * image - 1
    tokens = F.unfold(x, 4, stride=4).transpose(1, 2) @ network.patch_embedding.weight.flatten(1).T
    tokens = network.patch_norm(tokens + network.patch_embedding.bias) + network.position_embedding
    outputs = []
    for i, stage in enumerate(network.stages):
        for block in stage.blocks:
            tokens = tokens + block.layer_scale_1 * block.attention(block.norm1(tokens))
            tokens = tokens + block.layer_scale_2 * block.gdfn(block.norm2(tokens))
        outputs.append(stage.norm(tokens))
        if i == 0:
            tokens = (
                tokens @ network.transitions[0].linear.weight.T + network.transitions[0].linear.bias
            )
    grid = torch.cat(outputs, -1).transpose(1, 2).reshape(1, 20, 4, 4)
    residual = network.head[0](grid)
    for convolution in list(network.head)[1:-1]:
        residual = F.pixel_shuffle(convolution(residual), 2)
    residual = network.head[-1](residual)
    enlarged = F.interpolate(x, size=(64, 64), mode="bilinear", align_corners=False)
    torch.testing.assert_close(network(image), (residual + enlarged + 1) / 2, rtol=0, atol=1e-12)


def test_gradients_reach_every_parameter() -> None:
    network = DenseIsoViT(
        small(layer_scale=True, stage_norms=(True,), patch_norm=True, fusion_norm=True)
    )
    network(torch.rand(2, 3, 16, 16)).square().sum().backward()
    assert all(
        parameter.grad is not None and parameter.grad.abs().sum() > 0
        for parameter in network.parameters()
    )


@pytest.mark.parametrize("value_range", ["0..1", "-1..1"])
@pytest.mark.parametrize("dims", [(48, 64, 72, 96), (192, 256, 288, 384)])
def test_untrained_stages_hand_on_as_much_as_they_get(
    dims: tuple[int, ...], value_range: str
) -> None:
    """And the head, which sees them all, hardly changes the skip, though it is not zero."""
    torch.manual_seed(0)
    head = pixel_shuffle_head(fusion_width=16, widths=(8, 8, 8, 8))
    network = DenseIsoViT(
        DenseIsoViTConfig(window=32, dims=dims, head=head, value_range=value_range)
    )
    image = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        given = network.patch_embedding(image if value_range == "0..1" else 2 * image - 1)
        assert given.mean().abs() < 0.05 * given.std()  # mid-grey is nothing
        for i, stage in enumerate(
            network.features(image if value_range == "0..1" else 2 * image - 1).split(dims, 1)
        ):
            assert 0.7 < stage.std() / given.std() < 2.5, f"stage {i}"
        residual = network(image) - F.interpolate(image, scale_factor=4, mode="bilinear")
    assert 1e-4 < residual.std() < 0.02


def descriptor(**changes: object) -> ImageModelDescriptor:
    return DenseIsoViTArch().load(randomised(small(**changes)).state_dict()).eval()


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (16, 16), (17, 16), (24, 33)])
def test_descriptor_upscales_any_size(size: tuple[int, int]) -> None:
    model = descriptor()
    assert (model.scale, model.tiling, model.purpose) == (4, ModelTiling.INTERNAL, "SR")
    image = torch.rand(1, 3, *size)
    out = model(image)
    assert out.shape == (1, 3, size[0] * 4, size[1] * 4) and out.isfinite().all()
    if size == (16, 16):
        with torch.inference_mode():
            torch.testing.assert_close(out, model.model.network(image).clamp(0, 1), rtol=0, atol=0)


def test_tiles_of_the_host_agree_where_the_network_is_local() -> None:
    """With a silent head only the bilinear skip is left: a tile's inside equals the whole
    image's."""
    model = descriptor()
    with torch.no_grad():
        for parameter in model.model.network.head.parameters():
            parameter.zero_()
    image = torch.rand(1, 3, 70, 60)
    whole, tile = model(image), model(image[:, :, 10:58, 4:52])
    torch.testing.assert_close(
        tile[:, :, 32:-32, 32:-32], whole[:, :, 72:200, 48:176], rtol=0, atol=1e-5
    )


def test_windowed_result_equals_a_loop_in_float64() -> None:
    model = descriptor().model.double()
    image = torch.rand(1, 3, 37, 29, dtype=torch.float64)
    expected = torch.zeros(1, 3, 148, 116, dtype=torch.float64)
    for row in plan_windows(37, 16, model.overlap, 4):
        for column in plan_windows(29, 16, model.overlap, 4):
            patch = model.network(
                image[:, :, row.start : row.start + 16, column.start : column.start + 16]
            )
            patch = patch[:, :, slice(*row.kept), slice(*column.kept)]
            place = expected[:, :, row.target :, column.target :][
                :, :, : patch.shape[2], : patch.shape[3]
            ]
            place += patch * row.weights[:, None] * column.weights
    with torch.no_grad():
        torch.testing.assert_close(model(image), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 2**-10), (torch.bfloat16, 2**-7)])
def test_half_precision(dtype: torch.dtype, tolerance: float) -> None:
    model, image = descriptor(), torch.rand(1, 3, 20, 20)
    expected = model(image)
    out = model.to(dtype)(image.to(dtype))
    assert out.dtype == dtype
    assert (out.float() - expected).abs().mean() < tolerance


def test_saved_weights_load_again() -> None:
    model, image = descriptor(), torch.rand(1, 3, 20, 20)
    again = DenseIsoViTArch().load(model.model.state_dict()).eval()
    torch.testing.assert_close(again(image), model(image), rtol=0, atol=0)


def damaged(change: str) -> dict[str, Tensor]:
    state_dict = dict(randomised(small()).state_dict())
    del state_dict[META_KEY]
    if change == "missing":
        del state_dict["stages.1.blocks.1.gdfn.path_2.weight"]
    elif change == "extra":
        state_dict["class_token"] = torch.zeros(1, 1, 8)
    elif change == "shape":
        state_dict["transitions.0.linear.weight"] = torch.zeros(12, 9)
    return state_dict


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_damaged_state_dicts_are_refused(change: str) -> None:
    assert not DenseIsoViTArch().detect(damaged(change))
    with pytest.raises(ModelLoadError):
        DenseIsoViTArch().load(damaged(change))


@pytest.mark.parametrize(
    "rubbish",
    [{}, {"a": 1}, {"patch_embedding.weight": "text"}, {"weight": torch.ones(3)}, {1: None}],
)
def test_detect_never_raises(rubbish: dict) -> None:
    assert DenseIsoViTArch().detect(rubbish) is False


def test_no_other_architecture_claims_it() -> None:
    state_dict = dict(randomised(small()).state_dict())
    claims = [entry.architecture.id for entry in MAIN_REGISTRY if entry.detect(state_dict)]
    assert claims in ([], ["DenseIsoViT"])
