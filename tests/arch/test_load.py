"""Loading: every container and type, and a table of files that must be refused with a readable
reason."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from spandrel import MAIN_REGISTRY, ModelLoader

from fdat_dense_iso.arch import ModelLoadError, describe, load_model
from fdat_dense_iso.arch.fdat.network import FDAT
from fdat_dense_iso.upscale import upscale_image
from tests.helpers.fdat_cases import SMALL, random_fdat, small
from tests.helpers.pickles import pickles


@pytest.fixture(scope="module")
def state_dict() -> dict[str, torch.Tensor]:
    return random_fdat().state_dict()


def assert_is_small_fdat(model) -> None:
    assert isinstance(model.model, FDAT) and model.model.config == SMALL
    image = torch.rand(1, 3, 9, 12, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(model(image), random_fdat()(image).clamp(0, 1))
    assert not model.model.training and model.dtype == torch.float32


WRAPPERS = {
    "bare": lambda sd: sd,
    "list in a dictionary": lambda sd: {"models": [sd, {"step": 3}]},
    "tuple in a dictionary": lambda sd: {"checkpoint": {"networks": (sd,)}},
    "params": lambda sd: {"params": sd},
    "params_ema": lambda sd: {
        "params_ema": sd,
        "params": {k: torch.zeros_like(v) for k, v in sd.items()},
    },
    "state_dict": lambda sd: {"epoch": 3, "state_dict": sd},
    "model beside optimizer": lambda sd: {
        "model": sd,
        "optimizer": {"state": {}, "param_groups": []},
    },
    "module.": lambda sd: {f"module.{k}": v for k, v in sd.items()},
    "_orig_mod.": lambda sd: {f"_orig_mod.{k}": v for k, v in sd.items()},
    "module._orig_mod.": lambda sd: {"params": {f"module._orig_mod.{k}": v for k, v in sd.items()}},
    "beside numbers": lambda sd: {**sd, "step": 5, "note": "best"},
}


@pickles
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt"])
@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.every(2)
def test_pickled_containers(tmp_path: Path, state_dict, wrapper: str, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    torch.save(WRAPPERS[wrapper](state_dict), path)
    assert_is_small_fdat(load_model(path))
    assert_is_small_fdat(load_model(str(path)))


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_state_dicts(state_dict, wrapper: str) -> None:
    content = WRAPPERS[wrapper](state_dict)
    before = list(content)
    assert_is_small_fdat(load_model(content))
    assert list(content) == before


@pickles
def test_safetensors_and_old_torch_files(tmp_path: Path, state_dict) -> None:
    save_file(state_dict, tmp_path / "model.safetensors", {"architecture": "FDAT"})
    assert_is_small_fdat(load_model(tmp_path / "model.safetensors"))
    torch.save(state_dict, tmp_path / "old.PTH", _use_new_zipfile_serialization=False)
    assert_is_small_fdat(load_model(tmp_path / "old.PTH"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files_load_in_float32(state_dict, dtype: torch.dtype) -> None:
    halved = {k: v.to(dtype) if v.is_floating_point() else v for k, v in state_dict.items()}
    model = load_model(halved)
    assert model.dtype == torch.float32
    weight = model.model.conv_after.weight
    assert torch.equal(weight, state_dict["conv_after.weight"].to(dtype).float())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_files_cast_with_the_upsamplers_numbers(dtype: torch.dtype) -> None:
    """lda's scale is told by those numbers alone."""
    cast = {k: v.to(dtype) for k, v in random_fdat(small("lda", 4)).state_dict().items()}
    assert cast["upsampler.MetaUpsample"].is_floating_point()
    assert load_model(cast).scale == 4


def test_options(state_dict) -> None:
    bare = {
        k: v
        for k, v in random_fdat(small("lda", 2)).state_dict().items()
        if k != "upsampler.MetaUpsample"
    }
    with pytest.raises(ModelLoadError, match="pass the option scale="):
        load_model(bare)
    assert load_model(bare, scale=2).scale == 2
    with pytest.raises(ModelLoadError, match="has no such option: colour"):
        load_model(state_dict, colour="red")
    with pytest.raises(ModelLoadError, match="contradicts the checkpoint"):
        load_model(state_dict, scale=3)


