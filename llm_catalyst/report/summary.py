"""The summary of a run, on less than a screen: printed at its end, and at the end of `catalyst show`."""

from statistics import fmean

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from llm_catalyst.report.restarts import score_cells, tabulate_restarts
from llm_catalyst.runs.analysis import collect_notices, collect_warnings, count_answers, read_metric_name, sum_usage
from llm_catalyst.runs.reader import RunRecords
from llm_catalyst.runs.records import Outcome, Prompt, Score
from llm_catalyst.runs.resolved import Predictions
from llm_catalyst.utils import terminal
from llm_catalyst.utils.format import format_count, format_duration, format_mebibytes, quote_word

# What base-to-new adds, of the soft prompt.
NEW = {"new_accuracy": "on new classes (accuracy)", "harmonic_mean": "harmonic mean of both"}


def summarize_run(run: RunRecords, shown: bool = False) -> RenderableType:
    """Result, scores, best prompts, restarts, costs and the next command; less for an unfinished run.

    To be printed with crop=False. `shown` says whether `catalyst show` prints it.
    """
    parts: list[RenderableType] = []
    if run.outcome:
        parts += [render_verdict(run, run.outcome), Text(), render_scores(run.outcome, read_metric_name(run))]
        parts += [*render_best_prompts(run, run.outcome), *tabulate_restarts(run)]
    return Group(
        *parts, *render_usage(run), *render_warnings(run), *render_notices(run), *render_next_steps(run, shown)
    )


def counted_score_cells(score: Score | None) -> list[str]:
    """A score as three table cells: loss, metric, and the number of rows that it is the mean over."""
    return ["", "", ""] if score is None else [*score_cells(score), f"{score.examples:,}"]


def render_verdict(run: RunRecords, outcome: Outcome) -> Text:
    """Status and message: green if the run is done and above the majority class."""
    reached = outcome.status == "done" and outcome.test is not None and outcome.test.metric > outcome.majority_score
    constant = any(e.constant is not None for e in run.metrics[-1:])
    style = "bold green" if reached and not constant else "bold yellow" if outcome.status == "done" else "bold red"
    verdict = Text.assemble((outcome.status, style), "  ", (terminal.escape_controls(outcome.message), "bold"))
    if words := count_answers(run.events, run.restarts).words:
        verdict.append(f"\n{words}: this is not the score of a mentor that did (events.jsonl)", "bold yellow")
    return verdict


def render_scores(outcome: Outcome, metric: str) -> Table:
    """The scores of soft prompt and best discrete prompt, on dev and on the reporting split, each with its rows, n."""
    reported = outcome.reported_on
    table = terminal.make_columns("", "dev loss", metric, "n", f"{reported} loss", metric, "n")
    table.columns[0].justify = "left"
    soft = outcome.best.score if outcome.best else None
    if outcome.start_test:
        start = *counted_score_cells(outcome.start_dev), *counted_score_cells(outcome.start_test)
        table.add_row(Text("before training", "dim"), *(Text(cell, "dim") for cell in start))
    exact = outcome.best is not None and outcome.best.discrete
    name = "prompt" if outcome.one_prompt else "reported prompt" if exact else "soft prompt"
    table.add_row(name, *counted_score_cells(soft), *counted_score_cells(outcome.test))
    if outcome.best_prompt and not outcome.one_prompt:
        scores = *counted_score_cells(outcome.best_prompt.score), *counted_score_cells(outcome.test_best_prompt)
        table.add_row("best discrete prompt", *scores)
    for name, words in NEW.items():
        if name in outcome.test_metrics:
            table.add_row(words, "", "", "", "", f"{outcome.test_metrics[name]:.3f}", "")
    known = outcome.majority_metric is not None or metric == "accuracy"
    label = "majority class" if known else "majority class (accuracy)"
    table.add_row(Text(label, "dim"), "", "", "", "", Text(f"{outcome.majority_score:.3f}", "dim"), "")
    return table


