"""Answers of language models that all runs of this machine share: what was paid for once is not paid for again.

$CATALYST_CACHE/answers/<sha256>.json   one exchange each, named by the model, the parameters and the messages
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import ValidationError

from llm_catalyst.runs.records import LLMCall, Message, from_json, to_json
from llm_catalyst.utils import checksums
from llm_catalyst.utils.files import write_atomically
from llm_catalyst.utils.paths import cache_directory, writable_cache

REUSED = "cache"  # what `Exchange.reused` says of an answer from here


def cache_folder() -> Path:
    """Where the answers lie."""
    return cache_directory("answers")


def prepare_cache() -> None:
    """Make the folder, for its owner only. Raises ConfigurationError where nothing can be written there."""
    writable_cache("answers", "mentor.cache=true keeps answers")


def get_response(
    model: str,
    parameters: Mapping[str, float | int | str],
    messages: Sequence[Message],
    ask: Callable[[], LLMCall],
    repetition: int = 0,
) -> LLMCall:
    """The stored answer to a question, or what `ask` brings; that is stored where it is usable.

    `repetition` counts how often the same consultation has asked it before: another sample is wanted then, also of a
    model that takes no seed.

    Of two processes with the same question, one asks and the other waits for its answer.
    """
    asked: dict[str, Any] = {
        "model": model,
        "parameters": dict(parameters),
        "messages": [vars(message) for message in messages],
    }
    asked |= {"repetition": repetition} if repetition else {}
    key = checksums.sha256(json.dumps(asked, sort_keys=True).encode())
    path = cache_folder() / f"{key}.json"
    with FileLock(path.with_suffix(".lock"), mode=0o600):
        stored = read_response(path)
        if stored and (stored.asked, stored.parameters, stored.messages) == (model, parameters, tuple(messages)):
            return replace(stored, cost_usd=0.0, latency_s=0.0, reused=REUSED)
        exchange = ask()
        if exchange.error is None and exchange.reused is None:
            with suppress(OSError):  # a run must not die of a full cache
                write_atomically(path, checksums.seal_line(to_json(exchange).encode()))
                path.chmod(0o600)
    return exchange


def read_response(path: Path) -> LLMCall | None:
    """The usable exchange in a file; None where there is none, or where the file is damaged."""
    try:
        line = path.read_bytes()
        stored = from_json(LLMCall, line)
    except (OSError, ValidationError):
        return None
    return stored if stored.error is None and checksums.is_unbroken(line) else None