@pickles
def test_other_architectures_load_through_spandrel(tmp_path: Path) -> None:
    from spandrel.architectures.Compact import Compact

    network = Compact(num_in_ch=3, num_out_ch=3, num_feat=16, num_conv=2, upscale=2).eval()
    torch.save({"params": network.state_dict()}, tmp_path / "compact.pth")
    model = load_model(tmp_path / "compact.pth")
    reference = ModelLoader().load_from_file(tmp_path / "compact.pth")
    image = torch.rand(1, 20, 30, 3)
    with torch.inference_mode():
        expected = reference(image.movedim(-1, 1)).movedim(1, -1)
    assert model.architecture.id == "Compact"
    assert (upscale_image(model, image) - expected).abs().max() <= 1e-6
    with pytest.raises(ModelLoadError, match=r"are for FDAT.*which this is not"):
        load_model(tmp_path / "compact.pth", scale=2)


def test_inpainting_models_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from spandrel import Architecture, ArchRegistry, ArchSupport, MaskedImageModelDescriptor

    class Masked(Architecture):
        def __init__(self) -> None:
            super().__init__(
                id="MaskedTest", name="MaskedTest", detect=lambda sd: "masked.weight" in sd
            )

        def load(self, state_dict):
            module = torch.nn.ModuleDict({"masked": torch.nn.Conv2d(4, 3, 1, bias=False)})
            return MaskedImageModelDescriptor(
                module,
                state_dict,
                architecture=self,
                purpose="Inpainting",
                tags=[],
                supports_half=False,
                supports_bfloat16=False,
                input_channels=4,
                output_channels=3,
            )

    registry = ArchRegistry()
    registry.add(ArchSupport.from_architecture(Masked()))
    monkeypatch.setattr("fdat_dense_iso.arch.load.MAIN_REGISTRY", registry)
    with pytest.raises(ModelLoadError, match="inpainting model that needs a mask"):
        load_model({"masked.weight": torch.zeros(3, 4, 1, 1)})