def compare_answers(run: RunRecords, baseline: RunRecords, answers: Predictions, theirs: Predictions) -> RenderableType:
    """What a run has gained over its baseline: the difference in accuracy over the same rows, with its interval.

    The interval is the report's for paired differences (`statistics.bootstrap_interval`), here of a row right or wrong.
    """
    from llm_catalyst.report.statistics import bootstrap_interval  # takes a second to import

    mentor, other = (str(each.manifest.choices.get("mentor")) for each in (run, baseline))
    heading = terminal.make_heading(f"What mentor={mentor} gained over mentor={other}")
    if answers.soft_prompt is None or theirs.soft_prompt is None or answers.rows != theirs.rows:
        return Group(*heading, terminal.indent_text(Text("one of the two runs has no score on the same rows")))
    if answers.marks and theirs.marks:
        scores = zip(answers.marks["soft_prompt"], theirs.marks["soft_prompt"], strict=True)
        gains = [ours - reference for ours, reference in scores]
    else:
        pairs = zip(answers.soft_prompt, theirs.soft_prompt, answers.labels, strict=True)
        gains = [float(ours == label) - (reference == label) for ours, reference, label in pairs]
    metric = read_metric_name(run) if answers.marks else "accuracy"
    n, gain = len(gains), fmean(gains)
    ends, verdict = "", "within the noise"
    low, high = bootstrap_interval(gains)
    if low is not None and high is not None:
        ends = f", 95 % interval {100 * low:+.1f} to {100 * high:+.1f}"
        verdict = "a gain" if low > 0 else "a loss" if high < 0 else verdict
    found = f"{100 * gain:+.1f} points of {metric}{ends}: {verdict}"
    rows = f"paired over {format_count(n, f'{answers.split} row')}: {sum(g > 0 for g in gains)} are better with it, "
    seeds = f"one seed each; over seeds: catalyst run -m … mentor={other},{mentor} seed=1,2,3"
    shown = Text(found, "bold"), Text(f"{rows}{sum(g < 0 for g in gains)} without"), Text(seeds, "dim")
    return Group(*heading, *map(terminal.indent_text, shown))


def render_best_prompts(run: RunRecords, outcome: Outcome) -> list[RenderableType]:
    """The best soft prompt and the best discrete prompt as text."""
    lines: list[RenderableType] = []

    def add(heading: str, prompt: Prompt, words: str) -> None:
        lines.extend(terminal.make_heading(heading))
        shown = Text(terminal.quote_prompt(prompt.text), "cyan")
        lines.extend(terminal.indent_text(text) for text in (shown, Text(words, "dim")))

    best, entry = outcome.best, outcome.best_prompt
    # Several origins may have found the same prompt; the first one is named.
    first = next((e for e in run.pool if entry and e.prompt.tokens == entry.prompt.tokens), entry)
    proposed = f"first proposed by the {first.origin}, in stage {first.stage + 1}" if first else ""
    if best and outcome.one_prompt:
        add("Best prompt", best.prompt, f"{proposed}; scored in stage {best.stage + 1}, step {best.step}")
        return lines
    if best and best.discrete:
        add("Reported prompt", best.prompt, f"stage {best.stage + 1}, step {best.step}")
    elif best:
        near = f"similarity {best.similarity:.2f} (1: these tokens are the soft prompt)"
        place = f"stage {best.stage + 1}, step {best.step}"
        add("Best soft prompt, as its nearest tokens", best.prompt, f"{near}, {place}")
    if first:
        add("Best discrete prompt", first.prompt, proposed)
    return lines


def render_usage(run: RunRecords) -> list[RenderableType]:
    """Time, memory, work, and the cost of the mentor."""
    rows: dict[str, str] = {}
    if outcome := run.outcome:
        ledger, compiling = outcome.ledger, outcome.compile_seconds
        compiled = f", {format_duration(compiling)} of it compiling" if compiling else ""
        device = terminal.escape_controls(outcome.device)
        rows["time"] = f"{format_duration(outcome.seconds)} on {device}{compiled}"
        rows["peak memory"] = format_mebibytes(outcome.peak_memory_bytes)
        trained, scored = (format_count(n, "example") for n in (ledger.train_examples, ledger.scored_examples))
        steps = format_count(ledger.gradient_steps, "step")
        rows["work"] = f"{steps} of training on {trained}, {scored} scored"
        if not ledger.gradient_steps:
            measured = f" (the loss of {trained} measured)" if ledger.train_examples else ""
            rows["work"] = f"no training{measured}, {scored} scored"
        elif ledger.train_tokens:
            padding = 100 * ledger.padding_tokens / ledger.train_tokens
            rows["padding"] = f"{padding:.1f} % of the texts' tokens in training"
    rows["mentor"] = sum_usage(run.exchanges).describe() if run.exchanges else "no calls"
    return [*terminal.make_heading("Spent"), terminal.make_pairs(rows)]


def render_warnings(run: RunRecords) -> list[RenderableType]:
    """The warnings; nothing if there are none."""
    found = collect_warnings(run)
    lines = [terminal.indent_text(Text(line, "yellow")) for line in found]
    return [*terminal.make_heading("Warnings"), *lines] if found else []


def render_notices(run: RunRecords) -> list[RenderableType]:
    """What is no warning; nothing if there is none."""
    lines = [terminal.indent_text(Text(line)) for line in collect_notices(run)]
    return [*terminal.make_heading("Notes"), *lines] if lines else []


def render_next_steps(run: RunRecords, shown: bool) -> list[RenderableType]:
    """The run directory, and the next command; `shown` says whether `catalyst show` is the present one."""
    path = terminal.escape_controls(quote_word(str(run.path)))
    verb = "resume" if run.outcome is None else "report" if shown else "show"
    rows = {"files": path, "command": f"catalyst {verb} {path}"}
    if run.exchanges:
        rows["exchanges"] = f"catalyst show {path} --mentor"
    return [*terminal.make_heading("Next"), terminal.UnbrokenPairs(rows)]
