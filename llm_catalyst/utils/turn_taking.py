"""Threads of which one computes at a time; a thread that waits for something outside lets the others compute."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# The lock that this thread holds while it computes; None if no other run shares its process.
_turn: ContextVar[threading.Condition | None] = ContextVar("turn", default=None)


@contextmanager
def take_turn(turn: threading.Condition) -> Iterator[None]:
    """Hold the turn while entered, except within `yield_turn` and while waiting for the condition."""
    with turn:
        token = _turn.set(turn)
        try:
            yield
        finally:
            _turn.reset(token)


@contextmanager
def yield_turn() -> Iterator[None]:
    """Let other threads take the turn while entered."""
    turn = _turn.get()
    if turn is None:
        yield
        return
    turn.release()
    try:
        yield
    finally:
        turn.acquire()
