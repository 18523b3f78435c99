"""Responses of language models, shared by all runs of this machine: each is paid for once.

$CATALYST_CACHE/answers/<sha256>.json   one call each, named by the model, the parameters and the messages
"""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import ValidationError

from llm_catalyst.mentors.clients.base import Client
from llm_catalyst.runs.records import LLMCall, Message, from_json, to_json
from llm_catalyst.utils import checksums
from llm_catalyst.utils.files import write_atomically
from llm_catalyst.utils.paths import cache_directory, writable_cache

REUSED = "cache"  # `LLMCall.reused` of a response from here


def cache_folder() -> Path:
    """The folder of the responses."""
    return cache_directory("answers")


def prepare_cache() -> None:
    """Make the folder, for its owner only. Raises ConfigurationError where nothing can be written there."""
    writable_cache("answers", "mentor.cache=true keeps answers")


def get_response(
    client: Client, messages: Sequence[Message], seed: int, complete: Callable[[], LLMCall], repetition: int = 0
) -> LLMCall:
    """The stored call for a request, or the one that `complete` makes, which is stored if it is usable.

    Of two processes with the same request, one sends it and the other waits for the response.

    Args:
        client, messages, seed: What identifies the request: the client's model and parameters for this seed.
        complete: Sends the request.
        repetition: How often the same context has sent it before: another sample is wanted then, even of a model that
            takes no seed.
    """
    model, parameters = client.model, client.wanted(seed)
    request: dict[str, Any] = {"model": model, "parameters": parameters, "messages": [*map(vars, messages)]}
    request |= {"repetition": repetition} if repetition else {}
    path = cache_folder() / f"{checksums.sha256(json.dumps(request, sort_keys=True).encode())}.json"
    with FileLock(path.with_suffix(".lock"), mode=0o600):
        stored = read_response(path)
        if stored and (stored.asked, stored.messages) == (model, tuple(messages)) and agrees(stored, parameters):
            return replace(stored, cost_usd=0.0, latency_s=0.0, reused=REUSED)
        call = complete()
        if call.error is None and call.reused is None:
            with suppress(OSError):  # a run must not end because of a full cache
                write_atomically(path, checksums.seal_line(to_json(call).encode()))
                path.chmod(0o600)
    return call


def agrees(stored: LLMCall, wanted: dict[str, Any]) -> bool:
    """Whether a stored call was sent with these parameters, but for those that the server refused."""
    sent = {name: value for name, value in wanted.items() if name not in stored.not_sent}
    return all(stored.parameters.get(name) == value for name, value in sent.items())


def read_response(path: Path) -> LLMCall | None:
    """The usable call in a file; None if there is none, or the file is damaged."""
    with suppress(OSError, ValidationError):
        line = path.read_bytes()
        stored = from_json(LLMCall, line)
        if stored.error is None and checksums.is_unbroken(line):
            return stored
    return None
