"""Lists that are written in other ways than one item a line: tables, HTML, LaTeX, several items in a line.

All functions are pure, never raise, and take time linear in the length of the text.
"""

import csv
import re
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise

MOST_ROWS = 500
RULE = re.compile(r"\s*\|?\s*:?-{2,}:?\s*(?:\|\s*:?-{2,}:?\s*){0,20}\|?\s*$")
HTML_ITEM = re.compile(r"(?i)<(?:li|p|dd|dt)(?:\s[^<>]{0,80})?>")
HTML_END = re.compile(r"(?i)</(?:li|p|dd|dt|tr)>|<br\s{0,3}/?>")
HTML_CELL = re.compile(r"(?i)</t[dh]>\s{0,40}<t[dh](?:\s[^<>]{0,80})?>")
HTML_REST = re.compile(r"(?i)</?(?:ul|ol|dl|table|tbody|thead|tr|td|th|div)(?:\s[^<>]{0,80})?>")
ITEM = r"(?:prompt|ins|text|template|proposal|instruction|candidate|item|entry)(?:[_ ]?\d{1,2})?"
ITEM_END = re.compile(rf"(?i)(</{ITEM}>)")
ITEM_BEGIN = re.compile(rf"(?i)(?<=>)(?=<{ITEM}(?:\s[^<>]{{0,80}})?>)")
ITEM_BLOCK = re.compile(rf"(?i)(<{ITEM}(?:\s[^<>]{{0,80}})?>)\s*\n([^<]{{1,1000}})(?=</{ITEM}>)")  # of several lines
LIST_LINE = re.compile(r"(?m)^\s*(?:[-*•]|\d{1,2}[.)])\s")
OTHER_ELEMENT = re.compile(
    r"(?i)<(id|number|rank|index|name|loss|accuracy|score|reason(?:ing)?|rationale|explanation|notes?|why)>"
    r"[^<]{0,1000}</\1>"
)
CDATA = re.compile(r"<!\[CDATA\[|\]\]>|<\?xml[^<>]{0,80}\?>")
DRAWN = re.compile("[│┃║]")
BOXES = str.maketrans("│┃║─━═┌┐└┘├┤┬┴┼╔╗╚╝╠╣╦╩╬", "|||---" + 18 * "|")  # a table drawn with lines
MARKED_LINE = re.compile(
    r"\s*([^\W\d_][^\d\n:：]{0,24}?|)[\s#№.°(\[（【]{0,4}(\d{1,2}(?:\.\d{1,2})?|[一二三四五六七八九十])\s?"
    r"(?:[.)\]）】:：。、>|–—-]{1,3}\s*|\t)(?=\S)"
)
FIELD = re.compile(r"(?i)(?:text|content|wording)\s?[:：]\s")
PICTURE = re.compile(r"\s*[\u2600-\u27bf\u2b00-\u2bff\U0001f300-\U0001faff]\ufe0f?\s*(?=\S)")
CHINESE_DIGITS = "一二三四五六七八九十"
LATEX_LINE = re.compile(r"\s*\\(?:begin|end)\{[a-z*]{1,20}\}(?:\[[^\]]{0,40}\])?")
LATEX_ITEM = re.compile(r"\\item(?![a-z])(?:\s?\[[^\]]{0,20}\])?\s*")
LATEX_BOXED = re.compile(r"\\boxed\{((?:[^{}\n]|\{[^{}\n]{0,300}\}){0,1000})\}")
NUMBER = re.compile(r"(?:^|(?<=\s))[(\[]?(\d{1,2})[.)\]]\s+")
CIRCLED = re.compile(r"(?<=\S)\s+(?=[\u2460-\u2473\u2776-\u277f\u2780-\u2793])")
QUOTED = re.compile(r'"([^"\n]{2,400})"|“([^”\n]{2,400})”|«([^»\n]{2,400})»')
BETWEEN_QUOTED = re.compile(r"[\s,;/|&.]*(?:and|or|und|et)?[\s,;/|&.]*")
NUMBERED_ROW = re.compile(r"(?:\d{1,3}|#|No\.?)\s{1,9}\|")
PIPE = re.compile(r"(?<!\\)\|")

