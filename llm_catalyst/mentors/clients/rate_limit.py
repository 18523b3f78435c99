"""How many requests to one model may begin in a minute: by all runs that share the process."""

import threading
import time
from collections import deque
from collections.abc import Callable
from functools import cache

MINUTE_S = 60.0


@cache
def limit_rate(url: str, model: str, per_minute: int | None, window_s: float = MINUTE_S) -> Callable[[], None]:
    """A function that returns when a request to this model may begin: at most `per_minute` in any `window_s` seconds.

    The same one for the same arguments, whoever asks. None sets no limit.
    """
    begun: deque[float] = deque(maxlen=per_minute)
    line = threading.Lock()

    def turn() -> None:
        if per_minute is None:
            return
        with line:  # who waits for his turn lets nobody past him
            if len(begun) == per_minute:
                time.sleep(max(0.0, begun[0] + window_s - time.monotonic()))
            begun.append(time.monotonic())

    return turn
