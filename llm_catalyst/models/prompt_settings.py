"""The `prompt` node of the configuration, which is checked without torch."""

from typing import Literal

from llm_catalyst.utils.validation import ConfigurationError, NonNegative, NonNegativeInt, PositiveInt, config_dataclass


@config_dataclass("prompt")
class PromptSettings:
    """The `prompt` node of the configuration. conf/config.yaml says what each field means."""

    length: PositiveInt = 8
    start: Literal["vocabulary", "normal", "text", "task", "file"] = "normal"
    text: str | None = None
    file: str | None = None
    std: NonNegative | None = None
    projection: Literal["cosine", "l2", "dot", "official"] = "cosine"
    word_start: bool = False
    special_tokens: bool = False
    fill: str | None = "repeat"
    projection_rows: tuple[NonNegativeInt, NonNegativeInt] | None = None
    as_text: bool = False

    def __post_init__(self) -> None:
        if self.start == "text" and not self.text:
            raise ConfigurationError("prompt.start=text needs prompt.text='a few words to start from'")
        if self.start == "file" and not self.file:
            raise ConfigurationError("prompt.start=file needs prompt.file=FILE, with one prompt on a line")
        if self.file and self.start != "file":
            raise ConfigurationError(
                f"prompt.file={self.file} is not read with prompt.start={self.start}; "
                "choose prompt.start=file, or leave prompt.file out"
            )
        if self.projection_rows and self.projection_rows[0] >= self.projection_rows[1]:
            given = list(self.projection_rows)
            raise ConfigurationError(f"prompt.projection_rows={given} holds no row; the second number must be larger")

    @property
    def as_written(self) -> bool:
        """Whether a text of n < m tokens is a prompt of n tokens, and not filled up to m."""
        return self.fill in ("none", None)
