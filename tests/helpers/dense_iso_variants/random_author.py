"""A Dense-Iso-ViT by an author who decides everything by dice: names, nesting, layouts, order of
definition, sizes."""

# pyright: reportCallIssue=false, reportIndexIssue=false, reportArgumentType=false,
# reportOptionalMemberAccess=false
# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false,
# reportGeneralTypeIssues=false

from __future__ import annotations

import itertools
import random
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn

from tests.helpers.dense_iso_variants.parts import (
    LN,
    bilinear,
    depthwise,
    softmax_attention,
    to_map,
    to_tokens,
)

ATTENTION = ["attn", "attention", "msa", "self_attn", "mhsa", "att", "token_mixer", "Attn", ""]
FEED_FORWARD = ["ffn", "mlp", "gdfn", "feed_forward", "ff", "channel_mixer", "FFN", ""]
FUSED = ["qkv", "to_qkv", "in_proj", "c_attn", "qkv_proj", "Wqkv", "query_key_value"]
SEPARATE = [
    "q k v", "to_q to_k to_v", "query key value", "q_proj k_proj v_proj", "wq wk wv",
    "q_lin k_lin v_lin",
]  # fmt: skip
PAIR = ["q kv", "to_q to_kv", "wq wkv", "q_proj kv_proj"]
PROJECTION = ["proj", "to_out", "out_proj", "o_proj", "wo", "out", "dense", "c_proj", "projection"]
EXPAND = [
    "fc1", "g_proj", "project_in", "proj_in", "in_proj", "w_in", "linear1", "expand", "up_proj",
]  # fmt: skip
CONTRACT = [
    "fc2", "out_proj", "project_out", "proj_out", "w_out", "linear2", "squeeze", "down_proj",
    "drop",
]  # fmt: skip
ONE_DEPTHWISE = ["dwconv", "dw", "depthwise", "conv", "dw_conv", "spatial"]
TWO_DEPTHWISE = [
    "path_1 path_2", "dw1 dw2", "conv1 conv2", "dwconv_a dwconv_b", "conv_x conv_y", "dw_0 dw_1",
]  # fmt: skip
NORMS = ["norm1 norm2", "ln1 ln2", "ln_1 ln_2", "norm_attn norm_ffn", "attn_norm ffn_norm", "norm_1 norm_2",
         "layernorm_before layernorm_after", "input_layernorm post_attention_layernorm", "norm_a norm_b"]  # fmt: skip
POSITION = [
    "pos_embed", "pos_embedding", "position_embedding", "pos", "positional_encoding",
    "abs_pos_embed",
]  # fmt: skip
ACTIVATIONS = {
    "none": nn.Identity,
    "gelu": nn.GELU,
    "relu": nn.ReLU,
    "leaky_relu_0.2": lambda: nn.LeakyReLU(0.2),
    "silu": nn.SiLU,
}


class Box(nn.Module):
    """Named children in a given order; modules, parameters or further boxes."""

    def __init__(self, children: list[tuple[str, object]]) -> None:
        super().__init__()
        for name, child in children:
            if isinstance(child, nn.Parameter):
                self.register_parameter(name, child)
            else:
                self.add_module(name, child)


class Linear1x1(nn.Conv2d):
    """A linear layer on tokens, stored as a 1x1 convolution."""

    def __init__(self, a: int, b: int, bias: bool = True) -> None:
        super().__init__(a, b, 1, bias=bias)

    def forward(self, t):
        return to_tokens(super().forward(to_map(t)))


