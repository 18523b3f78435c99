"""Reflection on mistakes: who may be a parent, what a model is shown of its answers, and which children are kept."""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from helpers.dialogues import after, talk
from helpers.tiny import EXAMPLES, TASK, consultation, scored

from llm_catalyst.mentors.base import MentorContext, Trial
from llm_catalyst.mentors.strategies.gepa import Gepa, count_front_wins, draw_minibatches
from llm_catalyst.runs.records import Prompt
from llm_catalyst.utils.validation import ConfigurationError

GOLDEN = Path(__file__).parents[2] / "golden" / "strategy_gepa.txt"
BETTER, WORSE = "- great fine good story", "- dull bad poor movie"  # of the model below


def sharing(prompts: Sequence[Prompt], rows: Sequence[int]) -> list[list[Trial]]:
    """A model that calls a review positive where it shares a word with the prompt."""

    def trial(prompt: Prompt, row: int) -> Trial:
        words = EXAMPLES[row].sequences[0][0].replace(",", "").split()
        answer = int(not set(words).isdisjoint(prompt.text.split()))
        return Trial(0.5, TASK.labels[answer], answer == EXAMPLES[row].label)

    return [[trial(prompt, row) for row in rows] for prompt in prompts]


def asked(model: Callable[..., list[list[Trial]]] = sharing, **changes: Any) -> MentorContext:
    return replace(consultation(), attempt=model, **changes)


def gepa(**settings: Any) -> Gepa:
    return Gepa(**{"proposals": 2, "pareto": 4, **settings})


def test_a_model_is_shown_exactly_the_golden_text() -> None:
    first = talk(gepa(), asked(), BETTER, "Hm.\n- tell me a story")
    second = talk(gepa(form="plain", proposals=1, words=6), after(asked(), first.advice, [0.2]), "...", BETTER)
    said = f"##### first consultation\n{first.transcript}##### second consultation\n{second.transcript}"
    assert said == GOLDEN.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("marks", "weights"),
    [
        (("110", "001"), [2, 1]),  # each is the best somewhere
        (("100", "110", "001"), [0, 2, 1]),  # the first is the best only where the second is, too
        (("110", "110"), [0, 3]),  # where all fail, all are the best; of two that are the same the later one stays
        (("110", "011", "101"), [0, 2, 2]),  # the others are the best wherever the first is
        (("000",), [3]),
    ],
)
def test_parents_are_weighted_by_where_they_are_best_and_the_dominated_are_left_out(
    marks: tuple[str, ...], weights: list[int]
) -> None:
    assert count_front_wins(marks) == weights


def test_only_a_child_that_gets_strictly_more_of_the_minibatch_right_is_proposed() -> None:
    better, same, worse = (talk(gepa(proposals=1), asked(), reply) for reply in (BETTER, "- it is good very", WORSE))
    assert better.texts == ["great fine good story"]
    for refused in (same, worse):
        assert refused.texts == []
        assert refused.advice.fallback is None  # the run carries on: nothing failed
    assert [each.reason for each in (*same.advice.rejected, *worse.advice.rejected)] == [
        "2 of 3 examples right, its parent 2",
        "0 of 3 examples right, its parent 2",
    ]


def test_an_accepted_child_may_be_a_parent_at_once() -> None:
    first, second = talk(gepa(), asked(), BETTER, WORSE).exchanges
    assert 'The prompt: "is it good or"' in first.messages[1].content
    assert 'The prompt: "great fine good story"' in second.messages[1].content


def test_where_no_mistake_is_found_nothing_is_asked() -> None:
    def perfect(prompts: Sequence[Prompt], rows: Sequence[int]) -> list[list[Trial]]:
        return [[Trial(0.1, TASK.labels[EXAMPLES[row].label], True) for row in rows] for _ in prompts]

    advice = talk(gepa(), asked(perfect)).advice
    assert (advice.proposals, advice.fallback) == ((), "no mistake was found to reflect on")


def test_minibatches_go_round_and_are_drawn_beside_the_pareto_examples_while_there_are_enough() -> None:
    assert gepa().select_rows([0, 2, 3, 7], asked()) == [1, 4, 5, 6]
    assert gepa().select_rows([0, 1, 2, 3, 4, 7], asked()) == list(range(8))
    a, b, c, d = islice(draw_minibatches(range(7), 3, random.Random(0)), 4)
    assert len({*a, *b}) == len({*c, *d}) == 6
    assert [len(batch) for batch in islice(draw_minibatches(range(2), 3, random.Random(0)), 2)] == [2, 2]


