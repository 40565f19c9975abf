"""Whether a network looks at the whole picture, against what a change far away does to it."""

from __future__ import annotations

import pytest
import torch
from spandrel.architectures.Compact import Compact
from spandrel.architectures.DAT import DAT
from spandrel.architectures.DITN import DITN
from spandrel.architectures.ESRGAN import ESRGAN
from spandrel.architectures.HAT import HAT
from spandrel.architectures.KBNet import KBNet_s
from spandrel.architectures.NAFNet import NAFNet
from spandrel.architectures.OmniSR import OmniSR
from spandrel.architectures.PLKSR import RealPLKSR
from spandrel.architectures.RCAN import RCAN
from spandrel.architectures.RealCUGAN import UpCunet2x
from spandrel.architectures.SAFMN import SAFMN
from spandrel.architectures.SeemoRe import SeemoRe
from spandrel.architectures.SPAN import SPAN
from spandrel.architectures.SwinIR import SwinIR
from torch import nn

from fdat_dense_iso.arch.more import MEMBERS
from fdat_dense_iso.common.reach import looks_at_the_whole

SMALL = {"depths": (1,), "num_heads": (2,), "embed_dim": 24, "upscale": 2}
NETWORKS = {
    "RCAN": lambda: RCAN(scale=2, n_resgroups=1, n_resblocks=1, n_feats=16),
    "HAT": lambda: HAT(
        **SMALL, window_size=8, upsampler="pixelshuffle", compress_ratio=3, squeeze_factor=4
    ),
    "DAT": lambda: DAT(embed_dim=16, depth=[2], num_heads=[2], split_size=[4, 8], upscale=2),
    "NAFNet": lambda: NAFNet(width=8, middle_blk_num=1, enc_blk_nums=[1], dec_blk_nums=[1]),
    "KBNet": lambda: KBNet_s(width=16, enc_blk_nums=[1], dec_blk_nums=[1], middle_blk_num=1),
    "OmniSR": lambda: OmniSR(num_feat=16, block_num=1, res_num=1, up_scale=2),
    "RealPLKSR": lambda: RealPLKSR(dim=16, n_blocks=1, layer_norm=False, upscaling_factor=2),
    "RealCUGAN": lambda: UpCunet2x(),
    "SeemoRe": lambda: SeemoRe(scale=2, in_chans=3, num_experts=2, num_layers=1, embedding_dim=12),
    "SAFMN": lambda: SAFMN(dim=16, n_blocks=1, upscaling_factor=2),
    "RealPLKSR without norms": lambda: RealPLKSR(dim=16, n_blocks=1, layer_norm=True),
    "Compact": lambda: Compact(num_feat=16, num_conv=2, upscale=2),
    "ESRGAN": lambda: ESRGAN(num_filters=16, num_blocks=1, scale=2),
    "SPAN": lambda: SPAN(num_in_ch=3, num_out_ch=3, feature_channels=16, upscale=2),
    "SwinIR": lambda: SwinIR(**SMALL, window_size=8, img_size=64, upsampler="pixelshuffle"),
    "DITN": lambda: DITN(dim=12, ITL_blocks=1, SAL_blocks=1, UFONE_blocks=1, upscale=2),
}

LAID = ("DLGSANet", "TSCUNet")
"""They take nothing from the whole picture but where its borders are, from which windows start."""


def changes_far_away(network: nn.Module) -> float:
    """By how much the left of a wide picture's result changes with its right end."""
    torch.manual_seed(1)
    image = torch.rand(1, 3, 32, 512)
    changed = image.clone()
    changed[..., -64:] = 0.9
    with torch.inference_mode():
        results = [network(x)[..., :64] for x in (image, changed)]
    return float((results[0] - results[1]).abs().max())


@pytest.mark.parametrize("name", NETWORKS)
def test_of_networks_of_spandrel(name: str) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name]().eval()
    for parameter in network.parameters():  # what starts at 0 would hide the rest
        parameter.data += 0.02 * torch.randn_like(parameter)
    assert looks_at_the_whole(network, 3, (128, 256)) == (changes_far_away(network) > 0)


@pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.title)
def test_of_our_own_as_they_say(member: type) -> None:
    config = member.examples[0]
    network = member().build(config).eval()
    contract = getattr(network, "clip_contract", None)
    channels = config.in_channels * (contract.frames if contract else 1)
    found = looks_at_the_whole(network, channels, (128, 256))
    assert found == (bool(member().statistics(config)) and member.title not in LAID)
