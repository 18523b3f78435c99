"""The pages: how many, how long, that their links and files exist, that their commands compose, and their words."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.command import REPOSITORY

Compose = Callable[..., dict[str, Any]]

MOST_PAGES = 9
MOST_WORDS = 13_120  # of all pages together; issues after the twelve packages may raise it, up to 14,000

DOCS = sorted((REPOSITORY / "docs").glob("*.md"))
PAGES = [
    *DOCS,
    *(
        REPOSITORY / name
        for name in ("README.md", "CONTRIBUTING.md", "tests/reliability.md", "scripts/bench/README.md")
    ),
]
# Metaphors and vague words that a page replaces by the name of the thing or of the action.
FORBIDDEN = (
    "mend",
    "mends",
    "mended",
    "told",
    "goes on",
    "gone on",
    "so many",
    "stands in for",
    "house",
    "room",
    "rooms",
)


def name_of(page: Path) -> str:
    return page.relative_to(REPOSITORY).as_posix()


def prose(page: Path) -> str:
    """The text of a page without its code."""
    text = re.sub(r"```.*?```|^    .*$", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    return re.sub(r"`[^`]*`", "", text)


def commands(page: Path) -> list[list[str]]:
    """The overrides of each `catalyst run` of a page, of a sweep its first run; a reader's own files are left out."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    found = [
        shlex.split(line, comments=True) for line in re.findall(r"^    (?:\w+=\S+ )?catalyst run (.+)$", text, re.M)
    ]
    ours = [words for words in found if not any(re.search(r"^(--help|-sc)|my_|\$W", word) for word in words)]
    ignored = re.compile(r"-|hydra|seeds_together|[\w.]+=\w+\(")  # what chooses runs or where they are carried out
    return [[first_choice(word) for word in words if not ignored.match(word)] for words in ours]


def first_choice(override: str) -> str:
    """An override of a sweep with the first of its values."""
    key, _, values = override.partition("=")
    return override if re.search(r"[\[{('\"]", values) else f"{key}={values.split(',')[0]}"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_there_are_at_most_nine_pages_of_a_bounded_number_of_words() -> None:
    assert len(DOCS) <= MOST_PAGES
    assert sum(len(page.read_text(encoding="utf-8").split()) for page in DOCS) <= MOST_WORDS


def test_the_readme_has_fewer_than_200_lines() -> None:
    assert len((REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()) < 200


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_leads_to_a_file_and_to_a_heading(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    missing = []
    for link in (link for link in links if not link.startswith(("http:", "https:", "mailto:"))):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            missing.append(link)
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_named_file_of_the_repository_exists(page: Path) -> None:
    names = re.findall(
        r"`((?:llm_catalyst|conf|tests|scripts|docs|hydra_plugins)/[\w./-]*)`", page.read_text(encoding="utf-8")
    )
    assert [name for name in names if not (REPOSITORY / name).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_words_are_plain(page: Path) -> None:
    text = prose(page)
    assert [word for word in FORBIDDEN if re.search(rf"\b{word}\b", text, flags=re.I)] == []


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=name_of)
def test_every_command_of_a_page_composes(page: Path, composed: Compose) -> None:
    for words in commands(page):
        composed(*words)
