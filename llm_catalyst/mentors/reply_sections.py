"""Separate the answer in a language model's text from its reasoning: tags, channels and headings.

All functions are pure, never raise, and take time linear in the length of the text.
"""

import re
from collections.abc import Sequence

NAMES = (
    r"(?:seed:)?think(?:ing)?|thoughts?|reason(?:ing)?|reflections?|scratch_?pad|analysis|planning|"
    r"(?:inner_?)?monologue|chain_?of_?thoughts?|cot|internal_thoughts|brainstorm(?:ing)?"
)
# <think>, <|thinking|>, [THINK], ◁think▷, each with its end
TAG = re.compile(rf"(?i)(?:<\|?|\[|◁)\s?(/?)\s?({NAMES})\s?(?:\|?>|\]|▷|\s[\w-]{{1,20}}=[^<>\n]{{1,80}}>)")
LINE_START = re.compile(r"(?:^|\n)[ \t]*$")
# Of gpt-oss, whose channels a server may leave in the text, with or without their marks.
FINAL_CHANNEL = re.compile(r"<\|channel\|>\s*final[^<\n]{0,80}<\|message\|>|(?<=[.\w\s])assistantfinal(?=\W|[A-Z])")
CHANNEL = re.compile(r"^\s*(?:<\|start\|>assistant)?(?:<\|channel\|>\s*(?:analysis|commentary)|analysis(?=[A-Z]))")
CHANNEL_END = re.compile(r"<\|(?:end|return|start)\|>")
ANSWER = re.compile(
    r"(?i)<(/?)(?:final[_ -]?)?(?:answers?|final|output|response|results?|prompts|templates|proposals|instructions"
    r"|candidates|suggestions)>"
)

CUT_OFF = "reasoning without an answer; the answer may have been cut off"
BEFORE = "reasoning before the answer"
BESIDE = "text beside the tags of the answer"
AFTER = "text after the end of the answer"
# Tokens of chat templates: before the answer in its line, at its end, and where the model goes on as somebody else.
OPENING = re.compile(
    r"(?im)^\s*(?:(?:<s>|<bos>|\[/INST\]|<\|(?:im_start|start|start_header_id|end_header_id|assistant)\|>|<start_of_turn>"
    r"|<｜[^｜<>]{1,30}｜>)[ \t]*(?:assistant|model)?(?=\W)[ \t]*)+|\A\s*assistant\s*(?::|\n)\s*"
)
END = re.compile(
    r"(?i)(?:<\|(?:im_end|eot_id|eom_id|endoftext|end_of_text|end|return)\|>|<｜end▁of▁sentence｜>|<end_of_turn>|</s>|<eos>)"
    r"(?:<[|｜][^|｜<>]{1,30}[|｜]>)?\s*(?:(?:assistant|model|user|human|system)\b[^\n]*|(?=\n|$))"
)
HALF_TAG = re.compile(r"</[A-Za-z_]{0,20}\s*\Z")  # where the answer was cut off
NEXT_TURN = re.compile(
    r"(?:<\|(?:im_start|start_header_id)\|>|<start_of_turn>)\s*(?:user|system)\b|<\|(?:user|system)\|>"
    r"|\n\s*(?:User|Human|USER|HUMAN):\s|\n#{2,4} (?:Instruction|Input|User|Human|Question)s?:\s"
)

Rest = tuple[str, str]  # a part of the text that is no answer, and the reason


def find_answer(text: str) -> tuple[str | None, list[Rest]]:
    """The part of a text that answers, and the other parts; None where the text ends in its reasoning."""
    if final := list(FINAL_CHANNEL.finditer(text)):
        return CHANNEL_END.split(text[final[-1].end() :], maxsplit=1)[0], [(text[: final[-1].start()], BEFORE)]
    if CHANNEL.match(text):
        return None, [(text, CUT_OFF)]
    answer, thoughts, ended = cut_thoughts(text)
    if not ended and not answer.strip():
        return None, [(text, CUT_OFF)]
    rest = [(thoughts, BEFORE if ended else CUT_OFF)] if thoughts.strip() else []
    answer, later = cut_turns(answer)
    rest += [(later, AFTER)] * bool(later.strip())
    inside, outside = cut_outside(answer)
    return inside, [*rest, *[(outside, BESIDE)] * bool(outside.strip())]


def cut_thoughts(text: str) -> tuple[str, str, bool]:
    """The text without what stands in tags of reasoning, that, and whether the last of these ends.

    An end without a beginning, which chat templates leave out, ends what stands before it. A beginning counts at the
    beginning of a line, or where its end follows.
    """
    tags = list(TAG.finditer(text))
    closed = max((tag.start() for tag in tags if tag[1]), default=-1)
    kept, thoughts, at, depth = list[str](), list[str](), 0, 0
    for tag in tags:
        if tag[1]:
            if depth == 0:  # it began before the text
                thoughts, kept = [*thoughts, *kept, text[at : tag.start()]], []
            else:
                thoughts.append(text[at : tag.start()])
            depth, at = 0, tag.end()
        elif depth == 0 and (tag.start() < closed or begins_line(text, tag.start())):
            kept.append(text[at : tag.start()])
            depth, at = 1, tag.end()
    (thoughts if depth else kept).append(text[at:])
    return "".join(kept), "".join(thoughts), depth == 0


