"""Figures and wording of a run's records that the views, `catalyst show` and reports share."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

from llm_catalyst.runs.reader import FILES, RunRecords, read_lines
from llm_catalyst.runs.records import Evaluation, Event, LLMCall, Manifest, Outcome, Restart, Score, ScoredPrompt
from llm_catalyst.utils import checksums
from llm_catalyst.utils.format import format_count, format_dollars, join_first
from llm_catalyst.utils.terminal import escape_controls, quote_prompt
from llm_catalyst.utils.validation import get_nested

ADVICE = "try a larger optimizer.lr, another head, or more steps a stage"
ADVICE_WITHOUT_TRAINING = "try another head, another mentor, or more stages"
# The fields of an outcome that are columns under their own names.
OWN_COLUMNS = (
    *("reported_on", "majority", "fallbacks", "seconds"),
    *("compile_seconds", "peak_memory_bytes", "device", "finished"),
)
SAME_LOSS = 1e-3  # nats; under one head a prompt's dev loss differs by less, however it is batched


@dataclass(frozen=True)
class MentorUsage:
    """The usage of a mentor's calls; `uncounted` calls have unknown tokens, `unpriced` ones an unknown price.

    Responses that were `reused` are no calls and cost nothing.
    """

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    uncounted: int = 0
    cost_usd: float = 0.0
    unpriced: int = 0
    reused: int = 0

    def __add__(self, other: "MentorUsage") -> "MentorUsage":
        return MentorUsage(*(ours + theirs for ours, theirs in zip(astuple(self), astuple(other), strict=True)))

    def describe(self) -> str:
        """'2 calls, 1,624 + 121 tokens, $0.0012'; an unknown amount is never shown as 0."""
        again = format_count(self.reused, "reused answer") if self.reused else ""
        if again and not self.calls:
            return f"no calls, {again}"
        tokens, cost = f"{self.input_tokens:,} + {self.output_tokens:,} tokens", format_dollars(self.cost_usd)
        if self.uncounted:
            tokens = "tokens unknown" if self.uncounted == self.calls else f"≥ {tokens}"
        if self.unpriced:
            cost = "cost unknown" if self.unpriced == self.calls else f"≥ {cost}"
        return f"{format_count(self.calls, 'call')}, {tokens}, {cost}{again and f', {again}'}"

    def describe_cost(self) -> str:
        """The description without the number of calls: '1,624 + 121 tokens, $0.0012'."""
        return self.describe().partition(", ")[2]


def sum_usage(calls: Iterable[LLMCall]) -> MentorUsage:
    """The usage of all these calls together."""
    return sum(map(call_usage, calls), MentorUsage())


def call_usage(call: LLMCall) -> MentorUsage:
    """The usage of one call."""
    if call.reused is not None:
        return MentorUsage(reused=1)
    return MentorUsage(
        calls=1,
        input_tokens=call.input_tokens or 0,
        output_tokens=call.output_tokens or 0,
        uncounted=int(call.input_tokens is None or call.output_tokens is None),
        cost_usd=call.cost_usd or 0.0,
        unpriced=int(call.cost_usd is None),
    )


def describe_call(call: LLMCall) -> str:
    """A call on one line: models, date, latency, cost and parameters."""
    facts = [f"asked {call.asked}", f"answered by {call.answered or 'nobody'}", call.date, f"{call.latency_s:.1f} s"]
    facts.append(sum_usage([call]).describe_cost())
    if call.attempts > 1:
        facts.append(f"{call.attempts} attempts")
    if call.stop_reason:
        facts.append(f"ended by {call.stop_reason}")
    facts += [f"{name}={value}" for name, value in call.parameters.items()]
    facts += [f"{name} not sent" for name in call.not_sent]
    return escape_controls("; ".join(facts))


@dataclass(frozen=True)
class MentorAnswers:
    """How many of a run's consultations brought a proposal of its mentor, and in how many it was replaced.

    The pool's best, or another mentor of `mentor.fallbacks`, takes the place of one that gave no usable answer.
    """

    given: int = 0
    replaced: int = 0

    @property
    def silent(self) -> bool:
        """Whether the mentor never gave a usable answer: the run's score is not that of this mentor."""
        return self.replaced > 0 and not self.given

    @property
    def partial(self) -> bool:
        """Whether it gave some usable answers, and others not."""
        return self.replaced > 0 and self.given > 0

    @property
    def words(self) -> str:
        """'the mentor never gave a usable answer', 'the mentor gave no usable answer 1 of 3 times'; '' if it did."""
        if self.silent:
            return "the mentor never gave a usable answer"
        asked = self.given + self.replaced
        return f"the mentor gave no usable answer {self.replaced} of {asked} times" if self.partial else ""


