"""From whatever a checkpoint file holds to a list of layers: containers, prefixes, copies, weights
with their biases.

Nothing here knows Dense-Iso-ViT. Names are kept as evidence; what they mean is decided in `block`
and `match`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from ...errors import ModelLoadError
from .spelling import plain

CONTAINERS = (  # the first that is there wins, so averaged weights come before plain ones
    "params_ema", "params-ema", "ema_state_dict", "model_ema", "ema_model", "ema", "state_dict_ema",
    "model_state_dict", "state_dict", "params", "model", "net_g_ema", "net_g", "generator", "net", "network", "weights",
)  # fmt: skip
BOOKKEEPING = {
    "n_averaged",
    "initted",
    "step",
    "num_updates",
    "decay",
}  # scalars that averaging wrappers store
FEWEST_TENSORS = 12
NUMBER_WORDS = {
    "one": "1", "first": "1", "two": "2", "second": "2", "three": "3", "third": "3", "four": "4", "fourth": "4",
    "five": "5", "fifth": "5", "six": "6", "sixth": "6",
}  # fmt: skip


@dataclass
class Notes:
    """What was decided and on which grounds, for tags, log and report.

    Attributes:
        chosen: facts that a user should know and that are certain (which copy, what was dropped).
        by_file_order: roles told apart only by the order in which the module defined them.
        guessed: roles told apart only by alphabetical order or by a convention.
    """

    chosen: list[str] = field(default_factory=list)
    by_file_order: set[str] = field(default_factory=set)
    guessed: set[str] = field(default_factory=set)


@dataclass(frozen=True, eq=False)
class Layer:
    """A weight with its bias, or a lone tensor.

    Attributes:
        path: components of the module's name.
        index: place in the file.
        kind: "linear" (also a 1x1 convolution), "depthwise" (3x3), "conv", "norm", "vector"
            (one-dimensional without bias), or "other".
        weight, bias: the tensors as they are in the file.
        keys: their names in the file.
    """

    path: tuple[str, ...]
    index: int
    kind: str
    weight: Tensor
    bias: Tensor | None
    keys: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.weight.shape)

    @property
    def matrix(self) -> Tensor:
        """The weight of a linear layer or 1x1 convolution as (out, in)."""
        return self.weight.flatten(1)

    @property
    def bare_matrix(self) -> bool:
        """A matrix that no module's name calls its weight may be used as x @ W, with the shape (in,
        out)."""
        is_matrix = self.kind == "linear" and self.weight.ndim == 2
        return is_matrix and not any(key.endswith("weight") for key in self.keys)

    @property
    def name(self) -> str:
        return ".".join(self.path)

    def __repr__(self) -> str:
        return f"{self.name} {self.shape}"


@dataclass(frozen=True)
class Checkpoint:
    """The layers of one network.

    Attributes:
        layers: in file order.
        definition_order: the file keeps the order in which the module defined its tensors.
    """

    layers: list[Layer]
    definition_order: bool


def read_checkpoint(
    source: Mapping, notes: Notes, *, container: str | None = None, prefix: str | None = None
) -> Checkpoint:
    """Unwrap, strip, group.

    Args:
        source: a state dict, or dictionaries around one.
        notes: receives what was chosen.
        container: name of the dictionary to take, where there are several.
        prefix: take only tensors whose name starts with this.

    Raises:
        ModelLoadError: there is no state dict in ``source``.
    """
    tensors = _find_state_dict(source, notes, container)
    paths = {key: _path(key) for key in tensors}
    if prefix is not None:
        wanted = _path(prefix.rstrip("."))
        paths = {key: path for key, path in paths.items() if path[: len(wanted)] == wanted}
        if not paths:
            raise ModelLoadError(
                f"no tensor's name starts with {prefix!r}; names start like {_sample(tensors)}"
            )
        notes.chosen.append(f"{len(tensors) - len(paths)} tensors outside {prefix!r} left out")
    paths = {
        key: path
        for key, path in paths.items()
        if not (path[-1] in BOOKKEEPING and tensors[key].numel() == 1)
    }
    tensors = plain({key: tensors[key] for key in paths}, notes.chosen)
    paths = _choose_copy(_strip({key: _path(key) for key in tensors}), tensors, notes)
    layers = _layers(paths, tensors)
    return Checkpoint(layers, _keeps_definition_order(layers, paths))


def prefixes(source: Mapping, container: str | None) -> list[str]:
    """Starts of the names of a file's tensors, up to the first component in which they differ:
    usable as a prefix."""
    paths = [_path(key) for key in _find_state_dict(source, Notes(), container)]
    shared = len(common_prefix(paths))
    return list(
        dict.fromkeys(".".join(path[: shared + 1]) for path in paths if path[-1] not in BOOKKEEPING)
    )


def _path(key: str) -> tuple[str, ...]:
    return tuple(part for part in key.split(".") if part != "_orig_mod")


def _sample(tensors: Mapping) -> str:
    return ", ".join(list(tensors)[:3])


def containers(source: Mapping) -> list[str]:
    """Names of all state dicts in a file, those first that are taken first."""
    return list(_state_dicts(source))


def _find_state_dict(source: Mapping, notes: Notes, container: str | None) -> dict[str, Tensor]:
    found = _state_dicts(source)
    if container is None:
        chosen: str | None = next(iter(found))
    else:
        chosen = (
            container
            if container in found
            else next((n for n in found if n.split("/")[-1] == container), None)
        )
    if chosen is None:
        raise ModelLoadError(f"no container {container!r}; there are {sorted(found)}")
    if len(found) > 1:
        others = ", ".join(sorted(set(found) - {chosen}))
        notes.chosen.append(f"weights of {chosen!r} taken, not of {others} (option container)")
    return found[chosen]


def _state_dicts(source: Mapping) -> dict[str, dict[str, Tensor]]:
    found: dict[str, dict[str, Tensor]] = {}

    def search(mapping: Mapping, name: str, depth: int) -> None:
        tensors = {k: v for k, v in mapping.items() if isinstance(k, str) and isinstance(v, Tensor)}
        if len(tensors) >= FEWEST_TENSORS:
            found[name] = tensors
        elif depth < 4:
            for key, value in mapping.items():
                if isinstance(key, str) and isinstance(value, Mapping):
                    search(value, f"{name}/{key}" if name else key, depth + 1)

    if not isinstance(source, Mapping):
        raise ModelLoadError(
            f"a checkpoint is a dictionary of tensors, found {type(source).__name__}"
        )
    search(source, "", 0)
    if not found:
        top = list(source)[:8]
        raise ModelLoadError(
            f"no dictionary with at least {FEWEST_TENSORS} named tensors; top level: {top}"
        )

    def preference(name: str) -> int:
        parts = name.split("/")
        return min(
            (CONTAINERS.index(part) for part in parts if part in CONTAINERS),
            default=len(CONTAINERS),
        )

    return {name: found[name] for name in sorted(found, key=preference)}


def _strip(paths: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Remove components that every path starts with."""
    while len(paths) > 1 and all(len(path) > 1 for path in paths.values()):
        if len({path[0] for path in paths.values()}) > 1:
            break
        paths = {key: path[1:] for key, path in paths.items()}
    return paths


