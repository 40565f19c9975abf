"""This project's own network under the hands of a careless scribe: renamed, rearranged, cut in
parts, with tensors left out or added, all by dice.

Unlike the other variants these share the network's equations; what is tried is whether the reader
finds the same network again, or says that it can't.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

import torch
from torch import Tensor

from fdat_dense_iso.arch.dense_iso.config import DenseIsoViTConfig, HeadLayer
from fdat_dense_iso.arch.dense_iso.network import DenseIsoViT

StateDict = dict[str, Tensor]

BLOCK_NAMES = [  # norm1, attention, norm2, gdfn, g_proj, path_1, path_2, out_proj, projection
    "norm1 attn norm2 ffn g_proj path_1 path_2 out_proj proj",
    "ln_1 msa ln_2 mlp up dw1 dw2 down out",
    "norm_att att norm_ff ff fc1 conv_a conv_b fc2 wo",
    "pre_norm mixer post_norm gate w_in dw_value dw_gate w_out dense",
    "first_norm self_attention second_norm feed expand left right contract to_out",
    "n1 a n2 f x y z w o",
    "before attention after gdfn in_proj first_path second_path out_proj c_proj",
]
SEPARATE = [
    "q k v",
    "to_q to_k to_v",
    "query key value",
    "wq wk wv",
    "lin1 lin2 lin3",
    "one two three",
]
FUSED = ["qkv", "to_qkv", "Wqkv", "in_proj", "query_key_value", "mix"]
ORDERS = {"kvq": "kvq", "vqk": "to_vqk", "qvk": "query_value_key", "kqv": "kqv_proj"}
TROUBLES = [
    "none", "none", "none", "none", "rows in another order", "head by head", "x @ W", "norms without bias", "PReLU",
    "colour buffers", "colour convolutions", "beside a discriminator", "unused tensors", "RMS norms after branches",
    "twice", "k without bias", "kv in one", "vk in one", "qk in one", "two layers in", "swapped words",
    "one convolution",
]  # fmt: skip


@dataclass
class Written:
    """What the scribe wrote, the network that was meant, and the options that tell the rest."""

    network: DenseIsoViT
    state_dict: StateDict
    options: dict
    trouble: str


def random_config(dice: random.Random) -> DenseIsoViTConfig:
    """A small configuration; everything that a field can say is on the dice."""
    pick = dice.choice
    stages = pick([1, 2, 2, 3, 3, 4])
    dims = [pick([8, 12, 16])]
    while len(dims) < stages:
        dims.append(pick([8, 12, 16, dims[-1], dims[-1]]))
    equal = [a == b for a, b in itertools.pairwise(dims)]
    some = pick([0.0, 0.5, 1.0])
    width, enlarge = pick([4, 6]), pick([(4, 4), (2, 2, 2, 2), (16,), (8,)])
    head = [HeadLayer(channels=width, kernel=pick([1, 3]))]
    head += [HeadLayer(channels=width) for _ in range(pick([0, 0, 1]))]
    head += [HeadLayer(channels=width * r * r, shuffle=r) for r in enlarge[:-1]]
    tail = pick([True, False])
    head.append(HeadLayer(channels=(width if tail else 3) * enlarge[-1] ** 2, shuffle=enlarge[-1]))
    head += [HeadLayer(channels=3, kernel=pick([1, 3]))] if tail else []
    norms = pick(["none", "none", "all", "last", "some"])
    return DenseIsoViTConfig(
        window=16,
        dims=tuple(dims),
        depths=tuple(pick([1, 2]) for _ in dims),
        heads=tuple(pick([2, 4]) for _ in dims),
        hidden=tuple(width * pick([1, 2, 2]) for width in dims),
        qkv_bias=pick([True, True, False]),
        projection=pick([True, True, False]),
        g_proj_bias=pick([True, True, False]),
        layer_scale=pick([False, False, False, True]),
        patch_norm=pick([False, False, True]),
        position_embedding=pick([True, True, True, False]),
        stage_norms=tuple(
            norms == "all" or (norms == "last" and i == stages - 1) or (norms == "some" and pick([True, False]))
            for i in range(stages)
        ),
        transitions=tuple(not same or dice.random() < some for same in equal),
        transition_norm=pick(["none", "none", "before", "after"]),
        fusion_norm=pick([False, False, True]),
        head=tuple(head),
        gated_half=pick(["second", "second", "first"]),
    )  # fmt: skip


def write(seed: int) -> Written:
    """The file of one scribe, in the order in which modules would define it."""
    dice = random.Random(seed)
    torch.manual_seed(seed)
    config = random_config(dice)
    network = DenseIsoViT(config).eval()
    with torch.no_grad():
        for key, parameter in network.named_parameters():
            centre = 1.0 if parameter.ndim == 1 and not key.endswith("bias") else 0.0
            scale = 0.2 if parameter.ndim == 1 else parameter[0].numel() ** -0.5
            parameter.copy_(torch.randn_like(parameter) * scale + centre)
    pick = dice.choice
    trouble = pick(TROUBLES)
    names = pick(BLOCK_NAMES).split()
    style = {
        "names": names, "trouble": trouble, "separate": pick(SEPARATE), "fused": pick(FUSED),
        "layout": pick(["fused", "fused", "separate"]), "conv": pick([False, False, True]),
        "order": pick(list(ORDERS)), "flat": pick([False, False, True]),
    }  # fmt: skip
    stage_name = pick(["stages.{}", "layers.{}", "encoder{}", "body.stage_{}", "s.{}"])
    inside = pick([True, False])
    found: StateDict = {}
    source = network.state_dict()

    def take(start: str, to: str) -> None:
        for key in [key for key in source if key.startswith(start + ".")]:
            found[to + key[len(start) :]] = source[key]

    take("patch_embedding", pick(["embed", "patch_embed.proj", "stem.0", "conv_in"]))
    take("patch_norm", pick(["patch_embed.norm", "norm_in", "embed_norm", "norm0"]))
    if config.position_embedding:
        found[pick(["pos_embed", "pos", "table", "code"])] = source["position_embedding"]
    between: StateDict = {}
    after, norm = pick(["transitions", "proj", "widen"]), pick(["norms", "out_norm", "stage_norms"])
    for i, depth in enumerate(config.depths):
        for j in range(depth):
            start, to = f"stages.{i}.blocks.{j}", f"{stage_name.format(i)}.{pick(['blocks'])}.{j}"
            block = {
                key[len(start) + 1 :]: value
                for key, value in source.items()
                if key.startswith(start + ".")
            }
            found |= {
                f"{to}.{key}": value for key, value in block_of(block, config, i, style).items()
            }
        ends = {
            "norm": source_of(source, f"stages.{i}.norm"),
            after: source_of(source, f"transitions.{i}"),
        }
        for name, tensors in ends.items():
            for key, value in tensors.items():
                key = key.replace("linear", "fc") if name == after else key
                key = (
                    key.removeprefix("fc.")
                    if name == after and config.transition_norm == "none"
                    else key
                )
                if inside:
                    found[f"{stage_name.format(i)}.{name}.{key}"] = value
                else:
                    between[f"{norm if name == 'norm' else name}.{i}.{key}"] = value
    found |= between
    take("fusion_norm", "fusion_norm")
    form = pick(["head.{}", "up.{}.conv", "conv{}", "words"])
    words = ["fuse", *(f"ups.{i}" for i in range(len(config.head) - 2)), "tail"]
    for i in range(len(config.head)):
        take(f"head.{i}", form.format(i) if form != "words" else words[min(i, len(words) - 1)])
    options = {"heads": config.heads, "gated_half": config.gated_half, "window": 16}
    options = {k: v for k, v in options.items() if k != "window" or not config.position_embedding}
    if trouble == "swapped words":  # an answer would say that they are not
        del options["gated_half"]
    spoil(found, trouble, config, options, dice)
    return Written(network, found, options, trouble)


def source_of(source: StateDict, start: str) -> StateDict:
    """The tensors under ``start``, with what follows it as names."""
    return {key[len(start) + 1 :]: v for key, v in source.items() if key.startswith(start + ".")}


def block_of(block: StateDict, config: DenseIsoViTConfig, stage: int, style: dict) -> StateDict:
    """One block's tensors as the scribe names and cuts them."""
    names, trouble = style["names"], style["trouble"]
    width, heads = config.dims[stage], config.heads[stage]
    norm1, attention, norm2, gdfn, g_proj, path_1, path_2, out_proj, proj = names
    attention, gdfn = ("", "") if style["flat"] else (attention + ".", gdfn + ".")
    if trouble == "swapped words":
        path_1, path_2 = path_2, path_1
    found: StateDict = {}

    def put(name: str, weight: Tensor, bias: Tensor | None) -> None:
        if trouble == "x @ W" and weight.ndim == 2:
            found[name] = weight.T.contiguous()
        else:
            conv = style["conv"] and weight.ndim == 2
            found[name + ".weight"] = weight[:, :, None, None] if conv else weight
        if bias is not None:
            found[name + ".bias"] = bias

    def of(name: str) -> tuple[Tensor, Tensor | None]:
        return block[name + ".weight"], block.get(name + ".bias")

    put(norm1, *of("norm1"))
    weight, bias = of("attention.qkv")
    parts = {letter: (w, None if bias is None else bias.chunk(3)[i])
             for i, (letter, w) in enumerate(zip("qkv", weight.chunk(3)))}  # fmt: skip

    def joined(letters: str) -> tuple[Tensor, Tensor | None]:
        biases = [parts[letter][1] for letter in letters]
        whole = None if biases[0] is None else torch.cat([b for b in biases if b is not None])
        return torch.cat([parts[letter][0] for letter in letters]), whole

    if trouble == "rows in another order":
        put(attention + ORDERS[style["order"]], *joined(style["order"]))
    elif trouble == "head by head":
        order = torch.arange(3 * width).view(3, heads, -1).transpose(0, 1).flatten()
        put(attention + style["fused"], weight[order], None if bias is None else bias[order])
    elif trouble in ("kv in one", "vk in one", "qk in one"):
        pair = trouble[:2]
        single = ({*"qkv"} - {*pair}).pop()
        put(attention + f"to_{single}", *joined(single))
        put(attention + f"to_{pair}", *joined(pair))
    elif style["layout"] == "separate" or trouble == "k without bias":
        for letter, name in zip("qkv", style["separate"].split()):
            lacks = trouble == "k without bias" and letter == "k"
            put(attention + name, parts[letter][0], None if lacks else parts[letter][1])
    else:
        put(attention + style["fused"], weight, bias)
    if config.projection:
        put(attention + proj, *of("attention.projection"))
    put(norm2, *of("norm2"))
    weight, bias = of("gdfn.g_proj")
    if trouble == "two layers in":
        ends = ("_gate", "_value") if "gate" in path_2 else ("1", "2")
        for half, end in zip((0, 1), ends[::-1] if "gate" in path_2 else ends):
            put(
                gdfn + g_proj + end,
                weight.chunk(2)[half],
                None if bias is None else bias.chunk(2)[half],
            )
    else:
        put(gdfn + g_proj, weight, bias)
    if trouble == "one convolution":
        first, second = of("gdfn.path_1"), of("gdfn.path_2")
        whole = None if first[1] is None or second[1] is None else torch.cat([first[1], second[1]])
        put(gdfn + "dwconv", torch.cat([first[0], second[0]]), whole)
    else:
        put(gdfn + path_1, *of("gdfn.path_1"))
        put(gdfn + path_2, *of("gdfn.path_2"))
    put(gdfn + out_proj, *of("gdfn.out_proj"))
    for i in (1, 2) if config.layer_scale else ():
        found[f"gamma_{i}"] = block[f"layer_scale_{i}"]
    return found


