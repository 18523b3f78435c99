"""Instructions guessed from demonstrations, ranked on training examples, and then varied."""

import json
import random
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from helpers.dialogues import Talk, after, first_request, talk
from helpers.tiny import EXAMPLES, consultation

from llm_catalyst.mentors.base import MentorContext, Trial
from llm_catalyst.mentors.strategies.ape import Ape
from llm_catalyst.runs.records import Advice, Prompt
from llm_catalyst.utils.validation import ConfigurationError

GOLDEN = Path(__file__).parents[2] / "golden" / "strategy_ape.txt"
SMALL = Ape(proposals=2, subsets=2, demonstrations=3, candidates=3, examples=4, best=2)
GUESSES = (
    "Here you are:\n- is it bad\n- what is the mood\n- is it good",
    "1. is it a great film\n2. IS IT GOOD\n3. great movie or fine film",
)
VARIATIONS = ("- is this film great or poor\n- great story", "- find the mood\n- a very fine movie")


def attempt(prompts: Sequence[Prompt], rows: Sequence[int]) -> list[list[Trial]]:
    """The more words of praise are in a prompt, the likelier are the answers under it; "bad" is no good at all."""
    praise = [sum(prompt.text.count(word) for word in ("good", "great", "fine")) for prompt in prompts]
    losses = [float("nan") if "bad" in prompt.text else 1 - n / 5 for prompt, n in zip(prompts, praise, strict=True)]
    return [[Trial(loss, "", EXAMPLES[row].label == 1) for row in rows] for loss in losses]


def first() -> MentorContext:
    return replace(consultation(), attempt=attempt)


def second(advice: Advice) -> MentorContext:
    """The consultation after the first: one of its two proposals is the best so far, and the other one the third."""
    return replace(after(first(), advice, [0.2, 0.5]), rng=random.Random(1))


def guessed() -> Talk:
    return talk(SMALL, first(), *GUESSES)


def asked(result: Talk) -> list[str]:
    return [exchange.messages[-1].content for exchange in result.exchanges]


def test_two_consultations_are_the_golden_text() -> None:
    one = guessed()
    two = talk(SMALL, second(one.advice), *VARIATIONS)
    assert one.transcript + "\n" + two.transcript == GOLDEN.read_text(encoding="utf-8")


def test_the_guesses_under_which_the_answers_are_likeliest_are_proposed_best_first() -> None:
    one = guessed()
    assert one.texts == ["great movie or fine", "is it good is"]
    assert [p.rationale for p in one.advice.proposals] == [
        "from demonstrations, loss 0.600 on 4 training examples",
        "from demonstrations, loss 0.800 on 4 training examples",
    ]


def test_the_others_are_told_with_their_loss_and_one_that_is_no_number_stands_last() -> None:
    rejected = [(r.line, r.reason.rpartition(", ")[2]) for r in guessed().advice.rejected]
    assert rejected[-3:] == [
        ("is it a great", "loss 0.800 on 4 training examples: not among the best 2"),
        ("what is the mood", "loss 1.000 on 4 training examples: not among the best 2"),
        ("is it bad is", "loss nan on 4 training examples: not among the best 2"),
    ]


def test_each_question_shows_other_training_examples_with_their_answers_and_nothing_else() -> None:
    for text in asked(guessed()):
        shown = [example for example in EXAMPLES if f"Input: {example.sequences[0][0]}\nOutput: " in text]
        assert len(shown) == text.count("Input:") == 3
        assert first().task.text not in text
        assert "loss" not in text.lower()
    assert len(set(asked(guessed()))) == 2


def test_all_candidates_are_tried_once_on_the_same_examples() -> None:
    tried: list[tuple[int, list[int]]] = []

    def counted(prompts: Sequence[Prompt], rows: Sequence[int]) -> list[list[Trial]]:
        tried.append((len(prompts), list(rows)))
        return attempt(prompts, rows)

    talk(SMALL, replace(first(), attempt=counted), *GUESSES)
    ((prompts, rows),) = tried
    assert prompts == 5
    assert len(set(rows)) == 4
    assert set(rows) <= set(range(len(EXAMPLES)))


