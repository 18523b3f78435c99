"""Many prompts by the paper's question, of which the best and most different ones are proposed."""

import random
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.dialogues import Talk, after, first_request, talk
from helpers.tiny import EXAMPLES, consultation, prompt_space

from llm_catalyst.mentors.base import MentorContext, Trial
from llm_catalyst.mentors.strategies.paper import Paper
from llm_catalyst.mentors.strategies.rank import Rank, choose_diverse, cosine_similarities, find_near_duplicates
from llm_catalyst.runs.records import Prompt
from llm_catalyst.utils.validation import ConfigurationError

GOLDEN = Path(__file__).parents[2] / "golden" / "strategy_rank.txt"
SMALL = Rank(proposals=2, candidates=6, examples=4, diversity=0.9, show_gradient=True)
CANDIDATES = (
    "- good great fine movie\n- movie fine great good\n- good great fine story\n- tell me the mood\n"
    "- is it good\n- dull",
    "- find the very mood\n- a fine review",
)
# Of four candidates the second is nearly the first, the third lies between, the fourth is far from all.
FOUR = torch.tensor([[1.0, 0.98, 0.6, 0.1], [0.98, 1.0, 0.6, 0.1], [0.6, 0.6, 1.0, 0.2], [0.1, 0.1, 0.2, 1.0]])


def attempt(prompts: Sequence[Prompt], rows: Sequence[int]) -> list[list[Trial]]:
    """The more words of praise are in a prompt, the likelier are the answers under it."""
    praise = [sum(prompt.text.count(word) for word in ("good", "great", "fine")) for prompt in prompts]
    return [[Trial(1 - n / 5, "", EXAMPLES[row].label == 1) for row in rows] for n in praise]


def first() -> MentorContext:
    return replace(consultation(), attempt=attempt)


def selected(strategy: Rank = SMALL, script: Sequence[str] = CANDIDATES[:1]) -> Talk:
    return talk(strategy, first(), *script)


def test_two_consultations_are_the_golden_text() -> None:
    one = selected()
    later = replace(after(first(), one.advice, [0.2, 0.5]), rng=random.Random(1))
    two = talk(SMALL, later, CANDIDATES[1])
    assert one.transcript + "\n" + two.transcript == GOLDEN.read_text(encoding="utf-8")


def test_the_best_is_proposed_first_and_then_one_that_is_unlike_it() -> None:
    assert selected().texts == ["good great fine movie", "tell me the mood"]
    assert selected(replace(SMALL, diversity=0)).texts == ["good great fine movie", "good great fine story"]


def test_all_that_is_dropped_is_told_with_its_loss_and_the_reason() -> None:
    rejected = {r.line: r.reason for r in selected().advice.rejected}
    assert rejected["movie fine great good"] == (
        'loss 0.400 on 4 training examples: nearly "good great fine movie" (cosine 1.000)'
    )
    assert rejected["dull dull dull dull"] == "loss 1.000 on 4 training examples: not among the 2 chosen"
    assert len(rejected) + len(selected().texts) == 6


def test_the_question_is_that_of_the_paper_for_more_prompts() -> None:
    (exchange,) = selected().exchanges
    paper = Paper(proposals=6, show_gradient=True)
    assert exchange.messages == first_request(paper, first()).messages
    assert "Gradient: " in exchange.messages[1].content
    (exchange,) = selected(replace(SMALL, description="Judge films.", words=5, show_gradient=False)).exchanges
    assert "Judge films." in exchange.messages[1].content
    assert "fewer than 5 words" in exchange.messages[1].content
    assert "Gradient" not in exchange.messages[1].content


def test_a_prompt_too_like_a_better_one_that_stays_is_a_double() -> None:
    assert find_near_duplicates(FOUR, 0.95) == {1: 0}
    assert find_near_duplicates(FOUR, 0.5) == {1: 0, 2: 0}
    assert find_near_duplicates(FOUR, 1.0) == {}
    chain = torch.tensor([[1.0, 0.96, 0.9], [0.96, 1.0, 0.96], [0.9, 0.96, 1.0]])
    assert find_near_duplicates(chain, 0.95) == {1: 0}, "the third is like the second alone, which does not stay"


