"""How readable a prompt is: the share of its words that an English dictionary has. Read without torch.

The dictionary is that of pyspellchecker, which knows inflected forms ("reviews"), too, and how often each word occurs
in its corpus. Odd prompts are strings of word pieces, and many short ones ("th", "er") stand in dictionaries as
abbreviations: of one or two letters, only common words count.
"""

from functools import cache

from spellchecker import SpellChecker

PUNCTUATION = ".,;:!?…\"'“”‘’()[]"  # what a sentence has around its words; a word piece's "##" is none of it
LONG = 3  # letters from which on any dictionary word counts
COMMON = 100_000  # occurrences in the dictionary's corpus: "am", "of" and "us" have more, "dr", "er" and "th" fewer


def dictionary_share(text: str) -> float | None:
    """The share of the whitespace-separated parts of `text` that are English words, in [0, 1]; None where it has none.

    A word may have capitals, an apostrophe within ("don't"), and punctuation around it. A number, and a word piece such
    as "##ing", are none. Punctuation alone, which tokenizers set apart, does not count.
    """
    parts = [part for part in text.split() if part.strip(PUNCTUATION)]
    return sum(map(is_word, parts)) / len(parts) if parts else None


def is_word(part: str) -> bool:
    """Whether a dictionary has this part of a text, the punctuation around it left out."""
    word = part.strip(PUNCTUATION).replace("’", "'").lower()
    times = load_dictionary().get(word, 0)
    return times >= COMMON or (times > 0 and len(word) >= LONG)


@cache
def load_dictionary() -> dict[str, int]:
    """English words in lower case, with their occurrences; loaded once, in about a quarter of a second."""
    return SpellChecker(language="en", distance=1).word_frequency.dictionary
