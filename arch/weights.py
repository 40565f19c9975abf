"""Finds the tensors of one network among what a file holds around and beside them.

Training programs write dictionaries in dictionaries ("params_ema", "state_dict", "ema"), names
that all start alike ("module.", "net_g."), averaged weights beside plain ones, discriminators,
optimizers and counters. All architectures are read through this file, so all of it is known for
each of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from .errors import ModelLoadError

MOST_SETS = 12  # that are offered, one after the other
DEEPEST = 12  # dictionaries in dictionaries
MOST_MAPPINGS = 1000
MOST_SHOWN = 100  # characters of a name in a message

AVERAGED = frozenset(("ema", "averaged", "average", "swa", "shadow", "polyak"))
NETWORKS = (  # of equal sets, the first known word wins
    "model_state_dict", "state_dict", "params", "model", "net_g", "netg", "generator", "gen", "g",
    "net", "network", "weights", "module", "student", "sr", "upscaler", "online_model",
)  # fmt: skip
OTHERS = frozenset((  # words of what is trained beside an upscaler
    "d", "disc", "discriminator", "critic", "loss", "losses", "cri", "criterion", "perceptual",
    "vgg", "lpips", "teacher", "optimizer", "optimizers", "optim", "scheduler", "scaler", "rng", "amp",
))  # fmt: skip
COUNTERS = frozenset((  # single numbers that averages, profilers and trainers keep beside weights
    "n_averaged", "initted", "step", "num_updates", "updates", "decay", "total_ops", "total_params",
    "step_counter", "global_step", "epoch", "iter", "iteration",
))  # fmt: skip

NAMELESS = "shadow_params"
PROFILED = ("total_ops", "total_params")  # by thop, in every module


@dataclass(frozen=True)
class WeightSet:
    """Tensors that may be one network.

    Attributes:
        tensors: by name, without `start`, in the order of the file.
        container: the dictionaries around them, "state_dict/net_g"; "" for none.
        prefix: what the file has before these names and not before others', "net_ema."; or "".
        start: what all names of the file or of `prefix` begin with, "module.", or "".
        averaged: whether their names say that they are an average of the training's weights.
    """

    tensors: dict[str, Tensor]
    container: str = ""
    prefix: str = ""
    start: str = ""
    averaged: bool = False

    @property
    def name(self) -> str:
        """For messages."""
        name = ": ".join(filter(None, (self.container, self.prefix)))
        return name[:MOST_SHOWN] or "the rest of the file"

    def named(self) -> dict[str, Tensor]:
        """The tensors with `start` before their names."""
        return {self.start + key: tensor for key, tensor in self.tensors.items()}

    def levels(self) -> Iterator[dict[str, Tensor]]:
        """The tensors with all of `start`, with ever less of it, and without."""
        parts = self.start.split(".")[:-1]
        for left in range(len(parts), -1, -1):
            start = "".join(f"{part}." for part in parts[len(parts) - left :])
            yield {start + key: tensor for key, tensor in self.tensors.items()}

    def choice(self, offered: list[WeightSet]) -> list[str]:
        """What to tell of having taken this one: a sentence, or nothing if it is the only one."""
        own = set(map(id, self.tensors.values()))
        others = [one for one in offered if not own >= set(map(id, one.tensors.values()))]
        if not others:
            return []
        same = all(other.container == self.container for other in others)
        names = ", ".join(dict.fromkeys(repr(other.name) for other in others[:6]))
        kind = "averaged weights" if self.averaged else "weights"
        option = "prefix" if same else "container"
        return [f"{kind} of {self.name!r} taken, not of {names} (option {option})"]


def weight_sets(
    content: Mapping[Any, Any], *, container: str | None = None, prefix: str | None = None
) -> list[WeightSet]:
    """The sets of tensors in ``content``, the one that is most probably meant first.

    Averages precede what they are averages of, and get from it what they lack (buffers); what is
    known to be trained beside an upscaler comes last.

    Args:
        content: a state dict, or dictionaries around and beside one. Not modified.
        container: take that dictionary, by its name or its path ("checkpoint/net_g").
        prefix: take the tensors whose names start so, for files with several networks.

    Raises:
        ModelLoadError: there are no tensors, or none in ``container`` or after ``prefix``.
    """
    found = dict(_containers(content))
    if not found:
        top = ", ".join(str(key)[:60] for key in list(content)[:6]) or "nothing"
        raise ModelLoadError(f"holds no tensors (found: {top}); a state dict was expected")
    if container is not None:
        chosen = [name for name in found if container in (name, name.rpartition("/")[2])]
        if not chosen:
            names = ", ".join(repr(name[:MOST_SHOWN]) for name in sorted(found)[:20])
            raise ModelLoadError(
                f"no container {container[:MOST_SHOWN]!r} with tensors; there are {names}"
            )
        found = {(name := min(chosen, key=len)): found[name]}
    if prefix is not None:
        start = f"{prefix.rstrip('.')}."
        found = {name: _below(tensors, start) for name, tensors in found.items()}
        if not any(found.values()):
            raise ModelLoadError(
                f"no tensor's name starts with {start[:MOST_SHOWN]!r}; leave the option out"
            )
        sets = [_stripped(own, name, start) for name, own in found.items() if own]
    else:
        sets = [part for name, tensors in found.items() for part in _split(tensors, name)]
    sets += [named for path, tensors in _lists(content) for named in _named(tensors, path, sets)]
    sets = [_completed(one, sets) if one.averaged else one for one in sets]
    return sorted(sets, key=_rank)[:MOST_SETS]


def tokens(name: str) -> set[str]:
    """The words of a name, in small letters: {"net", "g", "ema"} for "netG_ema"."""
    return {
        word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_]+|\d+", name)
    }


def is_averaged(name: str) -> bool:
    """Whether a name of a dictionary or the start of a tensor's name speaks of an average."""
    plain = re.sub(r"[\W_]", "", name.lower())
    joined = plain.removeprefix("ema"), plain.removesuffix("ema")
    return bool(tokens(name) & AVERAGED) or any(
        rest != plain and rest in NETWORKS for rest in joined
    )


