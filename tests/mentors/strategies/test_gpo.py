"""GPO: what the model is shown, how far it may go, and that it goes no further."""

import math
from dataclasses import fields, replace
from pathlib import Path

import pytest
from helpers.dialogues import Talk, after, first_request, talk
from helpers.tiny import consultation as consult
from helpers.tiny import conversation, prompt_space, scored

from llm_catalyst.mentors.strategies.gpo import Gpo, count_edits, find_similar, parse_within_limit, split_words
from llm_catalyst.runs.records import Prompt, Score, ScoredPrompt
from llm_catalyst.utils.validation import ConfigurationError

GOLDEN = Path(__file__).parents[2] / "golden" / "strategy_gpo.txt"


def two_consultations() -> list[Talk]:
    """All four words may change in the first of two consultations, and one word in the second."""
    gpo, first = Gpo(proposals=2), consult()
    one = talk(gpo, first, "- is it great or", "Here it is:\n- Tell me the mood")
    second = after(first, one.advice, [0.6, 0.2])
    two = talk(gpo, second, "- tell me the story", "- find the story in it", "- find me the mood")
    return [one, two]


def test_a_model_is_shown_exactly_the_golden_text_in_two_consultations() -> None:
    one, two = two_consultations()
    plain = first_request(Gpo(form="plain", words=6, show_gradient=True), consult()).messages
    shown = (
        f"########## first consultation\n{one.transcript}########## second consultation\n{two.transcript}"
        f"########## form=plain words=6 show_gradient=true\n{conversation(plain)}"
    )
    assert shown == GOLDEN.read_text(encoding="utf-8")


def test_what_changes_too_much_is_rejected_and_asked_for_again() -> None:
    one, two = two_consultations()
    assert one.texts == ["is it great or", "tell me the mood"]
    assert two.texts == ["tell me the story", "find me the mood"]
    assert [(each.line, each.reason) for each in two.advice.rejected] == [
        ("find the story in it", "4 words changed, at most 1 may be")
    ]
    assert "at most 1 word of the current prompt" in two.exchanges[2].messages[-1].content
    assert one.advice.memory is two.advice.memory is None


def test_the_same_question_is_asked_once_for_each_proposal_with_a_seed_of_its_own() -> None:
    answers = [f"- is it {word} or" for word in ("bad", "great", "poor", "fine", "dull", "not", "very", "positive")]
    whole = talk(Gpo(), consult(), *answers)
    assert len(whole.texts) == 8
    assert len({exchange.messages for exchange in whole.exchanges}) == 1
    assert len({exchange.parameters["seed"] for exchange in whole.exchanges}) == 8
    assert whole.temperatures == [1.0] * 8


def test_a_dialogue_that_was_cut_off_goes_the_same_way() -> None:
    start, answers = replace(consult(), stage=1), ["- is it great or", "- say how dull", "- ?", "- is it bad or"]
    whole = talk(Gpo(proposals=3), start, *answers, "- was it good or")
    for known in range(len(answers) + 1):
        begun = replace(start, answered=tuple(whole.exchanges[:known]))
        rest = talk(Gpo(proposals=3), begun, *[*answers, "- was it good or"][known:])
        assert rest.advice == whole.advice


def test_the_share_of_words_falls_along_a_cosine_to_its_end_at_the_last_consultation() -> None:
    shares = [Gpo().compute_share(step, 5) for step in range(5)]
    assert shares == pytest.approx([0.6 + 0.4 * math.cos(math.pi * step / 4) for step in range(5)])
    assert (shares[0], shares[-1]) == pytest.approx((1.0, 0.2))
    assert Gpo().compute_share(0, 1) == 1.0


def test_the_share_rises_in_a_line_before() -> None:
    shares = [Gpo(warmup=0.2).compute_share(step, 10) for step in range(10)]
    assert shares[:3] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert shares[2:] == sorted(shares[2:], reverse=True)
    assert shares[-1] == pytest.approx(0.2)
    assert [Gpo().compute_share(0, steps) for steps in (19, 20)] == [1.0, 0.5]


@pytest.mark.parametrize(("stage", "changes"), [(0, 8), (1, 5), (2, 2)])
def test_the_limit_is_a_share_of_the_words_of_the_current_prompt(stage: int, changes: int) -> None:
    space = prompt_space(8)
    current = scored(space, "is it good or bad what about it", 0.3, 0.9)
    asked = replace(consult((current,)), space=space, stage=stage, stages=4)
    assert Gpo().count_changes(asked) == changes
    assert (
        f"at most {changes} words of the current prompt, which has 8:"
        in first_request(Gpo(), asked).messages[1].content
    )