def test_the_choice_weighs_goodness_against_the_likeness_to_what_was_chosen() -> None:
    """After the first, the others' goodness is 2/3, 1/3 and 0, and their closeness to it 1, 0.57 and 0."""
    assert choose_diverse(FOUR, 3, diversity=0) == [0, 1, 2]
    assert choose_diverse(FOUR, 2, diversity=0.6) == [0, 1]
    assert choose_diverse(FOUR, 2, diversity=0.7) == [0, 3]
    assert choose_diverse(FOUR, 4, diversity=1) == [0, 3, 2, 1]


def test_the_choice_depends_on_no_scale_of_the_cosines() -> None:
    narrow = 0.9 + FOUR / 100  # as where all embeddings point the same way
    assert (
        [choose_diverse(narrow, 2, d) for d in (0.6, 0.7)]
        == [choose_diverse(FOUR, 2, d) for d in (0.6, 0.7)]
        == [[0, 1], [0, 3]]
    )


@pytest.mark.parametrize("n", [1, 2, 3])
def test_candidates_that_are_few_or_equally_alike_are_taken_in_their_order(n: int) -> None:
    assert choose_diverse(torch.full((n, n), 0.3), 5, diversity=2) == list(range(n))


def test_likeness_is_the_one_by_which_the_spread_of_proposals_is_told() -> None:
    space = prompt_space()
    two = [space.fit(text)[0] for text in ("is it good", "tell me the mood")]
    assert 1 - cosine_similarities(two, space)[0, 1].item() == pytest.approx(space.spread(two), abs=1e-6)


def test_the_same_answer_brings_the_same_choice_and_one_kept_from_before_is_not_asked_for_again() -> None:
    whole = selected()
    assert selected().transcript == whole.transcript
    rest = talk(SMALL, replace(first(), answered=tuple(whole.exchanges)))
    assert rest.advice == whole.advice
    assert rest.exchanges == []


def test_it_remembers_nothing_and_needs_no_pool() -> None:
    result = talk(SMALL, replace(first(), pool=(), scored=()), CANDIDATES[0])
    assert len(result.texts) == 2
    assert result.advice.memory is None
    assert "Prompt:" not in result.exchanges[0].messages[1].content


def test_useless_answers_bring_no_proposal() -> None:
    result = selected(script=("...", "!!!"))
    assert result.advice.proposals == ()
    assert result.advice.fallback == "no usable proposal in the answer"


def test_where_fewer_candidates_come_than_are_to_be_chosen_all_are_proposed() -> None:
    assert selected(script=("- tell me the mood",)).texts == ["tell me the mood"]


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"form": "chatt"}, r"strategy\.form=chatt is not known; .*did you mean chat"),
        ({"proposals": 5, "candidates": 4}, r"strategy\.candidates=4 is out of range; it must lie between 5 and 64"),
        ({"examples": 0}, r"strategy\.examples=0 is too small"),
        ({"similarity": 1.5}, r"strategy\.similarity=1\.5 is out of range"),
        ({"diversity": -1}, r"strategy\.diversity=-1 is too small"),
        ({"temperature": -0.1}, r"strategy\.temperature=-0\.1 is too small"),
        ({"words": 1}, r"strategy\.words=1 is too small"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], wanted: str) -> None:
    with pytest.raises(ConfigurationError, match=wanted):
        Rank(**settings)


def test_the_fields_are_the_keys_in_conf() -> None:
    assert {field.name for field in fields(Rank)} == {
        "form",
        "description",
        "proposals",
        "candidates",
        "examples",
        "similarity",
        "diversity",
        "temperature",
        "words",
        "show_gradient",
    }