def test_later_consultations_vary_the_best_prompts_whoever_found_them() -> None:
    two = talk(SMALL, second(guessed().advice), *VARIATIONS)
    assert ['Text: "great movie or fine"' in asked(two)[0], 'Text: "is it good or"' in asked(two)[1]] == [True, True]
    assert two.texts == ["great story great story", "is this film great"]
    assert two.advice.proposals[0].rationale.startswith('a variation of "great movie or fine", loss 0.600')
    assert two.temperatures == [0.9, 0.9]


def test_a_prompt_that_is_gone_is_not_varied() -> None:
    later = second(guessed().advice)
    two = talk(SMALL, replace(later, scored=later.scored[:-1]), *VARIATIONS)
    assert ['Text: "is it good or"' in asked(two)[0], 'Text: "is it good is"' in asked(two)[1]] == [True, True]


def test_where_nothing_was_scored_it_guesses_again() -> None:
    later = replace(second(guessed().advice), pool=(), scored=())
    assert all("Input:" in text for text in asked(talk(SMALL, later, *GUESSES)))


def test_where_no_guess_was_usable_the_next_consultation_guesses_anew() -> None:
    failed = talk(SMALL, first(), *["..."] * 4)
    assert failed.advice.proposals == ()
    assert failed.advice.memory is None
    assert failed.advice.fallback == "no usable proposal in the answer"
    again = talk(SMALL, after(first(), failed.advice, []), *GUESSES)
    assert all("Input:" in text for text in asked(again))


def test_one_useless_answer_does_not_spoil_the_others() -> None:
    one = talk(SMALL, first(), "...", GUESSES[1], "!!!")
    assert one.texts == ["great movie or fine", "is it a great"]
    assert one.advice.memory == {"guessed": True}


def test_fewer_examples_than_asked_for_are_all_used() -> None:
    one = talk(Ape(subsets=1, demonstrations=50, examples=500), first(), GUESSES[0])
    assert asked(one)[0].count("Input:") == len(EXAMPLES)
    assert "on 8 training examples" in one.advice.proposals[0].rationale


def test_a_memory_that_was_saved_goes_on_to_the_same_questions() -> None:
    later = second(guessed().advice)
    saved = replace(later, memory=json.loads(json.dumps(later.memory)))
    wanted = talk(SMALL, later, *VARIATIONS).transcript
    assert talk(SMALL, replace(saved, rng=random.Random(1)), *VARIATIONS).transcript == wanted


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_a_dialogue_that_was_cut_off_goes_on_with_the_same_questions(kept: int) -> None:
    whole = guessed()
    rest = talk(SMALL, replace(first(), answered=tuple(whole.exchanges[:kept])), *GUESSES[kept:])
    assert rest.advice == whole.advice
    assert asked(rest) == asked(whole)[kept:]


def test_a_plain_question_is_one_text_and_is_asked_again_as_it_is() -> None:
    plain = replace(SMALL, form="plain")
    request = first_request(plain, first())
    (message,) = request.messages
    assert message.content.endswith("Instructions:\n")
    assert request.remind("nonsense") == ()
    assert "3 instructions" in first_request(SMALL, first()).remind("nonsense")[-1].content


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"form": "chatt"}, r"strategy\.form=chatt is not known; .*did you mean chat"),
        ({"subsets": 0}, r"strategy\.subsets=0 is too small"),
        ({"demonstrations": 0}, r"strategy\.demonstrations=0 is too small"),
        ({"candidates": 65}, r"strategy\.candidates=65 is out of range; it must lie between 1 and 64"),
        ({"best": 0}, r"strategy\.best=0 is too small"),
        ({"temperature": -0.1}, r"strategy\.temperature=-0\.1 is too small"),
        ({"words": 1}, r"strategy\.words=1 is too small"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], wanted: str) -> None:
    with pytest.raises(ConfigurationError, match=wanted):
        Ape(**settings)


def test_the_fields_are_the_keys_in_conf() -> None:
    assert {field.name for field in fields(Ape)} == {
        "form",
        "proposals",
        "subsets",
        "demonstrations",
        "candidates",
        "examples",
        "best",
        "temperature",
        "words",
    }