class RandomAuthor(nn.Module):
    """(B, 3, s, s) -> (B, 3, s * scale, s * scale); ``my.answers`` are the options that tensors
    can't tell."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.my = SimpleNamespace()  # registers nothing
        self.my.dice = dice = random.Random(seed)
        pick = dice.choice
        count = pick([1, 2, 2, 3, 3, 4, 5])
        self.my.dims = [pick([8, 12, 16, 24])]
        while len(self.my.dims) < count:
            self.my.dims.append(pick([8, 12, 16, 20, 24, self.my.dims[-1]]))
        self.my.heads = [pick([n for n in (1, 2, 4) if d % n == 0]) for d in self.my.dims]
        self.my.depths = (
            [pick([1, 2, 3])] * count
            if dice.random() < 0.5
            else [pick([1, 2, 3]) for _ in self.my.dims]
        )
        self.my.ratio = pick([1, 1.5, 2, 2.5, 4])
        self.my.patch, grid = pick([2, 4, 4, 4, 8]), pick([3, 4, 4, 5])
        self.my.window = self.my.patch * grid
        self.my.scale = pick([1, 2, 3, 4, 4, 8])
        self.my.eps = pick([1e-5, 1e-6])
        self.my.gate_first = dice.random() < 0.3
        self.my.style = {
            "linear": pick([nn.Linear, nn.Linear, Linear1x1]),
            "attention": pick(ATTENTION),
            "feed_forward": pick(FEED_FORWARD),
            "kind": pick(["fused", "fused", "separate", "pair", "mha"]),
            "qkv": {
                "fused": pick(FUSED),
                "separate": pick(SEPARATE),
                "pair": pick(PAIR),
                "mha": "",
            },
            "qkv_bias": pick([True, True, False]),
            "projection": pick([*PROJECTION, ""]),
            "expand": pick(EXPAND),
            "contract": pick(CONTRACT),
            "ff_bias": pick([True, True, False]),
            "dw": pick([pick(ONE_DEPTHWISE), pick(TWO_DEPTHWISE)]),
            "norms": pick([*NORMS, "inside", "wrapper"]),
            "scale": pick(["", "", "", "parameters", "modules"]),
            "backwards": dice.random() < 0.15,
        }
        self.my.parts: list[list[dict]] = []
        items: list[tuple[str, object]] = [*self._stem(grid), *self._body(), *self._head()]
        if dice.random() < 0.25:
            dice.shuffle(items)
        root: nn.Module = self
        for name in pick([[], [], ["net"], ["generator", "model"]]):
            root.add_module(name, Box([]))
            root = getattr(root, name)
        for name, item in items:
            root.register_parameter(name, item) if isinstance(
                item, nn.Parameter
            ) else root.add_module(name, item)
        self.my.answers = {
            "heads": tuple(self.my.heads),
            "gated_half": "first" if self.my.gate_first else "second",
            "norm_eps": self.my.eps,
            "head_activation": self.my.activations,
            "window": self.my.window,
            "stage_norm_routing": self.my.routing,
        }

    def norm(self, width: int) -> nn.Module:
        return LN(width, eps=self.my.eps)

    def _stem(self, grid: int) -> list[tuple[str, object]]:
        pick, width = self.my.dice.choice, self.my.dims[0]
        conv = nn.Conv2d(3, width, self.my.patch, self.my.patch, bias=pick([True, True, False]))
        self.my.patch_norm = self.norm(width) if pick([0, 0, 0, 1]) else nn.Identity()
        name = pick(
            ["patch_embed", "embed", "stem", "to_tokens", "tokenizer", "conv_in", "patch_embedding"]
        )
        children: list[tuple[str, object]] = [("proj", conv)]
        if not isinstance(self.my.patch_norm, nn.Identity):
            children.append(("norm", self.my.patch_norm))
            stem: nn.Module = Box(children)
        else:
            stem = pick([conv, Box(children), nn.Sequential(conv)])
        self.my.embed = [conv]
        tokens = grid * grid
        shape = pick(
            [
                (1, tokens, width),
                (tokens, width),
                (1, width, grid, grid),
                (1, grid, grid, width),
                None,
            ]
        )
        self.my.position = None if shape is None else nn.Parameter(torch.randn(shape))
        items: list[tuple[str, object]] = [(name, stem)]
        return items if shape is None else [*items, (pick(POSITION), self.my.position)]

    def _block(self, width: int, heads: int) -> tuple[nn.Module, dict]:
        s, hidden = self.my.style, int(width * self.my.ratio)
        linear, qkv_bias, ff_bias = s["linear"], s["qkv_bias"], s["ff_bias"]
        part: dict = {"heads": heads, "norm1": self.norm(width), "norm2": self.norm(width)}
        if s["kind"] == "mha":
            part["mha"] = nn.MultiheadAttention(width, heads, bias=qkv_bias, batch_first=True)
            attention = [("mha" if s["attention"] != "mhsa" else "inner", part["mha"])]
        else:
            sizes = {"fused": [3], "separate": [1, 1, 1], "pair": [1, 2]}[s["kind"]]
            part["qkv"] = [linear(width, n * width, bias=qkv_bias) for n in sizes]
            attention = list(zip(s["qkv"][s["kind"]].split(), part["qkv"]))
            part["projection"] = linear(width, width) if s["projection"] else nn.Identity()
            if s["projection"]:
                attention.append((s["projection"], part["projection"]))
        part["expand"], part["contract"] = (
            linear(width, 2 * hidden, bias=ff_bias),
            linear(hidden, width, bias=ff_bias),
        )
        dw = s["dw"].split()
        part["dw"] = [depthwise(2 * hidden // len(dw), ff_bias) for _ in dw]
        feed_forward = [
            (s["expand"], part["expand"]),
            *zip(dw, part["dw"]),
            (s["contract"], part["contract"]),
        ]
        part["scales"] = [nn.Parameter(torch.rand(width)) for _ in range(2 if s["scale"] else 0)]
        norms = [("norm", part["norm1"]), ("norm", part["norm2"])]
        if s["norms"] == "inside":
            attention.insert(0, norms[0])
            feed_forward.insert(0, norms[1])
        boxes = []
        for name, children in ((s["attention"], attention), (s["feed_forward"], feed_forward)):
            if s["norms"] == "wrapper":
                number = len(boxes)
                boxes.append([(str(number), Box([norms[number], ("fn", Box(children))]))])
            elif name or s["norms"] == "inside":
                boxes.append([(name or ("attn", "ffn")[len(boxes)], Box(children))])
            else:
                start = ("attn_", "ffn_")[len(boxes)]
                boxes.append([(start + child, module) for child, module in children])
        names = s["norms"].split()
        if len(names) == 2:
            boxes[0].insert(0, (names[0], part["norm1"]))
            boxes[1].insert(0, (names[1], part["norm2"]))
        if s["scale"] == "parameters":
            boxes[0].append(("gamma_1", part["scales"][0]))
            boxes[1].append(("gamma_2", part["scales"][1]))
        elif s["scale"] == "modules":
            boxes[0].append(("ls1", Box([("gamma", part["scales"][0])])))
            boxes[1].append(("ls2", Box([("gamma", part["scales"][1])])))
        children = [*boxes[0], *boxes[1]]
        return Box(children[::-1] if s["backwards"] else children), part

    def _body(self) -> list[tuple[str, object]]:
        pick, dims = self.my.dice.choice, self.my.dims
        lists = []
        for width, heads, depth in zip(dims, self.my.heads, self.my.depths):
            made = [self._block(width, heads) for _ in range(depth)]
            lists.append([block for block, _ in made])
            self.my.parts.append([part for _, part in made])
        linear = self.my.style["linear"]
        bias = pick([True, True, False])
        optional = pick([True, False])
        self.my.transitions = [
            linear(a, b, bias=bias) if a != b or optional else nn.Identity()
            for a, b in itertools.pairwise(dims)
        ]
        with_norms = pick(["none", "none", "all", "last"])
        last = len(dims) - 1
        self.my.stage_norms = [
            self.norm(d)
            if with_norms == "all" or (with_norms == "last" and i == last)
            else nn.Identity()
            for i, d in enumerate(dims)
        ]
        self.my.routing = pick(["both", "head"]) if with_norms == "all" else "both"
        inside, named = pick([True, False]), pick(["{}", "stage{}", "block_group_{}", "s{}"])
        container, blocks = (
            pick(["stages", "layers", "encoder", "body", "trunk"]),
            pick(["blocks", "layer", "units", ""]),
        )
        after, norm_name = (
            pick(["proj", "transition", "next", "expand", "to_next"]),
            pick(["norm", "out_norm", "ln"]),
        )
        stages = []
        for i, made in enumerate(lists):
            children = [(str(j), block) for j, block in enumerate(made)]
            children = [(blocks, Box(children))] if blocks else children
            if inside and not isinstance(self.my.stage_norms[i], nn.Identity):
                children.append((norm_name, self.my.stage_norms[i]))
            if inside and i < last and not isinstance(self.my.transitions[i], nn.Identity):
                children.append((after, self.my.transitions[i]))
            stages.append((named.format(i + pick([0]) + (named != "{}")), Box(children)))
        items: list[tuple[str, object]] = (
            stages if named != "{}" and pick([0, 1]) else [(container, Box(stages))]
        )
        if not inside:
            items += [
                (
                    pick(["projs", "transitions", "links", "widen"]),
                    nn.ModuleList(self.my.transitions),
                )
            ]
            items += [
                (pick(["norms", "stage_norms", "out_norms"]), nn.ModuleList(self.my.stage_norms))
            ]
        return items

    def _head(self) -> list[tuple[str, object]]:
        pick, total = self.my.dice.choice, sum(self.my.dims)
        factors = {
            2: [2],
            3: [3],
            4: [4],
            6: [3, 2],
            8: [2, 4],
            12: [3, 4],
            16: [4, 4],
            24: [3, 8],
            32: [4, 8],
            64: [8, 8],
        }
        enlarge = self.my.patch * self.my.scale
        steps = pick([factors[enlarge], [enlarge]])
        if enlarge in (4, 8, 16, 32, 64) and pick([True, False]):
            steps = [2] * {4: 2, 8: 3, 16: 4, 32: 5, 64: 6}[enlarge]
        width, bias = pick([4, 6, 8]), pick([True, True, False])
        fusion = [
            nn.Conv2d(total, width, k, padding=k // 2, bias=bias) for k in pick([[1], [3], [3]])
        ]
        fusion += (
            [nn.Conv2d(width, width, 3, 1, 1, bias=bias)] * 0
            if pick([0, 1])
            else [nn.Conv2d(width, width, 3, 1, 1)]
        )
        tail = pick([True, False])
        ups = [
            nn.Conv2d(width, (width if i + 1 < len(steps) or tail else 3) * r * r, 3, 1, 1)
            for i, r in enumerate(steps)
        ]
        last = [nn.Conv2d(width, 3, pick([1, 3, 3]))] if tail else []
        for conv in last:
            conv.padding = (conv.kernel_size[0] // 2,) * 2
        self.my.head = [(c, 1) for c in fusion] + list(zip(ups, steps)) + [(c, 1) for c in last]
        name = pick(["none", "none", *ACTIVATIONS])
        self.my.activations = [name if pick([0, 1, 1]) else "none" for _ in self.my.head[:-1]] + [
            "none"
        ]
        if len(self.my.head) == 1:
            self.my.activations = ["none"]
        self.my.acts = [ACTIVATIONS[name]() for name in self.my.activations]
        form = pick(["sequential", "parts", "nested", "flat"])
        if form == "sequential":
            layers = []
            for (conv, r), act in zip(self.my.head, self.my.acts):
                layers += [conv, *([nn.PixelShuffle(r)] if r > 1 else []), act]
            return [
                (pick(["head", "sr_head", "decoder", "reconstruction"]), nn.Sequential(*layers))
            ]
        if form == "parts":
            fuse = fusion[0] if len(fusion) == 1 else nn.Sequential(*fusion)
            parts = [(pick(["fuse", "fusion", "reduce", "conv_before_upsample"]), fuse)]
            parts.append((pick(["ups", "upsample", "upscale"]), nn.ModuleList(ups)))
            parts += [
                (pick(["tail", "to_rgb", "conv_last", "out_conv", "final"]), conv) for conv in last
            ]
            return [("head", Box(parts))] if pick([0, 1]) else parts
        if form == "nested":
            boxes = [(str(i), Box([("conv", conv)])) for i, (conv, _) in enumerate(self.my.head)]
            return [("upsampler", Box(boxes))]
        return [(f"head_conv{i + 1}", conv) for i, (conv, _) in enumerate(self.my.head)]

    def forward(self, x):
        t = self.my.patch_norm(to_tokens(self.my.embed[0](x)))
        if self.my.position is not None:
            p = self.my.position
            width = self.my.dims[0]
            if p.ndim == 4:
                p = (
                    p.flatten(1, 2)
                    if p.shape[1] == p.shape[2] and p.shape[3] == width
                    else p.flatten(2).transpose(1, 2)
                )
            t = t + p
        outs = []
        for i, parts in enumerate(self.my.parts):
            for part in parts:
                t = self._run(part, t)
            normed = self.my.stage_norms[i](t)
            outs.append(normed)
            if i < len(self.my.transitions):
                t = self.my.transitions[i](normed if self.my.routing == "both" else t)
        f = to_map(torch.cat(outs, -1))
        for (conv, r), act in zip(self.my.head, self.my.acts):
            f = act(F.pixel_shuffle(conv(f), r))
        return f + bilinear(x, self.my.scale)

    def _run(self, part, t):
        y = part["norm1"](t)
        if "mha" in part:
            y = part["mha"](y, y, y, need_weights=False)[0]
        else:
            q, k, v = torch.cat([layer(y) for layer in part["qkv"]], -1).chunk(3, -1)
            y = part["projection"](softmax_attention(q, k, v, part["heads"]))
        scales = part["scales"] or [1, 1]
        t = t + scales[0] * y
        maps = to_map(part["expand"](part["norm2"](t))).chunk(len(part["dw"]), 1)
        a, b = torch.cat([conv(m) for conv, m in zip(part["dw"], maps)], 1).chunk(2, 1)
        y = F.gelu(a) * b if self.my.gate_first else a * F.gelu(b)
        return t + scales[1] * part["contract"](to_tokens(y))
