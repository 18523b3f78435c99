"""The story and the summary of a run, told from a directory that RunDirectory wrote."""

import io
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.recorded import HOSTILE, evaluation, manifest, outcome, prompt, raced, write_run
from rich.cells import cell_len
from rich.console import Console, RenderableType

from llm_catalyst.report.show import render_consultations, render_run, show_run
from llm_catalyst.report.statistics import bootstrap_interval
from llm_catalyst.report.summary import compare_answers, summarize_run
from llm_catalyst.runs.analysis import best_prompts, collect_warnings
from llm_catalyst.runs.reader import read_run
from llm_catalyst.runs.records import Event, Message, Score, ScoredPrompt
from llm_catalyst.runs.resolved import Predictions
from llm_catalyst.runs.writer import RunDirectory
from llm_catalyst.utils.validation import ConfigurationError


def text_of(renderable: RenderableType, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable, crop=False)
    return console.file.getvalue()  # type: ignore[attr-defined]


def squeezed(text: str) -> str:
    """Runs of blanks and line ends as one blank, so that wrapping does not matter."""
    return " ".join(text.split())


def test_the_summary_holds_the_figures_of_the_records(tmp_path: Path) -> None:
    text = squeezed(text_of(summarize_run(read_run(write_run(tmp_path / "run")))))
    for figures in (
        "done accuracy 0.871 beats the majority class (0.509)",
        "dev loss accuracy n test loss accuracy n",
        "soft prompt 0.3612 0.866 400 0.3724 0.871 1,000",
        "best discrete prompt 0.5000 0.733 400 0.5123 0.722 1,000",
        "majority class 0.509",
        '"sombre800 film ##ness told verdict" similarity 0.61',
        '"Feel the tone of the review" first proposed by the mentor, in stage 2',
        '1 0.6200 0.5500 0.5200 "Judge the mood of the review"',
        '2 0.6200 0.5000 0.3600 "Feel the tone of the review"',
        "time 0:01:14 on cpu",
        "peak memory 812 MiB",
        "800 steps of training on 25,600 examples, 9,200 examples scored",
        "mentor 2 calls, 1,624 + 128 tokens, $0.0025",
    ):
        assert figures in text


