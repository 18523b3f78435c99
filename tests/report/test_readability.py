"""The share of dictionary words in a prompt."""

import pytest

from llm_catalyst.report.readability import dictionary_share


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("what is the mood of this review", 1.0),
        ("Don't judge the movie’s story!", 1.0),
        ("“Good” film…", 1.0),
        ("reviews praised actors", 1.0),  # inflected forms
        ("film ##ing tion ##s", 0.25),
        ("th film er dr", 0.25),  # in dictionaries, but as abbreviations
        ("a I am of us", 1.0),
        ("what is it ?", 1.0),
        ("film ? 2 …", 0.5),
        ("好 é zxqv", 0.0),
    ],
)
def test_words_count_word_pieces_and_numbers_do_not_and_punctuation_is_no_part(text: str, share: float) -> None:
    assert dictionary_share(text) == share


@pytest.mark.parametrize("text", ["", " \n\u2003", "? !"])
def test_a_text_without_any_part_has_no_share(text: str) -> None:
    assert dictionary_share(text) is None
