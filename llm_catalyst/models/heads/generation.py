"""The head of generation tasks: the language model's own, which writes the answer."""

from llm_catalyst.models.heads.base import Head
from llm_catalyst.utils.validation import config_dataclass


@config_dataclass("head")
class Generation(Head):
    """The language-model head of the backbone as it is: it has no weights to train, and no classes."""

    modality = "generation"
    words = True
