"""Checkpoints of Dense-Iso-ViT in any spelling: recovered exactly, refused, or remarked on; never
silently wrong."""

from __future__ import annotations

import functools
import random
from collections import Counter
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from fdat_dense_iso.arch.dense_iso.reading.evidence import AmbiguousCheckpointError
from fdat_dense_iso.arch.dense_iso.reading.recognise import recognise
from fdat_dense_iso.arch.errors import ModelLoadError
from tests.helpers.dense_iso_variants import (
    REFUSED,
    REMARKED,
    SMALL,
    UNORDERED,
    VARIANTS,
    RandomAuthor,
    build,
    randomise,
)
from tests.helpers.dense_iso_variants.outcomes import ORDERS, grounds, outcome, sampled
from tests.helpers.dense_iso_variants.scribe import write

StateDict = dict[str, Tensor]
built = functools.cache(build)
PUBLISHED = [name for name in VARIANTS if name.startswith("published")]


CASES = [
    *[(name, "definition") for name in SMALL],
    *sampled([(name, "name") for name in SMALL], 2),
    *sampled([(name, "hash") for name in SMALL[1:] + SMALL[:1]], 2),
]


@pytest.mark.parametrize(("name", "order"), CASES)
@pytest.mark.every(2)
def test_variant_is_recovered(name: str, order: str) -> None:
    module, options = built(name)
    result, remarks = outcome(ORDERS[order](module.state_dict()), module, options)
    if name in UNORDERED and order != "definition":
        assert result == "refused" and "nothing tells" in remarks[0]
    elif name in REMARKED:
        assert result == "wrong" and REMARKED[name] in remarks
    else:
        assert result == "exact"


@pytest.mark.parametrize(
    ("name", "order"), sampled([(name, order) for name in REFUSED for order in ORDERS], 2)
)
def test_what_is_not_read_is_refused(name: str, order: str) -> None:
    """Nothing of it may load by chance, and the message says what was found."""
    module, options = built(name)
    with pytest.raises(ModelLoadError, match=REFUSED[name]):
        recognise(ORDERS[order](module.state_dict()), options=options)


@pytest.mark.parametrize("name", sampled(PUBLISHED, 2))
def test_readings_of_the_published_size(name: str) -> None:
    module, options = built(name)
    parameters = sum(parameter.numel() for parameter in module.parameters())
    published = {"published, first reading": 23_845_507, "published, second reading": 23_851_651}
    assert parameters == published[name]
    result, remarks = outcome(ORDERS["hash"](module.state_dict()), module, options)
    assert result == "exact" and not grounds(remarks)


@pytest.mark.parametrize("name", sampled([name for name in SMALL if VARIANTS[name][1]], 3))
@pytest.mark.every(2)
def test_without_options_wrong_results_are_remarked_on(name: str) -> None:
    """Every option that a variant needs and nobody gave is among the remarks, as assumed or
    guessed."""
    module, _ = built(name)
    result, remarks = outcome(ORDERS["name"](module.state_dict()), module, {})
    if result == "refused":
        assert name in UNORDERED
    elif result == "wrong":
        assert any(remark.startswith(("assumed", "guessed")) for remark in remarks)


def random_authors(seeds: range) -> Counter[str]:
    """What comes of the files of random authors in three orders; wrong ones need a remark."""
    outcomes: Counter[str] = Counter()
    for seed in seeds:
        torch.manual_seed(seed)
        module = RandomAuthor(seed).eval()
        randomise(module)
        for name, order in ORDERS.items():
            state_dict = order(module.state_dict())
            result, remarks = outcome(state_dict, module, module.my.answers, module.my.window)
            assert result != "wrong" or grounds(remarks), (seed, name)
            outcomes[result] += 1
    return outcomes


def test_random_authors_are_read_or_remarked_on() -> None:
    assert random_authors(range(6))["exact"] >= 17


@pytest.mark.slow
def test_all_random_authors_are_read_or_remarked_on() -> None:
    assert random_authors(range(30))["exact"] >= 55
    assert random_authors(range(30, 130))["exact"] >= 285


