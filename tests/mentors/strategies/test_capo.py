"""Evolution with races: what a model is shown, which examples come into prompts, and who survives."""

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.dialogues import after, talk
from helpers.tiny import EXAMPLES, TASK, consultation, prompt_space, scored
from scipy import stats

from llm_catalyst.mentors.base import MentorContext, Trial
from llm_catalyst.mentors.strategies.capo import (
    Capo,
    CapoMember,
    CapoSchedule,
    count_better,
    make_child,
    make_member,
    member_from_prompt,
)
from llm_catalyst.runs.records import Prompt
from llm_catalyst.utils.validation import ConfigurationError

GOLDEN = Path(__file__).parents[2] / "golden" / "strategy_capo.txt"
SPACE = prompt_space(length=16)
POOL = (scored(SPACE, "dull of dull of", 0.7, 0.5), scored(SPACE, "is it good or bad", 0.3, 0.9))
FIRST = ("- tell me the mood", "- is it good or dull", "- good story", "- is the film great", "- find the good mood")
SECOND = ("- great good movie", "- great fine good story", "- good fine", "- was it fine or good")


class Model:
    """Calls a review positive where it shares a word with the prompt; `tried` are the prompts and examples it saw."""

    def __init__(self) -> None:
        self.tried: list[tuple[str, int]] = []

    def __call__(self, prompts: Sequence[Prompt], rows: Sequence[int]) -> list[list[Trial]]:
        self.tried += [(prompt.text, row) for prompt in prompts for row in rows]
        return [[self.trial(prompt, row) for row in rows] for prompt in prompts]

    def trial(self, prompt: Prompt, row: int) -> Trial:
        words = EXAMPLES[row].sequences[0][0].replace(",", "").split()
        answer = int(not set(words).isdisjoint(prompt.text.split()))
        return Trial(0.5, TASK.labels[answer], answer == EXAMPLES[row].label)


def asked(model: Callable[..., list[list[Trial]]] | None = None, **changes: Any) -> MentorContext:
    return replace(
        consultation(POOL), **{"attempt": model or Model(), "space": SPACE, "rng": random.Random(3), **changes}
    )


def capo(**settings: Any) -> Capo:
    return Capo(**{"proposals": 2, "population": 3, "crossovers": 2, "block": 4, "blocks": 2, **settings})


def member(text: str, length: int = 4, right: str = "") -> CapoMember:
    return CapoMember(SPACE.fit(text)[0], text, (), length, right=right)


def test_a_model_is_shown_exactly_the_golden_text() -> None:
    first = talk(capo(), asked(), *FIRST)
    second = talk(capo(form="plain", words=6), after(asked(), first.advice, [0.2] * 2), "...", *SECOND)
    said = f"##### first consultation\n{first.transcript}##### second consultation\n{second.transcript}"
    assert said == GOLDEN.read_text(encoding="utf-8")


def test_a_candidate_counts_those_that_are_significantly_better() -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 2, (6, 30)).astype(float)
    wanted = [
        sum(stats.ttest_rel(other, mine, alternative="greater").pvalue < 0.2 for other in scores if other is not mine)
        for mine in scores
    ]
    assert count_better(scores, 0.2) == wanted
    assert 0 < sum(wanted) < 30


def test_candidates_that_differ_by_the_same_everywhere_leave_no_doubt() -> None:
    alike = np.array([[1.0, 0.0, 1.0], [1.0, 0.0, 1.0]])
    assert count_better(alike, 0.2) == [0, 0]
    assert count_better(alike - [[0.05], [0.01]], 0.2) == [1, 0]  # the first is the longer one
    assert count_better(np.array([[1.0], [0.0]]), 0.2) == [0, 1]


def test_who_is_beaten_by_enough_others_is_not_tried_on_the_next_block() -> None:
    def model(prompts: Sequence[Prompt], rows: Sequence[int]) -> list[list[Trial]]:
        tried.append([prompt.text.split()[0] for prompt in prompts])
        wrong = {"good": [], "great": [], "fine": [2], "bad": [0, 1, 3]}
        return [[Trial(0.5, "", row not in wrong[prompt.text.split()[0]]) for row in rows] for prompt in prompts]

    tried: list[list[str]] = []
    bad, fine, good, great = map(member, ("bad", "fine", "good", "great"))
    schedule = CapoSchedule([[0, 1, 2, 3], [4, 5]], [], 4)
    survivors = capo(population=2, alpha=0.1).race([bad, fine, good, great], schedule, asked(model))
    assert tried == [["bad", "fine", "good", "great"], ["fine", "good", "great"]]
    assert [(each.instruction, each.right) for each in survivors] == [("good", "111111"), ("great", "111111")]
    capo(population=2, alpha=0.1).race([bad, good, great], schedule, asked(model))
    assert tried[2:] == [["bad", "good", "great"]]  # then two were left