class Payload:
    """What a hostile pickle does when it is read without care."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self):
        return os.mkdir, (str(self.witness),)


def truncated(path: Path, source: Path, share: float) -> None:
    data = source.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def write_case(case: str, folder: Path, state_dict: dict[str, torch.Tensor]) -> Path:
    save_file(state_dict, folder / "good.safetensors")
    torch.save(state_dict, folder / "good.pth")
    path = folder / f"bad{'.safetensors' if 'safetensors' in case else '.pth'}"
    if case.startswith("empty"):
        path.touch()
    elif case.startswith("truncated"):
        truncated(path, folder / f"good{path.suffix}", 0.6)
    elif case.startswith("head only"):
        truncated(path, folder / f"good{path.suffix}", 0.001)
    elif case.startswith("text"):
        path.write_text("<!DOCTYPE html><html>404: not found</html>")
    elif case.startswith("Git LFS"):
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n")
    elif case == "garbage":
        path.write_bytes(bytes(range(101, 256)) * 20)
    elif case == "code in a pickle":
        path.write_bytes(pickle.dumps({"params": Payload(folder / "witness")}))
    elif case == "code in a torch file":
        torch.save({"params": state_dict, "hook": Payload(folder / "witness")}, path)
    elif case == "a whole model":
        torch.save(torch.nn.Linear(2, 2), path)
    elif case == "a list":
        torch.save([torch.zeros(3)], path)
    elif case == "no tensors":
        torch.save({"epoch": 3, "name": "x"}, path)
    elif case == "TorchScript":
        torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))
    elif case == "some zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("readme.txt", "hello")
    elif case == "another kind of model":
        torch.save({"encoder.weight": torch.zeros(8, 8), "decoder.weight": torch.zeros(8, 8)}, path)
    elif case == "a folder":
        path.mkdir()
    return path


BAD_FILES = [
    ("missing", "no such file"),
    ("empty", "the file is empty"),
    ("empty safetensors", "the file is empty"),
    ("truncated", "truncated"),
    ("truncated safetensors", "truncated"),
    ("head only", "truncated|damaged"),
    ("head only safetensors", "truncated"),
    ("text", "a web page, not the checkpoint itself"),
    ("text safetensors", "a web page"),
    ("Git LFS pointer", "a Git LFS pointer, not the checkpoint"),
    ("Git LFS pointer safetensors", "a Git LFS pointer"),
    ("garbage", "no PyTorch checkpoint|damaged"),
    ("code in a pickle", "holds more than tensors. Nothing in it was run"),
    ("code in a torch file", "holds more than tensors: posix.mkdir. Nothing in it was run"),
    ("a whole model", "Nothing in it was run"),
    ("a list", "holds a list, not a state dict"),
    ("no tensors", "holds no tensors .found: epoch, name"),
    ("TorchScript", "TorchScript archives hold code"),
    ("some zip", "truncated"),
    (
        "another kind of model",
        r"Found 2 tensors, starting with encoder.weight \(8, 8\).*Supported: FDAT",
    ),
    ("a folder", "a folder, not a file"),
]


@pytest.mark.parametrize("source", [None, 3, ["model.pth"], b"model.pth"], ids=str)
def test_what_is_neither_a_path_nor_a_state_dict(source) -> None:
    with pytest.raises(
        ModelLoadError, match=f"found a {type(source).__name__}; the path of a checkpoint"
    ):
        load_model(source)


class BytesPath:
    def __fspath__(self) -> bytes:
        return b"model.pth"


def test_a_path_object_that_gives_bytes() -> None:
    with pytest.raises(
        ModelLoadError, match=r"found a BytesPath of bytes; the path of a checkpoint"
    ):
        load_model(BytesPath())  # type: ignore[arg-type]


@pickles
@pytest.mark.parametrize(("case", "message"), BAD_FILES)
@pytest.mark.filterwarnings("ignore")
def test_bad_files(tmp_path: Path, state_dict, case: str, message: str) -> None:
    path = write_case(case, tmp_path, state_dict)
    with pytest.raises(ModelLoadError, match=message) as caught:
        load_model(path)
    assert path.name in str(caught.value)
    assert not (tmp_path / "witness").exists()


def change(**tensors: torch.Tensor | None):
    def apply(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        changed = {**state_dict, **{k: v for k, v in tensors.items() if v is not None}}
        return {k: v for k, v in changed.items() if k not in tensors or tensors[k] is not None}

    return apply


BAD_TENSORS = [
    (
        change(**{"conv_after.weight": torch.full((24, 24, 3, 3), float("nan"))}),
        "'conv_after.weight' holds NaN",
    ),
    (
        change(**{"groups.1.conv.weight": torch.full((24, 24, 3, 3), float("inf"))}),
        "'groups.1.conv.weight' holds NaN",
    ),
    (change(**{"groups.0.blocks.1.ffn.fc2.weight": None}), "does not fit it.*ffn.fc2.weight"),
    (
        change(**{"groups.0.blocks.1.ffn.fc2.weight": torch.zeros(24, 7)}),
        "does not fit it.*ffn.fc2.weight",
    ),
    (change(extra=torch.zeros(3)), "does not fit it.*extra"),
    # as ComfyUI, compressed-tensors and bitsandbytes name what weights are multiplied by
    *(
        (change(**{name: torch.ones(())}), f"{name}' belongs to quantised weights")
        for name in ("scaled_fp8", "a.scale_weight", "a.weight_scale", "a.weight.absmax")
    ),
    (
        change(**{"groups.0.blocks.0.attn.bias": None}),
        "'groups.0.blocks.0.attn.bias' .* and 'groups.0.blocks.0.attn.temp' .* are both missing",
    ),
    (
        change(**{"upsampler.0.weight": torch.zeros(17, 24, 3, 3), "upsampler.MetaUpsample": None}),
        "FDAT|does not fit",
    ),
    (change(**{"groups.0.blocks.0.attn.bias": torch.zeros(5)}), "does not fit"),
    (change(**{"conv_after.weight": torch.zeros(24, 24, 3, 3).to_sparse()}), "sparse_coo"),
    (change(**{"conv_after.weight": torch.zeros(24, 24, 3, 3, device="meta")}), "on meta"),
    (change(**{"conv_after.weight": torch.zeros(1).expand(24, 24, 300, 3000)}), "stores less"),
    (change(**{"conv_after.weight": torch.zeros(24, 24, 3, 3, dtype=torch.int8)}), "quantised"),
    (lambda sd: {}, "holds no tensors"),
    (lambda sd: {1: 2, 3: {4: 5}}, "holds no tensors"),
    (lambda sd: {"a": torch.zeros(3)}, "Found 1 tensor, starting"),
    (
        lambda sd: {number: torch.zeros(3, 3) for number in range(20)},
        "Found 20 tensors, starting with 0",
    ),
]


@pytest.mark.parametrize("number", range(len(BAD_TENSORS)))
def test_bad_tensors(state_dict, number: int) -> None:
    damage, message = BAD_TENSORS[number]
    damaged = damage(state_dict)
    before = dict(damaged)
    with pytest.raises(ModelLoadError, match=message):
        load_model(damaged)
    assert list(damaged) == list(before) and all(damaged[key] is before[key] for key in before)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.bool])
def test_weights_cast_to_whole_numbers_are_refused(state_dict, dtype: torch.dtype) -> None:
    from spandrel.architectures.Compact import Compact

    for weights in (state_dict, Compact(num_feat=8, num_conv=2, upscale=2).state_dict()):
        with pytest.raises(ModelLoadError, match="cast to whole numbers and are destroyed"):
            load_model({key: value.to(dtype) for key, value in weights.items()})


def test_a_plain_hat_may_be_another_one(caplog: pytest.LogCaptureFixture) -> None:
    """HAT-iLN of traiNNer-redux has the same tensors."""
    from spandrel.architectures.HAT import HAT

    network = HAT(
        img_size=8, embed_dim=12, depths=[1], num_heads=[2], window_size=8,
        upscale=2, upsampler="pixelshuffle", squeeze_factor=3,
    )  # fmt: skip
    model = load_model(network.state_dict())
    assert model.architecture.id == "HAT"
    (said,) = model.model.assumptions
    assert said.startswith("guessed: a plain HAT") and "HAT-iLN" in said
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "HAT-iLN" in describe(model)


def test_a_relative_of_dat_is_named() -> None:
    """DAT-iLN of traiNNer-redux has another name for one of DAT's tensors."""
    from spandrel.architectures.DAT import DAT

    network = DAT(embed_dim=16, depth=[1], num_heads=[2], split_size=[2, 4], upscale=2)
    renamed = {
        k.replace("before_RG.1.", "before_RG.norm."): v for k, v in network.state_dict().items()
    }
    assert load_model(network.state_dict()).architecture.id == "DAT"
    with pytest.raises(ModelLoadError, match=r"it is DAT-iLN of traiNNer-redux.*not read here"):
        load_model(renamed)


def test_loading_registers_nothing(state_dict) -> None:
    before = [support.architecture.id for support in MAIN_REGISTRY]
    load_model(state_dict)
    assert [support.architecture.id for support in MAIN_REGISTRY] == before


@pytest.mark.parametrize("content", ["[1, 2]", "not json", "[" * 100_000])
def test_a_json_file_beside_another_model_does_not_matter(
    tmp_path: Path, state_dict, content: str
) -> None:
    save_file(state_dict, tmp_path / "model.safetensors")
    (tmp_path / "model.json").write_text(content)
    assert_is_small_fdat(load_model(tmp_path / "model.safetensors"))


def test_weights_loaded_in_inference_mode_notice_changes(state_dict) -> None:
    """As hosts load: the exact engine must not go on with weights that it packed before they were
    changed."""
    image = torch.rand(1, 20, 20, 3)
    with torch.inference_mode():
        model = load_model(state_dict)
    upscale_image(model, image, mode="exact")
    with torch.no_grad():
        for parameter in model.model.parameters():
            parameter.mul_(0.5)
    exact, whole = (upscale_image(model, image, mode=mode) for mode in ("exact", "whole"))
    assert (exact - whole).abs().max() <= 1e-5
