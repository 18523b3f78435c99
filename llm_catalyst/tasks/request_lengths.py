"""The tokens of requests and their answers, beside the positions of a model and the tokens that a response may have."""

from collections.abc import Mapping
from typing import Any

from llm_catalyst.tasks.answers import UNREADABLE_SHARE
from llm_catalyst.tasks.generation_task import GenerationTask
from llm_catalyst.tasks.request_batching import EncodedRequests
from llm_catalyst.utils.format import format_share
from llm_catalyst.utils.validation import ConfigurationError


def refuse_long_requests(
    splits: Mapping[Any, EncodedRequests], task: GenerationTask, prompt_length: int, model: str, positions: int | None
) -> None:
    """Raise ConfigurationError where requests and answers need more tokens than `model` has positions (None: any)."""
    if positions is None:
        return
    for name, split in splits.items():
        needed = [
            split.length(i) - len(answer) + prompt_length + max(task.max_new_tokens, len(answer))
            for i, answer in enumerate(split.answers)
        ]
        if beyond := sum(tokens > positions for tokens in needed):
            raise ConfigurationError(
                f"task={task.name}: {format_share(beyond, len(needed))} of {name} need up to {max(needed):,} tokens, "
                f"the prompt's {prompt_length} and the answer's included, and {model} has {positions:,} positions; "
                "make task.few_shot or task.max_new_tokens smaller, leave these rows out, or choose another backbone"
            )


def warn_long_answers(splits: Mapping[Any, EncodedRequests], task: GenerationTask) -> list[str]:
    """Warnings of references that have more tokens than a response may have.

    Raises:
        ConfigurationError: they are more than a twentieth of a split.
    """
    warnings = []
    for name, split in splits.items():
        lengths = [len(answer) for answer in split.answers]
        if longer := sum(length > task.max_new_tokens for length in lengths):
            said = (
                f"task.max_new_tokens={task.max_new_tokens} is less than the reference's tokens in "
                f"{format_share(longer, len(lengths))} of {name}, which have up to {max(lengths):,}"
            )
            if longer > UNREADABLE_SHARE * len(lengths):
                raise ConfigurationError(f"task={task.name}: {said}; raise it")
            warnings.append(said)
    return warnings
