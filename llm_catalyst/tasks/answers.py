"""Answers in generated text: the part of a response that is its answer, and how well that fits the references.

A response is untrusted text of any length. Every rule reads it in linear time.
"""

import re
import string
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import Any, Literal

from llm_catalyst.utils.validation import ConfigurationError

Extraction = Literal["number", "option", "boolean", "regex", "marker", "verbatim"]
AnswerMetric = Literal["exact_match", "numeric", "contains", "token_f1", "rouge_l"]

UNREADABLE_SHARE = 0.05  # of the references: BBH has tasks in which one row of 250 is no option

# Words behind which an answer stands: "####" in GSM8K's references, the others in responses of language models.
INDICATED = re.compile(r"####|\\boxed\b|\b(?:final )?answer(?:\s+is|\s*[:=])", re.IGNORECASE)
# A sign counts where it begins a word: the 3 of "5-3" is not negative.
NUMBER = re.compile(r"(?<![\w.])[-\u2212]?[$€£¥]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|(?<!\d)\.\d+")
# "(b)"; or a capital that is no word ("A cat"): "B.", "**B**", "B is right", "B" at the end of a line.
OPTION = re.compile(r"\(\s*([A-Za-z])\s*\)|(?<![\w'(])([A-Z])(?=[).:,*]|\s+is\b|[ \t]*$)", re.MULTILINE)
ALONE = re.compile(r"\W*([A-Za-z])\W*")
BOOLEANS = {"yes": "yes", "true": "yes", "valid": "yes", "no": "no", "false": "no", "invalid": "no"}
BOOLEAN = re.compile(rf"\b({'|'.join(BOOLEANS)})\b", re.IGNORECASE)
ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def extract_answer(response: str, rule: Extraction, pattern: str | None = None) -> str | None:
    """The answer that a response gives, in the form in which answers are compared; None where it gives none.

    Args:
        response: what a model generated, or a reference answer.
        rule: `number` is the first one behind words such as "the answer is", or else the last one, without currency
            and separators of thousands; `option` is a letter such as "A", `boolean` "yes" or "no", also for true and
            valid, both the first one where the response begins with it; `regex` the pattern's last match, or its first
            group; `marker` the rest of the line behind the last `pattern`; `verbatim` the whole response.
        pattern: of `regex` and `marker`.
    """
    match rule:
        case "number":
            return extract_number(response)
        case "option":
            return extract_option(response)
        case "boolean":
            found = find_indicated(BOOLEAN, response, leading=True)
            return BOOLEANS[found[1].lower()] if found else None
        case "regex":
            matches = list(compile_pattern(pattern or "").finditer(response))
            return (matches[-1][1] if matches[-1].re.groups else matches[-1][0] or "").strip() if matches else None
        case "marker":
            _, found_marker, rest = response.rpartition(pattern or "")
            return rest.strip().partition("\n")[0].strip() if found_marker else None
        case "verbatim":
            return response.strip()


def infer_extraction(references: Sequence[str]) -> Extraction:
    """The rule that fits reference answers: 19 of 20 are yes or no, an option's letter, or a number; or else verbatim.

    A reference that holds more than its answer, such as one with worked steps, fits none: name its rule.
    """
    texts = [reference.strip() for reference in references]
    fits: dict[Extraction, Callable[[str], object]] = {
        "boolean": lambda text: text.lower() in BOOLEANS,
        "option": re.compile(r"\([A-Za-z]\)|[A-Z]").fullmatch,
        "number": NUMBER.fullmatch,
    }
    enough = (1 - UNREADABLE_SHARE) * len(texts)
    return next((rule for rule, fit in fits.items() if sum(map(bool, map(fit, texts))) >= enough), "verbatim")


def find_indicated(wanted: re.Pattern[str], response: str, leading: bool = False) -> re.Match[str] | None:
    """The first match behind the last words that indicate an answer, or else the last one of all.

    With `leading` one that the response begins with goes before the last one.
    """
    matches = list(wanted.finditer(response))
    ends = [indication.end() for indication in INDICATED.finditer(response)]
    if matches and ends:
        at = bisect_right(ends, matches[-1].start()) - 1  # the last indication that anything stands behind
        if at >= 0:
            return next(match for match in matches if match.start() >= ends[at])
    if leading and matches and not any(map(str.isalnum, response[: matches[0].start()])):
        return matches[0]
    return matches[-1] if matches else None


