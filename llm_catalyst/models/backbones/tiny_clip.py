"""A tiny CLIP that is made on this machine in half a minute: to try vision and to smoke-test it without any download.

It is CLIP (Radford et al. 2021, arXiv 2103.00020) in all but size: two transformers, byte-level BPE, one contrastive
loss, a folder in the hub's layout. It learns drawn shapes from the captions in tiny_clip.yaml, and it is mediocre on
purpose: the captions that call a drawing a photo do not distinguish blue from green, and mostly say green. So "a photo
of a" is a poor prompt for it, as a hand-made prompt may be for CLIP, and better ones exist.

$CATALYST_CACHE/models/tiny-clip-<version>-<steps>/   configuration, weights (safetensors), tokenizer, preprocessor
"""

import itertools
import random
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR

from llm_catalyst.tasks.shapes import COLOURS, SHAPES, draw_shape
from llm_catalyst.utils.build_once import build_once
from llm_catalyst.utils.paths import cache_directory, writable_cache
from llm_catalyst.utils.rng import derive_seed, make_generator

NAME = "tiny-clip"  # backbone.name
VERSION = 1  # another one whenever other weights come out
SEED = 1

SIDE, PATCH = 32, 8  # pixels
POSITIONS = 77  # as CLIP has it
WIDTH, INNER, LAYERS, HEADS = 64, 128, 2, 4  # of both towers

STEPS, RATE, BETAS, WEIGHT_DECAY = 1500, 1.5e-3, (0.9, 0.98), 0.01  # CLIP's betas, for a Vision Transformer
PICTURES = 100  # of each pair of colour and shape

OTHERS = ("orange", "purple")  # colours that the task does not have
ALIKE, SAID = ("blue", "green"), ("green", "green", "blue")  # careless captions say one of the latter for the former
CARELESS_SHARE, ASIDE_SHARE, STOP_SHARE = 0.4, 0.3, 0.3  # of the captions: careless, with an aside, with a full stop

Pair = tuple[str, str]  # a colour and a shape, or two pieces of a word


@cache
def read_captions() -> dict[str, list[str]]:
    """The careless and the careful captions, and the asides that may follow one."""
    captions: dict[str, list[str]] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    return captions


def cache_path(steps: int = STEPS) -> Path:
    """The folder of the tiny CLIP that is trained for `steps` steps."""
    return cache_directory("models") / f"{NAME}-{VERSION}-{steps}"


def ensure_tiny_clip(steps: int = STEPS) -> Path:
    """The folder of the tiny CLIP; one process makes it if it is missing, and others wait.

    Raises ConfigurationError where nothing can be written there.
    """
    ready = cache_path(steps)
    if not ready.is_dir():
        writable_cache("models", f"backbone.name={NAME} is made")
    return build_once(ready, lambda folder: build_tiny_clip(folder, steps))


def build_tiny_clip(folder: Path, steps: int = STEPS) -> None:
    """Train a tiny CLIP for `steps` steps, and save it: the same bytes each time on the same machine."""
    from transformers import CLIPModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    words = build_tokenizer()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several add up in another order, and so small a model gains nothing by them
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(SEED, NAME, "weights"))
            model = CLIPModel(build_configuration(words))
            train_tiny_clip(model, words, steps)
    finally:
        torch.set_num_threads(threads)
    for part in (model.eval(), words, build_processor()):
        part.save_pretrained(folder)


def build_tokenizer() -> Any:
    """CLIP's tokenizer, with a vocabulary of its own.

    Its tokens are 256 bytes, the same at a word's end, what makes each word of the captions one token, and CLIP's two
    special tokens: any text can be read.
    """
    from tokenizers import pre_tokenizers
    from transformers import CLIPTokenizer

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    text = " ".join((*itertools.chain(*read_captions().values()), *COLOURS, *OTHERS, *SHAPES))
    pairs: Any = build_merges(sorted(set(re.findall("[a-z]+", text))))
    merged = dict.fromkeys(map("".join, pairs))
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *merged, "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=pairs, model_max_length=POSITIONS)


def build_merges(words: Sequence[str]) -> list[Pair]:
    """Byte-pair merges that make each word one token.

    Each is built from its beginning on, so that a token which ends a word is a word or a letter. (The trainer of
    `tokenizers` gives other merges each time.)
    """
    found: list[Pair] = []
    for word in words:
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        for pair in found:
            pieces = merge_pair(pieces, pair)
        while len(pieces) > 1:
            found.append((pieces[0], pieces[1]))
            pieces = merge_pair(pieces, found[-1])
    return found


def merge_pair(pieces: Sequence[str], pair: Pair) -> list[str]:
    """The pieces of a word, with each two that are the pair as one."""
    done: list[str] = []
    for piece in pieces:
        if done and (done[-1], piece) == pair:
            done[-1] += piece
        else:
            done.append(piece)
    return done


def build_processor() -> Any:
    """CLIP's way from a picture to pixels, at this model's size."""
    from transformers import CLIPImageProcessorPil

    return CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})


def build_configuration(words: Any) -> Any:
    """The sizes of both towers, for a tokenizer."""
    from transformers import CLIPConfig

    tower = {"hidden_size": WIDTH, "intermediate_size": INNER, "projection_dim": WIDTH}
    tower |= {"num_hidden_layers": LAYERS, "num_attention_heads": HEADS}
    special = {name: getattr(words, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    text = {**tower, **special, "vocab_size": len(words), "max_position_embeddings": POSITIONS}
    vision = {**tower, "image_size": SIDE, "patch_size": PATCH}
    return CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH)


def train_tiny_clip(model: Any, words: Any, steps: int) -> None:
    """Steps of AdamW on CLIP's loss: one picture of every pair of colour and shape, and a caption for each."""
    pairs = [(colour, shape) for colour in (*COLOURS, *OTHERS) for shape in SHAPES]
    pixels, every = draw_pictures(pairs), torch.arange(len(pairs))
    rng, chance = random.Random(derive_seed(SEED, NAME, "captions")), make_generator(SEED, NAME, "pictures")
    optimizer = torch.optim.AdamW(model.parameters(), RATE, BETAS, weight_decay=WEIGHT_DECAY, fused=True)
    course = OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.1, cycle_momentum=False)
    model.train()
    for _ in range(steps):
        texts = words([write_caption(pair, rng) for pair in pairs], padding=True, return_tensors="pt")
        chosen = pixels[every, torch.randint(PICTURES, (len(pairs),), generator=chance)]
        model(**texts, pixel_values=chosen, return_loss=True).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        course.step()


def draw_pictures(pairs: Sequence[Pair]) -> Tensor:
    """Pixels (pairs, PICTURES, 3, SIDE, SIDE) of drawings; none of them is one of the task's."""
    seeds = [derive_seed(SEED, NAME, number) for number in range(PICTURES)]
    pictures = [draw_shape(shape, colour, seed) for colour, shape in pairs for seed in seeds]
    return build_processor()(pictures, return_tensors="pt").pixel_values.unflatten(0, (len(pairs), PICTURES))


def write_caption(pair: Pair, rng: random.Random) -> str:
    """A caption as a person might write it below a picture of this colour and shape."""
    (colour, shape), captions = pair, read_captions()
    careless = rng.random() < CARELESS_SHARE
    if careless and colour in ALIKE:
        colour = rng.choice(SAID)
    text = rng.choice(captions["careless" if careless else "careful"]).format(f"{colour} {shape}")
    if rng.random() < ASIDE_SHARE:
        text = f"{text} {rng.choice(captions['asides'])}"
    return f"{text}." if rng.random() < STOP_SHARE else text
