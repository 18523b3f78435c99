"""Directional feedback: a direction is stated, a step is taken along it, and its outcome is shown next time."""

import json
import random
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import pytest
from helpers.dialogues import Talk, after, talk
from helpers.tiny import EXAMPLES, consultation

from llm_catalyst.mentors.base import MentorContext, Trial, refuse_probe
from llm_catalyst.mentors.strategies.directional import LONGEST_DIRECTION, Directional, parse_direction
from llm_catalyst.runs.records import Prompt
from llm_catalyst.utils.validation import ConfigurationError

GOLDEN = Path(__file__).parents[2] / "golden" / "strategy_directional.txt"
DIRECTION = "Ask about the mood of the whole text.\nLeave out the bare choice of words."
ON_ONE_LINE = DIRECTION.replace("\n", " ")
STEPS = "- what is the mood\n- tell me the mood\n- say how it was"
LATER = ("...", "Name the film.", "Sure!", "- what is the film\n- is it poor and")  # each question is asked twice
TWO = Directional(proposals=2, examples=4)


def both(losses: tuple[float, ...] = (0.25, 0.4, 0.5)) -> tuple[Talk, Talk]:
    """Two consultations; these are the losses of what was written along the first direction (0.3 was the best)."""
    first = talk(Directional(), consultation(), DIRECTION, STEPS)
    now = after(consultation(), first.advice, losses)
    return first, talk(Directional(show_gradient=True), now, *LATER)


def asked(result: Talk, question: int) -> str:
    """The last message of a question."""
    return result.exchanges[question].messages[-1].content


def test_two_consultations_are_exactly_the_golden_text() -> None:
    first, second = both()
    assert first.transcript + second.transcript == GOLDEN.read_text(encoding="utf-8")


def test_the_best_prompt_is_changed_along_the_direction_that_was_said() -> None:
    first, _ = both()
    assert 'The prompt to change: "is it good or"' in asked(first, 1)
    assert f"Change it in this direction: {ON_ONE_LINE}" in asked(first, 1)
    assert first.texts == ["what is the mood", "tell me the mood", "say how it was"]
    assert {proposal.rationale for proposal in first.advice.proposals} == {f"along: {ON_ONE_LINE}"}


@pytest.mark.parametrize(
    ("losses", "best", "verdict"),
    [
        ((0.25, 0.4, 0.5), "what is the mood", "It helped: a loss of 0.300 before, at best 0.250 after."),
        ((0.35, 0.4, 0.5), "is it good or", "It did not help: a loss of 0.300 before, at best 0.350 after."),
    ],
)
def test_only_a_better_prompt_is_changed_next_and_the_synthesizer_is_told_whether_the_direction_helped(
    losses: tuple[float, ...], best: str, verdict: str
) -> None:
    _, second = both(losses)
    assert f"Direction: {ON_ONE_LINE}\n{verdict}" in asked(second, 0)
    assert f'The prompt to change: "{best}"' in asked(second, 2)


def test_of_the_prompts_the_best_are_shown_and_of_the_outputs_a_few_wrong_and_right_ones() -> None:
    result = talk(Directional(trace=2, outputs=2), consultation(), DIRECTION, STEPS)
    text = asked(result, 0)
    assert '"dull of dull of"' not in text
    assert text.count("Prompt: ") == 2
    wrong, right = text.split("It got wrong")[1].split("It got right")
    # The best prompt says "good", and so finds every review positive; half of them are.
    assert "Of 8 training examples the best prompt got 4 right." in text
    assert wrong.count("Its answer: positive\nThe right answer: negative") == 2
    assert right.count("Its answer: positive") == 2
    assert "The right answer" not in right


def test_the_examples_tried_are_distinct_and_drawn_for_each_consultation() -> None:
    tried: list[tuple[int, ...]] = []

    def watched(seed: int) -> MentorContext:
        result = consultation()

        def attempt(prompts: Sequence[Prompt], rows: Sequence[int]) -> list[list[Trial]]:
            tried.append(tuple(rows))
            return result.attempt(prompts, rows)

        return replace(result, rng=random.Random(seed), attempt=attempt)

    for seed in (1, 1, 2):
        talk(TWO, watched(seed), DIRECTION, STEPS)
    first, again, other = tried
    assert first == again != other
    assert len(set(first)) == 4
    talk(replace(TWO, examples=100), watched(1), DIRECTION, STEPS)
    assert sorted(tried[-1]) == [*range(len(EXAMPLES))]


@pytest.mark.parametrize("examples", [0, 8])
def test_without_examples_nothing_is_tried(examples: int) -> None:
    result = consultation()
    if examples:
        result = replace(result, task=replace(result.task, examples=()))
    spoken = talk(Directional(examples=examples), replace(result, attempt=refuse_probe), DIRECTION, STEPS)
    assert len(spoken.texts) == 3
    assert "training example" not in asked(spoken, 0)