def read_answers(path: Path) -> MentorAnswers:
    """The answers of the mentor of the run in `path`, from its events and restarts.

    Raises:
        ConfigurationError: one of these files cannot be read.
    """
    events: tuple[Event, ...] = read_lines(path / FILES[Event], Event)
    if not any(event.kind == "fallback" for event in events):
        return MentorAnswers()  # the number of consultations is of no interest
    return count_answers(events, read_lines(path / FILES[Restart], Restart))


def count_answers(events: Iterable[Event], restarts: Iterable[Restart]) -> MentorAnswers:
    """The answers of a mentor that was asked after each stage with a restart or a fallback."""
    replaced = {event.stage for event in events if event.kind == "fallback"}
    return MentorAnswers(len({restart.stage for restart in restarts} - replaced), len(replaced))


def best_prompts(entries: Iterable[ScoredPrompt]) -> list[ScoredPrompt]:
    """The distinct prompts, each with its latest score, its first origin and stage; the lowest loss first.

    If a prompt's loss has changed, the head was trained, and the scores of earlier stages are left out.
    """
    first: dict[tuple[int, ...], ScoredPrompt] = {}
    latest: dict[tuple[int, ...], ScoredPrompt] = {}
    changed = False
    for entry in entries:
        tokens = entry.prompt.tokens
        changed = changed or (tokens in latest and abs(latest[tokens].score.loss - entry.score.loss) > SAME_LOSS)
        first.setdefault(tokens, entry)
        latest[tokens] = entry
    last = max((entry.stage for entry in latest.values()), default=0)
    valid = [tokens for tokens, entry in latest.items() if entry.stage == last or not changed]
    return sorted((replace(first[t], score=latest[t].score) for t in valid), key=lambda entry: entry.score.loss)


def read_accuracy(evaluation: Evaluation) -> float:
    """The evaluation's accuracy, which is comparable with the majority class; the metric if there is none."""
    return evaluation.metrics.get("accuracy", evaluation.score.metric)


def advise(trains: bool) -> str:
    """What to try where nothing was learned; `trains` says whether an optimizer trains the prompt."""
    return ADVICE if trains else ADVICE_WITHOUT_TRAINING


def has_training(run: RunRecords) -> bool:
    """Whether an optimizer trains the prompt between restarts."""
    return not str(get_nested(run.config, "optimizer", "_target_") or "").endswith(".NoTraining")


def warn_constant(stage: int, step: int, label: str, trains: bool = True) -> str:
    """The warning that every prediction is the same label."""
    return f"stage {stage + 1}, step {step}: every answer is {quote_prompt(label)}; {advise(trains)}"


def warn_majority(stage: int, trained: Sequence[float], majority: float | None, trains: bool = True) -> str | None:
    """The warning that none of a stage's dev accuracies, measured after training, is above the majority class's."""
    if majority is None or not trained or max(trained) > majority:
        return None
    best = max(trained)
    dev = f"dev accuracy (best {best:.3f}) is not above the majority class ({majority:.3f})"
    return f"stage {stage + 1}: {dev}; {advise(trains)}"


def read_metric_name(run: RunRecords) -> str:
    """The name of the task's metric: accuracy, macro_f1."""
    resolved = get_nested(run.resolved.config, "task", "metric") if run.resolved else None
    return escape_controls(str(get_nested(run.config, "task", "metric") or resolved or "metric"))


def read_majority(manifest: Manifest) -> float | None:
    """The accuracy of always answering the most frequent label of dev; None if it is unknown."""
    labels = get_nested(manifest.data, "dev", "labels")
    return max(labels.values()) / sum(labels.values()) if labels else None


def collect_warnings(run: RunRecords) -> list[str]:
    """The warnings of a run: damage, those of its data, events, constant predictions, stages that learned nothing."""
    damage = checksums.find_changed(run.path, checksums.read_list(run.path))
    found = [
        f"{escape_controls(file)} is {how} since it was written (catalyst show --verify)"
        for file, how in damage.items()
    ]
    noted = [*run.manifest.mentor_notes, *(run.resolved.data.get("warnings", ()) if run.resolved else ())]
    found += [escape_controls(str(words)) for words in noted]
    found += [describe_event(event) for event in run.events if not is_notice(event)]
    trained = [e for e in run.metrics if e.split == "dev" and e.step > 0]
    stages = {stage: [e for e in trained if e.stage == stage] for stage in sorted({e.stage for e in trained})}
    return [*found, *summarize_constant(run, stages), *summarize_stuck(run, stages)]


