"""LEO: what each pool's request shows, who moves between the pools, and what is remembered."""

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
from helpers.dialogues import Talk, after, talk
from helpers.tiny import consultation, prompt_space, scored

from llm_catalyst.mentors.base import MentorContext
from llm_catalyst.mentors.strategies.leo import Leo
from llm_catalyst.runs.records import ScoredPrompt
from llm_catalyst.utils.validation import ConfigurationError

GOLDEN = Path(__file__).parents[2] / "golden" / "strategy_leo.txt"
SMALL = Leo(proposals=4, size=2)
WORDS = ("dull of dull of", "poor text was dull", "say what it is", "is it good or")
EXPLORED = "- tell me the mood\n- how does the story"
EXPLOITED = "- is it good and\n- is it great or"


def four() -> MentorContext:
    """A first consultation, with losses 0.8, 0.7, 0.6 and 0.3 in its pool."""
    losses = (0.8, 0.7, 0.6, 0.3)
    return consultation(tuple(scored(prompt_space(), w, loss, 1 - loss) for w, loss in zip(WORDS, losses, strict=True)))


def both() -> tuple[Talk, Talk]:
    """Two consultations: an explored prompt (0.25) beats the exploit pool's worst (0.6), the other (0.65) does not."""
    first = talk(SMALL, four(), EXPLORED, EXPLOITED)
    now = after(four(), first.advice, [0.28, 0.9, 0.25, 0.65])
    return first, talk(SMALL, now, "- what a very fine film", "...", "- is it good about")


def shown(result: Talk, question: int) -> list[str]:
    """The prompts that a question lists, the best one last."""
    lines = result.exchanges[question].messages[1].content.splitlines()
    return [line.removeprefix('Prompt: "').removesuffix('"') for line in lines if line.startswith("Prompt: ")]


def following(memory: dict[str, list[list[int]]], *entries: ScoredPrompt) -> MentorContext:
    """A later consultation with this memory and exactly these scored prompts."""
    ranked = tuple(sorted(entries, key=lambda entry: -entry.score.loss))
    return replace(consultation(ranked), stage=1, memory=memory)


def test_two_consultations_are_exactly_the_golden_text() -> None:
    first, second = both()
    assert first.transcript + second.transcript == GOLDEN.read_text(encoding="utf-8")


def test_at_first_the_better_half_of_the_trajectory_is_exploited_and_the_rest_explored() -> None:
    first, _ = both()
    assert shown(first, 0) == [*WORDS[:2]]
    assert shown(first, 1) == [*WORDS[2:]]


def test_exploring_is_hot_exploiting_is_cool_and_each_brings_half() -> None:
    first, _ = both()
    assert first.temperatures == [1.0, 0.2]
    assert [p.rationale.split(":")[0] for p in first.advice.proposals] == ["exploited"] * 2 + ["explored"] * 2
    odd = talk(Leo(proposals=5), four(), EXPLORED + "\n- a fine film", EXPLOITED + "\n- is it fine or")
    assert [p.rationale.split(":")[0] for p in odd.advice.proposals] == ["exploited"] * 3 + ["explored"] * 2


def test_an_explored_prompt_moves_where_it_beats_the_worst_exploited_one_and_each_pool_keeps_its_best() -> None:
    _, second = both()
    assert shown(second, 0) == ["how does the story", "tell me the mood"]
    assert shown(second, 1) == ["is it good and", "tell me the mood"]


def test_no_later_proposal_drives_out_a_better_prompt() -> None:
    first, _ = both()
    second = talk(SMALL, after(four(), first.advice, [0.9, 0.9, 0.9, 0.9]), "- a fine film", "- is it fine or")
    assert (shown(second, 0), shown(second, 1)) == ([*WORDS[:2]], [*WORDS[2:]])


def test_what_training_found_enters_the_exploit_pool_where_it_beats_its_worst() -> None:
    first, _ = both()
    now = after(four(), first.advice, [0.9, 0.9, 0.9, 0.9])
    found = (scored(prompt_space(), "great film", 0.1, 0.9), scored(prompt_space(), "bad film", 0.75, 0.4))
    ranked = tuple(sorted((*now.scored, *found), key=lambda entry: -entry.score.loss))
    second = talk(SMALL, replace(now, scored=ranked, pool=ranked), EXPLORED.replace("me", "it"), "- is it good about")
    assert shown(second, 0) == [*WORDS[:2]]
    assert shown(second, 1) == ["is it good or", "great film great film"]


def test_one_prompt_alone_is_in_both_pools() -> None:
    result = talk(SMALL, consultation(four().pool[-1:]), EXPLORED, EXPLOITED)
    assert shown(result, 0) == shown(result, 1) == [WORDS[-1]]


