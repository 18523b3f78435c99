"""Free text -> proposals."""

import unicodedata
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_catalyst.mentors.reply_parser import (
    LONGEST,
    MOST_LINES,
    MOST_REJECTED,
    clean_line,
    parse_official,
    parse_proposals,
)

WANTED = ["Is this film good?", "What does it say"]


def texts(reply: str, limit: int = 10) -> list[str]:
    return parse_proposals(reply, limit)[0]


@pytest.mark.parametrize(
    "reply",
    [
        "- Is this film good?\n- What does it say",
        "* Is this film good?\n* What does it say",
        "• Is this film good?\n• What does it say",
        "-Is this film good?\n-What does it say",
        "1. Is this film good?\n2. What does it say",
        "1.Is this film good?\n2.What does it say",
        "1) Is this film good?\n2) What does it say",
        "(1) Is this film good?\n(2) What does it say",
        "a) Is this film good?\nb) What does it say",
        '"Is this film good?"\n"What does it say"',
        "1. “Is this film good?”\n2. «What does it say»",
        "1. 'Is this film good?'\n2. `What does it say`",
        '1. "Is this film good?" (short, clear)\n2. "What does it say" - neutral',
        "Template: Is this film good?\nTemplate: What does it say",
        "Prompt 1: Is this film good?\nPrompt 2: What does it say",
        'New template #1: "Is this film good?"\nNew template #2: "What does it say"',
        '**Template 1:** "Is this film good?"\n**Template 2:** "What does it say"',
        "1. **Is this film good?**\n2. *What does it say*",
        "### Template 1\nIs this film good?\n\n### Template 2\nWhat does it say",
        "Template 1:\nIs this film good?\nShort and clear.\n\nTemplate 2:\nWhat does it say\nMore open.",
        "Template 1:\nIs this film good?\n\nTemplate 2:\nWhat does it say",
        "Is this film good?\nWhat does it say",
        "Here are two templates:\n\n1. Is this film good?\n2. What does it say\n\nI hope this helps!",
        "Here are two templates:\nIs this film good?\nWhat does it say\nLet me know if you want more.",
        "Sure!\n```\nIs this film good?\nWhat does it say\n```\nGood luck",
        '["Is this film good?", "What does it say"]',
        '```json\n["Is this film good?", "What does it say"]\n```',
        '{"prompts": ["Is this film good?", "What does it say"]}',
        '{"reasoning": ["x"], "prompts": ["Is this film good?", "What does it say"]}',
        'Sure:\n[{"text": "Is this film good?", "rationale": "r"}, {"text": "What does it say"}]',
        '{"prompt_1": "Is this film good?", "prompt_2": "What does it say", "reason": "short"}',
        '{"1": "Is this film good?", "2": "What does it say"}',
        '{"prompt": "Is this film good?"}\n{"prompt": "What does it say"}',
        "['Is this film good?', 'What does it say',]",
        'Templates: ["Is this film good?", "What does it say"]',
        '{\n  "templates": [\n    "Is this film good?",\n    "What does it say",\n  ],\n}',
        "Template: Is this film good?\nLoss: 0.31\nAccuracy: 0.9\n\nTemplate: What does it say\nLoss: 0.2",
        "<think>\n- maybe this\n</think>\n- Is this film good?\n- What does it say",
        "<prompt>Is this film good?</prompt>\n<prompt>What does it say</prompt>",
        "- <s>Is this [SEP] film good?<|endoftext|>\n- \x1b[1;31mWhat\x1b[0m do\u200bes\x00it   say</s>",
        "\ufeff- Is this film good?\r\n- What does it say\r\n",
        "- Is this film good?\n- IS THIS FILM GOOD?\n- What does it say",
    ],
)
def test_every_reasonable_form_of_an_answer_gives_the_same_proposals(reply: str) -> None:
    assert texts(reply) == WANTED


@pytest.mark.parametrize(
    ("reply", "wanted"),
    [
        ("- It's John's film", "It's John's film"),
        ("- 3.5 stars for the film", "3.5 stars for the film"),
        ("10:30 train to the film", "10:30 train to the film"),
        ('"good" or "bad"', '"good" or "bad"'),
        ("'good' or 'bad'", "'good' or 'bad'"),
        ('Is ["this"] good', 'Is ["this"] good'),
        ("- Sentiment of the review:", "Sentiment of the review:"),
        ("- fill in the ____ here", "fill in the ____ here"),
        ('- the plot of the film",', "the plot of the film"),
        ("- 这部电影好吗", "这部电影好吗"),
        ("- Ist der Film gut für Kinder? 🎬", "Ist der Film gut für Kinder? 🎬"),
    ],
)
def test_marks_that_belong_to_a_proposal_stay(reply: str, wanted: str) -> None:
    assert texts(reply) == [wanted]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("Here they are:\n- good film", "prose beside the list"),
        ("I'm sorry, but I cannot help with that.", "a phrase, not a proposal"),
        ("- good film\n- Good  Film", "a duplicate in the same answer"),
        ("- good film\n- ...\n", "no letter or digit in it"),
        ("- [SEP]", "no letter or digit in it"),
        ("- " + "good " * 400, f"longer than {LONGEST} characters"),
        ("- a b\n- c d\n- e f", "more than 2 proposals"),
        ('["good film", 7]', "not a text"),
        ('{"prompts": ["good fi', "broken JSON"),
        ('{"prompts": ["good film", "bad fi', "prose beside the JSON"),
        ('{"error": {"message": "rate limit"}}', "an error, not an answer"),
        ("<think> - first I look at", "reasoning without an answer; the answer may have been cut off"),
        ("Rationale: short is better\n- good film", "a remark, not a proposal"),
        ("<think>hm</think>\n- good film", "reasoning before the answer"),
        ('I chose these.\n["good film"]', "prose beside the JSON"),
    ],
)
def test_a_dropped_line_says_why(reply: str, reason: str) -> None:
    assert reason in [rejected.reason for rejected in parse_proposals(reply, 2)[1]]


