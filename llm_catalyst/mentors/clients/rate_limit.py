"""The limit of requests to one model in a minute, shared by all processes of this machine that use one cache folder."""

import json
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cache
from pathlib import Path

from filelock import FileLock

from llm_catalyst.utils.checksums import sha256
from llm_catalyst.utils.paths import writable_cache
from llm_catalyst.utils.validation import ConfigurationError


@cache
def limit_rate(url: str, model: str, per_minute: int | None, window_s: float = 60.0) -> Callable[[], None]:
    """A function that returns when a request to this model may begin: at most `per_minute` in any `window_s` seconds.

    The same function for the same arguments, so that all threads share the limit; other processes share it through a
    file below $CATALYST_CACHE, where that can be written. None sets no limit.
    """
    line = threading.Lock()
    begun: list[float] = []  # of this process, where no file can be written
    file = find_file(url, model) if per_minute is not None else None

    def turn() -> None:
        if per_minute is None:
            return
        shared: AbstractContextManager[object] = FileLock(f"{file}.lock") if file else nullcontext()
        with line, shared:  # held while waiting: the others queue behind
            now = time.time()
            times = [t for t in (read_times(file) if file else begun) if now - window_s < t <= now]
            if len(times) >= per_minute:
                time.sleep(times[-per_minute] + window_s - now)
            begun[:] = [*times[1 - per_minute :], time.time()] if per_minute > 1 else [time.time()]
            if file:
                file.write_text(json.dumps(begun))

    return turn


def find_file(url: str, model: str) -> Path | None:
    """The file with the times at which requests to this model began; None where no cache can be written."""
    with suppress(ConfigurationError):
        return writable_cache("rates", "the limits of requests") / f"{sha256(f'{url} {model}'.encode())[:32]}.json"
    return None


def read_times(file: Path) -> list[float]:
    """The times in a file, in seconds since the epoch; none where it is missing or holds something else."""
    with suppress(OSError, ValueError):
        found = json.loads(file.read_text())
        return sorted(float(t) for t in found if isinstance(t, int | float)) if isinstance(found, list) else []
    return []
