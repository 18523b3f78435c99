"""Ends real runs at random moments and resumes them: what is lost?

    cd tests; ../.venv/bin/python -m helpers.measure_kill_points --points 200

Prints a table and leaves with 1 if anything is wrong. Two runs at a time; about 20 minutes for 200 on two slow cores.
The test extra must be installed.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from helpers.command import Command
from helpers.kill_points import DECK, KINDS, PHASES, Point, Trial, Variant, carry_out, trials, variants
from helpers.loopback import serve
from rich.console import Console
from rich.table import Table
from rich.text import Text


def main() -> int:
    options = parser().parse_args()
    console, began = Console(), time.monotonic()
    half, catalyst = options.points // 2, Command(fresh=True)
    with tempfile.TemporaryDirectory(prefix="kill-points-") as home, serve() as server, ThreadPoolExecutor(2) as pool:

        def killed(variant: Variant, points: int) -> list[Trial]:
            carry_out(catalyst, variant)
            ended = []
            for trial in trials(catalyst, variant, points, options.seed):
                ended.append(trial)
                console.print(Text(f"{trial.path.name}: {len(trial.points)} points, {len(trial.findings)} findings"))
                for finding in trial.findings:
                    console.print(Text(f"{finding.kind}: {finding.words}", style="red"), soft_wrap=True)
            return ended

        both = pool.map(killed, variants(Path(home), server), (options.points - half, half))
        ended = [trial for each in both for trial in each]
    report(console, ended, f"{options.points} points, seed {options.seed}, {(time.monotonic() - began) / 60:.0f} min")
    return 1 if any(trial.findings for trial in ended) else 0


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--points", type=int, default=200, help="how many signals end a process (200)")
    options.add_argument("--seed", type=int, default=1, help="draws the moments (1)")
    return options


def report(console: Console, ended: Sequence[Trial], title: str) -> None:
    """The points by signal and by what the run was doing, what was wrong, and how fast a signal was followed."""
    points = [point for trial in ended for point in trial.points]
    table = Table(title=title)
    for heading in ("ended by", *PHASES, "all", "slowest end, s"):
        table.add_column(heading, justify="left" if heading == "ended by" else "right")
    for number in dict.fromkeys(DECK):
        row(table, number.name, [point for point in points if point.number == number])
    table.add_section()
    row(table, "all", points)
    console.print(table)
    kinds = Counter(finding.kind for trial in ended for finding in trial.findings)
    for kind, words in KINDS.items():
        console.print(f"{kinds[kind]:5}  {words}")
    console.print(f"{sum(trial.asked_again for trial in ended):5}  questions asked again, as no answer had come")
    unequal = sum(any(finding.kind == "unequal" for finding in trial.findings) for trial in ended)
    console.print(f"{unequal:5}  of {len(ended)} runs unequal to the uninterrupted one")


def row(table: Table, name: str, points: Sequence[Point]) -> None:
    phases = Counter(point.phase for point in points)
    slowest = max((point.reaction_s for point in points), default=0.0)
    table.add_row(name, *(str(phases[phase]) for phase in PHASES), str(len(points)), f"{slowest:.1f}")


if __name__ == "__main__":
    sys.exit(main())
