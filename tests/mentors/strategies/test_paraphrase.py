"""What a model is shown that is to say the best prompt in other words, and how its answer is read."""

from dataclasses import fields
from pathlib import Path

import pytest
from helpers.dialogues import first_request
from helpers.tiny import TASK, consultation, conversation

from llm_catalyst.mentors.strategies.paraphrase import Paraphrase
from llm_catalyst.utils.validation import ConfigurationError

GOLDEN = Path(__file__).parents[2] / "golden" / "strategy_paraphrase.txt"


def test_a_model_is_shown_exactly_the_golden_text() -> None:
    chat, plain = Paraphrase(), Paraphrase(form="plain", proposals=1, words=6)
    odd = consultation(consultation().pool[:2])
    shown = (
        "##### form=chat\n"
        + conversation(
            [
                *first_request(chat, consultation()).messages,
                *first_request(chat, consultation()).remind("I am not sure."),
            ]
        )
        + "##### form=plain words=6, one proposal, an odd prompt\n"
        + conversation([*first_request(plain, odd).messages, *first_request(plain, odd).remind("I am not sure.")])
    )
    assert shown == GOLDEN.read_text(encoding="utf-8")


def test_nothing_but_the_best_prompt_is_shown() -> None:
    """A control for the history and the task's description: neither they nor a score may slip in."""
    asked = conversation(first_request(Paraphrase(), consultation()).messages)
    *others, best = consultation().pool
    assert best.prompt.text in asked
    for hidden in (*(entry.prompt.text for entry in others), TASK.text, "negative", "0.3", "0.9", "loss", "accuracy"):
        assert hidden not in asked.lower()


def test_variations_are_read_as_proposals_are() -> None:
    texts, rejected = first_request(Paraphrase(), consultation()).parse(
        "Here you are:\n- how good is it\n- is it bad or good"
    )
    assert texts == ["how good is it", "is it bad or good"]
    assert [each.line for each in rejected] == ["Here you are:"]


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"form": "chatt"}, r"strategy\.form=chatt is not known; .*did you mean chat"),
        ({"words": 1}, r"strategy\.words=1 is too small"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, str], wanted: str) -> None:
    with pytest.raises(ConfigurationError, match=wanted):
        Paraphrase(**settings)  # type: ignore[arg-type]


def test_the_fields_are_the_keys_in_conf() -> None:
    assert {field.name for field in fields(Paraphrase)} == {"form", "proposals", "words"}