TEXT_COLUMN = re.compile(
    r"(?i).*\b(?:prompt|template|text|instruction|proposal|candidate|suggestion|wording|phrase)s?\b.*"
)
OTHER_COLUMN = re.compile(
    r"(?i)#|no\.?|n[r°º]\.?|id|index|number|rank|.*\b(?:loss|acc(?:uracy)?|score|reason\w*|rationale|expla\w+|notes?|comment\w*"
    r"|why|length|words|type|strategy|idea|change\w*|expected.*|tokens?|original.*|old.*|current.*|previous.*)\b.*"
)


def unfold_lists(answer: str) -> str:
    """The text with one item a line, each after "- ", wherever it has a list in another form."""
    if "<" in answer:
        answer = OTHER_ELEMENT.sub("\n", CDATA.sub("", answer))
        answer = ITEM_BLOCK.sub(join_block, ITEM_BEGIN.sub("\n", answer))
        answer = ITEM_END.sub(r"\1\n", answer)
        if HTML_ITEM.search(answer) or HTML_CELL.search(answer):
            answer = HTML_CELL.sub(" | ", HTML_END.sub("\n", HTML_ITEM.sub("\n- ", answer)))
            answer = HTML_REST.sub("\n", answer)
    if "\\" in answer:
        answer = LATEX_ITEM.sub("\n- ", LATEX_LINE.sub("\n", answer))
        if boxed := LATEX_BOXED.findall(answer):
            answer = "\n".join(f"- {text}" for text in boxed)
    if DRAWN.search(answer):
        answer = answer.translate(BOXES)
    lines = answer.split("\n")
    return "\n".join(unfold_csv(lines) or unfold_tables(lines))


def join_block(found: re.Match[str]) -> str:
    """The text of an element on one line, unless it is a list."""
    return found[0] if LIST_LINE.search(found[2]) else f"{found[1]}{' '.join(found[2].split())}"


def unfold_marks(lines: Sequence[str]) -> list[str]:
    """The lines of an answer without any usual mark, as items where at least two begin alike.

    They begin with numbers that count on, with or without a word of any language before them ("Vorschlag 1:", "1- ",
    "（1）"), with "text:", or all with a picture.
    """
    by_word: dict[str, list[tuple[int, re.Match[str], int]]] = {}
    for i, line in enumerate(lines):
        if found := MARKED_LINE.match(line):
            number = found[2].rpartition(".")[2]
            value = CHINESE_DIGITS.index(number) + 1 if number in CHINESE_DIGITS else int(number)
            by_word.setdefault(found[1].strip().casefold(), []).append((i, found, value))
    runs = [group for group in by_word.values() if all(b[2] == a[2] + 1 for a, b in pairwise(group))]
    counted = [(i, found.end()) for group in runs if len(group) > 1 for i, found, _ in group]
    fields = [(i, 0) for i, line in enumerate(lines) if FIELD.match(line)]
    pictures = [(i, found.end()) for i, line in enumerate(lines) if (found := PICTURE.match(line))]
    if len(pictures) < sum(bool(line.strip()) for line in lines):
        pictures = []
    chosen = dict(next((marks for marks in (counted, fields, pictures) if len(marks) > 1), []))
    return [f"- {line[chosen[i] :]}" if i in chosen else line for i, line in enumerate(lines)]


def unfold_tables(lines: Sequence[str]) -> list[str]:
    """The lines, with each row of a Markdown table as an item, and lines of several items as several."""
    found: list[str] = []
    table: list[str] = []
    for line in [*lines, ""]:
        if is_row(line, bool(table)):
            table.append(line)
            continue
        found += unfold_table(table)
        table = []
        found += unfold_line(line)
    return found[:-1]


def is_row(line: str, within: bool) -> bool:
    """Whether a line is a row of a table: between pipes, or with one beside rows that are."""
    text = line.strip()
    if "|" not in text or "<|" in text or text.startswith(("- ", "* ", '"')):
        return False
    return (
        (text[0] == text[-1] == "|" and len(text) > 1)
        or within
        or bool(re.match(r"(?:\d{1,3}|#|No\.?)\s{1,9}\|", text))
    )


def split_row(line: str) -> list[str]:
    """The cells of a row."""
    text = line.strip()
    text = text[1:] if text.startswith("|") else text
    text = text[:-1] if text.endswith("|") and not text.endswith("\\|") else text
    return [cell.strip().replace("\\|", "|") for cell in PIPE.split(text)]


