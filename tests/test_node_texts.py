"""Every node has its texts and its help page in every language, and there is none for what no
longer exists."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.helpers.paths import ROOT
from tools.node_schemas import node_schemas, texts

LANGUAGES = ("en", "de", "ja", "zh")
SCHEMAS = node_schemas()
NODES = {schema.node_id: texts(schema) for schema in SCHEMAS}


def flat(texts: dict[str, Any], path: str = "") -> dict[str, str]:
    """Texts by their place: {"FDATDenseIsoUpscale.inputs.mode.tooltip": ...}."""
    found: dict[str, str] = {}
    for key, value in texts.items():
        place = f"{path}.{key}" if path else key
        found |= flat(value, place) if isinstance(value, dict) else {place: value}
    return found


def translation(language: str) -> dict[str, str]:
    return flat(json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text("utf-8")))


def test_nodes_are_found() -> None:
    assert {"FDATDenseIsoLoader", "FDATDenseIsoUpscale"} <= set(NODES)
    assert "mode" in NODES["FDATDenseIsoUpscale"]["inputs"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_text_is_there_and_none_is_stale(language: str) -> None:
    wanted, found = set(flat(NODES)), set(translation(language))
    assert sorted(wanted - found) == [], f"locales/{language}/nodeDefs.json lacks these"
    assert sorted(found - wanted) == [], (
        f"no node has these texts of locales/{language}/nodeDefs.json"
    )


@pytest.mark.parametrize("language", LANGUAGES)
def test_texts_are_plain(language: str) -> None:
    """The frontend's message format gives { } @ | a meaning."""
    for place, text in translation(language).items():
        assert text.strip() and not set(text) & set("{}@|"), f"{language} {place}: {text!r}"


@pytest.mark.parametrize("language", [language for language in LANGUAGES if language != "en"])
def test_texts_are_translated(language: str) -> None:
    """Tooltips and descriptions are sentences, so a translation differs from the English one."""
    english, found = flat(NODES), translation(language)
    same = [
        place
        for place in english
        if not place.endswith("name") and found.get(place) == english[place]
    ]
    assert same == []


@pytest.mark.parametrize("language", [language for language in LANGUAGES if language != "en"])
def test_translations_name_the_same_values(language: str) -> None:
    """What a user chooses or types (auto, fp32, 1920x1080) is the same in every language."""
    found = translation(language)
    for schema in SCHEMAS:
        for one in schema.inputs:
            place = f"{schema.node_id}.inputs.{one.id}.tooltip"
            choices = [choice for choice in getattr(one, "options", []) if isinstance(choice, str)]
            said = set(re.findall(r"\d(?:[\w.]*\w)?", one.tooltip)) | {
                c for c in choices if re.search(rf"\b{c}:", one.tooltip)
            }
            missing = sorted(value for value in said if value not in found.get(place, ""))
            assert missing == [], f"{language} {place} does not say {missing}"


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("node", NODES)
def test_help_pages(node: str, language: str) -> None:
    page = ROOT / "web" / "docs" / (f"{node}.md" if language == "en" else f"{node}/{language}.md")
    text = page.read_text("utf-8")
    assert text.startswith("# ")
    rows = [
        name
        for cell in re.findall(r"^\| (\w[^|]*) \|", text, re.MULTILINE)
        for name in cell.split(", ")
    ]
    wanted = {
        *NODES[node]["inputs"],
        *(output["name"] for output in NODES[node]["outputs"].values()),
    }
    explained = {name.split(" (")[0] for name in rows}
    assert sorted(wanted - explained) == [], f"{page.relative_to(ROOT)} does not explain these"
    shown = translation(language)
    for name in NODES[node]["inputs"]:
        label = shown[f"{node}.inputs.{name}.name"].removesuffix(f" ({name})")
        row = name if label.casefold() == name else f"{name} ({label})"
        assert row in rows, f"{page.relative_to(ROOT)} lacks {row!r}: the node shows {label!r}"


def test_no_help_page_is_stale() -> None:
    pages = {
        path.relative_to(ROOT / "web" / "docs").parts[0].removesuffix(".md")
        for path in (ROOT / "web").glob("docs/**/*.md")
    }
    assert pages == set(NODES)
