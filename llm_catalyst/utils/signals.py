"""The reasons to stop a run early: Ctrl-C, a signal with which a cluster takes a machine back, or its budget."""

import os
import signal
import threading
from contextlib import suppress
from typing import Any

INTERRUPTED, STOPPED = 130, 75  # exit codes of Ctrl-C, and of a cluster's signals (EX_TEMPFAIL: start it again)
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
PATIENCE_S = 5.0
UNCLAIMED = (signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler)


class RunInterrupted(SystemExit):
    """A signal asked the process to stop. It ends the process, a sweep included, with INTERRUPTED or STOPPED."""

    code: int

    def __init__(self, number: int) -> None:
        super().__init__(INTERRUPTED if number == signal.SIGINT else STOPPED)
        self.name = signal.Signals(number).name

    def __str__(self) -> str:
        return f"by {self.name}"


class BudgetExceededError(RuntimeError):
    """A budget is used up; the run is saved up to here, and continues with a larger budget."""


def stop_now(number: int, frame: Any) -> None:
    """A signal handler for times without unsaved work: every `finally` runs, and the process ends."""
    with suppress(OSError):
        os.write(2, f"stopped by {signal.Signals(number).name}\n".encode())  # not by print, which it may interrupt
    raise RunInterrupted(number)


def list_signals() -> list[int]:
    """Those of SIGNALS that stop a run: all but SIGHUP where it is ignored, as nohup has it."""
    return [n for n in SIGNALS if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]


def handle_signals() -> None:
    """Install `stop_now` for each signal that stops a run, so that terminal and lock are left clean.

    Signals that submitit handles in its workers are left alone.
    """
    for number in list_signals():
        if signal.getsignal(number) in UNCLAIMED:
            signal.signal(number, stop_now)


class SignalHandler:
    """Delays a first signal, while entered, to the next `check`, where no work is lost.

    After `patience_s` seconds without a `check`, or when the same signal comes again, RunInterrupted is raised at once;
    with `patience_s=0` always. If another signal follows, as clusters send two, it replaces the first.
    """

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        self.patience_s = patience_s
        self.number: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "SignalHandler":
        # Python lets only the main thread handle signals.
        if threading.current_thread() is threading.main_thread():
            handlers = {**dict.fromkeys(list_signals(), self._asked), signal.SIGALRM: lambda *_: self.check()}
            self._before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        return self

    def __exit__(self, *_: object) -> None:
        if self._before:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise RunInterrupted if a signal has arrived."""
        if self.number is not None:
            raise RunInterrupted(self.number)

    def _asked(self, number: int, frame: Any) -> None:
        if self.number == number or not self.patience_s:
            raise RunInterrupted(number)
        self.number = number
        if number == signal.SIGINT and os.isatty(2):
            # Not by print, which may be what was interrupted.
            os.write(2, b"\r\nstopping after this step (Ctrl-C again: at once)\r\n")
        # Again each second: an exception raised within a destructor is swallowed.
        signal.setitimer(signal.ITIMER_REAL, self.patience_s, 1.0)