def test_odd_escapes_in_a_python_list_are_read_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert texts(r"['is \d this', 'what is it',]") == [r"is \d this", "what is it"]


def test_an_empty_answer_gives_nothing() -> None:
    assert parse_proposals("", 3) == ([], [])
    assert parse_proposals(" \n\t\n", 3) == ([], [])


def test_the_kept_rejections_are_few_and_the_others_are_counted() -> None:
    kept, rejected = parse_proposals("\n".join(f"- prompt number {i} of many" for i in range(5000)), 3)
    assert len(kept) == 3
    assert len(rejected) == MOST_REJECTED + 1
    assert rejected[-1].reason == f"{5000 - 3 - MOST_REJECTED} further lines were dropped too"


def test_lines_beyond_the_first_ten_thousand_are_not_read() -> None:
    kept, rejected = parse_proposals("- a film\n" * (MOST_LINES - 1) + "- the last\n- one too many", 3)
    assert kept == ["a film", "the last"]
    assert len(rejected) == MOST_REJECTED + 1
    assert parse_proposals("x\n" * MOST_LINES + "- too late", 1)[0] == ["x"]


@pytest.mark.parametrize("reply", ['[{{"a b"}}]', "[{{}: 1}]"])
def test_a_literal_that_python_cannot_make_is_read_as_lines(reply: str) -> None:
    kept, rejected = parse_proposals(reply, 3)
    assert len(kept) + len(rejected) == 1


def test_the_official_parser_keeps_little_of_a_huge_answer() -> None:
    kept, rejected = parse_official("A line of a long answer\n" * 50_000 + "short\n" * 50_000 + "x" * 1_000_000, 64)
    assert kept == ["A line of a long answer"] * 64
    assert len(rejected) == MOST_REJECTED + 1
    assert sum(len(line.line) for line in rejected) < 30_000
    assert parse_official("x" * 1_000_000, 64) == (["x" * LONGEST], [])


@settings(max_examples=1000)
@given(st.text(alphabet=st.characters(), max_size=400), st.integers(1, 5))
def test_any_text_gives_few_clean_distinct_lines(reply: str, limit: int) -> None:
    kept, rejected = parse_proposals(reply, limit)
    assert len(kept) <= limit
    assert len({text.casefold() for text in kept}) == len(kept)
    for text in kept:
        assert text == clean_line(text) == " ".join(text.split())
        assert any(character.isalnum() for character in text)
        assert not {unicodedata.category(character) for character in text} & {"Cc", "Cs"}
    assert all(line.reason for line in rejected)


MARKS = ("- ", "* ", "1. ", '"', "'", "[", "]", "{", "}", ":", ",", "\n", "```", "**", "#", "\\", "\x1b[0m", "\u200b")
WORDS = (
    "prompt",
    "Template 1",
    "loss",
    "good film",
    "<s>",
    "[SEP]",
    "<think>",
    "</think>",
    "\ud800",
    "null",
    "9",
    "[bold red]",
    "[/x]",
    "<script>",
    "</b>",
)


@settings(max_examples=1000)
@given(st.lists(st.sampled_from(MARKS + WORDS), max_size=30).map("".join))
def test_no_mixture_of_marks_breaks_either_parser(reply: str) -> None:
    kept, _ = parse_proposals(reply, 64)
    assert not any("<s>" in text or "[SEP]" in text or "\x1b" in text for text in kept)
    assert all(len(text) > 10 for text in parse_official(reply, 64)[0])


def test_the_official_parser_keeps_long_lines_and_strips_its_own_marks_only() -> None:
    reply = (
        '- "What is the mood here"\n1. Is this film good?\n* The tone of this text\nshort\n10. Is it very good?\n\nA\n'
    )
    kept, rejected = parse_official(reply, 64)
    assert kept == ["What is the mood here", "Is this film good?", "The tone of this text", "10. Is it very good?"]
    assert [line.line for line in rejected] == ["short", "A"]


def test_the_official_parser_takes_prose_for_proposals_as_the_code_does() -> None:
    assert parse_official("Here are the templates:\n- Is this film good?", 64)[0] == [
        "Here are the templates:",
        "Is this film good?",
    ]
