"""Threads of which one computes at a time: who has to wait for somebody outside lets the others go on meanwhile."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# What this thread holds while it computes; None where nobody shares its process.
_turn: ContextVar[threading.Condition | None] = ContextVar("turn", default=None)


@contextmanager
def take_turn(turn: threading.Condition) -> Iterator[None]:
    """While entered, it is this thread's turn, but where it is `away` or waits for the condition."""
    with turn:
        token = _turn.set(turn)
        try:
            yield
        finally:
            _turn.reset(token)


@contextmanager
def yield_turn() -> Iterator[None]:
    """While entered, it is the others' turn."""
    turn = _turn.get()
    if turn is None:
        yield
        return
    turn.release()
    try:
        yield
    finally:
        turn.acquire()
