"""Small real things for tests: a tokenizer, a vocabulary, prompts. Nothing is downloaded."""

from functools import cache

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from llm_catalyst.records import Prompt, Score, Scored
from llm_catalyst.soft_prompt import PromptSettings, PromptSpace

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = (  # noqa: SIM905 - easier to read and to add to
    "a the is it this film movie review story good bad great poor fine dull how what does say about of and or "
    "not very positive negative mood tell me find judge sentence text was in to"
).split()
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
