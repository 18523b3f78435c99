"""Tiny random models and their data for the golden runs: made of transformers alone, the same each time.

Run as a script, it makes them in the current folder.

Vocabularies are written down here rather than trained: the trainers of `tokenizers` give other merges each time.
"""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import pre_tokenizers
from transformers.models.bert import BertConfig, BertForMaskedLM, BertTokenizer
from transformers.models.clip import CLIPConfig, CLIPModel, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.gpt2 import GPT2Config, GPT2LMHeadModel, GPT2Tokenizer
from transformers.models.roberta import RobertaConfig, RobertaModel, RobertaTokenizer
from transformers.utils import logging

LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = (  # noqa: SIM905 - easier to read and to add to
    "the a film movie story was is it and so very not actor voice light plot scene long slow music because rain fell "
    "street wet man opened umbrella woman smiled guests left early"
).split()
LABELS = ("bad", "good")
SHAPES = "red green blue yellow circle square triangle photo of drawing blurry close up dark bright".split()  # noqa: SIM905

# Weights large enough that one prompt is told from another.
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "initializer_range": 0.15,
}
GPT2: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.1}
TOWER: dict[str, Any] = {
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "projection_dim": 16,
}


def make(home: Path) -> None:
    """Write every model below `home`/models and every task's rows below `home`/data."""
    logging.disable_progress_bar()
    save(home / "models" / "bert", BertForMaskedLM, BertConfig, word_piece(), SMALL)
    save(home / "models" / "gpt2", GPT2LMHeadModel, GPT2Config, gpt2_tokenizer(), GPT2)
    save(home / "models" / "roberta", RobertaModel, RobertaConfig, roberta_tokenizer(), SMALL | {"type_vocab_size": 1})
    save_clip(home / "models" / "clip")
    write_rows(home / "data" / "films" / "train.jsonl", films(48, seed=1))
    write_rows(home / "data" / "films" / "test.jsonl", films(20, seed=2))
    write_rows(home / "data" / "copa" / "train.jsonl", choices(24, seed=3))
    write_rows(home / "data" / "copa" / "validation.jsonl", choices(12, seed=4))


# Tokenizers


def word_piece() -> Any:
    """BERT's kind: each word a token, and letters for what is not one; '##' marks what continues a word."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused1]"]
    pieces = [*special, *LETTERS, *".,?", *(f"##{letter}" for letter in LETTERS), *WORDS, *LABELS]
    return BertTokenizer(vocab={piece: i for i, piece in enumerate(dict.fromkeys(pieces))})


def byte_pairs(special: Sequence[str]) -> dict[str, Any]:
    """Vocabulary and merges of a byte-level BPE tokenizer in which each word, with the blank before it, is a token."""
    merges: dict[tuple[str, str], None] = {}
    for word in (*WORDS, *LABELS, "yes", "no"):
        for end in range(len(word)):
            merges[f"Ġ{word[:end]}", word[end]] = None
    pieces = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in merges)]
    return {"vocab": {piece: i for i, piece in enumerate(pieces)}, "merges": list(merges)}


def roberta_tokenizer() -> Any:
    return RobertaTokenizer(**byte_pairs(["<s>", "<pad>", "</s>", "<unk>", "<mask>"]))


def gpt2_tokenizer() -> Any:
    return GPT2Tokenizer(**byte_pairs(["<|endoftext|>"]))


def clip_tokenizer() -> Any:
    """CLIP's kind: '</w>' ends a word; ids in its order, start and end of text the last."""
    merges: dict[tuple[str, str], None] = {}
    for word in SHAPES:
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        for end in range(1, len(pieces)):
            merges["".join(pieces[:end]), pieces[end]] = None
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    known = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges)]
    known += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={piece: i for i, piece in enumerate(dict.fromkeys(known))}, merges=list(merges))


# Models


def save(folder: Path, model: Any, config: Any, tokenizer: Any, sizes: dict[str, Any]) -> None:
    """A folder with a random model and its tokenizer, as a hub repository would hold them."""
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    torch.manual_seed(7)
    model(config(vocab_size=len(tokenizer), **ids, **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def save_clip(folder: Path) -> None:
    """The same of a CLIP, with its image processor."""
    tokenizer = clip_tokenizer()
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id")}
    text = TOWER | ids | {"vocab_size": len(tokenizer), "hidden_size": 32, "max_position_embeddings": 77}
    vision = TOWER | {"hidden_size": 24, "image_size": 32, "patch_size": 8}
    torch.manual_seed(7)
    model: Any = CLIPModel(
        CLIPConfig(text_config=text, vision_config=vision, projection_dim=16, initializer_factor=1.0)
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)


# Rows


def films(n: int, seed: int) -> list[dict[str, Any]]:
    """Sentences of 2 to 9 words, each with the word that is its label somewhere in it."""
    rng = random.Random(seed)
    rows = []
    for i in range(n):
        words = rng.choices(WORDS, k=rng.randint(1, 8))
        words.insert(rng.randint(0, len(words)), LABELS[i % 2])
        rows.append({"text": " ".join(words), "label": i % 2})
    return rows


def choices(n: int, seed: int) -> list[dict[str, Any]]:
    """COPA's rows: a premise, what is asked of it, two choices, and which is right: the one that says "good"."""
    rng = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for i in range(n):
        premise, right, wrong = (" ".join(rng.choices(WORDS, k=rng.randint(2, 5))) for _ in range(3))
        texts = [f"{right} good", f"{wrong} bad"]
        label = rng.randint(0, 1)
        asked = ("cause", "effect")[i % 2]
        first, second = texts if label == 0 else reversed(texts)
        rows.append({"premise": premise, "question": asked, "choice1": first, "choice2": second, "label": label})
    return rows


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    make(Path.cwd())
