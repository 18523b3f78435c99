"""Prompts that somebody has written: a text file with one on each line."""

from llm_catalyst.utils.paths import expand_path
from llm_catalyst.utils.terminal import escape_controls
from llm_catalyst.utils.validation import ConfigurationError


def read_prompts(key: str, file: str) -> list[str]:
    """The prompts of a file, one on a line; blank lines are passed over.

    Args:
        key: of the configuration, which errors name.
        file: its path.

    Raises:
        ConfigurationError: the file cannot be read as UTF-8, or holds no prompt.
    """
    name = f"{key}={escape_controls(file)}"
    try:
        lines = expand_path(file).read_text(encoding="utf-8-sig").split("\n")  # a form feed ends no line
    except (OSError, ValueError) as error:  # not of UTF-8, or a zero in the path
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigurationError(
            f"{name} cannot be read ({why}); write a UTF-8 file with one prompt on a line"
        ) from None
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise ConfigurationError(f"{name} holds no prompt; write one on each line")
    return prompts
