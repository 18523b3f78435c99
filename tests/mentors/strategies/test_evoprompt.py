"""EvoPrompt as a genetic algorithm and as differential evolution: what a model is shown, who lives on, who breeds."""

import json
import random
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path

import pytest
from helpers import tiny
from helpers.dialogues import Talk, after, talk

from llm_catalyst.mentors.base import MentorContext
from llm_catalyst.mentors.strategies.evoprompt import EvoPromptDE, EvoPromptGA, parse_last_prompt, select_parents
from llm_catalyst.runs.records import Advice, Score, ScoredPrompt
from llm_catalyst.utils.validation import ConfigurationError

GOLDEN = Path(__file__).parents[2] / "golden"
SPACE = tiny.prompt_space()
TEXTS = "dull of dull of|is it good or|tell me the mood|what is this film|judge this movie review".split("|")  # noqa: SIM905
BRED = (
    '1. Crossover: "is it dull or"\n2. Mutation: <prompt>say how fine it is</prompt>',
    "<think>\n<prompt>no</prompt> is short.\n</think>\nThe result: <prompt>find the mood in this</prompt>",
    "Sorry, I cannot do that.",
    "1. Crossover: what is the story\n2. Mutation: <prompt>Was the story great?</prompt>",
)
EVOLVED = (
    '1. Differences: "dull" and "good"\n2. Mutation: "dull" to "poor"\n3. Combination: "is it poor or good"\n'
    "4. Crossover: <prompt>say how fine it is</prompt>",
    "<prompt>find the mood in this</prompt>",
    "<prompt>Was the story great?</prompt>",
)
LATER = (
    "<prompt>how fine is it</prompt>",
    "4. Crossover: <prompt>how great is it</prompt>",
    "<prompt>how bad</prompt>",
)


def consultation(*losses: float, stage: int = 0) -> MentorContext:
    """One about the first of TEXTS under these losses, each with the metric 1 - loss."""
    entries = [tiny.scored(SPACE, text, loss, 1 - loss) for text, loss in zip(TEXTS, losses, strict=False)]
    pool = tuple(sorted(entries, key=lambda entry: -entry.score.loss))
    return replace(tiny.consultation(pool), stage=stage)


def found(text: str, loss: float, stage: int) -> ScoredPrompt:
    """A prompt that training found in this stage."""
    return replace(tiny.scored(SPACE, text, loss, 1 - loss), stage=stage)


def members(strategy: EvoPromptDE, consulted: MentorContext) -> list[str]:
    return [member.prompt.text for member in strategy.update_members(consulted)]


def shown(dialogue: Talk, number: int) -> list[str]:
    """The prompts in a question of form chat, in their order."""
    content = dialogue.exchanges[number].messages[1].content
    lines = content.split("Now with these:\n")[1].splitlines()
    return [json.loads(line.split(": ", 1)[1]) for line in lines if line.startswith("Prompt ")]


def test_a_model_is_shown_exactly_the_golden_text_by_the_genetic_algorithm() -> None:
    strategy, first = EvoPromptGA(population=3), consultation(0.7, 0.3)
    filled = talk(strategy, first, "- tell me the mood\n- what is this")
    bred = talk(strategy, after(first, filled.advice, [0.5]), *BRED)
    result = f"######## the first consultation\n{filled.transcript}######## the second\n{bred.transcript}"
    assert result == (GOLDEN / "strategy_evoprompt_ga.txt").read_text(encoding="utf-8")


