"""The readability of a prompt: the share of its words that an English dictionary has. Needs no torch.

The dictionary of pyspellchecker has inflected forms ("reviews"), and the frequency of each word in its corpus. Odd
prompts are strings of word pieces, and many short ones ("th", "er") are in dictionaries as abbreviations: of words with
one or two letters, only frequent ones count.
"""

from functools import cache

from spellchecker import SpellChecker

PUNCTUATION = ".,;:!?…\"'“”‘’()[]"  # what a sentence has around its words; a word piece's "##" is none of it
LONG = 3  # letters from which on any dictionary word counts
COMMON = 100_000  # occurrences in the dictionary's corpus: "am", "of" and "us" have more, "dr", "er" and "th" fewer


def dictionary_share(text: str) -> float | None:
    """The share of the whitespace-separated parts of `text` that are English words, in [0, 1]; None if it has none.

    A word may have capitals, an apostrophe ("don't"), and punctuation around it. A number is no word, nor is a word
    piece such as "##ing". Punctuation alone, which tokenizers separate, does not count.
    """
    parts = [part for part in text.split() if part.strip(PUNCTUATION)]
    return sum(map(is_word, parts)) / len(parts) if parts else None


def is_word(part: str) -> bool:
    """Whether the dictionary has this part of a text, without the punctuation around it."""
    word = part.strip(PUNCTUATION).replace("’", "'").lower()
    times = load_dictionary().get(word, 0)
    return times >= COMMON or (times > 0 and len(word) >= LONG)


@cache
def load_dictionary() -> dict[str, int]:
    """English words in lower case with their frequencies; loaded once, in about a quarter of a second."""
    return SpellChecker(language="en", distance=1).word_frequency.dictionary