def _choose_copy(
    paths: dict[str, tuple[str, ...]], tensors: Mapping[str, Tensor], notes: Notes
) -> dict[str, tuple[str, ...]]:
    """Where a file holds the same network twice, take the averaged one. Counters in either do not
    matter."""
    groups: dict[str, dict[str, tuple[str, ...]]] = {}
    for key, path in paths.items():
        groups.setdefault(path[0], {})[key] = path[1:]
    if len(groups) != 2 or any(() in group.values() for group in groups.values()):
        return paths
    groups = {name: _strip(group) for name, group in groups.items()}
    (first, _), (second, _) = groups.items()
    weights = [
        {path for key, path in group.items() if tensors[key].is_floating_point()}
        for group in groups.values()
    ]
    if weights[0] != weights[1] or len(weights[0]) < FEWEST_TENSORS:
        return paths
    averaged = [name for name in (first, second) if "ema" in name.lower()]
    if len(averaged) != 1:
        return paths
    notes.chosen.append(
        f"the copy {averaged[0]!r} taken of {first!r} and {second!r} (option prefix)"
    )
    return _strip(groups[averaged[0]])


_LEAF = re.compile(r"(?:(?P<stem>.*?)[._]?)(?P<role>weight|bias|kernel|gamma|beta)$", re.IGNORECASE)
_ROLES = {"w": "weight", "b": "bias", "g": "weight", "scale": "weight", "shift": "bias", "kernel": "weight",
          "gamma": "weight", "beta": "bias", "a_2": "weight", "b_2": "bias"}  # fmt: skip


