"""Answers in generated text: read out of responses, and compared with references."""

import json
import math
from pathlib import Path

import pytest

from llm_catalyst.tasks.answers import extract_answer, infer_extraction, score_answer
from llm_catalyst.utils.validation import ConfigurationError


@pytest.mark.parametrize(
    ("response", "number"),
    [
        ("Natalia sold 48/2 = <<48/2=24>>24 clips.\n#### 72", "72"),  # GSM8K's form
        ("She pays $1,250.50 in all.", "1250.5"),
        ("The answer is 18. There were 3 of them.", "18"),
        ("First 5, then 7.\nThe final answer is: $\\boxed{12}$", "12"),
        ("It falls by -7 degrees", "-7"),
        ("7-3 makes 4", "4"),
        ("in 12:30 hours", "30"),
        ("It is \u22125.", "-5"),
        ("10.", "10"),
        ("007", "7"),
        ("0.50", "0.5"),
        ("-0", "0"),
        ("none at all", None),
        ("", None),
    ],
)
def test_a_number_is_read_behind_the_words_of_an_answer_or_else_the_last_one(response: str, number: str | None) -> None:
    assert extract_answer(response, "number") == number


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("(B)", "B"),
        ("b", "B"),
        ("B. Because of the rain", "B"),
        ("The answer is (C), as (A) is wrong.", "C"),
        ("We can rule out (A).\nTherefore, the correct option is (D)", "D"),
        ("**E**", "E"),
        ("A cat sat on it", None),
        ("I do not know", None),
    ],
)
def test_the_letter_of_an_option_is_read(response: str, letter: str | None) -> None:
    assert extract_answer(response, "option") == letter


@pytest.mark.parametrize(
    ("response", "said"),
    [
        ("No, because that is not true.", "no"),
        ("True", "yes"),
        ("It is false that he left. So the answer is Yes.", "yes"),
        ("the argument is invalid", "no"),
        ("perhaps", None),
    ],
)
def test_yes_and_no_are_read(response: str, said: str | None) -> None:
    assert extract_answer(response, "boolean") == said


def test_patterns_and_markers() -> None:
    assert extract_answer("x=1 x=2", "regex", r"x=(\d)") == "2"
    assert extract_answer("x=1 x=2", "regex", r"x=\d") == "x=2"
    assert extract_answer("x", "regex", r"\d") is None
    assert extract_answer("Answer: red \nand more", "marker", "Answer:") == "red"
    assert extract_answer("red", "marker", "Answer:") is None
    assert extract_answer(" as it is\n", "verbatim") == "as it is"
    with pytest.raises(ConfigurationError, match="is no regular expression"):
        extract_answer("x", "regex", "(")


@pytest.mark.parametrize(
    ("references", "rule"),
    [
        (["True", "False"], "boolean"),
        (["valid", "invalid"], "boolean"),
        (["(A)", "(B)"], "option"),
        (["3", "-12", "1,000"], "number"),
        (["a b", "c"], "verbatim"),
        ([")", "> ]"], "verbatim"),
        (["No"] * 19 + ["perhaps"], "boolean"),
        (["No"] * 9 + ["perhaps"], "verbatim"),
    ],
)
def test_the_rule_follows_from_the_references(references: list[str], rule: str) -> None:
    assert infer_extraction(references) == rule


def test_every_reference_of_gsm8k_holds_the_number_behind_its_marks(data: Path) -> None:
    for split in ("train", "test"):
        for line in (data / "gsm8k" / f"{split}.jsonl").read_text().splitlines():
            answer = json.loads(line)["answer"]
            assert extract_answer(answer, "number") == answer.split("####")[1].strip().replace(",", "")


@pytest.mark.parametrize(
    ("answer", "references", "metric", "score"),
    [
        # SQuAD v1.1's evaluation: lower case, without punctuation and articles.
        ("the Denver Broncos!", ["Denver Broncos"], "exact_match", 1),
        ("Denver", ["Denver Broncos"], "exact_match", 0),
        ("Denver", ["Denver Broncos", "Denver"], "exact_match", 1),
        ("Denver", ["Denver Broncos"], "token_f1", 2 / 3),  # precision 1, recall 1/2
        ("a", ["the"], "token_f1", 1),  # both are empty without articles
        ("x", ["the"], "token_f1", 0),
        ("in the year 1999, I think", ["1999"], "contains", 1),
        ("19990", ["1999"], "contains", 0),
        ("1,000.0", ["1000"], "numeric", 1),
        ("1000.02", ["1000"], "numeric", 0),
        ("two", ["2"], "numeric", 0),
        ("> ]", ["> ]"], "exact_match", 1),
        ("> )", ["> ]"], "exact_match", 0),
    ],
)
def test_metrics(answer: str, references: list[str], metric: str, score: float) -> None:
    assert math.isclose(score_answer(answer, references, metric), score)  # type: ignore[arg-type]


def test_without_an_answer_the_score_is_zero() -> None:
    assert score_answer(None, ["x"], "contains") == 0


def test_rouge_l_is_that_of_the_package() -> None:
    pytest.importorskip("rouge_score", reason="the package rouge-score is not installed")
    # Lin 2004: a common subsequence of 2 words, of 3 and 5: precision 2/3, recall 2/5.
    assert math.isclose(score_answer("police killed gunman", ["police ended the gunman killed"], "rouge_l"), 0.5)
