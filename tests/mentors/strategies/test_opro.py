"""OPRO: what the model is shown, whom it is shown, and how its answers are read."""

import random
from dataclasses import fields, replace
from pathlib import Path

import pytest
from helpers.dialogues import Talk, after, first_request, talk
from helpers.tiny import EXAMPLES, conversation, prompt_space, scored
from helpers.tiny import consultation as consult

from llm_catalyst.mentors.strategies.opro import LONGEST, Opro, parse_tagged
from llm_catalyst.utils.validation import ConfigurationError

GOLDEN = Path(__file__).parents[2] / "golden" / "strategy_opro.txt"


def two_consultations() -> list[Talk]:
    """The second is about what came of the first, and its second request brings a prompt of the first again."""
    opro, first = Opro(proposals=2), consult()
    one = talk(opro, first, "<INS>tell me the mood</INS>", 'Of course!\n<INS>\n"Is it fine?"\n</INS>\nIt is short.')
    second = after(first, one.advice, [0.2, 0.9])
    two = talk(opro, second, "<INS>find the mood of it</INS>", "<INS>Tell me the mood</INS>", "- is it very good")
    return [one, two]


def test_a_model_is_shown_exactly_the_golden_text_in_two_consultations() -> None:
    one, two = two_consultations()
    plain = first_request(Opro(form="plain", words=6, show_gradient=True), consult()).messages
    shown = (
        f"########## first consultation\n{one.transcript}########## second consultation\n{two.transcript}"
        f"########## form=plain words=6 show_gradient=true\n{conversation(plain)}"
        f"########## an empty pool\n{conversation(first_request(Opro(), consult(pool=())).messages)}"
    )
    assert shown == GOLDEN.read_text(encoding="utf-8")


def test_a_prompt_is_proposed_once_and_nothing_is_remembered_but_the_scores() -> None:
    one, two = two_consultations()
    assert one.texts == ["tell me the mood", "is it fine?"]
    assert two.texts == ["find the mood of", "is it very good"]
    assert "same tokens" in two.advice.rejected[0].reason
    assert one.advice.memory is two.advice.memory is None


def test_the_same_question_is_asked_once_for_each_proposal_with_a_seed_of_its_own() -> None:
    words = ("good", "bad", "great", "poor", "fine", "dull", "not", "very")
    answers = [f"<INS>is it {word}</INS>" for word in words]
    whole = talk(Opro(), consult(), *answers)
    assert len(whole.texts) == 8
    assert len({exchange.messages for exchange in whole.exchanges}) == 1
    assert len({exchange.parameters["seed"] for exchange in whole.exchanges}) == 8
    assert whole.temperatures == [1.0] * 8


def test_a_dialogue_that_was_cut_off_goes_the_same_way() -> None:
    answers = ["<INS>is it great</INS>", "???", "<INS>a fine film</INS>", "<INS>how is the mood</INS>"]
    whole = talk(Opro(proposals=3), consult(), *answers)
    for known in range(len(answers) + 1):
        begun = replace(consult(), answered=tuple(whole.exchanges[:known]))
        rest = talk(Opro(proposals=3), begun, *answers[known:])
        assert rest.advice == whole.advice
        assert [each.messages for each in rest.exchanges] == [each.messages for each in whole.exchanges[known:]]


def test_the_best_of_the_run_are_listed_in_ascending_score_from_the_threshold_on() -> None:
    space = prompt_space()
    words_and_scores = (("a", 0.9, 0.2), ("the", 0.8, 0.3), ("is", 0.7, 0.6), ("it", 0.6, 0.5), ("film", 0.5, 0.6))
    tried = [scored(space, *entry) for entry in words_and_scores]
    listed = [entry.prompt.text.split()[0] for entry in Opro().select_history(tried)]
    assert listed == ["the", "it", "is", "film"]  # of equal metric, the lower loss stands later
    assert [entry.prompt.text.split()[0] for entry in Opro(history=2).select_history(tried)] == ["is", "film"]
    assert [entry.prompt.text.split()[0] for entry in Opro(threshold=1).select_history(tried)] == ["film"]
    assert Opro().select_history([]) == []


