"""The limit of requests to one model in a minute, shared by all runs of the process."""

import threading
import time
from collections import deque
from collections.abc import Callable
from functools import cache


@cache
def limit_rate(url: str, model: str, per_minute: int | None, window_s: float = 60.0) -> Callable[[], None]:
    """A function that returns when a request to this model may begin: at most `per_minute` in any `window_s` seconds.

    The same function for the same arguments, so that all callers share the limit. None sets no limit.
    """
    begun: deque[float] = deque(maxlen=per_minute)
    line = threading.Lock()

    def turn() -> None:
        if per_minute is None:
            return
        with line:  # held while waiting: the others queue behind
            if len(begun) == per_minute:
                time.sleep(max(0.0, begun[0] + window_s - time.monotonic()))
            begun.append(time.monotonic())

    return turn