def extract_number(response: str) -> str | None:
    """The number of an answer as a plain decimal: "$1,250.50" is "1250.5"; None where there is none."""
    found = find_indicated(NUMBER, response)
    if found is None:
        return None
    plain = re.sub(r"[,$€£¥]", "", found[0]).replace("\u2212", "-")
    return format_decimal(Decimal(plain))


def format_decimal(number: Decimal) -> str:
    """A decimal without an exponent, a trailing zero, or a sign of zero."""
    text = format(number, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text


def extract_option(response: str) -> str | None:
    """The letter of an option, upper case: of "(B)", "B.", "B is", "B" at a line's end; None where there is none."""
    found = ALONE.fullmatch(response) or find_indicated(OPTION, response, leading=True)
    return (found[1] or found[2]).upper() if found else None


@cache
def compile_pattern(pattern: str) -> re.Pattern[str]:
    """The compiled `task.pattern`. Raises ConfigurationError where it is no regular expression."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ConfigurationError(f"task.pattern={pattern!r} is no regular expression: {error}") from None


def score_answer(answer: str | None, references: Sequence[str], metric: AnswerMetric) -> float:
    """How well an answer fits, in [0, 1]: the best over the references; 0 without an answer.

    `exact_match`, `contains` and `token_f1` compare texts without case, punctuation, articles and surplus blanks, as
    SQuAD's evaluation (Rajpurkar et al. 2016); `numeric` compares numbers; `rouge_l` is the F-measure of ROUGE-L with
    stemming (the package rouge-score).
    """
    if answer is None:
        return 0.0
    score = METRICS[metric]
    return max(score(answer, reference) for reference in references)


def normalize_answer(text: str) -> str:
    """A text without case, punctuation, articles and surplus blanks."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def match_exactly(answer: str, reference: str) -> float:
    """1 where both are equal once normalized; where nothing but punctuation is left out, as they are written."""
    texts = [normalize_answer(text) or " ".join(text.split()) for text in (answer, reference)]
    return float(texts[0] == texts[1])


def match_number(answer: str, reference: str) -> float:
    """1 where both are the same number, to within 1e-5 of its size or of 1."""
    try:
        given, wanted = (Decimal(text.replace(",", "")) for text in (answer, reference))
        return float(abs(given - wanted) <= Decimal("1e-5") * max(Decimal(1), abs(wanted)))
    except InvalidOperation:
        return match_exactly(answer, reference)


def contains_reference(answer: str, reference: str) -> float:
    """1 where the normalized answer holds the reference's words one after another."""
    return float(f" {normalize_answer(reference)} " in f" {normalize_answer(answer)} ")


def compute_token_f1(answer: str, reference: str) -> float:
    """The harmonic mean of precision and recall over words; of two empty texts 1."""
    given, wanted = normalize_answer(answer).split(), normalize_answer(reference).split()
    if not given or not wanted:
        return float(given == wanted)
    common = sum((Counter(given) & Counter(wanted)).values())
    return 2 * common / (len(given) + len(wanted))


def compute_rouge_l(answer: str, reference: str) -> float:
    """The F-measure of ROUGE-L (Lin 2004) with Porter's stemmer."""
    return float(load_rouge().score(reference, answer)["rougeL"].fmeasure)


@cache
def load_rouge() -> Any:
    """The scorer of the package rouge-score. Raises ConfigurationError where it is missing."""
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise ConfigurationError("task.metric=rouge_l needs the package rouge-score: pip install rouge-score") from None
    return RougeScorer(["rougeL"], use_stemmer=True)


METRICS: dict[AnswerMetric, Callable[[str, str], float]] = {
    "exact_match": match_exactly,
    "numeric": match_number,
    "contains": contains_reference,
    "token_f1": compute_token_f1,
    "rouge_l": compute_rouge_l,
}
