"""Token ids of large tasks, made once by Hugging Face `datasets` and kept on disk for all runs.

$CATALYST_CACHE/tokens/<sha256>.arrow   a task's different texts, sorted

The name is the SHA-256 of all that the ids depend on: the texts, what the tokenizer saves of itself, the libraries'
versions, the length that sequences are cut at, and the cloze. It does not depend on which text is in which split, so
that runs with other seeds, which draw another dev split, find them, too.
"""

import json
import tempfile
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from llm_catalyst.tasks.base import Example
from llm_catalyst.tasks.batching import Encoded, Rows
from llm_catalyst.tasks.tokenization import build_encoded, encode_examples, list_sequences, tokenize_sequences
from llm_catalyst.utils.build_once import build_once
from llm_catalyst.utils.checksums import sha256
from llm_catalyst.utils.paths import writable_cache
from llm_catalyst.utils.validation import ConfigurationError

# Texts from which on they are kept. On one core 1,000 of SST-2 take 40 ms to tokenize (of BoolQ 250), 10 to 15 ms to be
# found again, and 15 to 60 ms more than without a cache when they are new.
LARGE = 1000

Columns = Callable[[list[int]], dict[str, Rows]]  # from texts' numbers to their token ids and types


def encode_splits(
    tokenizer: Any,
    splits: Sequence[Sequence[Example]],
    max_length: int,
    cloze: str | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> list[Encoded]:
    """Each split as `encode_examples` encodes it, read back where the same texts were encoded before.

    `tell` is called with the progress. Few texts are encoded anew, and so are many where nothing can be kept.
    """
    different = {text for split in splits for text in list_sequences(split)}
    texts = sorted(different, key=lambda text: (text[0], text[1] or ""))
    found = load_tokens(tokenizer, texts, max_length, cloze, tell) if len(texts) >= LARGE else None
    if found is None:
        return [encode_examples(tokenizer, split, max_length, cloze) for split in splits]
    tokens, types = found["input_ids"], found.get("token_type_ids")
    place = {text: i for i, text in enumerate(texts)}

    def cut_out(examples: Sequence[Example]) -> Encoded:
        at = [place[text] for text in list_sequences(examples)]
        return build_encoded(
            tokenizer, examples, [tokens[i] for i in at], None if types is None else [types[i] for i in at]
        )

    return [cut_out(split) for split in splits]


def load_tokens(
    tokenizer: Any,
    texts: Sequence[tuple[str, str | None]],
    max_length: int,
    cloze: str | None,
    tell: Callable[[str], None],
) -> dict[str, Rows] | None:
    """Token ids, and types where the tokenizer has them, of these texts; None where they cannot be kept."""

    def columns(numbers: list[int]) -> dict[str, Rows]:
        tell(f"tokens: {numbers[0]:,} of {len(texts):,} texts")
        tokens, types = tokenize_sequences(tokenizer, [texts[i] for i in numbers], max_length, cloze)
        return {"input_ids": tokens} | ({} if types is None else {"token_type_ids": types})

    try:
        key = sha256(json.dumps([tokenizer_identity(tokenizer), max_length, cloze, texts]).encode())
        return load_or_make(key, len(texts), columns)
    except (ConfigurationError, OSError):
        return None  # a run must not die of its cache


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


def load_or_make(key: str, number: int, columns: Columns) -> dict[str, Rows]:
    """The columns of that many texts, read back or made now. Raises ConfigurationError or OSError without a cache."""
    import datasets

    path = writable_cache("tokens", "token ids are kept") / f"{key}.arrow"
    stored = datasets.Dataset.from_file(str(build_once(path, lambda file: write_columns(file, number, columns))))
    return {name: column_rows(stored.data.column(name)) for name in stored.column_names}


def write_columns(file: Path, number: int, columns: Columns) -> None:
    """Write the columns of that many texts as an Arrow file."""
    import datasets
    import pyarrow

    def arrow(batch: Any) -> Any:  # table to table: with lists, which `datasets` would convert, it takes twice as long
        ids = pyarrow.list_(pyarrow.int32())
        found = columns(batch["number"].to_pylist())
        return pyarrow.table({name: pyarrow.array(values, ids) for name, values in found.items()})

    datasets.disable_progress_bars()
    numbers = datasets.Dataset.from_dict({"number": list(range(number))}).with_format("arrow")
    numbers.map(arrow, batched=True, remove_columns=["number"], cache_file_name=str(file), new_fingerprint=file.stem)


def column_rows(column: Any) -> Rows:
    """A column of lists, as tuples: several times as fast as Arrow's own way, which takes one number at a time."""
    whole = column.combine_chunks()
    values = whole.values.to_pylist()
    return tuple(tuple(values[begin:end]) for begin, end in pairwise(whole.offsets.to_pylist()))
