"""The curve of a metric on dev along training, of a run and over the seeds of a row."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from llm_catalyst.report.runs import RecordReader, Run
from llm_catalyst.runs.records import Evaluation, Restart, Score

Place = tuple[int, int]  # stage, step: where a stage ends and the next begins, two places share a step


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


def average_curve(runs: Sequence[Run], read: RecordReader, projected: bool = False) -> DevCurve | None:
    """The curve over these runs, at the places that all of them have; None if there is no such place.

    Of prompts trained side by side the best metric counts. With `projected` it is that of their projections.
    """
    found = [collect_scores(read(run, Evaluation), read(run, Restart), projected) for run in runs]
    lines = [line for line in found if line]
    places = sorted(set.intersection(*map(set, lines))) if lines else []
    if not places:
        return None
    columns = [[max(score.metric for score in line[place]) for line in lines] for place in places]
    located = [pair for run in runs for pair in locate_restarts(read(run, Evaluation), read(run, Restart))]
    begun = {place for place, restart in located if restart.score and not restart.kept}
    return DevCurve(
        steps=tuple(step for _, step in places),
        mean=tuple(map(fmean, columns)),
        std=tuple(map(stdev, columns)) if len(lines) > 1 else None,
        restarts=tuple(i for i, place in enumerate(places) if place in begun),
        seeds=len(lines),
    )


def collect_scores(
    evaluations: Sequence[Evaluation], restarts: Sequence[Restart], projected: bool = False
) -> dict[Place, list[Score]]:
    """The scores on dev of a run at each place: those of its soft prompts, or of their projections if `projected`.

    The restart points that began a stage are soft prompts, too.
    """
    scores = defaultdict[Place, list[Score]](list)
    for evaluation in evaluations:
        score = evaluation.projected if projected else evaluation.score
        if evaluation.split == "dev" and score is not None:
            scores[evaluation.stage, evaluation.step].append(score)
    for place, restart in locate_restarts(evaluations, restarts):
        if restart.score and not projected:
            scores[place].append(restart.score)
    return scores


def locate_restarts(evaluations: Sequence[Evaluation], restarts: Sequence[Restart]) -> list[tuple[Place, Restart]]:
    """The restarts after an evaluated stage, each with its place: the next stage, at the last step of that stage."""
    ends = {e.stage: e.step for e in evaluations if e.split == "dev"}
    return [((restart.stage + 1, ends[restart.stage]), restart) for restart in restarts if restart.stage in ends]
