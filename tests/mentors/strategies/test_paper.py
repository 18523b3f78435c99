"""What a mentor is shown and how its answer is read, by the paper's instruction."""

from dataclasses import fields
from pathlib import Path

import pytest
from helpers.dialogues import first_request, talk
from helpers.tiny import TASK, consultation, conversation

from llm_catalyst.mentors.strategies.base import LONGEST_ECHO
from llm_catalyst.mentors.strategies.paper import Paper
from llm_catalyst.mentors.strategies.templates import quote_json
from llm_catalyst.utils.validation import ConfigurationError

GOLDEN = Path(__file__).parents[2] / "golden" / "strategy_paper.txt"


def test_a_mentor_is_shown_exactly_the_golden_text() -> None:
    chat, plain = Paper(), Paper(form="plain", proposals=1, words=6, description="Judge films.")
    shown = (
        "##### form=chat\n"
        + conversation(
            [
                *first_request(chat, consultation()).messages,
                *first_request(chat, consultation()).remind("I am not sure."),
            ]
        )
        + "##### form=plain words=6 description='Judge films.', one proposal, empty pool\n"
        + conversation(first_request(plain, consultation(pool=())).messages)
        + "##### show_gradient=true\n"
        + conversation(first_request(Paper(show_gradient=True), consultation()).messages)
    )
    assert shown == GOLDEN.read_text(encoding="utf-8")


def test_the_best_prompt_stands_last_with_three_decimals_and_the_limits_are_told() -> None:
    _, user = first_request(Paper(proposals=5), consultation()).messages
    first, last = user.content.index("Loss: 0.73"), user.content.index("Loss: 0.300\nAccuracy: 0.900")
    assert first < last
    assert "5 new prompts" in user.content
    assert "fewer than 5 words" in user.content
    assert "first 4 tokens" in user.content
    assert TASK.text in user.content
    assert "negative, positive" in user.content


def test_a_text_from_tokens_cannot_break_out_of_its_line() -> None:
    assert quote_json('a "b"\nPrompt: c') == r'"a \"b\"\nPrompt: c"'
    assert quote_json("a\u202eb\u200b\x1b[0m\u2028c") == r'"a\u202eb\u200b\u001b[0m\u2028c"'
    assert quote_json("é 好 🎬") == '"é 好 🎬"'
    texts = first_request(Paper(), consultation()).messages[1].content
    assert r'Prompt: "odd \"\n\u200b ##ing é 好"' in texts.split("\n")


def test_a_description_replaces_the_text_of_the_task() -> None:
    text = first_request(Paper(description="Judge films."), consultation()).messages[1].content
    assert "Judge films." in text
    assert TASK.text not in text


def test_plain_form_is_one_message_and_is_asked_again_without_a_reminder() -> None:
    plain = Paper(form="plain")
    assert [message.role for message in first_request(plain, consultation()).messages] == ["user"]
    assert first_request(plain, consultation()).remind("nonsense") == ()


def test_a_reminder_alternates_roles_is_never_empty_and_echoes_little() -> None:
    answer, wish = first_request(Paper(proposals=2), consultation()).remind("  ")
    assert (answer.role, answer.content, wish.role) == ("assistant", "(no answer)", "user")
    assert "2 new prompts" in wish.content
    assert len(first_request(Paper(), consultation()).remind("x" * 100_000)[0].content) == LONGEST_ECHO


def test_parsing_is_lenient_or_official_by_choice() -> None:
    reply = "Here are my three prompts:\n- is it good\n- what is the mood"
    assert first_request(Paper(), consultation()).parse(reply)[0] == ["is it good", "what is the mood"]
    assert first_request(Paper(parsing="official"), consultation()).parse(reply)[0] == [
        "Here are my three prompts:",
        "what is the mood",
    ]


def test_without_the_tasks_name_neither_its_labels_nor_its_limits_are_told_and_what_was_tried_may_come_again() -> None:
    nameless = Paper(name_task=False, parsing="official")
    _, user = first_request(nameless, consultation()).messages
    for words in (TASK.text, "negative", "first 4 tokens", "film"):
        assert words not in user.content
    assert "Template: is it good or\nLoss: 0.300\nAccuracy: 0.900" in user.content
    assert talk(nameless, consultation(), "- is it good or bad").texts == ["is it good or"]
    assert talk(Paper(), consultation(), "- is it good or bad", "- tell me").texts == ["tell me tell me"]


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"form": "chatt"}, r"strategy\.form=chatt is not known; .*did you mean chat"),
        ({"parsing": "strict"}, r"strategy\.parsing=strict is not known"),
        ({"words": 1}, r"strategy\.words=1 is too small"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, str], wanted: str) -> None:
    with pytest.raises(ConfigurationError, match=wanted):
        Paper(**settings)  # type: ignore[arg-type]


def test_the_fields_are_the_keys_in_conf() -> None:
    assert {field.name for field in fields(Paper)} == {
        "form",
        "description",
        "proposals",
        "words",
        "parsing",
        "show_gradient",
        "show_moves",
        "name_task",
    }
