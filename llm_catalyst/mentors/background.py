"""Calls that take long and need no processor, beside the thread of the run."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from typing import TypeVar

from llm_catalyst.utils.turn_taking import yield_turn

T = TypeVar("T")


def start_call(call: Callable[[], T]) -> "Future[T]":
    """What `call` will return or raise; the thread that carries it out does not keep the process from ending."""
    result: Future[T] = Future()

    def work() -> None:
        try:
            result.set_result(call())
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return result


def wait_for(result: "Future[T]") -> T:
    """What was begun, when it is there. A signal is heard meanwhile, and who shares the process may compute."""
    with yield_turn():
        return result.result()


def run_concurrently(calls: Sequence[Callable[[], bool]], at_once: int) -> None:
    """Begin the calls in their order, `at_once` of them under way at a time, and wait for all that were begun.

    After one that returned False or raised, no further one is begun; what was raised is raised here. The same goes
    where the wait is interrupted.
    """
    left, stop = iter(calls), threading.Event()

    def work() -> None:
        try:
            while not stop.is_set() and (call := next(left, None)):
                if not call():
                    stop.set()
        except BaseException:
            stop.set()
            raise

    workers = [start_call(work) for _ in range(min(at_once, len(calls)))]
    try:
        with yield_turn():
            wait(workers)
    finally:
        stop.set()
    for worker in workers:
        worker.result()