def unfold_table(rows: Sequence[str]) -> list[str]:
    """An item for each row of a table but its head: the cell of the column that holds the texts."""
    body = [split_row(row) for row in rows if not RULE.match(row)]
    if not body:
        return []
    ruled = len(body) < len(rows)
    head = body[0] if ruled or any(OTHER_COLUMN.fullmatch(cell) for cell in body[0]) else []
    body = body[1:] if head else body
    column = choose_column(head, body)
    cells = [row[column] for row in body if column < len(row)]
    return [f"- {strip_emphasis(cell)}" for cell in cells if cell]


def choose_column(head: Sequence[str], body: Sequence[Sequence[str]]) -> int:
    """The number of the column with the texts: the one whose heading says so, or else the one with the most letters."""
    names = [strip_emphasis(name) for name in head]
    other = {i for i, name in enumerate(names) if OTHER_COLUMN.fullmatch(name)}
    named = [i for i, name in enumerate(names) if i not in other and TEXT_COLUMN.fullmatch(name)]
    width = max((len(row) for row in body), default=0)
    letters = [sum(sum(map(str.isalpha, row[i])) for row in body if i < len(row)) for i in range(width)]
    usual = named or [i for i in range(width) if i not in other] or list(range(width)) or [0]
    return max(usual, key=lambda i: letters[i] if i < width else 0) if usual else 0


def strip_emphasis(cell: str) -> str:
    """A cell without the asterisks or backticks around it."""
    return cell.strip().strip("*`").strip()


def unfold_line(line: str) -> list[str]:
    """A line, or its items where it holds several: '1. a 2. b', '① a ② b', '"a", "b" and "c"', 'a; b; c'."""
    text = line.strip()
    numbers = list(NUMBER.finditer(text)) if text[:3].strip("([")[:1].isdigit() else []
    if len(numbers) > 1 and [int(n[1]) for n in numbers] == list(range(1, len(numbers) + 1)) and not numbers[0].start():
        ends = [n.start() for n in numbers[1:]] + [len(text)]
        return [f"- {text[n.end() : end].strip().rstrip(',;')}" for n, end in zip(numbers, ends, strict=True)]
    if text[:1] and "\u2460" <= text[0] <= "\u2793":
        return CIRCLED.split(text)
    quoted = list(QUOTED.finditer(text))
    if len(quoted) > 1 and is_quoted_list(text, quoted):
        return [f'- "{q[1] or q[2] or q[3]}"' for q in quoted]
    return [line]


def is_quoted_list(text: str, quoted: Sequence[re.Match[str]]) -> bool:
    """Whether only commas and the like stand between quotations, and no more than an introduction before them."""
    gaps = [text[a.end() : b.start()] for a, b in pairwise(quoted)]
    before, after = text[: quoted[0].start()], text[quoted[-1].end() :]
    return (
        all(BETWEEN_QUOTED.fullmatch(gap) for gap in gaps)
        and (any("," in gap or ";" in gap for gap in gaps) or all(" " in quote[0] for quote in quoted))
        and len(after) < 20
        and (len(before) < 4 or before.rstrip().endswith((":", "are", "suggest", "propose", "try", "be", "[", "use")))
    )


def unfold_csv(lines: Sequence[str]) -> list[str]:
    """An item for each row below a head like 'prompt,loss'; nothing where the first line is no such head."""
    rows = [line for line in lines if line.strip() and not line.lstrip().startswith("```")]
    for between in (",", ";", "\t"):
        head = [cell.strip().strip('"') for cell in rows[0].split(between)] if rows else []
        named = [i for i, cell in enumerate(head) if TEXT_COLUMN.fullmatch(cell) and len(cell) < 20]
        fits = len(named) == 1 and all(i in named or OTHER_COLUMN.fullmatch(cell) for i, cell in enumerate(head))
        if len(head) > 1 and fits and 1 < len(rows) <= MOST_ROWS:
            with suppress(csv.Error):
                body = list(csv.reader(rows[1:], delimiter=between, skipinitialspace=True))
                return [f"- {row[named[0]]}" for row in body if named[0] < len(row)]
    return []


def split_only_line(text: str) -> list[str]:
    """The items of an answer that is one line: 'a; b; c', or 'a, b, c' of several words each. The line itself else."""
    for mark in (";", " | ", " || ", ","):
        parts = [part.strip() for part in text.strip().rstrip(".").split(mark)]
        wordy = all(len(part.split()) > 1 for part in parts)
        alike = all(part[:1].isupper() for part in parts) or all(part.endswith("?") for part in parts)
        if len(parts) > 1 and wordy and (mark != "," or len(parts) > 2 or alike):
            return parts
    return [text]
