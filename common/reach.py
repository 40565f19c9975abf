"""Whether a network looks at the whole picture: a dry run finds sums that grow with it.

Channel attention, attention between channels, norms over a picture and sorted tokens all take
something from every pixel of their input, be it a module or a line of code. What they have in
common is an operation whose result is made of more values the larger the picture is. Convolutions,
windows and norms over channels have none.
"""

from __future__ import annotations

import logging
import math
import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .dry_run import meta_twin

logger = logging.getLogger(__name__)

REDUCING = (
    "mean", "sum", "amax", "amin", "max", "min", "var", "std", "var_mean", "std_mean", "norm",
    "linalg_vector_norm", "logsumexp", "adaptive_avg_pool2d", "adaptive_max_pool2d", "avg_pool2d",
)  # fmt: skip
"""Operations whose results are made of as many values as their input is larger than they are."""

_known: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()


class Lengths(TorchDispatchMode):
    """Of how many values a result is made at most, by the name of the operation."""

    def __init__(self) -> None:
        super().__init__()
        self.longest: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__.strip("_")
        length = _length(name, args, result)
        self.longest[name] = max(self.longest.get(name, 0), length)
        return result


def _length(name: str, args: Any, result: Any) -> int:
    if name in REDUCING and isinstance(args[0], Tensor):
        made = next(leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
        return args[0].numel() // max(made.numel(), 1)
    if name in ("mm", "bmm"):
        return args[0].shape[-1]
    if name in ("addmm", "baddbmm"):
        return args[1].shape[-1]
    if "scaled_dot_product" in name:
        return args[1].shape[-2]
    if name in ("softmax", "log_softmax", "sort", "topk", "cumsum", "argsort"):
        axis = next((one for one in args[1:] if type(one) is int), -1)
        return args[0].shape[-1 if name == "topk" else axis]
    if name == "native_group_norm":
        return args[0].numel() // (args[0].shape[0] * args[6])
    if name.startswith("native_batch_norm") and args[0].shape[1] and True in args[5:6]:
        return args[0].numel() // args[0].shape[1]
    if name.startswith("fft"):
        axes = args[1] if isinstance(args[1], list | tuple) else [args[1]]
        return math.prod(result.shape[axis] for axis in axes)
    return 0


def looks_at_the_whole(network: nn.Module, channels: int, sides: tuple[int, int]) -> bool:
    """Whether results depend on all of a picture, however large that is.

    Args:
        network: (B, channels, H, W) -> anything. The answer is remembered as long as it lives.
        channels: of its input.
        sides: of a small and of a larger square picture that it takes.

    Where a dry run is not possible, its modules are looked through for pools and norms.
    """
    if network not in _known:
        try:
            small, large = (_longest(network, channels, side) for side in sides)
            _known[network] = any(large[name] > small.get(name, large[name]) for name in large)
        except Exception as error:  # as in `dry_run`
            logger.debug("no dry run of %s: %s", type(network).__name__, error)
            _known[network] = any(map(_is_global, network.modules()))
    return _known[network]


def _longest(network: nn.Module, channels: int, side: int) -> dict[str, int]:
    with torch.no_grad():  # in inference mode, composite operations would hide what they consist of
        twin = meta_twin(network, torch.float32)
        image = torch.empty(1, channels, side, side, device="meta")
        with Lengths() as lengths:
            twin(image)
    return lengths.longest


def _is_global(module: nn.Module) -> bool:
    if isinstance(module, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d):
        return module.output_size in (1, (1, 1))
    return isinstance(module, nn.GroupNorm | nn.InstanceNorm2d)
