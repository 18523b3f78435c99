"""Templates: text with the names of columns in braces. {{ and }} stand for braces."""

import re
from collections.abc import Mapping

from llm_catalyst.utils.validation import ConfigurationError

# A name may hold anything but braces: columns are called "Review Text", "answers.text", "0".
PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|([{}])")


def check_template(key: str, template: str) -> None:
    """Raise ConfigurationError unless braces hold the name of a column, and nothing stands in a single one."""
    for part in PART.finditer(template):
        if part[2]:
            raise ConfigurationError(f"{key}={template!r} is no template: a single {part[2]}; write {{column}}")
        if part[1] is not None and not part[1].strip():
            raise ConfigurationError(f"{key}={template!r} holds {{}}; name the column that goes there")


def list_columns(*templates: str) -> set[str]:
    """The columns that templates name, without blanks around them."""
    return {part[1].strip() for template in templates for part in PART.finditer(template) if part[1]}


def fill_template(template: str, values: Mapping[str, str]) -> str:
    """The template with the columns' values, without blanks around it."""
    return PART.sub(lambda part: values[part[1].strip()] if part[1] else part[0][0], template).strip()