class Counted:
    """The model above, which remembers the texts that were tried on the Pareto examples."""

    def __init__(self) -> None:
        self.tried: list[str] = []

    def __call__(self, prompts: Sequence[Prompt], rows: Sequence[int]) -> list[list[Trial]]:
        self.tried += [prompt.text for prompt in prompts] * (len(rows) == 4)
        return sharing(prompts, rows)


def test_what_is_remembered_goes_through_json_and_nothing_is_tried_twice() -> None:
    advice = talk(gepa(), asked(), BETTER, WORSE).advice
    again = after(asked(), advice, [0.2])
    model = Counted()
    straight, read_back = (
        talk(gepa(proposals=1), replace(again, attempt=model, memory=memory), WORSE)
        for memory in (advice.memory, json.loads(json.dumps(advice.memory)))
    )
    assert straight.transcript == read_back.transcript
    assert model.tried == []


def test_under_another_head_the_candidates_are_tried_again_on_the_same_examples() -> None:
    """All scores are of this stage then: what was known from the stage before does not hold."""
    advice = talk(gepa(), asked(), BETTER, WORSE).advice
    later = after(asked(), advice, [0.2])
    model = Counted()
    moved = replace(later, attempt=model, scored=tuple(replace(entry, stage=1) for entry in later.scored))
    memory = talk(gepa(proposals=1), moved, WORSE).advice.memory
    assert model.tried == [entry.prompt.text for entry in later.scored]
    assert memory
    assert memory["pareto"] == (advice.memory or {})["pareto"]


def test_a_prompt_that_has_no_score_any_more_is_no_candidate() -> None:
    advice = talk(gepa(), asked(), BETTER, WORSE).advice
    gone = after(asked(), replace(advice, proposals=()), [])
    memory = talk(gepa(proposals=1), gone, WORSE).advice.memory
    assert memory
    assert [16, 18, 14, 13] not in [tokens for tokens, _ in memory["right"]]


def test_only_the_best_scored_prompts_are_candidates() -> None:
    memory = talk(gepa(proposals=1, candidates=1), asked(), WORSE).advice.memory
    assert memory
    assert [tokens for tokens, _ in memory["right"]] == [list(asked().pool[-1].prompt.tokens)]


def test_a_consultation_that_was_cut_off_goes_the_same_way() -> None:
    replies = ("...", BETTER, "- is it good or", WORSE)  # nothing; better; known; worse
    whole = talk(gepa(), asked(), *replies)
    for kept in range(len(replies) + 1):
        rest = talk(gepa(), asked(answered=tuple(whole.exchanges[:kept])), *replies[kept:])
        assert rest.advice == whole.advice
        assert [e.messages for e in rest.exchanges] == [e.messages for e in whole.exchanges[kept:]]


def test_useless_answers_bring_nothing_and_are_named() -> None:
    advice = talk(gepa(), asked(), "", "好", "- 好", "I cannot help with that.").advice
    assert advice.proposals == ()
    assert advice.fallback == "no usable proposal in the answer"


def test_a_pool_of_one_is_enough_and_an_empty_one_is_named() -> None:
    alone = (scored(consultation().space, "dull", 0.7, 0.4),)
    assert talk(gepa(proposals=1), asked(pool=alone, scored=alone), "- great fine good story").texts
    assert talk(gepa(), asked(pool=(), scored=())).advice.fallback == "the pool is empty"


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"form": "chatt"}, r"strategy\.form=chatt is not known; .*did you mean chat"),
        ({"proposals": 0}, r"strategy\.proposals=0 is too small"),
        ({"minibatch": 0}, r"strategy\.minibatch=0 is too small"),
        ({"pareto": 0}, r"strategy\.pareto=0 is too small"),
        ({"candidates": 0}, r"strategy\.candidates=0 is too small"),
        ({"temperature": -1}, r"strategy\.temperature=-1 is too small"),
        ({"words": 1}, r"strategy\.words=1 is too small"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], wanted: str) -> None:
    with pytest.raises(ConfigurationError, match=wanted):
        Gepa(**settings)


def test_the_fields_are_the_keys_in_conf() -> None:
    names = {"form", "proposals", "minibatch", "pareto", "candidates", "temperature", "words"}
    assert {field.name for field in fields(Gepa)} == names