def _layers(paths: dict[str, tuple[str, ...]], tensors: Mapping[str, Tensor]) -> list[Layer]:
    parts: dict[tuple[str, ...], dict[str, tuple[int, str]]] = {}
    parents = {path[:end] for path in paths.values() for end in range(len(path) - 1)}
    for index, (key, path) in enumerate(paths.items()):
        module, role = _module_and_role(path)
        if module in parents and path[-1] in (
            "beta",
            "gamma",
        ):  # scales of a block's branches, as in NAFNet: no norm
            module, role = path, "weight"
        if role in parts.get(module, {}):
            module, role = path, "weight"
        parts.setdefault(module, {})[role] = (index, key)
    layers = []
    for path, roles in parts.items():
        if "weight" not in roles and not paths[key := roles["bias"][1]][-1].lower().endswith(
            "bias"
        ):
            path, roles = (
                paths[key],
                {"weight": roles["bias"]},
            )  # "beta" without "gamma" is a tensor of its own
        pair = [tensors[roles[role][1]] for role in ("weight", "bias") if role in roles]
        if len(pair) == 1 or (pair[0].ndim > 0 and pair[1].shape == pair[0].shape[:1]):
            layers.append(_layer(path, roles, tensors))
        else:  # a weight and a bias by name, but not by shape
            layers += [
                _layer((*path, role), {"weight": place}, tensors) for role, place in roles.items()
            ]
    return sorted(layers, key=lambda layer: layer.index)


def _module_and_role(path: tuple[str, ...]) -> tuple[tuple[str, ...], str]:
    leaf = path[-1]
    if len(path) > 1 and leaf.lower() in _ROLES:
        return path[:-1], _ROLES[leaf.lower()]
    match = _LEAF.fullmatch(leaf)
    if match is None:
        return path, "weight"
    stem = match["stem"]
    role = _ROLES.get(match["role"].lower(), match["role"].lower())
    return (*path[:-1], stem) if stem else path[:-1] or path, role


def _layer(
    path: tuple[str, ...], roles: dict[str, tuple[int, str]], tensors: Mapping[str, Tensor]
) -> Layer:
    keys = tuple(key for _, key in sorted(roles.values()))
    index = min(place for place, _ in roles.values())
    if "weight" not in roles:
        return Layer(path, index, "other", tensors[keys[0]], None, keys)
    weight = tensors[roles["weight"][1]]
    bias = tensors[roles["bias"][1]] if "bias" in roles else None
    kind = _kind(weight, bias) if weight.is_floating_point() else "other"
    return Layer(path, index, kind, weight, bias, keys)


def _kind(weight: Tensor, bias: Tensor | None) -> str:
    shape = weight.shape
    if weight.ndim == 1:
        return "vector" if bias is None else "norm"
    if weight.ndim == 2 or (
        weight.ndim in (3, 4) and shape[2:].numel() == 1 and shape[1] > 1 and shape[0] > 1
    ):
        return "linear"
    if weight.ndim == 4 and shape[1] == 1 and shape[2:] == (3, 3):
        return "depthwise"
    if weight.ndim == 4 and shape[2] == shape[3] and min(shape) > 1:
        return "conv"
    return "other"


def _keeps_definition_order(layers: list[Layer], paths: dict[str, tuple[str, ...]]) -> bool:
    """Modules register weight before bias, and a module's tensors follow each other.

    Sorted names put the bias first; a hash keeps neither. Without any bias the order can't be
    trusted.
    """
    pairs = [layer.keys for layer in layers if layer.bias is not None]
    if not pairs or any(_module_and_role(paths[first])[1] != "weight" for first, _ in pairs):
        return False
    place: dict[tuple[str, ...], list[int]] = {}
    for index, path in enumerate(paths.values()):
        for end in range(1, len(path)):
            place.setdefault(path[:end], []).append(index)
    return all(indices[-1] - indices[0] + 1 == len(indices) for indices in place.values())


def tokens(path: tuple[str, ...]) -> tuple[str, ...]:
    """A name cut finely, for its structure: ("s0b1", "fcIn2", "first") -> s 0 b 1 fc In 2 1."""
    found = (
        token for part in path for token in re.findall(r"\d+|[A-Z]?[a-z]+|[A-Z]+(?![a-z])", part)
    )
    return tuple(NUMBER_WORDS.get(str(token).lower(), str(token)) for token in found)


def words(path: tuple[str, ...]) -> list[str]:
    """A name cut as people write it, for its meaning: ("attnNorm", "to_q2") -> attn norm to q."""
    found = []
    for part in path:
        for word in re.split(r"[_\-]+|(?<=[a-z])(?=[A-Z])", part):
            word = re.sub(r"\d+$", "", word).lower()
            if word:
                found.append(word)
    return found


def natural_key(path: tuple[str, ...]) -> tuple:
    """Sort key under which block2 comes before block10."""
    return tuple(
        (0, int(token), "") if token.isdigit() else (1, 0, token) for token in tokens(path)
    )


def common_prefix(paths: list[tuple[str, ...]]) -> tuple[str, ...]:
    """Longest start that all paths share."""
    length = 0
    while all(len(path) > length and path[length] == paths[0][length] for path in paths):
        length += 1
    return paths[0][:length]