def test_the_summary_tells_the_share_of_padding_where_texts_were_trained_on(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run"))
    ledger = replace(outcome().ledger, train_tokens=2000, padding_tokens=147)
    assert "padding" not in text_of(summarize_run(run))
    padded = replace(run, outcome=replace(outcome(), ledger=ledger))
    assert "padding 7.3 % of the texts' tokens in training" in squeezed(text_of(summarize_run(padded)))


def test_the_summary_tells_how_much_of_the_time_went_into_compiling_where_it_did(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run"))
    compiled = replace(run, outcome=replace(outcome(), compile_seconds=41.2))
    assert "time 0:01:14 on cpu, 0:00:41 of it compiling" in squeezed(text_of(summarize_run(compiled)))
    assert "compiling" not in text_of(summarize_run(run))


def test_the_summary_says_where_the_files_are_and_what_to_type(tmp_path: Path) -> None:
    path = write_run(tmp_path / "a run")
    assert f"catalyst show '{path}'" in squeezed(text_of(summarize_run(read_run(path)), width=200))


def test_a_restart_takes_one_line_of_the_summary_however_long_its_prompt(tmp_path: Path) -> None:
    lines = text_of(summarize_run(read_run(write_run(tmp_path / "run", extra=HOSTILE)))).splitlines()
    restarts = lines.index("Restarts after a stage, by dev loss")
    assert lines[restarts + 2].endswith("…")
    assert lines[restarts + 3].split()[0] == "2"


def test_a_summary_without_any_finite_state_still_tells_how_the_run_ended(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", finished=False)
    diverged = replace(
        outcome(), status="diverged", message="no finite state was found", best=None, test=None, test_metrics={},
        best_prompt=None, test_best_prompt=None,
    )  # fmt: skip
    directory = RunDirectory(path)
    directory.finish(diverged)
    directory.close()
    assert "diverged no finite state was found" in squeezed(text_of(summarize_run(read_run(path))))


def test_the_story_tells_each_restart_with_what_was_weighed(tmp_path: Path) -> None:
    text = squeezed(text_of(render_run(read_run(write_run(tmp_path / "run")))))
    assert "Restart after stage 1 dev loss 0.6200 → 0.5500 at the restart → 0.5200 after stage 2" in text
    assert "7 of 20 projections in the stage differ; 4 prompts stood in the pool" in text
    assert '▸ 0.5500 0.717 "Judge the mood of the review" cut off: " and its tone" names what is asked' in text
    assert '0.6400 0.687 "1. Verdict:"' in text
    assert 'rejected "Sure, here are three prompts:" a phrase, not a proposal' in text


def test_the_story_tells_what_was_run_and_each_call_of_the_mentor(tmp_path: Path) -> None:
    text = squeezed(text_of(render_run(read_run(write_run(tmp_path / "run", fails=True)))))
    for words in (
        "sst2 · minilm · similarity · claude_haiku",
        "command catalyst run task=sst2 backbone=minilm head=similarity mentor=claude_haiku seed=3",
        "sentence-transformers/all-MiniLM-L6-v2, head Similarity",
        "claude-haiku-4-5, strategy paper",
        "0123456789, with changes",
        "asked claude-haiku-4-5; answered by claude-haiku-4-5-20251001; 2026-01-02T03:04:05+00:00; 2.9 s",
        "812 + 64 tokens, $0.0012; ended by end_turn; max_tokens=4000; temperature not sent",
        "answered by nobody",
        "fallback: overloaded (529)",
        "Warnings stage 2, step 400: fallback: overloaded (529); the pool's best restarts",
    ):
        assert words in text


def test_the_exchanges_alone_tell_request_answer_and_what_became_of_it(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run"))
    narrow = squeezed(text_of(render_consultations(run, side_by_side=False)))
    for words in (
        "After stage 1: answered; its proposal restarted; the error of the difference is not known",
        "asked claude-haiku-4-5; answered by claude-haiku-4-5-20251001",
        "system You improve prompts of a text classifier. user Prompts with loss and accuracy, the best last:",
        "answer Sure, here are three prompts: 1. Judge the mood of the review",
        "dev loss 0.6200 → 0.5500 at the restart → 0.5200 after stage 2",
        '▸ 0.5500 0.717 "Judge the mood of the review"',
        'rejected "Sure, here are three prompts:" a phrase, not a proposal',
        "After stage 2: answered",
    ):
        assert words in narrow
    assert "Training curve" not in narrow
    wide = text_of(render_consultations(run), 120).splitlines()
    assert any("system" in line and "answer" in line for line in wide)


def test_a_mentor_that_did_not_answer_and_a_run_without_one_are_told(tmp_path: Path) -> None:
    failed = squeezed(text_of(render_consultations(read_run(write_run(tmp_path / "run", fails=True))), 120))
    assert "After stage 2: failed; nothing usable; the pool's best restarted" in failed
    assert "error: overloaded (529)" in failed
    run = replace(read_run(write_run(tmp_path / "alone")), exchanges=())
    assert "No language model was asked" in text_of(render_consultations(run))


def test_the_training_curve_marks_the_restarts_and_the_majority_class(tmp_path: Path) -> None:
    lines = text_of(render_run(read_run(write_run(tmp_path / "run")))).splitlines()
    rows = [line for line in lines if "┤" in line]
    columns = {match.start() for line in rows for match in re.finditer("┊", line)}
    left, width = rows[0].index("┤") + 1, 64
    assert columns == {left + round((width - 1) * step / 800) for step in (200, 400)}
    assert any("╌╌╌" in line for line in rows)
    assert "0.701" in rows[0]
    assert {"0.360", "0.870", "0.491"} <= set(re.findall(r"0\.\d{3}", "".join(rows)))


def test_a_long_message_is_shortened_unless_asked_for_in_full(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run"))
    asked = "\n".join(f"line {i}" for i in range(1, 41)) + "\nwhat is asked: " + "x" * 600 + " and its end"
    call = replace(run.exchanges[0], messages=(Message("user", asked),))
    told = replace(run, exchanges=(call,))
    for shown in (render_run, render_consultations):
        short, full = (squeezed(text_of(shown(told, full), 120)) for full in (False, True))
        assert "line 1 " in short
        assert "what is asked:" in short
        assert "and its end" in short
        assert "line 20 " not in short
        hidden = 41 - len(re.findall(r"line \d+ ", short)) - 1
        assert f"… {hidden} more lines (--full shows them)" in short
        assert all(f"line {i} " in full for i in range(1, 41))
        assert "--full" not in full


def test_an_unfinished_run_tells_how_far_it_got_and_how_it_goes_on(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", stages=2, finished=False)
    text = squeezed(text_of(render_run(read_run(path)), width=200))
    assert "unfinished: the last record is of stage 2, step 400" in text
    assert "0.6200 → 0.5000 at the restart → – (not trained yet)" in text
    assert f"catalyst resume {path}" in text
    assert "Best soft prompt" not in text


def test_a_stage_under_way_is_not_told_as_over(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", stages=2, finished=False)
    directory = RunDirectory(path)
    directory.append(evaluation(2, 450, 0.4321, 0.75))
    directory.close()
    assert "0.4321 so far" in text_of(render_run(read_run(path)))


def test_a_run_that_has_recorded_nothing_yet_has_a_story(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", stages=0, finished=False)
    (path / "metrics.jsonl").unlink()
    (path / "config.yaml").write_text("[not: a mapping")
    assert "nothing is recorded yet" in text_of(render_run(read_run(path)))


@pytest.mark.parametrize("full", [False, True])
def test_hostile_text_is_shown_as_text_and_within_80_columns(tmp_path: Path, full: bool) -> None:
    path = write_run(tmp_path / "run", extra=HOSTILE)
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    show_run(path, console, full=full)
    output = console.file.getvalue()  # type: ignore[attr-defined]
    for poison in ("\x1b[31mred", "\x1b]", "\x07", "\x08", "\x9b", "\x00", "\r", "\u202e", "\u200b"):
        assert poison not in output
    lines = text_of(render_run(read_run(path), full)).splitlines()
    unbroken = ("  command ", "  files ", "  exchanges ")  # only a terminal breaks these, so that they can be copied
    assert max(cell_len(line) for line in lines if not line.startswith(unbroken)) <= 80
    text = squeezed("\n".join(lines))
    assert "[bold]markup[/bold]" in text
    assert "日本語のプロンプト" in text


def test_the_svg_is_valid_xml_that_holds_the_story(tmp_path: Path) -> None:
    path, picture = write_run(tmp_path / "run <&>", extra=HOSTILE), tmp_path / "story.svg"
    console = Console(file=io.StringIO(), width=80)
    show_run(path, console, svg=picture)
    root = ElementTree.parse(picture).getroot()
    words = "".join(root.itertext()).replace("\xa0", " ")
    assert root.tag.endswith("svg")
    assert "beats the majority class" in words
    assert "<script>alert(1)</script>" in words
    assert not [element for element in root.iter() if element.tag.endswith("script")]
    assert squeezed(console.file.getvalue()).endswith("is written")  # type: ignore[attr-defined]


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is not a run directory"):
        show_run(tmp_path, Console(file=io.StringIO()))


def scored(text: str, loss: float, stage: int) -> ScoredPrompt:
    return ScoredPrompt(prompt(text), Score(loss, 0.6, 400), "gradient", stage)


def test_under_a_frozen_head_prompts_of_earlier_stages_stay_in_the_ranking() -> None:
    entries = [scored("film", 0.5, 0), scored("tone", 0.6, 0), scored("film", 0.5004, 1), scored("mood", 0.55, 1)]
    assert [entry.prompt.text for entry in best_prompts(entries)] == ["film", "mood", "tone"]


def test_a_prompt_belongs_to_whoever_proposed_it_first() -> None:
    entries = [replace(scored("film", 0.7, 0), origin="mentor"), scored("film", 0.5, 1)]
    assert best_prompts(entries) == [replace(entries[0], score=entries[1].score)]


def test_once_the_head_has_changed_scores_of_earlier_stages_hold_no_more() -> None:
    entries = [scored("film", 0.5, 0), scored("tone", 0.4, 0), scored("film", 0.7, 1), scored("mood", 0.8, 1)]
    assert [entry.prompt.text for entry in best_prompts(entries)] == ["film", "mood"]


def test_stages_that_learned_nothing_are_among_the_warnings(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "run")
    directory.write_config("{}", manifest())
    directory.append(evaluation(0, 0, 0.7, 0.491, "negative"))
    directory.append(evaluation(0, 200, 0.69, 0.509, "positive"))
    directory.append(scored("film", 0.7, 0))
    directory.append(evaluation(1, 400, 0.6, 0.7))
    directory.append(scored("tone", 0.6, 1))
    directory.append(Event(-1, -1, "stopped", "KeyboardInterrupt: \x1b[2J"))
    directory.close()
    warnings = collect_warnings(read_run(tmp_path / "run"))
    assert [warning.partition(";")[0] for warning in warnings] == [
        "stopped: KeyboardInterrupt: \\x1b[2J",
        'stage 1, step 200: every answer is "positive"',
        "stage 1: dev accuracy (best 0.509) is not above the majority class (0.509)",
    ]


def test_a_figure_that_was_changed_after_the_run_is_not_told_without_a_warning(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", stages=1)
    assert "since it was written" not in text_of(render_run(read_run(path)))
    outcome = (path / "outcome.json").read_text()
    (path / "outcome.json").write_text(outcome.replace("0.", "0.9", 1))
    warned = squeezed(text_of(render_run(read_run(path))))
    assert "outcome.json is changed since it was written (catalyst show --verify)" in warned


def styles_of(renderable: RenderableType, words: str, width: int = 120) -> set[str]:
    """The styles in which the words are printed."""
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system="standard")
    segments = [s for s in console.render(renderable) if words in s.text]
    return {str(segment.style) for segment in segments}


@pytest.mark.parametrize(
    ("difference", "error", "style"), [(-0.07, 0.01, "green"), (0.07, 0.01, "red"), (0.01, 0.02, "dim")]
)
def test_colour_is_for_the_difference_at_the_restart_alone(
    tmp_path: Path, difference: float, error: float, style: str
) -> None:
    run = read_run(write_run(tmp_path / "run"))
    first = replace(run.restarts[0], difference=difference, error=error)
    told = replace(run, restarts=(first,))
    for shown in (summarize_run(told), render_run(told), render_consultations(told)):
        assert styles_of(shown, f"{difference:+.4f} ± {error:.4f}") == {style}
        assert {"green", "red"}.isdisjoint(styles_of(shown, "0.5200"))  # the end of the stage
        assert "the work of training, which lowers it without a mentor" in squeezed(text_of(shown))


def test_where_a_point_carries_what_was_learned_the_loss_of_its_text_alone_stands_beside(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run"))
    judged = run.restarts[0].prompt
    own = [replace(e, score=Score(0.6123, 0.61, 400)) if e.prompt == judged else e for e in run.pool]
    told = replace(run, pool=tuple(own))
    for shown in (render_run(told), render_consultations(told)):
        text = squeezed(text_of(shown, 120))
        assert 'dev loss accuracy text alone proposal ▸ 0.5500 0.717 0.6123 "Judge the mood of the review"' in text
        assert "dev loss, accuracy: of the text with what was learned, carried over" in text
    assert "restart: the text with what was learned, carried over" in squeezed(text_of(summarize_run(told)))
    assert "text alone" not in text_of(render_run(run))


@pytest.mark.parametrize("winner", [0, 1, 2])
def test_of_prompts_side_by_side_the_winner_is_marked_and_no_other(tmp_path: Path, winner: int) -> None:
    run = raced(write_run(tmp_path / "run"), winner)
    names = ['"Judge the mood of the review"', '"2. Verdict:"', "(the running prompt)"]
    lines = text_of(render_run(run), 120).splitlines()
    table = lines[next(i for i, line in enumerate(lines) if line.startswith("3 prompts side by side")) + 2 :][:3]
    assert [line.strip().startswith("▸") for line in table] == [i == winner for i in range(3)]
    assert all(name in line for name, line in zip(names, table, strict=True))
    summary = text_of(summarize_run(replace(run, outcome=outcome())), 120)
    assert [f"▸ {name}" in summary for name in names] == [i == winner for i in range(3)]
    chosen = [line for line in text_of(render_consultations(run), 120).splitlines() if line.startswith("  ▸")]
    assert all(names[winner] in line for line in chosen)
    assert chosen


def test_where_a_model_was_asked_the_summary_names_the_command_that_shows_its_answers(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run")
    assert f"catalyst show {path} --mentor" in text_of(summarize_run(read_run(path)), 200)
    assert "--mentor" not in text_of(summarize_run(replace(read_run(path), exchanges=())), 200)


def test_what_is_wrong_in_several_stages_is_warned_of_once_with_their_number(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run"))
    stuck = [evaluation(stage, 200 * (stage + 1), 0.69, 0.5 - stage / 100, "positive") for stage in range(3)]
    told = replace(run, metrics=(evaluation(0, 0, 0.7, 0.4, "negative"), *stuck))
    assert [warning.partition(";")[0] for warning in collect_warnings(told)] == [
        'in 3 of 3 stages, the last time in stage 3, step 600: every answer is "positive"',
        "in 3 of 3 stages: dev accuracy (best 0.500) is not above the majority class (0.509)",
    ]
    some = replace(told, metrics=(*told.metrics[:3], evaluation(2, 800, 0.6, 0.8)))
    assert [warning.partition(":")[0] for warning in collect_warnings(some)] == [
        "in 2 of 3 stages, the last time in stage 2, step 400",
        "in 2 of 3 stages",
    ]


def test_with_which_keys_a_run_was_resumed_is_a_note_and_no_warning(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run"))
    told = replace(run, events=(Event(1, 300, "resumed", "with mentor.client.model=another"),))
    text = text_of(summarize_run(told))
    assert "Notes\n  stage 2, step 300: resumed: with mentor.client.model=another" in text
    assert "Warnings" not in text
    assert collect_warnings(told) == []


def test_a_prompt_that_is_tokens_is_told_once_and_not_as_a_soft_prompt(tmp_path: Path) -> None:
    run, same = read_run(write_run(tmp_path / "run")), outcome()
    assert same.best is not None
    assert same.best_prompt is not None
    best = replace(same.best, prompt=same.best_prompt.prompt, similarity=0.99999994)  # a mean cosine in float32
    one = text_of(summarize_run(replace(run, outcome=replace(same, best=best))))
    assert one.count('"Feel the tone of the review"\n  first proposed by the mentor, in stage 2') == 1
    for absent in ("soft prompt", "similarity", "best discrete prompt", "Best discrete prompt"):
        assert absent not in one
    other = text_of(summarize_run(replace(run, outcome=replace(same, best=replace(best, prompt=prompt("film"))))))
    assert "soft prompt" not in other
    assert [other.count(f"\n{heading}\n") for heading in ("Reported prompt", "Best discrete prompt")] == [1, 1]


def test_without_an_optimizer_no_training_is_told(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run"))
    ledger = replace(outcome().ledger, gradient_steps=0, train_examples=66, train_tokens=900, padding_tokens=90)
    config = {**run.config, "optimizer": {"_target_": "llm_catalyst.optimizers.NoTraining"}}
    told = replace(run, outcome=replace(outcome(), ledger=ledger))
    told.__dict__["config"] = config
    text = squeezed(text_of(summarize_run(told)))
    assert "work no training (the loss of 66 examples measured), 9,200 examples scored" in text
    assert "padding" not in text
    assert "work of training" not in text
    assert "work of training" not in text_of(render_consultations(told))


def test_a_gain_has_the_interval_of_the_reports_statistics(tmp_path: Path) -> None:
    run, rows = read_run(write_run(tmp_path / "run")), tuple(range(40))
    labels = tuple(i % 2 for i in rows)
    ours = tuple(label if i % 8 else 1 - label for i, label in enumerate(labels))  # 5 of 40 are wrong
    theirs = tuple(label if i % 3 else 1 - label for i, label in enumerate(labels))  # 14 of 40 are wrong
    mine, other = (Predictions("test", rows, labels, answers, None, None) for answers in (ours, theirs))
    text = squeezed(text_of(compare_answers(run, run, mine, other), 120))
    gains = [(a == label) - (b == label) for a, b, label in zip(ours, theirs, labels, strict=True)]
    (low, high) = bootstrap_interval(gains)
    assert low is not None
    assert high is not None
    assert f"+22.5 points of accuracy, 95 % interval {100 * low:+.1f} to {100 * high:+.1f}: a gain" in text
    assert "within the noise" in squeezed(text_of(compare_answers(run, run, mine, mine), 120))
