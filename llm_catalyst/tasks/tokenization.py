"""From texts to token ids; those of large tasks are made once and kept on disk for all runs.

$CATALYST_CACHE/tokens/<sha256>.arrow   a task's different texts, sorted

The name is the SHA-256 of all that the ids depend on: the texts, what the tokenizer saves of itself, the libraries'
versions, the length that sequences are cut at, and the cloze. It does not depend on which text is in which split, so
that runs with other seeds, which draw another dev split, find them, too.
"""

import json
import tempfile
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from llm_catalyst.tasks.base import Example, Tell, Text, ignore
from llm_catalyst.tasks.batching import Encoded, Rows
from llm_catalyst.utils.build_once import build_once
from llm_catalyst.utils.checksums import sha256
from llm_catalyst.utils.paths import writable_cache
from llm_catalyst.utils.validation import ConfigurationError

# Texts from which on they are kept. On one core 1,000 of SST-2 take 40 ms to tokenize (of BoolQ 250), 10 to 15 ms to be
# found again, and 15 to 60 ms more than without a cache when they are new.
LARGE = 1000
VERSION = 2  # another one whenever other ids come out
Split = Sequence[Example]
WORD = "a"  # stands for any text
COLUMNS = ("input_ids", "token_type_ids")


def encode_examples(tokenizer: Any, examples: Sequence[Example], max_length: int, cloze: str | None = None) -> Encoded:
    """Token ids with special tokens, each sequence cut to `max_length`.

    With `cloze` (for the verbalizer) text and pair are joined into the first segment, the only one that is
    cut, and the cloze becomes the second, so that the place of the label word is never lost.
    """
    tokens, types = tokenize_sequences(tokenizer, list_sequences(examples), max_length, cloze)
    return build_encoded(tokenizer, examples, tokens, types)


def fill_cloze(cloze: str, mask: str | None) -> str:
    """The cloze with the mask token in it, or its beginning up to there for a causal model, which has none."""
    if mask is None:
        before = cloze.split("{mask}")[0].strip()
        return f" {before}" if before else ""
    return cloze.format(mask=mask)


def list_sequences(examples: Sequence[Example]) -> list[Text]:
    """Every (text, pair) of a split, example by example."""
    return [sequence for example in examples for sequence in example.sequences]


def tokenize_sequences(
    tokenizer: Any, sequences: Sequence[Text], max_length: int, cloze: str | None = None
) -> tuple[Rows, Rows | None]:
    """Each sequence's token ids, cut as in `encode_examples`, and their types, where the tokenizer has any."""
    joined = [text if pair is None else f"{text} {pair}" for text, pair in sequences]
    segments: list[Any] = [joined]
    if cloze is not None and not (tokenizer.mask_token and tokenizer.mask_token in cloze):
        return continue_texts(tokenizer, joined, cloze, max_length), None
    if cloze is not None:
        segments = [joined, [cloze] * len(joined)]
    elif sequences[0][1] is not None and tokenizer.sep_token is not None:
        # Without a separator of its own a tokenizer would run the two texts together.
        segments = [list(part) for part in zip(*sequences, strict=True)]
    found = tokenizer(*segments, truncation=True if cloze is None else "only_first", max_length=max_length)
    return found["input_ids"], found.get("token_type_ids")


def continue_texts(tokenizer: Any, texts: Sequence[str], cloze: str, max_length: int) -> Rows:
    """The ids of each text that a causal model's cloze continues: those of text and cloze as one sentence.

    Nothing stands behind the cloze, and nothing between it and the text, which alone is cut: neither a special token
    that the tokenizer puts at an end, nor the second blank that one makes which puts a blank before all it reads.
    """
    end, (_, after) = encode_behind(tokenizer, cloze), find_surrounding(tokenizer)
    rows = list(strip_ends(tokenizer([f"{text}{cloze}" for text in texts]).input_ids, after))
    # A blank text is no beginning of a sentence: its cloze is read as it is behind every other text.
    apart = [i for i, text in enumerate(texts) if len(rows[i]) > max_length or not text.strip()]
    if apart:
        room = max(0, max_length - len(end)) + len(after)
        cut = tokenizer([texts[i] for i in apart], truncation=True, max_length=room).input_ids
        for i, row in zip(apart, strip_ends(cut, after), strict=True):
            rows[i] = [*row, *end]
    return rows


def encode_behind(tokenizer: Any, text: str) -> list[int]:
    """The ids of a text as it stands behind another: what a sentence has behind the ids of its first word."""
    parts = [WORD, WORD + text, text, text.strip()]
    word, sentence, spaced, bare = tokenizer(parts, add_special_tokens=False).input_ids
    if sentence[: len(word)] == word:
        return list(sentence[len(word) :])
    # Where tokens hold several words, that of the first word may hold some of these.
    return list(spaced if len(spaced) <= len(bare) else bare)