def test_among_equals_the_shorter_prompt_is_first_and_without_a_penalty_the_earlier() -> None:
    long, short = member("good movie review", 3, "11"), member("good", 1, "11")
    schedule = CapoSchedule([[0, 1]], [], 4)
    assert capo().race([long, short], schedule, asked()) == [short, long]
    assert capo(penalty=0).race([long, short], schedule, asked()) == [long, short]


def test_examples_stand_in_a_prompt_where_all_of_it_fits() -> None:
    (large,) = make_member("is it good", [5, 0, 4], asked(), "")
    assert large.shots == (5, 0)  # "it was great", another, and no place for a third one
    assert large.length == 14
    assert large.prompt.text.startswith("is it good : it was great : positive")
    (tight,) = make_member("is it good", [5], asked(space=prompt_space(length=8)), "")
    assert (tight.shots, tight.length) == ((), 3)
    (cut,) = make_member("is it good or bad", [5], asked(space=prompt_space(length=4)), "")
    assert (cut.shots, cut.length, cut.lost) == ((), 4, "bad")
    assert make_member("好", [], asked(), "") == []


def test_a_prompt_of_the_pool_is_a_member_by_the_text_that_was_repeated_in_it() -> None:
    for text, instruction, length in (("is it good or bad", "is it good or bad", 5), ("dull dull", "dull", 1)):
        prompt = SPACE.fit(text)[0]
        assert member_from_prompt(prompt, SPACE) == CapoMember(prompt, instruction, (), length)
    odd = SPACE.prompt(range(20, 36))
    assert member_from_prompt(odd, SPACE) == CapoMember(odd, odd.text, (), 16)


def test_a_child_takes_half_of_the_examples_and_gains_or_loses_one_a_third_of_the_time_each() -> None:
    mother, father = replace(member("good"), shots=(1, 2)), replace(member("fine"), shots=(3, 4))
    consultation, schedule = asked(space=prompt_space(length=64)), CapoSchedule([], [5, 6, 7], 4)

    def child(shots: int) -> CapoMember:
        crossing = capo(shots=shots).cross_parents([mother, father], schedule, consultation.rng)
        return make_child(crossing, "great", consultation)[0]

    children = [child(shots=3) for _ in range(600)]
    sizes = Counter(len(each.shots) for each in children)
    assert {size: round(n / 100) for size, n in sizes.items()} == {1: 2, 2: 2, 3: 2}
    assert {row for each in children for row in each.shots} == {1, 2, 3, 4, 5, 6, 7}
    assert len({each.shots for each in children if set(each.shots) == {1, 2}}) == 2  # in either order
    assert max(len(child(shots=2).shots) for _ in range(50)) == 2


def test_a_tenth_of_the_examples_is_held_back_and_the_others_stand_in_blocks() -> None:
    task = replace(asked().task, examples=EXAMPLES * 4)
    schedule = Capo(block=10, blocks=2).make_schedule(asked(task=task))
    assert [len(block) for block in schedule.blocks] == [10, 10]
    rows = [*schedule.held_back, *schedule.blocks[0], *schedule.blocks[1]]
    assert len(schedule.held_back) == 4
    assert len(set(rows)) == 24
    assert [len(block) for block in Capo().make_schedule(asked(task=task)).blocks] == [28]
    alone = Capo().make_schedule(asked(task=replace(task, examples=EXAMPLES[:1])))
    assert (alone.blocks, alone.held_back) == ([[0]], [0])


def test_survivors_that_the_run_has_not_scored_are_proposed_later() -> None:
    first = talk(capo(proposals=1), asked(), *FIRST)
    second = talk(capo(proposals=3), after(asked(), first.advice, [0.2]), *["..."] * 4)
    assert len(first.texts) == 1
    assert second.texts == [each.prompt.text for each in second.advice.proposals]
    assert set(second.texts).isdisjoint(first.texts)
    assert len(second.texts) == 2


def test_what_is_remembered_goes_through_json_and_no_block_is_paid_for_twice() -> None:
    first_model, second_model = Model(), Model()
    advice = talk(capo(), asked(first_model), *FIRST).advice
    straight, read_back = (
        talk(capo(), replace(after(asked(second_model), advice, [0.2] * 2), memory=memory), *SECOND)
        for memory in (advice.memory, json.loads(json.dumps(advice.memory)))
    )
    assert straight.transcript == read_back.transcript
    assert second_model.tried
    assert set(first_model.tried).isdisjoint(second_model.tried)