def test_a_model_is_shown_exactly_the_golden_text_by_differential_evolution() -> None:
    strategy, first = EvoPromptDE(population=3, form="plain", show_task=False), consultation(0.7, 0.3)
    filled = talk(strategy, first, "- tell me the mood")
    second = after(first, filled.advice, [0.5])
    bred = talk(strategy, second, *EVOLVED)
    again = talk(strategy, after(second, bred.advice, [0.4, 0.2, 0.6]), *LATER)
    result = (
        f"######## the first consultation\n{filled.transcript}######## the second\n{bred.transcript}"
        f"######## the third\n{again.transcript}"
    )
    assert result == (GOLDEN / "strategy_evoprompt_de.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("strategy", [EvoPromptGA(population=8), EvoPromptDE(population=8)])
def test_what_the_population_lacks_is_asked_for_in_even_shares_the_best_prompts_first(
    strategy: EvoPromptGA | EvoPromptDE,
) -> None:
    """Five are missing of eight, and three are there: 2, 2, 1; the second falls short, so the third is asked for 2."""
    answers = (
        "- how good\n- how great\n- how fine",
        "- tell me\n- tell me",
        "- was it dull\n- was it good\n- was it bad",
    )
    dialogue = talk(strategy, consultation(0.7, 0.3, 0.5), *answers)
    asked = [exchange.messages[-1].content for exchange in dialogue.exchanges]
    assert [f"Prompt: {json.dumps(TEXTS[i])}" in text for i, text in zip((1, 2, 0), asked, strict=True)] == [True] * 3
    assert ["2 variations" in text for text in asked] == [True] * 3
    assert len(dialogue.advice.proposals) == 5
    assert dialogue.advice.proposals[0].rationale == "a paraphrase of 'is it good or'"
    assert dialogue.advice.memory is None


def test_the_best_of_parents_and_children_breed_next_whoever_found_them() -> None:
    first = consultation(0.7, 0.5, 0.6)
    bred = talk(EvoPromptGA(population=3), first, *(answer for answer in BRED if "prompt>" in answer))
    second = after(first, bred.advice, [0.4, 0.9, 0.2])
    second = replace(second, scored=(*second.scored, found("good movie", 0.1, stage=1)))
    dialogue = talk(EvoPromptGA(population=3), second, *LATER)
    parents = {text for number in range(3) for text in shown(dialogue, number)}
    assert parents <= {"good movie good movie", "was the story great", "say how fine it"}


def test_one_order_selects_and_lets_survive_the_metric_and_then_the_loss() -> None:
    """The lowest loss has the lowest metric here: it neither survives nor breeds."""
    entries = [
        ScoredPrompt(SPACE.fit(text)[0], Score(loss, metric, 32), "gradient", 0)
        for text, loss, metric in zip(TEXTS, (0.1, 0.9, 0.8, 0.5), (0.2, 0.6, 0.6, 0.5), strict=False)
    ]
    dialogue = talk(EvoPromptGA(population=2), tiny.consultation(tuple(entries)), *EVOLVED[:2])
    assert set(shown(dialogue, 0)) == set(shown(dialogue, 1)) == {TEXTS[1], TEXTS[2]}
    slots = EvoPromptDE(population=3)
    assert members(slots, tiny.consultation(tuple(entries))) == [TEXTS[2], TEXTS[1], TEXTS[3]]


@pytest.mark.parametrize("metrics", [(0.5, 0.5, 0.5, 0.5), (0.0, 0.0, 0.0, 0.0), (0.9, 0.0, 0.0, 0.0)])
@pytest.mark.parametrize("selection", ["roulette", "random", "tournament"])
def test_two_parents_are_never_the_same_whatever_the_scores(selection: str, metrics: tuple[float, ...]) -> None:
    entries = [
        ScoredPrompt(SPACE.fit(t)[0], Score(0.5, m, 32), "user", 0) for t, m in zip(TEXTS, metrics, strict=False)
    ]
    rng = random.Random(0)
    pairs = [select_parents(entries, selection, rng) for _ in range(300)]
    assert all(mother != father for mother, father in pairs)
    assert {entry.prompt.text for both in pairs for entry in both} == set(TEXTS[:4])


@pytest.mark.parametrize(
    ("selection", "shares"),
    [("roulette", (0.1, 0.2, 0.7)), ("random", (1 / 3, 1 / 3, 1 / 3)), ("tournament", (0, 1 / 3, 2 / 3))],
)
def test_parents_are_drawn_as_often_as_their_selection_says(selection: str, shares: tuple[float, ...]) -> None:
    """By roulette in proportion to the metric; in a tournament of two of three the worst never wins."""
    entries = [found(text, 1 - metric, 0) for text, metric in zip(TEXTS, (0.1, 0.2, 0.7), strict=False)]
    rng = random.Random(0)
    drawn = Counter(select_parents(entries, selection, rng)[0].prompt.text for _ in range(3000))
    assert [drawn[text] / 3000 for text in TEXTS[:3]] == pytest.approx(shares, abs=0.03)


def test_differential_evolution_shows_two_others_the_best_and_the_member_itself() -> None:
    dialogue = talk(EvoPromptDE(population=3), consultation(0.7, 0.3, 0.5), *EVOLVED)
    others = {member: {*TEXTS[:3]} - {member} for member in TEXTS[:3]}
    for number in range(3):
        one, other, best, member = shown(dialogue, number)
        assert {one, other} == others[member]
        assert best == TEXTS[1]
    assert [shown(dialogue, number)[-1] for number in range(3)] == [TEXTS[1], TEXTS[2], TEXTS[0]]
    assert dialogue.advice.proposals[1].rationale.startswith("'tell me the mood' crossed with 'is it good or', changed")


def test_the_better_of_member_and_child_keeps_the_slot_and_a_loser_does_not_return() -> None:
    """The first child is worse than its own member, but better than the worst: in a genetic algorithm it would live."""
    strategy, first = EvoPromptDE(population=3), consultation(0.7, 0.3, 0.5)
    bred = talk(strategy, first, *EVOLVED)
    second = after(first, bred.advice, [0.4, 0.45, 0.7])
    kept = [TEXTS[1], "find the mood in", TEXTS[0]]  # the old one, where both are equal
    assert members(strategy, second) == kept
    children = [entry if entry.origin == "gradient" else replace(entry, stage=1) for entry in second.scored]
    assert members(strategy, replace(second, scored=tuple(children))) == kept  # scored anew, and still a loser


def test_a_prompt_that_training_found_meanwhile_takes_the_worst_place_if_it_is_better() -> None:
    strategy, first = EvoPromptDE(population=3), consultation(0.7, 0.3, 0.5)
    second = after(first, talk(strategy, first, *EVOLVED).advice, [0.9, 0.8, 0.6])
    kept = [TEXTS[1], TEXTS[2], "was the story great"]
    assert members(strategy, second) == kept
    better, worse = found("good movie", 0.4, stage=1), found("bad movie", 0.65, stage=1)
    assert members(strategy, replace(second, scored=(*second.scored, worse, better))) == [
        *kept[:2],
        better.prompt.text,
    ]
    earlier = replace(better, stage=0)  # it was weighed before, or lost its slot
    assert members(strategy, replace(second, scored=(*second.scored, earlier))) == kept


def test_a_slot_whose_prompts_are_gone_goes_to_the_best_prompt_without_a_slot() -> None:
    strategy, first = EvoPromptDE(population=3), consultation(0.7, 0.3, 0.5)
    second = after(first, talk(strategy, first, *EVOLVED).advice, [0.9, 0.8, 0.6])
    gone = {TEXTS[1], "say how fine it"}  # member and child of the first slot
    left = tuple(entry for entry in second.scored if entry.prompt.text not in gone)
    assert members(strategy, replace(second, scored=left)) == [TEXTS[2], "was the story great", TEXTS[0]]
    childless = tuple(entry for entry in second.scored if entry.prompt.text != "was the story great")
    assert members(strategy, replace(second, scored=childless)) == [TEXTS[1], TEXTS[2], TEXTS[0]]


def test_the_memory_goes_through_json_to_the_same_questions() -> None:
    strategy, first = EvoPromptDE(population=3), consultation(0.7, 0.3, 0.5)
    bred = talk(strategy, first, *EVOLVED)
    second = after(first, bred.advice, [0.4, 0.2, 0.6])
    reread = replace(second, memory=json.loads(json.dumps(bred.advice.memory)))
    assert talk(strategy, reread, *LATER).transcript == talk(strategy, second, *LATER).transcript
    assert members(strategy, reread) != members(strategy, replace(second, memory={}))


@pytest.mark.parametrize("strategy", [EvoPromptGA(population=3), EvoPromptDE(population=3)])
def test_a_resumed_generation_goes_the_way_of_the_first(strategy: EvoPromptGA | EvoPromptDE) -> None:
    asked = consultation(0.7, 0.3, 0.5)
    answers = (EVOLVED[0], "Sorry, I cannot do that.", *EVOLVED[1:])
    whole = talk(strategy, asked, *answers)
    assert len(whole.advice.proposals) == 3
    for kept in range(5):
        rest = talk(strategy, replace(asked, answered=tuple(whole.exchanges[:kept])), *answers[kept:])
        assert rest.advice == whole.advice
        assert [each.messages for each in rest.exchanges] == [each.messages for each in whole.exchanges[kept:]]


@pytest.mark.parametrize("strategy", [EvoPromptGA(population=3), EvoPromptDE(population=3)])
def test_a_child_that_was_scored_before_is_asked_for_again(strategy: EvoPromptGA | EvoPromptDE) -> None:
    known = f"<prompt>{TEXTS[0]}</prompt>"
    dialogue = talk(strategy, consultation(0.7, 0.3, 0.5), known, *[EVOLVED[0]] * 4)
    assert dialogue.texts == ["say how fine it"]
    assert [each.messages[-2].content for each in dialogue.exchanges[3:]] == [known, EVOLVED[0]]
    assert {each.reason for each in dialogue.advice.rejected} == {
        "the same tokens as a prompt that was scored, or as another proposal"
    }


@pytest.mark.parametrize("strategy", [EvoPromptGA(population=3), EvoPromptDE(population=3)])
def test_useless_paraphrases_leave_the_breeding_to_those_that_are_there(strategy: EvoPromptGA | EvoPromptDE) -> None:
    """Two prompts are enough for a crossover, but not for differential evolution, which needs two others."""
    genetic = isinstance(strategy, EvoPromptGA)
    dialogue = talk(strategy, consultation(0.7, 0.3), *["..."] * 4, *EVOLVED * genetic)
    assert len(dialogue.advice.proposals) == 3 * genetic
    assert (dialogue.advice.fallback is None) == genetic


@pytest.mark.parametrize("strategy", [EvoPromptGA(), EvoPromptDE()])
def test_without_any_prompt_nothing_is_asked(strategy: EvoPromptGA | EvoPromptDE) -> None:
    assert talk(strategy, tiny.consultation(())) == Talk(Advice(fallback="the pool is empty"))


@pytest.mark.parametrize(
    ("reply", "texts"),
    [
        ("<prompt>one thing</prompt> and <prompt>another\nthing</prompt>", ["another thing"]),
        ('The last: <prompt> "a quoted thing" </prompt>.', ["a quoted thing"]),
        ("<think><prompt>a thought</prompt></think>\n<prompt>the answer</prompt>", ["the answer"]),
        ("<think>it was cut off in <prompt>a thought</prompt>", []),
        ("A draft: <prompt>a thought</prompt></think>\n- the answer", ["the answer"]),
        ("1. Crossover of both\n2. the mutated one", ["the mutated one"]),
        ("<prompt>never closed", ["never closed"]),
        ("never opened</prompt>", ["never opened"]),
        ("<prompt></prompt>", []),
        ("</prompt> <prompt>", []),
        ("", []),
    ],
)
def test_the_parse_last_prompt_of_an_answer_is_its_result(reply: str, texts: list[str]) -> None:
    assert parse_last_prompt(reply)[0] == texts


def test_a_flood_of_open_tags_is_read_at_once() -> None:
    assert parse_last_prompt("<prompt>" * 200_000)[0] == parse_last_prompt("<think>" * 200_000)[0] == []


def test_a_consultation_is_to_bring_a_generation() -> None:
    assert EvoPromptGA(population=7).proposals == EvoPromptDE(population=7).proposals == 7


@pytest.mark.parametrize("strategy", [EvoPromptGA, EvoPromptDE])
@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"form": "chatt"}, r"strategy\.form=chatt is not known; .*did you mean chat"),
        ({"population": 1}, r"strategy\.population=1 is too small"),
        ({"words": 1}, r"strategy\.words=1 is too small"),
        ({"temperature": -0.5}, r"strategy\.temperature=-0\.5 is too small"),
    ],
)
def test_bad_settings_are_named(strategy: type[EvoPromptGA], settings: dict[str, str], wanted: str) -> None:
    with pytest.raises(ConfigurationError, match=wanted):
        strategy(**settings)  # type: ignore[arg-type]


def test_each_has_bounds_of_its_own() -> None:
    with pytest.raises(ConfigurationError, match=r"strategy\.selection=wheel is not known; there are: roulette"):
        EvoPromptGA(selection="wheel")
    with pytest.raises(ConfigurationError, match=r"strategy\.population=2 is too small; it must be at least 3"):
        EvoPromptDE(population=2)


def test_the_fields_are_the_keys_in_conf() -> None:
    both = {"form", "population", "words", "temperature", "show_task"}
    assert {field.name for field in fields(EvoPromptDE)} == both
    assert {field.name for field in fields(EvoPromptGA)} == both | {"selection"}