def test_all_that_was_scored_is_listed_not_the_pool_alone_and_what_has_no_score_is_not() -> None:
    whole = consult()
    user = first_request(Opro(), replace(whole, pool=whole.pool[-1:])).messages[1].content
    assert '"dull of dull of"\nScore: 49' in user
    two_thirds = scored(prompt_space(), "dull", 0.7, 2 / 3)
    assert "Score: 67" in first_request(Opro(), replace(whole, scored=(two_thirds,))).messages[1].content
    assert "dull of" not in first_request(Opro(), replace(whole, scored=whole.scored[1:])).messages[1].content


def test_examples_are_drawn_by_the_stream_of_the_consultation() -> None:
    def shown(seed: int, **settings: int) -> list[str]:
        return Opro(**settings).show_examples(replace(consult(), rng=random.Random(seed)))  # type: ignore[arg-type]

    assert shown(1) == shown(1) != shown(2)
    assert len({tuple(shown(seed)) for seed in range(9)}) > 3
    every = shown(1, exemplars=99)[1:]
    assert every == [
        f"Input: <INS> {example.sequences[0][0]}\nAnswer: {('negative', 'positive')[example.label]}"
        for example in EXAMPLES
    ]
    assert shown(1, exemplars=0) == []


@pytest.mark.parametrize(
    ("reply", "texts"),
    [
        ("<INS>is it good</INS>", ["is it good"]),
        ("Sure:\n<ins>\n- **Is it good?**\n</ins>\nIt scores more.", ["Is it good?"]),
        ("<INS>'is it good'</INS> or <INS>bad</INS>", ["is it good", "bad"]),
        ("<INS></INS>\n- is it good", ["is it good"]),
        ("<INS>is it good", ["is it good"]),
        ("- is it good", ["is it good"]),
        ("<think><INS>no</INS></think><INS>is it good</INS>", ["is it good"]),
        ("<think>perhaps <INS>a draft</INS>, but it was cut off", []),
        ("A draft: <INS>no</INS></think>\n- is it good", ["is it good"]),
        ("<INS>...</INS>", []),
        ("", []),
        ("<INS>" * 100_000, []),
    ],
)
def test_what_stands_between_tags_is_read_and_else_the_whole_answer(reply: str, texts: list[str]) -> None:
    assert parse_tagged(reply)[0] == texts


@pytest.mark.parametrize("form", ["<INS>{}</INS>", "- {}"])
def test_more_than_500_characters_are_no_prompt(form: str) -> None:
    assert len(parse_tagged(form.format("a" * LONGEST))[0]) == 1
    texts, rejected = parse_tagged(form.format("a" * (LONGEST + 1)))
    assert texts == []
    assert rejected[-1].reason == "longer than 500 characters"


def test_useless_answers_leave_the_proposals_of_the_others() -> None:
    heard = talk(Opro(proposals=3), consult(), "", "I can't.", "<INS>a fine film</INS>", "{", "<INS></INS>")
    assert heard.texts == ["a fine film a"]
    assert "between <INS> and </INS>" in heard.exchanges[1].messages[-1].content


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"form": "chatt"}, r"strategy\.form=chatt is not known; .*did you mean chat"),
        ({"proposals": 0}, r"strategy\.proposals=0 is too small"),
        ({"history": 0}, r"strategy\.history=0 is too small"),
        ({"threshold": 30}, r"strategy\.threshold=30 is out of range"),
        ({"exemplars": -1}, r"strategy\.exemplars=-1 is too small"),
        ({"temperature": -0.1}, r"strategy\.temperature=-0\.1 is too small"),
        ({"words": 1}, r"strategy\.words=1 is too small"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, str], wanted: str) -> None:
    with pytest.raises(ConfigurationError, match=wanted):
        Opro(**settings)  # type: ignore[arg-type]


def test_the_fields_are_the_keys_in_conf() -> None:
    names = "form proposals history threshold exemplars temperature words show_gradient"
    assert {field.name for field in fields(Opro)} == set(names.split())
