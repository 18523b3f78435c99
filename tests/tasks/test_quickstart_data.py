"""Checks on the quickstart data: its shape, what the test split holds out, and that no keyword solves it."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "llm_catalyst" / "tasks" / "quickstart"
Splits = dict[str, list[dict[str, Any]]]
COUNTS = {"train": 240, "validation": 160, "test": 400}
FUNCTION_WORDS = set(  # and the words that patterns, not topics, bring along
    """
    a all although and anything are as ask at been but by call can claim compared could down ever every
    everyone expected far for found from group had have how i if in into is it just least less let long me
    more must my nobody not of off on one only other our put really reviews same say short story tell than
    that the there they this time to was way we were what where while with word would yes yet you
    """.split()  # noqa: SIM905 - easier to read and to add to
)


@pytest.fixture(scope="module")
def splits() -> Splits:
    """The shipped rows by split name."""
    files = {split: (DATA / f"{split}.jsonl").read_text(encoding="utf-8") for split in COUNTS}
    return {split: [json.loads(line) for line in text.splitlines()] for split, text in files.items()}


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    """The module scripts/make_quickstart.py."""
    spec = importlib.util.spec_from_file_location("make_quickstart", ROOT / "scripts" / "make_quickstart.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Its dataclass looks its module up by name while the file is being run.
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
    return module


def words(text: str) -> set[str]:
    """The distinct lower-case words of a text."""
    return set(re.findall(r"[a-z'-]+", text.lower()))


def seen_texts(splits: Splits) -> list[str]:
    """The texts a tuner may look at: training and validation."""
    return [row["text"] for split in ("train", "validation") for row in splits[split]]


def matcher(patterns: tuple[str, ...]) -> re.Pattern[str]:
    """A regular expression for the sentences that one of the patterns can make."""
    shapes = [re.sub(r"\\\{\w+\\\}", ".+", re.escape(pattern)) for pattern in patterns]
    return re.compile("|".join(shapes), re.IGNORECASE)


def test_every_row_has_a_text_a_label_and_its_position(splits: Splits) -> None:
    for rows in splits.values():
        for position, row in enumerate(rows):
            assert list(row) == ["text", "label", "idx"]
            assert isinstance(row["text"], str)
            assert row["text"] == row["text"].strip() != ""
            assert type(row["label"]) is int
            assert row["idx"] == position


def test_the_splits_have_the_promised_sizes(splits: Splits) -> None:
    assert {split: len(rows) for split, rows in splits.items()} == COUNTS


def test_both_labels_are_equally_common_in_every_split(splits: Splits) -> None:
    for split, rows in splits.items():
        assert Counter(row["label"] for row in rows) == {0: COUNTS[split] // 2, 1: COUNTS[split] // 2}


def test_no_text_is_in_two_splits(splits: Splits) -> None:
    texts = [row["text"].lower() for rows in splits.values() for row in rows]
    assert len(set(texts)) == len(texts) == sum(COUNTS.values())


def test_most_test_rows_have_a_content_word_that_training_and_validation_lack(
    splits: Splits,
) -> None:
    known = FUNCTION_WORDS.union(*map(words, seen_texts(splits)))
    new = [row for row in splits["test"] if words(row["text"]) - known]
    assert 0.5 <= len(new) / len(splits["test"]) <= 0.8


def test_half_of_the_test_rows_follow_a_pattern_that_training_and_validation_lack(
    splits: Splits, generator: ModuleType
) -> None:
    held_out = matcher(generator.HELD_OUT_PATTERNS)
    assert not [text for text in seen_texts(splits) if held_out.fullmatch(text)]
    matched = [row for row in splits["test"] if held_out.fullmatch(row["text"])]
    assert len(matched) == len(splits["test"]) // 2


def test_some_test_rows_have_seen_words_in_a_seen_pattern(splits: Splits, generator: ModuleType) -> None:
    known = FUNCTION_WORDS.union(*map(words, seen_texts(splits)))
    held_out = matcher(generator.HELD_OUT_PATTERNS)
    texts = [row["text"] for row in splits["test"]]
    assert len([text for text in texts if words(text) <= known and not held_out.fullmatch(text)]) >= 80


@pytest.mark.parametrize("split", COUNTS)
def test_the_best_single_keyword_gets_at_most_65_percent(split: str, splits: Splits) -> None:
    rows = [(words(row["text"]), row["label"]) for row in splits[split]]
    shares = {
        word: sum((word in found) == label for found, label in rows) / len(rows)
        for word in set().union(*(found for found, _ in rows))
    }
    best = max(shares, key=lambda word: max(shares[word], 1 - shares[word]))
    assert max(shares[best], 1 - shares[best]) <= 0.65, best


def test_the_generator_writes_the_shipped_bytes_anew(generator: ModuleType, tmp_path: Path) -> None:
    files = generator.write_splits(tmp_path)
    assert set(files) == set(COUNTS)
    for split, path in files.items():
        assert path.read_bytes() == (DATA / f"{split}.jsonl").read_bytes()


def test_the_shipped_files_are_ascii_with_unix_line_ends(splits: Splits) -> None:
    for split, rows in splits.items():
        data = (DATA / f"{split}.jsonl").read_bytes()
        assert data.isascii()
        assert b"\r" not in data
        assert data.endswith(b"}\n")
        assert data.count(b"\n") == len(rows)


def test_another_seed_gives_other_rows(generator: ModuleType, tmp_path: Path) -> None:
    other = generator.write_splits(tmp_path, seed=generator.DEFAULT_SEED + 1)
    assert other["test"].read_bytes() != (DATA / "test.jsonl").read_bytes()
