"""The `prompt` node of the configuration, which is checked without torch."""

from typing import Literal

from llm_catalyst.utils.validation import ConfigurationError, NonNegative, PositiveInt, config_dataclass


@config_dataclass("prompt")
class PromptSettings:
    """The `prompt` node of the configuration. conf/config.yaml says what each field means."""

    length: PositiveInt = 8
    start: Literal["vocabulary", "normal", "text"] = "normal"
    text: str | None = None
    std: NonNegative | None = None
    projection: Literal["cosine", "l2", "dot", "official"] = "cosine"
    word_start: bool = False
    special_tokens: bool = False
    fill: str = "repeat"

    def __post_init__(self) -> None:
        if self.start == "text" and not self.text:
            raise ConfigurationError("prompt.start=text needs prompt.text='a few words to start from'")
