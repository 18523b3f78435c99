"""Commands as a shell reads them back."""

import subprocess

import pytest

from llm_catalyst.utils.format import format_ranges, join_command, quote_word, shorten_apart, shorten_middle

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


def test_a_long_text_is_shortened_in_its_middle() -> None:
    assert shorten_middle("abcdefghij", 10) == "abcdefghij"
    assert shorten_middle("abcdefghijk", 10) == "abcde…hijk"


@pytest.mark.parametrize("longest", [12, 24, 40])
def test_names_that_are_shortened_stay_apart_and_fit(longest: int) -> None:
    row = "claude_haiku, strategy=paper, history={}, restart=if_better, and the rest of a long name {}"
    names = [row.format(history, end) for history in ("true", "shuffled", "absent") for end in ("a", "b")]
    names += ["none", names[0], "short"]
    shown = shorten_apart(names, longest)
    assert len(set(shown)) == len(set(names))
    assert shown[0] == shown[7]
    assert (shown[6], shown[8]) == ("none", "short")
    assert max(map(len, shown)) <= longest


def test_of_names_that_look_the_same_the_difference_is_shown() -> None:
    names = [f"claude_haiku, strategy=paper, history={value}, restart=if_better" for value in ("true", "shuffled")]
    first, second = shorten_apart(names, 24)
    assert "true" in first
    assert "shuf" in second