def find_surrounding(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The special tokens that a tokenizer puts before and behind a text."""
    plain, row = tokenizer(WORD, add_special_tokens=False).input_ids, tokenizer(WORD).input_ids
    begin = next((i for i in range(len(row)) if row[i : i + len(plain)] == plain), 0)
    return row[:begin], row[begin + len(plain) :]


def strip_ends(rows: Rows, after: Sequence[int]) -> Iterator[list[int]]:
    """Rows of ids without the special tokens `after` the text."""
    return (list(row[: len(row) - len(after)]) for row in rows)


def encode_around(tokenizer: Any, pair: bool, cloze: str | None = None) -> Sequence[int]:
    """The ids that stand around a text or a pair of texts: special tokens and the cloze."""
    (row,), _ = tokenize_sequences(tokenizer, [("", "" if pair else None)], 10**6, cloze)
    return row


def build_encoded(tokenizer: Any, examples: Sequence[Example], tokens: Rows, types: Rows | None) -> Encoded:
    """The split whose sequences have these token ids, and these types, which count where any is not 0."""
    return Encoded(
        tokens=tuple(map(tuple, tokens)),
        types=tuple(map(tuple, types)) if types is not None and any(map(any, types)) else None,
        labels=tuple(e.label for e in examples),
        choices=len(examples[0].sequences),
        padding=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0,
    )


def encode_splits(
    tokenizer: Any, splits: Sequence[Split], max_length: int, cloze: str | None = None, tell: Tell = ignore
) -> list[Encoded]:
    """Each split as `encode_examples` encodes it, read back where the same texts were encoded before.

    `tell` is called with the progress. Few texts are encoded anew, and so are many where nothing can be kept.
    """
    different = {text for split in splits for text in list_sequences(split)}
    texts = sorted(different, key=lambda text: (text[0], text[1] or ""))
    found = load_tokens(tokenizer, texts, max_length, cloze, tell) if len(texts) >= LARGE else None
    tokens, types = found or tokenize_sequences(tokenizer, texts, max_length, cloze)
    place = {text: i for i, text in enumerate(texts)}

    def encode(split: Split) -> Encoded:
        at = [place[text] for text in list_sequences(split)]
        return build_encoded(tokenizer, split, [tokens[i] for i in at], types and [types[i] for i in at])

    return list(map(encode, splits))


def load_tokens(
    tokenizer: Any, texts: Sequence[Text], max_length: int, cloze: str | None, tell: Tell
) -> tuple[Rows, Rows | None] | None:
    """Token ids, and types where the tokenizer has them, of these texts; None where they cannot be kept."""
    import pyarrow

    def build(file: Path) -> None:
        kind, tables = pyarrow.list_(pyarrow.int32()), []
        for i in range(0, len(texts), LARGE):
            tell(f"tokens: {i:,} of {len(texts):,} texts")
            made = tokenize_sequences(tokenizer, texts[i : i + LARGE], max_length, cloze)
            columns = [pyarrow.array(rows, kind) for rows in made if rows is not None]
            tables.append(pyarrow.table(columns, names=COLUMNS[: len(columns)]))
        whole = pyarrow.concat_tables(tables)
        with pyarrow.OSFile(str(file), "wb") as sink, pyarrow.ipc.new_stream(sink, whole.schema) as writer:
            writer.write_table(whole)

    try:
        key = sha256(json.dumps([VERSION, tokenizer_identity(tokenizer), max_length, cloze, texts]).encode())
        folder = writable_cache("tokens", "token ids are kept")
        with pyarrow.OSFile(str(build_once(folder / f"{key}.arrow", build))) as file:
            stored = pyarrow.ipc.open_stream(file).read_all()
    except (ConfigurationError, OSError):
        return None  # a run must not die of its cache
    tokens, *types = map(column_rows, stored.columns)
    return tokens, types[0] if types else None


def tokenizer_identity(tokenizer: Any) -> list[str]:
    """Checksums of the files that a tokenizer saves, and the versions of the libraries that read them."""
    import tokenizers
    import transformers

    if tokenizer.is_fast:
        # How the last call cut and padded is saved, too; the next call sets it anew.
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        return [transformers.__version__, tokenizers.__version__, *(sha256(file.read_bytes()) for file in files)]


def column_rows(column: Any) -> Rows:
    """A column of lists, as tuples: several times as fast as Arrow's own way, which takes one number at a time."""
    whole = column.combine_chunks()
    values = whole.values.to_pylist()
    return tuple(tuple(values[begin:end]) for begin, end in pairwise(whole.offsets.to_pylist()))
