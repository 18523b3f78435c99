"""The limit of requests to one model in a minute, shared by all processes of this machine that use one cache folder."""

import json
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
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
    begun: list[float] = []  # of this process, by a clock that nobody sets
    file = find_file(url, model) if per_minute is not None else None

    def turn() -> None:
        if per_minute is None:
            return
        with line, ExitStack() as held:  # while waiting, too: the others queue behind
            shared: list[float] = []
            if file:
                with suppress(OSError, NotImplementedError):  # a file system without locks
                    held.enter_context(FileLock(f"{file}.lock"))
                shared = [t for t in read_times(file) if t <= time.time()]  # a clock may have been set back
            own_pause = find_pause(begun, time.monotonic(), per_minute, window_s)
            time.sleep(max(own_pause, find_pause(shared, time.time(), per_minute, window_s)))
            begun[:] = [*begun, time.monotonic()][-per_minute:]
            if file:
                with suppress(OSError):  # a full disk: the other processes do not know of this request
                    file.write_text(json.dumps([*shared, time.time()][-per_minute:]))

    return turn


def find_pause(times: Sequence[float], now: float, most: int, window_s: float) -> float:
    """Seconds until fewer than `most` of these times, in order, lie in the window that ends then."""
    times = [t for t in times if t > now - window_s]
    return times[-most] + window_s - now if len(times) >= most else 0.0


def find_file(url: str, model: str) -> Path | None:
    """The file with the times at which requests to this model began; None where no cache can be written."""
    with suppress(ConfigurationError):
        return writable_cache("rates", "the limits of requests") / f"{sha256(f'{url} {model}'.encode())[:32]}.json"
    return None


def read_times(file: Path) -> list[float]:
    """The times in a file, in seconds since the epoch; none where it is missing or holds something else."""
    with suppress(OSError, ValueError, OverflowError, RecursionError):
        found = json.loads(file.read_text())
        return sorted(float(t) for t in found if isinstance(t, int | float)) if isinstance(found, list) else []
    return []
