"""Quote the values of the command line, so that Hydra reads a text as it was typed.

Left to Hydra: values that it understands of keys that hold no text, what is quoted already ('a, b'), interpolations
with a resolver (${oc.env:HOME}), and in a sweep the commas between the values of a key.
"""

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import OmegaConf

from llm_catalyst.config.text_keys import Kind, find_kind
from llm_catalyst.utils.paths import expand_path
from llm_catalyst.utils.validation import ConfigurationError

QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
FUNCTION = re.compile(r"(?:choice|range|glob|interval|shuffle|sort|tag|str|extend_list)\(.*\)", re.DOTALL)
INTERPOLATION = re.compile(r"\$\{[\w.]+:")
BRACKETS = {"(": ")", "[": "]", "{": "}"}
FOLDERS = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir")


def quote_words(
    words: Sequence[str], sweeps: bool = False, folders: Sequence[Path] = (), plugins: Sequence[str] = ()
) -> list[str]:
    """The words, with quotes in each override whose value Hydra would refuse, or would not take as typed.

    Args:
        words: Of the command line; those that are no overrides are returned as they are.
        sweeps: Whether commas separate the values of a sweep (-m).
        folders: Of a user's own YAML files.
        plugins: Names of a user's packages, whose classes count as well.
    """
    kind_of = partial(find_kind, folders=folders, plugins=plugins)
    return [quote_override(word, sweeps, kind_of) for word in words]


def read_overrides(words: Sequence[str]) -> dict[str, Any]:
    """The keys that overrides set, as nested dicts.

    Raises:
        ConfigurationError: a word sets no key.
    """
    node = OmegaConf.create()
    for word in quote_words(words):
        if not re.match(r"[\w.]+=", word):
            raise ConfigurationError(f"{word} sets no key; write KEY=VALUE")
        override = OverridesParser.create().parse_override(word)
        OmegaConf.update(node, override.key_or_group, override.value())
    read: Any = OmegaConf.to_container(node, resolve=True)
    return dict(read)


def quote_override(word: str, sweeps: bool, kind_of: Callable[[str], Kind | None]) -> str:
    """One word of the command line with quotes where it needs them."""
    key, sign, typed = word.partition("=")
    if not sign or word.startswith(("-", "~")) or QUOTED.fullmatch(typed):
        return word
    name = key.lstrip("+")
    if name in FOLDERS and typed.startswith("~"):
        typed = str(expand_path(typed))
    understood, value = parse_value(typed)
    if understood and value == typed and ("${" not in typed or name.startswith("hydra.")):
        return f"{key}={typed}"
    kind = "text" if name in FOLDERS else kind_of(name)
    if kind is None and understood:
        return word
    parts = split_values(typed) if sweeps else [typed]
    if len(parts) > 1 and not all(part.strip() for part in parts):
        raise ConfigurationError(f"{word}: a value is missing before or behind a comma; write {key}=A,B")
    return f"{key}={','.join(quote_part(part, kind or 'text', name.startswith('hydra.'), sweeps) for part in parts)}"


def parse_value(text: str) -> tuple[bool, Any]:
    """Whether Hydra's grammar has this value, and what it then is."""
    try:
        return True, OverridesParser.create().parse_override(f"key={text}").value()
    except HydraException:
        return False, None


def quote_part(typed: str, kind: Kind, resolves: bool, sweeps: bool) -> str:
    """One of the values of a key with quotes where they are needed; with `resolves` ${…} is an interpolation."""
    if QUOTED.fullmatch(typed) or (sweeps and FUNCTION.fullmatch(typed)):
        return typed
    if kind == "optional text" and typed.lower() == "null":
        return typed
    if kind == "texts":
        inner = re.fullmatch(r"\[(.*)\]", typed, re.DOTALL)
        if inner is None:
            return typed if parse_value(typed)[0] else quote_text(typed, resolves)
        parts = [part.strip() for part in split_values(inner[1])] if inner[1].strip() else []
        return f"[{','.join(quote_part(part, 'text', resolves, False) for part in parts)}]"
    understood, value = parse_value(typed)
    plain = understood and value == typed and ("${" not in typed or resolves)
    return typed if plain else quote_text(typed, resolves)


def quote_text(text: str, resolves: bool = False) -> str:
    """A text between quotes, which Hydra and OmegaConf read as it is."""
    if not resolves and not INTERPOLATION.search(text):
        # OmegaConf reads \${ as ${, and doubles the backslashes before it.
        text = re.sub(r"(\\*)\$\{", lambda found: rf"{found[1]}{found[1]}\${{", text)
    single = "'" not in text or '"' in text
    return QuotedString(text, Quote.single if single else Quote.double).with_quotes()


def split_values(text: str) -> list[str]:
    """The parts between the commas that stand in no quotes and no brackets."""
    parts, open_brackets, start, position = [], list[str](), 0, 0
    while position < len(text):
        character = text[position]
        quoted = QUOTED.match(text, position) if position == start or text[position - 1] in ",[({ :" else None
        if quoted:
            position = quoted.end()
            continue
        if character in BRACKETS:
            open_brackets.append(BRACKETS[character])
        elif open_brackets and character == open_brackets[-1]:
            open_brackets.pop()
        elif character == "," and not open_brackets:
            parts.append(text[start:position])
            start = position + 1
        position += 1
    return [*parts, text[start:]]