def test_a_pool_with_room_takes_its_own_proposals_however_bad_and_no_explored_one_that_is_worse() -> None:
    large, now = replace(SMALL, size=4), consultation(four().pool[-1:])
    result = talk(large, now, EXPLORED, EXPLOITED)
    later = talk(large, after(now, result.advice, [0.8, 0.9, 0.95, 0.85]), "- a fine film", "- is it fine or")
    assert shown(later, 0) == ["tell me the mood", "how does the story", "is it good or"]
    assert shown(later, 1) == ["is it great or", "how does the story", "is it good and", "is it good or"]


def test_a_prompt_without_a_score_is_gone_and_an_empty_pool_takes_its_half_again() -> None:
    first, _ = both()
    story = first.advice.proposals[3].prompt.tokens
    now = after(four(), first.advice, [0.28, 0.9, 0.25, 0.65])
    rest = [entry for entry in now.scored if entry.prompt.tokens != story]
    memory = json.loads(json.dumps(first.advice.memory))
    assert shown(talk(SMALL, following(memory, *rest), "- a fine film", "- is it fine or"), 0) == [
        "poor text was dull",
        "tell me the mood",
    ]
    new = [scored(prompt_space(), words, loss, 0.5) for words, loss in (("bad film", 0.6), ("great film", 0.2))]
    result = talk(SMALL, following(memory, *new), "- a fine film", "- is it fine or")
    assert (shown(result, 0), shown(result, 1)) == (["bad film bad film"], ["great film great film"])


def test_the_memory_is_json_and_goes_on_to_the_same_questions() -> None:
    first, second = both()
    now = after(four(), first.advice, [0.28, 0.9, 0.25, 0.65])
    now = replace(now, memory=json.loads(json.dumps(now.memory)))
    assert talk(SMALL, now, "- what a very fine film", "...", "- is it good about").transcript == second.transcript


def test_the_same_answers_bring_the_same_and_a_cut_dialogue_goes_on_where_it_was() -> None:
    first, again = (talk(SMALL, four(), EXPLORED, EXPLOITED) for _ in range(2))
    assert first.transcript == again.transcript
    for kept in range(3):
        answered = tuple(first.exchanges[:kept])
        rest = talk(SMALL, replace(four(), answered=answered), *[EXPLORED, EXPLOITED][kept:])
        assert rest.advice == first.advice
        assert [e.messages for e in rest.exchanges] == [e.messages for e in first.exchanges[kept:]]


def test_where_one_request_brings_nothing_the_other_counts_and_where_both_do_it_is_said() -> None:
    result = talk(SMALL, four(), "...", EXPLOITED, "...")
    assert result.texts == ["is it good and", "is it great or"]
    assert result.advice.memory is not None
    assert result.advice.memory["explored"] == []
    assert result.exchanges[2].messages[-1].content.startswith("No usable prompt could be read")
    nothing = talk(SMALL, four(), *["..."] * 4)
    assert nothing.advice.fallback == "no usable proposal in the answer"


def test_the_gradient_is_shown_in_both_requests_where_it_is_wanted() -> None:
    result = talk(Leo(show_gradient=True, proposals=4), four(), EXPLORED, EXPLOITED)
    gradients = [e.messages[1].content.count('"good" to "great", "fine"') for e in result.exchanges]
    assert gradients == [0, 1]
    assert all('Gradient: "' in e.messages[1].content for e in result.exchanges)


def test_the_plain_form_is_one_text_that_is_asked_again_as_it_is() -> None:
    result = talk(Leo(form="plain", proposals=4), four(), "...", EXPLOITED, EXPLORED)
    assert [message.role for message in result.exchanges[2].messages] == ["user"]
    assert result.exchanges[0].messages == result.exchanges[2].messages


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"form": "chatt"}, r"strategy\.form=chatt is not known; .*did you mean chat"),
        ({"proposals": 1}, r"strategy\.proposals=1 is too small"),
        ({"size": 0}, r"strategy\.size=0 is too small"),
        ({"words": 1}, r"strategy\.words=1 is too small"),
        ({"explore_temperature": -1}, r"strategy\.explore_temperature=-1 is too small"),
        ({"exploit_temperature": -1}, r"strategy\.exploit_temperature=-1 is too small"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, str], wanted: str) -> None:
    with pytest.raises(ConfigurationError, match=wanted):
        Leo(**settings)  # type: ignore[arg-type]


def test_the_fields_are_the_keys_in_conf() -> None:
    assert {field.name for field in fields(Leo)} == {
        "form",
        "proposals",
        "size",
        "words",
        "explore_temperature",
        "exploit_temperature",
        "show_gradient",
    }