def _containers(content: Mapping[Any, Any]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """All dictionaries with tensors, by path. Each is visited once, however often it is named."""
    for path, mapping in _mappings(content):
        tensors = {
            _uncompiled(str(key), mapping): value
            for key, value in mapping.items()
            if isinstance(value, Tensor) and not _is_counter(str(key), value)
        }
        if tensors:
            yield path, tensors


def _mappings(content: Mapping[Any, Any]) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    waiting: list[tuple[str, Any]] = [("", content)]
    seen = set()
    while waiting and len(seen) < MOST_MAPPINGS:
        path, found = waiting.pop(0)
        if id(found) in seen:
            continue
        seen.add(id(found))
        if isinstance(found, Mapping):
            yield path, found
        if path.count("/") < DEEPEST:
            waiting += [
                (f"{path}/{key}" if path else key, value)
                for key, value in _parts(found)
                if isinstance(value, Mapping | list | tuple)
                and not key.lower().startswith(("optim", "lr_sched", "scheduler"))
            ]


def _parts(found: Mapping[Any, Any] | list | tuple) -> Iterator[tuple[str, Any]]:
    """What is in a dictionary under text, or in a short list, by its numbers."""
    if isinstance(found, Mapping):
        yield from ((key, value) for key, value in found.items() if isinstance(key, str))
    elif len(found) <= MOST_SETS:
        yield from ((str(index), value) for index, value in enumerate(found))


def _lists(content: Mapping[Any, Any]) -> Iterator[tuple[str, list[Tensor]]]:
    """Averages without names, as torch_ema stores them, by path."""
    for path, mapping in _mappings(content):
        tensors = mapping.get(NAMELESS)
        if isinstance(tensors, list) and all(isinstance(one, Tensor) for one in tensors):
            yield f"{path}/{NAMELESS}".lstrip("/"), tensors


def _named(tensors: list[Tensor], path: str, sets: list[WeightSet]) -> Iterator[WeightSet]:
    """An average without names, with those of the parameters of the same shapes in the same
    order."""
    for one in sets:
        names = [
            key
            for key, value in one.tensors.items()
            if value.is_floating_point() and not key.endswith(("running_mean", "running_var"))
        ]
        shapes = [one.tensors[name].shape for name in names]
        if len(tensors) > 1 and shapes == [tensor.shape for tensor in tensors]:
            own = dict(zip(names, tensors, strict=True))
            yield WeightSet(own, container=path, start=one.start, averaged=True)
            return


def _uncompiled(key: str, mapping: Mapping[Any, Any]) -> str:
    """A name without what torch.compile puts into it, unless another tensor has that name."""
    name = key.replace("_orig_mod.", "")
    return key if name in mapping else name


def _is_counter(key: str, value: Tensor) -> bool:
    if value.is_nested or value.numel() != 1:
        return False
    depth, name = key.count("."), key.rpartition(".")[2]
    if name in COUNTERS:  # of a whole network, not of a part of it, unless a profiler's
        return depth <= 2 or name in PROFILED
    return not depth and not value.ndim and not value.is_floating_point()


def _below(tensors: Mapping[str, Tensor], start: str) -> dict[str, Tensor]:
    return {
        key[len(start) :]: value
        for key, value in tensors.items()
        if key.startswith(start) and len(key) > len(start)
    }


def _stripped(tensors: dict[str, Tensor], container: str, prefix: str = "") -> WeightSet:
    """Tensors without what all their names start with, up to a dot."""
    first, last = min(tensors), max(tensors)  # what these share, all share
    ends = [
        end + 1
        for end, (a, b) in enumerate(zip(first, last, strict=False))
        if a == b == "." and first[: end + 1] == last[: end + 1]
    ]
    start = first[: ends[-1]] if ends and all(len(key) > ends[-1] for key in tensors) else ""
    averaged = any(map(is_averaged, (*container.split("/"), *f"{prefix}{start}".split("."))))
    names = {key[len(start) :]: tensor for key, tensor in tensors.items()}
    return WeightSet(names, container, prefix, start, averaged)


def _split(tensors: dict[str, Tensor], container: str) -> list[WeightSet]:
    """One dictionary as one set, and where its names start with words of several networks, as one
    set for each of them."""
    whole = _stripped(tensors, container)
    groups: dict[str, dict[str, Tensor]] = {}
    for key, tensor in whole.tensors.items():
        first, dot, rest = key.partition(".")
        if dot and rest:
            groups.setdefault(first, {})[rest] = tensor
    if len(groups) < 2:
        return [whole]

    def part(name: str) -> WeightSet:
        return _stripped(groups[name], container, f"{whole.start}{name}.")

    averages = [part(name) for name in groups if is_averaged(name) and not tokens(name) & OTHERS]
    networks = [part(name) for name in groups if name.lower() in NETWORKS]
    starts = tuple(average.prefix.removeprefix(whole.start) for average in averages)
    rest = {key: value for key, value in whole.tensors.items() if not key.startswith(starts)}
    if averages and rest:
        plain = _stripped({whole.start + key: tensor for key, tensor in rest.items()}, container)
        trained = all(n.lower() in NETWORKS or is_averaged(n) or tokens(n) & OTHERS for n in groups)
        originals = [plain, *(networks if trained else [])]
        averages = [_undotted(average, originals) for average in averages]
        if copies := [one for one in averages if any(_is_copy(one, of) for of in originals)]:
            networks = [one for one in networks if len(one.tensors) < len(plain.tensors)]
            return [*copies, plain, *networks]
    # a network may have parts of such names: then the whole is known, and comes first
    return [whole, *(replace(one, averaged=False) for one in averages), *networks]


def _is_copy(average: WeightSet, one: WeightSet) -> bool:
    """Whether the tensors of an average are tensors of ``one``, by name and shape."""
    found = ((one.tensors.get(key), tensor) for key, tensor in average.tensors.items())
    return all(other is not None and other.shape == own.shape for other, own in found)


def _undotted(average: WeightSet, originals: list[WeightSet]) -> WeightSet:
    """An average whose names lack their dots (as latent diffusion's LitEma stores them), with the
    names of the network that it is of."""
    if any("." in key for key in average.tensors):
        return average
    for names in (names for one in originals for names in one.levels()):
        dotted = {key.replace(".", ""): key for key in names}
        if all(key in dotted for key in average.tensors):
            renamed = {dotted[key]: tensor for key, tensor in average.tensors.items()}
            return _stripped(renamed, average.container, average.prefix)
    return average


def _completed(average: WeightSet, sets: list[WeightSet]) -> WeightSet:
    """An average with the buffers that only the network has that it is an average of."""
    for one in sets:
        if not one.averaged and len(average.tensors) < len(one.tensors) and _is_copy(average, one):
            return replace(average, tensors={**one.tensors, **average.tensors})
    return average


def _rank(one: WeightSet) -> tuple[bool, bool, int]:
    parts = one.container.split("/")
    words = [NETWORKS.index(part.lower()) for part in parts if part.lower() in NETWORKS]
    beside = any(tokens(part) & OTHERS for part in [*parts, *f"{one.prefix}{one.start}".split(".")])
    return beside, not one.averaged, min(words, default=len(NETWORKS))
