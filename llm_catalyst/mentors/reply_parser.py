"""Parse a language model's free text into clean proposals, with a reason for each line that is dropped.

All functions are pure, never raise, and take time linear in the length of the response.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import suppress
from dataclasses import dataclass, replace
from html import unescape
from typing import Any, TypeAlias

from llm_catalyst.mentors import reply_sections
from llm_catalyst.mentors.reply_json import choose_text_fields, decode_inner, decode_value
from llm_catalyst.mentors.reply_markup import split_only_line, unfold_lists, unfold_marks
from llm_catalyst.runs.records import Rejected
from llm_catalyst.utils.format import shorten_text

MOST_READ = 64  # proposals that are read from one response, whatever number was asked for
LONGEST = 1000  # characters of one proposal: far more than any prompt of m tokens
SHOWN = 200  # characters of a rejected line that are kept
MOST_LINES = 10_000  # lines of one response that are read
MOST_REJECTED = 100  # rejected lines that are kept; the others are counted
JSON_ATTEMPTS = 32  # failed attempts to decode JSON; a bound, so that "[[[[…" stays linear
JSON_DEPTH = 5

ParsedTexts: TypeAlias = tuple[list[str], list[Rejected]]  # the texts in a response, and its other lines
FaultFinder: TypeAlias = Callable[[str, Set[str]], str | None]  # the reason against a text beside earlier ones

INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0e\ufeff\uffa0"
    "\ufff9-\ufffb\U000e0000-\U000e0fff\ud800-\udfff]"
    # Between letters of Arabic, Indic and the like the two joiners are spelling.
    "|[\u200c\u200d](?![\u0600-\u1fff])|(?<![\u0600-\u1fff])[\u200c\u200d]"
)
ESCAPED_LINE_END = re.compile(r"\\n(?=\s*(?:[-*•\"“]|[A-Z\d]))")
ESCAPED = re.compile(r"(?i)&(?:amp|quot|apos|lt|gt|nbsp|#39|#34|#x27|#x22);")  # as some gateways send quotes
ANSI = re.compile(r"\x1b(?:\[[0-9;:?]{0,32}[A-Za-z]|\][^\x07\x1b]{0,256}(?:\x07|\x1b\\)|[()][A-Z0-9]|[=>78cDEHMZ])")
NEWLINE = re.compile("\r\n|[\r\v\f\x85\u2028\u2029]")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
SPECIAL = re.compile(
    r"(?i)</?s>|<(?:pad|unk|mask|bos|eos|cls|sep)>|\[(?:CLS|SEP|PAD|UNK|MASK|BOS|EOS|/?INST)\]|<</?SYS>>"
    r"|<[|｜][^|｜<>\s]{1,40}[|｜]>|<extra_id_\d{1,3}>|<(?:start|end)_of_turn>"
    r"|</?(?:prompt|ins|text|template|answer|output|result|proposal|instruction|candidate|item|entry)s?"
    r"(?:[_ -]?\d{1,2})?"
    r"(?:\s[^<>]{1,80})?>"
)

KIND = (
    r"(?:(?:new|improved|better|proposed|suggested|revised|final)\s+)?(?:text\s+)?"
    r"(?:template|prompt|instruction|proposal|candidate|option|suggestion|variant|version)s?"
)
TAGGED = re.compile(
    r"(?i)<(?:prompt|ins|text|template|proposal|instruction|candidate|item|entry)(?:[_ -]?\d{1,2})?(?:\s[^<>]{1,80})?>"
)
MARKER = re.compile(
    r"[-•‣◦▪▫●○■□◆◇★☆►▶▸▹➢➤➔➜→⇒»⁃∙·–—+*>☐✅✔☑✓✦✧✨👉🔹🔸💡🎯📌🟢🔵⭐]\ufe0f?\s+"
    r"|[-•‣◦▪●·–—+*>]{1,3}(?=\s|[^\W\d_]|[\"'“‘«„`\[<(])\s*"  # - text   * text   • text   > text
    r"|[(\[]?\d{1,3}(?:[.)\]:、．]|\s[-–—]\s)(?!\d)\s*"  # 1. text   1) text   (1) text   [1] text   1 - text
    r"|\d{1,2}/\s+|\d\ufe0f?\u20e3\s*|[\u2460-\u249b\u24b6-\u24ff\u2776-\u2793]\ufe0f?\s*"  # 1/ text   ① text
    r"|\[[ xX✓✔]\]\s+"  # [ ] text
    r"|[(\[]?[a-hA-H][.)\]]\s+"  # a) text
    r"|[(\[]?(?:[ivx]{1,5}|[IVX]{1,5})[.)\]]\s+"  # ii. text
    r"|[A-Z]\d{1,2}\s?[.:)]\s+"  # P1: text
)
LABEL = re.compile(
    rf"[\"']?(?:{KIND}|(?:the\s+)?(?:final\s+)?answer)"
    r"(?:\s*(?:#|no\.\s*)?(?:\d{1,3}|one|two|three|four|five|[a-h](?=[:.)]))[\"']?\s*[:：.)=–—-]|[\"']?\s*[:：=])\s*",
    re.IGNORECASE,
)
FIELD_LABEL = re.compile(r"(?:text|content|wording)\s?:\s+", re.IGNORECASE)  # of an item of YAML
BOLD_ITEM = re.compile(r"\*\*([^*\n]{3,400})\*\*\s*[-–—:(]\s*\S")
METRIC_TAIL = re.compile(
    r"(?:\s*[(\[|–—,;-]|(?<=[.?!])\s)\s*(?:(?:expected|estimated|predicted|est\.?|dev)\s+)?"
    r"(?:loss|acc(?:uracy)?|score)\s*[:=≈~]?\s*~?\d[^\n]{0,80}$",
    re.IGNORECASE,
)
STRUCK = re.compile(r"~~[^~\n]+~~$")
COMMAND = re.compile(r"\\(?:textbf|textit|texttt|text|emph|underline|boxed)\{([^{}]{1,1000})\}$")
HEADING = re.compile(rf"(?:(?:the|my|three|\d{{1,2}})\s+)?{KIND}\s*#?\d{{0,3}}\s*[:.]?$", re.IGNORECASE)
ASIDE = re.compile(
    r"(?i)[\"']?(?:expected\s+|estimated\s+|predicted\s+)?(?:loss|accuracy|score|metric|rationale|reason(?:ing)?"
    r"|explanation|note|why|analysis|thoughts?|comment)[\"']?\s{0,3}(?:\([^)]{0,80}\))?\s{0,3}[:=]"
    r"|(?:id|index|rank|number)\s?:\s?\d{1,3}$"
)
CHATTER = re.compile(  # of a text with straight apostrophes
    r"(?i)(?:sure|certainly|of course|okay|let me know|i hope|feel free|(?:i'm |i am |we are )?sorry|i can(?:not|'t)"
    r"|i(?:'m| am) (?:unable|not able)|i (?:must|have to) decline|i (?:won't|will not)|i do(?:n't| not) feel"
    r"|i apologi[sz]e|my apologies|unfortunately, (?:i|we)|as an ai|i need (?:more|the)"
    r"|(?:es )?tut mir leid|(?:je suis )?désolé|lo siento|mi dispiace|desculpe)\b"
    r"|(?:很?抱歉|对不起|我无法|申し訳|죄송|извините)"
    r"|(?:none|null|n/?a)[.!]?$"
    r"|(?:here(?:'s| is| are)|below (?:is|are)|these|both|all)\b.{0,200}"
    r"\b(?:prompts?|templates?|proposals?|suggestions?|instructions?)\b"
)
FENCE = re.compile(r"\s*(?:```|~~~)[\w+-]{0,20}(?:\s*[\w-]{0,20}[={][^`\n]{0,80})?\s*$")
BLOCK = re.compile(r"[|>][+-]?$")  # of YAML: the text begins below
REMARK = re.compile(r"\s*(?:[-–—(:;→←=|].*)?$")  # may follow a quoted proposal: "text" (because …)
QUOTES = {
    '"': '"',
    "'": "'",
    "“": "”",
    "”": "”",
    "‘": "’",
    "«": "»",
    "»": "«",
    "„": "“”",
    "‚": "‘’",
    "「": "」",
    "『": "』",
    "`": "`",
}
OFFICIAL_MARK = re.compile(r"^(?:-|.[-.]|\*|.\*)", re.DOTALL)
NO_APOSTROPHE = re.compile(r"(?<!\w)['’]|['’](?!\w)")

NO_PROPOSAL = (
    (STRUCK, "struck out"),
    (re.compile(r"[\[{]\s*[\"\[{]"), "broken JSON"),
    (ASIDE, "a remark, not a proposal"),
)
JSON_START = re.compile(r"(?:^|:)[ \t]*([\[{])", re.MULTILINE)


@dataclass(frozen=True)
class Candidate:
    """A line of a response, the proposal in it, the reason why it is none (None if it may be one), and whether it looks
    like an item of a list: marked, numbered, labelled, quoted or fenced."""

    line: str
    text: str
    reason: str | None = None
    listed: bool = False

    def drop(self, reason: str) -> "Candidate":
        """The candidate with `reason` to drop it; an earlier reason stays."""
        return replace(self, reason=self.reason or reason)


def parse_proposals(response: str, limit: int = MOST_READ) -> ParsedTexts:
    """At most `limit` clean, distinct proposals from a response of any reasonable format, and the dropped lines."""
    answer, dropped = split_reasoning(response)
    if answer is None:
        return [], dropped
    answer = unescape_lines(answer)
    texts, rejected = screen_candidates(read_json(answer) or read_lines(answer), limit)
    return texts, dropped + rejected


def split_reasoning(response: str) -> tuple[str | None, list[Rejected]]:
    """The answer after a model's reasoning, without invisible characters, and the reasoning as a rejected line.

    The answer is None if the reasoning does not end.
    """
    answer, rest = reply_sections.find_answer(strip_invisible(ESCAPED.sub(lambda one: unescape(one[0]), response)))
    return answer, [Rejected(shorten_line(part), reason) for part, reason in rest]


def unescape_lines(answer: str) -> str:
    r"""The answer with line ends, where a gateway has sent all of it as one JSON text, or every line end as \n."""
    text = answer.strip()
    with suppress(ValueError):
        if text[:1] == '"' and "\\" in text:
            return str(json.loads(text))
    return answer if "\n" in text or text[:1] in ("[", "{") else ESCAPED_LINE_END.sub("\n", answer)


def parse_official(response: str, limit: int = MOST_READ) -> ParsedTexts:
    """The lines of a response as the method's published code reads them: without mark and double quotes.

    Source: guozix/LLM-catalyst, exp_lm/chatgpt_hk.py, but for its index errors. Lines of 10 characters or fewer are
    dropped; nothing is cleaned, and duplicates stay. At most `limit` lines are taken, and of each at most the first
    LONGEST characters: far more than that code ever uses.
    """
    lines = filter(None, map(str.strip, response.splitlines()))
    candidates = (Candidate(line, peel_official(line)) for line in lines)
    fault = "10 characters or fewer"
    texts, rejected = select_texts(candidates, limit, lambda text, _: fault if len(text) <= 10 else None)
    return [text[:LONGEST] for text in texts], rejected


def peel_official(line: str) -> str:
    """A line without mark and double quotes, as the published code strips them."""
    text = OFFICIAL_MARK.sub("", line).strip()
    return text[1:-1].strip() if len(text) > 1 and text[0] == text[-1] == '"' else text


def strip_invisible(text: str) -> str:
    """`text` without terminal escapes, control and invisible characters; newlines and tabs stay."""
    text = ANSI.sub("", INVISIBLE.sub("", text))
    return CONTROL.sub(" ", NEWLINE.sub("\n", text))


def clean_line(text: str) -> str:
    """`text` on one line, without special tokens, control or invisible characters."""
    return " ".join(SPECIAL.sub(" ", strip_invisible(text)).split())


def shorten_line(line: str) -> str:
    """The first SHOWN characters of a line, for a record."""
    return shorten_text(line, SHOWN)


def screen_candidates(candidates: Iterable[Candidate], limit: int = MOST_READ) -> ParsedTexts:
    """The first `limit` clean and distinct texts, and the lines that are dropped."""
    return select_texts((replace(each, text=clean_line(each.text)) for each in candidates), limit, find_fault)


def select_texts(candidates: Iterable[Candidate], limit: int, find_fault: FaultFinder) -> ParsedTexts:
    """The first `limit` texts in which `find_fault` finds none, and the other lines, at most MOST_REJECTED of them."""
    texts: list[str] = []
    rejected: list[Rejected] = []
    seen: set[str] = set()
    for candidate in candidates:
        reason = candidate.reason or find_fault(candidate.text, seen)
        if reason is None and len(texts) < limit:
            texts.append(candidate.text)
            seen.add(candidate.text.casefold())
        else:
            reason = reason or f"more than {limit} proposals"
            rejected.append(Rejected(shorten_line(candidate.line.strip()), reason))
    surplus = len(rejected) - MOST_REJECTED
    if surplus > 0:
        rejected[MOST_REJECTED:] = [Rejected("…", f"{surplus} further lines were dropped too")]
    return texts, rejected


def reject_texts(parsed: ParsedTexts, find_fault: Callable[[str], str | None]) -> ParsedTexts:
    """The texts in which `find_fault` finds none; the others, with their faults, join the dropped lines."""
    texts, rejected = parsed
    faults = {text: find_fault(text) for text in texts}
    wrong = [Rejected(shorten_line(text), fault) for text, fault in faults.items() if fault]
    return [text for text in texts if not faults[text]], rejected + wrong


def find_fault(text: str, seen: Set[str]) -> str | None:
    """The reason why a clean text cannot be a proposal beside those seen before, casefolded, or None."""
    if not any(character.isalnum() for character in text):
        return "no letter or digit in it"
    if len(text) > LONGEST:
        return f"longer than {LONGEST} characters"
    return "a duplicate in the same answer" if text.casefold() in seen else None


def read_lines(answer: str) -> list[Candidate]:
    """Candidates from a response, one per line. If some lines look like a list, the others are prose."""
    *lines, rest = [*answer.split("\n", MOST_LINES), ""][: MOST_LINES + 1]
    lines = unfold_lists("\n".join(lines)).split("\n")
    peeled = [peel_markup(line) for line in lines]
    if not any(marked for _, marked in peeled):
        lines = unfold_marks(lines)
        peeled = [peel_markup(line) for line in lines]
    sections = reply_sections.choose_sections(lines, [marked for _, marked in peeled])
    candidates: list[Candidate] = []
    fenced = expected = False
    for line, (text, marked), section in zip(lines, peeled, sections, strict=True):
        if not line.strip():
            continue
        if FENCE.match(line):
            fenced = not fenced
            if fenced and candidates and candidates[-1].text.endswith(":"):
                candidates[-1] = candidates[-1].drop("a heading")
            continue
        title = (line.lstrip().startswith("#") and not marked) or section == reply_sections.HEADING
        heading = not text or HEADING.match(text.strip("[]<>{}")) or BLOCK.match(text) or title
        if heading:
            candidates.append(Candidate(line, text, "a heading"))
        else:
            reason = section or next((why for pattern, why in NO_PROPOSAL if pattern.match(text)), None)
            candidates.append(Candidate(line, text, reason, marked or fenced or expected))
        expected = bool(heading)  # the line below "Template 1:" is the template
    if rest:
        candidates.append(Candidate(rest, rest, f"beyond the first {MOST_LINES} lines"))
    if any(candidate.listed and not candidate.reason for candidate in candidates):
        return [each if each.listed else each.drop("prose beside the list") for each in candidates]
    kept = [each.drop("a phrase, not a proposal") if is_phrase(each.text) else each for each in candidates]
    if len(kept) > 1 and kept[0].text.endswith((":", "：")):
        kept[0] = kept[0].drop("an introduction")
    usable = [each for each in kept if not each.reason]
    if len(usable) == 1 and len(parts := split_only_line(usable[0].text)) > 1:
        return [*(Candidate(part, part, listed=True) for part in parts), *(each for each in kept if each.reason)]
    return kept


def is_phrase(text: str) -> bool:
    """Whether an unmarked line is a phrase or a refusal, in languages in which models write these."""
    return bool(CHATTER.match(text.replace("’", "'")))


def peel_markup(line: str) -> tuple[str, bool]:
    """The text of a line without list mark, label, emphasis and quotes; True if it had a mark, a label or quotes."""
    marked = bool(TAGGED.match(line.strip()))
    text = take_bold_item(line).strip().lstrip("#").replace("**", "").strip()
    for _ in range(6):  # they nest: - **Prompt 1:** "text"
        before = text
        if len(text) > 2 and text[0] == text[-1] and text[0] in "*_" and text[1] != text[0]:
            text = text[1:-1].strip()
        for pattern in (MARKER, LABEL):
            if found := pattern.match(text):
                text, marked = text[found.end() :].strip(), True
        if marked and (field := FIELD_LABEL.match(text)):
            text = text[field.end() :]
        if command := COMMAND.match(text):
            text = command[1].strip()
        inner = unquote_text(METRIC_TAIL.sub("", text) or text)
        marked = marked or inner != text
        text = inner
        if text == before:
            break
    return text, marked


def take_bold_item(line: str) -> str:
    """A line without what follows a proposal in bold: '1. **Is it good?** – short' has a remark, not a label."""
    mark = MARKER.match(line.strip())
    text = line.strip()[mark.end() :] if mark else line.strip()
    found = BOLD_ITEM.match(text)
    whole = found and (found[1].endswith(("?", "!", ".", '"')) or len(found[1].split()) > 4)
    return f"- {found[1]}" if found and whole and not LABEL.match(f"{found[1]}:") else line


def unquote_text(text: str) -> str:
    """The quoted part of a text that is a quotation, with or without a remark after it; else the text."""
    if text.startswith("`") and text.endswith("`") and "`" not in text.strip("`"):
        return text.strip("`").strip()
    close = QUOTES.get(text[:1])
    if close is None:
        return text[:-1] if text.rstrip(",").endswith('"') and text.count('"') == 1 else text
    whole = text.rstrip(",;. ")
    close = whole[-1] if whole.endswith(tuple(close)) else close[0]
    inner = whole[1:-1]
    nested = NO_APOSTROPHE.search(inner) if close in "'’" else close in inner
    if len(whole) > 1 and whole.endswith(close) and not nested:
        return inner.strip()
    end = text.find(close, 1)
    if end > 1 and REMARK.match(text, end + 1):
        return text[1:end].strip()
    return text[1:] if end < 0 and close == '"' else text


def read_json(answer: str) -> list[Candidate]:
    """Candidates from the JSON values in a response; none if it contains no JSON with texts."""
    found: list[Candidate] = []
    bounds = [0]  # of the prose around the values
    failures = 0
    for start in (match.start(1) for match in JSON_START.finditer(answer)):
        if start < bounds[-1]:
            continue
        value, end = decode_value(answer, start)
        is_error = isinstance(value, dict) and value.get("error")
        texts = [Candidate(answer[start:end], "", "an error, not an answer")] if is_error else [*collect_texts(value)]
        if is_error or any(not candidate.reason for candidate in texts):
            found += texts
            bounds += [start, end]
        elif (failures := failures + 1) == JSON_ATTEMPTS:
            break
    if not found:
        return []
    prose = [answer[begin:end] for begin, end in zip(bounds[::2], [*bounds[1::2], None], strict=True)]
    lines = [line for piece in prose for line in piece.split("\n") if not FENCE.match(line)]
    return found + [Candidate(line, line, "prose beside the JSON") for line in lines if any(map(str.isalnum, line))]


def collect_texts(value: Any, depth: int = 0) -> Iterator[Candidate]:
    """Candidates from a decoded value: a string, a list, or an object with a text-like field."""
    if isinstance(value, str):
        yield Candidate(value, peel_markup(value)[0])
    elif isinstance(value, list) and depth < JSON_DEPTH:
        for item in value:
            yield from collect_texts(item, depth + 1)
    elif isinstance(value, dict) and depth < JSON_DEPTH:
        value = {key: decode_inner(item) for key, item in value.items()}
        chosen = choose_text_fields(value)
        for key, item in value.items():
            if key in chosen:
                yield from collect_texts(item, depth + 1)
            elif isinstance(item, str):
                yield Candidate(f"{key}: {item}", item, "a field beside the text")
    elif value is not None:
        shown = str(value) if isinstance(value, int | float) else type(value).__name__
        yield Candidate(shown, shown, "not a text")
