"""Small real things for tests: a tokenizer, a vocabulary, prompts, a consultation. Nothing is downloaded."""

import random
from collections.abc import Sequence
from functools import cache

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from llm_catalyst.mentors.consultation import Consultation, TaskDescription
from llm_catalyst.records import Message, Prompt, Score, Scored
from llm_catalyst.soft_prompt import PromptSettings, PromptSpace

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = (  # noqa: SIM905 - easier to read and to add to
    "a the is it this film movie review story good bad great poor fine dull how what does say about of and or "
    "not very positive negative mood tell me find judge sentence text was in to"
).split()
TASK = TaskDescription("sst2", "Say whether a film review is positive or negative.", ("negative", "positive"))
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


def scored(space: PromptSpace, text: str, loss: float, metric: float) -> Scored:
    """A pool entry from a text, as the gradient might have found it."""
    prompt: Prompt = space.fit(text)[0]
    return Scored(prompt, Score(loss, metric, 32), "gradient", 0)


def consultation(pool: tuple[Scored, ...] | None = None) -> Consultation:
    """A consultation about `TASK`; its pool, unless another is given, holds a prompt of odd text, the best one last."""
    space = prompt_space(length=4)
    if pool is None:
        pool = (
            scored(space, "dull of dull of", 0.7345, 0.49),
            Scored(Prompt((1, 2, 3, 4), 'odd "\n\u200b ##ing é 好'), Score(0.69, 0.5, 32), "gradient", 0),
            scored(space, "is it good or bad", 0.3, 0.9),
        )
    return Consultation(TASK, pool, 0, 3, space, random.Random(0), lambda exchange: None)


def conversation(messages: Sequence[Message]) -> str:
    """Messages as a golden file has them."""
    return "".join(f"=== {message.role} ===\n{message.content}\n" for message in messages)
