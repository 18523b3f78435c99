"""Long calls that need no processor, in threads beside that of the run."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from typing import TypeVar

from llm_catalyst.utils.turn_taking import yield_turn

T = TypeVar("T")


def start_call(call: Callable[[], T]) -> "Future[T]":
    """Start `call` in a thread that does not keep the process from ending; its future result."""
    result: Future[T] = Future()

    def work() -> None:
        try:
            result.set_result(call())
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return result


def wait_for(result: "Future[T]") -> T:
    """Wait for a call and return its result. Signals are handled meanwhile, and other runs of the process compute."""
    with yield_turn():
        return result.result()


def run_concurrently(calls: Sequence[Callable[[], bool]], at_once: int) -> None:
    """Start the calls in their order, `at_once` of them under way at a time, and wait for all that were started.

    After one that returned False or raised, and after an interrupted wait, no further one is started. Raises what a
    call raised.
    """
    left, stop = iter(calls), threading.Event()

    def work() -> None:
        try:
            while not stop.is_set() and (call := next(left, None)) and call():
                pass
        finally:
            stop.set()

    workers = [start_call(work) for _ in range(min(at_once, len(calls)))]
    try:
        with yield_turn():
            wait(workers)
    finally:
        stop.set()
    for worker in workers:
        worker.result()
