"""Commands as a shell reads them back."""

import subprocess

import pytest

from llm_catalyst.utils.format import format_ranges, join_command, quote_word

WORDS = ["task=sst2", "task.text={review}", "task.text='{review}'", "a b", "it's", 'say "hi"', "$HOME", "a`b", "!x", ""]
WORDS += [
    "task.path=~/a b",
    "a\\b",
    "é 差",
    "x=a\nb",
    "x=\x1b[0m'\\",
    "'\"$",
    "-m",
    "~task.pair",
    "k='a' \"b\"",
    "*.csv",
]


@pytest.mark.parametrize("word", WORDS, ids=repr)
def test_a_shell_reads_a_quoted_word_as_it_was(word: str) -> None:
    command = f"printf '%s\\0' {quote_word(word)}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=True)
    assert done.stdout.decode() == word + "\0"
    assert quote_word(word).isprintable()


@pytest.mark.parametrize(
    ("word", "quoted"),
    [
        ("task=sst2", "task=sst2"),
        ("task.text={review}", "task.text='{review}'"),
        ("task.text='{review}'", "\"task.text='{review}'\""),
        ("it's", '"it\'s"'),
    ],
)
def test_quotes_are_as_few_as_can_be(word: str, quoted: str) -> None:
    assert quote_word(word) == quoted


def test_a_command_is_its_quoted_words() -> None:
    assert join_command(["catalyst", "run", "task.text={review} good?"]) == "catalyst run task.text='{review} good?'"


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ([], ""),
        ([5], "5"),
        ([1, 2, 3], "1-3"),
        ([9, 2, 3, 1, 17], "1-3, 9, 17"),
        ([4, 4, 6, 5], "4-6"),
        ([1, 3, 5], "1, 3, 5"),
    ],
)
def test_numbers_that_follow_each_other_are_a_range(numbers: list[int], text: str) -> None:
    assert format_ranges(numbers) == text