def begins_line(text: str, place: int) -> bool:
    """Whether only blanks stand before a place in its line."""
    return bool(LINE_START.search(text[max(0, place - 40) : place]))


def cut_turns(text: str) -> tuple[str, str]:
    """The text without the tokens of a chat template, and what the model wrote after it in another's name."""
    text = HALF_TAG.sub("", END.sub("", OPENING.sub("", text)))
    turn = next((found for found in NEXT_TURN.finditer(text) if text[: found.start()].strip()), None)
    return (text[: turn.start()], text[turn.start() :]) if turn else (text, "")


def cut_outside(text: str) -> tuple[str, str]:
    """What stands in the tags of an answer, and what stands outside; the whole text where there are none."""
    inside, outside, at, is_open = list[str](), list[str](), 0, False
    for tag in ANSWER.finditer(text):
        if bool(tag[1]) is is_open:
            (inside if is_open else outside).append(text[at : tag.start()])
            at, is_open = tag.end(), not is_open
    (inside if is_open else outside).append(text[at:])
    answer = "\n".join(inside)
    return (answer, "".join(outside)) if answer.strip() else (text, "")


# --- sections under headings

ASIDE = re.compile(
    r"(?i)(?:(?:my|the|some|brief|short|step-by-step|step \d+:?|initial|key|main|general)\s+)*"
    r"(?:analys[ie]s|reason(?:ing)?|thoughts?|thinking|thought process|observations?|insights?|findings|rationales?"
    r"|explanations?|justifications?|reflections?|approach|considerations?|patterns?|takeaways|understanding|planning"
    r"|notes?|brainstorm(?:ing)?|drafts?|trajectory|trends?|(?:current|previous) prompts?|why (?:this|these).{0,40})"
    r"(?:\s+(?:of|on|for|about|from|in)\b.{0,60})?"
)
FINAL = re.compile(
    r"(?i)(?:(?:the|my|here are|final|new|proposed|improved|revised|suggested|best|better|recommended|optimized"
    r"|three|four|five|ten|\d{1,2})\s+)*"
    r"(?:prompts|templates|instructions|proposals|candidates|suggestions|answers?|output|results?|list"
    r"|(?<=final )(?:prompt|template|instruction|proposal))"
)
HEADING = "a heading"
ASIDE_LINE, BEFORE_HEADING = "a line of an analysis, not of the answer", "a line before the heading of the answer"
EMPHASIS = re.compile(r"^[#\s*_>]+|[\s*_:.]+$")


def name_section(line: str, before_list: bool) -> str | None:
    """What begins below a line that is a heading: "aside" for an analysis, "final" for the answer; None for others.

    A heading without a mark of one, such as "Final prompts", has a capital and stands before a list.
    """
    words = EMPHASIS.sub("", line[:160])
    marked = line.lstrip()[:1] in ("#", "*", "_") or line.rstrip(" *_").endswith(":")
    if (
        not words
        or line.lstrip()[:1] in "-•+|"
        or len(line) > 120
        or not (marked or (before_list and words[0].isupper()))
    ):
        return None
    if ASIDE.fullmatch(words):
        return "aside"
    return "final" if FINAL.fullmatch(words) else None


def find_headings(lines: Sequence[str], listed: Sequence[bool]) -> list[str | None]:
    """The name of each line's section if the line is its heading (see `name_section`), or None."""
    found: list[str | None] = []
    before_list = False
    for line, item in zip(reversed(lines), reversed(listed), strict=True):
        found.append(name_section(line, before_list))
        before_list = item if line.strip() else before_list
    return found[::-1]


def choose_sections(lines: Sequence[str], listed: Sequence[bool]) -> list[str | None]:
    """For each line None if it may be part of the answer, or else the reason why it is none.

    An analysis ends at the next heading of any kind, or where it is prose at the list after a blank line.
    """
    headings = find_headings(lines, listed)
    names: list[str] = []
    section, prose, blank = "", False, False
    for line, item, heading in zip(lines, listed, headings, strict=True):
        if heading:
            section, prose = heading, False
        elif section == "aside":
            prose = prose or (bool(line.strip()) and not item)
            if (is_title(line) and not item) or (item and blank and prose):
                section = ""
        names.append("" if heading else section)
        blank = not line.strip()
    answered = [i for i, (name, line) in enumerate(zip(names, lines, strict=True)) if name == "final" and line.strip()]
    first = answered[0] if answered else 0
    reasons: list[str | None] = [ASIDE_LINE if name == "aside" else None for name in names]
    reasons[:first] = [reason or BEFORE_HEADING for reason in reasons[:first]]
    return [HEADING if heading else reason for heading, reason in zip(headings, reasons, strict=True)]


def is_title(line: str) -> bool:
    """Whether a line is marked as a heading, whatever it says."""
    text = line.strip()
    return text.startswith("#") or (text.startswith("**") and text.rstrip(" :").endswith("**"))
