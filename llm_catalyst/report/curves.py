"""The curve of a metric on dev along training, over the seeds of a row."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from llm_catalyst.report.record_reader import RecordReader
from llm_catalyst.report.runs import Run
from llm_catalyst.runs.records import Evaluation, Restart, Score

Place = tuple[int, int]  # stage, step: where a stage ends and the next begins, two places share a step
Pick = Callable[[Evaluation], Score | None]


@dataclass(frozen=True)
class DevCurve:
    """A metric at each of `steps`, over `seeds` runs: mean and sample standard deviation (None for one run).

    `restarts` are the indices of the points at which a restart began a stage.
    """

    steps: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...] | None
    restarts: tuple[int, ...]
    seeds: int


def own_score(evaluation: Evaluation) -> Score | None:
    """The score of the soft prompt itself."""
    return evaluation.score


def projected_score(evaluation: Evaluation) -> Score | None:
    """The score of its projection to tokens; None if that was not evaluated."""
    return evaluation.projected


def average_curve(runs: Sequence[Run], read: RecordReader, pick: Pick = own_score) -> DevCurve | None:
    """The curve over these runs, at the places that all of them have; None if there is no such place."""
    lines = [line for run in runs if (line := collect_points(run, read, pick))]
    places = sorted(set.intersection(*map(set, lines))) if lines else []
    if not places:
        return None
    values = np.array([[line[place] for place in places] for line in lines])  # (seeds, places)
    begun = {place for run in runs for place in restart_places(run, read)}
    return DevCurve(
        steps=tuple(step for _, step in places),
        mean=tuple(values.mean(axis=0).tolist()),
        std=tuple(values.std(axis=0, ddof=1).tolist()) if len(lines) > 1 else None,
        restarts=tuple(i for i, place in enumerate(places) if place in begun),
        seeds=len(lines),
    )


def collect_points(run: Run, read: RecordReader, pick: Pick = own_score) -> dict[Place, float]:
    """A run's metric on dev at each place; of prompts trained side by side the best."""
    line: dict[Place, float] = {}
    for evaluation in read(run, Evaluation):
        if evaluation.split == "dev" and (score := pick(evaluation)) is not None:
            place = evaluation.stage, evaluation.step
            line[place] = max(line.get(place, score.metric), score.metric)
    if pick is own_score:
        for place, metric in restart_places(run, read).items():
            line[place] = max(line.get(place, metric), metric)
    return line


def restart_places(run: Run, read: RecordReader) -> dict[Place, float]:
    """The places at which a stage began from a scored restart point, with the metric of that score."""
    ends: dict[int, int] = {}
    for evaluation in read(run, Evaluation):
        ends[evaluation.stage] = max(ends.get(evaluation.stage, 0), evaluation.step)
    places: dict[Place, float] = {}
    for restart in read(run, Restart):
        if restart.score is not None and restart.stage in ends:
            place = restart.stage + 1, ends[restart.stage]
            places[place] = max(places.get(place, 0.0), restart.score.metric)
    return places
