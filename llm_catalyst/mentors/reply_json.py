"""JSON values in a response: decoded where they are cut off or not quite JSON, and the fields that hold texts."""

import ast
import json
import re
import warnings
from contextlib import suppress
from typing import Any

JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|//[^\n]*|[\[\]{},"]|[^\s\[\]{},"/]+|/', re.DOTALL)
TEXT_FIELD = re.compile(r"prompt|template|text|instruction|proposal|candidate|content|answer|suggestion", re.IGNORECASE)
OTHER_FIELD = re.compile(
    r"reason|rationale|expla|thought|note|comment|analysis|loss|accuracy|score|error"
    r"|\b(?:old|original|current|previous)[_ ]",
    re.IGNORECASE,
)
MOST_REPAIRED = 20_000  # characters of one broken JSON value


def decode_value(answer: str, start: int) -> tuple[Any, int]:
    """The JSON value or Python list of strings at `start`, and its end; (None, start) if there is none."""
    with suppress(ValueError, RecursionError):
        return json.JSONDecoder(strict=False).raw_decode(answer, start)  # a text may have line ends
    with suppress(ValueError, RecursionError):
        repaired, end = repair_json(answer, start)
        return json.loads(repaired, strict=False), end
    end = answer.find("]", start, start + MOST_REPAIRED) + 1
    with warnings.catch_warnings(), suppress(ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        warnings.simplefilter("ignore")  # '\d' in a literal is a SyntaxWarning
        return ast.literal_eval(answer[start:end]), end  # "" is a SyntaxError
    return None, start


def repair_json(answer: str, start: int) -> tuple[str, int]:
    """The JSON value at `start` without comments and trailing commas, closed where it is cut off; where that begins."""
    kept, closing, end = list[str](), list[str](), start
    for token in JSON_TOKEN.finditer(answer, start, start + MOST_REPAIRED):
        text = token[0]
        if text == '"':  # of a text that does not end
            break
        if text in "]}":
            kept = kept[:-1] if kept[-1] == "," else kept
            if closing.pop() != text:
                return "", start
        if not text.startswith("//"):
            kept.append(text)
        closing += {"[": ["]"], "{": ["}"]}.get(text, [])
        end = token.end()
        if not closing:
            break
    while closing and len(kept) > 1:  # without the key of a value that did not come
        if kept[-1].endswith(":") or (closing[-1] == "}" and kept[-1][0] == '"' and not kept[-2].endswith(":")):
            del kept[-2 if kept[-1].endswith(":") else -1 :]
        elif kept[-1] == ",":
            kept.pop()
        else:
            break
    return "".join([*kept, *reversed(closing)]), end


def decode_inner(value: Any) -> Any:
    """The JSON in a text, as the arguments of a tool call are; any other value as it is."""
    with suppress(ValueError, RecursionError):
        return json.loads(value) if isinstance(value, str) and value[:1] in ("{", "[") else value
    return value


def choose_text_fields(value: dict[Any, Any]) -> set[Any]:
    """The keys of an object that contain its texts: named like texts, else nested values, else any string."""
    other = {key for key in value if not OTHER_FIELD.search(str(key))}
    named = {key for key in other if TEXT_FIELD.search(str(key))}
    nested = {key for key, item in value.items() if isinstance(item, list | dict)}
    strings = {key for key, item in value.items() if isinstance(item, str)}
    return named & nested or named & strings or other & nested or other & strings