def collect_notices(run: RunRecords) -> list[str]:
    """What a reader may want to know and need not be warned of: with which other keys the run was resumed."""
    return [describe_event(event) for event in run.events if is_notice(event)]


def is_notice(event: Event) -> bool:
    """Whether the event is no warning."""
    return event.kind == "resumed"


def summarize_constant(run: RunRecords, stages: Mapping[int, Sequence[Evaluation]]) -> list[str]:
    """The warning that every prediction of an evaluation was the same label; for several stages one, with their number.

    `stages` are the evaluations of each stage on dev after training.
    """
    constant = {stage: [e for e in here if e.constant is not None] for stage, here in stages.items()}
    last = [here[-1] for here in constant.values() if here]
    if len(last) < 2:
        return [warn_constant(e.stage, e.step, e.constant or "", has_training(run)) for e in last]
    labels = join_first(list(dict.fromkeys(quote_prompt(e.constant or "") for e in last)), between=" or ")
    place = f"the last time in stage {last[-1].stage + 1}, step {last[-1].step}"
    return [f"in {len(last)} of {len(stages)} stages, {place}: every answer is {labels}; {advise(has_training(run))}"]


def summarize_stuck(run: RunRecords, stages: Mapping[int, Sequence[Evaluation]]) -> list[str]:
    """The warning that a stage was not above the majority class; for several stages one, with their number."""
    majority, ended = read_majority(run.manifest), {entry.stage for entry in run.pool}
    best = {
        stage: max(map(read_accuracy, here))
        for stage, here in stages.items()
        if stage in ended or run.outcome is not None
    }
    stuck = {stage: value for stage, value in best.items() if warn_majority(stage, [value], majority)}
    if len(stuck) < 2 or majority is None:
        found = (warn_majority(stage, [value], majority, has_training(run)) for stage, value in stuck.items())
        return [words for words in found if words]
    dev = f"dev accuracy (best {max(stuck.values()):.3f}) is not above the majority class ({majority:.3f})"
    return [f"in {len(stuck)} of {len(best)} stages: {dev}; {advise(has_training(run))}"]


def describe_event(event: Event) -> str:
    """An event on one line, with its place if it has one."""
    place = f"stage {event.stage + 1}, step {event.step}: " if event.stage >= 0 else ""
    return f"{place}{escape_controls(event.kind)}: {escape_controls(event.message)}"


def outcome_columns(outcome: Outcome) -> dict[str, Any]:
    """A finished run's result, by the column names of `load_runs`."""
    best, prompt, ledger = outcome.best, outcome.best_prompt, outcome.ledger
    return {
        **score_columns("dev", best.score if best else None),
        **score_columns("test", outcome.test),
        **({"dev_examples": best.score.examples} if best else {}),
        **({"test_examples": outcome.test.examples} if outcome.test else {}),
        **score_columns("start_dev", outcome.start_dev),
        **score_columns("start_test", outcome.start_test),
        **({"best_stage": best.stage, "best_step": best.step, "similarity": best.similarity} if best else {}),
        "soft_prompt": best.prompt.text if best else None,
        **({"best_prompt": prompt.prompt.text, "best_prompt_origin": prompt.origin} if prompt else {}),
        **score_columns("best_prompt_dev", prompt.score if prompt else None),
        **score_columns("best_prompt_test", outcome.test_best_prompt),
        **{name: getattr(ledger, name) for name in ("gradient_steps", "train_examples", "scored_examples")},
        "train_tokens": ledger.train_tokens or None,
        "padding_tokens": ledger.padding_tokens if ledger.train_tokens else None,
        **{name: getattr(outcome, name) for name in OWN_COLUMNS},
        **{f"test_{name}": value for name, value in outcome.test_metrics.items()},
    }


def score_columns(name: str, score: Score | None) -> dict[str, Any]:
    """A score as two columns; none if there is no score."""
    return {} if score is None else {f"{name}_metric": score.metric, f"{name}_loss": score.loss}


def usage_columns(spent: MentorUsage) -> dict[str, Any]:
    """A mentor's usage as columns; tokens and dollars only if those of every call are known."""
    tokens = {} if spent.uncounted else {"input_tokens": spent.input_tokens, "output_tokens": spent.output_tokens}
    cost = {} if spent.unpriced else {"cost_usd": spent.cost_usd}
    return {"mentor_calls": spent.calls, **tokens, **cost}