def test_the_gradient_is_shown_to_the_synthesizer_alone() -> None:
    first, second = both()
    assert [["Gradient: " in asked(result, i) for i in (0, -2)] for result in (first, second)] == [
        [False] * 2,
        [True, False],
    ]


def test_without_a_direction_the_best_prompt_is_changed_freely_and_nothing_is_remembered() -> None:
    result = talk(TWO, consultation(), "...", "<think>which way", STEPS)
    assert asked(result, 1).startswith("No direction could be read")
    assert "Change it so that its loss falls." in asked(result, 2)
    assert result.texts == ["what is the mood", "tell me the mood"]
    assert result.advice.memory == {"directions": []}


def test_a_direction_along_which_nothing_was_written_is_not_remembered() -> None:
    result = talk(TWO, consultation(), DIRECTION, "...", "...")
    assert result.advice.fallback == "no usable proposal in the answer"
    assert result.advice.memory is None  # what was known before


def test_the_last_directions_are_remembered_and_the_fate_of_vanished_prompts_is_not_known() -> None:
    now, strategy = consultation(), replace(TWO, directions=2)
    for direction, step in (("First way.", "- a fine film"), ("Second way.", "- great"), ("Third way.", "- bad movie")):
        result = talk(strategy, now, direction, step)
        now = after(now, result.advice, [0.9])
    assert [taken["direction"] for taken in now.memory["directions"]] == ["Second way.", "Third way."]
    gone = replace(now, scored=now.scored[-1:], pool=now.pool[-1:])  # the best prompt alone is left
    text = asked(talk(strategy, gone, "Fourth way.", "- is it"), 0)
    assert "Direction: Second way.\nWhat came of it is not known.\n\nDirection: Third way." in text
    assert "First way." not in text


def test_the_memory_is_json_and_goes_on_to_the_same_questions() -> None:
    first, second = both()
    now = after(consultation(), first.advice, [0.25, 0.4, 0.5])
    now = replace(now, memory=json.loads(json.dumps(now.memory)))
    again = talk(Directional(show_gradient=True), now, *LATER)
    assert again.transcript == second.transcript


def test_a_cut_dialogue_goes_on_where_it_was() -> None:
    whole, _ = both()
    for kept in range(3):
        answered = tuple(whole.exchanges[:kept])
        rest = talk(Directional(), replace(consultation(), answered=answered), *[DIRECTION, STEPS][kept:])
        assert rest.advice == whole.advice
        assert [e.messages for e in rest.exchanges] == [e.messages for e in whole.exchanges[kept:]]


@pytest.mark.parametrize(
    ("reply", "texts"),
    [
        ("Direction: be\nshorter\u200b.", ["be shorter."]),
        ("<think>be longer?</think> be shorter", ["be shorter"]),
        ("<think>be longer?", []),
        ("  ...  ", []),
        ("", []),
        ("x" * 5000, ["x" * LONGEST_DIRECTION]),
    ],
)
def test_a_direction_is_read_onto_one_line_without_reasoning(reply: str, texts: list[str]) -> None:
    assert parse_direction(reply)[0] == texts


def test_the_temperature_and_the_plain_form_hold_for_both_questions() -> None:
    result = talk(Directional(form="plain", temperature=0.7), consultation(), DIRECTION, STEPS)
    assert result.temperatures == [0.7, 0.7]
    assert [[message.role for message in e.messages] for e in result.exchanges] == [["user"], ["user"]]
    assert both()[0].temperatures == [0.3, 0.3]  # the client's own


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"form": "chatt"}, r"strategy\.form=chatt is not known; .*did you mean chat"),
        ({"proposals": 0}, r"strategy\.proposals=0 is too small"),
        ({"words": 1}, r"strategy\.words=1 is too small"),
        ({"trace": 0}, r"strategy\.trace=0 is too small"),
        ({"examples": -1}, r"strategy\.examples=-1 is too small"),
        ({"outputs": 0}, r"strategy\.outputs=0 is too small"),
        ({"directions": 0}, r"strategy\.directions=0 is too small"),
        ({"temperature": -1}, r"strategy\.temperature=-1 is too small"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, str], wanted: str) -> None:
    with pytest.raises(ConfigurationError, match=wanted):
        Directional(**settings)  # type: ignore[arg-type]


def test_the_fields_are_the_keys_in_conf() -> None:
    assert {field.name for field in fields(Directional)} == {
        "form",
        "proposals",
        "words",
        "trace",
        "examples",
        "outputs",
        "directions",
        "temperature",
        "show_gradient",
    }