def scribes(seeds: range) -> Counter[str]:
    """What comes of this project's network in the hands of scribes; wrong ones need a remark."""
    outcomes: Counter[str] = Counter()
    for seed in seeds:
        written = write(seed)
        for name, order in ORDERS.items():
            result, remarks = outcome(
                order(written.state_dict), written.network, written.options, window=16
            )
            said = grounds(remarks)
            if written.trouble in ("head by head", "swapped words"):
                said += [e for e in remarks if "qkv_layout" in e or "gated_half" in e]
            assert result != "wrong" or said, (seed, name, written.trouble)
            outcomes[result] += written.trouble == "none"
    return outcomes


def test_scribes_are_read_or_remarked_on() -> None:
    outcomes = scribes(range(18))
    assert outcomes["exact"] > outcomes["refused"] + outcomes["wrong"]


@pytest.mark.slow
def test_many_scribes_are_read_or_remarked_on() -> None:
    outcomes = scribes(range(18, 500))
    assert outcomes["exact"] > 2 * (outcomes["refused"] + outcomes["wrong"])


def random_name(rng: random.Random) -> str:
    letters = "abcdefghijklmnopqrstuvwxyz0123456789_"
    return "".join(rng.choice(letters) for _ in range(rng.randint(2, 7))).strip("_") or "z"


def renamed(state_dict: StateDict, style: str, rng: random.Random) -> StateDict:
    """Names without meaning, the structure as far as ``style`` keeps it."""
    known: dict[str, str] = {}

    def new_name(old: str, fresh: str) -> str:
        while fresh in known.values() and old not in known:
            fresh += rng.choice("abcdefgh")
        return known.setdefault(old, fresh)

    numbers = rng.sample(range(60), 60) if style == "numbered words" else []
    leaves = ["weight", "bias", "in_proj_weight", "in_proj_bias"]
    result = {}
    for key, tensor in state_dict.items():
        parts = key.split(".")
        module, leaf = (parts[:-1], parts[-1]) if parts[-1] in leaves else (parts, "")
        if style in ("words", "numbered words"):
            module = [
                part
                if part.isdigit()
                else new_name(part, f"m{numbers[len(known) % 60]}" if numbers else random_name(rng))
                for part in module
            ]
        elif style == "every module":
            starts = [".".join(parts[: i + 1]) for i in range(len(module))]
            module = [new_name(start, random_name(rng)) for start in starts]
        elif style == "underscores":
            module = ["_".join(module)]
        elif style == "flat":
            module = [new_name(".".join(module), random_name(rng))]
        elif style == "flat numbers":
            module = [new_name(".".join(module), f"layer{rng.randint(0, 400)}")]
        elif style == "leaves":
            leaf = new_name(leaf, random_name(rng)) if leaf else leaf
        result[".".join([*module, leaf] if leaf else module)] = tensor
    return result


STYLES = [
    "words", "numbered words", "every module", "underscores", "flat", "flat numbers", "leaves",
]  # fmt: skip


def fuzzed(seeds: range) -> Iterator[str]:
    """What comes of files with meaningless names; some variants can't be told without theirs."""
    names = [name for name in SMALL if name not in REMARKED]
    for seed in seeds:
        rng = random.Random(seed)
        name, order, style = rng.choice(names), rng.choice(list(ORDERS)), STYLES[seed % len(STYLES)]
        module, options = build(name, seed)
        state_dict = ORDERS[order](renamed(dict(module.state_dict()), style, rng))
        result, remarks = outcome(state_dict, module, options)
        assert result != "wrong" or grounds(remarks), (seed, name, order, style)
        yield result


def test_fuzzed_names_are_never_silently_wrong() -> None:
    assert Counter(fuzzed(range(28)))["exact"] >= 5


@pytest.mark.slow
def test_more_fuzzed_names_are_never_silently_wrong() -> None:
    assert Counter(fuzzed(range(28, 770)))["exact"] >= 50


def test_meaningless_names_in_meaningless_order_are_refused() -> None:
    module, options = build("timm")
    shuffled = ORDERS["hash"](renamed(dict(module.state_dict()), "every module", random.Random(0)))
    with pytest.raises(AmbiguousCheckpointError, match=r"nothing tells .* a file written by torch"):
        recognise(shuffled, options=options)