def test_under_another_head_the_members_are_tried_again() -> None:
    """All scores are of this stage then: what was known from the stage before does not hold."""
    advice = talk(capo(), asked(), *FIRST).advice
    later, model = after(asked(), advice, [0.2] * 2), Model()
    moved = tuple(replace(entry, stage=1) for entry in later.scored)
    talk(capo(), replace(later, attempt=model, scored=moved), *SECOND)
    assert {text for text, _ in model.tried} > {SPACE.decode(each["prompt"]) for each in population(advice.memory)}


def test_a_member_without_a_score_on_dev_stays_until_it_loses_a_race() -> None:
    advice = talk(capo(), asked(), *FIRST).advice
    vanished = after(asked(), replace(advice, proposals=()), [])
    memory = talk(capo(), vanished, *["..."] * 4).advice.memory
    assert population(memory) == population(advice.memory)


def test_what_training_found_joins_the_population() -> None:
    advice = talk(capo(), asked(), *FIRST).advice
    later = after(asked(), advice, [0.2] * 2)
    found = replace(scored(SPACE, "great fine good story", 0.1, 1.0), stage=1)
    trained = replace(later, pool=(*later.pool, found), scored=(*later.scored, found))
    memory = talk(capo(crossovers=1), trained, *SECOND[2:]).advice.memory
    assert found.prompt.text in [SPACE.decode(each["prompt"]) for each in population(memory)]


def population(memory: Any) -> list[dict[str, Any]]:
    return list(memory["population"])


def test_an_empty_pool_is_written_by_the_model() -> None:
    prompts = "- is it good\n- tell me the mood\n- find the mood\n- judge it"
    advice = talk(
        capo(crossovers=1, proposals=3), asked(pool=(), scored=()), prompts, "- good mood", "- great mood"
    ).advice
    assert advice.fallback is None
    assert len(advice.proposals) == len(population(advice.memory)) == 3
    assert "judge it" not in [each["instruction"] for each in population(advice.memory)]  # three were asked for


def test_useless_answers_bring_no_child_and_where_there_is_nobody_to_cross_they_are_named() -> None:
    alone = talk(capo(), asked(pool=POOL[:1], scored=POOL[:1]), "", "...")
    assert alone.advice.fallback == "no usable proposal in the answer"
    two = talk(capo(), asked(), *["..."] * 6)
    assert two.advice.fallback == "no usable proposal in the answer"
    merged = talk(capo(population=2, crossovers=1), asked(), "- great fine good", "...", "...")
    assert merged.texts[0].startswith("great fine good")  # not rephrased


def test_a_consultation_that_was_cut_off_goes_the_same_way() -> None:
    replies = ("...", *FIRST)
    whole = talk(capo(), asked(), *replies)
    for kept in range(len(replies) + 1):
        rest = talk(capo(), asked(answered=tuple(whole.exchanges[:kept])), *replies[kept:])
        assert rest.advice == whole.advice
        assert [e.messages for e in rest.exchanges] == [e.messages for e in whole.exchanges[kept:]]


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"form": "chatt"}, r"strategy\.form=chatt is not known; .*did you mean chat"),
        ({"proposals": 0}, r"strategy\.proposals=0 is too small"),
        ({"population": 1}, r"strategy\.population=1 is too small"),
        ({"crossovers": 0}, r"strategy\.crossovers=0 is too small"),
        ({"shots": -1}, r"strategy\.shots=-1 is too small"),
        ({"block": 0}, r"strategy\.block=0 is too small"),
        ({"blocks": 0}, r"strategy\.blocks=0 is too small"),
        ({"alpha": 2.0}, r"strategy\.alpha=2\.0 is out of range"),
        ({"penalty": -0.1}, r"strategy\.penalty=-0\.1 is too small"),
        ({"temperature": -1}, r"strategy\.temperature=-1 is too small"),
        ({"words": 1}, r"strategy\.words=1 is too small"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], wanted: str) -> None:
    with pytest.raises(ConfigurationError, match=wanted):
        Capo(**settings)


def test_the_fields_are_the_keys_in_conf() -> None:
    numbers = {"proposals", "population", "crossovers", "shots", "block", "blocks", "alpha", "penalty", "words"}
    assert {field.name for field in fields(Capo)} == {"form", "temperature", *numbers}