def test_at_least_one_word_may_change_also_of_a_prompt_without_any() -> None:
    marks = ScoredPrompt(Prompt((1, 1, 1, 1), "? ! . ,"), Score(0.3, 0.9, 32), "gradient", 0)
    heard = talk(Gpo(proposals=1), consult((marks,)), "- is it good", "- good")
    assert heard.texts == ["good good good good"]
    assert "at most 1 word of the current prompt, which has 0:" in heard.exchanges[0].messages[1].content


def test_a_prompt_of_the_current_length_is_always_allowed() -> None:
    assert "fewer than 5 words" in first_request(Gpo(words=3), consult()).messages[1].content
    assert "fewer than 9 words" in first_request(Gpo(words=9), consult()).messages[1].content


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("is it good", "is it good", 0),
        ("is it good", "Is it good?", 0),
        ("is it good", "is it very good", 1),
        ("is it good", "it good", 1),
        ("is it good", "good is it", 2),
        ("is it good", "", 3),
        ("", "a b", 2),
        ("a b c d", "b x d e", 3),
    ],
)
def test_the_edit_distance_counts_words(old: str, new: str, changed: int) -> None:
    assert count_edits(split_words(old), split_words(new)) == count_edits(split_words(new), split_words(old)) == changed


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("is it bad", True),  # three words of four, repeated to "is it bad is": one is changed, one goes
        ("very is it good or", True),  # one word too many: the last one is cut off
        ("is it good or bad", True),
        ("is a bad or", True),
        ("was a bad or", False),
        ("好", False),
        ("\u200b", False),
    ],
)
def test_a_text_counts_as_it_is_written_or_as_it_is_used(text: str, near: bool) -> None:
    texts, rejected = parse_within_limit(f"- {text}", "is it good or", 2, prompt_space())
    assert bool(texts) is near
    assert bool(rejected) is not near


def test_the_most_similar_prompts_are_shown_the_nearest_last_and_of_equal_ones_the_better() -> None:
    space = prompt_space()
    current = scored(space, "is it good or", 0.3, 0.9)
    tried = [
        scored(space, "is it good bad", 0.9, 0.1),
        scored(space, "or good it is", 0.8, 0.2),  # the same tokens: as near as can be
        scored(space, "it is good or", 0.7, 0.3),
        scored(space, "film film film film", 0.6, 0.4),
        current,
    ]
    assert [entry.score.loss for entry in find_similar(tried, current, 3, space)] == [0.9, 0.8, 0.7]
    assert [entry.score.loss for entry in find_similar(tried, current, 9, space)] == [0.6, 0.9, 0.8, 0.7]


def test_the_best_of_the_pool_is_current_and_one_alone_has_nothing_beside_it() -> None:
    user = first_request(Gpo(), consult(consult().pool[-1:])).messages[1].content
    assert '"is it good or"\nScore: 90' in user
    assert user.count("Prompt: ") == 1
    assert "tried before" not in user


def test_a_prompt_that_has_lost_its_score_is_no_longer_shown() -> None:
    whole = consult()
    assert "dull of" in first_request(Gpo(), whole).messages[1].content
    assert "dull of" not in first_request(Gpo(), replace(whole, scored=whole.scored[1:])).messages[1].content


def test_useless_answers_leave_the_proposals_of_the_others() -> None:
    heard = talk(Gpo(proposals=2), consult(), "", "I can't.", "- is it fine or")
    assert heard.texts == ["is it fine or"]


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"form": "chatt"}, r"strategy\.form=chatt is not known; .*did you mean chat"),
        ({"proposals": 0}, r"strategy\.proposals=0 is too small"),
        ({"similar": 0}, r"strategy\.similar=0 is too small"),
        ({"first": 50}, r"strategy\.first=50 is out of range"),
        ({"first": 0.1}, r"strategy\.last=0\.2 is out of range; it must lie between 0 and 0\.1"),
        ({"warmup": 5}, r"strategy\.warmup=5 is out of range"),
        ({"temperature": -0.1}, r"strategy\.temperature=-0\.1 is too small"),
        ({"words": 1}, r"strategy\.words=1 is too small"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, str], wanted: str) -> None:
    with pytest.raises(ConfigurationError, match=wanted):
        Gpo(**settings)  # type: ignore[arg-type]


def test_the_fields_are_the_keys_in_conf() -> None:
    names = "form proposals similar first last warmup temperature words show_gradient"
    assert {field.name for field in fields(Gpo)} == set(names.split())
