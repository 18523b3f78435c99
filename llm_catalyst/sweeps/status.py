"""The status of a sweep's jobs: one file a job, a line for each that ends, and a summary of all.

<sweep folder>/jobs/<number>.json   the status of a job, replaced as a whole: it may be written on another machine
<sweep folder>/jobs/stop            exists from when no further job is to begin
"""

import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter
from rich.console import Console
from rich.text import Text

from llm_catalyst.config.errors import BUDGET_SPENT, DIVERGED, FAILED
from llm_catalyst.runs.records import from_json, to_json
from llm_catalyst.utils.files import write_atomically
from llm_catalyst.utils.format import format_count, join_first, quote_word
from llm_catalyst.utils.signals import INTERRUPTED, STOPPED
from llm_catalyst.utils.terminal import escape_controls, open_console

STATUS_FOLDER, STOP_FILE = "jobs", "stop"
MOST_ROWS, MOST_COLUMNS = 30, 8  # of a table of scores on the screen

Jobs = Mapping[int, Sequence[str]]  # overrides by number


@dataclass(frozen=True)
class JobStatus:
    """The state of a job. `code` is the exit code that its run would have had alone, once it has ended.

    `dev` is the best metric on dev, over `dev_examples` rows; a search maximizes it. `estimate` holds the fields of an
    Estimate, of a dry run.
    """

    number: int
    overrides: tuple[str, ...]
    state: Literal["waiting", "running", "ended"] = "waiting"
    directory: str = ""
    host: str = ""
    pid: int = 0
    code: int | None = None
    status: str = ""
    message: str = ""
    dev: float | None = None
    dev_examples: int | None = None
    estimate: dict[str, Any] | None = None

    @property
    def ending(self) -> str:
        """How the summary counts it: finished, diverged, failed, stopped or waiting."""
        if self.state == "waiting":
            return "waiting"
        if self.state != "ended" or self.code in (BUDGET_SPENT, STOPPED, INTERRUPTED):
            return "stopped"
        return "diverged" if self.code == DIVERGED else "failed" if self.code else "finished"

    def read_estimate(self) -> Any:
        """The Estimate of a dry run."""
        from llm_catalyst.training.estimate import Estimate

        return TypeAdapter(Estimate).validate_python(self.estimate)

    def runs_here(self) -> bool:
        """Whether the job runs in a process that lives on this machine."""
        if self.state == "running" and self.host == socket.gethostname():
            with suppress(OSError):  # no process has the number, or one of another user
                os.kill(self.pid, 0)
                return True
        return False


def write_status(sweep: Path, status: JobStatus) -> JobStatus:
    """Write a job's status into the sweep's folder, and return it."""
    (sweep / STATUS_FOLDER).mkdir(parents=True, exist_ok=True)
    write_atomically(sweep / STATUS_FOLDER / f"{status.number}.json", to_json(status).encode() + b"\n")
    return status


def end_job(sweep: Path, job: JobStatus, **ending: Any) -> JobStatus:
    """Write a job's last status, with these fields, into the sweep's folder, and return it."""
    return write_status(sweep, replace(job, state="ended", **ending))


def read_status(sweep: Path, number: int) -> JobStatus:
    """The status of one job."""
    return from_json(JobStatus, (sweep / STATUS_FOLDER / f"{number}.json").read_bytes())


def read_statuses(sweep: Path) -> dict[int, JobStatus]:
    """The status of each job by number, in order; without files that vanish meanwhile, as a new launch begins."""
    statuses = {}
    for number in sorted(int(path.stem) for path in (sweep / STATUS_FOLDER).glob("*.json")):
        with suppress(FileNotFoundError):
            statuses[number] = read_status(sweep, number)
    return statuses


@contextmanager
def print_endings(folder: Path, jobs: Jobs) -> Iterator[None]:
    """While entered, print a line for each of these jobs that ends, in whatever process and on whatever machine.

    The count runs over the whole sweep, of which they may be a part.
    """
    sweep = read_statuses(folder)
    names = distinguish_jobs({**{number: status.overrides for number, status in sweep.items()}, **jobs})
    before = sum(status.state == "ended" for number, status in sweep.items() if number not in jobs)
    console, printed = Console(soft_wrap=True), set[int]()

    def print_new() -> None:
        for status in [read_status(folder, number) for number in jobs if number not in printed]:
            if status.state == "ended":
                printed.add(status.number)
                dev = "" if status.dev is None else f", dev {status.dev:.3f}"
                dev += f" (n={status.dev_examples:,})" if status.dev_examples else ""
                place = f"[{before + len(printed)}/{len(names)}]"
                console.print(Text(f"{place} {names[status.number]}: {status.status}{dev}"))

    with repeat_action(print_new):
        yield