def spoil(
    found: StateDict, trouble: str, config: DenseIsoViTConfig, options: dict, dice: random.Random
) -> None:
    """What concerns the whole file: tensors added, left out or doubled; the network is none of ours
    then, or can't be told."""
    if trouble == "norms without bias":
        for key in [
            key for key in found if key.endswith(".bias") and found[key[:-4] + "weight"].ndim == 1
        ]:
            del found[key]
    elif trouble == "PReLU":
        found[dice.choice(["act.weight", "head.act.weight", "prelu.0.weight"])] = torch.full(
            (4,), 0.25
        )
    elif trouble == "colour buffers":
        found["mean"], found["std"] = torch.full((1, 3, 1, 1), 0.4), torch.full((1, 3, 1, 1), 0.2)
    elif trouble == "colour convolutions":
        for name in ("sub_mean", "add_mean"):
            found[name + ".weight"], found[name + ".bias"] = (
                torch.eye(3)[:, :, None, None],
                torch.zeros(3),
            )
    elif trouble == "beside a discriminator":
        network = {"net_g." + key: value for key, value in found.items()}
        found.clear()
        found.update(network)
        for i, (a, b) in enumerate([(3, 8), (8, 8), (8, 1)]):
            found[f"net_d.{i}.weight"], found[f"net_d.{i}.bias"] = (
                torch.rand(b, a, 3, 3),
                torch.rand(b),
            )
    elif trouble == "unused tensors":
        found["head_aux.weight"] = torch.rand(dice.choice([3, 8, 12]), config.dims[-1], 1, 1)
    elif trouble == "RMS norms after branches":
        for key in [
            key for key in found if key.endswith("gamma_1") or key.endswith("blocks.0.norm1.weight")
        ]:
            start = key.rpartition(".")[0].removesuffix(".norm1")
            width = found[key].shape[0]
            found |= {
                f"{start}.post_1.weight": torch.rand(width),
                f"{start}.post_2.weight": torch.rand(width),
            }
    elif trouble == "twice":
        found |= {"again." + k: v.clone() for k, v in found.items() if ".blocks." in k}
