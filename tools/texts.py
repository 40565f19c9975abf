"""Writes the English texts that are made of declarations: the locale of the nodes, and the tables
of options in the documentation.

    python -m tools.texts            # after an option or a node has changed
    python -m tools.texts --check    # says which files are not as they would be written

A table stands in a page between ``<!-- options -->`` and ``<!-- /options -->``; where a page has
several, each has its name: ``<!-- options videos -->``. Translations are written by hand, and
tests/test_node_texts.py says what they lack.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fdat_dense_iso.common.encoding import ENCODING
from fdat_dense_iso.common.option import Option, Place, offered_in
from fdat_dense_iso.common.spreading import SPREADING
from fdat_dense_iso.common.upscaling import UPSCALING
from fdat_dense_iso.cpu_torchvision import make_torchvision_importable

from .node_schemas import node_schemas, texts

ROOT = Path(__file__).resolve().parent.parent
LOCALE = ROOT / "locales" / "en" / "nodeDefs.json"
HELP = ROOT / "web" / "docs"
WORDS = ("text", "on, off", "a picture", "a mask")
"""What an option takes, where it is neither a choice nor a number."""


def written() -> dict[Path, str]:
    """Every file that holds such texts, with the contents that it ought to have."""
    return {LOCALE: locale()} | {
        page: with_tables(page.read_text(encoding="utf-8"), of_page)
        for page, of_page in tables().items()
    }


def locale() -> str:
    """The English locale: what the schemas of the nodes say."""
    all_texts = {schema.node_id: texts(schema) for schema in node_schemas()}
    return json.dumps(all_texts, indent=2, ensure_ascii=False) + "\n"


def tables() -> dict[Path, dict[str, str]]:
    """The tables of every page by the name that its marker gives, "" where it gives none."""
    from fdat_dense_iso.arch.dense_iso.reading.options import OPTIONS  # imports torch
    from fdat_dense_iso.arch.more import MEMBERS

    return {
        HELP / "FDATDenseIsoUpscale.md": {"": option_table(UPSCALING, "picture")},
        HELP / "FDATDenseIsoUpscaleVideo.md": {
            "": option_table((*UPSCALING, *ENCODING, *SPREADING), "video"),
        },
        ROOT / "docs" / "cli.md": {
            "upscaling": option_table(UPSCALING, "command"),
            "videos": option_table(ENCODING, "command"),
        },
        ROOT / "docs" / "dense-iso-vit.md": {"": checkpoint_table(OPTIONS)},
        ROOT / "docs" / "architectures.md": {"": architecture_table(MEMBERS)},
    }


def with_tables(text: str, by_name: Mapping[str, str]) -> str:
    """A page with its tables between their markers; one without markers is not put in."""
    for name, table in by_name.items():
        marker = f"<!-- options{name and ' ' + name} -->"
        between = re.compile(rf"(?<={re.escape(marker)}\n).*?(?=<!-- /options -->)", re.DOTALL)
        text = between.sub(lambda _, table=table: f"\n{table}\n", text, count=1)
    return text


def option_table(options: Iterable[Option], place: Place) -> str:
    """One row for each option that this place offers.

    A node's help is shown in a narrow panel, so that values and default follow the text there.
    """
    rows = [row(option, place) for option in offered_in(place, options)]
    if place == "command":
        return markdown_table(("option", "values", "default", "what it is"), rows)
    told = []
    for name, taken, default, text in rows:
        parts = [f"values {taken}"] * (taken not in WORDS) + [f"default {default}"] * bool(default)
        told.append((name, f"{text} ({'; '.join(parts)})" if parts else text))
    return markdown_table(("name", "what it is"), told)


def row(option: Option, place: Place) -> tuple[str, str, str, str]:
    """Name, values, default, and the text with what pages add to it."""
    at_command = place == "command"
    name = code(option.flag_names) if at_command else option.name
    default = option.default if at_command else option.shown
    shown = "" if default in (None, "") else code([default])
    return name, values(option, place), shown, f"{option.sentence(place)} {option.more}".strip()


def values(option: Option, place: Place) -> str:
    """What an option takes, in the words of a table."""
    if option.choices:
        return code(option.choices)
    if option.kind in ("int", "float"):
        is_open = place == "command" or option.unset is None
        return option.limits if is_open else f"{option.unset}, {option.limits}"
    text, switch, picture, mask = WORDS
    words = {"bool": switch, "text": text}
    return words.get(option.kind, picture if place == "command" else mask)


def checkpoint_table(options: Mapping[str, Any]) -> str:
    """One row for each question that a Dense-Iso-ViT's tensors leave open; ``options`` have a
    default, a help, and what reads them, which is a tuple where it knows all choices."""
    rows = []
    for name, option in options.items():
        default = option.default if isinstance(option.default, tuple) else (option.default,)
        shown = "" if option.default is None else code([",".join(map(str, default))])
        parse = getattr(option, "parse", ())
        choices = code(parse if isinstance(parse, tuple) else ())
        rows.append((code([name]), choices, shown, option.help))
    return markdown_table(("option", "values", "default", "what it is"), rows)


def architecture_table(members: Iterable[Any]) -> str:
    """One row for each class of `arch.more`; scales and channels are those that are tested."""
    rows = []
    for member in members:
        one, examples = member(), member.examples
        scales = ", ".join(f"x{scale}" for scale in sorted({e.scale for e in examples}))
        channels = ", ".join(map(str, sorted({e.in_channels for e in examples})))
        taken = {one.statistics(example) for example in examples}
        tiles = (
            "change the result: " + "; or ".join(sorted(taken - {""})) if taken != {""} else "any"
        )
        tiles += ", in some variants" * ("" in taken and len(taken) > 1)
        precision = "fp32, bf16" + ", fp16" * member.half
        assumed = dict.fromkeys(what for e in examples for what in one.assumed(e, {}))
        told = "; ".join(what.removeprefix("assumed ") for what in assumed) or "nothing"
        row = (member.title, member.source, scales, channels, tiles, precision, told)
        rows.append((*row, code(member.options)))
    heads = ("architecture", "files of", "scales", "channels", "tiles", "precision", "assumed")
    return markdown_table((*heads, "options"), rows)


def code(words: Iterable[Any]) -> str:
    """Words as code, between commas."""
    return ", ".join(f"`{word}`" for word in words)


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table without the columns that are empty, its last line ended."""
    shown = [column for column, cells in enumerate(zip(*rows)) if any(cells)]
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join("|" + "".join(f" {line[i]} |" for i in shown) + "\n" for line in lines)


def main() -> None:
    """Write what differs, or only say so."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if a file differs")
    check = parser.parse_args().check
    make_torchvision_importable()
    differing = {
        path: text for path, text in written().items() if path.read_text(encoding="utf-8") != text
    }
    for path, text in differing.items():
        print(f"{path.relative_to(ROOT)} {'differs' if check else 'written'}")
        if not check:
            path.write_text(text, encoding="utf-8")
    if check and differing:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
