#!/usr/bin/env python
"""What restarts do to the loss on dev, and what a mentor sees, as CSV: python scripts/measure_restarts.py DIR > FILE

DIR holds the runs of a table. A line for each row and column of it:

restarts            ends of stages that another stage follows, over all runs
at_restart          dev loss of the point from which the next stage starts, minus the loss before; mean in nats
first_step          the same after the stage's first optimizer step, where dev was scored then
first_steps         the same, averaged over its first 10 steps
*_error             their standard errors over restarts
distinct, snapshots projections of a stage that differ, and all of them; means over stages
pairs               stages in which both prompts that training came to and proposals of the mentor were scored
projected           dev loss of the former minus that of the latter under the same head; mean in nats, and its error
"""

import csv
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, stdev

from llm_catalyst.report.results import collect_results
from llm_catalyst.runs.reader import RunRecords, read_run

FIRST = 10  # steps


def measure_run(run: RunRecords) -> Iterator[dict[str, float]]:
    """The measures of each stage that another one follows."""
    losses = defaultdict[int, dict[int, float]](dict)  # by stage and step
    for each in run.metrics:
        losses[each.stage][each.step] = each.score.loss
    points = {restart.stage: restart for restart in run.restarts}
    for stage in sorted(losses)[:-1]:
        end = max(losses[stage])
        before, after = losses[stage][end], losses[stage + 1]
        snapshots = [s.prompt.tokens for s in run.trajectory if s.stage == stage]
        found: dict[str, float] = {"distinct": len(set(snapshots)), "snapshots": len(snapshots)}
        if stage in points and (score := points[stage].score):
            found["at_restart"] = score.loss - before
        if end + 1 in after:
            found["first_step"] = after[end + 1] - before
        first = [loss for step, loss in after.items() if end < step <= end + FIRST]
        if first:
            found["first_steps"] = fmean(first) - before
        scored = [entry for entry in run.pool if entry.stage == stage]
        trained = [entry.score.loss for entry in scored if entry.origin == "gradient"]
        proposed = [entry.score.loss for entry in scored if entry.origin == "mentor"]
        if trained and proposed:
            found["projected"] = fmean(trained) - fmean(proposed)
        yield found


def summarize_cell(stages: Sequence[dict[str, float]]) -> dict[str, float | int | None]:
    """The line of a cell."""
    line: dict[str, float | int | None] = {"restarts": len(stages)}
    for name in ("at_restart", "first_step", "first_steps", "distinct", "snapshots", "projected"):
        values = [stage[name] for stage in stages if name in stage]
        line |= {"pairs": len(values)} if name == "projected" else {}
        line[name] = round(fmean(values), 4) if values else None
        if name not in ("distinct", "snapshots"):
            line[f"{name}_error"] = round(stdev(values) / len(values) ** 0.5, 4) if len(values) > 1 else None
    return line


def main(folder: Path) -> None:
    """Write the lines of all cells to stdout."""
    (results,) = collect_results([folder])
    lines = []
    for (row, column), cell in results.cells.items():
        stages = [stage for run in cell.runs for stage in measure_run(read_run(run.path))]
        if stages:
            lines.append({"row": row, "column": column, "runs": len(cell.runs), **summarize_cell(stages)})
    writer = csv.DictWriter(sys.stdout, [*lines[0]], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