@contextmanager
def repeat_action(action: Callable[[], None]) -> Iterator[None]:
    """While entered, call `action` every second in a thread; when left, once more."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(1.0):
            action()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        action()


@contextmanager
def conclude_sweep(folder: Path) -> Iterator[None]:
    """When left, print the sum of estimates and the summary of the jobs; end the process unless all have finished."""
    try:
        yield
    finally:
        statuses = read_statuses(folder)
        if estimates := [status.read_estimate() for status in statuses.values() if status.estimate]:
            from llm_catalyst.training.estimate import render_estimate, sum_estimates

            open_console().print(render_estimate(sum_estimates(estimates)))
        elif [status.ending for status in statuses.values()].count("finished") > 1:
            print_scores(folder)
        for line in summarize_jobs(statuses, folder) if statuses else []:
            Console(stderr=True, soft_wrap=True).print(line)
    code = max((FAILED if status.code is None else status.code for status in statuses.values()), default=0)
    if code:
        raise SystemExit(code)


def print_scores(folder: Path) -> None:
    """Print the table of a sweep's scores, or of a large one only how to make it."""
    from llm_catalyst.report.results import collect_results
    from llm_catalyst.report.tables.build import build_comparisons, render_scores

    console = open_console()
    for results in collect_results([folder]):
        if len(results.rows) <= MOST_ROWS and len(results.columns) <= MOST_COLUMNS:
            compared = [Text(), build_comparisons(results)] if results.reference else []
            console.print(Text(), render_scores(results), *compared, sep="\n")
    console.print(
        Text(f"a page with figures and comparisons: catalyst report {quote_word(str(folder))}"), soft_wrap=True
    )


def summarize_jobs(statuses: Mapping[int, JobStatus], folder: Path) -> list[Text]:
    """'38 of 40 runs finished; 1 failed; 1 was not run; the same command continues with them', and the reasons."""
    endings = [status.ending for status in statuses.values()]
    verb = "estimated" if any(status.estimate for status in statuses.values()) else "finished"
    others = {"failed": "failed", "diverged": "diverged", "stopped": "stopped before the end", "waiting": "not run"}
    summary = count_endings(endings, others, verb)
    if left := len(endings) - endings.count("finished") - endings.count("diverged"):
        larger = "with a larger budget " if any(status.code == BUDGET_SPENT for status in statuses.values()) else ""
        summary += f"; {larger}the same command continues with {'it' if left == 1 else 'them'} ({folder})"
    names = distinguish_jobs({number: status.overrides for number, status in statuses.items()})
    reasons = []
    for status in sorted(statuses.values(), key=lambda status: status.ending):  # failed before stopped
        if status.ending in ("diverged", "failed", "stopped"):
            there = status.directory and Path(status.directory).is_dir()
            place = os.path.relpath(status.directory) if there else names[status.number]
            reasons.append((place, status.message or "cut off"))
    return [Text(summary, "bold red" if "failed" in endings else ""), *render_reasons(reasons)]


def count_endings(endings: Sequence[str], others: Mapping[str, str], verb: str = "finished") -> str:
    """'38 of 40 runs finished; 1 failed; 1 was not run': `others` are the words for each ending but `finished`."""
    parts = [f"{endings.count('finished')} of {format_count(len(endings), 'run')} {verb}"]
    for ending, words in others.items():
        if number := endings.count(ending):
            be = ("was " if number == 1 else "were ") if words.startswith("not") else ""
            parts.append(f"{number} {be}{words}")
    return "; ".join(parts)


def render_reasons(reasons: Iterable[tuple[str, str]]) -> list[Text]:
    """A line for each message, with the first of the places that have it; from pairs of place and message."""
    places: dict[str, list[str]] = {}
    for place, message in reasons:
        places.setdefault(message, []).append(place)
    lines = []
    for message, found in places.items():
        place = join_first(found)
        text = message if message.startswith(f"{place}: ") else f"{place}: {message}"  # many name their own job
        lines.append(Text(escape_controls(f"  {text}"), "red"))
    return lines


def distinguish_jobs(jobs: Jobs) -> dict[int, str]:
    """The overrides of each job that not all jobs have."""
    shared = set.intersection(*(set(overrides) for overrides in jobs.values())) if len(jobs) > 1 else set()
    return {n: escape_controls(" ".join(word for word in words if word not in shared)) for n, words in jobs.items()}
