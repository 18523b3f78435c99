"""Small real things for tests: a tokenizer, a vocabulary, prompts, a consultation. Nothing is downloaded."""

import random
from collections.abc import Sequence
from functools import cache

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from llm_catalyst.mentors.base import MentorContext, TaskDescription, Trial
from llm_catalyst.models.prompt_settings import PromptSettings
from llm_catalyst.models.soft_prompt import PromptSpace
from llm_catalyst.runs.records import Message, Prompt, Score, ScoredPrompt
from llm_catalyst.tasks.base import Example

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = (  # noqa: SIM905 - easier to read and to add to
    "a the is it this film movie review story good bad great poor fine dull how what does say about of and or "
    "not very positive negative mood tell me find judge sentence text was in to"
).split()
REVIEWS = (
    "dull from the first minute",
    "a fine story",
    "what a great film",
    "poor, bad and dull",
    "not good",
    "it was great",
    "bad movie",
    "good movie",
)
EXAMPLES = tuple(Example(((text, None),), label) for text, label in zip(REVIEWS, (0, 1, 1, 0, 0, 1, 0, 1), strict=True))
TASK = TaskDescription("sst2", "Say whether a film review is positive or negative.", ("negative", "positive"), EXAMPLES)
PIECES = ("##s", "##ly", "##ing", "##ed", ".", ",", "?", "!", ":")


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """A lower-case WordPiece tokenizer of about fifty tokens."""
    vocabulary = {piece: i for i, piece in enumerate((*SPECIAL, *WORDS, *PIECES))}
    pieces = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    pieces.normalizer = normalizers.BertNormalizer(lowercase=True)
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pieces.decoder = decoders.WordPiece(prefix="##")
    return PreTrainedTokenizerFast(
        tokenizer_object=pieces,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def prompt_space(length: int = 4, width: int = 8) -> PromptSpace:
    """Prompts of `length` tokens over the tiny tokenizer and a random vocabulary (v, width)."""
    generator = torch.Generator().manual_seed(0)
    vocabulary = torch.randn(len(tokenizer()), width, generator=generator)
    return PromptSpace(tokenizer(), vocabulary, PromptSettings(length=length))


def scored(space: PromptSpace, text: str, loss: float, metric: float) -> ScoredPrompt:
    """A pool entry from a text, as the gradient might have found it."""
    prompt: Prompt = space.fit(text)[0]
    return ScoredPrompt(prompt, Score(loss, metric, 32), "gradient", 0)


def consultation(pool: tuple[ScoredPrompt, ...] | None = None) -> MentorContext:
    """A consultation about `TASK`; its pool, unless another is given, holds a prompt of odd text, the best one last."""
    space = prompt_space(length=4)
    if pool is None:
        pool = (
            scored(space, "dull of dull of", 0.7345, 0.49),
            ScoredPrompt(Prompt((1, 2, 3, 4), 'odd "\n\u200b ##ing é 好'), Score(0.69, 0.5, 32), "gradient", 0),
            scored(space, "is it good or bad", 0.3, 0.9),
        )
    rng = random.Random(0)
    return MentorContext(TASK, pool, 0, 3, space, rng, lambda exchange: None, scored=pool, attempt=attempt, hints=hints)


def attempt(prompts: Sequence[Prompt], rows: Sequence[int]) -> list[list[Trial]]:
    """A prompt that says "good" finds the positive examples, and any other the negative ones."""
    answers = [int("good" in prompt.text) for prompt in prompts]
    return [
        [Trial(0.1 if (right := EXAMPLES[i].label == answer) else 2.0, TASK.labels[answer], right) for i in rows]
        for answer in answers
    ]


def hints(prompts: Sequence[Prompt]) -> list[tuple[tuple[int, ...], ...]]:
    """Each token is drawn to the same two."""
    great, fine = tokenizer().convert_tokens_to_ids(["great", "fine"])
    return [((great, fine),) * len(prompt.tokens) for prompt in prompts]


def conversation(messages: Sequence[Message]) -> str:
    """Messages as a golden file has them."""
    return "".join(f"=== {message.role} ===\n{message.content}\n" for message in messages)
